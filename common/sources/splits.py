"""Making the validation set: the fourth question of a DataBlock. Every split can be saved to a file and read back.

Floor: sources; may import blocks and below. Used by: data, train, applications, recipes.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from common.blocks.distinct import distinct
from common.errors import ConfigError, DataError, in_range, nearest
from common.files import write_text
from common.sources.items import Getter, Items, item_contents, item_keys, item_name, read_field, subset

PARTS = ("train", "valid", "test")
MANIFEST = ("item", "split", "content")
"""Columns of the file that `Split.write` writes."""


@dataclass(frozen=True)
class Split:
    """Positions of the items of each part; an item may be in none.

    Attributes:
        train: int64 positions of the training items.
        valid: int64 positions of the validation items, for model selection.
        test: int64 positions of the test items, which are evaluated once, at the end.
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    def __getitem__(self, part: str) -> np.ndarray:
        if part not in PARTS:
            raise ConfigError(f"split has no part {part!r}: {nearest(part, PARTS)}")
        return getattr(self, part)

    def write(self, path: str | Path, items: Items) -> None:
        """Writes the split as a manifest: CSV with the columns `MANIFEST`; see `item_keys` and `item_contents`."""
        keys, contents = item_keys(items), item_contents(items)
        rows = [(keys[i], part, contents[i]) for part in PARTS for i in self[part]]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(MANIFEST)
        writer.writerows(sorted(rows))
        write_text(Path(path), text.getvalue())


def split_of(train: Any, valid: Any, test: Any = ()) -> Split:
    """Returns a split of three lists of positions."""
    return Split(*(np.asarray(part, dtype=np.int64).reshape(-1) for part in (train, valid, test)))


def from_mask(held_out: np.ndarray) -> Split:
    """Returns the split that validates on the items marked true and trains on the others."""
    return split_of(np.flatnonzero(~held_out), np.flatnonzero(held_out))


class Splitter:
    """Base of the splitters: called with the items (and their labels where it needs them), returns a `Split`."""

    needed: ClassVar[tuple[str, ...]] = ("train", "valid")
    """The parts that must not be empty."""

    def __call__(self, items: Items, labels: Sequence[Any] | None = None) -> Split:
        """Returns the split of some items."""
        raise NotImplementedError


@dataclass(frozen=True)
class NoSplitter(Splitter):
    """All items are training items: for models that are evaluated by their own out-of-fold predictions.

    Examples:
        >>> split = NoSplitter()(list("abc"))
        >>> len(split.train), len(split.valid)
        (3, 0)
    """

    needed: ClassVar[tuple[str, ...]] = ("train",)

    def __call__(self, items: Items, labels: Sequence[Any] | None = None) -> Split:
        return split_of(np.arange(len(items)), ())


def _share(count: int, valid_pct: float) -> int:
    in_range("valid_pct", valid_pct, 0, 1, open_low=True, open_high=True)
    if count < 2:
        raise DataError(f"a split needs at least 2 items, got {count}")
    return min(max(round(count * valid_pct), 1), count - 1)


@dataclass(frozen=True)
class RandomSplitter(Splitter):
    """Validates on a random share of the items.

    Args:
        valid_pct: The share, in (0, 1).
        seed: Random seed; the same seed and number of items always give the same split (0 when None).

    Examples:
        >>> split = RandomSplitter(valid_pct=0.2, seed=42)(list("abcdefghij"))
        >>> len(split.train), len(split.valid)
        (8, 2)
    """

    valid_pct: float = 0.2
    seed: int | None = None

    def __call__(self, items: Items, labels: Sequence[Any] | None = None) -> Split:
        order = np.random.default_rng(self.seed or 0).permutation(len(items))
        cut = _share(len(items), self.valid_pct)
        return split_of(np.sort(order[cut:]), np.sort(order[:cut]))


def _codes(values: Sequence[Any]) -> np.ndarray:
    codes, found = distinct(values)
    return pd.factorize(np.array([str(v) for v in found], dtype=object))[0][codes]


def _need(labels: Sequence[Any] | None, name: str) -> Sequence[Any]:
    if labels is None:
        raise ConfigError(f"{name} needs the labels: give DataBlock a get_y, or call it with (items, labels)")
    return labels


