"""Learning rate schedules as functions of the share of training done: stateless, so a resume restores nothing.

Floor: train; may import deploy and below. Used by: its own room.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import ConfigError, in_range


def _cosine(start: float, end: float, share: float) -> float:
    """Half a cosine period from ``start`` at 0 to ``end`` at 1: flat at both ends."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """One-cycle schedule (Smith 2018, arXiv:1803.09820): cosine up, then cosine down; momentum the other way.

    Args:
        div: The ratio of the peak rate to the first rate.
        div_final: The ratio of the peak rate to the last rate.
        pct_start: The share of training spent on the rise, in [0, 1].
        momenta: First, middle and last momentum.

    Examples:
        >>> cycle = OneCycle(pct_start=0.25)
        >>> [round(cycle.factor(share), 3) for share in (0, 0.25, 1)]
        [0.04, 1.0, 0.0]
    """

    div: float = 25.0
    div_final: float = 1e5
    pct_start: float = 0.25
    momenta: tuple[float, float, float] = (0.95, 0.85, 0.95)

    def __post_init__(self) -> None:
        in_range("pct_start", self.pct_start, 0, 1)
        for name, value in (("div", self.div), ("div_final", self.div_final)):
            in_range(name, value, 1, float("inf"))

    def factor(self, share: float) -> float:
        """Returns the rate as a share of the peak, at a share of training in [0, 1]."""
        if share < self.pct_start:
            return _cosine(1 / self.div, 1.0, share / self.pct_start)
        rest = 1 - self.pct_start
        return _cosine(1.0, 1 / self.div_final, (share - self.pct_start) / rest if rest else 1.0)

    def momentum(self, share: float) -> float | None:
        """Returns the momentum at a share of training."""
        first, middle, last = self.momenta
        if share < self.pct_start:
            return _cosine(first, middle, share / self.pct_start)
        rest = 1 - self.pct_start
        return _cosine(middle, last, (share - self.pct_start) / rest if rest else 1.0)


@dataclass(frozen=True)
class Constant:
    """The same rate from first to last."""

    def factor(self, share: float) -> float:
        """Returns 1."""
        return 1.0

    def momentum(self, share: float) -> float | None:
        """Returns None: the optimizer's own."""
        return None


@dataclass(frozen=True)
class Ramp:
    """Log-linear rise from ``low / high`` of the peak to the peak, for the learning rate range test."""

    low: float
    high: float

    def factor(self, share: float) -> float:
        """Returns the rate as a share of the peak."""
        return (self.low / self.high) ** (1 - share)

    def momentum(self, share: float) -> float | None:
        """Returns None: the optimizer's own."""
        return None


Schedule = OneCycle | Constant | Ramp


def group_rates(lr: float | slice | Sequence[float], groups: int) -> list[float]:
    """Returns one peak rate per layer group, lowest layers first.

    Args:
        lr: One rate for all; ``slice(high)`` for a tenth of it below the last group; ``slice(low, high)`` spread
            evenly in the logarithm; or one per group.
        groups: The number of layer groups.

    Raises:
        ConfigError: if a rate is not above 0, or their number does not fit.

    Examples:
        >>> group_rates(slice(1e-4, 1e-2), 3)
        [0.0001, 0.001, 0.01]
    """
    rates: list[float]
    if isinstance(lr, slice):
        low: Any = lr.start
        high: Any = lr.stop
        for end in (high,) if low is None else (low, high):
            _positive(end)
        if low is None:
            rates = [float(high) / 10] * (groups - 1) + [float(high)]
        elif groups == 1:
            rates = [float(high)]
        else:
            ratio = (float(high) / float(low)) ** (1 / (groups - 1))
            rates = [round(float(low) * ratio**i, 12) for i in range(groups)]
    elif isinstance(lr, (int, float)):
        rates = [float(lr)] * groups
    else:
        rates = [float(rate) for rate in lr]
    if len(rates) != groups:
        raise ConfigError(f"lr must give one rate for each of {groups} layer groups, got {len(rates)}")
    for rate in rates:
        _positive(rate)
    return rates


def _positive(rate: Any) -> None:
    if not isinstance(rate, (int, float)) or not rate > 0 or not math.isfinite(rate):
        raise ConfigError(f"lr must be above 0 and finite, got {rate}")
