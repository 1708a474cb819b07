"""The classes of a folder of masks: from a list of names, a table of colours, or the values in the masks."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.blocks.spatial import open_image
from common.errors import DataError

NAME_FILES = ("codes.txt", "classes.txt", "label_names.txt", "class_names.txt")
COLOR_FILES = ("colors.txt", "class_dict.csv", "label_colors.txt", "labelmap.txt", "colors.csv")
LOOKED_AT = 1000  # the most masks whose values are read to infer the classes
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
VOC_IGNORE = 255
BLACK_AND_WHITE = (0, 255)
LOSSY = (".jpg", ".jpeg", ".jpe", ".webp")
_NAME_FIRST = re.compile(r"^\s*(.+?)[\s,;:]+(\d+)[\s,;]+(\d+)[\s,;]+(\d+)[\W]*$")
_NAME_LAST = re.compile(r"^\s*(\d+)[\s,;]+(\d+)[\s,;]+(\d+)[\s,;:]+(\S.*?)\s*$")


@dataclass(frozen=True)
class Classes:
    """The classes of masks; see `MaskBlock`.

    Attributes:
        codes: The names of the classes, in the order of their ids.
        ignore: The ignored value, or None.
        values: The pixel value of each class, where that is not its position.
        colors: The colour of each class, for masks that are colour images.
        origin: Where they were found, in words.
    """

    codes: tuple[str, ...]
    ignore: int | None = None
    values: tuple[int, ...] = ()
    colors: tuple[tuple[int, int, int], ...] = ()
    origin: str = ""


def find_classes(root: Path, masks: Sequence[Path], ignore: int | None, voc: bool) -> Classes:
    """Returns the classes of a folder from its colour table, its list of names, or its masks.

    Args:
        root: The folder.
        masks: The training masks.
        ignore: The ignored value (or row of the colour table).
        voc: Whether the masks are in Pascal VOC's folder, where 255 is ignored.

    Raises:
        DataError: if a list cannot be read, or the masks are colour images and there is no colour table.
    """
    table = next((root / name for name in COLOR_FILES if (root / name).is_file()), None)
    if table is not None:
        return _colored(table, ignore)
    listed = next((root / name for name in NAME_FILES if (root / name).is_file()), None)
    if listed is not None:
        try:
            names = [line.strip() for line in listed.read_text("utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{listed}: cannot be read as a list of class names: {error}") from error
        return named_classes(names, masks, ignore, voc, listed.name)
    return _from_values(masks, ignore, voc)


def named_classes(
    names: Sequence[str], masks: Sequence[Path], ignore: int | None, voc: bool, origin: str = "the option"
) -> Classes:
    """Returns the classes of a list of names, without the ignored one.

    Args:
        names: The names, in the order of their ids.
        masks: The training masks: two classes may be drawn in black and white.
        ignore: The ignored id, or None.
        voc: Whether 255 is ignored where ``ignore`` is None.
        origin: Where the names were found, in words.

    Raises:
        DataError: for a name that occurs twice or is empty, or masks that are colour images.
    """
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None or not names or not all(names):
        fault = "one of them is empty" if twice is None else f"{twice!r} occurs twice"
        raise DataError(f"the classes ({origin}) must be different names, got {len(names)}: {fault}")
    ignore = VOC_IGNORE if ignore is None and voc else ignore
    if masks:
        _check_indexed(masks[0])
    if ignore is not None and ignore < len(names):  # an ignored id is not a class
        kept = tuple(i for i in range(len(names)) if i != ignore)
        values = () if kept == tuple(range(len(kept))) else kept
        return Classes(tuple(names[i] for i in kept), ignore, values, origin=origin)
    if len(names) == 2 and ignore is None and _values(masks[:20]) == set(BLACK_AND_WHITE):
        return Classes(tuple(names), None, BLACK_AND_WHITE, origin=origin)
    return Classes(tuple(names), ignore, origin=origin)


def _from_values(masks: Sequence[Path], ignore: int | None, voc: bool) -> Classes:
    """Infers the classes from the values in the masks."""
    if masks:
        _check_indexed(masks[0])
    step = max(1, -(-len(masks) // LOOKED_AT))
    found = _values(masks[::step])
    ignore = VOC_IGNORE if ignore is None and voc else ignore
    if voc and found <= {*range(len(VOC_CLASSES)), ignore}:
        return Classes(VOC_CLASSES, ignore, origin="Pascal VOC")
    if found == set(BLACK_AND_WHITE) and ignore is None:
        return Classes(("background", "object"), None, BLACK_AND_WHITE, origin="masks in black and white (0 and 255)")
    if ignore is None and 255 in found and len(found) > 2:
        ignore = 255  # the convention of most data sets
    values = tuple(sorted(found - {ignore}))
    if len(values) < 2:
        shown = ", ".join(map(str, sorted(found))) or "none"
        raise DataError(
            f"the training masks hold fewer than two classes (values found: {shown}): there is nothing to tell apart"
        )
    origin = f"the values in the training masks ({values[0]} to {values[-1]})"
    ignored = "" if ignore is None else f", {ignore} is ignored"
    own = () if values == tuple(range(len(values))) else values
    return Classes(tuple(map(str, values)), ignore, own, origin=origin + ignored)


def _check_indexed(mask: Path) -> None:
    image = open_image(mask)
    if image.mode not in ("L", "P", "1"):
        raise DataError(
            f"{mask} is a colour image (mode {image.mode}): add a table of its colours, "
            f"{COLOR_FILES[0]} or {COLOR_FILES[1]}, with one line name,red,green,blue a class"
        )
    if mask.suffix.lower() in LOSSY:
        raise DataError(f"{mask}: its compression changes the ids of classes: save masks as PNG")


def _values(masks: Sequence[Path]) -> set[int]:
    """The values that occur in masks; unreadable masks are skipped, since loading them reports the error."""
    seen = np.zeros(256, bool)
    for mask in masks:
        try:
            seen |= np.bincount(np.asarray(open_image(mask), dtype=np.uint8).reshape(-1), minlength=256)[:256] > 0
        except (DataError, OSError, ValueError):
            continue
    return set(np.flatnonzero(seen).tolist())


def _colored(table: Path, ignore: int | None) -> Classes:
    names: list[str] = []
    colors: list[tuple[int, int, int]] = []
    try:
        lines = table.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{table}: cannot be read as a table of colours: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        first, last = _NAME_FIRST.match(line), _NAME_LAST.match(line)
        if first is None and last is None:
            if number == 1:  # a header
                continue
            raise DataError(f"{table}, line {number}: {line.strip()!r} is not name,red,green,blue")
        name, *rgb = (last[4], last[1], last[2], last[3]) if last is not None else first.groups()  # type: ignore[union-attr]
        color = (int(rgb[0]), int(rgb[1]), int(rgb[2]))
        if max(color) > 255:
            raise DataError(f"{table}, line {number}: a colour has values 0 to 255, got {color}")
        if name in names or color in colors:
            other = names.index(name) if name in names else colors.index(color)
            raise DataError(f"{table}, line {number}: {name} {color} is there before as {names[other]} {colors[other]}")
        names.append(name)
        colors.append(color)
    kept = [i for i in range(len(names)) if i != ignore]
    if len(kept) < 2:
        raise DataError(f"{table} names {len(kept)} classes that count: there is nothing to tell apart")
    ignored = None if ignore is None else 255
    return Classes(tuple(names[i] for i in kept), ignored, colors=tuple(colors[i] for i in kept), origin=table.name)
