"""The augmentation parameters of a batch, which all targets of a sample follow, and the format of its output.

Floor: augment; may import sources and below. Used by: data.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Drawn:
    """The operations on each image of a batch, in this order; None where an operation applies to no image.

    Attributes:
        crop: float64 (B, k): the crops' random numbers, until the images' sizes are known and they join the matrix.
        matrix: float64 (B, 3, 3): maps output to input positions, both in [-1, 1]; positions outside are padded.
        field: float32 (B, 2, K, K): spline knots of the displacement (x, y) of output positions, added before the
            matrix.
        blur: float32 (B,): standard deviation of a Gaussian in pixels; 0: none.
        sharpen: float32 (B,): weight of the added difference to a blurred copy; 0: none.
        colour: float32 (B, 3, 4): maps (red, green, blue, 1) in [0, 1] to new colours, clamped to [0, 1].
        noise: float32 (B,): standard deviation of Gaussian noise on pixels in [0, 1], clamped to [0, 1] again.
        salt_pepper: float32 (B,): share of the pixels that become black or white.
        word: int64 (B,): 32 random bits that determine the noise of every pixel.
        erase: int32 (B, 4): (top, left, bottom, right) in output pixels of the rectangle filled with the mean colour.
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
        values = (getattr(self, f.name) for f in fields(self))
        return Drawn(*(None if value is None else function(value) for value in values))

    def rows(self, chosen: slice | Tensor) -> "Drawn":
        """Returns the parameters of some samples."""
        return self.map(lambda tensor: tensor[chosen])

    @classmethod
    def joined(cls, parts: "Sequence[Drawn]") -> "Drawn":
        """Returns the concatenated parameters of several groups of samples."""
        columns = zip(*([getattr(part, f.name) for f in fields(cls)] for part in parts), strict=True)
        return cls(*(None if column[0] is None else torch.cat(column) for column in columns))

    @property
    def moves(self) -> bool:
        """Whether there is a geometric change."""
        return self.matrix is not None or self.field is not None


@dataclass(frozen=True)
class Look:
    """The output format of the images of a batch.

    Attributes:
        size: (height, width) of the output in pixels.
        mean: The mean of each channel, subtracted from pixels in [0, 1].
        std: The standard deviation of each channel, divided by.
        padding: The padding outside an image: ``reflection``, ``border`` or ``zeros``.
        taps: Samples per side of an output pixel that spans two source pixels or more (antialiasing); at least 1.
        reach_px: The radius of the blur and sharpen filters in pixels; 0 without them.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    padding: str = "reflection"
    taps: int = 1
    reach_px: int = 0
