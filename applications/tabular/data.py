"""Reading tables in common formats, and the DataBlock of a table in one call."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from common.blocks.block import CategoryBlock, RegressionBlock
from common.blocks.column_kinds import series
from common.blocks.columns import ColumnsBlock
from common.data.datablock import DataBlock
from common.data.dataloaders import DataLoaders
from common.errors import ConfigError, DataError, nearest
from common.sources.items import ColReader
from common.sources.source import PART_NAMES, PartSplitter, Source
from common.sources.splits import (
    PARTS,
    GroupSplitter,
    IndexSplitter,
    RandomSplitter,
    Split,
    Splitter,
    StratifiedSplitter,
    TimeSplitter,
)
from common.sources.tables import TABLE_ENDINGS, parts_of, read_table
from common.text.tokenizer import Tokenizer

MOST_WHOLE_CLASSES = 20  # the most distinct integers of a numeric target for it to name classes


@dataclass(frozen=True)
class TableSource(Source):
    """Rows of a table with a target, as a DataBlock takes them.

    Attributes:
        items: The rows.
        get_x: Returns a row itself.
        get_y: Returns a row's target.
        parts: ``train``, ``valid`` or ``test`` of each row, or None where the source has no split.
        kind: The recognised format, in words.
        notes: What a person should know of how the data was read: what was guessed, and what was passed over.
        target: The target's column.
        classes: Whether it names classes; else it is a number.
        ignore: Columns that are not features: the target, the part, and those that the user excludes.
    """

    target: str = ""
    classes: bool = False
    ignore: tuple[str, ...] = ()

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a frame."""
        assert isinstance(self.items, pd.DataFrame)
        return self.items

    def block(
        self,
        splitter: Splitter,
        *,
        numbers: Sequence[str] = (),
        categories: Sequence[str] = (),
        dates: Sequence[str] = (),
        texts: Sequence[str] = (),
        places: Sequence[tuple[str, str]] = (),
        tokenizer: Tokenizer | None = None,
    ) -> DataBlock:
        """Returns the DataBlock of the table; the kinds of columns that are not listed are inferred.

        Args:
            splitter: Makes the validation part.
            numbers: Columns that are numbers.
            categories: Columns that are categories.
            dates: Columns that are dates.
            texts: Columns that are texts.
            places: Pairs of columns that are latitude and longitude.
            tokenizer: The tokenizer of a pretrained transformer that reads the texts.
        """
        columns = ColumnsBlock(
            tuple(numbers), tuple(categories), tuple(dates), tuple(texts),
            ignore=self.ignore, places=tuple(places), infer=True, tokenizer=tokenizer,
        )  # fmt: skip
        target = CategoryBlock() if self.classes else RegressionBlock()
        return DataBlock((columns, target), get_y=ColReader(self.target), splitter=splitter)

    def dividing(
        self, valid_pct: float, seed: int, *, group: str | None = None, time: str | None = None, gap: float = 0.0
    ) -> Splitter:
        """Returns the splitter of training and validation rows.

        Args:
            valid_pct: The share of validation rows.
            seed: Seed of the split.
            group: A column whose equal values stay together.
            time: A column of times: the latest rows are the validation part.
            gap: The gap before them that is left out: seconds for dates, else in the column's own unit.

        Raises:
            ConfigError: if both a group and a time are given.
            DataError: if there is no such column.
        """
        if group is not None and time is not None:
            raise ConfigError("a table is divided by group or by time, not by both")
        for name in (group, time):
            if name is not None and name not in self.frame.columns:
                raise DataError(f"the table has no column {name!r}: {nearest(name, map(str, self.frame.columns))}")
        inner: Splitter = RandomSplitter(valid_pct, seed)
        if group is not None:
            inner = GroupSplitter(ColReader(group), valid_pct, seed)
        elif time is not None:
            inner = TimeSplitter(ColReader(time), valid_pct, gap)
        elif self.classes:
            inner = _Stratified(valid_pct, seed)
        return PartSplitter(self.parts, inner)


