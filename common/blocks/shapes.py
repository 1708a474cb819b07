"""Shapes of objects: polygons, masks and COCO's run-length encoding; rasterising them, and their convex hulls.

Floor: blocks; may import text and below. Used by: show, applications.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from common.blocks.item_transforms import View
from common.errors import DataError

OUTLINE = 32
"""Points of an object's outline: the corners of its convex hull, simplified to this number if it has more."""
MAX_PLACE_PX = 100_000
MAX_PIXELS = 100_000_000


def polygons(shape: Any) -> list[np.ndarray] | None:
    """Returns the polygons of a shape, float64 (K, 2) as (x, y) in pixels each; None for a mask or run lengths.

    Args:
        shape: One polygon ((x, y), …), a list of them, or COCO's lists of numbers [x, y, x, y, …].

    Raises:
        DataError: for a polygon of fewer than three corners, or an odd number of coordinates.
    """
    if isinstance(shape, Mapping) or (isinstance(shape, np.ndarray) and shape.ndim == 2 and shape.shape[1] != 2):
        return None
    if isinstance(shape, np.ndarray) and shape.dtype == np.bool_:
        return None
    first = shape[0] if len(shape) else None
    one = first is not None and np.ndim(first) == 1 and len(first) == 2 and len(shape) != 1
    found: list[np.ndarray] = []
    for part in [shape] if one else shape:
        flat = np.asarray(part, dtype=np.float64).reshape(-1)
        if len(flat) % 2 or len(flat) < 6:
            raise DataError(f"a polygon needs at least three corners (x, y), got {len(flat)} numbers")
        found.append(flat.reshape(-1, 2))
    return found


def filled(shape: Any, size: tuple[int, int], view: View | None = None) -> np.ndarray:
    """Returns the pixels that a shape covers, bool (H, W) of the image or of a view of it.

    Args:
        shape: See `polygons`; or a mask (height, width), or run lengths.
        size: (height, width) of the image in pixels.
        view: The view of the image to rasterise in; None: the image itself.
    """
    found = polygons(shape)
    if found is None:
        mask = decode_rle(shape) if isinstance(shape, Mapping) else np.asarray(shape) > 0
        if mask.shape != tuple(size):
            raise DataError(f"a mask has {mask.shape[0]} x {mask.shape[1]} pixels, its image {size[0]} x {size[1]}")
        return mask if view is None else view.pixels(mask.astype(np.uint8), nearest=True).astype(bool)
    from faster_coco_eval.core import mask as coco

    height, width = size if view is None else view.size
    places = found if view is None else [view.points(corners) for corners in found]
    for corners in places:
        if not np.isfinite(corners).all() or np.abs(corners).max(initial=0) > MAX_PLACE_PX:
            raise DataError(f"a polygon has a corner beyond {MAX_PLACE_PX:,} pixels")
    rles: Any = coco.frPyObjects([corners.reshape(-1).tolist() for corners in places], height, width)
    return np.asarray(coco.decode(coco.merge(rles))).astype(bool)


def outline(shape: Any) -> np.ndarray:
    """Returns the corners of an object's convex hull, float64 (32, 2) as (x, y) in pixels, padded with the last one.

    Their bounding box is the object's bounding box, also after any rotation or perspective map. Of more than 32 corners
    those are dropped that change the hull least (as in Visvalingam and Whyatt 1993, by height instead of area).

    Args:
        shape: A polygon, (x, y) of each corner, or several; a mask (height, width), bool or not two wide; run lengths.

    Raises:
        DataError: if the shape is empty.
    """
    import cv2

    found = polygons(shape)
    if found is None:
        mask = decode_rle(shape) if isinstance(shape, Mapping) else np.asarray(shape)
        rows, columns = np.nonzero(mask)
        # A pixel is a square: its four corners, not its centre, bound the mask.
        corners = [np.stack([columns + dx, rows + dy], axis=1) for dx in (0, 1) for dy in (0, 1)]
        points = np.concatenate(corners).astype(np.float64)
    else:
        points = np.concatenate(found) if found else np.empty((0, 2))
    if not len(points):
        raise DataError("a polygon or mask of a box is empty")
    order = np.asarray(cv2.convexHull(points.astype(np.float32), returnPoints=False), dtype=np.int64)
    hull = points[order.reshape(-1)]
    while len(hull) > OUTLINE:
        before, after = np.roll(hull, 1, axis=0), np.roll(hull, -1, axis=0)
        side, own = after - before, hull - before
        # Each corner's distance from the line through its neighbours: |cross product| / base length.
        height = np.abs(side[:, 0] * own[:, 1] - side[:, 1] * own[:, 0]) / np.hypot(side[:, 0], side[:, 1])
        hull = np.delete(hull, np.argmin(height), axis=0)
    return np.concatenate([hull, np.repeat(hull[-1:], OUTLINE - len(hull), axis=0)])


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """Returns a mask (H, W) as COCO's compressed run lengths: ``{"size": [height, width], "counts": text}``.

    Args:
        mask: The mask; nonzero pixels are foreground.
    """
    from faster_coco_eval.core import mask as coco

    found: dict[str, Any] = coco.encode(np.asfortranarray(mask.astype(bool).astype(np.uint8)))
    counts = found["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else str(counts)
    return {"size": [int(v) for v in found["size"]], "counts": text}


def decode_rle(rle: Mapping[str, Any]) -> np.ndarray:
    """Returns the mask of run lengths, compressed (text) or not (a list of numbers): bool (H, W).

    Args:
        rle: ``{"size": [height, width], "counts": …}``.

    Raises:
        DataError: if they do not fill the size that they state.
    """
    runs = run_lengths(rle)
    height, width = (int(v) for v in rle["size"])
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def run_lengths(rle: Mapping[str, Any]) -> np.ndarray:
    """Returns a mask's run lengths, int64 (R,): in column-major order, background and foreground alternating.

    Args:
        rle: ``{"size": [height, width], "counts": …}``, compressed (text) or not (a list of numbers).

    Raises:
        DataError: if they do not fill the size that they state.
    """
    try:
        height, width = (int(v) for v in rle["size"])
        if not 0 < height * width <= MAX_PIXELS:
            raise ValueError(f"{height} x {width} pixels")
        counts = rle["counts"]
        text = counts.decode("ascii") if isinstance(counts, bytes) else counts
        runs = np.asarray(_runs(text) if isinstance(text, str) else text, dtype=np.int64)
        if (runs < 0).any() or int(runs.sum()) != height * width:
            raise ValueError(f"they cover {int(runs.sum())} pixels of {height} x {width}")
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(f"run lengths cannot be read: {error}") from error
    return runs


def _runs(text: str) -> list[int]:
    """Decodes COCO's compressed counts.

    Five bits per letter, the sixth marks continuation; from the fourth number on they are differences. Decoded here and
    not by the library, whose C code does not validate its input.
    """
    runs: list[int] = []
    value = bits = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or bits > 60:
            raise ValueError(f"{letter!r} is not one of their letters")
        value |= (code & 31) << bits
        bits += 5
        if not code & 32:
            if code & 16:
                value -= 1 << bits
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = bits = 0
    return runs
