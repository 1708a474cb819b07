"""The distinct values of a field, so that work on a value is done once and not for every row.

Floor: blocks; may import text and below. Used by: sources, data.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

ROWS = 1 << 22
"""Rows of a column that are processed at a time: temporary arrays take 8 bytes per row."""
_BITS: dict[int, Any] = {2: np.int16, 4: np.int32, 8: np.int64}


def pieces(raws: Sequence[Any]) -> Iterator[tuple[slice, Any]]:
    """Yields the raw values of a field in pieces of at most `ROWS`, each with the slice of its rows.

    Args:
        raws: A list, a column (a Series, also an Arrow-backed one) or an array; a piece is of the same kind.
    """
    for start in range(0, len(raws), ROWS):
        rows = slice(start, min(start + ROWS, len(raws)))
        yield rows, raws.iloc[rows] if isinstance(raws, pd.Series) else raws[rows]


def distinct(raws: Any) -> tuple[np.ndarray, list[Any]]:
    """Returns the index of each row's value, int64 (N,), and the distinct values in the order of first occurrence.

    A missing value is one of them. Values that are equal but print differently are distinct: 0.0 and -0.0; in a list of
    several types (1, True and 1.0), every row is its own value.

    Args:
        raws: A list, a column (a Series, also an Arrow-backed one) or an array.

    Examples:
        >>> codes, values = distinct(pd.Series([7, 5, 7], dtype="int32"))
        >>> codes.tolist(), values
        ([0, 1, 0], [7, 5])
    """
    found = _of_array(raws, list) if isinstance(raws, np.ndarray) else None
    if isinstance(raws, pd.Series):
        found = _of_column(raws)
    if found is not None:
        return found
    values: list[Any] = raws.tolist() if isinstance(raws, pd.Series) else list(raws)
    if set(map(type, values)) not in ({str}, {int}):
        return np.arange(len(values)), values
    place = {value: i for i, value in enumerate(dict.fromkeys(values))}
    return np.fromiter(map(place.__getitem__, values), np.int64, len(values)), list(place)


def _of_column(column: pd.Series) -> tuple[np.ndarray, list[Any]] | None:
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind == "O" and pd.api.types.infer_dtype(column, skipna=False) != "string":
        return None
    if dtype.kind in "iubf" and not column.hasnans:
        return _of_array(column.to_numpy(), np.ndarray.tolist)
    if dtype.kind == "f":
        return _of_array(column.to_numpy(), np.ndarray.tolist) if isinstance(dtype, np.dtype) else None
    codes, kept = pd.factorize(column, use_na_sentinel=False)
    return codes.astype(np.int64, copy=False), kept.tolist()


def _of_array(array: np.ndarray, listed: Any) -> tuple[np.ndarray, list[Any]] | None:
    """The distinct numbers of an array, compared by their bits; ``listed`` converts them to a list."""
    kind, size = array.dtype.kind, array.itemsize
    if array.ndim != 1 or kind not in "iubf" or (kind == "f" and size not in _BITS):
        return None
    bits = np.ascontiguousarray(array).view(_BITS[size]) if kind == "f" else array
    codes, kept = pd.factorize(bits)
    return codes.astype(np.int64, copy=False), listed(np.asarray(kept).view(array.dtype))
