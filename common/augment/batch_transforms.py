"""The batch transforms that users give as a DataBlock's ``batch_tfms``, as plain data.

Floor: augment; may import sources and below. Used by: data, recipes.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from common.augment import colours, mosaic, moves, spectral, textures
from common.augment.mixing import Blend, Paste
from common.augment.operations import Operation
from common.blocks.item_transforms import RandomCrop, as_size, check_ratio
from common.blocks.spatial import imagenet_stats
from common.errors import ConfigError, in_range, one_of
from common.registry import register

PADDINGS = ("reflection", "border", "zeros")


class BatchTransform:
    """Base of the batch transforms."""

    registered_name: ClassVar[str]

    def operations(self) -> list[Operation]:
        """Returns its random operations, geometric ones in the order of application."""
        return []


@register("batch_transform", "augment")
@dataclass(frozen=True, kw_only=True)
class Augment(BatchTransform):
    """Random augmentation of a whole batch on the device: per-sample parameters, one resample for all operations.

    A strength of 0 (or False) leaves an operation out. Geometric operations are applied in the order below, then blur
    and sharpen, colours, noise and erasing; README.md in this folder lists what each does to masks, boxes and points.

    Args:
        flip: Mirror horizontally with probability one half.
        flip_vertical: Mirror vertically with probability one half.
        symmetries: Map to a random one of the eight symmetries of the square (of the four of a rectangle).
        rotate: Maximal rotation in degrees, either way.
        zoom: Maximal magnification, at least 1.
        zoom_least: Minimal magnification; below 1, padding is visible around the image.
        translate: Maximal shift, as a share of width and height.
        warp: Maximal perspective, in [0, 1).
        elastic: Maximal elastic displacement, as a share of width and height.
        elastic_cells: Cells of the elastic grid per side; ``4 * elastic * elastic_cells`` must stay below 1, or the
            field would fold.
        blur: Maximal standard deviation of a Gaussian blur, in pixels.
        sharpen: Maximal weight of the added difference to a blurred copy.
        brightness: Maximal change of brightness, in [0, 1).
        contrast: Maximal change of contrast, in [0, 1).
        saturation: Maximal change of saturation, in [0, 1).
        hue: Maximal rotation of the hue, as a share of the full circle, up to one half.
        grayscale: Probability of conversion to grey.
        noise: Maximal standard deviation of Gaussian noise, for pixels in [0, 1].
        salt_pepper: Maximal share of pixels made black or white.
        erase: Maximal share of the area covered by a rectangle of the mean colour.
        p_affine: Probability of each of rotate, zoom, translate, warp and elastic.
        p_lighting: Probability of each of brightness, contrast, saturation and hue.
        p_texture: Probability of each of blur, sharpen, noise and salt_pepper.
        p_erase: Probability of erasing.
        size: Output size in pixels (a number or (height, width)); None keeps the presized one.
        min_scale: Below 1 with ``size``: a random resized crop of at least this share of the area.
        max_scale: The largest share of the crop, in [min_scale, 1].
        ratio: Least and greatest width / height of a random crop.
        padding: The padding outside the image: ``reflection``, ``border`` or ``zeros``.
        min_visibility: The least share of a box that must remain in the image, else the box and its label are dropped.
        whole: In evaluation use the whole presized image, not a centre crop of ``size`` (segmenters train on crops and
            predict whole images).

    Raises:
        ConfigError: for a value outside its range, naming the parameter.

    Examples:
        >>> [op.name for op in Augment(flip=True, rotate=10).operations()]
        ['flip_horizontal', 'rotate']
    """

    flip: bool = False
    flip_vertical: bool = False
    symmetries: bool = False
    rotate: float = 0.0
    zoom: float = 1.0
    zoom_least: float = 1.0
    translate: float = 0.0
    warp: float = 0.0
    elastic: float = 0.0
    elastic_cells: int = 4
    blur: float = 0.0
    sharpen: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    noise: float = 0.0
    salt_pepper: float = 0.0
    erase: float = 0.0
    p_affine: float = 0.75
    p_lighting: float = 0.75
    p_texture: float = 0.5
    p_erase: float = 0.5
    size: int | tuple[int, int] | None = None
    min_scale: float = 1.0
    max_scale: float = 1.0
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    padding: str = "reflection"
    min_visibility: float = 0.1
    whole: bool = False

    def __post_init__(self) -> None:
        in_range("rotate", self.rotate, 0, 180)
        in_range("zoom_least", self.zoom_least, 0, 1, open_low=True)
        in_range("zoom", self.zoom, self.zoom_least, 10)
        in_range("min_scale", self.min_scale, 0, 1, open_low=True)
        in_range("max_scale", self.max_scale, self.min_scale, 1)
        for name in ("p_affine", "p_lighting", "p_texture", "p_erase", "grayscale", "salt_pepper", "noise", "erase"):
            in_range(name, getattr(self, name), 0, 1)
        for name in ("warp", "translate", "brightness", "contrast", "saturation", "min_visibility"):
            in_range(name, getattr(self, name), 0, 1, open_high=True)
        in_range("hue", self.hue, 0, 0.5)
        in_range("blur", self.blur, 0, 10)
        in_range("sharpen", self.sharpen, 0, 10)
        in_range("elastic_cells", self.elastic_cells, 1, 16)
        in_range("elastic", self.elastic, 0, 1 / (4 * self.elastic_cells), open_high=True)
        one_of("padding", self.padding, PADDINGS)
        check_ratio(self.ratio)
        if self.size is not None:
            as_size(self.size)
        elif self.min_scale < 1 or self.whole:
            raise ConfigError("min_scale below 1 and whole need size: the random part is cut to it")

    def crop(self) -> RandomCrop | None:
        """Returns the random crop to ``size``, or None where the presized pixels are kept."""
        if self.size is None:
            return None
        ratio = self.ratio if self.min_scale < 1 else (1.0, 1.0)
        return RandomCrop(as_size(self.size), (self.min_scale, self.max_scale), ratio)

    def operations(self) -> list[Operation]:
        affine, lighting, texture = self.p_affine, self.p_lighting, self.p_texture
        zooms = self.zoom > 1 or self.zoom_least < 1
        wanted: list[tuple[object, Operation]] = [
            (self.flip, moves.FlipHorizontal()),
            (self.flip_vertical, moves.FlipVertical()),
            (self.symmetries, moves.Symmetry()),
            (self.rotate, moves.Rotate(p=affine, degrees=self.rotate)),
            (zooms, moves.Zoom(p=affine, least=self.zoom_least, greatest=self.zoom)),
            (self.translate, moves.Translate(p=affine, share=self.translate)),
            (self.warp, moves.Warp(p=affine, magnitude=self.warp)),
            (self.elastic, moves.Elastic(p=affine, share=self.elastic, cells=self.elastic_cells)),
            (self.blur, textures.Blur(p=texture, sigma_px=self.blur)),
            (self.sharpen, textures.Sharpen(p=texture, amount=self.sharpen)),
            (self.brightness, colours.Brightness(p=lighting, change=self.brightness)),
            (self.contrast, colours.Contrast(p=lighting, change=self.contrast)),
            (self.saturation, colours.Saturation(p=lighting, change=self.saturation)),
            (self.hue, colours.Hue(p=lighting, turn=self.hue)),
            (self.grayscale, colours.Grayscale(p=self.grayscale)),
            (self.noise, textures.Noise(p=texture, std=self.noise)),
            (self.salt_pepper, textures.SaltPepper(p=texture, share=self.salt_pepper)),
            (self.erase, textures.Erase(p=self.p_erase, area=self.erase)),
        ]
        return [operation for strength, operation in wanted if strength]


@register("batch_transform", "mixup")
@dataclass(frozen=True)
class Mixup(BatchTransform):
    """Blends each sample and its target with another (Zhang et al. 2018): categories, numbers, masks and boxes.

    Args:
        alpha: Parameter of the Beta(alpha, alpha) distribution of the mixing share; larger blends more.
        p: Probability that a sample is blended.
    """

    alpha: float = 0.4
    p: float = 1.0

    def __post_init__(self) -> None:
        in_range("alpha", self.alpha, 0, 8, open_low=True)
        in_range("p", self.p, 0, 1)

    def operations(self) -> list[Operation]:
        return [Blend(p=self.p, alpha=self.alpha)]


@register("batch_transform", "cutmix")
@dataclass(frozen=True)
class CutMix(BatchTransform):
    """Pastes a piece of another image over each one, mixing targets in proportion (Yun et al. 2019).

    Together with `Mixup`, the one listed first is drawn first, and the other may change only the remaining samples.

    Args:
        alpha: Parameter of the Beta(alpha, alpha) distribution of the sample's own share; 1 is uniform.
        p: Probability that a sample is changed.
    """

    alpha: float = 1.0
    p: float = 0.5

    def __post_init__(self) -> None:
        in_range("alpha", self.alpha, 0, 8, open_low=True)
        in_range("p", self.p, 0, 1)

    def operations(self) -> list[Operation]:
        return [Paste(p=self.p, alpha=self.alpha)]


@register("batch_transform", "mosaic")
@dataclass(frozen=True)
class Mosaic(BatchTransform):
    """Combines parts of four images around a random corner, with masks and boxes (Bochkovskiy et al. 2020).

    Mainly for detection: objects appear in other contexts, cut by edges, and more of them per image. Each part has the
    scale of its image after the rest of the augmentation (``zoom`` and ``zoom_least`` of `Augment`).

    Args:
        p: Probability that a sample is changed.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        in_range("p", self.p, 0, 1)

    def operations(self) -> list[Operation]:
        return [mosaic.Mosaic(p=self.p)]


