"""The tasks of tables: a class or a number for each row."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.blocks.batch import Batch
from common.blocks.block import Block, RegressionBlock
from common.blocks.sample import SampleEncoder
from common.errors import ConfigError, in_range
from common.registry import register
from common.task.classification import ClassificationTask
from common.task.metrics import Metric, RootMeanSquaredError
from common.task.record_view import RecordView
from common.task.task import Outputs, Record, Task

TabularClassification = ClassificationTask  # an alias, to match `TabularRegression`


@register("task", "tabular_regression")
@dataclass(frozen=True)
class TabularRegression(Task):
    """Regression by outputs (B,), or (B, k) of k networks in training; with quantiles (B, 1 + q): the value first.

    Args:
        center: The target's mean over the training rows.
        scale: Its standard deviation there; the loss is the squared error in these units.
        quantiles: The quantiles that follow the value in an output, ascending.
    """

    center: float = 0.0
    scale: float = 1.0
    quantiles: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantiles", tuple(self.quantiles))
        in_range("scale", self.scale, 0, float("inf"), open_low=True, open_high=True)
        for quantile in self.quantiles:
            in_range("quantiles", quantile, 0, 1, open_low=True, open_high=True)
        if list(self.quantiles) != sorted(set(self.quantiles)):
            raise ConfigError(f"quantiles must rise, got {self.quantiles}")

    def value(self, output: Tensor) -> Tensor:
        """Returns the values (B,) of outputs."""
        return output if output.dim() == 1 else output[:, 0] if self.quantiles else output.mean(dim=1)

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        target: Tensor = batch.y
        if output.dim() == 1 or self.quantiles:
            return ((self.value(output) - target) / self.scale).square()
        return ((output - target[:, None]) / self.scale).square().mean(dim=1)

    def metrics(self) -> tuple[Metric, ...]:
        return (ValueRootMeanSquaredError(self),)

    def decode(self, output: Tensor) -> list[Record]:
        records: list[Record] = [{"value": value} for value in self.value(output).double().tolist()]
        if self.quantiles:
            rows = output[:, 1:].double().tolist()
            for record, row in zip(records, rows, strict=True):
                record["quantiles"] = {f"{q:g}": value for q, value in zip(self.quantiles, row, strict=True)}
        return records

    def report(self, outputs: Outputs) -> dict[str, float]:
        output, target = outputs.output, outputs.target
        truth, found = target.double(), self.value(output).double()
        error = found - truth
        spread = (truth - truth.mean()).square().mean()
        metrics = {"rmse": float(error.square().mean().sqrt()), "mae": float(error.abs().mean())}
        if spread > 0:
            metrics["r2"] = float(1 - error.square().mean() / spread)
        if self.quantiles:
            every = output[:, 1:].double()
            shares = torch.tensor(self.quantiles, dtype=torch.float64)
            metrics["pinball"] = float(  # the quantile loss (Koenker and Bassett 1978)
                torch.maximum(shares * (truth[:, None] - every), (shares - 1) * (truth[:, None] - every)).mean()
            )
            if len(self.quantiles) > 1:
                inside = (truth >= every[:, 0]) & (truth <= every[:, -1])
                metrics["coverage"] = float(inside.double().mean())
        return metrics

    def verify(self, encoder: SampleEncoder, model: dict[str, Any]) -> None:
        if not encoder.y_blocks or not isinstance(encoder.y_blocks[0], RegressionBlock):
            raise ConfigError("a tabular_regression task needs a number block as its target")

    def brief(self, record: Record) -> str:
        interval = record.get("quantiles")
        ends = "" if not interval else f" ({min(interval.values()):.4g} … {max(interval.values()):.4g})"
        return f"{record['value']:.6g}{ends}"

    def view(self, record: Record) -> dict[str, Any]:
        """Returns the value, and as its interval the outermost quantiles where there are two or more."""
        ends = list(record.get("quantiles", {}).values())
        interval = (min(ends), max(ends)) if len(ends) > 1 else None
        return RecordView(title=self.brief(record), value=record["value"], interval=interval).plain()

    def caption(self, record: Record, block: Block, target: Any) -> tuple[str, bool]:
        truth = float(block.decode(target))
        near = abs(truth - record["value"]) < self.scale
        return f"{truth:.4g} / {record['value']:.4g}", near


class ValueRootMeanSquaredError(RootMeanSquaredError):
    """The root mean squared error of the values, without the quantiles of an output."""

    def __init__(self, task: TabularRegression) -> None:
        super().__init__()
        self.task = task

    def measure(self, output: Any, batch: Batch) -> Tensor:
        return super().measure(self.task.value(output), batch)
