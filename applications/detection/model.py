"""Detectors by name: the project's own over any classification network, and torchvision's."""

from torch import nn

from applications.detection.anchor_free import STRIDES, AnchorFreeConfig, AnchorFreeDetector
from applications.detection.torchvision_detector import (
    TorchvisionDetector,
    TorchvisionDetectorConfig,
    torchvision_names,
)
from common.counter import seeded_weights
from common.errors import one_of
from common.vision.architectures import check_start, find_weights
from common.vision.backbone import backbone_names, make_backbone


def arch_names() -> list[str]:
    """Returns every name: classification networks for our own detector, and torchvision's detectors."""
    return [*backbone_names(), *torchvision_names()]


def check_arch(arch: str) -> None:
    """Checks the name of an architecture.

    Raises:
        ConfigError: if there is none of that name; the message lists similar ones.
    """
    one_of("arch", arch, arch_names())


def create_model(
    arch: str,
    classes: int,
    *,
    channels: int = 3,
    pretrained: bool = False,
    weights: str | None = None,
    seed: int = 0,
) -> nn.Module:
    """Returns a detector by name.

    Args:
        arch: A classification network (``small_resnet``, ``mobilenet_v2``, …) as backbone of the project's own
            detector; or one of torchvision's detectors (``fcos_resnet50_fpn``, …).
        classes: The number of classes.
        channels: The channels of the images; torchvision's detectors take 3.
        pretrained: Whether to start from ImageNet weights of the backbone; for torchvision's detectors from COCO
            weights.
        weights: The name of the weights; see `find_weights`.
        seed: Seed of the random weights.

    Raises:
        ConfigError: for an unknown name, channels that do not fit, or unavailable weights.

    Examples:
        >>> import torch
        >>> model = create_model("small_resnet", 2).eval()
        >>> [sorted(found) for found in model(torch.zeros(1, 3, 64, 64))["detections"]]
        [['boxes', 'labels', 'scores']]
    """
    check_arch(arch)
    theirs = arch in torchvision_names()
    check_start(arch, channels, pretrained)
    with seeded_weights(seed):
        if theirs:
            chosen = find_weights(arch, weights) if pretrained else None
            return TorchvisionDetector(TorchvisionDetectorConfig(arch=arch, classes=classes), chosen)
        backbone = make_backbone(arch, STRIDES, channels, pretrained=pretrained, weights=weights)
        return AnchorFreeDetector(AnchorFreeConfig(arch=arch, classes=classes, channels=channels), backbone)
