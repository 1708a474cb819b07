"""One call from a table's loaders to a learner of the ensemble."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from applications.tabular.config import EnsembleConfig
from applications.tabular.ensemble import TabularEnsemble
from applications.tabular.reading import TableReading
from applications.tabular.task import TabularClassification, TabularRegression
from common.blocks.block import CategoryBlock, MultiCategoryBlock, RegressionBlock
from common.data.dataloaders import DataLoaders
from common.errors import ConfigError
from common.task.task import Task
from common.text.encoder import TextEncoder
from common.train.at_once import AtOnce


def make_task(dls: DataLoaders, quantiles: Sequence[float] = ()) -> Task:
    """Returns the task of loaders: classification, or regression with the target's mean and deviation.

    Args:
        dls: Loaders of a ColumnsBlock and a CategoryBlock or RegressionBlock.
        quantiles: For a number: the quantiles to predict in addition.

    Raises:
        ConfigError: if their last block is neither, or quantiles are requested for classes.
    """
    block = dls.blocks[-1]
    if isinstance(block, CategoryBlock) and not isinstance(block, MultiCategoryBlock):
        if quantiles:
            raise ConfigError("quantiles are for a target that is a number, this one names classes")
        return TabularClassification(block.vocab)
    if not isinstance(block, RegressionBlock):
        raise ConfigError(f"a table needs a CategoryBlock or RegressionBlock as target, got {type(block).__name__}")
    values = dls.train.arrays().y.numpy().astype(np.float64)
    if values.ndim > 1:
        raise ConfigError(f"a table has one number as target, got rows of {values.shape[1]}")
    spread = float(values.std())
    return TabularRegression(float(values.mean()), spread if spread > 0 else 1.0, tuple(quantiles))


def tabular_learner(
    dls: DataLoaders,
    members: Sequence[str] | None = None,
    metrics: Any = None,
    *,
    target: str = "",
    quantiles: Sequence[float] = (),
    config: EnsembleConfig | None = None,
    text_encoder: TextEncoder | None = None,
    progress: bool = True,
    out: str | Path | None = None,
) -> AtOnce:
    """Returns a learner of an ensemble on these loaders: call ``fit()``.

    Args:
        dls: Loaders of a ColumnsBlock and a CategoryBlock or RegressionBlock.
        members: The members, see `MEMBERS`; the config's when None.
        metrics: Metrics to show; the task's own when None.
        target: The target's column, for evaluation of the bundle.
        quantiles: For a number: the quantiles to predict in addition.
        config: The ensemble's configuration.
        text_encoder: A pretrained transformer that reads the texts; the block must have its tokenizer.
        progress: Whether to print progress messages.
        out: A folder for ``events.jsonl``, or None.

    Raises:
        ConfigError: for an unknown member, or blocks that are not columns and a target.
    """
    task = make_task(dls, quantiles)
    chosen = config or EnsembleConfig()
    if members is not None:
        chosen = replace(chosen, members=tuple(members))
    model = TabularEnsemble(chosen, text_encoder=text_encoder)
    learner = AtOnce(model, dls, task, metrics=metrics, progress=progress, out=out)
    learner.reading = TableReading(target=target or None)
    return learner
