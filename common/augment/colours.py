"""The operations on colours: each is a 3x4 matrix per sample, so that those of a pipeline compose to one.

Floor: augment; may import sources and below. Used by: its own room.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from common.augment.operations import Colour, entries

LUMA = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in a pixel's luma (ITU-R BT.601), as in Pillow's and OpenCV's grey."""

QUARTER_TURN = (
    (0.16773971, 0.32930952, -0.49704924),
    (-0.32811313, 0.03546699, 0.29264614),
    (1.24954590, -1.04633920, -0.20320670),
)
"""The generator of hue rotations: YIQ's inverse times (0, 0, 0; 0, 0, -1; 0, 1, 0) times YIQ."""


def chain(first: Tensor, then: Tensor) -> Tensor:
    """Returns ``then`` after ``first``, (B, 3, 4) each.

    Written out, since a batched matrix product may round differently with the batch size.
    """
    columns = [
        then[:, :, 0] * first[:, 0, j, None]
        + then[:, :, 1] * first[:, 1, j, None]
        + then[:, :, 2] * first[:, 2, j, None]
        for j in range(4)
    ]
    columns[3] = columns[3] + then[:, :, 3]
    return torch.stack(columns, dim=2)


def _scaled(factor: Tensor, offset: Tensor) -> Tensor:
    return entries((factor, 0, 0, offset), (0, factor, 0, offset), (0, 0, factor, offset))


def _saturated(factor: Tensor) -> Tensor:
    """Scales each pixel's difference to its own grey: 0 gives grey, 1 the pixel itself, more a stronger colour."""
    rest = 1 - factor
    r, g, b = (rest * share for share in LUMA)
    return entries((r + factor, g, b, 0), (r, g + factor, b, 0), (r, g, b + factor, 0))


@dataclass(frozen=True)
class Brightness(Colour):
    """Multiplies the brightness by a factor in [1 - change, 1 + change]."""

    change: float = 0.2
    name: ClassVar[str] = "brightness"
    label: ClassVar[str] = "brightness"
    draws: ClassVar[int] = 1

    def colour(self, numbers: Tensor) -> Tensor:
        factor = 1 + (numbers[:, 0] * 2 - 1) * self.change
        return _scaled(factor, torch.zeros_like(factor))


@dataclass(frozen=True)
class Contrast(Colour):
    """Scales contrast about the middle grey by a log-uniform factor in [1 - change, 1 / (1 - change)]."""

    change: float = 0.2
    name: ClassVar[str] = "contrast"
    label: ClassVar[str] = "contrast"
    draws: ClassVar[int] = 1

    def colour(self, numbers: Tensor) -> Tensor:
        factor = torch.exp((numbers[:, 0] * 2 - 1) * -math.log(1 - self.change))
        return _scaled(factor, 0.5 * (1 - factor))


@dataclass(frozen=True)
class Saturation(Colour):
    """Scales the saturation by a log-uniform factor in [1 - change, 1 / (1 - change)]."""

    change: float = 0.2
    name: ClassVar[str] = "saturation"
    label: ClassVar[str] = "colour jitter: saturation"
    draws: ClassVar[int] = 1

    def colour(self, numbers: Tensor) -> Tensor:
        return _saturated(torch.exp((numbers[:, 0] * 2 - 1) * -math.log(1 - self.change)))


@dataclass(frozen=True)
class Hue(Colour):
    """Rotates colours about the grey axis by up to ``turn`` of a full circle either way; the luma is unchanged.

    A rotation of the chrominance plane of YIQ, which is linear (as SVG's hueRotate), not the hue of HSV.
    """

    turn: float = 0.05
    name: ClassVar[str] = "hue"
    label: ClassVar[str] = "colour jitter: hue"
    draws: ClassVar[int] = 1

    def colour(self, numbers: Tensor) -> Tensor:
        angle = (numbers[:, 0] * 2 - 1) * (2 * math.pi * self.turn)
        cos, sin = torch.cos(angle), torch.sin(angle)
        rows = [
            (*(luma + cos * (float(r == c) - luma) + sin * QUARTER_TURN[r][c] for c, luma in enumerate(LUMA)), 0)
            for r in range(3)
        ]
        return entries(*rows)


@dataclass(frozen=True)
class Grayscale(Colour):
    """Converts the image to grey."""

    p: float = 0.1
    name: ClassVar[str] = "grayscale"
    label: ClassVar[str] = "grayscale"

    def colour(self, numbers: Tensor) -> Tensor:
        return _saturated(numbers.new_zeros(len(numbers)))
