"""What a person writes: the augmentations of a DataBlock's ``batch_tfms``, as plain data."""

from dataclasses import dataclass, field
from typing import ClassVar, cast

from common.augment import operations as ops
from common.data.spatial import imagenet_stats
from common.data.transforms import RandomCrop, as_size
from common.errors import ConfigError, in_range, one_of
from common.registry import register

PADDINGS = ("reflection", "border", "zeros")


class BatchTransform:
    """Base of the batch transforms."""

    registered_name: ClassVar[str]

    def operations(self) -> list[ops.Operation]:
        """Returns the random operations it stands for, geometric ones in the order they apply."""
        return []


@register("batch_transform", "augment")
@dataclass(frozen=True, kw_only=True)
class Augment(BatchTransform):
    """Random changes of a whole batch on the device, one set of numbers a sample, one resample in all.

    Args:
        flip: Mirror left and right with probability one half.
        flip_vertical: Mirror top and bottom with probability one half.
        rotate: Most degrees either way.
        zoom: Greatest enlargement, at least 1.
        zoom_least: Least enlargement; below 1 shows what padding adds around the image.
        warp: Most perspective, in [0, 1).
        translate: Most shift, as a share of width and height.
        brightness: Most change of light, in [0, 1).
        contrast: Most change of contrast, in [0, 1).
        p_affine: Probability of each of rotate, zoom, warp and translate.
        p_lighting: Probability of each of brightness and contrast.
        size: Output pixels (a number or (height, width)); None keeps the presized ones.
        min_scale: Below 1 with ``size``: cut a random part of at least this share of the area.
        padding: What stands outside the image: ``reflection``, ``border`` or ``zeros``.

    Raises:
        ConfigError: for a value outside its range, naming the parameter.

    Examples:
        >>> [op.name for op in Augment(flip=True, rotate=10).operations()]
        ['flip_horizontal', 'rotate']
    """

    flip: bool = False
    flip_vertical: bool = False
    rotate: float = 0.0
    zoom: float = 1.0
    zoom_least: float = 1.0
    warp: float = 0.0
    translate: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    p_affine: float = 0.75
    p_lighting: float = 0.75
    size: int | tuple[int, int] | None = None
    min_scale: float = 1.0
    padding: str = "reflection"

    def __post_init__(self) -> None:
        in_range("rotate", self.rotate, 0, 180)
        in_range("zoom_least", self.zoom_least, 0, 1, open_low=True)
        in_range("zoom", self.zoom, self.zoom_least, 10)
        in_range("min_scale", self.min_scale, 0, 1, open_low=True)
        for name in ("p_affine", "p_lighting"):
            in_range(name, cast(float, getattr(self, name)), 0, 1)
        for name in ("warp", "translate", "brightness", "contrast"):
            in_range(name, cast(float, getattr(self, name)), 0, 1, open_high=True)
        one_of("padding", self.padding, PADDINGS)
        if self.size is not None:
            as_size(self.size)
        elif self.min_scale < 1:
            raise ConfigError("min_scale below 1 needs size: the random part is cut to it")

    def crop(self) -> RandomCrop | None:
        """Returns the random crop to ``size``, or None where the presized pixels are kept."""
        if self.size is None:
            return None
        return RandomCrop(as_size(self.size), (self.min_scale, 1.0), (3 / 4, 4 / 3) if self.min_scale < 1 else (1, 1))

    def operations(self) -> list[ops.Operation]:
        found: list[ops.Operation] = []
        if self.flip:
            found.append(ops.FlipHorizontal())
        if self.flip_vertical:
            found.append(ops.FlipVertical())
        if self.rotate:
            found.append(ops.Rotate(p=self.p_affine, degrees=self.rotate))
        if self.zoom > 1 or self.zoom_least < 1:
            found.append(ops.Zoom(p=self.p_affine, least=self.zoom_least, greatest=self.zoom))
        if self.translate:
            found.append(ops.Translate(p=self.p_affine, share=self.translate))
        if self.warp:
            found.append(ops.Warp(p=self.p_affine, magnitude=self.warp))
        if self.brightness:
            found.append(ops.Brightness(p=self.p_lighting, change=self.brightness))
        if self.contrast:
            found.append(ops.Contrast(p=self.p_lighting, change=self.contrast))
        return found


