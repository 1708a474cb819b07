"""UBJSON (draft 12), the format of XGBoost's model files, as plain Python values and numpy arrays.

`decode` takes untrusted bytes: every length is compared with the bytes that are left before anything is allocated,
nesting and the number of values are bounded, and ambiguous content (a key given twice, bytes after the end, text that
is not UTF-8) is refused. `encode` writes the one form that XGBoost writes, so that ``encode(decode(data)) == data``
means that XGBoost reads from ``data`` what `decode` read.

Source: https://ubjson.org (draft 12); XGBoost 3.2, src/common/json.cc.

Floor: deploy; may import show and below. Used by: its own room.
"""

import math
import re
import struct
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from common.errors import BundleError

MAX_DEPTH = 64
MAX_VALUES = 1 << 21
"""Containers, strings and single numbers of one file; the elements of typed arrays are not counted."""

_CODES = {"i": "b", "U": "B", "I": "h", "l": "i", "L": "q", "d": "f", "D": "d"}
_SCALARS = {marker: struct.Struct(">" + code) for marker, code in _CODES.items()}
_DTYPES = {
    marker: np.dtype(f">{code}{_SCALARS[marker].size}") for marker, code in zip("iUIlLdD", "iuiiiff", strict=True)
}
_NATIVE = {marker: dtype.newbyteorder("=") for marker, dtype in _DTYPES.items()}
_MARKERS = {dtype: marker for marker, dtype in _NATIVE.items()}
_LENGTHS = "iUIlL"
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_CONSTANTS = {"Z": None, "T": True, "F": False}


def decode(data: bytes, name: str) -> Any:
    r"""Decodes one UBJSON value: dict, list, str, int, float, bool, None, or a numpy array for a typed array.

    Args:
        data: The whole file.
        name: The file's name in errors.

    Returns:
        The value. A typed array of numbers is a flat array in the machine's byte order: int8 (``i``), uint8 (``U``),
        int16 (``I``), int32 (``l``), int64 (``L``), float32 (``d``) or float64 (``D``). Other arrays are lists.

    Raises:
        BundleError: one sentence with the byte position, if the bytes are not exactly one value within the limits.

    Examples:
        >>> decode(b"{i\x01aS" + b"i\x02hi" + b"i\x01b[$l#i\x02\0\0\0\x07\xff\xff\xff\xff}", "x.ubj")
        {'a': 'hi', 'b': array([ 7, -1], dtype=int32)}
    """
    reader = _Reader(data, name)
    value = reader.value(reader.marker(), 0)
    if reader.at != len(data):
        raise reader.error(reader.at, f"{len(data) - reader.at} bytes follow the end of the value")
    return value


def encode(value: Any) -> bytes:
    r"""Encodes a value that `decode` returned, as XGBoost writes it.

    Args:
        value: dict with text keys, list, str, int, float (written as float32), bool, None, or a one-dimensional array.

    Raises:
        TypeError: if the value holds anything else.

    Examples:
        >>> encode({"a": 5})
        b'{L\x00\x00\x00\x00\x00\x00\x00\x01ai\x05}'
    """
    parts: list[bytes] = []
    _write(value, parts)
    return b"".join(parts)


