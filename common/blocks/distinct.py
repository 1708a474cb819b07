"""The distinct values of a field, so that what is asked of a value is asked once of each and not of every row."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

ROWS = 1 << 22
"""Rows of a column that are looked at together: what is made of them on the way takes 8 bytes per row."""
_BITS: dict[int, Any] = {2: np.int16, 4: np.int32, 8: np.int64}


def pieces(raws: Sequence[Any]) -> Iterator[tuple[slice, Any]]:
    """Yields the raw values of a field some million at a time, each piece with the rows that it holds.

    Args:
        raws: A list, a column (a Series, also an Arrow-backed one) or an array; a piece is of the same kind.
    """
    for start in range(0, len(raws), ROWS):
        rows = slice(start, min(start + ROWS, len(raws)))
        yield rows, raws.iloc[rows] if isinstance(raws, pd.Series) else raws[rows]


def distinct(raws: Any) -> tuple[np.ndarray, list[Any]]:
    """Returns which value each row has, int64 (N,), and these values in the order in which they come first.

    A missing value is one of them. What may be equal and yet have another name counts apart: 0.0 and -0.0; and where
    values of several types stand in one list (1, True and 1.0), every row.

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
    """Of numbers, those that differ in their bits; ``listed`` makes a list of them."""
    kind, size = array.dtype.kind, array.itemsize
    if array.ndim != 1 or kind not in "iubf" or (kind == "f" and size not in _BITS):
        return None
    bits = np.ascontiguousarray(array).view(_BITS[size]) if kind == "f" else array
    codes, kept = pd.factorize(bits)
    return codes.astype(np.int64, copy=False), listed(np.asarray(kept).view(array.dtype))
