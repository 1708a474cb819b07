"""The frame that whole images are resized to, from the option ``size`` and the images' shapes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.sources.source import Source

ALIKE = 1.3  # images are squeezed into one shape if their largest aspect ratio is at most this times the smallest
LOOKED_AT = 50


def size_of(name: str, text: str | None) -> tuple[int, int] | None:
    """Returns (height, width) from ``N`` or ``HEIGHTxWIDTH``, or None.

    Args:
        name: The option's name, for errors.
        text: The typed text.

    Raises:
        ConfigError: unless it is such a size, each side from 16 to 4096 pixels.

    Examples:
        >>> size_of("size", "360x480"), size_of("size", "128")
        ((360, 480), (128, 128))
    """
    from common.errors import ConfigError, in_range

    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.strip().isdigit() for side in sides):
        raise ConfigError(f"{name} must be a number of pixels or HEIGHTxWIDTH such as 360x480, got {text!r}")
    height, width = int(sides[0]), int(sides[-1])
    for side in (height, width):
        in_range(name, side, 16, 4096)
    return height, width


def frame_of(asked: str | None, source: "Source", most_px: int) -> tuple[tuple[int, int], str]:
    """Returns the frame's size and the resize method: images of similar shape are squeezed into it, others padded.

    Args:
        asked: ``N`` or ``HEIGHTxWIDTH``; None: the images' median size, scaled down to ``most_px``.
        source: The images.
        most_px: The most pixels of a frame whose size is not given.
    """
    import numpy as np

    from common.data import ImageBlock
    from common.errors import DataError

    block, sizes = ImageBlock(), list[tuple[int, int]]()
    for i in range(0, len(source.items), max(1, len(source.items) // LOOKED_AT)):
        try:
            sizes.append(block.extent(block.open(source.get_x(source.items[i]))))
        except DataError:  # loading it will report the error with the item's name
            continue
    heights, widths = np.array(sizes or [(256, 256)], dtype=float).T
    shapes = widths / heights
    alike = bool(shapes.max() / shapes.min() <= ALIKE)
    height, width = float(np.median(heights)), float(np.median(widths))
    if not alike:
        height = width = (height * width) ** 0.5
    scale = min(1.0, (most_px / (height * width)) ** 0.5)
    found = size_of("size", asked) or (max(16, round(height * scale)), max(16, round(width * scale)))
    near = abs(found[1] / found[0] / float(np.median(shapes)) - 1) < ALIKE - 1
    return found, "squish" if alike and near else "pad"
