"""Evaluating a bundle on a table, reading inputs for it, and the simple rules that a model is set beside."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from applications.tabular.data import embedded_table, read_source
from applications.tabular.task import TabularClassification, TabularRegression
from common.deploy.predictor import Predictor
from common.errors import ConfigError
from common.sources.tables import read_table
from common.task.task import Outputs, Task


def evaluate(
    predictor: Predictor,
    data: str | Path | None,
    split: str | None = None,
    on_error: str = "raise",
    target: str | None = None,
) -> dict[str, float]:
    """Returns the metrics of a predictor on a table in any form that `read_source` takes.

    Args:
        predictor: Of a tabular bundle.
        data: The source; None: the embedded table.
        split: ``train``, ``valid`` or ``test``; None: the test part where there is one, else everything.
        on_error: What happens to a row that cannot be used: ``raise`` or ``skip``.
        target: The column that holds the truth; the one that the bundle was made with when None.

    Raises:
        DataError: if the data is not there, has no such part or column, or has classes that the bundle has not.
    """
    task = predictor.task
    if not isinstance(task, (TabularClassification, TabularRegression)):
        raise ConfigError(f"this needs a predictor of a table, got one of {task.domain}")
    classes = isinstance(task, TabularClassification)
    source = embedded_table() if data is None else read_source(data, target or task.target or None, classes=classes)
    return predictor.evaluate_source(source, split, on_error)


def read_inputs(path: str | Path) -> pd.DataFrame:
    """Returns the rows of a table in a file, to predict for each.

    Args:
        path: A CSV, TSV, JSONL or parquet file, also gzipped.

    Raises:
        DataError: if it is no table.
    """
    return read_table(Path(path))


def baseline(task: Task, train: Tensor, target: Tensor) -> dict[str, dict[str, float]]:
    """Returns the metrics of the simple rule: the most frequent class, or the mean.

    Args:
        task: Of the model.
        train: The targets of the training rows.
        target: Those of the part that is measured.
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