@dataclass(frozen=True)
class StratifiedSplitter(Splitter):
    """Validates on a random share that keeps the classes' proportions (scikit-learn's StratifiedShuffleSplit).

    Args:
        valid_pct: The share, in (0, 1).
        seed: Random seed.

    Raises:
        DataError: when called, if a class has a single item, or the share is smaller than one item per class.
    """

    valid_pct: float = 0.2
    seed: int = 0

    def __call__(self, items: Items, labels: Sequence[Any] | None = None) -> Split:
        from sklearn.model_selection import StratifiedShuffleSplit

        codes = _codes(_need(labels, "StratifiedSplitter"))
        cutter = StratifiedShuffleSplit(1, test_size=_share(len(codes), self.valid_pct), random_state=self.seed)
        try:
            train, valid = next(cutter.split(codes, codes))
        except ValueError as error:
            raise DataError(f"cannot stratify {len(codes)} items with valid_pct={self.valid_pct}: {error}") from error
        return split_of(np.sort(train), np.sort(valid))


def _groups(group: Getter | Sequence[Any], items: Items) -> np.ndarray:
    if callable(group):
        return _codes(read_field(group, items, "group"))
    if len(group) != len(items):
        raise ConfigError(f"group must have one entry an item ({len(items)}), got {len(group)}")
    return _codes(group)


@dataclass(frozen=True)
class GroupSplitter(Splitter):
    """Validates on whole groups (speakers, patients, scenes): no group is in both parts.

    Args:
        group: A getter from item to group, or one group per item.
        valid_pct: The share of the groups, in (0, 1).
        seed: Random seed.
    """

    group: Getter | Sequence[Any]
    valid_pct: float = 0.2
    seed: int = 0

    def __call__(self, items: Items, labels: Sequence[Any] | None = None) -> Split:
        groups = _groups(self.group, items)
        count = int(groups.max(initial=-1)) + 1
        if count < 2:
            raise DataError(f"a split by group needs at least 2 groups, got {count}")
        order = np.random.default_rng(self.seed).permutation(count)
        return from_mask(np.isin(groups, order[: _share(count, self.valid_pct)]))


@dataclass(frozen=True)
class StratifiedGroupSplitter(Splitter):
    """Validates on whole groups, keeping the classes' proportions as far as the groups allow (StratifiedGroupKFold).

    Args:
        group: A getter from item to group, or one group per item.
        valid_pct: The share of the items, in (0, 0.5]; the actual share is one fold of round(1 / valid_pct).
        seed: Random seed.
    """

    group: Getter | Sequence[Any]
    valid_pct: float = 0.2
    seed: int = 0

    def __call__(self, items: Items, labels: Sequence[Any] | None = None) -> Split:
        from sklearn.model_selection import StratifiedGroupKFold

        in_range("valid_pct", self.valid_pct, 0, 0.5, open_low=True)
        codes = _codes(_need(labels, "StratifiedGroupSplitter"))
        groups = _groups(self.group, items)
        folds = StratifiedGroupKFold(round(1 / self.valid_pct), shuffle=True, random_state=self.seed)
        try:
            train, valid = next(folds.split(codes, codes, groups))
        except ValueError as error:
            raise DataError(f"cannot stratify by group: {error}") from error
        return split_of(np.sort(train), np.sort(valid))


@dataclass(frozen=True)
class TimeSplitter(Splitter):
    """Validates on the latest items and trains on earlier ones; items in the gap between are left out.

    Args:
        time: A getter from item to time (a number, a date, or a text that pandas parses as one).
        valid_pct: The share of validation items, in (0, 1).
        gap: The least distance from the last training item to the first validation item: seconds for dates, else in
            the times' own unit.

    Raises:
        DataError: when called, if a time is missing, or no item is before the gap.
    """

    time: Getter
    valid_pct: float = 0.2
    gap: float = 0.0

    def __call__(self, items: Items, labels: Sequence[Any] | None = None) -> Split:
        in_range("gap", self.gap, 0, float("inf"))
        found = read_field(self.time, items, "time")
        raw = found if isinstance(found, pd.Series) and found.dtype.kind in "iuf" else pd.Series(list(found))
        try:
            times = raw if pd.api.types.is_numeric_dtype(raw) else pd.to_datetime(raw)
        except (ValueError, TypeError) as error:
            raise DataError(f"a time cannot be read: {error}") from error
        if times.isna().any():
            raise DataError(f"{item_name(items, int(np.flatnonzero(times.isna())[0]))}: the time is missing")
        if pd.api.types.is_numeric_dtype(times):
            values = times.to_numpy(np.float64)
        else:
            values = (times - times.min()).dt.total_seconds().to_numpy(np.float64)
        start = np.sort(values)[len(values) - _share(len(values), self.valid_pct)]
        # Strictly before without a gap: items of the same time as the first validation item must not train.
        train = values < start if self.gap == 0 else values <= start - self.gap
        if not train.any():
            raise DataError(f"gap={self.gap} leaves no training item before the validation items")
        return split_of(np.flatnonzero(train), np.flatnonzero(values >= start))


