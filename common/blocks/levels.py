"""The levels of a category (a column, a user id), with extra positions for missing and unseen values.

Floor: blocks; may import text and below. Used by: its own room.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

MISSING, OTHER, FIRST = 0, 1, 2
"""The positions of a missing value, of an unseen one, and of the first level."""
RARE_FROM = 50  # above this number of levels, one that occurs only once is encoded as OTHER
UNSEEN = "(other)"


@dataclass(frozen=True)
class Levels:
    """The levels that training saw, in order; the first has position 2.

    Args:
        names: Their names.

    Examples:
        >>> levels = Levels(("A", "B"))
        >>> levels.encode(pd.Series(["B", None, "C", "A"])).tolist(), levels.decode(3), levels.decode(1)
        ([3, 0, 1, 2], 'B', '(other)')
    """

    names: tuple[str, ...]

    @property
    def size(self) -> int:
        """The number of positions."""
        return len(self.names) + FIRST

    @classmethod
    def fit(cls, column: pd.Series, *, rare: bool = True) -> "Levels":
        """Returns the levels of training values, sorted.

        Args:
            column: The values; missing ones are ignored.
            rare: Whether, among more than 50 levels, those that occur once are left out, if any occurs more often.
        """
        codes, names = named(column)
        counts = np.bincount(codes[codes >= 0], minlength=len(names))
        least = 2 if rare and len(names) > RARE_FROM and (counts > 1).any() else 1
        kept = (name for name, count in zip(names, counts.tolist(), strict=True) if count >= least)
        return cls(tuple(sorted(kept)))

    def encode(self, column: pd.Series) -> np.ndarray:
        """Returns the position of each value, int64 (N,)."""
        codes, names = named(column)
        places = pd.Index(self.names, dtype=object).get_indexer(pd.Index(names, dtype=object)) + FIRST
        places = np.where(places < FIRST, OTHER, places)
        return np.where(codes < 0, MISSING, places[codes] if len(places) else MISSING)

    def decode(self, position: int) -> str | None:
        """Returns the level at a position; None for a missing value, ``(other)`` for an unseen one."""
        return self.names[position - FIRST] if position >= FIRST else None if position == MISSING else UNSEEN


def level_name(value: Any) -> str:
    """Returns a level's name; the same for an integer and its float, which pandas uses in columns with gaps."""
    return str(int(value)) if isinstance(value, (float, np.floating)) and float(value).is_integer() else str(value)


def named(column: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Returns the index of each row's level among the names that occur (-1: missing), and those names."""
    if column.dtype == object:
        column = column.map(level_name, na_action="ignore")
    codes, values = pd.factorize(column)
    names = [level_name(value) for value in values]
    if len(set(names)) == len(names):
        return np.asarray(codes), names
    places, again = pd.factorize(np.array(names, dtype=object))  # merges 1 and 1.0 in a column of mixed types
    return np.where(codes < 0, -1, places[codes]), [str(name) for name in again]
