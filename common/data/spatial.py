"""Blocks that live in an image's plane: the image itself, masks, boxes and points. All follow one view."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.data.batch import Value
from common.data.blocks import Block, CategoryBlock, Target
from common.data.decode import Jpeg, converted, open_image, open_jpeg
from common.data.transforms import View
from common.errors import ConfigError, DataError, in_range, one_of
from common.registry import register

imagenet_stats = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of ImageNet's channels (0 to 1), the normalisation of torchvision's pretrained weights."""
MODES = {"RGB": 3, "L": 1}


@register("block", "image")
@dataclass(frozen=True)
class ImageBlock(Block):
    """A picture, kept as uint8 (H, W, C); on the device float (B, C, H, W), normalised.

    Args:
        mode: ``RGB`` (3 channels) or ``L`` (1, grey).
        mean: Mean of each channel (0 to 1) to subtract; ImageNet's for RGB, 0.5 for grey when empty.
        std: Deviation of each channel to divide by; ImageNet's for RGB, 0.25 for grey when empty.

    Examples:
        >>> ImageBlock(mode="L").encode(np.zeros((8, 8), dtype=np.uint8)).shape
        torch.Size([8, 8, 1])
    """

    mode: str = "RGB"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    target: ClassVar[Target] = "image"
    eager: ClassVar[bool] = False

    def __post_init__(self) -> None:
        one_of("mode", self.mode, MODES)
        default = imagenet_stats if self.mode == "RGB" else ((0.5,), (0.25,))
        object.__setattr__(self, "mean", tuple(self.mean) or default[0])
        object.__setattr__(self, "std", tuple(self.std) or default[1])
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise ConfigError(f"{name} must have {self.channels} entries for mode {self.mode!r}, got {values}")
        for value in self.std:
            in_range("std", value, 0, float("inf"), open_low=True)

    @property
    def channels(self) -> int:
        """The number of channels, C."""
        return MODES[self.mode]

    def _ready(self, raw: Any) -> bool:
        """Whether a raw value is an array of this block's own form, which needs no decoder."""
        form = () if self.channels == 1 else (self.channels,)
        return isinstance(raw, np.ndarray) and raw.dtype == np.uint8 and raw.ndim >= 2 and raw.shape[2:] == form

    def open(self, raw: Any) -> Any:
        """Returns an array of this block's form as it is, a JPEG with its header read, anything else as a PIL image."""
        if self._ready(raw):
            return raw
        if isinstance(raw, (str, Path)):
            raw = _bytes(raw)
        jpeg = open_jpeg(raw) if isinstance(raw, bytes) else None
        return open_image(raw) if jpeg is None else jpeg

    def extent(self, opened: Any) -> tuple[int, int]:
        if isinstance(opened, np.ndarray):
            return opened.shape[0], opened.shape[1]
        image = cast("Jpeg | Image.Image", opened)
        return image.height, image.width

    def encode(self, raw: Any, view: View | None = None) -> Tensor:
        opened = raw if isinstance(raw, (Jpeg, Image.Image)) else self.open(raw)
        if isinstance(opened, np.ndarray) and view is None:
            return torch.from_numpy(np.array(opened, copy=True).reshape(*opened.shape[:2], self.channels))
        try:
            array = self._pixels(opened, view)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"the image is damaged: {error}") from error
        return torch.from_numpy(array[:, :, None] if array.ndim == 2 else array)

    def _pixels(self, opened: Any, view: View | None) -> np.ndarray:
        """Decodes (a JPEG no larger than the view needs) and resamples to the view; uint8, an array of its own."""
        array = None
        if isinstance(opened, Jpeg):
            size = opened.height, opened.width
            try:
                array = opened.pixels(self.channels, size if view is None else view.least(size))
            except ValueError:  # strict: Pillow may still read what is only unusual, and says what is wrong
                opened = open_image(opened.data)
            else:
                view = None if view is None or view.keeps(size, array.shape) else view.seen_at(size, array.shape)
        if array is None:
            image = cast("Image.Image", open_image(opened) if isinstance(opened, np.ndarray) else opened)
            array = np.array(converted(image, self.mode), copy=True)
        return array if view is None else view.pixels(array)

    def decode(self, value: Value) -> np.ndarray:
        """Returns uint8 (H, W, C) from either form: kept pixels, or a normalised float (C, H, W)."""
        tensor = cast(Tensor, value).detach().cpu()
        if tensor.dtype == torch.uint8:
            return tensor.numpy()
        mean, std = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (self.mean, self.std))
        pixels = (tensor.float() * std + mean).clamp(0, 1).mul(255).round().to(torch.uint8)
        return pixels.permute(1, 2, 0).numpy()

    def draw(self, axes: Any, value: Value) -> None:
        pixels = self.decode(value)
        axes.imshow(pixels[..., 0] if self.channels == 1 else pixels, cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()


@register("block", "mask")
@dataclass(frozen=True)
class MaskBlock(Block):
    """The class of each pixel, uint8 (H, W), from an indexed or grey image of the same name.

    Args:
        codes: The names of the classes, in the order of their ids; empty: ids only.
        ignore: The id that no loss or metric counts, or None.
    """

    codes: tuple[str, ...] = ()
    ignore: int | None = None
    target: ClassVar[Target] = "mask"
    eager: ClassVar[bool] = False

    def open(self, raw: Any) -> Image.Image:
        return open_image(raw)

    def encode(self, raw: Any, view: View | None = None) -> Tensor:
        image = raw if isinstance(raw, Image.Image) else open_image(raw)
        if image.mode not in ("L", "P", "1"):
            raise DataError(f"a mask must hold one class id a pixel (mode L or P), got mode {image.mode!r}")
        ids = np.array(image, dtype=np.uint8, copy=True)
        ids = ids if view is None else view.pixels(ids, nearest=True)
        counted = ids if self.ignore is None else ids[ids != self.ignore]
        top = int(counted.max(initial=0))
        if self.codes and top >= len(self.codes):
            raise DataError(
                f"the mask holds id {top}, but there are {len(self.codes)} classes (0 to {len(self.codes) - 1})"
            )
        return torch.from_numpy(np.array(ids, copy=True))

    def decode(self, value: Value) -> np.ndarray:
        """Returns uint8 (H, W); of a mixed sample's shares (classes, H, W) the largest."""
        ids = cast(Tensor, value).detach().cpu()
        return (ids.argmax(dim=0) if ids.dim() == 3 else ids).numpy().astype(np.uint8)

    def draw(self, axes: Any, value: Value) -> None:
        top = max(len(self.codes) - 1, 1)
        axes.imshow(self.decode(value), alpha=0.5, cmap="tab20", vmin=0, vmax=top, interpolation="nearest")


@register("block", "boxes")
@dataclass(frozen=True)
class BBoxBlock(Block):
    """Boxes with their labels: ``boxes`` float32 (N, 4) as (x0, y0, x1, y1) in pixels, ``labels`` int64 (N,).

    The raw value is a pair (boxes in source pixels, label names). In a batch: boxes (B, N, 4), labels (B, N),
    valid (B, N) bool. With ``outlined`` it is a triple, the third a polygon or a mask for each box, from which
    ``outlines`` float32 (N, 32, 2) are kept: augmented boxes are then drawn around the thing, not around its old box.

    Args:
        vocab: The classes; fitted from the training items when empty.
        outlined: Whether each box comes with a polygon ((x, y), …) in source pixels or a mask (height, width).

    Examples:
        >>> block = BBoxBlock(vocab=("cat",))
        >>> block.encode(([[0, 0, 4, 2]], ["cat"]), View((0, 0, 8, 8), (4, 4)))["boxes"].tolist()
        [[0.0, 0.0, 2.0, 1.0]]
    """

    vocab: tuple[str, ...] = ()
    outlined: bool = False
    target: ClassVar[Target] = "boxes"
    ragged: ClassVar[bool] = True
    needs_fit: ClassVar[bool] = True
    eager: ClassVar[bool] = False

    def setup(self, raws: Sequence[Any]) -> Self:
        labels = [name for raw in raws for name in raw[1]]
        return self if self.vocab else replace(self, vocab=CategoryBlock().setup(labels).vocab)

    def encode(self, raw: Any, view: View | None = None) -> dict[str, Tensor]:
        if len(raw) != (3 if self.outlined else 2):
            wanted = "boxes, labels and polygons or masks" if self.outlined else "boxes and labels"
            raise DataError(f"an item must have {wanted}, got {len(raw)} parts")
        corners = np.asarray(raw[0], dtype=np.float64).reshape(-1, 2, 2)
        for part, name in zip(raw[1:], ("labels", "outlines"), strict=False):
            if len(part) != len(corners):
                raise DataError(f"{len(corners)} boxes but {len(part)} {name}")
        found = {"labels": CategoryBlock(self.vocab).encode_many(list(raw[1]))}
        if self.outlined:
            around = np.array([outline(shape) for shape in raw[2]]).reshape(-1, OUTLINE, 2)
            around = around if view is None else view.points(around)
            found["outlines"] = torch.from_numpy(around.astype(np.float32))
        if view is not None:
            limit = np.array([view.size[1], view.size[0]], dtype=np.float64)
            corners = np.clip(view.points(corners), 0, limit)
        seen = (corners[:, 1] > corners[:, 0]).all(axis=1)  # a box that the view cuts away is none
        boxes = torch.from_numpy(corners.reshape(-1, 4).astype(np.float32))
        return {name: value[torch.from_numpy(seen)] for name, value in {"boxes": boxes, **found}.items()}

    def decode(self, value: Value) -> tuple[list[list[float]], list[str]]:
        fields = cast("dict[str, Tensor]", value)
        keep = fields["valid"] if "valid" in fields else torch.ones_like(fields["labels"], dtype=torch.bool)
        return fields["boxes"][keep].tolist(), [self.vocab[int(i)] for i in fields["labels"][keep]]

    def draw(self, axes: Any, value: Value) -> None:
        from matplotlib.patches import Rectangle

        for (x0, y0, x1, y1), name in zip(*self.decode(value), strict=True):
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="yellow"))
            axes.text(x0, y0, name, color="yellow", fontsize=8, parse_math=False)


