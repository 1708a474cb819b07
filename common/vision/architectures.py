"""Architectures by name: any of torchvision's classifiers, and the small residual network of this project.

Floor: vision; may import train and below. Used by: applications, recipes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.errors import ConfigError, nearest, one_of

SMALL = "small_resnet"


def arch_names() -> list[str]:
    """Returns every architecture name: ``small_resnet`` and torchvision's classification models."""
    from torchvision import models

    return [SMALL, *models.list_models(module=models)]


def check_arch(arch: str) -> None:
    """Checks the name of an architecture.

    Raises:
        ConfigError: if there is none of that name; the message lists similar ones.
    """
    one_of("arch", arch, arch_names())


def arch_name(arch: str | Callable[..., Any]) -> str:
    """Returns the name of an architecture from the name, or from torchvision's function (``resnet18``).

    Args:
        arch: The name, or the function.
    """
    return arch if isinstance(arch, str) else str(getattr(arch, "__name__", arch))


def check_start(arch: str, channels: int = 3, pretrained: bool = False) -> None:
    """Checks that an architecture takes images of some channels, and has pretrained weights if requested.

    Args:
        arch: A name; all but ``small_resnet`` are torchvision's.
        channels: The channels of the images.
        pretrained: Whether training starts from pretrained weights.

    Raises:
        ConfigError: if it does not.
    """
    if arch == SMALL and pretrained:
        raise ConfigError("small_resnet has no pretrained weights: leave out pretrained, or choose another arch")
    if arch != SMALL and channels != 3:
        raise ConfigError(f"{arch} takes images of 3 channels, these have {channels}: use ImageBlock(mode='RGB')")


def find_weights(arch: str, name: str | None = None) -> Any:
    """Returns torchvision's weights for an architecture.

    The named ones; else the last listed ones on this machine; else the default ones, which torchvision downloads.

    Args:
        arch: One of torchvision's models.
        name: Which weights, e.g. ``IMAGENET1K_V1``.

    Raises:
        ConfigError: if there are none of that name.
    """
    from torchvision import models

    known = list(models.get_model_weights(arch))
    if name is not None:
        for weights in known:
            if weights.name.lower() == name.lower():
                return weights
        raise ConfigError(f"{arch} has no weights {name!r}: {nearest(name, [w.name for w in known])}")
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    present = [w for w in known if (folder / Path(str(w.url)).name).exists()]
    return present[-1] if present else models.get_model_weights(arch).DEFAULT  # type: ignore[reportAttributeAccessIssue]


def torchvision_network(arch: str, weights: Any = None, weights_backbone: Any = None, **options: Any) -> nn.Module:
    """Returns one of torchvision's networks.

    Args:
        arch: Its name, as in ``torchvision.models.list_models()``.
        weights: The weights to start from (see `find_weights`), or None for random ones.
        weights_backbone: The weights of the backbone of a detector or segmenter, or None for random ones.
        options: Further arguments of torchvision's function.

    Raises:
        ConfigError: if the weights cannot be loaded or downloaded.
    """
    from torchvision import models

    if arch in ("googlenet", "inception_v3") and weights is None:
        options = {"init_weights": False, **options}
    if arch not in arch_names():  # a detector or segmenter
        options = {"weights_backbone": weights_backbone, **options}
    try:
        return models.get_model(arch, weights=weights, **options)
    except (OSError, RuntimeError) as error:
        given = weights or weights_backbone
        if given is None:
            raise
        raise ConfigError(f"the weights {given} could not be loaded or downloaded: {error}") from error
