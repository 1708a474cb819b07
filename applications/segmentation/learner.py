"""One call from loaders to a trainer: the model by name for these classes, the task, the options."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from applications.segmentation.model import create_model
from applications.segmentation.task import SegmentationTask
from common.blocks.spatial import MaskBlock
from common.data.dataloaders import DataLoaders
from common.errors import ConfigError, one_of
from common.train.options import TrainerOptions
from common.train.trainer import Trainer
from common.vision.architectures import arch_name
from common.vision.learner import trainer_by_name

LOSSES: tuple[str, ...] = ("cross_entropy", "focal", "dice")


def loss_weights(loss: str) -> dict[str, float]:
    """Returns the weight of each part of a loss from its name: parts joined by ``+``, each with a weight before ``*``.

    Args:
        loss: A loss such as ``cross_entropy``, ``cross_entropy+dice`` or ``focal+0.5*dice``.

    Raises:
        ConfigError: for an unknown part, or a weight that is not a number.

    Examples:
        >>> loss_weights("focal+0.5*dice")
        {'cross_entropy': 0.0, 'focal': 1.0, 'dice': 0.5}
    """
    weights: dict[str, float] = dict.fromkeys(LOSSES, 0.0)
    for part in loss.split("+"):
        weight, star, name = part.strip().rpartition("*")
        one_of("loss", name.strip(), LOSSES)
        try:
            weights[name.strip()] += float(weight) if star else 1.0
        except ValueError:
            raise ConfigError(f"loss: the weight {weight!r} in {part.strip()!r} is not a number") from None
    return weights


def make_task(
    dls: DataLoaders, loss: str = "cross_entropy", class_weights: Sequence[float] = (), gamma: float = 2.0
) -> SegmentationTask:
    """Returns the segmentation task of loaders: the classes of their MaskBlock.

    Args:
        dls: Loaders that a DataBlock made.
        loss: The parts of the loss; see `loss_weights`.
        class_weights: The weight of each class's pixels; empty: all equal.
        gamma: The focusing parameter of the focal loss.

    Raises:
        ConfigError: if their last block is not a MaskBlock with codes.
    """
    block = dls.blocks[-1]
    if not isinstance(block, MaskBlock) or not block.codes:
        found = type(block).__name__ + (" without codes" if isinstance(block, MaskBlock) else "")
        raise ConfigError(f"segmentation needs a MaskBlock with the codes of its classes, got {found}")
    parts = loss_weights(loss)
    return SegmentationTask(
        block.codes, block.ignore, block.values, block.colors, parts["cross_entropy"], parts["focal"], parts["dice"],
        tuple(class_weights), gamma,
    )  # fmt: skip


def segmentation_learner(
    dls: DataLoaders,
    arch: str | Callable[..., Any],
    metrics: Any = None,
    *,
    pretrained: bool = True,
    weights: str | None = None,
    loss: str = "cross_entropy",
    class_weights: Sequence[float] = (),
    dropout: float = 0.0,
    options: TrainerOptions | None = None,
) -> Trainer:
    """Returns a Trainer of a segmentation model for these loaders.

    Args:
        dls: Loaders of an ImageBlock and a MaskBlock.
        arch: A name that `create_model` takes, or torchvision's function (``resnet18``).
        metrics: Metrics to show; the task's own when None.
        pretrained: Whether to start from ImageNet weights (``small_resnet`` has none and ignores it).
        weights: The name of torchvision's weights; see `find_weights`.
        loss: ``cross_entropy``, ``focal``, ``dice`` or several joined by ``+``; see `loss_weights`.
        class_weights: The weight of each class's pixels; empty: all equal.
        dropout: Dropout rate of whole channels before a U-Net's last layer.
        options: How to train.

    Raises:
        ConfigError: for an unknown name, or blocks that are not an image and a mask.
    """
    name = arch_name(arch)
    task = make_task(dls, loss, class_weights)
    return trainer_by_name(
        partial(create_model, dropout=dropout), name, len(task.codes), dls, task, options,
        pretrained=pretrained, weights=weights, metrics=metrics,
    )  # fmt: skip


unet_learner = segmentation_learner  # the book's name
