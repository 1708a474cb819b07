"""Inference of the kinds of a table's columns from their training values, each with its reason.

Floor: blocks; may import text and below. Used by: applications.
"""

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import pandas as pd

from common.blocks.ngrams import words

Kind = Literal["number", "boolean", "category", "high_cardinality", "date", "text", "identifier", "constant", "ignored"]
KINDS: tuple[str, ...] = get_args(Kind)
USED = ("number", "boolean", "category", "high_cardinality", "date", "text")

MANY_LEVELS = 50  # above this number of levels a category is high-cardinality
NEARLY_ALL = 0.95  # the share of values that must parse as numbers or dates for the column to be of that kind
LOOKED_AT = 2000  # the number of values that are sampled to recognise dates and texts
DENSE = 1.1  # the largest ratio of an integer column's range to the number of rows for it to be a row number
_CODE = re.compile(r"(?i:(^|[\s_.-])(id|ids|code|zip|zipcode|postcode|plz|sku|uuid|guid)$)|(?<=[a-z])(Id|ID|Code)$")
_IDENTITY = re.compile(r"(?i:(^|[\s_.-])(id|uuid|guid)$)|(?<=[a-z])(Id|ID)$")
_DATE = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{4}-\d{2}|[A-Za-z]{3,9}\s+\d{1,2},?\s+\d{4}|\d{1,2}\s+[A-Za-z]{3,9}\s+\d{4}"
)
_TOKEN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_LATITUDE = ("lat", "latitude")
_LONGITUDE = ("lon", "lng", "long", "longitude")
_YES = ("true", "yes", "y", "t")
_NO = ("false", "no", "n", "f")


@dataclass(frozen=True)
class Found:
    """The inferred kind of a column.

    Attributes:
        name: Its name.
        kind: One of `KINDS`.
        why: The reason, in words.
        distinct: The number of distinct values.
        missing: The share of missing values.
    """

    name: str
    kind: Kind
    why: str
    distinct: int
    missing: float


def infer_kinds(frame: pd.DataFrame) -> list[Found]:
    """Returns the kind of each column of a frame, by rules on its values and, for codes and ids, its name.

    Args:
        frame: The training rows, without the target.

    Examples:
        >>> table = pd.DataFrame({"id": range(40), "town": ["A", "B"] * 20, "pay": np.linspace(0, 9.5, 40)})
        >>> [(found.name, found.kind) for found in infer_kinds(table)]
        [('id', 'identifier'), ('town', 'category'), ('pay', 'number')]
    """
    return [infer_kind(str(name), series(frame, name)) for name in frame.columns]


def series(frame: pd.DataFrame, name: str) -> pd.Series:
    """Returns one column of a frame with unique column names."""
    return cast(pd.Series, frame[name])


def infer_kind(name: str, column: pd.Series) -> Found:
    """Returns the kind of one column.

    Args:
        name: Its name.
        column: Its training values.
    """
    filled = column.dropna()
    if column.dtype == object:
        filled = filled.map(_plain)
    values = pd.Series(pd.unique(filled)) if len(filled) else filled
    kind, why = _kind(name, filled, values, len(column))
    return Found(name, kind, why, len(values), 1 - len(filled) / max(len(column), 1))


def _plain(value: Any) -> Any:
    """A hashable value: a cell of an unusual type (a list) is replaced by its text."""
    return value if isinstance(value, (str, int, float, bool, np.generic, pd.Timestamp)) else str(value)


def _kind(name: str, filled: pd.Series, values: pd.Series, rows: int) -> tuple[Kind, str]:
    distinct = len(values)
    if distinct == 0:
        return "constant", "every value is missing"
    if distinct == 1 and len(filled) == rows:
        return "constant", f"every value is {values.tolist()[0]!r:.40}"
    if pd.api.types.is_bool_dtype(filled):
        return "boolean", "true or false"
    if pd.api.types.is_datetime64_any_dtype(filled):
        return "date", "dates"
    if isinstance(filled.dtype, pd.CategoricalDtype):
        return _category(distinct, "declared as categories")
    if pd.api.types.is_numeric_dtype(filled):
        return _number(name, filled, distinct, rows)
    return _text(name, filled.astype(str), distinct, rows)


