"""The operations of the augmentation engine, each with what it needs, what it does and which targets it supports.

Geometric operations give a 3x3 matrix a sample that maps *output* positions to *input* positions, both in [-1, 1] from
edge to edge of their image, x to the right and y down; so a pipeline is one product and one resample. Tone operations
give a factor and an offset a sample on pixels in [0, 1].
"""

import math
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from common.augment.geometry import pair
from common.counter import AUGMENT_STREAM, key, uniform
from common.data.blocks import Counter, Target
from common.data.transforms import RandomCrop

Support = Literal["transforms", "invariant", "unsupported"]
TARGETS: tuple[str, ...] = get_args(Target)


def _support(**given: Support) -> dict[str, Support]:
    """Every target is declared: those not named here are invariant (a label does not move with its photo)."""
    return {target: given.get(target, "invariant") for target in TARGETS}


GEOMETRIC = _support(
    image="transforms",
    mask="transforms",
    boxes="transforms",
    points="transforms",
    signal="unsupported",
    text="invariant",
    columns="invariant",
)
TONE = _support(image="transforms", signal="unsupported")


@cache
def _stream(name: str) -> int:
    """The stream of numbers of an operation, by its name."""
    return AUGMENT_STREAM + (key(*name.encode()) & 0xFFFF_FFFF)


@dataclass(frozen=True)
class Operation:
    """One random operation.

    Attributes:
        p: The probability that a sample is changed.
    """

    p: float = 1.0
    name: ClassVar[str]
    numbers: ClassVar[int]
    support: ClassVar[dict[str, Support]]

    @property
    def stream(self) -> str:
        """The name of the operation's own stream of numbers."""
        return self.name

    def draw(self, ids: Tensor, counter: Counter) -> tuple[Tensor, Tensor]:
        """Returns the operation's uniform numbers (B, numbers) and who is changed (B,) bool: a function of the ids."""
        drawn = uniform(counter.seed, counter.epoch, ids, _stream(self.stream), self.numbers + 1)
        return drawn[:, 1:], drawn[:, 0] < self.p


class Geometric(Operation):
    """An operation that moves pixels."""

    support: ClassVar[dict[str, Support]] = GEOMETRIC

    def matrix(self, numbers: Tensor, size: tuple[int, int]) -> Tensor:
        """Returns float64 (B, 3, 3) from uniform numbers (B, k); ``size`` is the output's (height, width)."""
        raise NotImplementedError


