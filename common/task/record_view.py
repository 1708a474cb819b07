"""A prediction as plain data for a web page to draw: one schema for every task, next to the matplotlib pictures.

Floor: task; may import data and below. Used by: applications.
"""

from dataclasses import dataclass
from typing import Any

from common.spec import to_spec

MOST_BARS = 10


@dataclass(frozen=True, kw_only=True)
class ViewBox:
    """A detected object in an image.

    Attributes:
        label: Its class.
        score: Its confidence, in [0, 1].
        bbox: (x, y, width, height) in pixels of the source image.
        color: Of its class, ``#rrggbb``.
        runs: Its mask as run lengths in column-major order, background and foreground alternating, background first
            (COCO's uncompressed ``counts``); empty without a mask.
    """

    label: str
    score: float
    bbox: tuple[float, float, float, float]
    color: str
    runs: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LegendEntry:
    """A class that an image shows.

    Attributes:
        label: The class.
        share: Its share of the pixels, in [0, 1].
        color: Its colour, ``#rrggbb``.
    """

    label: str
    share: float
    color: str


@dataclass(frozen=True, kw_only=True)
class RecordView:
    """A prediction as a page draws it; what a task does not have is None or empty.

    Attributes:
        title: The prediction in a few words.
        bars: Labels and their probabilities or shares in [0, 1], largest first.
        size: (height, width) in pixels of the source image that ``boxes`` and ``png`` refer to.
        boxes: Detected objects, most confident first.
        png: The class of each pixel: a palette PNG in base64, its palette the colours of ``legend``.
        legend: The classes in ``png``, by their ids.
        value: The predicted number, or the row of numbers.
        interval: The prediction interval of the value, (low, high).
    """

    title: str
    bars: tuple[tuple[str, float], ...] = ()
    size: tuple[int, int] | None = None
    boxes: tuple[ViewBox, ...] = ()
    png: str = ""
    legend: tuple[LegendEntry, ...] = ()
    value: float | tuple[float, ...] | None = None
    interval: tuple[float, float] | None = None

    def plain(self) -> dict[str, Any]:
        """Returns it as plain data that JSON can hold: every attribute by its name, tuples as lists."""
        return to_spec(self)


def hex_colors(colors: Any) -> list[str]:
    """Returns colours as ``#rrggbb``.

    Args:
        colors: Rows of red, green and blue in [0, 1].

    Examples:
        >>> hex_colors([(1.0, 0.5, 0.0)])
        ['#ff8000']
    """
    return ["#" + "".join(f"{round(float(part) * 255):02x}" for part in color) for color in colors]
