"""Augmentation on the CPU, image by image: one resample by OpenCV directly from the cache, then the other operations.

It is the pipeline's path for photos on a CPU; `common.augment.pixels` does the same for whole batches in torch. OpenCV
works on uint8 with positions rounded to 1/32 pixel, so the two agree to about two grey levels of 255.

By measurement, OpenCV warps four channels in half the time of three, and adding or dropping one takes a hundredth of
that; so a photo gets a fourth channel for the warp.

Floor: augment; may import sources and below. Used by: its own room.
"""

import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.augment import geometry
from common.augment.drawn import Drawn, Look
from common.augment.pixels import HALVES, SALT, gaussian, normal_table
from common.augment.textures import SHARPEN_SIGMA_PX
from common.counter import words_alone

SMALL = 64 * 64
"""Output pixels below which a whole batch in torch is faster than single images."""
TOGETHER = 4
"""Images that are normalised together: few enough to stay in the CPU cache, with one wait for the interpreter lock."""
_EXACT = 1e-6
_NOTHING = 1e-3  # filter taps below this are skipped: a quarter of a level
_scratch = threading.local()


def buffer(name: str, shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    """Returns this thread's reusable array of a name and shape."""
    scratch: dict[Any, np.ndarray] = _scratch.__dict__
    found = scratch.get(name)
    if found is None or found.shape != shape or found.dtype != dtype:
        found = scratch[name] = np.empty(shape, dtype)
    return found


class _Rows:
    """The parameters of a batch as numpy arrays, converted once for all its images."""

    def __init__(self, drawn: Drawn, look: Look) -> None:
        self.matrix, self.field, self.word, self.erase, self.noise, self.salt, self.sharpen = (
            None if t is None else t.numpy()
            for t in (
                drawn.matrix, drawn.field, drawn.word, drawn.erase, drawn.noise, drawn.salt_pepper, drawn.sharpen
            )
        )  # fmt: skip
        self.colour = None if drawn.colour is None else drawn.colour.numpy() * [1, 1, 1, 255]
        self.blur = self.wide = None
        if drawn.blur is not None:
            self.blur = gaussian(drawn.blur, look.reach_px).numpy()
        if drawn.sharpen is not None:
            near = 0 if drawn.blur is None else drawn.blur**2
            wide = torch.sqrt(torch.as_tensor(near + SHARPEN_SIGMA_PX**2)).expand(len(drawn.sharpen))
            self.wide = gaussian(wide, look.reach_px).numpy()
        self.blurs = None if drawn.blur is None else drawn.blur.tolist()


def render(images: Sequence[np.ndarray], drawn: Drawn, look: Look, out: np.ndarray) -> None:
    """Renders images into a float batch.

    Args:
        images: uint8 (H, W, C) each, of any sizes; not copied.
        drawn: The parameters of each.
        look: The output format.
        out: float32 (B, *look.size, C), overwritten completely.
    """
    _alone()
    rows = _Rows(drawn, look)
    height, width, channels = *look.size, len(look.mean)
    scale = torch.tensor([1 / (255 * std) for std in look.std]).repeat(width)
    shift = torch.tensor([-mean / std for mean, std in zip(look.mean, look.std, strict=True)]).repeat(width)
    grey = np.array([255 * mean for mean in look.mean], np.float32)
    slots = buffer("slots", (TOGETHER, height, width, channels))
    for first in range(0, len(images), TOGETHER):
        part = images[first : first + TOGETHER]
        target = out[first : first + len(part)]
        for i, image in enumerate(part):
            painted(image, first + i, rows, look, slots[i])
        np.copyto(target, slots[: len(part)])
        for i in range(len(part)):
            scattered(target[i], first + i, rows)
            if rows.erase is not None:
                top, left, bottom, right = rows.erase[first + i].tolist()
                target[i, top:bottom, left:right] = grey
        flat = torch.from_numpy(target).view(len(part), height, -1)
        torch.addcmul(shift, flat, scale, out=flat)


def painted(image: np.ndarray, row: int, rows: Any, look: Look, slot: np.ndarray) -> None:
    """Warps, blurs, sharpens and colours one image into ``slot``: uint8 (*look.size, C)."""
    import cv2

    field = None if rows.field is None else rows.field[row]
    soft = rows.wide is not None or (rows.blur is not None and rows.blurs[row] > 0)
    if rows.matrix is not None or field is not None:
        matrix = _IDENTITY if rows.matrix is None else rows.matrix[row]
        direct = rows.colour is None and not soft
        image = moved(image, matrix, field, look, slot if direct else buffer("moved", slot.shape))
    if soft:
        image = _softened(image, row, rows)
    if rows.colour is not None:
        colour = rows.colour[row]
        if slot.shape[2] == 1:
            colour = np.array([[colour[0, :3].sum(), colour[0, 3]]])
        image = cv2.transform(image, colour, dst=slot)
    _write(image, slot)


def _alone() -> None:
    import cv2

    if cv2.getNumThreads() > 1:
        cv2.setNumThreads(1)  # the loader's threads already work on different images


_IDENTITY = np.eye(3)


def _softened(image: np.ndarray, row: int, rows: Any) -> np.ndarray:
    import cv2

    def convolved(taps: np.ndarray, name: str) -> np.ndarray:
        idle = int((taps > _NOTHING).argmax())  # filters are as long as the strongest blur needs: trim a weak one
        taps, dst = taps[idle : len(taps) - idle], buffer(name, image.shape)
        return cv2.sepFilter2D(image, -1, taps, taps, dst=dst, borderType=cv2.BORDER_REPLICATE).reshape(image.shape)

    near = image if rows.blur is None or not rows.blurs[row] else convolved(rows.blur[row], "near")
    amount = 0.0 if rows.sharpen is None else float(rows.sharpen[row])
    if not amount:
        return near
    wide = convolved(rows.wide[row], "wide")
    return cv2.addWeighted(near, 1 + amount, wide, -amount, 0, dst=wide).reshape(image.shape)


def scattered(pixels: np.ndarray, row: int, rows: Any) -> None:
    """Adds noise to one image in place: float32 (H, W, C) of levels 0 to 255."""
    word = 0 if rows.word is None else int(rows.word[row])
    deviation = 0.0 if rows.noise is None else 255 * float(rows.noise[row])
    if deviation:
        import cv2

        flat = pixels.reshape(-1)
        found = buffer("noise", flat.shape, np.float32)
        np.take(_normals(), _halves(word, len(flat)), out=found, mode="clip")
        cv2.scaleAdd(found, deviation, flat, dst=flat)
        np.clip(flat, 0, 255, out=flat)
    share = 0 if rows.salt is None else round(float(rows.salt[row]) * HALVES)
    if share:
        which = _halves(word ^ SALT, pixels.shape[0] * pixels.shape[1]).reshape(pixels.shape[:2])
        struck = np.nonzero(which < share)
        pixels[struck] = ((which[struck] & 1) * np.float32(255))[:, None]


def _halves(word: int, count: int) -> np.ndarray:
    return words_alone(word, (count + 1) // 2).astype("<u4", copy=False).view("<u2")[:count]


@cache
def _normals() -> np.ndarray:
    return normal_table(torch.device("cpu")).numpy()


def _write(made: np.ndarray, slot: np.ndarray) -> None:
    """Copies a result of OpenCV into the slot, unless OpenCV wrote there already."""
    if made.ctypes.data != slot.ctypes.data:
        slot[...] = made.reshape(slot.shape)


def moved(
    image: np.ndarray,
    matrix: np.ndarray,
    field: np.ndarray | None,
    look: Look,
    slot: np.ndarray,
    *,
    nearest: bool = False,
    fill: int = 0,
) -> np.ndarray:
    """Resamples one image once: crops with mirrors and quarter turns by a resized view, everything else by one warp.

    Args:
        image: uint8 (H, W, C).
        matrix: float64 (3, 3), from output to input positions in [-1, 1].
        field: float32 (2, K, K): knots of the displacement of output positions, or None.
        look: Size and padding.
        slot: uint8 (*look.size, C), which may be written to.
        nearest: Whether to take the nearest pixel (class ids) instead of interpolating.
        fill: The value outside the image where the padding is ``zeros``.

    Returns:
        uint8 (*look.size, C): the slot, or a view of the image.
    """
    import cv2

    height, width = look.size
    region = _region(matrix, image.shape[:2]) if field is None else None
    if region is not None:
        return _resized(image, region, look, slot, nearest)
    borders = {"reflection": cv2.BORDER_REFLECT, "border": cv2.BORDER_REPLICATE, "zeros": cv2.BORDER_CONSTANT}
    border, pixel = borders[look.padding], _to_pixels(matrix, image.shape[:2], look.size)
    if not nearest:
        image, pixel = _smaller(image, pixel, look.size)
        if image.shape[2] == 3:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA, dst=buffer("four", (*image.shape[:2], 4)))
    method = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    dst = slot if slot.shape[2] == image.shape[2] else buffer("warped", (*look.size, image.shape[2]))
    if field is None:
        made = cv2.warpPerspective(image, pixel, (width, height), dst, method | cv2.WARP_INVERSE_MAP, border, fill)
    else:
        across, down = _places(pixel, field, look.size)
        made = cv2.remap(image, across, down, method, dst, border, fill)
    return made.reshape(slot.shape) if dst is slot else cv2.cvtColor(made, cv2.COLOR_RGBA2RGB, dst=slot)


def _resized(
    image: np.ndarray, region: tuple[int, int, int, int, bool, int | None], look: Look, slot: np.ndarray, nearest: bool
) -> np.ndarray:
    """A crop of whole pixels, transposed and mirrored as the region says, resized to the output."""
    import cv2

    top, bottom, left, right, turned, mirrors = region
    height, width = look.size
    part = image[top:bottom, left:right]
    if turned:
        part = cv2.transpose(part, dst=buffer("turned", (right - left, bottom - top, image.shape[2])))
    if part.shape[:2] != look.size:
        shrinks = min(part.shape[0] / height, part.shape[1] / width) >= geometry.SHRINKS
        method = cv2.INTER_NEAREST_EXACT if nearest else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        dst = slot if mirrors is None else buffer("resized", slot.shape)
        part = cv2.resize(part, (width, height), dst=dst, interpolation=method)
    return (part if mirrors is None else cv2.flip(part, mirrors, dst=slot)).reshape(slot.shape)


def _region(matrix: np.ndarray, shape: Sequence[int]) -> tuple[int, int, int, int, bool, int | None] | None:
    """The crop that a matrix without skew describes, or None: (top, bottom, left, right, transposed, mirror).

    The sides are in whole pixels; the mirror is the code of OpenCV's ``flip``, or None.
    """
    (scale_x, skew_x, centre_x), (skew_y, scale_y, centre_y), (tilt_x, tilt_y, unit) = matrix.tolist()
    turned = not scale_x and not scale_y
    if tilt_x or tilt_y or (not turned and (skew_x or skew_y)):
        return None
    along_x, along_y = (skew_x, skew_y) if turned else (scale_x, scale_y)
    left, right, mirror_x = _span(along_x / unit, centre_x / unit, shape[1])
    top, bottom, mirror_y = _span(along_y / unit, centre_y / unit, shape[0])
    if left < 0 or top < 0:
        return None
    if turned:  # the image's columns are the output's rows
        mirror_x, mirror_y = mirror_y, mirror_x
    code = None if not (mirror_x or mirror_y) else -1 if mirror_x and mirror_y else int(mirror_x)
    return top, bottom, left, right, turned, code


def _span(scale: float, centre: float, side: int) -> tuple[int, int, bool]:
    """First and last pixel edge on one axis, and whether it is mirrored; -1 if not whole pixels inside the image."""
    low, high = (centre - abs(scale) + 1) * side / 2, (centre + abs(scale) + 1) * side / 2
    first, last = round(low), round(high)
    whole = abs(low - first) < _EXACT * side and abs(high - last) < _EXACT * side
    return (first, last, scale < 0) if whole and 0 <= first < last <= side else (-1, -1, False)


def _to_pixels(matrix: np.ndarray, source: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """The same map between OpenCV's pixel coordinates, in which the first pixel's centre is 0."""
    height, width = size
    rows, cols = source
    into = np.array([[cols / 2, 0, cols / 2 - 0.5], [0, rows / 2, rows / 2 - 0.5], [0, 0, 1]])
    outof = np.array([[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]])
    return into @ matrix @ outof


def _smaller(image: np.ndarray, pixel: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Downscales the image by area where an output pixel spans several of its pixels, to avoid aliasing."""
    import cv2

    x, y = (size[1] - 1) / 2, (size[0] - 1) / 2
    w = pixel[2, 0] * x + pixel[2, 1] * y + pixel[2, 2]
    shrink = int(np.sqrt(abs(np.linalg.det(pixel) / w**3)) + _EXACT)
    if shrink < 2:
        return image, pixel
    rows, cols = image.shape[0] // shrink, image.shape[1] // shrink
    small = cv2.resize(image[: rows * shrink, : cols * shrink], (cols, rows), interpolation=cv2.INTER_AREA)
    half = (1 / shrink - 1) / 2
    return small.reshape(rows, cols, -1), np.array([[1 / shrink, 0, half], [0, 1 / shrink, half], [0, 0, 1]]) @ pixel


def _places(pixel: np.ndarray, field: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The source column and row of each output pixel, float32 (H, W) each, with the field applied before the matrix."""
    down, across = (_weights(side, field.shape[-1]) for side in size)
    dx, dy = (down @ (knots * np.float32(side / 2)) @ across.T for knots, side in zip(field, size[::-1], strict=True))
    x, y = dx + np.arange(size[1], dtype=np.float32), dy + np.arange(size[0], dtype=np.float32)[:, None]
    m = pixel.astype(np.float32)
    column, row = (m[k, 0] * x + m[k, 1] * y + m[k, 2] for k in range(2))
    if m[2, 0] or m[2, 1] or m[2, 2] != 1:
        w = m[2, 0] * x + m[2, 1] * y + m[2, 2]
        column, row = column / w, row / w
    return column, row


@cache
def _weights(side: int, knots: int) -> np.ndarray:
    return geometry.knot_weights(side, knots, torch.device("cpu")).numpy()


def render_masks(masks: Tensor, drawn: Drawn, look: Look, extents: Tensor | None, fill: int) -> Tensor:
    """Resamples masks like their images, by the nearest pixel: uint8 (B, H, W) to (B, *look.size).

    Args:
        masks: The class ids; where their sizes differ each at the top left.
        drawn: The parameters of each.
        look: Size and padding.
        extents: int32 (B, 2): their own heights and widths in pixels where they differ, or None.
        fill: The id outside the image where the padding is ``zeros``.
    """
    _alone()
    out = np.empty((len(masks), *look.size, 1), np.uint8)
    sides = [tuple(masks.shape[1:])] * len(masks) if extents is None else extents.tolist()
    for i, (height, width) in enumerate(sides):
        matrix = _IDENTITY if drawn.matrix is None else drawn.matrix[i].numpy()
        field = None if drawn.field is None else drawn.field[i].numpy()
        image = masks[i, :height, :width].numpy()[..., None]
        _write(moved(image, matrix, field, look, out[i], nearest=True, fill=fill), out[i])
    return torch.from_numpy(out[..., 0])
