"""Models for image classification: any of torchvision's by name, and a small residual network for small images."""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

from torch import Tensor, nn

from common.counter import seeded_weights
from common.errors import ConfigError, in_range, nearest
from common.registry import register
from common.spec import Configured
from common.vision.architectures import SMALL, arch_names, check_arch, check_start, find_weights, torchvision_network
from common.vision.small import small_body


@dataclass(frozen=True, kw_only=True)
class SmallResNetConfig:
    """The configuration of a `SmallResNet`.

    Attributes:
        arch: Always ``small_resnet``.
        classes: The number of outputs.
        channels: The channels of the input image, 1 or 3.
        stem: Channels of the first convolution.
        widths: Channels of each stage; a stage halves height and width.
        dropout: Dropout rate before the last layer, in [0, 1).
    """

    arch: str = SMALL
    classes: int
    channels: int = 3
    stem: int = 16
    widths: tuple[int, ...] = (24, 48, 96)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        in_range("classes", self.classes, 1, 1_000_000)
        in_range("channels", self.channels, 1, 64)
        for width in (self.stem, *self.widths):
            in_range("widths", width, 1, 4096)
        in_range("widths (their number)", len(self.widths), 1, 8)
        in_range("dropout", self.dropout, 0, 1, open_high=True)


@register("model", "small_resnet")
class SmallResNet(Configured, nn.Module):
    """A residual network for images of 8 to 64 pixels: 0.17 million parameters, 5.5 million multiplications at 28x28.

    Args:
        config: The network's configuration.

    Shape:
        float (B, channels, H, W) to (B, classes).
    """

    config_type: ClassVar[type[Any]] = SmallResNetConfig
    config: SmallResNetConfig

    def __init__(self, config: SmallResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.body = small_body(config.channels, config.stem, config.widths)
        self.head = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear((config.stem, *config.widths)[-1], config.classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        return self.head(features.mean(dim=(2, 3)) + features.amax(dim=(2, 3)))

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Returns the body's and the head's parameters."""
        return [list(self.body.parameters()), list(self.head.parameters())]


@dataclass(frozen=True, kw_only=True)
class TorchvisionConfig:
    """The configuration of a `TorchvisionClassifier`.

    Attributes:
        arch: The name, as in ``torchvision.models.list_models()``.
        classes: The number of outputs.
        dropout: Dropout rate before the last layer, in [0, 1).
    """

    arch: str
    classes: int
    dropout: float = 0.0

    def __post_init__(self) -> None:
        known = arch_names()[1:]
        if self.arch not in known:
            raise ConfigError(f"arch {self.arch!r} is not one of torchvision's: {nearest(self.arch, known)}")
        in_range("classes", self.classes, 1, 1_000_000)
        in_range("dropout", self.dropout, 0, 1, open_high=True)


@register("model", "torchvision_classifier")
class TorchvisionClassifier(Configured, nn.Module):
    """One of torchvision's classification models with a new last layer.

    Args:
        config: The model's configuration.
        weights: The name of torchvision's weights to start from, or None for random ones.

    Shape:
        float (B, 3, H, W) to (B, classes).
    """

    config_type: ClassVar[type[Any]] = TorchvisionConfig
    config: TorchvisionConfig

    def __init__(self, config: TorchvisionConfig, weights: Any = None) -> None:
        super().__init__()
        self.config = config
        network = torchvision_network(config.arch, weights)
        if config.arch in ("googlenet", "inception_v3"):
            _drop_auxiliary(network)
        name, old = _last_layer(network)
        linear: nn.Module
        if isinstance(old, nn.Linear):
            linear = nn.Linear(old.in_features, config.classes)
        else:
            linear = nn.Conv2d(old.in_channels, config.classes, kernel_size=1)
        if config.dropout:
            linear = nn.Sequential(nn.Dropout(config.dropout), linear)
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, linear)
        self.head_name = name
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Returns the parameters of the body's lower half, its upper half and the head."""
        head = list(self.head.parameters())
        own = {id(p) for p in head}
        body = [p for p in self.network.parameters() if id(p) not in own]
        half = _boundary(self.network, len(body))
        return [body[:half], body[half:], head]

    @property
    def head(self) -> nn.Module:
        """The new last layer."""
        return self.network.get_submodule(self.head_name)


def _boundary(network: nn.Module, count: int) -> int:
    """The number of parameters before the block that begins nearest to their half: groups never split a block."""
    blocks: list[nn.Module] = [network]
    while len(blocks) < 8 and any(list(block.children()) for block in blocks):
        blocks = [part for block in blocks for part in (list(block.children()) or [block])]
    begins = accumulate(len(list(block.parameters())) for block in blocks)
    inside = [begin for begin in begins if 0 < begin < count]
    return min(inside, key=lambda begin: abs(begin - count / 2), default=count // 2)


def _drop_auxiliary(network: nn.Module) -> None:
    for name in ("aux1", "aux2", "AuxLogits"):
        if hasattr(network, name):
            setattr(network, name, None)
    network.aux_logits = False  # type: ignore[reportAttributeAccessIssue]


def _last_layer(network: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The layer that gives the 1000 ImageNet classes: the last linear one, or SqueezeNet's last convolution."""
    for name, module in reversed(list(network.named_modules())):
        if isinstance(module, nn.Linear) and module.out_features == 1000:
            return name, module
        if isinstance(module, nn.Conv2d) and module.out_channels == 1000:
            return name, module
    raise ConfigError(f"{type(network).__name__} has no layer of 1000 classes to replace")


def create_model(
    arch: str,
    classes: int,
    *,
    channels: int = 3,
    pretrained: bool = False,
    weights: str | None = None,
    seed: int = 0,
    dropout: float = 0.0,
) -> nn.Module:
    """Returns a classification model by name.

    Args:
        arch: ``small_resnet`` or one of torchvision's.
        classes: The number of outputs.
        channels: The channels of the images; torchvision's models take 3.
        pretrained: Whether to start from ImageNet weights.
        weights: The name of the weights, e.g. ``IMAGENET1K_V1``; see `find_weights`.
        seed: Seed of the random weights.
        dropout: Dropout rate before the last layer, in addition to the model's own.

    Raises:
        ConfigError: for an unknown name, channels that do not fit, or unavailable weights.

    Examples:
        >>> import torch
        >>> create_model("small_resnet", 10, channels=1)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    check_arch(arch)
    check_start(arch, channels, pretrained)
    with seeded_weights(seed):
        if arch == SMALL:
            return SmallResNet(SmallResNetConfig(classes=classes, channels=channels, dropout=dropout))
        config = TorchvisionConfig(arch=arch, classes=classes, dropout=dropout)
        return TorchvisionClassifier(config, find_weights(arch, weights) if pretrained else None)
