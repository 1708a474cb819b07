"""Item transforms: the deterministic presize, one axis-aligned view of the source per item.

A view is computed from the image's size alone, and every spatial field of the sample (image, mask, boxes, points)
follows it. The random part of a crop happens later, on the batch, from the cached presized pixels.

Floor: blocks; may import text and below. Used by: augment, data, vision, applications, recipes.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F

from common.errors import ConfigError, in_range, one_of
from common.registry import register


class ResizeMethod:
    """How a photo is brought to the output's shape: crop the longer side, squeeze it, or pad the shorter one."""

    Squish = "squish"
    Crop = "crop"
    Pad = "pad"


PAD_MODES: dict[str, Literal["reflect", "edge", "constant"]] = {
    "reflection": "reflect",
    "border": "edge",
    "zeros": "constant",
}
MAX_SIZE_PX = 16_384
SLACK = 4 / 3  # each side may be stored up to this much larger than needed where that saves a resample


def as_size(size: Any) -> tuple[int, int]:
    """Returns (height, width) from one number or a pair.

    Raises:
        ConfigError: unless both lie in [1, 16384] pixels.
    """
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) for v in pair):
        raise ConfigError(f"size must be a number of pixels or (height, width), got {size!r}")
    height, width = pair
    for value in (height, width):
        in_range("size", value, 1, MAX_SIZE_PX)
    return height, width


def check_ratio(ratio: tuple[float, float]) -> None:
    """Checks the least and greatest width / height of a random crop.

    Raises:
        ConfigError: unless both are above 0 and in order.
    """
    if not 0 < ratio[0] <= ratio[1]:
        raise ConfigError(f"ratio must be (least, greatest), both above 0, got {ratio}")


@dataclass(frozen=True)
class View:
    """An axis-aligned map from source pixels to output pixels.

    Attributes:
        box: (left, top, right, bottom) of the source region, in source pixels; it may lie outside the source.
        size: (height, width) of the output, in pixels.
        pad_mode: The padding outside the source: ``reflection``, ``border`` or ``zeros``.
    """

    box: tuple[float, float, float, float]
    size: tuple[int, int]
    pad_mode: str = "reflection"

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Maps source points to output points: float (…, 2) as (x, y) in pixels."""
        left, top, right, bottom = self.box
        scale = np.array([self.size[1] / (right - left), self.size[0] / (bottom - top)])
        return (xy - np.array([left, top])) * scale

    def inverse_points(self, xy: np.ndarray) -> np.ndarray:
        """Maps output points back to source points: float (…, 2) as (x, y) in pixels."""
        left, top, right, bottom = self.box
        scale = np.array([(right - left) / self.size[1], (bottom - top) / self.size[0]])
        return xy * scale + np.array([left, top])

    def least(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns the smallest (height, width) at which a source of ``size`` may be decoded without losing detail."""
        left, top, right, bottom = self.box
        height = math.ceil(size[0] * self.size[0] / (bottom - top))
        width = math.ceil(size[1] * self.size[1] / (right - left))
        return min(height, size[0]), min(width, size[1])

    def keeps(self, size: tuple[int, int], decoded: tuple[int, ...]) -> bool:
        """Whether a source of ``size`` pixels decoded to ``decoded`` pixels already is the output."""
        return self.box == (0, 0, size[1], size[0]) and self.size == tuple(decoded[:2])

    def seen_at(self, size: tuple[int, int], decoded: tuple[int, ...]) -> "View":
        """Returns the same view of a source of ``size`` pixels that was decoded to ``decoded`` pixels."""
        sy, sx = decoded[0] / size[0], decoded[1] / size[1]
        left, top, right, bottom = self.box
        return replace(self, box=(left * sx, top * sy, right * sx, bottom * sy))

    def pixels(self, array: np.ndarray, *, nearest: bool = False) -> np.ndarray:
        """Resamples uint8 (H, W) or (H, W, C) once: bilinear with antialiasing, or nearest for masks.

        The region is rounded to whole pixels of the array.
        """
        rows, cols = array.shape[:2]
        left, top, right, bottom = (round(v) for v in self.box)
        if left >= 0 and top >= 0 and right <= cols and bottom <= rows:
            region = array[top : max(bottom, top + 1), left : max(right, left + 1)]
            return _resized(region, self.size, nearest)
        height, width = self.size
        x0, y0 = (round(float(v)) for v in self.points(np.array([0.0, 0.0])))
        x1, y1 = (round(float(v)) for v in self.points(np.array([float(cols), float(rows)])))
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(max(x1, x0 + 1), width), min(max(y1, y0 + 1), height)
        inner = _resized(array, (y1 - y0, x1 - x0), nearest)
        return _pad(inner, ((y0, height - y1), (x0, width - x1)) + ((0, 0),) * (inner.ndim - 2), self.pad_mode)


def _resized(array: np.ndarray, size: tuple[int, int], nearest: bool) -> np.ndarray:
    if array.shape[:2] == size:
        return array
    if nearest:
        rows, cols = (  # the source pixel under each output pixel's centre
            ((np.arange(n) + 0.5) * (m / n)).astype(np.int64) for n, m in zip(size, array.shape, strict=False)
        )
        return array[rows[:, None], cols]
    planes = torch.from_numpy(np.ascontiguousarray(array)).reshape(1, *array.shape[:2], -1).permute(0, 3, 1, 2)
    made = F.interpolate(planes, size, mode="bilinear", antialias=True)
    return made[0].permute(1, 2, 0).reshape(*size, *array.shape[2:]).numpy()