OUTLINE = 32
"""Points that stand for the outline of a thing: the corners of its convex hull, the most telling if it has more."""


def outline(shape: Any) -> np.ndarray:
    """Returns the corners of a thing's convex hull, float64 (32, 2) as (x, y) in pixels, the last one again and again.

    The box around them is the box around the thing, and stays so after any turn or tilt. Of more than 32 corners those
    go that change the hull least (as in Visvalingam and Whyatt 1993, by height instead of area).

    Args:
        shape: A polygon, (x, y) of each corner; or a mask (height, width), bool or not two wide.

    Raises:
        DataError: if there is nothing in it.
    """
    import cv2

    array = np.asarray(shape)
    if array.ndim == 2 and (array.dtype == np.bool_ or array.shape[1] != 2):
        rows, columns = np.nonzero(array)
        array = np.concatenate([np.stack([columns + dx, rows + dy], axis=1) for dx in (0, 1) for dy in (0, 1)])
    points = np.asarray(array, dtype=np.float64).reshape(-1, 2)
    if not len(points):
        raise DataError("a polygon or mask of a box is empty")
    corners = np.asarray(cv2.convexHull(points.astype(np.float32), returnPoints=False), dtype=np.int64)
    hull = points[corners.reshape(-1)]
    while len(hull) > OUTLINE:
        before, after = np.roll(hull, 1, axis=0), np.roll(hull, -1, axis=0)
        side, own = after - before, hull - before
        height = np.abs(side[:, 0] * own[:, 1] - side[:, 1] * own[:, 0]) / np.hypot(side[:, 0], side[:, 1])
        hull = np.delete(hull, np.argmin(height), axis=0)
    return np.concatenate([hull, np.repeat(hull[-1:], OUTLINE - len(hull), axis=0)])


@register("block", "points")
@dataclass(frozen=True)
class PointBlock(Block):
    """Points of an image, float32 (N, 2) as (x, y) in pixels; N is the same for every item.

    Examples:
        >>> PointBlock().encode([[4, 2]], View((0, 0, 8, 8), (16, 16))).tolist()
        [[8.0, 4.0]]
    """

    target: ClassVar[Target] = "points"
    eager: ClassVar[bool] = False

    def encode(self, raw: Any, view: View | None = None) -> Tensor:
        points = np.asarray(raw, dtype=np.float64).reshape(-1, 2)
        points = points if view is None else view.points(points)
        return torch.from_numpy(points.astype(np.float32))

    def decode(self, value: Value) -> list[list[float]]:
        return cast("list[list[float]]", cast(Tensor, value).tolist())

    def draw(self, axes: Any, value: Value) -> None:
        points = cast(Tensor, value)
        axes.scatter(points[:, 0].tolist(), points[:, 1].tolist(), s=12, c="red")


IMAGE_ENDINGS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif", ".jp2")
)


def _bytes(path: str | Path) -> bytes:
    try:
        with open(path, "rb", buffering=0) as stream:
            return stream.read()
    except FileNotFoundError as error:
        raise DataError("the file does not exist") from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}") from error
