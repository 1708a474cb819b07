"""Overlapping windows over an image that is larger than a model's input: their positions and pixels.

Floor: vision; may import train and below. Used by: applications.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from common.blocks.item_transforms import as_size
from common.blocks.spatial import ImageBlock
from common.deploy.predictor import Predictor
from common.errors import ConfigError, in_range


@dataclass(frozen=True)
class Windows:
    """An image cut into overlapping pieces.

    Attributes:
        size: (height, width) of the image in pixels.
        corners: (y, x) of each piece in the image, in pixels.
        pieces: uint8 arrays (h, w, C), or (h, w) of a grey image, as a predictor takes them.
    """

    size: tuple[int, int]
    corners: list[tuple[int, int]]
    pieces: list[np.ndarray]


def starts(side: int, window: int, overlap: float) -> list[int]:
    """Returns the starts of windows along a side: evenly spaced, the first and the last at its ends.

    Args:
        side: The image's side in pixels.
        window: The window's side in pixels.
        overlap: The least share of a window that overlaps with the next one.

    Examples:
        >>> starts(100, 40, 0.25), starts(30, 40, 0.25)
        ([0, 30, 60], [0])
    """
    if side <= window:
        return [0]
    step = max(1, int(window * (1 - overlap)))
    count = -(-(side - window) // step) + 1
    return [round(i * (side - window) / (count - 1)) for i in range(count)]


def windows_of(
    predictor: Predictor, image: Any, window_px: int | tuple[int, int] | None = None, overlap: float = 0.25
) -> Windows:
    """Returns an image cut into pieces at its own resolution; an image no larger than a window is one piece.

    Args:
        predictor: The predictor whose image block reads the image; its input size is the default window size.
        image: A path, bytes, a PIL image or an array.
        window_px: The windows' size in pixels, one number for a square or (height, width).
        overlap: The least share of a window that overlaps with the next one, in [0, 1).

    Raises:
        ConfigError: if the predictor takes no image, or a number is out of its range.
    """
    block = predictor.encoder.image_block
    if not isinstance(block, ImageBlock):
        raise ConfigError("windows need a predictor that takes an image")
    in_range("overlap", overlap, 0, 1, open_high=True)
    pixels = block.encode(image).numpy()
    size = (pixels.shape[0], pixels.shape[1])
    own = predictor.pipeline.evaluation.out_size(predictor.encoder.view(size).size)
    window = own if window_px is None else as_size(window_px)
    rows, columns = (starts(side, least, overlap) for side, least in zip(size, window, strict=True))
    corners = [(y, x) for y in rows for x in columns]
    shown = pixels[:, :, 0] if block.channels == 1 else pixels
    pieces = [np.ascontiguousarray(shown[y : y + window[0], x : x + window[1]]) for y, x in corners]
    return Windows(size, corners, pieces)