def _pad(array: np.ndarray, border: tuple[tuple[int, int], ...], pad_mode: str) -> np.ndarray:
    return np.pad(array, border, mode=PAD_MODES[pad_mode])


class ItemTransform:
    """Base of the item transforms: maps an image's size to a view, and may leave a random crop to the batch."""

    registered_name: ClassVar[str]

    def view(self, height: int, width: int) -> View:
        """Returns the view of a source image of ``height`` x ``width`` pixels."""
        raise NotImplementedError

    @property
    def ragged(self) -> bool:
        """Whether the outputs differ in height and width."""
        return False

    def batch_crop(self) -> "RandomCrop | None":
        """Returns the random crop that this transform leaves to the batch, or None."""
        return None


@dataclass(frozen=True)
class RandomCrop:
    """The random part of a resized crop, which happens on the batch.

    Attributes:
        size: (height, width) of the output, in pixels.
        scale: The least and greatest share of the source's area that a crop takes.
        ratio: The least and greatest width / height of a crop, in source pixels.
    """

    size: tuple[int, int]
    scale: tuple[float, float]
    ratio: tuple[float, float]


@register("item_transform", "resize")
@dataclass(frozen=True)
class Resize(ItemTransform):
    """Presizes each image to one size, the same way every time.

    Unlike fastai's, the crop is always the centre one: item transforms are deterministic, and their outputs are cached
    in the first pass. For a different part of the photo each epoch use `RandomResizedCrop`, or
    ``aug_transforms(size=…)``.

    Args:
        size: Output pixels, one number for a square or (height, width).
        method: ``crop`` (centre), ``squish`` or ``pad``.
        pad_mode: For ``pad``: ``reflection``, ``border`` or ``zeros``.

    Examples:
        >>> Resize(128).view(200, 300).box
        (50, 0, 250, 200)
        >>> Resize(128, ResizeMethod.Pad, pad_mode="zeros").view(200, 300).box
        (0, -50, 300, 250)
    """

    size: int | tuple[int, int]
    method: str = ResizeMethod.Crop
    pad_mode: str = "reflection"

    def __post_init__(self) -> None:
        as_size(self.size)
        one_of("method", self.method, ["crop", "squish", "pad"])
        one_of("pad_mode", self.pad_mode, PAD_MODES)

    def view(self, height: int, width: int) -> View:
        out_h, out_w = as_size(self.size)
        if self.method == ResizeMethod.Squish:
            return View((0, 0, width, height), (out_h, out_w), self.pad_mode)
        fit = min if self.method == ResizeMethod.Crop else max
        scale = fit(width / out_w, height / out_h)
        side_w, side_h = round(out_w * scale), round(out_h * scale)
        left, top = (width - side_w) // 2, (height - side_h) // 2
        return View((left, top, left + side_w, top + side_h), (out_h, out_w), self.pad_mode)


@register("item_transform", "random_resized_crop")
@dataclass(frozen=True)
class RandomResizedCrop(ItemTransform):
    """A different part of the photo each epoch: a random area and shape in training, the centre in validation.

    The whole photo is cached in its own aspect ratio, downscaled where it has more pixels than the crops can use (the
    smallest crop need not be enlarged, up to twice the output's sides); a JPEG is decoded directly at that scale. The
    crop is drawn on the batch and is one resample together with all other geometric operations.

    Args:
        size: Output pixels, one number for a square or (height, width).
        min_scale: The least share of the photo's area that a crop takes, in (0, 1].
        ratio: The least and greatest width / height of a crop.
        max_scale: The greatest share, in [min_scale, 1].

    Examples:
        >>> RandomResizedCrop(128, min_scale=0.3).view(200, 300).size
        (200, 300)
        >>> RandomResizedCrop(128, min_scale=0.3).view(2000, 3000).size
        (250, 375)
    """

    size: int | tuple[int, int]
    min_scale: float = 0.08
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    max_scale: float = 1.0

    def __post_init__(self) -> None:
        as_size(self.size)
        in_range("min_scale", self.min_scale, 0, 1, open_low=True)
        in_range("max_scale", self.max_scale, self.min_scale, 1)
        check_ratio(self.ratio)

    def view(self, height: int, width: int) -> View:
        out_h, out_w = as_size(self.size)
        factor = min(2.0, 1 / math.sqrt(self.min_scale))  # sides at which the smallest crop has the output's pixels
        scale = factor * math.sqrt(out_h * out_w / (height * width))
        stored = max(1, round(height * scale)), max(1, round(width * scale))
        for part in (1, 2, 4, 8):  # a JPEG decodes at these scales: slightly more to store, but nothing to resample
            if scale <= 1 / part <= scale * SLACK or (part == 1 and scale > 1):
                stored = -(-height // part), -(-width // part)
                break
        return View((0, 0, width, height), stored)

    @property
    def ragged(self) -> bool:
        return True

    def batch_crop(self) -> RandomCrop:
        return RandomCrop(as_size(self.size), (self.min_scale, self.max_scale), self.ratio)