def _folder(item: Any, level: int) -> str:
    parts = Path(item).parts
    return parts[-1 - level] if len(parts) > level else ""


@dataclass(frozen=True)
class GrandparentSplitter(Splitter):
    """Splits by the folder above the class folder: ``train/rose/1.jpg``.

    Args:
        train_name: Name of the training folder.
        valid_name: Name of the validation folder.
        test_name: Name of the test folder, which may be absent.

    Raises:
        DataError: when called, if the training or the validation folder has no item.
    """

    train_name: str = "train"
    valid_name: str = "valid"
    test_name: str = "test"

    def __call__(self, items: Items, labels: Sequence[Any] | None = None) -> Split:
        folders = np.array([_folder(item, 2) for item in items], dtype=object)
        named = [np.flatnonzero(folders == n) for n in (self.train_name, self.valid_name, self.test_name)]
        for name, found in zip((self.train_name, self.valid_name), named[:2], strict=True):
            if not len(found):
                seen = sorted(set(folders.tolist()))[:5]
                raise DataError(f"no item lies in a folder {name!r} two levels up; the folders there: {seen}")
        return split_of(*named)


@dataclass(frozen=True)
class HoldOutFolder(Splitter):
    """Tests on the items below a folder of some name; another splitter splits the rest.

    Args:
        splitter: Splits the items that are not in the test part.
        name: The test folder's name, at any level above the file.
    """

    splitter: Splitter
    name: str = "test"

    def __call__(self, items: Items, labels: Sequence[Any] | None = None) -> Split:
        if isinstance(items, pd.DataFrame):
            raise DataError("HoldOutFolder needs paths, got a table")
        paths = [Path(item).parts[:-1] for item in items]
        held = np.array([self.name in parts for parts in paths])
        return hold_out(self.splitter, items, labels, held)


def hold_out(splitter: Splitter, items: Items, labels: Sequence[Any] | None, held: np.ndarray) -> Split:
    """Returns a split with ``held`` (bool, one per item) as the test part, and the rest split by ``splitter``."""
    rest = np.flatnonzero(~held)
    inner_items = items.iloc[rest] if isinstance(items, pd.DataFrame) else [items[int(i)] for i in rest]
    inner = splitter(inner_items, None if labels is None else subset(labels, rest))
    return split_of(rest[inner.train], rest[inner.valid], np.flatnonzero(held))


@dataclass(frozen=True)
class ColSplitter(Splitter):
    """Splits by a column: true or ``valid`` is the validation part, ``test`` the test part, false or ``train`` train.

    Args:
        col: The column's name.

    Raises:
        DataError: when called, if the items are not a table, the column is missing or holds another value.
    """

    col: str = "is_valid"

    def __call__(self, items: Items, labels: Sequence[Any] | None = None) -> Split:
        if not isinstance(items, pd.DataFrame):
            raise DataError(f"ColSplitter({self.col!r}) needs a table, got {type(items).__name__}")
        if self.col not in items.columns:
            raise DataError(f"the table has no column {self.col!r}: {nearest(self.col, map(str, items.columns))}")
        values: list[Any] = items[self.col].tolist()
        parts = np.array([_PART_WORDS.get(str(value).strip().lower(), "") for value in values])
        if (parts == "").any():
            row = int(np.flatnonzero(parts == "")[0])
            value = values[row]
            raise DataError(
                f"{item_name(items, row)}: column {self.col!r} must say train, valid or test, got {value!r}"
            )
        return split_of(*(np.flatnonzero(parts == part) for part in PARTS))


_PART_WORDS: dict[str, str] = {
    **dict.fromkeys(("train", "training", "false", "0", "0.0"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "true", "1", "1.0"), "valid"),
    "test": "test",
}


