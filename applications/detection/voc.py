"""Pascal VOC: one XML file per image (Everingham et al. 2010), read with the line number of every object."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from common.blocks.objects import Objects
from common.errors import DataError

MAX_BYTES = 10_000_000
MAX_DEPTH = 100
ROUNDING_PX = 1.0
"""A box that exceeds its image by less is not clipped: stated sizes and corners are rounded separately."""
CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class _Element:
    tag: str
    line: int
    inside: "list[_Element]" = field(default_factory=list["_Element"])
    text: str = ""

    def child(self, tag: str) -> "_Element | None":
        return next((element for element in self.inside if element.tag == tag), None)


def read_annotation(path: str | Path, image_size: tuple[int, int] | None = None) -> Objects:
    """Returns the objects of one Pascal VOC annotation.

    Corners are used as written. VOC counts pixels from 1 and includes the last one, most later tools count from 0 and
    do not; a file does not state which, so nothing is subtracted and the error is at most a pixel. Difficult objects
    become crowds. An empty box or one outside the image is left out, one that is partly outside is clipped, both with a
    note. Corners in the wrong order are refused: often they are a width and height instead of xmax and ymax, and a
    guess would train on wrong boxes.

    Args:
        path: The XML file.
        image_size: (height, width) of the image itself in pixels, where known; it must match the file's.

    Raises:
        DataError: naming file and line, if it is not well-formed XML, has a document type (entities can expand without
            limit or read other files) or more than 10 MB, lacks a name, box or coordinate, or has a coordinate that is
            not a finite number.
    """
    file = Path(path)
    root = _parse(file)
    if root.tag != "annotation":
        raise DataError(f"{file}, line {root.line}: a Pascal VOC file begins with <annotation>, got <{root.tag}>")
    size = _stated_size(file, root)
    if image_size is not None and size is not None and size != image_size:
        turned = ", which looks turned by a quarter (EXIF orientation?)" if size == image_size[::-1] else ""
        raise DataError(
            f"{file}: <size> says {size[1]} x {size[0]} pixels, the image has {image_size[1]} x {image_size[0]}{turned}"
            ": its boxes would lie elsewhere; correct <size>, or scale the boxes to the image"
        )
    size = image_size or size
    boxes: list[tuple[float, ...]] = []
    labels: list[str] = []
    crowd: list[bool] = []
    notes: list[str] = []
    for element in (child for child in root.inside if child.tag == "object"):
        where = f"{file}, line {element.line}"
        label, corners = _label(file, element), _corners(file, element)
        box, note = placed(corners, size)
        if note:
            notes.append(f"{where}: the box of {label!r} {note}")
        if box is not None:
            boxes.append(box)
            labels.append(label)
            crowd.append(_flag(file, element, "difficult"))
    return Objects(boxes, labels, crowd=crowd if any(crowd) else None, size=size, notes=tuple(notes))


def placed(corners: Sequence[float], size: tuple[int, int] | None) -> tuple[tuple[float, ...] | None, str]:
    """Returns a box, clipped if necessary, or None where it is left out, and a note on what was done (or empty).

    Args:
        corners: (x0, y0, x1, y1) in pixels.
        size: (height, width) of the image in pixels, or None where it is not known.
    """
    x0, y0, x1, y1 = corners
    text = f"({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    if x1 <= x0 or y1 <= y0:
        return None, f"{text} has no extent: left out"
    if size is None:
        return (x0, y0, x1, y1), ""
    height, width = size
    if min(-x0, -y0, width - x1, height - y1) >= 0 or max(-x0, -y0, x1 - width, y1 - height) < ROUNDING_PX:
        return (x0, y0, x1, y1), ""
    cut = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        return None, f"{text} lies outside its image of {width} x {height} pixels: left out"
    return cut, f"{text} is cut to its image of {width} x {height} pixels"


def _parse(file: Path) -> _Element:
    try:
        with open(file, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise DataError(f"{file}: is larger than {MAX_BYTES // 1_000_000} MB, which no annotation of one image is")
    parser = expat.ParserCreate()
    top = _Element("", 0)
    stack = [top]

    def start(tag: str, attributes: Mapping[str, str]) -> None:
        if len(stack) > MAX_DEPTH:
            raise DataError(f"{file}, line {parser.CurrentLineNumber}: elements lie more than {MAX_DEPTH} deep")
        stack.append(_Element(tag, parser.CurrentLineNumber))
        stack[-2].inside.append(stack[-1])

    def end(tag: str) -> None:
        stack.pop()

    def characters(text: str) -> None:
        stack[-1].text += text

    def refuse(*declared: object) -> None:
        raise DataError(
            f"{file}, line {parser.CurrentLineNumber}: a document type (<!DOCTYPE …>) is refused, for its entities can "
            "fill the memory or read other files: delete it"
        )

    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = characters, refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        what = expat.errors.messages[error.code]
        raise DataError(f"{file}, line {error.lineno}: is not whole XML ({what})") from error
    except (LookupError, ValueError) as error:  # an unknown encoding
        raise DataError(f"{file}: is not XML that can be read ({error})") from error
    return top.inside[0]


def _number(file: Path, element: _Element) -> float:
    text = element.text.strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{file}, line {element.line}: <{element.tag}> must be a finite number, got {text!r:.40}")
    return value


def _needed(file: Path, element: _Element, tag: str) -> _Element:
    found = element.child(tag)
    if found is None:
        raise DataError(f"{file}, line {element.line}: the <{element.tag}> has no <{tag}>")
    return found


def _label(file: Path, element: _Element) -> str:
    name = _needed(file, element, "name")
    if not name.text.strip():
        raise DataError(f"{file}, line {name.line}: the <name> of an object is empty")
    return name.text.strip()


def _corners(file: Path, element: _Element) -> tuple[float, float, float, float]:
    box = _needed(file, element, "bndbox")
    x0, y0, x1, y1 = (_number(file, _needed(file, box, tag)) for tag in CORNERS)
    for low, high, axis in ((x0, x1, "x"), (y0, y1, "y")):
        if low > high:
            raise DataError(
                f"{file}, line {box.line}: {axis}min={low:g} lies above {axis}max={high:g}: are the corners in the "
                "wrong order, or is a width or height in the place of a corner?"
            )
    return x0, y0, x1, y1


def _flag(file: Path, element: _Element, tag: str) -> bool:
    found = element.child(tag)
    text = "" if found is None else found.text.strip().lower()
    if found is not None and text not in ("0", "1", "true", "false", ""):
        raise DataError(f"{file}, line {found.line}: <{tag}> must be 0 or 1, got {text!r:.40}")
    return text in ("1", "true")


def _stated_size(file: Path, root: _Element) -> tuple[int, int] | None:
    """(height, width), or None where none is stated, or as zeros, which tools write that did not open the image."""
    stated = root.child("size")
    if stated is None or stated.child("width") is None or stated.child("height") is None:
        return None
    height, width = (int(_number(file, _needed(file, stated, tag))) for tag in ("height", "width"))
    if height < 0 or width < 0:
        raise DataError(f"{file}, line {stated.line}: <size> says {width} x {height} pixels")
    return (height, width) if height and width else None
