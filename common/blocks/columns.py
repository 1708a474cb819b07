"""The columns of a table as one field: numbers, categories, dates and texts, encoded by column, never row by row.

Floor: blocks; may import text and below. Used by: data, applications, recipes.
"""

from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from common.blocks.block import MOST_LISTED, Block, Target, check_file_names
from common.blocks.column import (
    MOST,
    ODD,
    Column,
    cell_hashes,
    column_of,
    decoded,
    entered,
    field_of,
    mixed_bits,
    numbers_of,
    placed,
    short,
    spread,
    strings,
)
from common.blocks.column_kinds import (
    USED,
    Kind,
    duplicates,
    infer_kind,
    infer_places,
    series,
)
from common.blocks.form import FormField, mapping_of, no_file
from common.blocks.item_transforms import View
from common.blocks.levels import Levels
from common.blocks.ngrams import hashed_ngrams
from common.errors import ConfigError, DataError, in_range, nearest
from common.registry import register
from common.spec import to_spec
from common.text.tokenizer import FILE, Tokenizer


@register("block", "columns")
@dataclass(frozen=True)
class ColumnsBlock(Block):
    """Columns of a frame as ``numbers`` and ``missing`` (B, k), ``categories`` (B, m), ``text`` (B, t).

    ``numbers`` is float32, ``missing`` bool, ``categories`` int64, ``text`` int32. Numbers are standardised by the
    training rows' median and a robust scale; a missing or infinite one is 0 and marked in ``missing``. Dates become
    numeric features (days, year, month, …), booleans 0 and 1. In a category position 0 is a missing value and 1 an
    unseen level or, among many levels, one that training saw once. Texts become the hash buckets of their words and
    bigrams, all in one row, padded with 0; their number of words is a numeric feature too. With a tokenizer each text
    also has its tokens: ``tokens``, int32 (B, columns of text, most).

    Args:
        numbers: Columns that are numbers.
        categories: Columns that are categories.
        dates: Columns that are dates.
        texts: Columns that are texts.
        ignore: Columns that are left out (the target).
        places: Pairs of numeric columns that are a latitude and a longitude.
        infer: Whether the kinds of the other columns are inferred from the training rows; else they are left out.
        buckets: Hash buckets of words and bigrams.
        most_ngrams: The most words and bigrams of a row.
        tokenizer: The tokenizer of a pretrained transformer that reads the texts, or None.
        columns: Fitted: every column, including those that are left out, with the reason for its kind.
        ngrams: Fitted: t, the length of ``text``.
        located: Fitted: the (latitude, longitude) pairs, both those given and those inferred from names.

    Examples:
        >>> frame = pd.DataFrame({"age": [1.0, 3.0, None], "town": ["A", "B", "A"]})
        >>> block = ColumnsBlock(numbers=("age",), categories=("town",)).setup(frame)
        >>> batch = block.encode_many(frame)
        >>> batch["missing"][:, 0].tolist(), batch["categories"][:, 0].tolist()
        ([False, False, True], [2, 3, 2])
    """

    numbers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    places: tuple[tuple[str, str], ...] = ()
    infer: bool = False
    buckets: int = 1 << 18
    most_ngrams: int = 512
    tokenizer: Tokenizer | None = None
    columns: tuple[Column, ...] = ()
    ngrams: int = 0
    located: tuple[tuple[str, str], ...] = ()
    target: ClassVar[Target] = Target.COLUMNS
    needs_fit: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("numbers", "categories", "dates", "texts", "ignore"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        given = [*self.numbers, *self.categories, *self.dates, *self.texts, *self.ignore]
        if twice := next(duplicates(given), None):
            raise ConfigError(
                f"the column {twice!r} is given twice: it can be one of numbers, categories, dates, texts"
            )
        for name in ("places", "located"):
            pairs = tuple(tuple(pair) for pair in getattr(self, name))
            object.__setattr__(self, name, pairs)
            if any(len(pair) != 2 for pair in pairs) or next(duplicates(n for pair in pairs for n in pair), None):
                raise ConfigError(f"{name} must be pairs of columns (latitude, longitude), all different, got {pairs}")
        in_range("buckets", self.buckets, 2, 1 << 31)
        in_range("most_ngrams", self.most_ngrams, 1, 1 << 20)
        in_range("ngrams", self.ngrams, 0, self.most_ngrams)

    # ------------------------------------------------------------ fitting

    def setup(self, raws: Sequence[Any] | pd.DataFrame) -> Self:
        frame = self._frame(raws)
        given: dict[str, Kind] = {
            **dict.fromkeys(self.numbers, "number"),
            **dict.fromkeys(self.categories, "category"),
            **dict.fromkeys(self.dates, "date"),
            **dict.fromkeys(self.texts, "text"),
            **dict.fromkeys(self.ignore, "ignored"),
        }
        names = [str(name) for name in frame.columns] if self.infer else [n for n in given if n not in self.ignore]
        found = [
            Column(name, given[name], "given") if name in given else column_of(infer_kind(name, series(frame, name)))
            for name in names
        ]
        columns = tuple(self._fit(column, frame) for column in found)
        if not any(column.kind in USED for column in columns):
            told = "; ".join(f"{column.name!r}: {column.why}" for column in columns[:4])
            remedy = "; name it in numbers or categories if it is more than that" if told else ""
            raise DataError(f"no column of the table can be learned from ({told or 'there are none'}){remedy}")
        located = self._located(columns, frame)
        columns = tuple(replace(c, why=placed(c, located)) for c in columns)
        made = replace(self, columns=columns, located=located)
        if self.tokenizer is not None and not made._texts:
            raise DataError("there is a tokenizer, but no column is a text: name one in texts")
        length = max((len(row) for row in made._hashed(frame)), default=0) if made._texts else 0
        return replace(made, ngrams=length)

    def _located(self, columns: tuple[Column, ...], frame: pd.DataFrame) -> tuple[tuple[str, str], ...]:
        """The (latitude, longitude) pairs: those given, and numbers with such names and values in range."""
        numbers = [column.name for column in columns if column.kind == "number"]
        given = [name for pair in self.places for name in pair]
        for name in given:
            if name not in numbers:
                raise ConfigError(f"places: {name!r} is no number of the table: {nearest(name, numbers)}")
        free = [name for name in numbers if name not in (*given, *self.numbers)] if self.infer else []
        return (*self.places, *infer_places(frame.loc[:, free]))

    def _fit(self, column: Column, frame: pd.DataFrame) -> Column:
        if column.category:
            return replace(column, levels=Levels.fit(series(frame, column.name)).names)
        if column.kind not in USED:
            return column
        parts, values = numbers_of(column, series(frame, column.name))
        pairs = [spread(values[:, i]) for i in range(values.shape[1])]
        center, scale = (tuple(pair[i] for pair in pairs) for i in (0, 1))
        return replace(column, parts=parts, center=center, scale=scale)

    def _frame(self, raws: Any) -> pd.DataFrame:
        frame = raws if isinstance(raws, pd.DataFrame) else pd.DataFrame(list(raws))
        if not all(isinstance(name, str) for name in frame.columns):
            frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
        if twice := next(duplicates(frame.columns), None):
            raise DataError(f"the table has two columns called {twice!r}: rename one")
        wanted = [column.name for column in self.columns if column.kind in USED]
        for name in wanted or (*self.numbers, *self.categories, *self.dates, *self.texts):
            if name not in frame.columns:
                raise DataError(f"the table has no column {name!r}: {nearest(name, map(str, frame.columns))}")
        return frame

    # ------------------------------------------------------------ what was fitted

    def about(self) -> str:
        kinds = Tally(column.kind for column in self.columns if column.kind in USED)
        told = f"{kinds.total()} columns ({', '.join(f'{count} {kind}' for kind, count in kinds.items())})"
        left_out = [c for c in self.columns if c.kind not in USED and c.name not in self.ignore]
        why = ", ".join(f"{c.name} ({c.why})" for c in left_out[:MOST_LISTED])
        return f"{told}; left out: {why}{', …' * (len(left_out) > MOST_LISTED)}" if left_out else told

    def _of(self, *kinds: str) -> list[Column]:
        return [column for column in self.columns if column.kind in kinds]

    @property
    def _numeric(self) -> list[Column]:
        return self._of("number", "boolean", "date", "text")

    @property
    def _categories(self) -> list[Column]:
        return [column for column in self.columns if column.category]

    @property
    def _texts(self) -> list[Column]:
        return self._of("text")

    @property
    def number_names(self) -> tuple[str, ...]:
        """The names of the numeric features, in order: ``column``, or ``column.part`` where there are several parts."""
        return tuple(
            column.name if len(column.parts) == 1 else f"{column.name}.{part}"
            for column in self._numeric
            for part in column.parts
        )

    @property
    def spreads(self) -> np.ndarray:
        """The center and the scale of each numeric feature: float64 (2, k)."""
        pairs = [pair for column in self._numeric for pair in zip(column.center, column.scale, strict=True)]
        return np.array(pairs, np.float64).reshape(-1, 2).T

    @property
    def category_names(self) -> tuple[str, ...]:
        """The names of the categories, in order."""
        return tuple(column.name for column in self._categories)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of positions of each category, with missing and unseen."""
        return tuple(len(column.levels) + 2 for column in self._categories)

    # ------------------------------------------------------------ encoding

    def encode_many(self, raws: Sequence[Any] | pd.DataFrame) -> dict[str, Tensor]:
        if not self.columns:
            raise ConfigError("this ColumnsBlock is not fitted: it gets its columns from DataBlock.dataloaders")
        frame = self._frame(raws)
        rows = len(frame)
        values = np.concatenate(
            [np.zeros((rows, 0)), *(numbers_of(c, series(frame, c.name))[1] for c in self._numeric)], axis=1
        )
        center, scale = self.spreads
        missing = ~np.isfinite(values)
        with np.errstate(over="ignore"):
            scaled = np.where(missing, 0.0, (np.where(missing, 0.0, values) - center) / scale)
        codes = np.zeros((rows, len(self._categories)), dtype=np.int64)
        for i, column in enumerate(self._categories):
            codes[:, i] = Levels(column.levels).encode(series(frame, column.name))
        text = np.zeros((rows, self.ngrams), np.int32)
        for row, found in enumerate(self._hashed(frame) if self.ngrams else ()):
            text[row, : len(found)] = found[: self.ngrams]
        found = {
            "numbers": torch.from_numpy(np.clip(scaled, -MOST, MOST).astype(np.float32)),
            "missing": torch.from_numpy(missing),
            "categories": torch.from_numpy(codes),
            "text": torch.from_numpy(text),
        }
        if self.tokenizer is not None:
            every = [self.tokenizer.encode_many(strings(series(frame, column.name))) for column in self._texts]
            found["tokens"] = torch.from_numpy(np.stack(every, axis=1))
        return found

    def _hashed(self, frame: pd.DataFrame) -> list[np.ndarray]:
        every = [
            hashed_ngrams(strings(series(frame, column.name)), column.name, self.buckets, self.most_ngrams)
            for column in self._texts
        ]
        return [np.concatenate(row)[: self.most_ngrams] for row in zip(*every, strict=True)]

    def encode(self, raw: Any, view: View | None = None) -> dict[str, Tensor]:
        row = dict(raw)
        return {name: tensor[0] for name, tensor in self.encode_many([row]).items()}

    # ------------------------------------------------------------ entries, equal rows, files

    @property
    def _used(self) -> list[Column]:
        if not self.columns:
            raise ConfigError("this ColumnsBlock is not fitted: it gets its columns from DataBlock.dataloaders")
        return self._of(*USED)

    def form(self, name: str = "") -> tuple[FormField, ...]:
        """Returns one form field per used column, by its name; a cell that is not given is a missing value."""
        return tuple(field_of(column) for column in self._used)

    def parse(self, value: Any, data: bytes | None = None) -> dict[str, Any]:
        """Returns a row of every used column; missing, empty or NaN cells are None, unused columns are dropped."""
        no_file("a row of columns", data)
        used = self._used
        cells = mapping_of("the row", value, [*(column.name for column in self.columns), *self.ignore])
        return {column.name: entered(column, cells.get(column.name)) for column in used}

    def token(self, raw: Any) -> bytes:
        return self.token_many([dict(raw)])[0]

    def token_many(self, raws: Sequence[Any] | pd.DataFrame) -> list[bytes]:
        """Returns 16 bytes per row that are equal where every used cell parses alike: missing equals NaN."""
        used, frame = self._used, self._frame(raws)
        sums = np.zeros((len(frame), 2), np.uint64)
        for column in used:
            hashes = cell_hashes(column, series(frame, column.name))
            sums = mixed_bits(sums * ODD + hashes)
        data = sums.tobytes()
        return [data[i : i + 16] for i in range(0, len(data), 16)]

    def spec(self) -> dict[str, Any]:
        return to_spec(self) if self.tokenizer is None else {**to_spec(self), "tokenizer": self.tokenizer.spec()}

    def files(self) -> dict[str, bytes]:
        return {} if self.tokenizer is None else {FILE: self.tokenizer.content.encode("utf-8")}

    def missing_files(self) -> tuple[str, ...]:
        return () if self.tokenizer is None or self.tokenizer.content else (FILE,)

    def load_files(self, files: Mapping[str, bytes]) -> Self:
        check_file_names(self, files)
        return replace(self, tokenizer=self.tokenizer.load(files[FILE])) if self.tokenizer and files else self

    # ------------------------------------------------------------ decoding

    def decode(self, value: dict[str, Tensor]) -> dict[str, Any]:
        fields, out = value, dict[str, Any]()
        place = 0
        for column in self._numeric:
            stop = place + len(column.parts)
            numbers = fields["numbers"][place:stop].double().numpy() * np.array(column.scale) + np.array(column.center)
            out[column.name] = None if bool(fields["missing"][place]) else decoded(column, numbers)
            place = stop
        for column, code in zip(self._categories, fields["categories"].tolist(), strict=True):
            out[column.name] = Levels(column.levels).decode(code)
        order = [column.name for column in self.columns]
        return {name: out[name] for name in sorted(out, key=order.index)}

    def draw(self, axes: Any, value: dict[str, Tensor]) -> None:
        shown = list(self.decode(value).items())
        lines = [f"{name:.18}: {short(cell)}" for name, cell in shown[:14]]
        lines += [f"… {len(shown) - 14} more"] if len(shown) > 14 else []
        axes.set_axis_off()
        axes.text(0, 1, "\n".join(lines), fontsize=6, va="top", family="monospace", parse_math=False)
