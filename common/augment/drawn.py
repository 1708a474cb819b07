"""The parameters of a batch, what every target of a sample follows, and what the images become."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor


@dataclass(frozen=True)
class Drawn:
    """What happens to each image of a batch, in this order; None where nothing of the kind happens to any.

    Attributes:
        crop: float64 (B, k): the numbers of the crops, until the images' sizes are known and they join the matrix.
        matrix: float64 (B, 3, 3): from output to input positions in [-1, 1]; a place beyond the image is padded.
        field: float32 (B, 2, K, K): knots of the displacement (x, y) of output positions that comes before the matrix.
        blur: float32 (B,): deviation of a Gaussian in pixels; 0: none.
        sharpen: float32 (B,): how much of the difference to a blurred copy is added; 0: none.
        colour: float32 (B, 3, 4): red, green, blue in [0, 1] and 1 to new colours, cut to [0, 1].
        noise: float32 (B,): deviation of Gaussian noise on pixels in [0, 1], cut to [0, 1] again.
        salt_pepper: float32 (B,): share of the pixels that become black or white.
        word: int64 (B,): 32 random bits, from which the noise of each pixel follows.
        erase: int32 (B, 4): (top, left, bottom, right) in output pixels of what becomes the mean colour.
    """

    crop: Tensor | None = None
    matrix: Tensor | None = None
    field: Tensor | None = None
    blur: Tensor | None = None
    sharpen: Tensor | None = None
    colour: Tensor | None = None
    noise: Tensor | None = None
    salt_pepper: Tensor | None = None
    word: Tensor | None = None
    erase: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> "Drawn":
        """Returns the parameters with ``function`` applied to every tensor."""
        values = (cast("Tensor | None", getattr(self, f.name)) for f in fields(self))
        return Drawn(*(None if value is None else function(value) for value in values))

    def rows(self, chosen: slice | Tensor) -> "Drawn":
        """Returns the parameters of some samples."""
        return self.map(lambda tensor: tensor[chosen])

    @classmethod
    def joined(cls, parts: "Sequence[Drawn]") -> "Drawn":
        """Returns the parameters of several groups of samples, one after another."""
        columns = zip(*([getattr(part, f.name) for f in fields(cls)] for part in parts), strict=True)
        return cls(*(None if column[0] is None else torch.cat(cast("list[Any]", column)) for column in columns))

    @property
    def moves(self) -> bool:
        """Whether anything changes its place."""
        return self.matrix is not None or self.field is not None


@dataclass(frozen=True)
class Look:
    """What every image of a batch becomes.

    Attributes:
        size: (height, width) of the output in pixels.
        mean: Of each channel, subtracted from pixels in [0, 1].
        std: Of each channel, divided by.
        padding: What lies outside an image: ``reflection``, ``border`` or ``zeros``.
        taps: At how many places per side an output pixel looks where it spans two source pixels or more; at least 1.
        reach_px: How far blur and sharpen look around in pixels; 0 where there is neither.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    padding: str = "reflection"
    taps: int = 1
    reach_px: int = 0
