"""The regression task: a number, or a row of them, by the mean squared error.

Floor: task; may import data and below. Used by: train.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.blocks.batch import Batch
from common.blocks.block import Block
from common.registry import register
from common.task.metrics import Metric, rmse
from common.task.record_view import RecordView
from common.task.task import Outputs, Record, Task


@register("task", "regression")
@dataclass(frozen=True)
class RegressionTask(Task):
    """Outputs (B,), (B, 1) or (B, k) against float targets of as many numbers; loss is the squared error."""

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        target: Tensor = batch.y
        error = (output.reshape(target.shape) - target).square()
        return error.reshape(len(error), -1).mean(dim=1)

    def metrics(self) -> tuple[Metric, ...]:
        return (rmse,)

    def decode(self, output: Tensor) -> list[Record]:
        values = output.reshape(len(output), -1)
        return [{"value": row[0] if len(row) == 1 else row} for row in values.tolist()]

    def report(self, outputs: Outputs) -> dict[str, float]:
        return {"rmse": rmse(outputs.output, outputs.target)}

    def brief(self, record: Record) -> str:
        value = record["value"]
        return ", ".join(f"{number:.6g}" for number in (value if isinstance(value, list) else [value]))

    def view(self, record: Record) -> dict[str, Any]:
        value = record["value"]
        return RecordView(title=self.brief(record), value=tuple(value) if isinstance(value, list) else value).plain()

    def caption(self, record: Record, block: Block, target: Any) -> tuple[str, bool]:
        near = bool(torch.isclose(torch.as_tensor(record["value"]), torch.as_tensor(target), rtol=0.1))
        return f"{block.decode(target):.3g} / {record['value']:.3g}", near
