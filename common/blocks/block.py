"""Blocks: one field of a sample each. This file holds the contract and the plain targets (category, number)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from common.blocks.batch import Value
from common.blocks.distinct import distinct, pieces
from common.blocks.item_transforms import View
from common.errors import ConfigError, DataError, nearest
from common.registry import register
from common.spec import to_spec

Target = Literal["image", "mask", "boxes", "points", "signal", "spectrogram", "text", "columns", "category", "number"]
"""What a field is to the augmentation: every operation says of each whether it transforms it, leaves it or refuses."""


@dataclass(frozen=True)
class EpochSeed:
    """What a counted draw depends on beside the sample: the run's seed and the epoch."""

    seed: int = 0
    epoch: int = 0


class Block:
    """One field of a sample: how its raw value becomes a tensor and back, deterministically.

    A block is a frozen dataclass whose fields are all JSON: `setup` returns a *fitted copy* instead of changing itself,
    so a DataBlock is a template that can be used many times and everything fitted is visible and travels in a bundle.
    """

    registered_name: ClassVar[str]
    target: ClassVar[Target]
    eager: ClassVar[bool] = True
    """Encoded for all items at once when the loaders are built (labels, columns); else on the first pass (files)."""
    ragged: ClassVar[bool] = False
    """Items have lengths of their own: kept flat with offsets, padded in the batch with a ``valid`` mask."""
    needs_fit: ClassVar[bool] = False

    def setup(self, raws: Sequence[Any]) -> Self:
        """Returns a copy fitted to the raw values of the training items only."""
        return self

    def open(self, raw: Any) -> Any:
        """Returns a raw value ready to encode (an image file opened, not yet decoded)."""
        return raw

    def extent(self, opened: Any) -> tuple[int, int] | None:
        """Returns (height, width) in pixels where the value is an image that gives the sample its size, else None."""
        return None

    def encode(self, raw: Any, view: View | None = None) -> Value:
        """Returns the tensor of one raw value; the same for the same value, always."""
        raise NotImplementedError

    def encode_many(self, raws: Sequence[Any]) -> Value:
        """Returns the tensors of many raw values, stacked along a new first axis (N, …); vectorised where it pays."""
        return torch.stack([cast(Tensor, self.encode(raw)) for raw in raws])

    def encode_each(self, raws: Sequence[Any]) -> Sequence[Value]:
        """Returns one value for each of many raw values, of lengths of their own (texts); at once where that pays."""
        return [self.encode(raw) for raw in raws]

    def decode(self, value: Any) -> Any:
        """Returns the raw value of one encoded one (for display: a name, a number, a uint8 image)."""
        raise NotImplementedError

    def collate(self, value: Value, ids: Tensor, epoch_seed: EpochSeed) -> Value:
        """Returns a batch's gathered value as the model gets it; what is `Ragged` is padded afterwards.

        A block that offers several versions of a field (the captions of an image) picks one here, as a function of
        (seed, epoch, id).
        """
        return value

    def draw(self, axes: Any, value: Any) -> None:
        """Draws one *decoded* value on matplotlib axes, over what is there."""
        axes.set_title(str(self.decode(value)), fontsize=9, parse_math=False)

    def labels(self, raw: Any) -> list[str] | None:
        """Returns the categories that a raw value names, for `DataBlock.check`; None where it names none."""
        return None

    def notes(self, raw: Any) -> Sequence[str]:
        """Returns what is unusual about a raw value but not wrong, one sentence each, for `DataBlock.check`."""
        return ()

    def spec(self) -> dict[str, Any]:
        """Returns the block as JSON-ready data; `common.spec.from_spec` reads it."""
        return to_spec(self)


@register("block", "category")
@dataclass(frozen=True)
class CategoryBlock(Block):
    """One category of a closed vocabulary, encoded as its position, int64 ().

    Args:
        vocab: The categories in order; fitted (sorted, from the training items) when empty.

    Examples:
        >>> block = CategoryBlock().setup(["rose", "daisy", "rose"])
        >>> block.vocab, int(block.encode("rose"))
        (('daisy', 'rose'), 1)
    """

    vocab: tuple[str, ...] = ()
    target: ClassVar[Target] = "category"
    needs_fit: ClassVar[bool] = True

    def setup(self, raws: Sequence[Any]) -> Self:
        if self.vocab:
            return self
        found = {_label(raw) for _, piece in pieces(raws) for raw in distinct(piece)[1]}
        return replace(self, vocab=tuple(sorted(found, key=_natural)))

    def _positions(self) -> dict[str, int]:
        if not self.vocab:
            raise ConfigError("this CategoryBlock is not fitted: it gets its vocab from DataBlock.dataloaders")
        return {name: i for i, name in enumerate(self.vocab)}

    def encode(self, raw: Any, view: View | None = None) -> Tensor:
        return self.encode_many([raw])[0]

    def encode_many(self, raws: Sequence[Any]) -> Tensor:
        positions = self._positions()
        out = np.empty(len(raws), np.int64)
        for rows, piece in pieces(raws):
            codes, values = distinct(piece)
            out[rows] = np.array([_position(raw, positions) for raw in values], np.int64)[codes]
        return torch.from_numpy(out)

    def labels(self, raw: Any) -> list[str] | None:
        return [str(raw)]

    def decode(self, value: Tensor) -> Any:
        return self.vocab[int(value)]

    def draw(self, axes: Any, value: Tensor) -> None:
        if value.dim() == 0:
            super().draw(axes, value)
        else:  # of a mixed sample, (classes,)
            names = [f"{self.vocab[i]} {share:.0%}" for i, share in enumerate(value.tolist()) if share > 0]
            axes.set_title(" + ".join(names), fontsize=9, parse_math=False)


