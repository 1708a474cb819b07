"""Models that are fitted at once: no epochs, no gradient steps over a loader; all else is as for a network."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import nn

from common.data.dataloaders import DataLoaders
from common.errors import ConfigError
from common.train.hooks import EventLog
from common.train.learner import Learner
from common.train.task import Task

Tell = Callable[[str], None]


def silent(said: str) -> None:
    """Takes what a model tells of its fit, and shows nothing."""


class FittedPart(nn.Module):
    """A part of a model that keeps something it has learned in files, not in tensors (trees)."""

    def file_names(self) -> tuple[str, ...]:
        """Returns the names of the `files` that it has once it is fitted."""
        return ()

    def files(self) -> dict[str, bytes]:
        """Returns what was learned and is no tensor, by name: UBJSON (``.ubj``) or JSON (``.json``)."""
        return {}

    def load_files(self, files: Mapping[str, bytes]) -> None:
        """Takes back `files`, each checked before anything trusts it.

        Raises:
            BundleError: naming the file and what is wrong in it.
        """


class FittedModel(FittedPart):
    """Base of what is fitted at once: boosted trees, closed forms, neighbours, ensembles of them and of networks.

    It is a torch module, so evaluation, pictures, predictor and bundle take it as they take a network: called with the
    inputs of a batch it returns outputs as its task takes them. What it has learned is in buffers and parameters and,
    where it is no tensor (trees), in `files`. `spec` describes it as far as needed to make one with buffers of the same
    shapes, and `from_spec` makes that one, empty.
    """

    registered_name: ClassVar[str]

    def train(self, mode: bool = True) -> Self:
        """Leaves every part in evaluation mode: what is in it was trained when it was fitted."""
        return super().train(False)

    def fit(self, dls: DataLoaders, task: Task, tell: Tell = silent) -> None:
        """Learns from ``dls.train.arrays()``; ``dls.valid``, where there is one, may only be chosen by.

        Args:
            dls: Loaders that a DataBlock made.
            task: The task whose outputs are asked for.
            tell: Is told in words what goes on.
        """
        raise NotImplementedError

    def spec(self) -> dict[str, Any]:
        """Returns the model, fitted or not, as JSON-ready data without what it has learned."""
        raise NotImplementedError

    @classmethod
    def from_spec(cls, fields: dict[str, Any]) -> Self:
        """Makes the empty model of a spec (without ``kind``), every field checked.

        Raises:
            ConfigError: for a field of the wrong type or range.
        """
        raise NotImplementedError


def part_file(path: str, name: str) -> str:
    """Returns the name in a bundle of a file of the part of a model at a path (``members.0``)."""
    return f"{path}.{name}" if path else name


def fitted_parts(model: nn.Module) -> dict[str, FittedPart]:
    """Returns the parts of a model (itself too) that may have files, by their path."""
    return {path: part for path, part in model.named_modules() if isinstance(part, FittedPart)}


class AtOnce(Learner):
    """Fits a model at once; the rest is as with a `Trainer`: validate, get_preds, predict, show_results, export.

    Args:
        model: The model.
        dls: Loaders that a DataBlock made.
        task: The domain's losses, metrics and records.
        metrics: Metrics to show; the task's own when None.
        progress: Whether to tell what goes on.
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
        """Fits the model to the training part, measures it on the validation part and notes both in ``history``."""
        rows = self.train_loader().n
        if self.log is not None:
            self.log.path.parent.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        self.fitted.fit(self.dls, self.task, self._tell)
        seconds = time.perf_counter() - started
        found = self.validate() if self.dls.has("valid") else {}
        rate = round(rows / max(seconds, 1e-9), 1)
        self.history.append({"epoch": 0, **found, "seconds": round(seconds, 4), "items_per_second": rate})
        if self.log is not None:
            self.log.write("fitted", **self.history[-1])

    def _tell(self, said: str) -> None:
        if self.progress:
            print(said, flush=True)
        if self.log is not None:
            self.log.write("note", said=said)
