"""A Trainer of a model that is made by name, shared by the learners of all image domains.

Floor: vision; may import train and below. Used by: applications.
"""

from typing import Any, Protocol

from torch import nn

from common.data.dataloaders import DataLoaders
from common.task.task import Task
from common.train.options import TrainerOptions
from common.train.trainer import Trainer
from common.vision.architectures import SMALL


class MakesModel(Protocol):
    """An application's ``create_model``: makes a model by its name for a number of classes."""

    def __call__(
        self, arch: str, classes: int, /, *, channels: int, pretrained: bool, weights: str | None, seed: int
    ) -> nn.Module: ...


def trainer_by_name(
    create_model: MakesModel,
    name: str,
    classes: int,
    dls: DataLoaders,
    task: Task,
    options: TrainerOptions | None,
    *,
    pretrained: bool,
    weights: str | None,
    metrics: Any = None,
) -> Trainer:
    """Returns a Trainer of a model that is made by name for the images of these loaders.

    Args:
        create_model: Makes the model.
        name: The architecture; ``small_resnet`` has no pretrained weights.
        classes: The number of classes.
        dls: Loaders with an image among their inputs.
        task: The task.
        options: How to train; its seed initialises the weights too.
        pretrained: Whether to start from pretrained weights.
        weights: The name of the pretrained weights, or None.
        metrics: Metrics to show; the task's own when None.
    """
    chosen = options or TrainerOptions()
    model = create_model(
        name,
        classes,
        channels=dls.channels,
        pretrained=pretrained and name != SMALL,
        weights=weights,
        seed=chosen.seed,
    )
    return Trainer(model, dls, task, chosen, metrics=metrics)
