"""The geometric operations: each is one matrix per sample, the elastic one a displacement field.

Floor: augment; may import sources and below. Used by: its own room.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from common.augment.geometry import pair
from common.augment.operations import MOVES, Move, Operation, Support, entries
from common.blocks.item_transforms import RandomCrop


@dataclass(frozen=True)
class FlipHorizontal(Move):
    """Mirrors left and right."""

    p: float = 0.5
    name: ClassVar[str] = "flip_horizontal"
    label: ClassVar[str] = "flip, horizontal"

    def matrix(self, numbers: Tensor, size: tuple[int, int]) -> Tensor:
        one = numbers.new_ones(len(numbers))
        return entries((-one, 0, 0), (0, 1, 0), (0, 0, 1))


@dataclass(frozen=True)
class FlipVertical(Move):
    """Mirrors top and bottom."""

    p: float = 0.5
    name: ClassVar[str] = "flip_vertical"
    label: ClassVar[str] = "flip, vertical"

    def matrix(self, numbers: Tensor, size: tuple[int, int]) -> Tensor:
        one = numbers.new_ones(len(numbers))
        return entries((one, 0, 0), (0, -1, 0), (0, 0, 1))


@dataclass(frozen=True)
class Symmetry(Move):
    """Applies one of the eight symmetries of the square, or of the four of a rectangle, with equal probability."""

    name: ClassVar[str] = "symmetry"
    label: ClassVar[str] = "eight symmetries"
    draws: ClassVar[int] = 1

    def matrix(self, numbers: Tensor, size: tuple[int, int]) -> Tensor:
        which = torch.floor(numbers[:, 0] * 8)
        across = 1 - 2 * torch.remainder(which, 2)
        down = 1 - 2 * torch.remainder(torch.floor(which / 2), 2)
        turned = torch.floor(which / 4) if size[0] == size[1] else torch.zeros_like(which)
        upright = 1 - turned
        return entries((across * upright, across * turned, 0), (down * turned, down * upright, 0), (0, 0, 1))


@dataclass(frozen=True)
class Rotate(Move):
    """Rotates about the centre by up to ``degrees`` either way."""

    degrees: float = 10.0
    name: ClassVar[str] = "rotate"
    label: ClassVar[str] = "rotation"
    draws: ClassVar[int] = 1

    def matrix(self, numbers: Tensor, size: tuple[int, int]) -> Tensor:
        angle = (numbers[:, 0] * 2 - 1) * math.radians(self.degrees)
        cos, sin = torch.cos(angle), torch.sin(angle)
        ratio = size[1] / size[0]  # positions are in [-1, 1] on both axes: undo the aspect ratio, or it would shear
        return entries((cos, sin / ratio, 0), (-sin * ratio, cos, 0), (0, 0, 1))


@dataclass(frozen=True)
class Zoom(Move):
    """Magnifies by a factor between ``least`` and ``greatest`` about a random centre, within the image."""

    least: float = 1.0
    greatest: float = 1.1
    name: ClassVar[str] = "zoom"
    label: ClassVar[str] = "zoom"
    draws: ClassVar[int] = 3

    def matrix(self, numbers: Tensor, size: tuple[int, int]) -> Tensor:
        scale = 1 / (self.least + numbers[:, 0] * (self.greatest - self.least))
        room = 1 - scale
        return entries(
            (scale, 0, room * (numbers[:, 1] * 2 - 1)), (0, scale, room * (numbers[:, 2] * 2 - 1)), (0, 0, 1)
        )


@dataclass(frozen=True)
class Translate(Move):
    """Shifts by up to ``share`` of the width and height either way, in whole pixels, so that it alone does not blur."""

    share: float = 0.1
    name: ClassVar[str] = "translate"
    label: ClassVar[str] = "translation"
    draws: ClassVar[int] = 2

    def matrix(self, numbers: Tensor, size: tuple[int, int]) -> Tensor:
        pixels = pair(size[1], size[0], numbers)
        most = torch.round(self.share * pixels)
        move = (torch.floor(numbers * (2 * most + 1)) - most) * 2 / pixels
        one = torch.ones_like(move[:, 0])
        return entries((one, 0, move[:, 0]), (0, 1, move[:, 1]), (0, 0, 1))


@dataclass(frozen=True)
class Warp(Move):
    """Perspective, as of a camera turned sideways or up: an edge grows or shrinks by up to ``magnitude``."""

    magnitude: float = 0.2
    name: ClassVar[str] = "warp"
    label: ClassVar[str] = "perspective warp"
    draws: ClassVar[int] = 2

    def matrix(self, numbers: Tensor, size: tuple[int, int]) -> Tensor:
        tilt = (numbers * 2 - 1) * (self.magnitude / 2)
        one = torch.ones_like(tilt[:, 0])
        return entries((one, 0, 0), (0, 1, 0), (tilt[:, 0], tilt[:, 1], 1))


@dataclass(frozen=True)
class Crop(Move):
    """Crops a random area and aspect ratio of the source in training, the centre in evaluation."""

    crop: RandomCrop = field(default_factory=lambda: RandomCrop((224, 224), (0.35, 1.0), (3 / 4, 4 / 3)))
    second: bool = False
    name: ClassVar[str] = "crop"
    label: ClassVar[str] = "random resized crop"
    tries: ClassVar[int] = 4
    draws: ClassVar[int] = 2 * tries + 2

    @property
    def stream(self) -> str:
        """The crop of an `Augment` has its own random stream, next to that of an item transform's crop."""
        return "cut" if self.second else self.name

    def region(self, numbers: Tensor, sizes: Tensor) -> Tensor:
        """Returns (B, 3, 3), from the output to a random part in whole pixels; ``sizes`` (B, 2) are (height, width)."""
        aspect = sizes[:, 1].to(torch.float64) / sizes[:, 0].to(torch.float64)
        (low, high), (narrow, wide) = self.crop.scale, self.crop.ratio
        area = low + numbers[:, : self.tries] * (high - low)
        log_ratio = math.log(narrow) + numbers[:, self.tries : 2 * self.tries] * math.log(wide / narrow)
        shape = torch.exp(log_ratio) / aspect[:, None]
        width, height = torch.sqrt(area * shape), torch.sqrt(area / shape)
        fits = ((width <= 1) & (height <= 1)).to(torch.int64)
        first = torch.argmax(fits, dim=1, keepdim=True)  # the first try that fits, else try 0, clipped to the source
        width = width.gather(1, first)[:, 0].clamp(max=1)
        height = height.gather(1, first)[:, 0].clamp(max=1)
        return _whole(width, height, numbers[:, 2 * self.tries :], sizes)

    def centre(self, sizes: Tensor) -> Tensor:
        """Returns (B, 3, 3), from the output to the largest centred part of its aspect ratio, in whole pixels."""
        shape = (sizes[:, 1].to(torch.float64) / sizes[:, 0].to(torch.float64)) * (
            self.crop.size[0] / self.crop.size[1]
        )
        middle = torch.full_like(sizes, 0.5, dtype=torch.float64)
        return _whole((1 / shape).clamp(max=1), shape.clamp(max=1), middle, sizes)


