"""Content digests of raw values: equal for equal content, whatever its name and location.

Floor: blocks; may import text and below. Used by: store, data.
"""

import dataclasses
import hashlib
import math
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from torch import Tensor

from common.errors import DataError

DIGEST_BYTES = 16


def is_file(raw: Any, from_file: bool) -> bool:
    """Whether a raw value names a file: a Path does, a string only where the block's raws are files.

    Args:
        raw: A raw value of a field.
        from_file: `Block.from_file` of its block.
    """
    return isinstance(raw, Path) or (from_file and isinstance(raw, str))


def content_digest(raw: Any, *, from_file: bool = False) -> bytes:
    """Returns 16 bytes that are equal for equal content: a file's bytes, an array's dtype, shape and values.

    Numbers are compared by value (1 and 1.0 are equal, and so are two NaN), texts by their characters, lists and
    dataclasses by their elements.

    Args:
        raw: Any raw value.
        from_file: Whether a string names a file.

    Raises:
        DataError: if the file cannot be read.

    Examples:
        >>> content_digest([1, 2]) == content_digest((1.0, 2.0)), content_digest("1") == content_digest(1)
        (True, False)
    """
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    _take(digest, raw, from_file)
    return digest.digest()


def words_digest(text: str) -> bytes:
    r"""Returns 16 bytes that are equal for texts of the same words, whatever their case and whitespace.

    Args:
        text: Any text.

    Examples:
        >>> words_digest("A  rose\nis") == words_digest("a rose IS ")
        True
    """
    return content_digest(folded(text))


def folded(text: str) -> str:
    """Returns a text case-folded and with single blanks between its words."""
    return " ".join(text.casefold().split())


def _put(digest: Any, kind: bytes, data: Any) -> None:
    """Adds bytes with their kind and length in front, so that no two different sequences hash the same bytes."""
    size = data.nbytes if isinstance(data, memoryview) else len(data)
    digest.update(b"%s %d:" % (kind, size))
    digest.update(data)


def _take(digest: Any, raw: Any, from_file: bool) -> None:
    if is_file(raw, from_file):
        _put(digest, b"bytes", _file_bytes(raw))
    elif isinstance(raw, (bytes, bytearray, memoryview)):
        _put(digest, b"bytes", bytes(raw))
    elif isinstance(raw, str):
        _put(digest, b"text", raw.encode("utf-8", "surrogatepass"))
    elif isinstance(raw, (np.ndarray, Tensor)):
        _take_array(digest, raw.detach().cpu().numpy() if isinstance(raw, Tensor) else raw)
    elif raw is None or raw is pd.NA or raw is pd.NaT:
        _put(digest, b"none", b"")
    elif isinstance(raw, (numbers.Number, np.generic)):
        _put(digest, b"number", _number(raw))
    elif isinstance(raw, Image.Image):
        _put(digest, b"image", f"{raw.mode} {raw.size}".encode())
        _put(digest, b"bytes", raw.tobytes())
    elif dataclasses.is_dataclass(raw) and not isinstance(raw, type):
        _take_many(digest, type(raw).__name__, [getattr(raw, field.name) for field in dataclasses.fields(raw)])
    elif isinstance(raw, Mapping):
        for name in sorted(raw, key=str):
            _put(digest, b"name", str(name).encode("utf-8", "surrogatepass"))
            _take(digest, raw[name], False)
        _put(digest, b"names", str(len(raw)).encode())
    elif isinstance(raw, (list, tuple)):
        _take_list(digest, raw)
    elif isinstance(raw, (set, frozenset)):
        _take_many(digest, "set", sorted(content_digest(one) for one in raw))
    elif isinstance(raw, pd.Series):
        _take(digest, dict(raw.items()), False)
    else:
        _put(digest, b"other", repr(raw).encode("utf-8", "surrogatepass"))


def _take_many(digest: Any, kind: str, values: Sequence[Any]) -> None:
    _put(digest, kind.encode(), str(len(values)).encode())
    for value in values:
        _take(digest, value, False)


def _take_list(digest: Any, values: Sequence[Any]) -> None:
    if values and set(map(type, values)) <= {int, float}:
        try:
            _put(digest, b"numbers", np.asarray(values, np.float64).tobytes())
            return
        except OverflowError:  # an integer beyond every float
            pass
    _take_many(digest, "list", values)


def _take_array(digest: Any, array: np.ndarray) -> None:
    if array.dtype.hasobject:
        _put(digest, b"shape", str(array.shape).encode())
        _take_list(digest, array.reshape(-1).tolist())
        return
    _put(digest, b"array", f"{array.dtype} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _number(raw: Any) -> bytes:
    try:
        value = float(raw)
    except (TypeError, ValueError, OverflowError):
        return repr(raw).encode()
    if math.isnan(value):
        return b"nan"
    exact = isinstance(raw, int) and int(value) != raw if math.isfinite(value) else False
    return repr(int(raw) if exact else value + 0.0).encode()  # -0.0 becomes 0.0


def _file_bytes(raw: str | Path) -> bytes:
    try:
        return Path(raw).read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{raw}: the file does not exist") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{str(raw)[:80]}: cannot be read: {reason}") from error
