"""Training of models that are fitted in one call, without epochs or gradient steps; all else is as for a network.

Floor: train; may import deploy and below. Used by: applications.
"""

import time
from pathlib import Path
from typing import Any

from common.data.dataloaders import DataLoaders
from common.errors import ConfigError
from common.task.fitted import FittedModel
from common.task.task import Task
from common.train.hooks import EventLog
from common.train.learner import Learner


class AtOnce(Learner):
    """Fits a model in one call; the rest is as with a `Trainer`: validate, get_preds, predict, show_results, export.

    Args:
        model: The model.
        dls: Loaders that a DataBlock made.
        task: The domain's losses, metrics and records.
        metrics: Metrics to show; the task's own when None.
        progress: Whether to print progress messages.
        out: A folder for ``events.jsonl``, or None.

    Raises:
        ConfigError: if the model is not one that is fitted at once.
    """

    def __init__(
        self,
        model: FittedModel,
        dls: DataLoaders,
        task: Task,
        *,
        metrics: Any = None,
        progress: bool = True,
        out: str | Path | None = None,
    ) -> None:
        if not isinstance(model, FittedModel):
            raise ConfigError(f"{type(model).__name__} learns step by step: give it to a Trainer")
        super().__init__(model, dls, task, "cpu", metrics=metrics)
        self.fitted = model
        self.progress = progress
        self.log = None if out is None else EventLog(Path(out) / "events.jsonl")

    def fit(self) -> None:
        """Fits the model to the training part, evaluates it on the validation part and appends to ``history``."""
        rows = self.train_loader().n
        if self.log is not None:
            self.log.path.parent.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        self.fitted.fit(self.dls, self.task, self._tell)
        seconds = time.perf_counter() - started
        measured = self.validate() if self.dls.has("valid") else {}
        rate = round(rows / max(seconds, 1e-9), 1)
        self.history.append({"epoch": 0, **measured, "seconds": round(seconds, 4), "items_per_second": rate})
        if self.log is not None:
            self.log.write("fitted", **self.history[-1])

    def _tell(self, said: str) -> None:
        if self.progress:
            print(said, flush=True)
        if self.log is not None:
            self.log.write("note", said=said)
