"""Pixels on the CPU, image by image: one resample by OpenCV from the image where it lies, then light and normalisation.

It is the pipeline's own path for photos on a CPU; `common.augment.geometry` does the same for whole batches in torch.
OpenCV works on uint8 with places rounded to 1/32 pixel, so the two agree to about two grey levels of 255.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

SMALL = 64 * 64
"""Output pixels below which a whole batch in torch is faster than one image after another."""
TOGETHER = 4
"""Images that are normalised at once: few enough to stay in the cache, and one wait for the interpreter for all."""
_EXACT = 1e-6
_LEVELS = np.arange(256, dtype=np.float32)[None]
_scratch = threading.local()


@dataclass(frozen=True)
class Look:
    """What every image of a batch becomes.

    Attributes:
        size: (height, width) of the output in pixels.
        mean: Of each channel, subtracted from pixels in [0, 1].
        std: Of each channel, divided by.
        padding: What lies outside an image: ``reflection``, ``border`` or ``zeros``.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    padding: str


def buffer(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns this thread's own uint8 array of a name and shape, to write to again and again."""
    kept = cast("dict[Any, np.ndarray]", _scratch.__dict__)
    found = kept.get(name)
    if found is None or found.shape != shape:
        found = kept[name] = np.empty(shape, np.uint8)
    return found


def render(
    images: Sequence[np.ndarray],
    matrix: np.ndarray | None,
    factor: np.ndarray | None,
    offset: np.ndarray | None,
    look: Look,
    out: np.ndarray,
) -> None:
    """Renders images into a float batch.

    Args:
        images: uint8 (H, W, C) each, of any sizes; read where they lie.
        matrix: float64 (B, 3, 3), from output to input positions in [-1, 1], or None where nothing moves.
        factor: float64 (B,): what pixels in [0, 1] are multiplied by, or None.
        offset: float64 (B,): what is added then, or None.
        look: Size, normalisation and padding.
        out: float32 (B, *look.size, C), written whole.
    """
    import cv2

    if cv2.getNumThreads() > 1:
        cv2.setNumThreads(1)  # images are spread over threads already
    height, width, channels = *look.size, len(look.mean)
    scale = torch.tensor([1 / (255 * std) for std in look.std]).repeat(width)
    shift = torch.tensor([-mean / std for mean, std in zip(look.mean, look.std, strict=True)]).repeat(width)
    for first in range(0, len(images), TOGETHER):
        part = images[first : first + TOGETHER]
        rows = torch.from_numpy(out[first : first + len(part)]).view(len(part), height, -1)
        slots = buffer("slots", (TOGETHER, height, width, channels))
        for i, image in enumerate(part):
            if matrix is None:
                slots[i] = image
            else:
                moved(image, matrix[first + i], look, slots[i])
            if factor is not None and offset is not None:
                light = _LEVELS * np.float32(factor[first + i]) + np.float32(255 * offset[first + i])
                _write(cv2.LUT(slots[i], np.clip(light, 0, 255), dst=out[first + i]), out[first + i])
        if factor is None:
            np.copyto(out[first : first + len(part)], slots[: len(part)])
        torch.addcmul(shift, rows, scale, out=rows)


def _write(made: np.ndarray, slot: np.ndarray) -> None:
    """OpenCV writes to the array that it is given; where it made one of its own instead, its values are copied."""
    if made.ctypes.data != slot.ctypes.data:
        slot[...] = made.reshape(slot.shape)


def moved(image: np.ndarray, matrix: np.ndarray, look: Look, slot: np.ndarray) -> None:
    """Resamples one image once: a crop (mirrored or not) as a view that is resized, anything else as one warp.

    Args:
        image: uint8 (H, W, C).
        matrix: float64 (3, 3), from output to input positions in [-1, 1].
        look: Size and padding.
        slot: uint8 (*look.size, C), written whole.
    """
    import cv2

    region = _region(matrix, image.shape[:2])
    channels = image.shape[2]
    height, width = look.size
    if region is not None:
        top, bottom, left, right, mirrors = region
        part = image[top:bottom, left:right]
        if part.shape[:2] != look.size:
            shrinks = min((bottom - top) / height, (right - left) / width) >= 2
            method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            dst = slot if mirrors is None else buffer("resized", slot.shape)
            part = cv2.resize(part, (width, height), dst=dst, interpolation=method)
        _write(part if mirrors is None else cv2.flip(part, mirrors, dst=slot), slot)
        return
    borders = {"reflection": cv2.BORDER_REFLECT, "border": cv2.BORDER_REPLICATE, "zeros": cv2.BORDER_CONSTANT}
    pixel = _to_pixels(matrix, image.shape[:2], look.size)
    shrink = _shrinks(pixel, look.size)
    if shrink > 1:
        rows, cols = image.shape[0] // shrink, image.shape[1] // shrink
        image = cv2.resize(image[: rows * shrink, : cols * shrink], (cols, rows), interpolation=cv2.INTER_AREA)
        image = image.reshape(rows, cols, channels)
        half = (1 / shrink - 1) / 2
        pixel = np.array([[1 / shrink, 0, half], [0, 1 / shrink, half], [0, 0, 1]]) @ pixel
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    _write(cv2.warpPerspective(image, pixel, (width, height), slot, flags, borders[look.padding]), slot)


def _region(matrix: np.ndarray, shape: Sequence[int]) -> tuple[int, int, int, int, int | None] | None:
    """The whole pixels (top, bottom, left, right) that an upright matrix takes, and cv2's code of the mirror."""
    (scale_x, skew_x, centre_x), (skew_y, scale_y, centre_y), (tilt_x, tilt_y, unit) = matrix.tolist()
    if skew_x or skew_y or tilt_x or tilt_y:
        return None
    left, right, mirror_x = _span(scale_x / unit, centre_x / unit, shape[1])
    top, bottom, mirror_y = _span(scale_y / unit, centre_y / unit, shape[0])
    if left < 0 or top < 0:
        return None
    code = None if not (mirror_x or mirror_y) else -1 if mirror_x and mirror_y else int(mirror_x)
    return top, bottom, left, right, code


def _span(scale: float, centre: float, side: int) -> tuple[int, int, bool]:
    """First and last pixel edge of one axis, and whether it is mirrored; -1 if they are not whole or lie outside."""
    low, high = (centre - abs(scale) + 1) * side / 2, (centre + abs(scale) + 1) * side / 2
    first, last = round(low), round(high)
    whole = abs(low - first) < _EXACT * side and abs(high - last) < _EXACT * side
    return (first, last, scale < 0) if whole and 0 <= first < last <= side else (-1, -1, False)


def _to_pixels(matrix: np.ndarray, source: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """The same map between pixel positions, where the first pixel's centre is 0."""
    height, width = size
    rows, cols = source
    into = np.array([[cols / 2, 0, cols / 2 - 0.5], [0, rows / 2, rows / 2 - 0.5], [0, 0, 1]])
    outof = np.array([[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]])
    return into @ matrix @ outof


def _shrinks(pixel: np.ndarray, size: tuple[int, int]) -> int:
    """How many source pixels one output pixel spans at the centre, in whole numbers, at least 1."""
    x, y = (size[1] - 1) / 2, (size[0] - 1) / 2
    w = pixel[2, 0] * x + pixel[2, 1] * y + pixel[2, 2]
    area = abs(np.linalg.det(pixel) / w**3)
    return max(1, int(np.sqrt(area) + _EXACT))