@register("batch_transform", "spec_augment")
@dataclass(frozen=True, kw_only=True)
class SpecAugment(BatchTransform):
    """Random changes of spectrograms in decibels (Park et al. 2019, arXiv:1904.08779).

    Args:
        time_mask: Maximal share of the length that one time mask covers, in [0, 1].
        time_masks: The number of time masks.
        frequency_mask: Maximal share of the frequencies that one frequency mask covers, in [0, 1].
        frequency_masks: The number of frequency masks.
        shift: Maximal shift in time either way, as a share of the length, in [0, 1].
        gain: Maximal gain in decibels, either way.
        p: Probability of each operation.
    """

    time_mask: float = 0.1
    time_masks: int = 2
    frequency_mask: float = 0.15
    frequency_masks: int = 2
    shift: float = 0.0
    gain: float = 0.0
    p: float = 1.0

    def __post_init__(self) -> None:
        for name in ("time_mask", "frequency_mask", "shift", "p"):
            in_range(name, getattr(self, name), 0, 1)
        for name in ("time_masks", "frequency_masks"):
            in_range(name, getattr(self, name), 0, 64)
        in_range("gain", self.gain, 0, 100)

    def operations(self) -> list[Operation]:
        wanted: list[tuple[object, Operation]] = [
            (self.shift, spectral.TimeShift(p=self.p, share=self.shift)),
            (self.gain, spectral.Gain(p=self.p, decibels=self.gain)),
            (
                self.time_mask and self.time_masks,
                spectral.TimeMask(p=self.p, share=self.time_mask, bands=self.time_masks),
            ),
            (
                self.frequency_mask and self.frequency_masks,
                spectral.FrequencyMask(p=self.p, share=self.frequency_mask, bands=self.frequency_masks),
            ),
        ]
        return [operation for strength, operation in wanted if strength]


@register("batch_transform", "normalize")
@dataclass(frozen=True)
class Normalize(BatchTransform):
    """Replaces the image block's own normalisation.

    Args:
        mean: Mean of each channel (0 to 1).
        std: Standard deviation of each channel.

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
        do_flip: Mirror horizontally.
        flip_vert: Mirror vertically too (satellite, microscope).
        max_rotate: Maximal rotation in degrees, either way.
        max_zoom: Maximal magnification.
        max_lighting: Maximal change of brightness and contrast.
        max_warp: Maximal perspective.
        p_affine: Probability of each geometric change except the flip.
        p_lighting: Probability of each change of brightness and contrast.
        size: Output size in pixels; None keeps the presized one.
        min_scale: Below 1 with ``size``: a random resized crop of at least this share of the area.
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
