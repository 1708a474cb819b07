"""The body of a classification network as a feature pyramid, the backbone of detectors and segmenters.

Floor: vision; may import train and below. Used by: applications.
"""

from typing import Any

import torch
from torch import Tensor, nn

from common.errors import ConfigError, one_of
from common.vision.architectures import SMALL, arch_names, check_start, find_weights, torchvision_network
from common.vision.small import small_body

SMALL_WIDTHS = (24, 48, 96, 144, 192)  # at strides 2, 4, 8, 16, 32
COARSE_WIDTHS = (32, 64, 128, 192)  # at strides 4, 8, 16, 32, for those that need nothing finer than stride 4
STEM = 16
PROBE = (192, 320)  # (height, width) in pixels of a probe image: their ratio tells spatial axes from channels
STOPS = (nn.AdaptiveAvgPool2d, nn.Linear, nn.Dropout, nn.LayerNorm)
LISTS = ("features", "layers", "trunk_output", "blocks", "body")
"""The attributes in which torchvision's networks hold their sequence of blocks."""


def backbone_names() -> list[str]:
    """Returns the architectures that can serve as a `Backbone`: those whose features halve in size step by step."""
    without = ("vit_", "alexnet", "squeezenet", "inception", "googlenet", "maxvit")
    return [name for name in arch_names() if not name.startswith(without)]


class Backbone(nn.Module):
    """The body of any classification network whose features halve in size step by step.

    Each stride's features are the last ones before the next halving. Final layers that only widen the channels for the
    classifier (the last 1x1 convolution of MobileNets and EfficientNets) are left out.

    Args:
        arch: ``small_resnet`` or one of torchvision's.
        strides: The strides to return, such as (8, 16, 32); a network may not have all of them.
        channels: The channels of the input image; torchvision's networks take 3.
        weights: Torchvision's weights, or None for random ones.

    Attributes:
        strides: The stride of each feature map in input pixels, ascending.
        widths: Channels of each map.

    Raises:
        ConfigError: if the network has no such pyramid.

    Shape:
        float (B, channels, H, W) to one (B, width, ceil(H / stride), ceil(W / stride)) for each stride.

    Examples:
        >>> [tuple(f.shape) for f in Backbone("small_resnet", (4, 8))(torch.zeros(1, 3, 32, 48))]
        [(1, 32, 8, 12), (1, 64, 4, 6)]
    """

    def __init__(
        self, arch: str, strides: tuple[int, ...] = (8, 16, 32), channels: int = 3, weights: Any = None
    ) -> None:
        super().__init__()
        one_of("arch", arch, arch_names())
        self.arch = arch
        if arch == SMALL:
            coarse = min(strides) >= 4
            widths, stride = (COARSE_WIDTHS, 2) if coarse else (SMALL_WIDTHS, 1)
            blocks = list(small_body(channels, STEM, widths, stride=stride))
        else:
            check_start(arch, channels)
            blocks = _blocks(torchvision_network(arch, weights))
        while blocks and not _looks_around(blocks[-1]):
            blocks.pop()
        places, found, self.last_axis = _probe(arch, blocks, channels)
        missing = [stride for stride in strides if stride not in places]
        if missing:
            known = ", ".join(map(str, places))
            raise ConfigError(f"{arch} has no features of stride {missing[0]}: it has {known or 'none'}")
        self.strides = tuple(sorted(strides))
        self.widths = tuple(found[stride] for stride in self.strides)
        self.taken = tuple(places[stride] for stride in self.strides)
        self.blocks = nn.ModuleList(blocks[: self.taken[-1] + 1])

    def forward(self, x: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.taken:
                found.append(x.permute(0, 3, 1, 2) if self.last_axis else x)
        return found

    def halves(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Returns two layer groups: the parameters of the blocks below the middle stride, and the rest."""
        middle = self.taken[len(self.taken) // 2] if len(self.taken) > 1 else len(self.blocks) // 2
        lower = [p for block in list(self.blocks)[:middle] for p in block.parameters()]
        own = {id(p) for p in lower}
        return lower, [p for p in self.parameters() if id(p) not in own]


def make_backbone(
    arch: str,
    strides: tuple[int, ...],
    channels: int = 3,
    *,
    pretrained: bool = False,
    weights: str | None = None,
) -> Backbone:
    """Returns a backbone by name, with ImageNet weights where they are asked for.

    Args:
        arch: ``small_resnet`` or one of torchvision's.
        strides: Which strides it gives.
        channels: Of the images.
        pretrained: Start from ImageNet weights.
        weights: Which of them; see `find_weights`.

    Raises:
        ConfigError: for an unknown name, or weights that cannot be had.
    """
    one_of("arch", arch, arch_names())
    check_start(arch, channels, pretrained)
    return Backbone(arch, strides, channels, find_weights(arch, weights) if pretrained else None)


def _blocks(network: nn.Module) -> list[nn.Module]:
    """The network's modules in the order in which they run, up to its pooling."""
    if getattr(network, "transform_input", False):
        raise ConfigError("its ImageNet weights take another normalisation of the image: choose another arch")
    found: list[nn.Module] = []
    for name, part in network.named_children():
        if isinstance(part, STOPS) or "aux" in name.lower():
            break
        found += list(part.children()) if name in LISTS else [part]
        if name == "features":
            break
    return found


def _looks_around(block: nn.Module) -> bool:
    """Whether a block is more than a mix of channels at each position: it has a spatial kernel or attention."""
    inside = list(block.modules())
    spatial = any(isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1 for m in inside)
    return spatial or any("Attention" in type(m).__name__ for m in inside)


def _probe(arch: str, blocks: list[nn.Module], channels: int) -> tuple[dict[int, int], dict[int, int], bool]:
    """The last block and the channels of each stride, and whether channels are the last axis, by a trial forward."""
    body = nn.Sequential(*blocks)
    training = body.training
    like = next(body.parameters())
    x = torch.zeros(1, channels, *PROBE, device=like.device, dtype=like.dtype)
    places: dict[int, int] = {}
    widths: dict[int, int] = {}
    last_axis = False
    try:
        with torch.no_grad():
            body.eval()
            for i, block in enumerate(blocks):
                x = block(x)
                shape = tuple(x.shape[1:])
                # Channels last (Swin), if the first two axes have the probe's aspect ratio.
                last_axis = len(shape) == 3 and shape[0] * PROBE[1] == shape[1] * PROBE[0] != shape[2] * PROBE[0]
                height, width, count = (*shape[:2], shape[2]) if last_axis else (*shape[1:], shape[0])
                stride = PROBE[0] // height
                if (height * stride, width * stride) != PROBE:
                    raise ValueError(f"features of {height} x {width} places")
                places[stride], widths[stride] = i, count
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        raise ConfigError(f"{arch} cannot be a backbone, its features do not halve step by step: {error}") from error
    finally:
        body.train(training)
    return places, widths, last_axis
