"""The columns of a table as one field: numbers scaled, categories as positions. Encoded whole, never row by row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from common.data.batch import Value
from common.data.blocks import Block, Target
from common.data.transforms import View
from common.errors import ConfigError, DataError, nearest
from common.registry import register


@register("block", "columns")
@dataclass(frozen=True)
class ColumnsBlock(Block):
    """Named columns of a frame: ``numbers`` float32 (B, k), ``categories`` int64 (B, m).

    Numbers are standardised by the training rows' mean and deviation; a missing or infinite one becomes the mean, 0.
    Position 0 of a category stands for missing or unseen.

    Args:
        numbers: The numeric columns' names.
        categories: The category columns' names.
        mean: Fitted: the mean of each number.
        std: Fitted: the deviation of each number.
        levels: Fitted: the levels of each category, in order.

    Examples:
        >>> frame = pd.DataFrame({"age": [1.0, 3.0], "town": ["A", "B"]})
        >>> block = ColumnsBlock(numbers=("age",), categories=("town",)).setup(frame)
        >>> {k: v.tolist() for k, v in block.encode_many(frame).items()}
        {'numbers': [[-1.0], [1.0]], 'categories': [[1], [2]]}
    """

    numbers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    levels: tuple[tuple[str, ...], ...] = ()
    target: ClassVar[Target] = "columns"
    needs_fit: ClassVar[bool] = True

    def setup(self, raws: Sequence[Any]) -> Self:
        frame = self._frame(raws)
        values = self._numbers(frame)
        with np.errstate(all="ignore"):
            seen = np.isfinite(values)
            count = np.maximum(seen.sum(axis=0), 1)
            mean = np.where(seen, values, 0).sum(axis=0) / count
            spread = np.sqrt((np.where(seen, values - mean, 0) ** 2).sum(axis=0) / count)
        std = np.where(spread > 0, spread, 1.0)
        levels = tuple(tuple(sorted({_level(v) for v in frame[name].dropna()})) for name in self.categories)
        return replace(self, mean=tuple(mean.tolist()), std=tuple(std.tolist()), levels=levels)

    def _frame(self, raws: Any) -> pd.DataFrame:
        frame = raws if isinstance(raws, pd.DataFrame) else pd.DataFrame(list(raws))
        for name in (*self.numbers, *self.categories):
            if name not in frame.columns:
                raise DataError(f"the table has no column {name!r}: {nearest(name, map(str, frame.columns))}")
        return frame

    def _numbers(self, frame: pd.DataFrame) -> np.ndarray:
        parts = [np.asarray(pd.to_numeric(frame[name], errors="coerce"), dtype=np.float64) for name in self.numbers]
        return np.stack(parts, axis=1) if parts else np.zeros((len(frame), 0))

    def encode_many(self, raws: Sequence[Any]) -> dict[str, Tensor]:
        if len(self.mean) != len(self.numbers) or len(self.levels) != len(self.categories):
            raise ConfigError("this ColumnsBlock is not fitted: it gets its numbers from DataBlock.dataloaders")
        frame = self._frame(raws)
        values = (self._numbers(frame) - np.array(self.mean)) / np.array(self.std)
        values = np.where(np.isfinite(values), values, 0.0).astype(np.float32)
        codes = np.zeros((len(frame), len(self.categories)), dtype=np.int64)
        for i, (name, levels) in enumerate(zip(self.categories, self.levels, strict=True)):
            column = frame[name]
            text = [None if missing else _level(v) for v, missing in zip(column, column.isna(), strict=True)]
            codes[:, i] = pd.Index(levels).get_indexer(pd.Index(text)) + 1
        return {"numbers": torch.from_numpy(values), "categories": torch.from_numpy(codes)}

    def encode(self, raw: Any, view: View | None = None) -> dict[str, Tensor]:
        row = dict(cast("Mapping[str, Any]", raw))
        return {name: tensor[0] for name, tensor in self.encode_many([row]).items()}

    def decode(self, value: Value) -> dict[str, Any]:
        fields = cast("dict[str, Tensor]", value)
        numbers = fields["numbers"].double().numpy() * np.array(self.std) + np.array(self.mean)
        out: dict[str, Any] = dict(zip(self.numbers, numbers.tolist(), strict=True))
        for name, levels, code in zip(self.categories, self.levels, fields["categories"].tolist(), strict=True):
            out[name] = levels[code - 1] if code else None
        return out


def _level(value: Any) -> str:
    """A level's name; a whole number has one name, whether a table holds it as an integer or (with gaps) as a float."""
    return str(int(value)) if isinstance(value, (float, np.floating)) and float(value).is_integer() else str(value)
