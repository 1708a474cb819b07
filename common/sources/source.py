"""A source: items with their inputs and targets, and the split that the source itself defines.

Floor: sources; may import blocks and below. Used by: data, deploy, applications, recipes.
"""

from collections import Counter as Tally
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from common.errors import DataError, ItemError, nearest
from common.sources.items import Getter, Items, item_name, read_fields, subset
from common.sources.splits import RandomSplitter, Split, Splitter, StratifiedSplitter, hold_out

PART_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Common lower-case names of the parts of a split."""


@dataclass(frozen=True)
class Source:
    """Items with inputs and targets, as a DataBlock takes them; a domain's ``read_source`` infers their format.

    Attributes:
        items: The items.
        get_x: From an item to the input.
        get_y: From an item to the target, or one function for each of several targets.
        parts: ``train``, ``valid`` or ``test`` of each item, or None where the source has no split.
        kind: The format that was recognised, in words.
        notes: What a person should know of how it was read: what was guessed, and what was passed over.
    """

    items: Items
    get_x: Callable[[Any], Any]
    get_y: Getter | Sequence[Getter]
    parts: np.ndarray | None
    kind: str
    notes: tuple[str, ...] = field(default=(), kw_only=True)

    def splitter(self, valid_pct: float, seed: int, stratify: bool = False) -> "PartSplitter":
        """Returns a splitter that keeps the source's own parts and splits train where it has no validation part.

        Args:
            valid_pct: The share of train to validate on.
            seed: Seed of the split.
            stratify: Whether both parts keep the classes' proportions.
        """
        inner = StratifiedSplitter(valid_pct, seed) if stratify else RandomSplitter(valid_pct, seed)
        return PartSplitter(self.parts, inner)

    def part(self, name: str | None) -> np.ndarray:
        """Returns the positions of one part; when None: the test part, else all that does not train, else everything.

        Raises:
            DataError: if the source has no such part.
        """
        if self.parts is None:
            if name is not None:
                raise DataError(
                    f"split {name!r} is not there: the data is not divided ({self.kind}); leave --split out"
                )
            return np.arange(len(self.items))
        if name is None:
            held_out = next(
                (w for w in (self.parts == "test", self.parts != "train") if w.any()), self.parts == "train"
            )
            return np.flatnonzero(held_out)
        found = np.flatnonzero(self.parts == name)
        if not len(found):
            raise DataError(f"split {name!r} is not there: {nearest(name, sorted(set(self.parts.tolist())))}")
        return found

    def raws(self, name: str | None, on_error: str = "raise") -> tuple[list[list[Any]], list[str]]:
        """Returns the raw values of one part, one list per field, and the names of its items.

        Args:
            name: The part; see `part`.
            on_error: ``raise``, or ``skip``: what a getter fails on is None.

        Raises:
            DataError: naming the first item that a getter fails on.
        """
        rows = [int(row) for row in self.part(name)]
        failed: dict[int, ItemError] | None = None if on_error == "raise" else {}
        targets = [self.get_y] if callable(self.get_y) else list(self.get_y)
        chosen = subset(self.items, rows)
        given = [(self.get_x, "get_x"), *((getter, "get_y") for getter in targets)]
        read = read_fields(given, chosen, failed)
        fields: list[list[Any]] = [field.tolist() if isinstance(field, pd.Series) else list(field) for field in read]
        return fields, [item_name(self.items, row) for row in rows]


@dataclass(frozen=True)
class PartSplitter(Splitter):
    """The source's own parts; its training items are split by ``inner`` where it has no validation part.

    Args:
        parts: The part of each item, or None: ``inner`` splits all items and there is no test part.
        inner: Splits the training items.

    Raises:
        DataError: if none of the parts is ``train``.
    """

    parts: np.ndarray | None
    inner: Splitter

    def __post_init__(self) -> None:
        if self.parts is not None and not (self.parts == "train").any():
            found = ", ".join(f"{part} ({count} items)" for part, count in sorted(Tally(self.parts.tolist()).items()))
            raise DataError(f"the data has no part train to learn from: found {found}")

    def __call__(self, items: Items, labels: Sequence[Any] | None = None) -> Split:
        if self.parts is None:
            return self.inner(items, labels)
        if (self.parts == "valid").any():
            return Split(*(np.flatnonzero(self.parts == part) for part in ("train", "valid", "test")))
        return hold_out(self.inner, items, labels, self.parts == "test")
