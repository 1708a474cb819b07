"""The learner: a model with its data and its task, and all that follows training, however it was trained.

Floor: train; may import deploy and below. Used by: recipes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.blocks.batch import Batch
from common.data.dataloaders import DataLoaders
from common.data.loader import Loader
from common.deploy.part import BundlePart
from common.errors import ConfigError
from common.task.evaluate import batches_of, collect
from common.task.metrics import Metric, as_metrics
from common.task.task import Outputs, Record, Task

_NOT_MEASURED = ("lr", "wait_seconds")


class Learner:
    """A model with its data and its task: evaluation, predictions, pictures and export.

    Base of the two ways to train: `Trainer` (gradient steps) and `AtOnce` (trees, closed forms, neighbours, ensembles).

    Args:
        model: The model, on ``device``.
        dls: The loaders; ours or any torch DataLoaders that yield (x, y).
        task: The domain's losses, metrics and records.
        device: The device that the model is on.
        metrics: Metrics to show; the task's own when None.

    Attributes:
        history: One record of numbers for each evaluation.
        reading: The options with which the data was read, of the domain's ``reading`` class; a bundle stores them.
            None: its defaults.
    """

    def __init__(
        self, model: nn.Module, dls: DataLoaders, task: Task, device: str | torch.device = "cpu", *, metrics: Any = None
    ) -> None:
        self.model, self.task = model, task
        self.device = torch.device(device)
        self.dls = dls.to(self.device)
        self.metrics: tuple[Metric, ...] = as_metrics(metrics) if metrics is not None else task.metrics()
        self.history: list[dict[str, Any]] = []
        self.reading: Any = None

    @property
    def domain(self) -> str:
        """The name of the domain of the model and the task; see `domain_of`."""
        from common.deploy.domain import domain_of

        return domain_of(self.model, self.task)

    # -------------------------------------------------------------- evaluation

    def _forward(self) -> Callable[..., Any]:
        return self.model

    def _gather(self, own: list[Tensor]) -> list[list[Tensor]]:
        """Returns the tensors of every process, one list each."""
        return [own]

    @torch.no_grad()
    def measure(self, loader: Any, between: Callable[[], None] | None = None) -> dict[str, float]:
        """Returns the loss and the metrics over a loader; nothing is read from the device before its last batch.

        Args:
            loader: The loader.
            between: Called after each batch.
        """
        self.model.eval()
        forward = self._forward()
        sums: list[list[Tensor]] = []
        for batch in batches_of(loader, self.device, 0):
            output = self.task.forward(forward, batch)
            sums.append([self._loss(output, batch), *(metric.measure(output, batch) for metric in self.metrics)])
            if between is not None:
                between()
        own = [torch.stack(column).sum(dim=0).cpu() for column in zip(*sums, strict=True)]
        every = [part for part in self._gather(own) if part]  # a process may have no sample of a small part
        if not every:
            raise ConfigError("the validation loader gave no batch")
        total, *rest = [torch.stack(column).sum(dim=0) for column in zip(*every, strict=True)]
        loss = {"valid_loss": float(total[0] / total[1])} if total[1] else {}
        return loss | {m.name: m.compute(column) for m, column in zip(self.metrics, rest, strict=True)}

    def _loss(self, output: Any, batch: Batch) -> Tensor:
        """The sum of a batch's losses and the sum of their weights, float64 (2,); zeros for a task without losses."""
        loss, weights = self.task.losses(output, batch), self.task.weights(batch)
        if loss is None:
            return torch.zeros(2, dtype=torch.float64, device=self.device)
        if weights is not None:
            weights = weights.to(torch.float64)
            return torch.stack([(loss * weights).sum(), weights.sum()])
        return torch.stack([loss.sum(dtype=torch.float64), loss.new_full((), len(loss), dtype=torch.float64)])

    def validate(self, part: str = "valid") -> dict[str, float]:
        """Returns the loss and the metrics of one part (``valid``, ``test`` or ``train``) by name."""
        return self.measure(self.loader(part))

    def loader(self, part: str) -> Any:
        """Returns a part's loader for evaluation: every item once, in order, unaugmented."""
        loader = self.dls.part(part)
        if part == "train" and isinstance(loader, Loader):
            return loader.with_options(shuffle=False, drop_last=False, train=False)
        return loader

    def get_preds(self, part: str = "valid") -> Outputs:
        """Returns every output, target, id and loss of one part, in order."""
        return collect(self.model, self.loader(part), self.task, self.device)

    def predict(self, raw: Any) -> Record:
        """Returns the prediction for one raw input (a path, an image, a row) as a plain record; see `Predictor`."""
        return self.predictor()(raw)

    def predictor(self) -> Any:
        """Returns a `Predictor` that uses this model as it is now."""
        from common.deploy.predictor import Predictor

        loader = self.train_loader()
        return Predictor.of(self.model, self.task, loader.store.encoder, loader.pipeline, self.device, self.reading)

    def train_loader(self) -> Loader:
        """Returns the training loader.

        Raises:
            ConfigError: if it is not one of ours.
        """
        if not isinstance(self.dls.train, Loader):
            raise ConfigError("this needs loaders that a DataBlock made: they know how a raw input becomes a tensor")
        return self.dls.train

    def show_results(
        self, max_n: int = 9, *, part: str = "valid", path: Any = None, outputs: Outputs | None = None
    ) -> Any:
        """Draws samples of a part with target / prediction and returns the matplotlib figure; see `show_results`."""
        from common.show.results import show_results

        return show_results(self, max_n=max_n, part=part, path=path, outputs=outputs)

    # ------------------------------------------------------------------ export

    def export(
        self,
        path: str | Path = "bundle",
        metrics: dict[str, float] | None = None,
        parts: Mapping[str, BundlePart] | None = None,
    ) -> Path:
        """Writes a bundle with everything that was fitted, as data without code, and returns its folder.

        Args:
            path: The bundle's folder; an older bundle there is replaced once the new one is complete.
            metrics: Measured results for the model card; those of the last evaluation when None.
            parts: Additional parts of the bundle, by name.
        """
        from common.deploy.bundle import export

        loader = self.train_loader()
        if metrics is None and self.history:
            metrics = {k: v for k, v in self.history[-1].items() if isinstance(v, float) and k not in _NOT_MEASURED}
        return export(
            Path(path), self.model, self.task, loader.store.encoder, loader.pipeline, metrics or {},
            reading=self.reading, parts=parts,
        )  # fmt: skip
