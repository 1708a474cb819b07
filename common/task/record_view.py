"""A prediction as data that a page draws: one shape for every task, beside the pictures that matplotlib draws."""

from dataclasses import dataclass
from typing import Any

from common.spec import to_spec

MOST_BARS = 10


@dataclass(frozen=True, kw_only=True)
class ViewBox:
    """A thing that was found in an image.

    Attributes:
        label: Its class.
        score: How sure that is, in [0, 1].
        bbox: (x, y, width, height) in pixels of the source image.
        color: Of its class, ``#rrggbb``.
        runs: Its mask as the lengths of runs, down the columns from the left, of pixels outside and inside in turn,
            outside first (COCO's uncompressed ``counts``); empty without a mask.
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
        color: What it is painted in, ``#rrggbb``.
    """

    label: str
    share: float
    color: str


@dataclass(frozen=True, kw_only=True)
class RecordView:
    """A prediction as a page draws it; what a task does not have is None or empty.

    Attributes:
        title: The prediction in a few words.
        bars: Labels and their shares in [0, 1], largest first.
        size: (height, width) in pixels of the source image that ``boxes`` and ``png`` lie on.
        boxes: Things that were found, surest first.
        png: The class of each pixel: a palette PNG in base64, its palette the colours of ``legend``.
        legend: The classes in ``png``, by their ids.
        value: The number, or the row of numbers.
        interval: Between which numbers the value is said to lie.
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
