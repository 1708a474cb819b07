"""Splits read from a file: a list of validation files, or a manifest written by `Split.write`."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from common.errors import DataError
from common.sources.items import Items
from common.sources.splits import PARTS, Split, Splitter, from_mask, item_keys, split_of


@dataclass(frozen=True)
class FileSplitter(Splitter):
    """Validates on the files named in a list (one per line, with or without folder and ending).

    Args:
        fname: The text file with the names.

    Raises:
        DataError: when called, if the list is not there or names a file that is not among the items.
    """

    fname: str | Path

    def __call__(self, items: Items, labels: Sequence[Any] | None = None) -> Split:
        try:
            wanted = {line.strip() for line in Path(self.fname).read_text("utf-8").splitlines() if line.strip()}
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise DataError(f"{self.fname}: cannot read the list of validation files: {reason}") from error
        paths = [Path(item) for item in cast("Sequence[Any]", items)]
        hits = [_names(p) & wanted for p in paths]
        missing = wanted - set[str]().union(*hits)
        if missing:
            raise DataError(f"{self.fname} names {sorted(missing)[0]!r}, which is not among the {len(paths)} items")
        return from_mask(np.array([bool(h) for h in hits], dtype=bool))


@dataclass(frozen=True)
class ManifestSplitter(Splitter):
    """Reads a split that `Split.write` wrote.

    Args:
        path: The manifest, CSV with the columns ``item`` and ``split``.

    Raises:
        DataError: when called, if the manifest is missing, or names an unknown item or part.
    """

    path: str | Path

    def __call__(self, items: Items, labels: Sequence[Any] | None = None) -> Split:
        try:
            rows = list(csv.reader(io.StringIO(Path(self.path).read_text("utf-8"))))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise DataError(f"{self.path}: cannot read the manifest: {reason}") from error
        if not rows or rows[0] != ["item", "split"]:
            raise DataError(f"{self.path}, line 1: the columns must be item,split")
        positions = {key: i for i, key in enumerate(item_keys(items))}
        parts: dict[str, list[int]] = {part: [] for part in PARTS}
        for number, row in enumerate(rows[1:], start=2):
            if len(row) != 2 or row[1] not in parts:
                raise DataError(f"{self.path}, line {number}: must be an item and one of {PARTS}, got {row}")
            if row[0] not in positions:
                raise DataError(f"{self.path}, line {number}: {row[0]!r} is not among the {len(positions)} items")
            parts[row[1]].append(positions[row[0]])
        return split_of(*(sorted(parts[part]) for part in PARTS))


def _names(path: Path) -> set[str]:
    """All names by which a list may refer to a file: with any number of its folders, with and without its ending."""
    parts = path.parts
    tails = {Path(*parts[i:]) for i in range(len(parts))}
    return {t.as_posix() for t in tails} | {t.with_suffix("").as_posix() for t in tails if t.name}
