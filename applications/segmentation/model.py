"""Models for segmentation: a U-Net over any classification network, and torchvision's segmenters by name."""

from dataclasses import dataclass
from math import log2
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.counter import seeded_weights
from common.errors import ConfigError, in_range, one_of
from common.registry import register
from common.spec import Configured
from common.vision.architectures import SMALL, check_start, find_weights, torchvision_network
from common.vision.backbone import Backbone, backbone_names, make_backbone

SMALL_STRIDES = (2, 4, 8, 16)
SMALL_WIDTHS = (16, 32, 48)
COARSE_STRIDES = (4, 8, 16, 32)


def segmenter_names() -> list[str]:
    """Returns the names of torchvision's segmentation models."""
    from torchvision.models import list_models, segmentation

    return list_models(module=segmentation)


def arch_names() -> list[str]:
    """Returns every name that `create_model` takes: backbones of a U-Net, and torchvision's segmenters."""
    return [*backbone_names(), *segmenter_names()]


def check_arch(arch: str) -> None:
    """Checks the name of an architecture.

    Args:
        arch: A name that `create_model` takes.

    Raises:
        ConfigError: if there is none of that name; the message lists similar ones.
    """
    one_of("arch", arch, arch_names())


@dataclass(frozen=True, kw_only=True)
class UnetConfig:
    """The configuration of a `Unet`.

    Attributes:
        arch: The classification network of the encoder: ``small_resnet`` or one of torchvision's.
        classes: The number of outputs per pixel.
        channels: The channels of the input image; torchvision's networks take 3.
        strides: The strides of the encoder's features in use, ascending.
        widths: Channels of the decoder at each stride except the last.
        dropout: Dropout rate of whole channels before the last layer, in [0, 1).
    """

    arch: str = SMALL
    classes: int
    channels: int = 3
    strides: tuple[int, ...] = SMALL_STRIDES
    widths: tuple[int, ...] = SMALL_WIDTHS
    dropout: float = 0.0

    def __post_init__(self) -> None:
        one_of("arch", self.arch, backbone_names())
        in_range("classes", self.classes, 1, 255)
        in_range("channels", self.channels, 1, 64)
        in_range("strides (their number)", len(self.strides), 2, 8)
        if len(self.widths) != len(self.strides) - 1:
            raise ConfigError(f"widths must have one entry a stride but the last, got {self.widths} for {self.strides}")
        for width in self.widths:
            in_range("widths", width, 1, 4096)
        in_range("dropout", self.dropout, 0, 1, open_high=True)


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions with norms: (B, inputs, h, w) to (B, outputs, h, w)."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True)]
    return nn.Sequential(*layers)


