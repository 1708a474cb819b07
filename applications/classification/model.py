"""Models for image classification: any of torchvision's by name, and a small residual network for small images."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.counter import MODEL_STREAM, key
from common.errors import ConfigError, in_range, nearest, one_of
from common.registry import register
from common.spec import build

SMALL = "small_resnet"


def arch_names() -> list[str]:
    """Returns every architecture name: ``small_resnet`` and torchvision's classification models."""
    from torchvision import models

    return [SMALL, *models.list_models(module=models)]


def check_arch(arch: str) -> None:
    """Checks the name of an architecture.

    Raises:
        ConfigError: if there is none of that name; the message holds the near ones.
    """
    one_of("arch", arch, arch_names())


@dataclass(frozen=True, kw_only=True)
class SmallResNetConfig:
    """What a `SmallResNet` is made of.

    Attributes:
        arch: Always ``small_resnet``.
        classes: How many outputs.
        channels: Of the input image, 1 or 3.
        width: Channels of the first stage; doubled in each of the two that follow.
        dropout: Before the last layer, in [0, 1).
    """

    arch: str = SMALL
    classes: int
    channels: int = 3
    width: int = 32
    dropout: float = 0.1

    def __post_init__(self) -> None:
        in_range("classes", self.classes, 1, 1_000_000)
        in_range("channels", self.channels, 1, 64)
        in_range("width", self.width, 1, 1024)
        in_range("dropout", self.dropout, 0, 1, open_high=True)


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity (He et al. 2016), (B, C, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


@register("model", "small_resnet")
class SmallResNet(nn.Module):
    """A residual network for images of 8 to 64 pixels: three stages, about 0.7 million parameters at width 32.

    Args:
        config: What it is made of.

    Shape:
        float (B, channels, H, W) to (B, classes).
    """

    def __init__(self, config: SmallResNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.body = nn.Sequential(
            _conv(config.channels, width),
            _conv(width, 2 * width, stride=2),
            Residual(2 * width),
            _conv(2 * width, 4 * width, stride=2),
            Residual(4 * width),
        )
        self.head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(8 * width, config.classes))

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        return self.head(pooled)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Returns the body's and the head's parameters."""
        return [list(self.body.parameters()), list(self.head.parameters())]

    def spec(self) -> dict[str, Any]:
        """Returns the model as JSON-ready data."""
        return {"kind": "small_resnet", **asdict(self.config)}

    @classmethod
    def from_spec(cls, fields: dict[str, Any]) -> "SmallResNet":
        """Builds the untrained model from `spec`.

        Raises:
            ConfigError: for a field of the wrong type or range.
        """
        return cls(build(SmallResNetConfig, fields, "model"))


@dataclass(frozen=True, kw_only=True)
class TorchvisionConfig:
    """Which of torchvision's models, and its head.

    Attributes:
        arch: The name, as in ``torchvision.models.list_models()``.
        classes: How many outputs.
        dropout: Before the last layer, in [0, 1).
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
class TorchvisionClassifier(nn.Module):
    """One of torchvision's classification models with a new last layer.

    Args:
        config: Which one.
        weights: The name of torchvision's weights to start from, or None for random ones.

    Shape:
        float (B, 3, H, W) to (B, classes).
    """

    def __init__(self, config: TorchvisionConfig, weights: Any = None) -> None:
        super().__init__()
        from torchvision import models

        self.config = config
        extra: dict[str, Any] = {}
        if config.arch in ("googlenet", "inception_v3"):
            extra = {"init_weights": False} if weights is None else {}
        network = cast(nn.Module, models.get_model(config.arch, weights=weights, **extra))
        if config.arch in ("googlenet", "inception_v3"):
            _drop_auxiliary(network)
        name, old = _last_layer(network)
        linear: nn.Module
        if isinstance(old, nn.Linear):
            linear = nn.Linear(old.in_features, config.classes)
        else:
            linear = nn.Conv2d(cast(nn.Conv2d, old).in_channels, config.classes, kernel_size=1)
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
        head = list(self.network.get_submodule(self.head_name).parameters())
        own = {id(p) for p in head}
        body = [p for p in self.network.parameters() if id(p) not in own]
        half = len(body) // 2
        return [body[:half], body[half:], head]

    def spec(self) -> dict[str, Any]:
        """Returns the model as JSON-ready data."""
        return {"kind": "torchvision_classifier", **asdict(self.config)}

    @classmethod
    def from_spec(cls, fields: dict[str, Any]) -> "TorchvisionClassifier":
        """Builds the untrained model from `spec`; never loads or downloads weights.

        Raises:
            ConfigError: for a field of the wrong type or an unknown architecture.
        """
        return cls(build(TorchvisionConfig, fields, "model"))


def _drop_auxiliary(network: nn.Module) -> None:
    for name in ("aux1", "aux2", "AuxLogits"):
        if hasattr(network, name):
            setattr(network, name, None)
    network.aux_logits = False  # type: ignore[reportAttributeAccessIssue]


def _last_layer(network: nn.Module) -> tuple[str, nn.Module]:
    """The layer that gives the 1000 ImageNet classes: the last linear one, or SqueezeNet's last convolution."""
    for name, module in reversed(list(network.named_modules())):
        if isinstance(module, nn.Linear) and module.out_features == 1000:
            return name, module
        if isinstance(module, nn.Conv2d) and module.out_channels == 1000:
            return name, module
    raise ConfigError(f"{type(network).__name__} has no layer of 1000 classes to replace")


def find_weights(arch: str, name: str | None = None) -> Any:
    """Returns torchvision's weights for an architecture: those named, else some that are on this machine, else the
    default ones (which torchvision downloads).

    Raises:
        ConfigError: if there are none of that name.
    """
    from torchvision import models

    known = list(cast("Any", models.get_model_weights(arch)))
    if name is not None:
        for weights in known:
            if weights.name.lower() == name.lower():
                return weights
        raise ConfigError(f"{arch} has no weights {name!r}: {nearest(name, [w.name for w in known])}")
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    present = [w for w in known if (folder / Path(str(w.url)).name).exists()]
    return present[-1] if present else models.get_model_weights(arch).DEFAULT  # type: ignore[reportAttributeAccessIssue]


def create_model(
    arch: str,
    classes: int,
    *,
    channels: int = 3,
    pretrained: bool = False,
    weights: str | None = None,
    seed: int = 0,
    dropout: float | None = None,
) -> nn.Module:
    """Returns a classification model by name.

    Args:
        arch: ``small_resnet`` or one of torchvision's.
        classes: How many outputs.
        channels: Of the images; torchvision's models take 3.
        pretrained: Start from ImageNet weights.
        weights: Which of them, e.g. ``IMAGENET1K_V1``; see `find_weights`.
        seed: Of the random weights.
        dropout: Before the last layer; the model's own when None.

    Raises:
        ConfigError: for an unknown name, channels that do not fit, or weights that cannot be had.

    Examples:
        >>> create_model("small_resnet", 10, channels=1)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    check_arch(arch)
    if arch == SMALL and pretrained:
        raise ConfigError("small_resnet has no pretrained weights: leave out pretrained, or choose another arch")
    if arch != SMALL and channels != 3:
        raise ConfigError(f"{arch} takes images of 3 channels, these have {channels}: use ImageBlock(mode='RGB')")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, MODEL_STREAM) >> 1)
        if arch == SMALL:
            extra = {} if dropout is None else {"dropout": dropout}
            return SmallResNet(SmallResNetConfig(classes=classes, channels=channels, **extra))
        config = TorchvisionConfig(arch=arch, classes=classes, dropout=dropout or 0.0)
        chosen = find_weights(arch, weights) if pretrained else None
        try:
            return TorchvisionClassifier(config, chosen)
        except (OSError, RuntimeError) as error:
            if chosen is None:
                raise
            raise ConfigError(f"the weights {chosen} could not be loaded or downloaded: {error}") from error
