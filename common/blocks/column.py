"""One column of a table: its kind, its numeric features, and the validation of cells that people enter.

Floor: blocks; may import text and below. Used by: its own room.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.util import hash_array

from common.blocks.column_kinds import (
    Found,
    Kind,
    read_booleans,
    read_dates,
)
from common.blocks.content import folded
from common.blocks.form import FieldKind, FormField, choice_of, number_of, shown, text_of
from common.blocks.levels import RARE_FROM, level_name, named
from common.blocks.ngrams import words
from common.errors import ConfigError, DataError

_DATE_PARTS = ("days", "year", "month", "day", "weekday", "yearday", "hour")
_TEXT_PARTS = ("words", "characters")
_DAY_S = 86400.0
MOST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Column:
    """A column of a fitted block.

    Attributes:
        name: Its name in the table.
        kind: Its kind; see `column_kinds.KINDS`.
        why: The reason for this kind.
        parts: The names of its numeric features: its value, the parts of a date, the length of a text.
        center: The median of each feature over the training rows.
        scale: The divisor of each feature: its interquartile range over 1.349, or its standard deviation where that
            range is 0.
        levels: The levels of a category, in order; the first has position 2.
    """

    name: str
    kind: Kind
    why: str = ""
    parts: tuple[str, ...] = ()
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    levels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = {"date": _DATE_PARTS, "text": _TEXT_PARTS}.get(self.kind, ("value",))
        if self.parts not in ((), known) and not (self.kind == "date" and self.parts == known[:-1]):
            raise ConfigError(f"the column {self.name!r}: parts of a {self.kind} must be {', '.join(known)}")
        fitted = np.isfinite([*self.center, *self.scale]).all() and all(scale > 0 for scale in self.scale)
        if not (len(self.parts) == len(self.center) == len(self.scale) and fitted):
            raise ConfigError(f"the column {self.name!r} must have a finite center and a scale above 0 for each part")

    @property
    def category(self) -> bool:
        """Whether it is encoded as the position of its level."""
        return self.kind in ("category", "high_cardinality")

    @property
    def open(self) -> bool:
        """Whether it has so many levels that unseen ones are to be expected in production."""
        return self.category and (self.kind == "high_cardinality" or len(self.levels) > RARE_FROM)


_FIELD_KINDS: dict[str, FieldKind] = {
    "number": "number",
    "boolean": "boolean",
    "date": "date",
    "text": "text",
    "category": "choice",
    "high_cardinality": "choice",
}


def field_of(column: Column) -> FormField:
    """Returns the form field of a column."""
    return FormField(
        name=column.name,
        kind=_FIELD_KINDS[column.kind],
        choices=column.levels,
        open=column.open,
        required=False,
    )


def entered(column: Column, cell: Any) -> Any:
    """Returns a validated cell from a form or a request; None where it is missing."""
    what = f"the column {column.name!r}"
    if cell is None or cell == "" or (isinstance(cell, float) and np.isnan(cell)):
        return None
    if column.kind == "number":
        return number_of(what, cell, largest=float("inf"))
    if not isinstance(cell, (str, int, float)):
        raise DataError(f"{what} must be a text or a number, got {shown(cell)}")
    if column.category:
        return text_of(what, level_name(cell)) if column.open else choice_of(what, cell, column.levels)
    if column.kind == "boolean":
        truth = float(read_booleans(pd.Series([cell], dtype=object))[0])
        if np.isnan(truth):
            raise DataError(f"{what} must be true or false (yes or no, 1 or 0), got {shown(cell)}")
        return truth > 0
    if column.kind == "date":
        if not isinstance(cell, str) or bool(read_dates(pd.Series([cell[:100]], dtype=object)).isna().iloc[0]):
            raise DataError(f"{what} must be a date such as 2024-02-29 or 2024-02-29 18:30, got {shown(cell)}")
        return cell
    return text_of(what, level_name(cell))


ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)
_KEYS = ("cookbook-columns", "columns-cookbook")  # keys of pandas' hash_array: 16 bytes each


def mixed_bits(values: np.ndarray) -> np.ndarray:
    """Mixes the bits of 64-bit numbers by a bijection (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def cell_hashes(column: Column, values: pd.Series) -> np.ndarray:
    """Returns two 64-bit hashes of each parsed cell, uint64 (N, 2)."""
    if not (column.category or column.kind == "text"):
        parts = numbers_of(column, values)[1] + 0.0  # -0.0 becomes 0.0
        bits = np.where(np.isnan(parts), np.nan, parts).view(np.uint64)
        out = np.zeros((len(values), 2), np.uint64)
        for i in range(bits.shape[1]):
            out = mixed_bits(out * ODD + bits[:, i : i + 1] + ODD)
        return out
    codes, names = named(values)
    if column.kind == "text":
        names = [folded(name) for name in names]
    known = np.array([*names, ""], dtype=object)  # a missing cell has the code -1, which indexes the last one
    known = np.array([name.encode("utf-8", "replace").decode("utf-8") for name in known], dtype=object)
    hashing: Any = hash_array  # pandas' types call it an object
    hashes = [hashing(known, hash_key=key, categorize=False) for key in _KEYS]
    return np.stack(hashes, axis=1)[codes]


def placed(column: Column, located: tuple[tuple[str, str], ...]) -> str:
    """Returns the reason for a column's kind; for a latitude or longitude also its partner."""
    for pair in located:
        if column.name in pair:
            other = pair[1 - pair.index(column.name)]
            return f"{column.why}; with {other} a place"
    return column.why


def column_of(found: Found) -> Column:
    """Returns the column, not fitted yet, of an inferred kind."""
    return Column(found.name, found.kind, found.why)


def short(cell: Any) -> str:
    """Returns a cell as a short string."""
    return f"{cell:.4g}" if isinstance(cell, float) else f"{cell!s:.24}"


def strings(column: pd.Series) -> list[str]:
    """Returns each cell as text; a missing one is empty."""
    return [
        "" if gone else level_name(value) for value, gone in zip(column.tolist(), column.isna().tolist(), strict=True)
    ]


def numbers_of(column: Column, values: pd.Series) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the names and values, float64 (N, parts), of a column's numeric features; NaN where missing."""
    if column.kind == "date":
        return date_numbers(values, column.parts)
    if column.kind == "text":
        texts = strings(values)
        counts = [[len(words(text)), len(text)] for text in texts]
        return _TEXT_PARTS, np.array(counts, np.float64).reshape(len(texts), 2)
    if column.kind == "boolean":
        return ("value",), read_booleans(values)[:, None]
    if pd.api.types.is_datetime64_any_dtype(values):
        return ("value",), date_numbers(values, ("days",))[1]
    if pd.api.types.is_timedelta64_dtype(values):
        values = values.dt.total_seconds()
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    return ("value",), np.asarray(pd.to_numeric(values, errors="coerce"), dtype=np.float64)[:, None]


def date_numbers(values: pd.Series, fitted: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns names and values, float64 (N, parts), of the numeric features of dates.

    Args:
        values: The cells.
        fitted: The features to compute; when empty, all, without the hour if no date has a time of day.
    """
    dates = read_dates(values)
    parts = dates.dt
    gone = dates.isna().to_numpy()
    days = dates.to_numpy("datetime64[s]").astype(np.int64) / _DAY_S
    features: dict[str, Any] = {
        "days": np.where(gone, np.nan, days),
        "year": parts.year,
        "month": parts.month,
        "day": parts.day,
        "weekday": parts.day_of_week,
        "yearday": parts.day_of_year,
        "hour": parts.hour + parts.minute / 60,
    }
    hours = np.asarray(features["hour"], np.float64)
    names = fitted or (_DATE_PARTS if np.nan_to_num(hours).any() else _DATE_PARTS[:-1])
    return names, np.stack([np.asarray(features[name], np.float64) for name in names], axis=1)


def decoded(column: Column, numbers: np.ndarray) -> Any:
    """Returns a cell for display from its numeric features in original units."""
    if column.kind == "date":
        date = dict(zip(column.parts, numbers.tolist(), strict=True))
        day = f"{date['year']:04.0f}-{date['month']:02.0f}-{date['day']:02.0f}"
        minutes = round(date["hour"] * 60) if "hour" in date else None
        return day if minutes is None else f"{day} {minutes // 60:02}:{minutes % 60:02}"
    if column.kind == "text":
        return f"({numbers[0]:.0f} words)"
    if column.kind == "boolean":
        return bool(numbers[0] > 0.5)
    return float(numbers[0])


def spread(values: np.ndarray) -> tuple[float, float]:
    """Returns the median and a robust scale of a feature: the interquartile range as a normal's deviation.

    Outliers move neither, unless half of the values are equal: then the scale is the standard deviation.
    """
    seen = np.clip(values[np.isfinite(values)], -MOST, MOST)
    if not len(seen):
        return 0.0, 1.0
    low, middle, high = np.quantile(seen, [0.25, 0.5, 0.75])
    scale = (high - low) / 1.349 or float(np.std(seen))  # the quartiles of a normal are 1.349 deviations apart
    return float(middle), float(scale) if scale > 0 else 1.0
