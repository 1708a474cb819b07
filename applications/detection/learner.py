"""One call from loaders to a trainer: the detector by name for these classes, the task, the options."""

from collections.abc import Callable, Sequence
from typing import Any

from applications.detection.model import create_model
from applications.detection.task import DetectionTask
from applications.detection.torchvision_detector import gives_masks
from common.blocks.objects import BBoxBlock, InstanceBlock
from common.data.dataloaders import DataLoaders
from common.errors import ConfigError
from common.train.options import TrainerOptions
from common.train.trainer import Trainer
from common.vision.architectures import arch_name
from common.vision.learner import trainer_by_name


def make_task(dls: DataLoaders, category_ids: Sequence[int] = ()) -> DetectionTask:
    """Returns the detection task of loaders: their classes, with masks or without.

    Args:
        dls: Loaders that a DataBlock made.
        category_ids: The number of each class in records; 1, 2, … when empty.

    Raises:
        ConfigError: if their targets are not boxes (and instances).
    """
    encoder = dls.train.store.encoder
    first, *more = encoder.y_blocks or (None,)
    if not isinstance(first, BBoxBlock) or not all(isinstance(block, InstanceBlock) for block in more):
        raise ConfigError("detection needs a BBoxBlock as target, and for masks an InstanceBlock behind it")
    return DetectionTask(first.vocab, category_ids=tuple(category_ids), masks=bool(more))


def detection_learner(
    dls: DataLoaders,
    arch: str | Callable[..., Any] = "small_resnet",
    metrics: Any = None,
    *,
    pretrained: bool = True,
    weights: str | None = None,
    category_ids: Sequence[int] = (),
    options: TrainerOptions | None = None,
) -> Trainer:
    """Returns a Trainer of a detector for these loaders.

    Args:
        dls: Loaders of an ImageBlock and a BBoxBlock (and an InstanceBlock for Mask R-CNN).
        arch: A classification network for our own detector, or one of torchvision's detectors; see `create_model`. A
            name, or torchvision's function (``resnet18``).
        metrics: Metrics to show; none when None.
        pretrained: Whether to start from ImageNet weights (``small_resnet`` has none and ignores it), or for
            torchvision's detectors from COCO weights.
        weights: The name of the weights.
        category_ids: The number of each class in records.
        options: How to train.

    Raises:
        ConfigError: for an unknown name, or blocks that are not an image and boxes.
    """
    name, task = arch_name(arch), make_task(dls, category_ids)
    if task.masks != gives_masks(name):
        raise ConfigError(f"{name} and the targets disagree: Mask R-CNN, and only that, needs an InstanceBlock")
    return trainer_by_name(
        create_model, name, len(task.vocab), dls, task, options,
        pretrained=pretrained, weights=weights, metrics=metrics,
    )  # fmt: skip
