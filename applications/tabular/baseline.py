"""The simple baselines with which a model of a table is compared."""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from applications.tabular.task import TabularRegression
from common.task.task import Outputs, Task


def baseline(task: Task, train: Tensor, target: Tensor) -> dict[str, dict[str, float]]:
    """Returns the metrics of a constant prediction: the most frequent class, or the mean.

    Args:
        task: The model's task.
        train: The targets of the training rows.
        target: The targets of the evaluated part.
    """
    if isinstance(task, TabularRegression):
        mean = torch.full((len(target),), float(train.double().mean()))
        if task.quantiles:
            ends = [torch.full_like(mean, float(np.quantile(train.double().numpy(), q))) for q in task.quantiles]
            mean = torch.stack([mean, *ends], dim=1)
        return {"mean of train": task.report(Outputs(mean, target))}
    classes = len(cast(Any, task).vocab)
    shares = torch.bincount(train, minlength=classes).double().clamp(min=1e-9) / len(train)
    return {"most frequent class": task.report(Outputs(shares.log().float().expand(len(target), classes), target))}