@dataclass(frozen=True)
class _Stratified(Splitter):
    """A stratified split where every class has enough rows, else a random one."""

    valid_pct: float
    seed: int

    def __call__(self, items: Any, labels: Sequence[Any] | None = None) -> Split:
        try:
            return StratifiedSplitter(self.valid_pct, self.seed)(items, labels)
        except DataError:
            return RandomSplitter(self.valid_pct, self.seed)(items, labels)


def read_source(
    path: str | Path | None,
    target: str | None = None,
    *,
    ignore: Sequence[str] = (),
    split_column: str = "split",
    classes: bool | None = None,
) -> TableSource:
    """Returns the rows and the target of a table, with its format inferred.

    Args:
        path: A CSV, TSV, JSONL or parquet file, also gzipped; or a folder of them called train, valid and test; None:
            the embedded table.
        target: The column to predict; the last column when None.
        ignore: Columns that are not features.
        split_column: A column of the parts, which may be absent.
        classes: Whether the target names classes; inferred from its values when None.

    Raises:
        DataError: if the path does not exist, is not a table, has no such column, or a row has no target.
    """
    if path is None:
        return embedded_table()
    root = Path(path)
    if not root.exists():
        raise DataError(f"{root} does not exist")
    frame, parts = _folder(root) if root.is_dir() else (read_table(root), None)
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    if parts is None and split_column in frame.columns:
        parts = parts_of(frame, split_column)
    return table_source(frame, target, ignore=(*ignore, split_column), parts=parts, classes=classes, name=str(root))


def read_inputs(path: str | Path) -> pd.DataFrame:
    """Returns the rows of a table in a file, as inputs to predict.

    Args:
        path: A CSV, TSV, JSONL or parquet file, also gzipped.

    Raises:
        DataError: if it is not a table.
    """
    return read_table(Path(path))


def table_source(
    frame: pd.DataFrame,
    target: str | None = None,
    *,
    ignore: Sequence[str] = (),
    parts: np.ndarray | None = None,
    classes: bool | None = None,
    name: str = "the table",
) -> TableSource:
    """Returns a frame as a source.

    Args:
        frame: The rows.
        target: The column to predict; the last one when None.
        ignore: Columns that are not features.
        parts: ``train``, ``valid`` or ``test`` of each row, or None.
        classes: Whether the target names classes; inferred from its values when None.
        name: The table's name in errors.

    Raises:
        DataError: if there is no such column, or a row has no target.
    """
    known = [str(column) for column in frame.columns]
    chosen = target if target is not None else next((n for n in reversed(known) if n not in ignore), "")
    if chosen not in known:
        raise DataError(f"{name} has no column {chosen!r} (target): {nearest(chosen, known)}")
    if known.count(chosen) > 1:
        raise DataError(f"{name} has two columns called {chosen!r}: rename one")
    gone = frame[chosen].isna().to_numpy()
    if gone.any():
        rows, first = int(gone.sum()), int(np.flatnonzero(gone)[0])
        raise DataError(f"{name}: {rows} rows have no {chosen!r}, the first is row {frame.index[first]}: remove them")
    values = series(frame, chosen)
    named = names_classes(values) if classes is None else classes
    if named:
        frame = frame.assign(**{chosen: values.map(_label)})
    kind = f"{name}, table of {len(frame):,} rows"
    left_out = tuple(dict.fromkeys((chosen, *(column for column in ignore if column in known))))
    which = "the last column" if target is None else "as asked"
    what, other = ("classes", "regression") if named else ("a number", "classification")
    how = f"by its values; kind={other} makes it the other" if classes is None else "as asked"
    notes = (f"the target is {chosen!r} ({which}), {what} ({how})",)
    return TableSource(frame, _row, ColReader(chosen), parts, kind, chosen, named, left_out, notes=notes)


def _row(item: Any) -> Any:
    return item


def _label(value: Any) -> str:
    """A class's name: the same for an integer and its float."""
    return str(int(value)) if isinstance(value, (float, np.floating)) and float(value).is_integer() else str(value)