@register("block", "multi_category")
@dataclass(frozen=True)
class MultiCategoryBlock(CategoryBlock):
    """Any number of categories at once, encoded as float32 (classes,) of zeros and ones.

    Args:
        vocab: The categories in order; fitted (sorted, from the training items) when empty.

    Examples:
        >>> block = MultiCategoryBlock().setup([["car"], ["car", "person"]])
        >>> block.encode(["person"]).tolist()
        [0.0, 1.0]
    """

    def setup(self, raws: Sequence[Any]) -> Self:
        if self.vocab:
            return self
        found = {_label(name) for raw in raws for name in _labels(raw)}
        return replace(self, vocab=tuple(sorted(found, key=_natural)))

    def encode_many(self, raws: Sequence[Any]) -> Tensor:
        positions = self._positions()
        out = torch.zeros(len(raws), len(self.vocab))
        for row, raw in enumerate(raws):
            for name in _labels(raw):
                out[row, _position(name, positions)] = 1.0
        return out

    def labels(self, raw: Any) -> list[str]:
        return [str(name) for name in raw]

    def decode(self, value: Tensor) -> Any:
        chosen = value > 0.5
        return [name for name, on in zip(self.vocab, chosen.tolist(), strict=True) if on]

    def draw(self, axes: Any, value: Tensor) -> None:
        axes.set_title("; ".join(self.decode(value)) or "(none)", fontsize=9, parse_math=False)


@register("block", "number")
@dataclass(frozen=True)
class RegressionBlock(Block):
    """A number, float32 (), or a row of them, float32 (k,).

    Examples:
        >>> RegressionBlock().encode("2.5")
        tensor(2.5000)
    """

    target: ClassVar[Target] = "number"

    def encode(self, raw: Any, view: View | None = None) -> Tensor:
        try:
            value = torch.as_tensor(np.asarray(raw, dtype=np.float32))
        except (TypeError, ValueError) as error:
            raise DataError(f"not a number: {raw!r}") from error
        if not torch.isfinite(value).all():
            raise DataError(f"not a finite number: {raw!r}")
        return value

    def encode_many(self, raws: Sequence[Any]) -> Value:
        try:
            values = _numbers(raws)
        except (TypeError, ValueError):
            values = np.empty(0, np.float32)
        if len(values) == len(raws) and bool(np.isfinite(values).all()):
            return torch.from_numpy(values if isinstance(raws, (list, pd.Series)) else np.array(values))
        return super().encode_many(raws)  # one by one, to say which is none

    def decode(self, value: Tensor) -> float | list[float]:
        return value.tolist()


def _numbers(raws: Sequence[Any]) -> np.ndarray:
    """Raw values as float32; of a column some million at a time, through float64 as Python's numbers go."""
    if not isinstance(raws, pd.Series):
        return np.asarray(raws, dtype=np.float32)
    if raws.dtype.kind not in "iubf":
        return np.asarray(raws.tolist(), dtype=np.float32)
    out = np.empty(len(raws), np.float32)
    with np.errstate(over="ignore"):  # it is found not to be finite
        for rows, piece in pieces(raws):
            array = cast(np.ndarray, piece.to_numpy())
            out[rows] = array if array.dtype.kind == "f" else array.astype(np.float64)
    return out


def _natural(name: str) -> tuple[int, float, str]:
    """Numbers in their order first, then names: '2' before '10'."""
    return (0, float(name), name) if name.isdecimal() else (1, 0.0, name)


def _label(raw: Any) -> str:
    if raw is None or raw is pd.NA or raw is pd.NaT or (isinstance(raw, (float, np.floating)) and np.isnan(raw)):
        raise DataError("the label is missing (empty cell or None)")
    return str(raw)


def _labels(raw: Any) -> list[Any]:
    if isinstance(raw, str) or not isinstance(raw, (list, tuple, set, np.ndarray)):
        raise DataError(f"a multi-category label must be a list of names, got {raw!r} (ColReader has label_delim)")
    return list(cast("list[Any]", raw))


def _position(raw: Any, positions: dict[str, int]) -> int:
    name = _label(raw)
    if name not in positions:
        raise DataError(
            f"the label {name!r} is not among the {len(positions)} training classes: {nearest(name, positions)}"
        )
    return positions[name]
