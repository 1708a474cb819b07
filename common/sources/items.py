"""Getting the items, and reading a raw input or label from each: the second and third question of a DataBlock.

Floor: sources; may import blocks and below. Used by: store, data, task, show, deploy, train, applications, recipes.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import pandas as pd
from pandas.util import hash_pandas_object

from common.blocks.spatial import IMAGE_ENDINGS
from common.errors import DataError, ItemError, nearest
from common.sources.listing import list_files

Items = Sequence[Any] | pd.DataFrame
Getter = Callable[[Any], Any]


def get_files(
    path: str | Path, extensions: Iterable[str] | None = None, recurse: bool = True, folders: Iterable[str] = ()
) -> list[Path]:
    """Returns the files under a folder, sorted, without hidden ones; links to folders elsewhere are followed.

    Args:
        path: The folder.
        extensions: File endings to keep (``.jpg``), in any case; None keeps all.
        recurse: Whether to go into folders inside it.
        folders: Names of first-level folders to go into; empty: all.

    Raises:
        DataError: if the folder does not exist or is a file.
    """
    return list_files(path, extensions, recurse, folders).files


def get_image_files(path: str | Path, recurse: bool = True, folders: Iterable[str] = ()) -> list[Path]:
    """Returns the image files under a folder, sorted.

    Args:
        path: The folder.
        recurse: Whether to go into folders inside it.
        folders: Names of first-level folders to go into; empty: all.

    Raises:
        DataError: if the folder does not exist or holds no image.

    Examples:
        >>> import tempfile; from PIL import Image
        >>> folder = Path(tempfile.mkdtemp()); Image.new("RGB", (4, 4)).save(folder / "a.png")
        >>> [f.name for f in get_image_files(folder)]
        ['a.png']
    """
    found = get_files(path, IMAGE_ENDINGS, recurse, folders)
    if not found:
        raise DataError(f"{path} holds no images (looked for {', '.join(sorted(IMAGE_ENDINGS)[:6])}, …)")
    return found


def parent_label(item: str | Path) -> str:
    """Returns the name of a file's parent folder.

    Args:
        item: The file's path.

    Examples:
        >>> parent_label("photos/rose/1.jpg")
        'rose'
    """
    parts = str(item).rsplit(os.sep, 2)
    return parts[-2] if len(parts) > 1 else ""


@dataclass(frozen=True)
class RegexLabeller:
    r"""Labels a name by the first group of a regular expression.

    Args:
        pat: The expression; its first group is the label.
        match: Whether it must match from the start of the name instead of anywhere.

    Raises:
        DataError: when called, if the expression does not match; the message holds both.

    Examples:
        >>> RegexLabeller(r"(.+)_\d+.jpg$")("great_pyrenees_173.jpg")
        'great_pyrenees'
    """

    pat: str
    match: bool = False

    def __call__(self, item: Any) -> str:
        text = str(item)
        found = re.match(self.pat, text) if self.match else re.search(self.pat, text)
        if found is None or not found.groups():
            raise DataError(f"the expression {self.pat!r} finds no label (no first group) in {text!r}")
        return found.group(1)


def using_attr(function: Callable[[Any], Any], attr: str) -> Getter:
    r"""Returns a getter that calls ``function`` on one attribute (``attr``) of the item.

    Examples:
        >>> using_attr(RegexLabeller(r"(.+)_\d+"), "name")(Path("dogs/beagle_7.jpg"))
        'beagle'
    """

    def getter(item: Any) -> Any:
        return function(getattr(item, attr))

    return getter


@dataclass(frozen=True)
class ColReader:
    """Reads one column (or several) of a row, or of a whole frame at once.

    Args:
        cols: The column's name or position, or several of them.
        pref: A prefix for each value (a folder).
        suff: A suffix for each value (a file ending).
        label_delim: The delimiter at which to split the value into a list of labels.

    Raises:
        DataError: when called, if the table has no such column; the message lists the near names.

    Examples:
        >>> ColReader("labels", label_delim=" ")({"labels": "car person"})
        ['car', 'person']
        >>> ColReader("name", pref="train/", suff=".jpg")({"name": "7"})
        'train/7.jpg'
    """

    cols: str | int | tuple[str | int, ...]
    pref: str | Path = ""
    suff: str = ""
    label_delim: str | None = None

    def _finish(self, value: Any) -> Any:
        if self.label_delim is not None:
            text = "" if bool(pd.isna(value)) else str(value)
            return [part for part in text.split(self.label_delim) if part]
        if not self.pref and not self.suff:
            return value
        if isinstance(self.pref, Path):
            return str(self.pref / f"{value}{self.suff}")
        return f"{self.pref}{value}{self.suff}"

    def _name(self, col: str | int, known: Sequence[Any]) -> Any:
        if col in known:
            return col
        if isinstance(col, int) and 0 <= col < len(known):
            return known[col]
        raise DataError(f"the table has no column {col!r}: {nearest(str(col), map(str, known))}")

    def __call__(self, row: Any) -> Any:
        known = list(row.keys()) if hasattr(row, "keys") else list(getattr(row, "_fields", ()))
        columns = self.cols if isinstance(self.cols, tuple) else (self.cols,)
        names = [self._name(col, known) for col in columns]
        values = [self._finish(row[name] if hasattr(row, "keys") else getattr(row, name)) for name in names]
        return values if isinstance(self.cols, tuple) else values[0]

    def column(self, frame: pd.DataFrame) -> Sequence[Any]:
        """Returns the values of all rows of a frame: the column itself where there is no prefix, suffix or delimiter.

        Args:
            frame: The rows.
        """
        columns = self.cols if isinstance(self.cols, tuple) else (self.cols,)
        names = [self._name(col, list(frame.columns)) for col in columns]
        if not isinstance(self.cols, tuple) and not (self.pref or self.suff or self.label_delim is not None):
            found = frame[names[0]]
            if not isinstance(found, pd.Series):
                raise DataError(
                    f"the table has {len(found.columns)} columns called {names[0]!r}: give each a name of its own"
                )
            return cast("Sequence[Any]", found)
        parts = [[self._finish(v) for v in frame[name].tolist()] for name in names]
        return [list(row) for row in zip(*parts, strict=True)] if isinstance(self.cols, tuple) else parts[0]


def take(items: Items, position: int) -> Any:
    """Returns one item: an entry of a list, a row of a frame, an entry of a column as a Python object."""
    if isinstance(items, pd.Series):
        return items.iloc[position : position + 1].tolist()[0]
    return items.iloc[position] if isinstance(items, pd.DataFrame) else items[position]


@overload
def subset(items: Sequence[Any], positions: Sequence[int] | np.ndarray) -> Sequence[Any]: ...


@overload
def subset(items: pd.DataFrame, positions: Sequence[int] | np.ndarray) -> pd.DataFrame: ...


def subset(items: Items, positions: Sequence[int] | np.ndarray) -> Items:
    """Returns the items at some positions, in the same form."""
    if isinstance(items, (pd.DataFrame, pd.Series)):
        return items.iloc[np.asarray(positions, dtype=np.int64)]
    return [items[i] for i in (positions.tolist() if isinstance(positions, np.ndarray) else positions)]


def item_name(items: Items, position: int) -> str:
    """Returns an item's name for people: its path, or the row of a table."""
    if isinstance(items, pd.DataFrame):
        return f"row {items.index[position]}"
    name = _name(items[position])
    return f"item {position}" if name is None else name