@dataclass(frozen=True)
class IndexSplitter(Splitter):
    """Validates on given positions and trains on the rest.

    Args:
        valid_idx: Positions of the validation items.
    """

    valid_idx: Sequence[int]

    def __call__(self, items: Items, labels: Sequence[Any] | None = None) -> Split:
        mask = np.zeros(len(items), dtype=bool)
        wrong = [i for i in self.valid_idx if not 0 <= i < len(items)]
        if wrong:
            raise ConfigError(f"valid_idx must lie in [0, {len(items)}), got {wrong[0]}")
        mask[list(self.valid_idx)] = True
        return from_mask(mask)


@dataclass(frozen=True)
class FuncSplitter(Splitter):
    """Validates on the items for which a function returns true.

    Args:
        func: Maps an item to bool.
    """

    func: Callable[[Any], bool]

    def __call__(self, items: Items, labels: Sequence[Any] | None = None) -> Split:
        return from_mask(np.array([bool(v) for v in read_field(self.func, items, "splitter")], dtype=bool))


@dataclass(frozen=True)
class KFoldSplitter(Splitter):
    """Validates on one fold of k: stratified where labels are given, by whole groups where ``group`` is.

    Args:
        fold: The validation fold, 0 … folds - 1.
        folds: The number of folds, at least 2.
        group: A getter from item to group, or one group per item, or None.
        seed: Seed of the shuffle.
    """

    fold: int
    folds: int = 5
    group: Getter | Sequence[Any] | None = None
    seed: int = 0

    def __call__(self, items: Items, labels: Sequence[Any] | None = None) -> Split:
        from sklearn import model_selection as select

        in_range("folds", self.folds, 2, len(items))
        in_range("fold", self.fold, 0, self.folds - 1)
        groups = None if self.group is None else _groups(self.group, items)
        codes = np.zeros(len(items)) if labels is None else _codes(labels)
        if groups is not None and labels is not None:
            cutter = select.StratifiedGroupKFold(self.folds, shuffle=True, random_state=self.seed)
        elif groups is not None:
            cutter = select.GroupKFold(self.folds, shuffle=True, random_state=self.seed)
        elif labels is not None:
            cutter = select.StratifiedKFold(self.folds, shuffle=True, random_state=self.seed)
        else:
            cutter = select.KFold(self.folds, shuffle=True, random_state=self.seed)
        try:
            train, valid = list(cutter.split(codes, codes, groups))[self.fold]
        except ValueError as error:
            raise DataError(f"cannot make {self.folds} folds: {error}") from error
        return split_of(train, valid)


def apply_splitter(splitter: Callable[..., Any], items: Items, labels: Sequence[Any] | None) -> Split:
    """Returns the split of any splitter, ours or a function that returns two or three lists of positions.

    Raises:
        DataError: if a required part is empty, or a position is out of range or in two parts.
    """
    found = splitter(items, labels) if isinstance(splitter, Splitter) else splitter(items)
    split = found if isinstance(found, Split) else _given(found)
    everything = np.concatenate([split[part] for part in PARTS])
    if len(everything) and not (everything.min() >= 0 and everything.max() < len(items)):
        wrong = everything[(everything < 0) | (everything >= len(items))][0]
        raise DataError(f"the splitter named position {wrong}, there are {len(items)} items")
    if len(everything) and np.bincount(everything, minlength=1).max() > 1:
        raise DataError("the splitter put one item into two parts")
    for part in splitter.needed if isinstance(splitter, Splitter) else Splitter.needed:
        if not len(split[part]):
            raise DataError(f"the splitter left the {part} part empty ({len(items)} items)")
    return split


def _given(found: Any) -> Split:
    """Returns the Split of a user-defined function's result.

    Raises:
        DataError: unless it is two or three lists of positions.
    """
    rule = "a splitter must return two or three lists of positions (train, valid and test)"
    if not isinstance(found, (list, tuple)) or len(found) not in (2, 3):
        raise DataError(f"{rule}, got {type(found).__name__} {found!s:.60}")
    parts = [np.asarray(part) for part in found]
    for part in parts:
        if part.ndim != 1 or (len(part) and not np.issubdtype(part.dtype, np.integer)):
            raise DataError(f"{rule}, got {found!s:.60}")
    return split_of(*parts)
