"""COCO's instances: one JSON file of images, categories and annotations (Lin et al. 2014, arXiv:1405.0312)."""

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from applications.detection.voc import placed
from common.blocks.objects import Objects
from common.errors import DataError, nearest

_KEPT = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")


class CocoImage(NamedTuple):
    """An image's entry in a COCO file.

    Attributes:
        file_name: Its file, below the folder of the images.
        size: (height, width) in pixels, or None where it is not stated.
    """

    file_name: str
    size: tuple[int, int] | None


class _Annotation(NamedTuple):
    """The needed fields of an annotation; polygons as arrays, which take a quarter of the memory of lists."""

    name: Any
    image: Any
    category: Any
    box: Any
    shape: Any
    area: Any
    crowd: Any


@dataclass(frozen=True)
class CocoFile:
    """The images, categories and annotations of a COCO file; the boxes of an image are checked when requested.

    Attributes:
        path: The file.
        images: Each image by its id.
        category_ids: The id of each category by its name, in the order of the ids, which may have gaps.
        annotations: The annotations of each image that has some, by its id.
    """

    path: Path
    images: dict[Any, CocoImage]
    category_ids: dict[str, int]
    annotations: dict[Any, list[_Annotation]]

    @property
    def vocab(self) -> tuple[str, ...]:
        """The names of the categories, in the order of their ids."""
        return tuple(self.category_ids)

    @cached_property
    def _names(self) -> dict[float, str]:
        return {number: name for name, number in self.category_ids.items()}

    @property
    def outlined(self) -> bool:
        """Whether every annotation has a shape."""
        return all(entry.shape for entries in self.annotations.values() for entry in entries)

    @classmethod
    def read(cls, path: str | Path) -> "CocoFile":
        """Returns a COCO file.

        Args:
            path: The JSON file.

        Raises:
            DataError: naming the file and the line, id or position, if it is not JSON, lacks a list or a key, has a
                duplicate id or category name, or an annotation of an image that it does not declare.
        """
        file = Path(path)
        content = _load(file)
        categories = _categories(file, content)
        images: dict[Any, CocoImage] = {}
        for i, entry in enumerate(content["images"]):
            where = f"{file}: images[{i}]"
            key = _hashable(where, "id", _key(where, entry, "id"))
            if key in images:
                raise DataError(f"{where}: the image id {key!r} is there twice")
            images[key] = CocoImage(_file_name(where, entry), _size(where, entry))
        grouped: dict[Any, list[_Annotation]] = {}
        seen: set[Any] = set()
        for i, entry in enumerate(content["annotations"]):
            if not isinstance(entry, _Annotation):
                raise DataError(f"{file}: annotations[{i}] has neither image_id nor category_id")
            where = f"{file}: annotation {i if entry.name is None else entry.name}"
            if entry.name is not None:
                if _hashable(where, "id", entry.name) in seen:
                    raise DataError(f"{where}: this id is there twice")
                seen.add(entry.name)
            if _hashable(where, "image_id", entry.image) not in images:
                raise DataError(f"{where}: its image_id {entry.image!r} is not among the {len(images)} images")
            grouped.setdefault(entry.image, []).append(entry)
        return cls(file, images, categories, grouped)

    def objects(self, image_id: Any, image_size: tuple[int, int] | None = None) -> Objects:
        """Returns the objects of one image: corners, category names, shapes, crowds, stated areas.

        An empty box or one outside the image is left out, one that is partly outside is clipped, both with a note.
        Shapes are None where any annotation lacks one: with some only, the others would be trained as background.

        Args:
            image_id: One of ``images``.
            image_size: (height, width) of the image itself in pixels, where known; it must match the file's.

        Raises:
            DataError: naming file, annotation and image, for a category that is not declared, a box that is not four
                finite numbers or has a negative width or height, or a size that is not the image's.
        """
        image = self.images[image_id]
        if image_size is not None and image.size is not None and image_size != image.size:
            raise DataError(
                f"{self.path}: image {image_id} ({image.file_name}) is said to have {_text(image.size)} pixels and has "
                f"{_text(image_size)}: its boxes would lie elsewhere; correct its width and height, or scale the boxes"
            )
        size, notes = image_size or image.size, list[str]()
        rows = [self._thing(entry, size, notes) for entry in self.annotations.get(image_id, ())]
        found = [row for row in rows if row is not None]
        lacking = sum(thing.shape is None for thing in found)
        if 0 < lacking < len(found):
            what = f"{lacking} of {len(found)} annotations have no shape, so none is used"
            notes.append(f"{self.path}: image {image_id}: {what}")
        stated = any(thing.area is not None for thing in found)
        return Objects(
            boxes=[thing.box for thing in found],
            labels=[thing.category for thing in found],
            shapes=None if lacking else [thing.shape for thing in found],
            crowd=[thing.crowd for thing in found] if any(thing.crowd for thing in found) else None,
            areas=[_box_area(thing.box) if thing.area is None else thing.area for thing in found] if stated else None,
            size=size,
            notes=tuple(notes),
        )

    def _thing(self, entry: _Annotation, size: tuple[int, int] | None, notes: list[str]) -> _Annotation | None:
        """Converts an annotation to corners, name and values for `Objects`; None where it is left out."""
        where = f"{self.path}: annotation {entry.name} of image {entry.image}"
        corners = _corners(where, entry.box)
        name = self._names.get(entry.category) if isinstance(entry.category, (int, float)) else None
        if name is None:
            known = nearest(str(entry.category), map(str, self.category_ids.values()))
            raise DataError(f"{where}: its category_id {entry.category!r} is not declared: {known}")
        box, note = placed(corners, size)
        shape, lost = _shape(where, entry.shape)
        crowd, area = _flag(where, entry.crowd), _area(where, entry.area)
        notes += [f"{where}: the box {note}"] if note else []
        notes += [f"{where}: {lost} of its polygons with fewer than three corners left out"] if lost else []
        return None if box is None else _Annotation(entry.name, entry.image, name, box, shape, area, crowd)