def item_keys(items: Items) -> list[str]:
    """Returns a stable name of each item: its path below the items' common folder, a row's index, or its position.

    The path is the item itself, or its attribute ``name``.
    """
    if isinstance(items, pd.DataFrame):
        return [str(i) for i in items.index]
    names = [_name(item) for item in items]
    if not names or None in names:
        return [str(i) for i in range(len(items))]
    paths = [Path(name) for name in names if name is not None]
    parents = [p.parent for p in paths]
    root = parents[0]
    while not all(p.is_relative_to(root) for p in parents):
        if root == root.parent:  # no common folder
            return [str(name) for name in names]
        root = root.parent
    return [p.relative_to(root).as_posix() for p in paths]


def item_contents(items: Items) -> list[str]:
    """Returns what tells each item's content from another's at little cost: a file's size in bytes, a row's hash.

    Empty where an item is neither a row nor a file (nor has the name of one).
    """
    if isinstance(items, pd.DataFrame):
        hashing: Any = hash_pandas_object  # pandas' types call it an object
        hashed = hashing(items.astype(str), index=False)
        return [f"{value:016x}" for value in hashed.tolist()]
    return [_size(_name(item)) for item in items]


def _name(item: Any) -> str | None:
    """What names an item that is no row: the path that it is, or its attribute ``name``."""
    name = str(item) if isinstance(item, (str, Path)) else getattr(item, "name", None)
    return name if isinstance(name, str) else None


def _size(name: str | None) -> str:
    try:
        return str(os.stat(name).st_size) if name else ""
    except (OSError, ValueError):
        return ""


def read_field(
    getter: Getter | None, items: Items, stage: str, failed: dict[int, ItemError] | None = None
) -> Sequence[Any]:
    """Returns the raw values of one field for every item, by whole columns where the getter can read them.

    Args:
        getter: From an item to its raw value; None: the item itself.
        items: The items.
        stage: ``get_x`` or ``get_y``, for errors.
        failed: Collects the errors of items that the getter fails on, whose value is then None; None: the first one
            raises.

    Raises:
        DataError: naming the first item that the getter fails on, and why.
    """
    if getter is None:
        return cast("Sequence[Any]", items)
    if isinstance(items, pd.DataFrame) and isinstance(getter, ColReader):
        return getter.column(items)
    rows = items.to_dict("records") if isinstance(items, pd.DataFrame) else items
    values: list[Any] = []
    for position, item in enumerate(rows):
        try:
            values.append(getter(item))
        except (DataError, AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            name = item_name(items, position)
            if failed is None:
                raise DataError(f"{name}: {stage} failed: {error}") from error
            failed.setdefault(position, ItemError(name, stage, str(error)))
            values.append(None)
    return values


def read_fields(
    fields: Sequence[tuple[Getter | None, str]], items: Items, failed: dict[int, ItemError] | None = None
) -> list[Sequence[Any]]:
    """Returns the raw values of several fields; a getter shared by fields of one side is called once per item.

    Args:
        fields: The getter and the side (``get_x`` or ``get_y``) of each.
        items: The items.
        failed: See `read_field`.

    Raises:
        DataError: naming the first item that a getter fails on, and why.
    """
    known: dict[tuple[int, str], Sequence[Any]] = {}
    for getter, side in fields:
        if (id(getter), side) not in known:
            known[id(getter), side] = read_field(getter, items, side, failed)
    return [known[id(getter), side] for getter, side in fields]