class Decoder(nn.Module):
    """A U-Net decoder over a feature pyramid: upsample, concatenate with the finer features, two convolutions.

    Args:
        features: Channels of the features, finest first.
        widths: Channels of the decoder at each of them except the coarsest.
    """

    def __init__(self, features: tuple[int, ...], widths: tuple[int, ...]) -> None:
        super().__init__()
        below = (*widths[1:], features[-1])
        self.steps = nn.ModuleList(
            _twice(inputs + skip, width) for inputs, skip, width in zip(below, features[:-1], widths, strict=True)
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Returns (B, widths[0], h, w) at the finest features' size.

        Args:
            features: The features, finest first.
        """
        x = features[-1]
        for skip, step in zip(reversed(features[:-1]), reversed(self.steps), strict=True):
            x = F.interpolate(x, size=skip.shape[2:], mode="nearest")
            x = step(torch.cat([x, skip], dim=1))
        return x


@register("model", "unet")
class Unet(Configured, nn.Module):
    """A U-Net (Ronneberger et al. 2015) with a classification network as encoder.

    Args:
        config: The network's configuration.
        body: The encoder, with its weights; a new one with random weights when None.

    Shape:
        float (B, channels, H, W) to (B, classes, H, W), of any height and width.
    """

    config_type: ClassVar[type[Any]] = UnetConfig
    config: UnetConfig

    def __init__(self, config: UnetConfig, body: Backbone | None = None) -> None:
        super().__init__()
        self.config = config
        self.body = body or make_backbone(config.arch, config.strides, config.channels)
        self.decoder = Decoder(self.body.widths, config.widths)
        self.head = nn.Sequential(nn.Dropout2d(config.dropout), nn.Conv2d(config.widths[0], config.classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(self.decoder(self.body(x)))
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Returns the parameters of the body's lower half, its upper half, and decoder and head."""
        return [*self.body.halves(), [*self.decoder.parameters(), *self.head.parameters()]]


@dataclass(frozen=True, kw_only=True)
class TorchvisionSegmenterConfig:
    """Which of torchvision's segmenters.

    Attributes:
        arch: Its name, as in ``torchvision.models.list_models(module=torchvision.models.segmentation)``.
        classes: How many outputs per pixel.
        auxiliary: Whether it has the auxiliary head of its reference training (LR-ASPP never has).
    """

    arch: str
    classes: int
    auxiliary: bool = True

    def __post_init__(self) -> None:
        one_of("arch", self.arch, segmenter_names())
        in_range("classes", self.classes, 1, 255)


@register("model", "torchvision_segmenter")
class TorchvisionSegmenter(Configured, nn.Module):
    """One of torchvision's segmenters: DeepLabV3, FCN or LR-ASPP.

    Args:
        config: The segmenter's configuration.
        weights: Torchvision's weights of its backbone, or None for random ones.

    Shape:
        float (B, 3, H, W) to (B, classes, H, W); in training a dictionary with ``out`` and, with an auxiliary head,
        ``aux``, both of that shape.
    """

    config_type: ClassVar[type[Any]] = TorchvisionSegmenterConfig
    config: TorchvisionSegmenterConfig

    def __init__(self, config: TorchvisionSegmenterConfig, weights: Any = None) -> None:
        super().__init__()
        self.config = config
        aux = {} if config.arch.startswith("lraspp") else {"aux_loss": config.auxiliary}
        self.network = torchvision_network(config.arch, weights_backbone=weights, num_classes=config.classes, **aux)

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        found: dict[str, Tensor] = self.network(x)
        return dict(found) if self.training else found["out"]

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Returns the parameters of the body's lower half, its upper half, and the heads."""
        body = list(cast(nn.Module, self.network.backbone).parameters())
        own = {id(p) for p in body}
        return [body[: len(body) // 2], body[len(body) // 2 :], [p for p in self.parameters() if id(p) not in own]]


def _body(arch: str, channels: int, pretrained: bool, weights: str | None) -> Backbone:
    """A backbone with features from stride 2 on, or from the finest stride that it has."""
    if arch == SMALL:
        return make_backbone(arch, SMALL_STRIDES, channels, pretrained=pretrained)
    try:
        return make_backbone(arch, (2, *COARSE_STRIDES), channels, pretrained=pretrained, weights=weights)
    except ConfigError:  # transformers and ConvNeXt start with patches of 4 x 4 pixels
        return make_backbone(arch, COARSE_STRIDES, channels, pretrained=pretrained, weights=weights)


def _decoder_widths(body: Backbone) -> tuple[int, ...]:
    """The decoder's channels: the backbone's at each stride except the coarsest, within bounds that grow with it."""
    if body.arch == SMALL:
        return SMALL_WIDTHS
    levels = [max(1, round(log2(stride))) for stride in body.strides[:-1]]
    return tuple(min(max(width, 24 * n), 64 * n) for width, n in zip(body.widths, levels, strict=False))


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
    """Returns a segmentation model by name.

    Args:
        arch: ``small_resnet`` or one of torchvision's classifiers, for a `Unet` over it; or one of torchvision's
            segmenters, such as ``deeplabv3_mobilenet_v3_large``.
        classes: The number of outputs per pixel.
        channels: The channels of the images; torchvision's networks take 3.
        pretrained: Whether to start the backbone from ImageNet weights.
        weights: The name of the weights, e.g. ``IMAGENET1K_V1``; see `find_weights`.
        seed: Seed of the random weights.
        dropout: Dropout rate of whole channels before a U-Net's last layer.

    Raises:
        ConfigError: for an unknown name, channels that do not fit, or unavailable weights.

    Examples:
        >>> create_model("small_resnet", 3)(torch.zeros(1, 3, 40, 52)).shape
        torch.Size([1, 3, 40, 52])
    """
    check_arch(arch)
    theirs = arch in segmenter_names()
    check_start(arch, channels, pretrained)
    with seeded_weights(seed):
        if theirs:
            config = TorchvisionSegmenterConfig(arch=arch, classes=classes)
            return TorchvisionSegmenter(config, find_weights(arch.partition("_")[2], weights) if pretrained else None)
        body = _body(arch, channels, pretrained, weights)
        unet = UnetConfig(
            arch=arch, classes=classes, channels=channels, strides=body.strides, widths=_decoder_widths(body),
            dropout=dropout,
        )  # fmt: skip
        return Unet(unet, body)
