"""Form fields for people and programs, and the validation of what they enter.

Floor: blocks; may import text and below. Used by: its own room.
"""

import base64
import binascii
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from common.errors import ConfigError, DataError, nearest

FieldKind = Literal["file", "text", "number", "choice", "choices", "boolean", "date", "points", "boxes", "shapes"]
MAX_FILE_BYTES = 64 << 20
MAX_TEXT = 4 << 20  # characters
IMAGE_TYPES = ("image/*",)
SOUND_TYPES = ("audio/wav", ".wav")
ARRAY_TYPES = (".npy",)
TEXT_TYPES = ("text/plain", ".txt")
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class FormField:
    """One form field as plain data: a page draws it, a server documents it.

    Attributes:
        name: Its name.
        kind: ``file`` (bytes), ``text``, ``number``, ``choice`` (one of ``choices``), ``choices`` (any number of them),
            ``boolean``, ``date`` (ISO 8601), ``points`` ([[x, y], …] in pixels), ``boxes`` ({"boxes": [[x0, y0, x1,
            y1], …], "labels": […]}), ``shapes`` (the same with "shapes" and "size").
        accepts: Media types and file name endings that are accepted.
        choices: The options to choose from.
        open: Whether values other than the choices are accepted (an unseen level of a column with many).
        low: The smallest sensible number, where it is known.
        high: The largest sensible number, where it is known.
        required: Whether it must be given.
    """

    name: str
    kind: FieldKind
    accepts: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    open: bool = False
    low: float | None = None
    high: float | None = None
    required: bool = True


def shown(value: Any) -> str:
    """Returns a value as an error shows it: its type and the beginning of its repr."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:59] + '…'}"


def file_bytes(what: str, value: Any, data: bytes | None, most: int = MAX_FILE_BYTES) -> bytes:
    """Returns the bytes of an uploaded file, or those of a base64 text in JSON; never opens a path.

    Args:
        what: The name of the value in an error (``an image``).
        value: From JSON: base64, or a ``data:`` URL with base64.
        data: From an upload.
        most: The most bytes.

    Raises:
        DataError: if neither or both are given, or the value is not base64 or too large.
    """
    if data is not None and value is not None:
        raise DataError(f"{what} was given twice, as a file and as JSON: give one of them")
    if data is None:
        if not isinstance(value, str):
            raise DataError(f"{what} must be an uploaded file or its bytes as base64 text, got {shown(value)}")
        _check_bytes(what, len(value) * 3 // 4 - 3, most)
        data = _of_base64(what, value)
    if not data:
        raise DataError(f"{what} must not be empty, got 0 bytes")
    _check_bytes(what, len(data), most)
    return data


def _check_bytes(what: str, size: int, most: int) -> None:
    if size > most:
        raise DataError(f"{what} must have at most {most:,} bytes, got {size:,}: give a smaller one")


def _of_base64(what: str, text: str) -> bytes:
    head, mark, rest = text.partition(";base64,") if text.startswith("data:") else ("", "", text)
    if head and not mark:
        raise DataError(f"{what} as a data: address must hold base64, got {text[:40]!r}")
    try:
        return base64.b64decode("".join(rest.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(
            f"{what} in JSON must be the file's bytes as base64 text, got {text[:40]!r} (no path is opened): upload "
            "the file, or encode its bytes"
        ) from error


def no_file(what: str, data: bytes | None) -> None:
    """Checks that no file was uploaded for what is entered as JSON.

    Args:
        what: What is asked for, in an error.
        data: From an upload.

    Raises:
        DataError: if one was.
    """
    if data is not None:
        raise DataError(f"{what} must be given as JSON, got a file of {len(data):,} bytes")


def text_of(what: str, value: Any, data: bytes | None = None, most: int = MAX_TEXT) -> str:
    """Returns an entered text, or the text of an uploaded UTF-8 file.

    Args:
        what: What is asked for, in an error.
        value: From JSON.
        data: From an upload.
        most: The most characters.

    Raises:
        DataError: if it is no text, or too long.
    """
    if data is not None:
        try:
            value = file_bytes(what, value, data, 4 * most).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{what} must be in UTF-8, the file is not: {error.reason} at byte {error.start}"
            ) from error
    if not isinstance(value, str):
        raise DataError(f"{what} must be a string, got {shown(value)}")
    if len(value) > most:
        raise DataError(f"{what} must have at most {most:,} signs, got {len(value):,}: give a shorter one")
    return value


def number_of(what: str, value: Any, *, largest: float = LARGEST) -> float:
    """Returns an entered finite number, also from its text.

    Args:
        what: What is asked for, in an error.
        value: From a form or JSON.
        largest: The largest magnitude; float32's.

    Raises:
        DataError: if it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise DataError(f"{what} must be a number, got {shown(value)}")
    try:
        found = float(value)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{what} must be a number such as 2.5, got {shown(value)}") from error
    if not math.isfinite(found) or abs(found) > largest:
        raise DataError(f"{what} must be a finite number, at most {largest:.3g}, got {shown(value)}")
    return found


def list_of(what: str, value: Any) -> list[Any]:
    """Returns a JSON list.

    Args:
        what: What is asked for, in an error.
        value: From JSON.

    Raises:
        DataError: if it is none.
    """
    if not isinstance(value, (list, tuple)):
        raise DataError(f"{what} must be a list, got {shown(value)}")
    return list(value)


def rows_of(what: str, value: Any, width: int) -> list[list[float]]:
    """Returns a JSON list of rows of numbers.

    Args:
        what: What is asked for, in an error.
        value: From JSON.
        width: How many numbers each row has.

    Raises:
        DataError: naming the row that is none.
    """
    found: list[list[float]] = []
    for i, row in enumerate(list_of(what, value)):
        cells = list_of(f"{what}[{i}]", row)
        if len(cells) != width:
            raise DataError(f"{what}[{i}] must have {width} numbers, got {len(cells)}")
        found.append([number_of(f"{what}[{i}]", cell) for cell in cells])
    return found


def mapping_of(what: str, value: Any, known: Iterable[str]) -> dict[str, Any]:
    """Returns a JSON object after checking its names.

    Args:
        what: What is asked for, in an error.
        value: From JSON.
        known: The names that it may have.

    Raises:
        DataError: if it is not an object, or has an unknown name, with similar known names.
    """
    if not isinstance(value, dict):
        raise DataError(f"{what} must be an object of names and values, got {shown(value)}")
    names = list(known)
    for name in value:
        if name not in names:
            raise DataError(f"{what} has no {str(name)[:60]!r}: {nearest(str(name)[:60], names)}")
    return {str(name): cell for name, cell in value.items()}


def choice_of(what: str, value: Any, choices: Sequence[str]) -> str:
    """Returns the entered one of some choices; a number is converted to its text.

    Args:
        what: What is asked for, in an error.
        value: From a form or JSON.
        choices: The choices.

    Raises:
        ConfigError: if there are no choices yet.
        DataError: if it is none of them, with similar choices.
    """
    if not choices:
        raise ConfigError(f"{what} has no choices yet: its block is not fitted")
    if not isinstance(value, (str, int, float)):
        raise DataError(f"{what} must be one of {len(choices)} choices, got {shown(value)}")
    whole = isinstance(value, float) and value.is_integer()
    name = str(int(value)) if whole and str(value) not in choices else str(value)
    if name not in choices:
        raise DataError(
            f"{what} must be one of {len(choices)} choices, got {name[:60]!r}: {nearest(name[:60], choices)}"
        )
    return name
