"""Spatial blocks: images, masks and points, which all follow the same view.

Floor: blocks; may import text and below. Used by: sources, augment, store, data, vision, applications.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.blocks.block import Block, Target, class_list
from common.blocks.content import content_digest
from common.blocks.decode import Jpeg, check_image, converted, open_image, open_jpeg
from common.blocks.form import IMAGE_TYPES, FormField, file_bytes, no_file, rows_of
from common.blocks.item_transforms import View
from common.errors import ConfigError, DataError, in_range, one_of
from common.registry import register

imagenet_stats = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of ImageNet's channels (0 to 1), the normalisation of torchvision's pretrained weights."""
MODES = {"RGB": 3, "L": 1}


@register("block", "image")
@dataclass(frozen=True)
class ImageBlock(Block):
    """An image, stored as uint8 (H, W, C); on the device float (B, C, H, W), normalised.

    Args:
        mode: ``RGB`` (3 channels) or ``L`` (1, grey).
        mean: Mean of each channel (0 to 1) to subtract; ImageNet's for RGB, 0.5 for grey when empty.
        std: Standard deviation of each channel to divide by; ImageNet's for RGB, 0.25 for grey when empty.

    Examples:
        >>> ImageBlock(mode="L").encode(np.zeros((8, 8), dtype=np.uint8)).shape
        torch.Size([8, 8, 1])
    """

    mode: str = "RGB"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    target: ClassVar[Target] = Target.IMAGE
    eager: ClassVar[bool] = False
    from_file: ClassVar[bool] = True

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
        """Whether a raw value is already an array of this block's dtype and channels, which needs no decoder."""
        form = () if self.channels == 1 else (self.channels,)
        return isinstance(raw, np.ndarray) and raw.dtype == np.uint8 and raw.ndim >= 2 and raw.shape[2:] == form

    def open(self, raw: Any) -> Any:
        """Returns an array of this block's format as it is, a JPEG as `Jpeg`, anything else as a PIL image."""
        if self._ready(raw):
            return raw
        if isinstance(raw, (str, Path)):
            raw = _bytes(raw)
        jpeg = open_jpeg(raw) if isinstance(raw, bytes) else None
        return open_image(raw) if jpeg is None else jpeg

    def extent(self, opened: Any) -> tuple[int, int]:
        if isinstance(opened, np.ndarray):
            return opened.shape[0], opened.shape[1]
        return opened.height, opened.width

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
        """Decodes (a JPEG no larger than the view needs) and resamples to the view; a new uint8 array."""
        array = None
        if isinstance(opened, Jpeg):
            size = opened.height, opened.width
            try:
                array = opened.pixels(self.channels, size if view is None else view.least(size))
            except ValueError:  # libjpeg-turbo is strict: Pillow reads some unusual files, and explains its errors
                opened = open_image(opened.data)
            else:
                view = None if view is None or view.keeps(size, array.shape) else view.seen_at(size, array.shape)
        if array is None:
            image: Any = open_image(opened) if isinstance(opened, np.ndarray) else opened
            array = np.array(converted(image, self.mode), copy=True)
        return array if view is None else view.pixels(array)

    def form(self, name: str = "") -> tuple[FormField, ...]:
        return (FormField(name=name or self.registered_name, kind="file", accepts=IMAGE_ENTRIES),)

    def parse(self, value: Any, data: bytes | None = None) -> bytes:
        return check_image(file_bytes("an image", value, data))

    def decode(self, value: Tensor) -> np.ndarray:
        """Returns uint8 (H, W, C) from stored pixels, or from a normalised float (C, H, W)."""
        tensor = value.detach().cpu()
        if tensor.dtype == torch.uint8:
            return tensor.numpy()
        mean, std = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (self.mean, self.std))
        pixels = (tensor.float() * std + mean).clamp(0, 1).mul(255).round().to(torch.uint8)
        return pixels.permute(1, 2, 0).numpy()

    def draw(self, axes: Any, value: Tensor) -> None:
        pixels = self.decode(value)
        axes.imshow(pixels[..., 0] if self.channels == 1 else pixels, cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()


@register("block", "mask")
@dataclass(frozen=True)
class MaskBlock(Block):
    """The class of each pixel, uint8 (H, W), from an indexed, grey, palette or colour image of the same size.

    Args:
        codes: The names of the classes, in the order of their ids; empty: ids only.
        ignore: The value that losses and metrics ignore, or None.
        values: The pixel value of each class, where that is not its position ((0, 255) for black and white).
        colors: The colour (red, green, blue) of each class, for masks that are colour images.

    Examples:
        >>> MaskBlock(("off", "on"), values=(0, 255)).encode(np.array([[0, 255]], dtype=np.uint8)).tolist()
        [[0, 1]]
    """

    codes: tuple[str, ...] = ()
    ignore: int | None = None
    values: tuple[int, ...] = ()
    colors: tuple[tuple[int, int, int], ...] = ()
    target: ClassVar[Target] = Target.MASK
    eager: ClassVar[bool] = False
    from_file: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("values", "colors"):
            given: tuple[Any, ...] = getattr(self, name)
            if given and len(given) != len(self.codes):
                raise ConfigError(f"{name} must have one entry a class ({len(self.codes)}), got {len(given)}")
            if len(set(given)) < len(given):
                raise ConfigError(f"{name} names one of them twice: {given}")
        for value in (*self.values, *(() if self.ignore is None else (self.ignore,))):
            in_range("values and ignore", value, 0, 255)
        if self.ignore is not None and self.void is not None and self.void < len(self.codes):
            raise ConfigError(f"ignore={self.ignore} is the id of the class {self.codes[self.void]!r}")

    def about(self) -> str:
        ignored = "" if self.ignore is None else f"; the value {self.ignore} is ignored"
        return f"the class of each pixel, {class_list(self.codes)}{ignored}"

    @property
    def void(self) -> int | None:
        """The ignored id in encoded masks: 255 where ``values`` or ``colors`` are given."""
        return self.ignore if self.ignore is None or not (self.values or self.colors) else VOID

    @property
    def background(self) -> int | None:
        """The class called background, which is drawn transparent, or None."""
        return next((i for i, code in enumerate(self.codes) if code.lower() == "background"), None)

    def open(self, raw: Any) -> Image.Image:
        return open_image(raw)

    def encode(self, raw: Any, view: View | None = None) -> Tensor:
        image = raw if isinstance(raw, Image.Image) else open_image(raw)
        ids = self._ids(image)
        ids = ids if view is None else view.pixels(ids, nearest=True)
        return torch.from_numpy(np.array(ids, copy=True))

    def _ids(self, image: Image.Image) -> np.ndarray:
        if self.colors and image.mode not in ("L", "1"):
            return self._of_colors(np.asarray(image.convert("RGB")))
        if image.mode not in ("L", "P", "1"):
            hint = "give MaskBlock the colors of its classes" if image.mode in ("RGB", "RGBA") else "mode L or P"
            raise DataError(f"a mask must hold one class a pixel, got mode {image.mode!r}: {hint}")
        ids = np.array(image, dtype=np.uint8, copy=True)
        if self.values:
            table = np.full(256, VOID, np.uint8)
            table[list(self.values)] = np.arange(len(self.values))
            known = {*self.values, *(() if self.ignore is None else (self.ignore,))}
            self._refuse(sorted(set(np.unique(ids).tolist()) - known))
            return table[ids]
        if self.codes:
            ignored = () if self.ignore is None else (self.ignore,)
            self._refuse([v for v in np.unique(ids).tolist() if v >= len(self.codes) and v not in ignored])
        return ids

    def _refuse(self, unknown: list[Any]) -> None:
        if unknown:
            known = f"values {self.values}" if self.values else f"ids 0 to {len(self.codes) - 1}"
            raise DataError(
                f"the mask holds {unknown[0]}, but its {len(self.codes)} classes have the {known}"
                + ("" if self.ignore is None else f" and {self.ignore} is ignored")
            )

    def _of_colors(self, pixels: np.ndarray) -> np.ndarray:
        """The ids of colours: (H, W, 3) to (H, W)."""
        flat = (pixels.astype(np.int32) * np.array([1 << 16, 1 << 8, 1])).sum(axis=2)
        keys = [(r << 16) + (g << 8) + b for r, g, b in self.colors]
        ids = np.full(flat.shape, VOID, np.uint8)
        for i, key in enumerate(keys):
            ids[flat == key] = i
        if self.ignore is None and (ids == VOID).any():
            odd = int(flat[ids == VOID][0])
            raise DataError(
                f"the mask holds the colour {(odd >> 16, odd >> 8 & 255, odd & 255)}, which stands for no class"
            )
        return ids

    def form(self, name: str = "") -> tuple[FormField, ...]:
        return (FormField(name=name or self.registered_name, kind="file", accepts=IMAGE_ENTRIES),)

    def parse(self, value: Any, data: bytes | None = None) -> bytes:
        return check_image(file_bytes("a mask", value, data))

    def decode(self, value: Tensor) -> np.ndarray:
        """Returns uint8 (H, W); for soft targets of mixed samples (classes, H, W) the argmax."""
        ids = value.detach().cpu()
        return (ids.argmax(dim=0) if ids.dim() == 3 else ids).numpy().astype(np.uint8)

    def draw(self, axes: Any, value: Tensor) -> None:
        axes.imshow(self.overlay(self.decode(value)), interpolation="nearest")

    def overlay(self, ids: np.ndarray) -> np.ndarray:
        """Returns an overlay picture of class ids (H, W); ignored pixels and the background are transparent."""
        return overlay(ids, len(self.codes), (self.void, self.background), 0.5 if self.background is None else 0.7)


VOID = 255
"""The ignored id in encoded masks, where ``values`` or ``colors`` are given."""


def class_colors(count: int) -> np.ndarray:
    """Returns one colour per class, float (count, 3) in [0, 1], each distinct from those before it.

    Args:
        count: The number of classes.
    """
    from matplotlib import colormaps

    first = np.asarray(colormaps["tab20"](np.arange(20))[:, :3])[np.r_[0:20:2, 1:20:2]]
    if count <= len(first):
        return first[:count]
    hues = (np.arange(count - len(first)) * 0.618034) % 1  # steps of the golden ratio spread any number of hues evenly
    return np.concatenate([first, np.asarray(colormaps["hsv"](hues))[:, :3]])


def overlay(ids: np.ndarray, classes: int, clear: Sequence[int | None] = (), alpha: float = 0.5) -> np.ndarray:
    """Returns an overlay for an image: float RGBA (H, W, 4), the colour of each pixel's class, half transparent.

    Args:
        ids: The class of each pixel, (H, W).
        classes: The number of classes.
        clear: The ids that are fully transparent (None: no id).
        alpha: The opacity of the colours, in [0, 1].
    """
    colors = class_colors(max(classes, int(ids.max(initial=0)) + 1))[ids]
    shown = np.where(np.isin(ids, [i for i in clear if i is not None]), 0.0, alpha)
    return np.concatenate([colors, shown[..., None]], axis=2)


@register("block", "points")
@dataclass(frozen=True)
class PointBlock(Block):
    """Points of an image, float32 (N, 2) as (x, y) in pixels; N is the same for every item.

    Examples:
        >>> PointBlock().encode([[4, 2]], View((0, 0, 8, 8), (16, 16))).tolist()
        [[8.0, 4.0]]
    """

    target: ClassVar[Target] = Target.POINTS
    eager: ClassVar[bool] = False

    def encode(self, raw: Any, view: View | None = None) -> Tensor:
        points = np.asarray(raw, dtype=np.float64).reshape(-1, 2)
        points = points if view is None else view.points(points)
        return torch.from_numpy(points.astype(np.float32))

    def form(self, name: str = "") -> tuple[FormField, ...]:
        return (FormField(name=name or self.registered_name, kind="points"),)

    def parse(self, value: Any, data: bytes | None = None) -> list[list[float]]:
        no_file("points", data)
        return rows_of("points", value, 2)

    def token(self, raw: Any) -> bytes:
        return content_digest(np.asarray(raw, dtype=np.float64).reshape(-1, 2) + 0.0)

    def decode(self, value: Tensor) -> list[list[float]]:
        return value.tolist()

    def draw(self, axes: Any, value: Tensor) -> None:
        points = value
        axes.scatter(points[:, 0].tolist(), points[:, 1].tolist(), s=12, c="red")


IMAGE_ENDINGS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif", ".jp2")
)
IMAGE_ENTRIES = (*IMAGE_TYPES, *sorted(IMAGE_ENDINGS))


def _bytes(path: str | Path) -> bytes:
    try:
        with open(path, "rb", buffering=0) as stream:
            return stream.read()
    except FileNotFoundError as error:
        raise DataError("the file does not exist") from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}") from error
