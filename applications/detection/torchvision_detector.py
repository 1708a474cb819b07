"""torchvision's detectors by name, with the interface of ours: batched images and padded targets in, detections out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from common.errors import ConfigError, in_range, nearest
from common.registry import register
from common.spec import Configured
from common.vision.architectures import torchvision_network

LEAST_SCORE = 0.01
BACKGROUND = 1  # the shift of class ids: torchvision reserves class 0 for the background


def torchvision_names() -> list[str]:
    """Returns the names of torchvision's detectors of boxes (and masks)."""
    from torchvision import models

    return [name for name in models.list_models(module=models.detection) if not name.startswith("keypoint")]


def gives_masks(arch: str) -> bool:
    """Returns whether a detector of that name predicts masks as well as boxes."""
    return arch.startswith("maskrcnn")


@dataclass(frozen=True, kw_only=True)
class TorchvisionDetectorConfig:
    """The configuration of a `TorchvisionDetector`.

    Attributes:
        arch: The name, as in ``torchvision.models.list_models(module=torchvision.models.detection)``.
        classes: The number of classes, without the background.
    """

    arch: str
    classes: int

    def __post_init__(self) -> None:
        known = torchvision_names()
        if self.arch not in known:
            raise ConfigError(f"arch {self.arch!r} is not one of torchvision's detectors: {nearest(self.arch, known)}")
        in_range("classes", self.classes, 1, 100_000)

    @property
    def masks(self) -> bool:
        """Whether it predicts masks."""
        return gives_masks(self.arch)


@register("model", "torchvision_detector")
class TorchvisionDetector(Configured, nn.Module):
    """One of torchvision's detectors (Faster and Mask R-CNN, RetinaNet, FCOS, SSD) for our batches.

    The DataBlock normalises and resizes, so the detector's own transform only pads. The loss is the sum of its losses
    over the batch, the same number for each image.

    Args:
        config: The detector's configuration.
        weights: torchvision's weights of the whole detector to start from; layers that depend on the number of classes
            stay random.
        backbone: torchvision's weights of its backbone alone.

    Shape:
        As `AnchorFreeDetector`; targets of Mask R-CNN have ``instances`` int16 (B, H, W) too, and its detections
        ``masks`` float (N, H, W), probabilities.
    """

    config_type: ClassVar[type[Any]] = TorchvisionDetectorConfig
    config: TorchvisionDetectorConfig

    def __init__(self, config: TorchvisionDetectorConfig, weights: Any = None, backbone: Any = None) -> None:
        super().__init__()
        self.config = config
        rcnn = "rcnn" in config.arch
        score = {"box_score_thresh" if rcnn else "score_thresh": LEAST_SCORE}
        classes = config.classes + BACKGROUND
        network: Any = torchvision_network(config.arch, weights_backbone=backbone, num_classes=classes, **score)
        if weights is not None:
            _load_fitting(network, weights)
        network.transform.image_mean, network.transform.image_std = [0.0] * 3, [1.0] * 3
        network.transform.resize = _as_it_is
        self.network = network

    def forward(self, images: Tensor, targets: Any = None) -> dict[str, Any]:
        found: dict[str, Any] = {}
        listed = list(images)
        if targets is not None:
            with self._learning():
                parts: dict[str, Tensor] = self.network(listed, self._listed(targets))
            total = torch.stack(list(parts.values())).sum()
            found["losses"] = total.expand(len(images))
        if not self.training:
            found["detections"] = [self._found(one) for one in self.network(listed)]
        return found

    @contextmanager
    def _learning(self) -> Iterator[None]:
        """Makes the detector return losses, also in evaluation; the mode of norms and dropout is unchanged."""
        heads = [self.network, *(getattr(self.network, name, None) for name in ("rpn", "roi_heads"))]
        parts = [part for part in heads if part is not None]
        before = [part.training for part in parts]
        for part in parts:
            part.training = True
        try:
            yield
        finally:
            for part, was in zip(parts, before, strict=True):
                part.training = was

    def _listed(self, targets: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """The targets of each image without padding, in torchvision's format."""
        made: list[dict[str, Tensor]] = []
        for i, valid in enumerate(targets["valid"]):
            one = {"boxes": targets["boxes"][i][valid], "labels": targets["labels"][i][valid] + BACKGROUND}
            if self.config.masks:
                rows = torch.nonzero(valid)[:, 0] + 1
                one["masks"] = (targets["instances"][i][None] == rows[:, None, None]).to(torch.uint8)
            made.append(one)
        return made

    def _found(self, one: dict[str, Tensor]) -> dict[str, Tensor]:
        made = {"boxes": one["boxes"], "scores": one["scores"], "labels": one["labels"] - BACKGROUND}
        if self.config.masks:
            made["masks"] = one["masks"][:, 0]
        return made

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Returns the parameters of the backbone's lower half, its upper half, and all other layers."""
        body = [p for p in self.network.backbone.parameters() if p.requires_grad]
        own = {id(p) for p in body}
        rest = [p for p in self.parameters() if id(p) not in own]
        return [body[: len(body) // 2], body[len(body) // 2 :], rest]


def _as_it_is(image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
    """Replaces torchvision's resize: images already have the size that the DataBlock gave them."""
    return image, target


def _load_fitting(network: nn.Module, weights: Any) -> None:
    """Loads the tensors of the weights whose shapes match the network's."""
    try:
        given: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"the weights {weights} could not be loaded or downloaded: {error}") from error
    own = network.state_dict()
    network.load_state_dict({k: v for k, v in given.items() if k in own and own[k].shape == v.shape}, strict=False)