@dataclass(frozen=True)
class Fields:
    """Typed readers of decoded values: each returns the value as the required type, or raises naming the field.

    Attributes:
        name: The file's name in errors.
    """

    name: str

    def error(self, what: str) -> BundleError:
        return BundleError(f"{self.name}: {what}")

    def same_bytes(self, content: Any, data: bytes) -> None:
        """Checks that encoding the content gives the same bytes.

        XGBoost's own reader supports less of UBJSON than `decode`; both agree only on the form that XGBoost writes.
        """
        written = encode(content)
        if written != data:
            size = min(len(written), len(data))
            differs = np.frombuffer(written, np.uint8, size) != np.frombuffer(data, np.uint8, size)
            at = int(differs.argmax()) if differs.any() else size
            raise self.error(f"byte {at}: XGBoost does not write this form of UBJSON: save the model again with it")

    def fields(self, value: Any, what: str, names: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.error(f"{what} must be an object, got {type(value).__name__}")
        found: dict[str, Any] = value
        if found.keys() != set(names):
            lacking, unknown = sorted(set(names) - set(found)), sorted(set(found) - set(names))
            raise self.error(
                f"{what} {f'lacks {lacking[0]}' if lacking else f'has the unknown field {unknown[0]!r:.60}'}"
            )
        return found

    def every(self, value: Any, what: str, kind: type, noun: str) -> list[Any]:
        if not isinstance(value, list) or any(type(element) is not kind for element in value):
            raise self.error(f"{what} must be a list of {noun}")
        return value

    def integers(self, value: Any, what: str) -> NDArray[np.int64]:
        return np.array(self.every(value, what, int, "whole numbers"), np.int64)

    def count(self, value: Any, what: str, low: int, high: int) -> int:
        """Returns a whole number that XGBoost writes as text, checked against a range."""
        if not isinstance(value, str) or not re.fullmatch(r"0|[1-9][0-9]{0,9}", value, re.ASCII):
            raise self.error(f"{what} must be a whole number as text, got {value!r:.60}")
        if not low <= int(value) <= high:
            raise self.error(f"{what} is {value}, must be {low}" + (f" to {high}" if high > low else ""))
        return int(value)

    def floats(self, value: Any, what: str) -> list[float]:
        """Returns finite numbers that XGBoost writes as text, such as ``[5E-1,1.2E0]``."""
        text = value if isinstance(value, str) else ""
        number = r"-?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]{1,3})?"
        if not re.fullmatch(rf"\[{number}(,{number})*\]", text, re.ASCII):
            raise self.error(f"{what} must hold finite numbers as text, got {value!r:.60}")
        found = [float(part) for part in text.strip("[]").split(",")]
        if not all(abs(part) <= _FLOAT32_MAX for part in found):
            raise self.error(f"{what} must hold finite numbers as text, got {value!r:.60}")
        return found

    def array(self, value: Any, what: str, dtype: np.dtype[Any], size: int | None = None) -> NDArray[Any]:
        if not isinstance(value, np.ndarray) or value.dtype != dtype:
            found = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
            raise self.error(f"{what} must be an array of {dtype}, got {found}")
        if size is not None and value.size != size:
            raise self.error(f"{what} has {value.size} values, must have {size}")
        return value


class _Reader:
    """A cursor over the bytes; every read checks that enough bytes are left."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name
        self.at = 0
        self.values = 0

    def error(self, at: int, what: str) -> BundleError:
        return BundleError(f"{self.name} is not readable UBJSON: byte {at}: {what}")

    def take(self, count: int) -> int:
        """Advances by ``count`` bytes and returns where they begin."""
        begin = self.at
        if count > len(self.data) - begin:
            raise self.error(begin, f"{count} bytes are needed, {len(self.data) - begin} are left")
        self.at = begin + count
        return begin

    def marker(self) -> str:
        """Returns the next type marker, skipping no-ops."""
        while True:
            found = chr(self.data[self.take(1)])
            if found != "N":
                return found

    def peek(self) -> str:
        """Returns the next type marker without consuming it."""
        found = self.marker()
        self.at -= 1
        return found

    def scalar(self, marker: str) -> int | float:
        kind = _SCALARS[marker]
        return kind.unpack_from(self.data, self.take(kind.size))[0]

    def length(self, least: int = 1) -> int:
        """Reads a count of elements of at least ``least`` bytes each, checked against the bytes that are left."""
        begin = self.at
        marker = chr(self.data[self.take(1)])
        if marker not in _LENGTHS:
            raise self.error(begin, f"a length must be of type i, U, I, l or L, got {marker!r}")
        count = cast(int, self.scalar(marker))
        if count < 0:
            raise self.error(begin, f"a length must not be negative, got {count}")
        if count * least > len(self.data) - self.at:
            raise self.error(begin, f"the length {count} needs more bytes than the {len(self.data) - self.at} left")
        return count

    def text(self) -> str:
        count = self.length()
        begin = self.take(count)
        try:
            return self.data[begin : self.at].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(begin + error.start, f"the text is not UTF-8 ({error.reason})") from error

    def value(self, marker: str, depth: int) -> Any:
        """Reads the value after its marker, inside ``depth`` containers."""
        self.values += 1
        if self.values > MAX_VALUES:
            raise self.error(self.at, f"the file holds more than {MAX_VALUES} values")
        if marker in _SCALARS:
            return self.scalar(marker)
        if marker == "S":
            return self.text()
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if marker in ("[", "{"):
            if depth >= MAX_DEPTH:
                raise self.error(self.at - 1, f"nested deeper than {MAX_DEPTH} containers")
            return self.array(depth + 1) if marker == "[" else self.object(depth + 1)
        if marker == "C":
            code = self.data[self.take(1)]
            if code > 127:
                raise self.error(self.at - 1, f"a character must be below 128, got {code}")
            return chr(code)
        raise self.error(self.at - 1, f"there is no type {marker!r} (H, numbers of any precision, is not read)")

    def header(self) -> tuple[str | None, int | None]:
        """Reads the type and count of an optimised container; None where it has none."""
        kind: str | None = None
        if self.peek() == "$":
            begin = self.take(1)
            kind = chr(self.data[self.take(1)])
            if kind not in _SCALARS and kind not in ("S", "C", "[", "{"):
                raise self.error(begin, f"a container of the type {kind!r} has no size: its count bounds nothing")
            if self.peek() != "#":
                raise self.error(begin, "a container with a type must have a count")
        if self.peek() != "#":
            return kind, None
        self.take(1)
        return kind, self.length(_DTYPES[kind].itemsize if kind in _DTYPES else 1)

    def array(self, depth: int) -> list[Any] | NDArray[Any]:
        kind, count = self.header()
        if kind in _DTYPES and count is not None:
            begin = self.take(count * _DTYPES[kind].itemsize)
            return np.frombuffer(self.data, _DTYPES[kind], count, begin).astype(_NATIVE[kind])
        if count is not None:
            return [self.value(kind or self.marker(), depth) for _ in range(count)]
        found: list[Any] = []
        while (marker := self.marker()) != "]":
            found.append(self.value(marker, depth))
        return found

    def object(self, depth: int) -> dict[str, Any]:
        kind, count = self.header()
        found: dict[str, Any] = {}
        while len(found) != count:
            if count is None and self.peek() == "}":
                self.take(1)
                break
            begin = self.at
            key = self.text()
            if key in found:
                raise self.error(begin, f"the key {key!r:.60} is given twice")
            found[key] = self.value(kind or self.marker(), depth)
        return found


def _write(value: Any, parts: list[bytes]) -> None:
    if isinstance(value, np.ndarray):
        array: NDArray[Any] = value
        marker = _MARKERS.get(array.dtype, "")
        if not marker or array.ndim != 1:
            raise TypeError(f"UBJSON has no form for an array of {array.dtype} of shape {array.shape}")
        parts.append(b"[$%c#" % ord(marker) + _size(array.size) + array.astype(_DTYPES[marker]).tobytes())
    elif isinstance(value, dict):
        parts.append(b"{")
        for key, held in sorted((k.encode("utf-8"), v) for k, v in value.items()):
            parts.append(_size(len(key)) + key)
            _write(held, parts)
        parts.append(b"}")
    elif isinstance(value, list):
        held: list[Any] = value
        parts.append(b"[#" + _size(len(held)))
        for element in held:
            _write(element, parts)
    elif isinstance(value, str):
        text = value.encode("utf-8")
        parts.append(b"S" + _size(len(text)) + text)
    elif value is None or isinstance(value, bool):
        parts.append({None: b"Z", True: b"T", False: b"F"}[value])
    elif isinstance(value, int):
        # The ends of each range go to the next type, as in XGBoost: -128 and 127 are written as int16.
        marker = next(
            (m for m, bits in (("i", 7), ("I", 15), ("l", 31)) if -(1 << bits) < value < (1 << bits) - 1), "L"
        )
        parts.append(marker.encode() + _SCALARS[marker].pack(value))
    elif isinstance(value, float):
        try:
            parts.append(b"d" + _SCALARS["d"].pack(value))
        except OverflowError:  # a float64 too large for float32
            parts.append(b"d" + _SCALARS["d"].pack(math.copysign(math.inf, value)))
    else:
        raise TypeError(f"UBJSON has no form for {type(value).__name__}")


def _size(count: int) -> bytes:
    return b"L" + _SCALARS["L"].pack(count)
