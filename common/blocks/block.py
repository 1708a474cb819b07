"""Blocks, one per field of a sample: their contract, and the plain targets (category, number).

Floor: blocks; may import text and below. Used by: augment, store, data, task, deploy, applications.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar, Self, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from common.blocks.batch import Value
from common.blocks.content import content_digest
from common.blocks.distinct import distinct, pieces
from common.blocks.form import FormField, choice_of, list_of, no_file, number_of
from common.blocks.item_transforms import View
from common.blocks.levels import Levels
from common.errors import ConfigError, DataError, nearest
from common.registry import register
from common.spec import to_spec


class Target(StrEnum):
    """The kind of a field; every batch operation declares for each kind if it transforms, ignores or refuses it."""

    IMAGE = "image"
    MASK = "mask"
    BOXES = "boxes"
    POINTS = "points"
    SIGNAL = "signal"
    SPECTROGRAM = "spectrogram"
    TEXT = "text"
    COLUMNS = "columns"
    CATEGORY = "category"
    NUMBER = "number"


MOST_LISTED = 10
PLANAR = (Target.IMAGE, Target.MASK)
"""The kinds that are pixel grids."""


@dataclass(frozen=True)
class EpochSeed:
    """The run's seed and the epoch; with a sample's id they determine every random number."""

    seed: int = 0
    epoch: int = 0


class Block:
    """One field of a sample: how its raw value becomes a tensor and back, deterministically.

    A block is a frozen dataclass whose fields are all JSON: `setup` returns a *fitted copy* instead of changing itself,
    so a DataBlock is a reusable template, and everything fitted is visible and stored in the bundle.
    """

    registered_name: ClassVar[str]
    target: ClassVar[Target]
    eager: ClassVar[bool] = True
    """Encoded for all items at once when the loaders are built (labels, columns); else on the first pass (files)."""
    ragged: ClassVar[bool] = False
    """Whether items have variable lengths: stored flat with offsets, padded in a batch with a ``valid`` mask."""
    needs_fit: ClassVar[bool] = False
    from_file: ClassVar[bool] = False
    """Whether a string as raw value names a file; other blocks never treat a text as a path."""

    def setup(self, raws: Sequence[Any]) -> Self:
        """Returns a copy fitted to the raw values of the training items only."""
        return self

    def open(self, raw: Any) -> Any:
        """Returns a raw value ready to encode (an image file opened, not yet decoded)."""
        return raw

    def extent(self, opened: Any) -> tuple[int, int] | None:
        """Returns (height, width) in pixels where the value is an image that defines the sample's size, else None."""
        return None

    def encode(self, raw: Any, view: View | None = None) -> Value:
        """Returns the tensor of one raw value; deterministic."""
        raise NotImplementedError

    def encode_many(self, raws: Sequence[Any]) -> Value:
        """Returns the tensors of many raw values, stacked along a new first axis (N, …); vectorised where useful."""
        return torch.stack([cast(Tensor, self.encode(raw)) for raw in raws])

    def encode_each(self, raws: Sequence[Any]) -> Sequence[Value]:
        """Returns one variable-length value for each of many raw values (texts); vectorised where useful."""
        return [self.encode(raw) for raw in raws]

    def decode(self, value: Any) -> Any:
        """Returns the raw value of one encoded value (for display: a name, a number, a uint8 image)."""
        raise NotImplementedError

    def collate(self, value: Value, ids: Tensor, epoch_seed: EpochSeed) -> Value:
        """Returns a batch's gathered value as the model gets it; a `Ragged` result is padded afterwards.

        A block that offers several versions of a field (the captions of an image) picks one here, as a function of
        (seed, epoch, id).
        """
        return value

    def draw(self, axes: Any, value: Any) -> None:
        """Draws one *decoded* value on matplotlib axes, over their present content."""
        axes.set_title(str(self.decode(value)), fontsize=9, parse_math=False)

    def labels(self, raw: Any) -> list[str] | None:
        """Returns the categories that a raw value names, for `DataBlock.check`; None where there are no categories."""
        return None

    def about(self) -> str:
        """Returns in a few words what the fitted block reads, for a person who wants to see that it is right."""
        return ""

    def notes(self, raw: Any) -> Sequence[str]:
        """Returns one sentence per irregularity of a raw value that is not an error, for `DataBlock.check`."""
        return ()

    def form(self, name: str = "") -> tuple[FormField, ...]:
        """Returns the form fields in which a person enters this value; none for a block that takes no entries.

        Args:
            name: The field's name; the block's registered name when empty.
        """
        return ()

    def parse(self, value: Any, data: bytes | None = None) -> Any:
        """Returns the validated raw value of a form entry or a request, as `encode` takes it.

        A string in JSON is never opened as a path.

        Args:
            value: Plain JSON data; None where a file was uploaded.
            data: The bytes of an uploaded file.

        Raises:
            DataError: naming the rule, the value found and the remedy.
        """
        raise DataError(f"{type(self).__name__} takes nothing from a form or a request: give it form() and parse()")

    def token(self, raw: Any) -> bytes:
        """Returns a digest of a raw value that is equal for equal content, for finding duplicates.

        Raises:
            DataError: if it cannot be read.
        """
        return content_digest(raw, from_file=self.from_file)

    def token_many(self, raws: Sequence[Any]) -> list[bytes]:
        """Returns the `token` of many raw values; vectorised where useful."""
        return [self.token(raw) for raw in raws]

    def spec(self) -> dict[str, Any]:
        """Returns the block as JSON-ready data; `common.spec.from_spec` reads it, and `load_files` does the rest."""
        return to_spec(self)

    def files(self) -> dict[str, bytes]:
        """Returns the block's data that its `spec` does not hold, by plain file names (``tokenizer.json``)."""
        return {}

    def missing_files(self) -> tuple[str, ...]:
        """Returns the names of the `files` that a block made from its spec still lacks."""
        return ()

    def load_files(self, files: Mapping[str, bytes]) -> Self:
        """Returns a copy with the content of the files, each checked.

        Args:
            files: The output of `files`, by name.

        Raises:
            ConfigError: for a file that is missing, not known, or not what it must be.
        """
        check_file_names(self, files)
        return self


