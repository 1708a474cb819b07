"""The contract of an augmentation operation: its random numbers, and what it does to each kind of target.

The operations themselves: `moves` (geometry), `colours`, `textures` (blur, noise, erasing), `mixing` and `spectral`.

Floor: augment; may import sources and below. Used by: its own room.
"""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal

import torch
from torch import Tensor

from common.blocks.block import EpochSeed, Target
from common.counter import AUGMENT_STREAM, key, uniform

Support = Literal["transforms", "invariant", "unsupported"]
TARGETS: tuple[str, ...] = tuple(Target)


def support(**given: Support) -> dict[str, Support]:
    """Returns the support for every kind of target: those not named are invariant (a photo's label does not move)."""
    return {target: given.get(target, "invariant") for target in TARGETS}


MOVES = support(
    image="transforms",
    mask="transforms",
    boxes="transforms",
    points="transforms",
    signal="unsupported",
    spectrogram="unsupported",
)
PIXELS = support(image="transforms", signal="unsupported", spectrogram="unsupported")


@cache
def stream(name: str) -> int:
    """Returns the number of an operation's own random stream, by its name."""
    return AUGMENT_STREAM + (key(*name.encode()) & 0xFFFF_FFFF)


@dataclass(frozen=True)
class Operation:
    """One random operation.

    Attributes:
        p: The probability that a sample is changed.
    """

    p: float = 1.0
    name: ClassVar[str]
    label: ClassVar[str]
    support: ClassVar[dict[str, Support]]
    draws: ClassVar[int] = 0

    @property
    def numbers(self) -> int:
        """How many uniform numbers a sample needs, besides the one that decides whether it is changed."""
        return self.draws

    @property
    def stream(self) -> str:
        """The name of the operation's own random stream."""
        return self.name

    def draw(self, ids: Tensor, epoch_seed: EpochSeed) -> tuple[Tensor, Tensor]:
        """Returns the uniform numbers (B, numbers) and which samples are changed (B,) bool: a function of the ids."""
        drawn = uniform(epoch_seed.seed, epoch_seed.epoch, ids, stream(self.stream), self.numbers + 1)
        return drawn[:, 1:], drawn[:, 0] < self.p


class Move(Operation):
    """An operation that moves pixels, and with them masks, boxes and points."""

    support: ClassVar[dict[str, Support]] = MOVES

    def matrix(self, numbers: Tensor, size: tuple[int, int]) -> Tensor:
        """Returns float64 (B, 3, 3) from uniform numbers (B, k); ``size`` is the output's (height, width).

        It maps *output* positions to *input* positions, both in [-1, 1] from edge to edge of their image, x to the
        right and y down; so a whole pipeline is one product of matrices and one resample.
        """
        raise NotImplementedError


class Colour(Operation):
    """An operation that changes each pixel's colour by a linear map."""

    support: ClassVar[dict[str, Support]] = PIXELS

    def colour(self, numbers: Tensor) -> Tensor:
        """Returns float64 (B, 3, 4) from uniform numbers (B, k): red, green, blue in [0, 1] and 1 to new colours."""
        raise NotImplementedError


class Texture(Operation):
    """An operation on the resampled image with one strength per sample: blur, sharpen, noise."""

    support: ClassVar[dict[str, Support]] = PIXELS

    def strength(self, numbers: Tensor) -> Tensor:
        """Returns float64 (B,) from uniform numbers (B, k); 0 changes nothing."""
        raise NotImplementedError


def entries(*rows: tuple[Tensor | float, ...]) -> Tensor:
    """Returns matrices (B, rows, columns) from rows of numbers or (B,) tensors, at least one of them a tensor."""
    flat = [entry for row in rows for entry in row]
    like = next(entry for entry in flat if isinstance(entry, Tensor))
    made = [e if isinstance(e, Tensor) else like.new_full(like.shape, float(e)) for e in flat]
    return torch.stack(made, dim=-1).reshape(*like.shape, len(rows), -1)