@register("batch_transform", "mixup")
@dataclass(frozen=True)
class Mixup(BatchTransform):
    """Blends each sample and its target with another of the batch (Zhang et al. 2018).

    Args:
        alpha: Shape of the Beta distribution of the share; larger blends more.
    """

    alpha: float = 0.4

    def __post_init__(self) -> None:
        in_range("alpha", self.alpha, 0, 8, open_low=True)

    def operations(self) -> list[ops.Operation]:
        return [ops.Mix(alpha=self.alpha)]


@register("batch_transform", "normalize")
@dataclass(frozen=True)
class Normalize(BatchTransform):
    """Another normalisation than the image block's own.

    Args:
        mean: Mean of each channel (0 to 1).
        std: Deviation of each channel.

    Examples:
        >>> Normalize.from_stats(*imagenet_stats).mean[0]
        0.485
    """

    mean: tuple[float, ...] = field(default=imagenet_stats[0])
    std: tuple[float, ...] = field(default=imagenet_stats[1])

    def __post_init__(self) -> None:
        for value in self.std:
            in_range("std", value, 0, float("inf"), open_low=True)

    @classmethod
    def from_stats(cls, mean: tuple[float, ...], std: tuple[float, ...]) -> "Normalize":
        """Returns it from a pair such as ``imagenet_stats``."""
        return cls(tuple(mean), tuple(std))


def aug_transforms(
    mult: float = 1.0,
    do_flip: bool = True,
    flip_vert: bool = False,
    max_rotate: float = 10.0,
    max_zoom: float = 1.1,
    max_lighting: float = 0.2,
    max_warp: float = 0.2,
    *,
    p_affine: float = 0.75,
    p_lighting: float = 0.75,
    size: int | tuple[int, int] | None = None,
    min_scale: float = 1.0,
    pad_mode: str = "reflection",
) -> list[BatchTransform]:
    """Returns the book's default augmentation: flip, rotate, zoom, warp, brightness and contrast.

    Args:
        mult: Multiplies the strength of rotation, zoom, lighting and warp.
        do_flip: Mirror left and right.
        flip_vert: Mirror top and bottom too (satellite, microscope).
        max_rotate: Most degrees either way.
        max_zoom: Greatest enlargement.
        max_lighting: Most change of brightness and contrast.
        max_warp: Most perspective.
        p_affine: Probability of each geometric change but the flip.
        p_lighting: Probability of each change of light.
        size: Output pixels; None keeps the presized ones.
        min_scale: Below 1 with ``size``: a random part of at least this share of the area.
        pad_mode: ``reflection``, ``border`` or ``zeros``.

    Examples:
        >>> aug_transforms(mult=2)[0].rotate
        20.0
    """
    in_range("mult", mult, 0, float("inf"))
    in_range("max_rotate", max_rotate, 0, 180)
    in_range("max_zoom", max_zoom, 1, 10)
    in_range("max_lighting", max_lighting, 0, 1, open_high=True)
    in_range("max_warp", max_warp, 0, 1, open_high=True)
    return [
        Augment(
            flip=do_flip,
            flip_vertical=flip_vert,
            rotate=min(max_rotate * mult, 180.0),
            zoom=1 + (max_zoom - 1) * mult,
            warp=min(max_warp * mult, 0.95),
            brightness=min(max_lighting * mult, 0.95),
            contrast=min(max_lighting * mult, 0.95),
            p_affine=p_affine,
            p_lighting=p_lighting,
            size=size,
            min_scale=min_scale,
            padding=pad_mode,
        )
    ]