def _whole(width: Tensor, height: Tensor, place: Tensor, sizes: Tensor) -> Tensor:
    """The matrix of a part of ``width`` x ``height`` (shares of the sides) at ``place`` in [0, 1], in whole pixels."""
    sides = sizes.to(torch.float64).flip(-1)
    cut = torch.stack([width, height], dim=1).mul(sides).round().clamp(min=1).minimum(sides)
    low = torch.floor((sides - cut) * place + 0.5)
    scale, centre = cut / sides, (2 * low + cut) / sides - 1
    return entries((scale[:, 0], 0, centre[:, 0]), (0, scale[:, 1], centre[:, 1]), (0, 0, 1))


@dataclass(frozen=True)
class Elastic(Operation):
    """Deforms the image by a smooth random field that moves each point by up to ``share`` of the width and height.

    A field of random displacements on ``cells + 3`` knots per side is interpolated by cubic B-splines (as in Rueckert
    et al. 1999, "free-form deformations") and added to the grid before the matrix; with ``4 * share * cells < 1`` it
    cannot fold, so that boxes and points have unique new positions.
    """

    share: float = 0.03
    cells: int = 4
    name: ClassVar[str] = "elastic"
    label: ClassVar[str] = "elastic"
    support: ClassVar[dict[str, Support]] = MOVES

    @property
    def knots(self) -> int:
        """The number of knots per side."""
        return self.cells + 3

    @property
    def numbers(self) -> int:
        return 2 * self.knots**2

    def field(self, numbers: Tensor) -> Tensor:
        """Returns displacements float64 (B, 2, knots, knots) as (x, y) of output positions in [-1, 1]."""
        return ((numbers * 2 - 1) * (2 * self.share)).reshape(-1, 2, self.knots, self.knots)