def names_classes(target: pd.Series) -> bool:
    """Whether the values of a target are treated as classes: texts, booleans, or the first few integers from 0.

    Examples:
        >>> [names_classes(pd.Series(values)) for values in (["a", "b"], [0, 1, 1], [1.5, 2.0])]
        [True, True, False]
    """
    if pd.api.types.is_bool_dtype(target) or not pd.api.types.is_numeric_dtype(target):
        return True
    values = np.unique(target.to_numpy(np.float64))
    whole = bool((values == np.round(values)).all())
    return whole and len(values) <= MOST_WHOLE_CLASSES and bool((values == np.arange(len(values))).all())


def _folder(root: Path) -> tuple[pd.DataFrame, np.ndarray | None]:
    """The tables of a folder that are named after the parts, concatenated, and the part of each row.

    Where none is, the folder's only table, and None.
    """
    found: dict[str, Path] = {}
    tables = [file for file in sorted(root.iterdir()) if file.name.lower().endswith(TABLE_ENDINGS)]
    for file in tables:
        part = PART_NAMES.get(file.name.split(".")[0].lower())
        if part:
            if part in found:
                raise DataError(f"{root} has two {part} tables: {found[part].name} and {file.name}")
            found[part] = file
    if not found and len(tables) == 1:
        return read_table(tables[0]), None
    if not found:
        raise DataError(
            f"{root} has no table called train ({', '.join('train' + end for end in TABLE_ENDINGS[:4])}, …), valid or "
            "test: name the table's own file"
        )
    frames = {part: read_table(found[part]) for part in PARTS if part in found}
    first = next(iter(frames))
    for part, frame in frames.items():
        if missing := [c for c in frames[first].columns if c not in frame.columns]:
            raise DataError(f"{found[part]} has no column {missing[0]!r}, which {found[first].name} has")
    names = list(frames[first].columns)
    whole = pd.concat([frame.loc[:, names] for frame in frames.values()], ignore_index=True)
    return whole, np.concatenate([np.full(len(frame), part) for part, frame in frames.items()])


def embedded_table() -> TableSource:
    """Returns scikit-learn's 569 breast tumours (Wolberg et al. 1995, CC BY 4.0): 30 numbers, malignant or benign.

    A fixed fifth is the test part.
    """
    from sklearn.datasets import load_breast_cancer

    data: Any = load_breast_cancer(as_frame=True)
    frame: pd.DataFrame = data.data.assign(diagnosis=[str(data.target_names[i]) for i in data.target])
    test = StratifiedSplitter(0.2, seed=0)(frame, frame["diagnosis"].tolist()).valid
    parts = np.full(len(frame), "train", dtype=object)
    parts[test] = "test"
    return table_source(frame, "diagnosis", parts=parts, name="the embedded table")


class TabularDataLoaders:
    """The book's short ways to the loaders of a table; each is one DataBlock."""

    @staticmethod
    def from_df(
        df: pd.DataFrame,
        path: str | Path = ".",
        procs: Any = None,
        cat_names: Sequence[str] = (),
        cont_names: Sequence[str] = (),
        y_names: str = "",
        valid_idx: Sequence[int] | None = None,
        bs: int = 64,
    ) -> DataLoaders:
        """Returns loaders of a frame.

        Args:
            df: The rows.
            path: Ignored; accepted so that calls from the book work unchanged.
            procs: Ignored, likewise: categories, missing values and scales are always handled.
            cat_names: The categories; kinds are inferred where neither these nor the numbers are given.
            cont_names: The numbers.
            y_names: The target's column.
            valid_idx: Positions of the validation rows; a random fifth when None.
            bs: Rows per batch.
        """
        source = table_source(df, y_names or None)
        if given := {*cat_names, *cont_names}:
            others = (c for c in map(str, df.columns) if c not in given)
            source = replace(source, ignore=tuple(dict.fromkeys((source.target, *others))))
        splitter = RandomSplitter() if valid_idx is None else IndexSplitter(list(valid_idx))
        block = source.block(splitter, categories=cat_names, numbers=cont_names)
        return block.dataloaders(source.items, bs=bs)

    @staticmethod
    def from_csv(csv: str | Path, **options: Any) -> DataLoaders:
        """Returns loaders of a table in a file; the options are those of `from_df`."""
        return TabularDataLoaders.from_df(read_table(Path(csv)), **options)