def check_file_names(block: Block, files: Mapping[str, bytes]) -> None:
    """Checks that the given files are exactly those that a block lacks.

    Args:
        block: A block made from its spec.
        files: The files, by name.

    Raises:
        ConfigError: naming the file that is missing or not known.
    """
    wanted = block.missing_files()
    for name in wanted:
        if name not in files:
            raise ConfigError(f"{type(block).__name__} needs the file {name}, which is missing")
    for name in files:
        if name not in wanted:
            raise ConfigError(f"{type(block).__name__} has no file {name!r}")


@register("block", "category")
@dataclass(frozen=True)
class CategoryBlock(Block):
    """One category of a closed vocabulary, encoded as its position, int64 ().

    Args:
        vocab: The categories in order; fitted (sorted, from the training items) when empty.
        unseen: Whether a missing value and an unseen category are encoded as 0 and 1 (as in the columns of a table; the
            first category is then 2), instead of being errors.

    Examples:
        >>> block = CategoryBlock().setup(["rose", "daisy", "rose"])
        >>> block.vocab, int(block.encode("rose"))
        (('daisy', 'rose'), 1)
    """

    vocab: tuple[str, ...] = ()
    unseen: bool = False
    target: ClassVar[Target] = Target.CATEGORY
    needs_fit: ClassVar[bool] = True

    @property
    def size(self) -> int:
        """The number of positions: the size of an embedding table for it."""
        return Levels(self.vocab).size if self.unseen else len(self.vocab)

    def setup(self, raws: Sequence[Any]) -> Self:
        if self.vocab:
            return self
        if self.unseen:
            return replace(self, vocab=Levels.fit(pd.Series(raws), rare=False).names)
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
        if self.unseen:
            return torch.from_numpy(Levels(self.vocab).encode(pd.Series(raws)))
        out = np.empty(len(raws), np.int64)
        for rows, piece in pieces(raws):
            codes, values = distinct(piece)
            out[rows] = np.array([_position(raw, positions) for raw in values], np.int64)[codes]
        return torch.from_numpy(out)

    def about(self) -> str:
        return class_list(self.vocab)

    def labels(self, raw: Any) -> list[str] | None:
        return [str(raw)]

    def form(self, name: str = "") -> tuple[FormField, ...]:
        return (FormField(name=name or self.registered_name, kind="choice", choices=self.vocab),)

    def parse(self, value: Any, data: bytes | None = None) -> Any:
        no_file("a category", data)
        return choice_of("a category", value, list(self._positions()))

    def token(self, raw: Any) -> bytes:
        return content_digest(_label(raw))

    def decode(self, value: Tensor) -> Any:
        return Levels(self.vocab).decode(int(value)) if self.unseen else self.vocab[int(value)]

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
        unseen: Not for several categories: none of them is a position.

    Examples:
        >>> block = MultiCategoryBlock().setup([["car"], ["car", "person"]])
        >>> block.encode(["person"]).tolist()
        [0.0, 1.0]
    """

    def __post_init__(self) -> None:
        if self.unseen:
            raise ConfigError("unseen is for one category a sample: several have no position to give")

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

    def about(self) -> str:
        return f"any of {class_list(self.vocab)}"

    def labels(self, raw: Any) -> list[str]:
        return [str(name) for name in raw]

    def form(self, name: str = "") -> tuple[FormField, ...]:
        field = FormField(name=name or self.registered_name, kind="choices", choices=self.vocab, required=False)
        return (field,)

    def parse(self, value: Any, data: bytes | None = None) -> list[str]:
        no_file("a list of categories", data)
        known, given = list(self._positions()), list_of("a list of categories", value)
        return [choice_of(f"category {i} of the list", one, known) for i, one in enumerate(given)]

    def token(self, raw: Any) -> bytes:
        return content_digest(sorted({_label(name) for name in _labels(raw)}))

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

    target: ClassVar[Target] = Target.NUMBER

    def about(self) -> str:
        return "a number"

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
        return super().encode_many(raws)  # one by one, to name the value that is not a number

    def form(self, name: str = "") -> tuple[FormField, ...]:
        return (FormField(name=name or self.registered_name, kind="number"),)

    def parse(self, value: Any, data: bytes | None = None) -> float | list[float]:
        no_file("a number", data)
        if isinstance(value, (list, tuple)):
            cells = list_of("a row of numbers", value)
            if not cells:
                raise DataError("a row of numbers must have at least one, got []")
            return [number_of(f"number {i} of the row", cell) for i, cell in enumerate(cells)]
        return number_of("a number", value)

    def token(self, raw: Any) -> bytes:
        try:
            values = np.asarray(raw, dtype=np.float64) + 0.0
        except (TypeError, ValueError, OverflowError):
            return super().token(raw)
        return content_digest(np.where(np.isnan(values), np.nan, values))  # every NaN with the same bits

    def decode(self, value: Tensor) -> float | list[float]:
        return value.tolist()


def _numbers(raws: Sequence[Any]) -> np.ndarray:
    """Raw values as float32; columns in pieces, integers through float64, as Python's numbers are converted."""
    if not isinstance(raws, pd.Series):
        return np.asarray(raws, dtype=np.float32)
    if raws.dtype.kind not in "iubf":
        return np.asarray(raws.tolist(), dtype=np.float32)
    out = np.empty(len(raws), np.float32)
    with np.errstate(over="ignore"):  # overflow becomes infinity, which the caller refuses
        for rows, piece in pieces(raws):
            array: np.ndarray = piece.to_numpy()
            out[rows] = array if array.dtype.kind == "f" else array.astype(np.float64)
    return out