class Tone(Operation):
    """An operation that changes pixel values one by one."""

    support: ClassVar[dict[str, Support]] = TONE

    def tone(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Returns factor and offset, float64 (B,) each, on pixels in [0, 1]."""
        raise NotImplementedError


def rows(*entries: tuple[Tensor | float, Tensor | float, Tensor | float]) -> Tensor:
    """Returns (B, 3, 3) from three rows of numbers or (B,) tensors."""
    tensors = [e for row in entries for e in row if isinstance(e, Tensor)]
    shape, device = tensors[0].shape, tensors[0].device
    flat = [
        e if isinstance(e, Tensor) else torch.full(shape, float(e), dtype=torch.float64, device=device)
        for row in entries
        for e in row
    ]
    return torch.stack(flat, dim=-1).reshape(*shape, 3, 3)


@dataclass(frozen=True)
class FlipHorizontal(Geometric):
    """Left and right change places."""

    p: float = 0.5
    name: ClassVar[str] = "flip_horizontal"
    numbers: ClassVar[int] = 0

    def matrix(self, numbers: Tensor, size: tuple[int, int]) -> Tensor:
        one = numbers.new_ones(len(numbers), dtype=torch.float64)
        return rows((-one, 0, 0), (0, 1, 0), (0, 0, 1))


@dataclass(frozen=True)
class FlipVertical(Geometric):
    """Top and bottom change places."""

    p: float = 0.5
    name: ClassVar[str] = "flip_vertical"
    numbers: ClassVar[int] = 0

    def matrix(self, numbers: Tensor, size: tuple[int, int]) -> Tensor:
        one = numbers.new_ones(len(numbers), dtype=torch.float64)
        return rows((one, 0, 0), (0, -1, 0), (0, 0, 1))


@dataclass(frozen=True)
class Rotate(Geometric):
    """Turns about the centre by up to ``degrees`` either way."""

    degrees: float = 10.0
    name: ClassVar[str] = "rotate"
    numbers: ClassVar[int] = 1

    def matrix(self, numbers: Tensor, size: tuple[int, int]) -> Tensor:
        angle = (numbers[:, 0] * 2 - 1) * math.radians(self.degrees)
        cos, sin = torch.cos(angle), torch.sin(angle)
        ratio = size[1] / size[0]
        return rows((cos, sin / ratio, 0), (-sin * ratio, cos, 0), (0, 0, 1))


@dataclass(frozen=True)
class Zoom(Geometric):
    """Enlarges by a factor between ``least`` and ``greatest`` about a random place, within the image."""

    least: float = 1.0
    greatest: float = 1.1
    name: ClassVar[str] = "zoom"
    numbers: ClassVar[int] = 3

    def matrix(self, numbers: Tensor, size: tuple[int, int]) -> Tensor:
        scale = 1 / (self.least + numbers[:, 0] * (self.greatest - self.least))
        room = 1 - scale
        return rows((scale, 0, room * (numbers[:, 1] * 2 - 1)), (0, scale, room * (numbers[:, 2] * 2 - 1)), (0, 0, 1))


@dataclass(frozen=True)
class Translate(Geometric):
    """Moves by up to ``share`` of the width and height either way, in whole pixels, so that it alone does not blur."""

    share: float = 0.1
    name: ClassVar[str] = "translate"
    numbers: ClassVar[int] = 2

    def matrix(self, numbers: Tensor, size: tuple[int, int]) -> Tensor:
        pixels = pair(size[1], size[0], numbers)
        most = torch.round(self.share * pixels)
        move = (torch.floor(numbers * (2 * most + 1)) - most) * 2 / pixels
        one = torch.ones_like(move[:, 0])
        return rows((one, 0, move[:, 0]), (0, 1, move[:, 1]), (0, 0, 1))


@dataclass(frozen=True)
class Warp(Geometric):
    """Perspective, as of a camera turned sideways or up: an edge grows or shrinks by up to ``magnitude``."""

    magnitude: float = 0.2
    name: ClassVar[str] = "warp"
    numbers: ClassVar[int] = 2

    def matrix(self, numbers: Tensor, size: tuple[int, int]) -> Tensor:
        tilt = (numbers * 2 - 1) * (self.magnitude / 2)
        one = torch.ones_like(tilt[:, 0])
        return rows((one, 0, 0), (0, 1, 0), (tilt[:, 0], tilt[:, 1], 1))


@dataclass(frozen=True)
class Brightness(Tone):
    """Multiplies the light by a factor in [1 - change, 1 + change]."""

    change: float = 0.2
    name: ClassVar[str] = "brightness"
    numbers: ClassVar[int] = 1

    def tone(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        factor = 1 + (numbers[:, 0] * 2 - 1) * self.change
        return factor, torch.zeros_like(factor)


@dataclass(frozen=True)
class Contrast(Tone):
    """Stretches pixels about the middle grey by a factor in [1 - change, 1 / (1 - change)], even in its logarithm."""

    change: float = 0.2
    name: ClassVar[str] = "contrast"
    numbers: ClassVar[int] = 1

    def tone(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        factor = torch.exp((numbers[:, 0] * 2 - 1) * -math.log(1 - self.change))
        return factor, 0.5 * (1 - factor)


@dataclass(frozen=True)
class Crop(Geometric):
    """A random area and shape of the source, in the source's own proportions; its centre in evaluation."""

    crop: RandomCrop = field(default_factory=lambda: RandomCrop((224, 224), (0.35, 1.0), (3 / 4, 4 / 3)))
    second: bool = False
    name: ClassVar[str] = "crop"
    tries: ClassVar[int] = 4
    numbers: ClassVar[int] = 2 * tries + 2

    @property
    def stream(self) -> str:
        """The crop of an `Augment` draws numbers of its own beside an item transform's."""
        return "cut" if self.second else self.name

    def region(self, numbers: Tensor, sizes: Tensor) -> Tensor:
        """Returns (B, 3, 3): the output to a random part in whole pixels; ``sizes`` (B, 2) are heights and widths."""
        aspect = sizes[:, 1].to(torch.float64) / sizes[:, 0].to(torch.float64)
        (low, high), (narrow, wide) = self.crop.scale, self.crop.ratio
        area = low + numbers[:, : self.tries] * (high - low)
        log_ratio = math.log(narrow) + numbers[:, self.tries : 2 * self.tries] * math.log(wide / narrow)
        shape = torch.exp(log_ratio) / aspect[:, None]
        width, height = torch.sqrt(area * shape), torch.sqrt(area / shape)
        fits = ((width <= 1) & (height <= 1)).to(torch.int64)
        first = torch.argmax(fits, dim=1, keepdim=True)  # the first try that fits, else the first, cut to the source
        width = width.gather(1, first)[:, 0].clamp(max=1)
        height = height.gather(1, first)[:, 0].clamp(max=1)
        return _whole(width, height, numbers[:, 2 * self.tries :], sizes)

    def centre(self, sizes: Tensor) -> Tensor:
        """Returns (B, 3, 3): the output to the largest centred part of its own shape, in whole pixels."""
        shape = (sizes[:, 1].to(torch.float64) / sizes[:, 0].to(torch.float64)) * (
            self.crop.size[0] / self.crop.size[1]
        )
        middle = torch.full_like(sizes, 0.5, dtype=torch.float64)
        return _whole((1 / shape).clamp(max=1), shape.clamp(max=1), middle, sizes)


def _whole(width: Tensor, height: Tensor, place: Tensor, sizes: Tensor) -> Tensor:
    """The part of ``width`` x ``height`` (shares of each side) at ``place`` (0 to 1 of the room), in whole pixels."""
    sides = sizes.to(torch.float64).flip(-1)
    cut = torch.stack([width, height], dim=1).mul(sides).round().clamp(min=1).minimum(sides)
    low = torch.floor((sides - cut) * place + 0.5)
    scale, centre = cut / sides, (2 * low + cut) / sides - 1
    return rows((scale[:, 0], 0, centre[:, 0]), (0, scale[:, 1], centre[:, 1]), (0, 0, 1))


@dataclass(frozen=True)
class Mix(Operation):
    """Blends each sample with its neighbour in the batch; see `common.augment.mixing`."""

    alpha: float = 0.4
    name: ClassVar[str] = "mixup"
    tries: ClassVar[int] = 16
    numbers: ClassVar[int] = 2 * tries
    support: ClassVar[dict[str, Support]] = _support(
        image="transforms",
        signal="transforms",
        category="transforms",
        number="transforms",
        mask="unsupported",
        boxes="unsupported",
        points="unsupported",
        text="unsupported",
        columns="unsupported",
    )
