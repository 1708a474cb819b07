"""The operations on the resampled image: blur, sharpen, noise and erasing.

Floor: augment; may import sources and below. Used by: its own room.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from common.augment.operations import PIXELS, Operation, Support, Texture

SHARPEN_SIGMA_PX = 1.0
"""The standard deviation of the Gaussian that sharpening subtracts (an unsharp mask)."""


@dataclass(frozen=True)
class Blur(Texture):
    """Blurs by a Gaussian of a standard deviation of up to ``sigma_px`` pixels."""

    sigma_px: float = 1.0
    name: ClassVar[str] = "blur"
    label: ClassVar[str] = "blur"
    draws: ClassVar[int] = 1

    def strength(self, numbers: Tensor) -> Tensor:
        return numbers[:, 0] * self.sigma_px


@dataclass(frozen=True)
class Sharpen(Texture):
    """Adds up to ``amount`` times the difference to a blurred copy (an unsharp mask)."""

    amount: float = 1.0
    name: ClassVar[str] = "sharpen"
    label: ClassVar[str] = "sharpen"
    draws: ClassVar[int] = 1

    def strength(self, numbers: Tensor) -> Tensor:
        return numbers[:, 0] * self.amount


@dataclass(frozen=True)
class Noise(Texture):
    """Adds Gaussian noise of a standard deviation of up to ``std`` (of pixels in [0, 1]), independent per channel."""

    std: float = 0.05
    name: ClassVar[str] = "noise"
    label: ClassVar[str] = "noise, Gaussian"
    draws: ClassVar[int] = 1

    def strength(self, numbers: Tensor) -> Tensor:
        return numbers[:, 0] * self.std


@dataclass(frozen=True)
class SaltPepper(Texture):
    """Makes up to ``share`` of the pixels black or white."""

    share: float = 0.02
    name: ClassVar[str] = "salt_pepper"
    label: ClassVar[str] = "noise, salt and pepper"
    draws: ClassVar[int] = 1

    def strength(self, numbers: Tensor) -> Tensor:
        return numbers[:, 0] * self.share


@dataclass(frozen=True)
class Erase(Operation):
    """Covers a rectangle of up to ``area`` of the image with the mean (Zhong et al. 2020, arXiv:1708.04896)."""

    p: float = 0.5
    area: float = 0.2
    least: float = 0.02
    ratio: float = 0.3
    name: ClassVar[str] = "erase"
    label: ClassVar[str] = "erasing (cutout)"
    draws: ClassVar[int] = 4
    support: ClassVar[dict[str, Support]] = PIXELS

    def box(self, numbers: Tensor, chosen: Tensor, size: tuple[int, int]) -> Tensor:
        """Returns int32 (B, 4) as (top, left, bottom, right) in output pixels; empty where not chosen."""
        least = min(self.least, self.area)
        area = (least + numbers[:, 0] * (self.area - least)) * (size[0] * size[1])
        shape = torch.exp((numbers[:, 1] * 2 - 1) * -math.log(self.ratio))
        found = rectangle(torch.sqrt(area * shape), torch.sqrt(area / shape), numbers[:, 2:], size)
        return found * chosen[:, None].to(torch.int32)


def rectangle(height: Tensor, width: Tensor, place: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns rectangles int32 (B, 4) as (top, left, bottom, right) in whole pixels, within the image.

    Args:
        height: float64 (B,): their heights in pixels.
        width: float64 (B,): their widths in pixels.
        place: float64 (B, 2) in [0, 1): their relative position among all possible ones.
        size: (height, width) of the image in pixels.
    """
    height, width = height.round().clamp(max=size[0]), width.round().clamp(max=size[1])
    top, left = torch.floor((size[0] - height + 1) * place[:, 0]), torch.floor((size[1] - width + 1) * place[:, 1])
    return torch.stack([top, left, top + height, left + width], dim=1).to(torch.int32)