def _natural(name: str) -> tuple[int, float, str]:
    """Natural sort key: numbers in numeric order first, then names, so '2' comes before '10'."""
    return (0, float(name), name) if name.isdecimal() else (1, 0.0, name)


def class_list(names: Sequence[str]) -> str:
    """Returns in words how many classes there are, and the first of them.

    Examples:
        >>> class_list(("cat", "dog")), class_list([str(i) for i in range(12)])
        ('2 classes: cat, dog', '12 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …')
    """
    return f"{len(names)} classes: {', '.join(names[:MOST_LISTED])}{', …' * (len(names) > MOST_LISTED)}"


def _label(raw: Any) -> str:
    if raw is None or raw is pd.NA or raw is pd.NaT or (isinstance(raw, (float, np.floating)) and np.isnan(raw)):
        raise DataError("the label is missing (empty cell or None)")
    return str(raw)


def _labels(raw: Any) -> list[Any]:
    if isinstance(raw, str) or not isinstance(raw, (list, tuple, set, np.ndarray)):
        raise DataError(f"a multi-category label must be a list of names, got {raw!r} (ColReader has label_delim)")
    return list(raw)


def _position(raw: Any, positions: dict[str, int]) -> int:
    name = _label(raw)
    if name not in positions:
        raise DataError(
            f"the label {name!r} is not among the {len(positions)} training classes: {nearest(name, positions)}"
        )
    return positions[name]