def infer_places(frame: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    """Returns the pairs of numeric columns that are a latitude and a longitude, by their names and values.

    Args:
        frame: The training rows of numeric columns.

    Examples:
        >>> infer_places(pd.DataFrame({"pickup_lat": [52.5, 48.1], "pickup_lon": [13.4, 11.6], "lat": [1.0, 2.0]}))
        (('pickup_lat', 'pickup_lon'),)
    """
    found: dict[str, dict[str, str]] = {"latitude": {}, "longitude": {}}
    for name in map(str, frame.columns):
        tokens = [token.lower() for token in _TOKEN.findall(name)]
        for kind, words_for, most in (("latitude", _LATITUDE, 90.0), ("longitude", _LONGITUDE, 180.0)):
            rest = [token for token in tokens if token not in words_for]
            if len(rest) != len(tokens) - 1:
                continue
            values = np.asarray(pd.to_numeric(series(frame, name), errors="coerce"), np.float64)
            values = values[np.isfinite(values)]
            if len(values) and np.abs(values).max() <= most:
                found[kind]["_".join(rest)] = name
    pairs = [(name, found["longitude"].get(key)) for key, name in found["latitude"].items()]
    return tuple((latitude, longitude) for latitude, longitude in pairs if longitude is not None)


def _category(distinct: int, why: str) -> tuple[Kind, str]:
    many = distinct > MANY_LEVELS
    return ("high_cardinality" if many else "category"), f"{distinct} levels, {why}"


def _number(name: str, filled: pd.Series, distinct: int, rows: int) -> tuple[Kind, str]:
    values = filled.to_numpy(np.float64)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "constant", "no value is finite"
    whole = bool((finite == np.round(finite)).all())
    unique = distinct == len(filled) and rows >= 20
    if whole and unique and float(finite.max()) - float(finite.min()) <= DENSE * rows:
        return "identifier", "a row number: whole, all different, without gaps"
    if whole and unique and _IDENTITY.search(name):
        return "identifier", "called an id, all different"
    if whole and not unique and _CODE.search(name) and distinct < len(filled) / 2:
        return _category(distinct, "called a code")
    if distinct <= 2 and set(np.unique(finite).tolist()) <= {0.0, 1.0}:
        return "boolean", "0 or 1"
    return "number", f"{distinct} different numbers"


def _text(name: str, filled: pd.Series, distinct: int, rows: int) -> tuple[Kind, str]:
    numbers: Any = pd.to_numeric(filled, errors="coerce")
    padded = filled.str.match(r"^0\d").mean() > 0.01
    if numbers.notna().mean() >= NEARLY_ALL and not padded:
        kind, why = _number(name, numbers.dropna(), numbers.nunique(), rows)
        return kind, f"{why}, written as text"
    small = set(filled.str.strip().str.lower().unique().tolist()) if distinct <= 4 else {""}
    if small <= {*_YES, *_NO}:
        return "boolean", "yes or no"
    looked = filled.iloc[:: max(1, len(filled) // LOOKED_AT)]
    if looked.str.contains(_DATE).mean() >= NEARLY_ALL and read_dates(looked).notna().mean() >= NEARLY_ALL:
        return "date", f"{distinct} dates, written as text"
    length = float(np.mean([len(words(text)) for text in looked]))
    spaced = float(looked.str.strip().str.contains(r"\s").mean())
    if looked.str.match(r"https?://").mean() >= NEARLY_ALL and distinct > len(filled) / 2:
        return "identifier", "addresses, most of them different"
    if distinct > MANY_LEVELS and spaced > 0.5 and (length >= 4 or (distinct > len(filled) / 2 and length >= 2)):
        return "text", f"{length:.0f} words on average, {distinct} different texts"
    if distinct == len(filled) and rows >= 20 and spaced < 0.5:
        return "identifier", "one word, all different"
    return _category(distinct, "words")


def read_dates(column: pd.Series) -> pd.Series:
    """Returns a column as dates without a time zone (in UTC), NaT where a cell is not a date.

    Args:
        column: Dates, or texts that pandas parses as dates.
    """
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return pd.Series(pd.NaT, index=column.index, dtype="datetime64[ns]")
    if isinstance(column.dtype, pd.PeriodDtype):
        return column.dt.start_time
    with warnings.catch_warnings():  # pandas warns of mixed formats, where it parses each cell by itself
        warnings.simplefilter("ignore", UserWarning)
        found = pd.to_datetime(column, errors="coerce", utc=True, format="mixed")
    return found.dt.tz_localize(None)


def read_booleans(column: pd.Series) -> np.ndarray:
    """Returns a column of yes and no, true and false, 1 and 0 as float64 (N,), NaN where it is none of them."""
    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_numeric_dtype(column):
        values = column.to_numpy(np.float64, na_value=np.nan)
        return np.where(np.isin(values, (0.0, 1.0)), values, np.nan)
    text = column.astype(object).where(column.notna(), "").astype(str).str.strip().str.lower()
    known = {**dict.fromkeys((*_YES, "1", "1.0"), 1.0), **dict.fromkeys((*_NO, "0", "0.0"), 0.0)}
    return np.array([known.get(word, np.nan) for word in text.tolist()], np.float64)


def duplicates(names: Any) -> Iterator[str]:
    """Yields the names that occur more than once."""
    seen: set[str] = set()
    for name in map(str, names):
        if name in seen:
            yield name
        seen.add(name)
