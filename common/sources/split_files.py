"""Splits read from a file: a list of validation files, or a manifest written by `Split.write`.

Floor: sources; may import blocks and below. Used by: data, deploy.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from common.errors import DataError
from common.sources.items import Items, item_contents, item_keys, item_name
from common.sources.splits import MANIFEST, PARTS, Split, Splitter, from_mask, split_of


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
        paths = [Path(item) for item in items]
        hits = [_names(p) & wanted for p in paths]
        missing = wanted - set[str]().union(*hits)
        if missing:
            raise DataError(f"{self.fname} names {sorted(missing)[0]!r}, which is not among the {len(paths)} items")
        return from_mask(np.array([bool(h) for h in hits], dtype=bool))


@dataclass(frozen=True)
class ManifestSplitter(Splitter):
    """Reads a split that `Split.write` wrote.

    Args:
        path: The manifest, CSV with the columns ``item`` and ``split``; a third, ``content``, is not looked at.

    Raises:
        DataError: when called, if the manifest is missing, or names an unknown item or part.
    """

    path: str | Path

    def __call__(self, items: Items, labels: Sequence[Any] | None = None) -> Split:
        rows = _manifest(Path(self.path))
        positions = {key: i for i, key in enumerate(item_keys(items))}
        parts: dict[str, list[int]] = {part: [] for part in PARTS}
        for number, (key, part, _) in enumerate(rows, start=2):
            if key not in positions:
                raise DataError(f"{self.path}, line {number}: {key!r} is not among the {len(positions)} items")
            parts[part].append(positions[key])
        return split_of(*(sorted(parts[part]) for part in PARTS))


def _manifest(path: Path) -> list[tuple[str, str, str]]:
    """The rows of a manifest: item, part and content, which may be empty."""
    try:
        rows = list(csv.reader(io.StringIO(path.read_text("utf-8"))))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DataError(f"{path}: cannot read the manifest: {reason}") from error
    if not rows or tuple(rows[0]) not in (MANIFEST, MANIFEST[:2]):
        raise DataError(f"{path}, line 1: the columns must be item,split")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(rows[0]) or row[1] not in PARTS:
            raise DataError(f"{path}, line {number}: must be an item and one of {PARTS}, got {row}")
    return [(row[0], row[1], row[2] if len(row) > 2 else "") for row in rows[1:]]


def known_parts(path: str | Path, items: Items) -> np.ndarray:
    """Returns the part that each item has in a manifest, wherever the items lie now; ``""`` for those not in it.

    A row of a table is known by its content alone. A file is known by the end of its path and its size.

    Args:
        path: The manifest that `Split.write` wrote.
        items: The items.

    Raises:
        DataError: if the manifest cannot be read.
    """
    rows = _manifest(Path(path))
    if isinstance(items, pd.DataFrame):
        part_of = {content: part for _, part, content in rows if content}
        return np.array([part_of.get(content, "") for content in item_contents(items)], dtype=object)
    by_name: dict[str, list[tuple[str, str, str]]] = {}
    for row in rows:
        by_name.setdefault(row[0].rsplit("/", 1)[-1], []).append(row)
    found: list[str] = []
    for position, content in enumerate(item_contents(items)):
        place = "/" + Path(item_name(items, position)).as_posix()
        known = (
            part
            for key, part, size in by_name.get(place.rsplit("/", 1)[-1], [])
            if place.endswith("/" + key) and size == content
        )
        found.append(next(known, ""))
    return np.array(found, dtype=object)


def _names(path: Path) -> set[str]:
    """All names by which a list may refer to a file: with any number of its folders, with and without its ending."""
    parts = path.parts
    tails = {Path(*parts[i:]) for i in range(len(parts))}
    return {t.as_posix() for t in tails} | {t.with_suffix("").as_posix() for t in tails if t.name}