def _load(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes(), object_hook=_compact)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{file}, line {error.lineno}, column {error.colno}: is not JSON ({error.msg})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{file}: a COCO file is an object with images, annotations and categories")
    for name in ("images", "annotations", "categories"):
        if not isinstance(content.get(name), list):
            raise DataError(f"{file}: has no list {name!r}, which the boxes of a COCO file need")
    return content


def _compact(entry: dict[str, Any]) -> Any:
    """A hook of the JSON decoder: reduces an annotation to its needed fields, and returns other objects unchanged."""
    if "image_id" not in entry and "category_id" not in entry:
        return entry
    shape = entry.get("segmentation")
    if isinstance(shape, list):
        with suppress(TypeError, ValueError):  # an invalid shape is reported when its image is requested
            shape = [np.array(part, dtype=np.float64) for part in shape]
    name, image, category, box, area, crowd = map(entry.get, _KEPT)
    return _Annotation(name, image, category, box, shape, area, crowd)


def _key(where: str, entry: Any, name: str) -> Any:
    if not isinstance(entry, dict) or entry.get(name) is None:
        raise DataError(f"{where} has no {name!r}")
    return entry[name]


def _hashable(where: str, name: str, value: Any) -> Any:
    if not isinstance(value, (int, str)) or isinstance(value, bool):
        raise DataError(f"{where}: its {name} must be a whole number, got {value!r:.40}")
    return value


def _file_name(where: str, entry: Any) -> str:
    name = _key(where, entry, "file_name")
    if not isinstance(name, str) or not name.strip("/\\ ") or "\0" in name:
        raise DataError(f"{where}: file_name must be the name of a file, got {name!r:.60}")
    return name


def _size(where: str, entry: Any) -> tuple[int, int] | None:
    found = [entry.get(name) for name in ("height", "width")]
    if not all(found):  # absent or zero: not known
        return None
    if not all(isinstance(value, (int, float)) and math.isfinite(value) and value > 0 for value in found):
        raise DataError(f"{where}: height and width must be numbers of pixels, got {found}")
    return int(found[0]), int(found[1])


def _text(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"


def _categories(file: Path, content: dict[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for i, entry in enumerate(content["categories"]):
        where = f"{file}: categories[{i}]"
        name, number = str(_key(where, entry, "name")), _key(where, entry, "id")
        if not isinstance(number, int) or isinstance(number, bool):
            raise DataError(f"{where}: its id must be a whole number, got {number!r:.40}")
        if name in found:
            raise DataError(f"{where}: the category {name!r} is there twice (ids {found[name]} and {number})")
        if number in found.values():
            raise DataError(f"{where}: the category id {number} is there twice")
        found[name] = number
    if not found:
        raise DataError(f"{file}: declares no categories")
    return dict(sorted(found.items(), key=lambda pair: pair[1]))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _corners(where: str, box: Any) -> tuple[float, float, float, float]:
    values = box if isinstance(box, list) else ()
    if len(values) != 4 or not all(_is_number(value) for value in values):
        raise DataError(f"{where}: its bbox must be four finite numbers [x, y, width, height], got {box!r:.60}")
    x, y, width, height = (float(value) for value in values)
    if width < 0 or height < 0:
        raise DataError(f"{where}: its bbox [x, y, width, height] has a negative extent: {[x, y, width, height]}")
    return x, y, x + width, y + height


def _box_area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _shape(where: str, shape: Any) -> tuple[Any, int]:
    """The shape for `Objects` (None: there is none), and the number of invalid polygons."""
    if shape is None or isinstance(shape, dict):
        return (None if shape is None or "counts" not in shape else shape), 0
    parts = shape if isinstance(shape, list) else [shape]
    for part in parts:
        if not isinstance(part, np.ndarray) or part.ndim != 1 or len(part) % 2 or not np.isfinite(part).all():
            raise DataError(f"{where}: its segmentation must be lists of finite numbers x, y, …, or run lengths")
    kept = [part for part in parts if len(part) >= 6]
    return kept or None, len(parts) - len(kept)


def _flag(where: str, value: Any) -> bool:
    if value not in (None, 0, 1):
        raise DataError(f"{where}: its iscrowd must be 0 or 1, got {value!r:.40}")
    return bool(value)


def _area(where: str, value: Any) -> float | None:
    if value is not None and (not _is_number(value) or value < 0):
        raise DataError(f"{where}: its area must be a number of square pixels, got {value!r:.40}")
    return None if value is None else float(value)
