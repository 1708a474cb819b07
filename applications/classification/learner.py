"""One call from loaders to a trainer: the model by name with its head for these classes, the task, the options."""

from collections.abc import Callable
from functools import partial
from typing import Any

from applications.classification.model import create_model
from common.blocks.block import CategoryBlock, MultiCategoryBlock
from common.data.dataloaders import DataLoaders
from common.errors import ConfigError
from common.train import ClassificationTask
from common.train.options import TrainerOptions
from common.train.trainer import Trainer
from common.vision.architectures import arch_name
from common.vision.learner import trainer_by_name


def make_task(dls: DataLoaders, label_smoothing: float = 0.0, threshold: float = 0.5) -> ClassificationTask:
    """Returns the classification task of loaders: their classes, one label or several.

    Args:
        dls: Loaders that a DataBlock made.
        label_smoothing: Share of the target that is spread over all classes.
        threshold: For several labels: the probability above which one is predicted.

    Raises:
        ConfigError: if their last block is not a category.
    """
    block = dls.blocks[-1]
    if not isinstance(block, CategoryBlock):
        raise ConfigError(f"classification needs a CategoryBlock or MultiCategoryBlock, got {type(block).__name__}")
    many = isinstance(block, MultiCategoryBlock)
    return ClassificationTask(block.vocab, many, label_smoothing, threshold)


def vision_learner(
    dls: DataLoaders,
    arch: str | Callable[..., Any],
    metrics: Any = None,
    *,
    pretrained: bool = True,
    weights: str | None = None,
    label_smoothing: float = 0.0,
    dropout: float = 0.0,
    options: TrainerOptions | None = None,
) -> Trainer:
    """Returns a Trainer of an image classifier for these loaders.

    Args:
        dls: Loaders of an ImageBlock and a CategoryBlock or MultiCategoryBlock.
        arch: ``small_resnet``, a torchvision name, or torchvision's function (``resnet18``).
        metrics: Metrics to show; the task's own when None.
        pretrained: Start from ImageNet weights (``small_resnet`` has none and ignores it).
        weights: Which of torchvision's weights; see `find_weights`.
        label_smoothing: Share of the target that is spread over all classes.
        dropout: Dropout rate before the last layer, in addition to the model's own.
        options: How to train.

    Raises:
        ConfigError: for an unknown name, or blocks that are not an image and a category.
    """
    name = arch_name(arch)
    task = make_task(dls, label_smoothing)
    return trainer_by_name(
        partial(create_model, dropout=dropout), name, len(task.vocab), dls, task, options,
        pretrained=pretrained, weights=weights, metrics=metrics,
    )  # fmt: skip


cnn_learner = vision_learner  # the book's older name
