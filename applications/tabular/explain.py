"""Explaining a model of tables: feature importance, partial dependence, and slices with high error."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from applications.tabular.task import TabularClassification, TabularRegression
from common.blocks.column_kinds import USED, infer_kind, infer_kinds, read_booleans, read_dates, series
from common.blocks.columns import ColumnsBlock
from common.counter import key
from common.deploy.predictor import Predictor
from common.errors import ConfigError, DataError, in_range, nearest
from common.figures import Picture, finish, picture
from common.task.task import Task

TableTask = TabularClassification | TabularRegression

BOOTSTRAPS = 300  # bootstrap samples for the interval of a slice's error
FEW_LEVELS = 8  # up to this number of distinct values, each value of a number is a slice; above, each quartile
NORMAL_95 = 1.959964  # 95 % of a normal lie within this many deviations


@dataclass(frozen=True)
class Dependence:
    """The partial dependence of the predictions on one column.

    Attributes:
        column: The column's name.
        kind: Its kind; see `column_kinds.KINDS`.
        grid: The values that it was set to: numbers, or names of levels and dates.
        names: The names of the predictions: the classes, or ``value``.
        values: The mean predictions, float64 (points, names): probabilities, or values.
    """

    column: str
    kind: str
    grid: tuple[Any, ...]
    names: tuple[str, ...]
    values: np.ndarray


def permutation_importance(
    predictor: Predictor, frame: pd.DataFrame, target: str, *, repeats: int = 3, most_rows: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Returns by how much the loss rises when a column's values are shuffled among the rows, the largest rise first.

    The loss is the log-loss of classes or the root mean squared error of a number. Of two redundant columns each can
    look unimportant, since the other remains (Breiman 2001).

    Args:
        predictor: A predictor of a table.
        frame: Raw rows with the target, which the model was not fitted to.
        target: The target's column.
        repeats: How often each column is shuffled.
        most_rows: The most rows; more are sampled.
        seed: A shuffle is a function of the seed, the column's name and the repeat.

    Returns:
        One record per column: ``column``, ``importance`` (the mean rise), ``std`` (over the repeats).

    Raises:
        DataError: if the frame lacks a column, or a row's target is not one that the model knows.
    """
    in_range("repeats", repeats, 1, 1000)
    block, task = block_of(predictor), _checked(predictor.task)
    rows = drawn_rows(frame, most_rows, seed)
    truth, found = _truth(rows, target, task), list[dict[str, Any]]()
    before = _overall(task, _losses(task, _outputs(predictor, rows), truth))
    for name in (column.name for column in block.columns if column.kind in USED):
        turns = [_generator(seed, name, i).permutation(len(rows)) for i in range(repeats)]
        shuffled = series(rows, name).iloc[np.concatenate(turns)].array
        every = rows.iloc[np.tile(np.arange(len(rows)), repeats)].assign(**{name: shuffled}).reset_index(drop=True)
        after = _losses(task, _outputs(predictor, every), np.tile(truth, repeats)).reshape(repeats, -1)
        rises = [_overall(task, losses) - before for losses in after]
        found.append({"column": name, "importance": float(np.mean(rises)), "std": float(np.std(rises))})
    return sorted(found, key=lambda record: -record["importance"])


def partial_dependence(
    predictor: Predictor, frame: pd.DataFrame, column: str, *, points: int = 12, most_rows: int = 300, seed: int = 0
) -> Dependence:
    """Returns the mean prediction over rows in which one column is set to each of some values (Friedman 2001).

    Numbers and dates are set to evenly spaced quantiles between the 5th and the 95th percentile (all values where there
    are few distinct ones); categories to their most frequent levels.

    Args:
        predictor: A predictor of a table.
        frame: Raw rows.
        column: The column; a number, a category, a date or a boolean.
        points: The most values.
        most_rows: The most rows; more are sampled.
        seed: Seed of the sampling.

    Raises:
        ConfigError: if the model does not use the column, or it holds texts.
        DataError: if the frame lacks it, or no row has a value in it.
    """
    in_range("points", points, 2, 1000)
    block, task = block_of(predictor), _checked(predictor.task)
    kinds = {c.name: c.kind for c in block.columns if c.kind in USED}
    if column not in kinds:
        raise ConfigError(f"the model does not use a column {column!r}: {nearest(column, kinds)}")
    if kinds[column] == "text":
        raise ConfigError(f"{column!r} holds texts, which have no values to set it to: choose another column")
    rows = drawn_rows(frame, most_rows, seed)
    grid, places = _grid(_column(rows, column), kinds[column], points)
    values = series(rows, column).iloc[np.repeat(places, len(rows))].array
    every = rows.iloc[np.tile(np.arange(len(rows)), len(places))].assign(**{column: values}).reset_index(drop=True)
    predicted = _predictions(task, _outputs(predictor, every))
    names = task.vocab if isinstance(task, TabularClassification) else ("value",)
    return Dependence(column, kinds[column], grid, names, predicted.reshape(len(places), len(rows), -1).mean(axis=1))


def slices(
    frame: pd.DataFrame, target: str, output: Any, task: Task, columns: Sequence[str] | None = None,
    *, least: int = 30, most: int = 20, seed: int = 0,
) -> list[dict[str, Any]]:  # fmt: skip
    """Returns slices of the rows with high error, sorted by the lower end of its confidence interval.

    Each level of a category and each quartile of a number or date is a slice. By chance alone one slice in forty has an
    interval above the overall error: look at those far above it.

    Args:
        frame: Raw rows with the target.
        target: The target's column.
        output: The model's outputs for these rows, in order.
        task: Its task.
        columns: The columns to slice by; all except texts, identifiers and constants when None.
        least: The least rows of a slice.
        most: The most slices.
        seed: Seed of the bootstrap intervals of a root mean squared error.

    Returns:
        One record per slice: ``slice``, ``rows``, ``error`` (the error rate, or the root mean squared error), ``low``
        and ``high`` (its 95 % interval, Wilson's or the bootstrap's), ``worse`` (``low`` minus the error of all rows).

    Raises:
        DataError: if a column is missing, or outputs and rows differ in number.
    """
    in_range("least", least, 1, float("inf"))
    task, frame = _checked(task), _named(frame)
    if len(frame) != len(output):
        raise DataError(f"slices needs one output a row, got {len(output)} outputs for {len(frame)} rows")
    truth = _truth(frame, target, task)
    errors = _losses(task, output, truth)
    if isinstance(task, TabularClassification):
        errors = (_predictions(task, output).argmax(axis=1) != truth).astype(np.float64)
    overall = _overall(task, errors)
    kinds = infer_kinds(frame.drop(columns=[target]))
    chosen = [found.name for found in kinds if found.kind in USED and found.kind != "text"]
    records: list[dict[str, Any]] = []
    for name in chosen if columns is None else columns:
        for label, rows in _levels(name, _column(frame, name)):
            if len(rows) >= least:
                low, high = _interval(task, errors[rows], _generator(seed, label))
                record = {"slice": label, "rows": len(rows), "error": _overall(task, errors[rows])}
                records.append({**record, "low": low, "high": high, "worse": low - overall})
    return sorted(records, key=lambda record: -record["worse"])[:most]


# ---------------------------------------------------------------- pictures


def importance_figure(
    rows: Sequence[dict[str, Any]], name: str = "rise of the loss", *, most: int = 20, path: Any = None
) -> Picture:
    """Draws the importance of each column as bars, the most important one at the top.

    Args:
        rows: The result of `permutation_importance` or `shap_importance`.
        name: The label of the x axis.
        most: The most columns.
        path: A file to write the picture to.
    """
    shown, places = list(rows[:most]), range(min(most, len(rows)))
    figure = picture(5.5, 0.8 + 0.24 * max(len(shown), 2))
    axes, errors = figure.subplots(), [row.get("std", 0.0) for row in shown]
    axes.barh(places, [row["importance"] for row in shown], xerr=errors if any(errors) else None, ecolor="grey")
    axes.set_yticks(places, [f"{row['column']:.30}" for row in shown], fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel(name)
    axes.grid(alpha=0.3, axis="x")
    return finish(figure, path)


def dependence_figure(every: Sequence[Dependence], *, most_classes: int = 6, path: Any = None) -> Picture:
    """Draws the partial dependence on each of some columns: numbers as lines, levels as points.

    Args:
        every: Results of `partial_dependence`.
        most_classes: The most classes drawn, those that vary most; of two classes only the second.
        path: A file to write the picture to.
    """
    wide = min(3, max(1, len(every)))
    high = max(1, -(-len(every) // wide))
    figure = picture(3.2 * wide, 2.6 * high)
    spots = list(np.asarray(figure.subplots(high, wide, squeeze=False)).ravel())
    for axes, found in zip(spots, every, strict=False):
        _draw(axes, found, most_classes)
    for spare in spots[len(every) :]:
        spare.set_axis_off()
    return finish(figure, path)


def _draw(axes: Any, found: Dependence, most_classes: int) -> None:
    ranges = np.ptp(found.values, axis=0)
    shown = [1] if len(found.names) == 2 else np.sort(np.argsort(-ranges, kind="stable")[:most_classes]).tolist()
    number = found.kind == "number"
    x = list(found.grid) if number else list(range(len(found.grid)))
    for i in shown:
        style: dict[str, Any] = {"marker": "o", "markersize": 3, "linestyle": "-" if number else ":"}
        axes.plot(x, found.values[:, i].tolist(), label=f"{found.names[i]:.20}", **style)
    if not number:
        axes.set_xticks(x, [f"{value!s:.16}" for value in found.grid], rotation=90, fontsize=7, parse_math=False)
    axes.set_xlabel(f"{found.column:.30}", parse_math=False)
    axes.set_ylabel("probability" if len(found.names) > 1 else "value", fontsize=8)
    axes.grid(alpha=0.3)
    if len(found.names) > 1:
        for text in axes.legend(fontsize=7).get_texts():
            text.set_parse_math(False)


# ---------------------------------------------------------------- rows, answers, errors


def block_of(predictor: Predictor) -> ColumnsBlock:
    """Returns the block that encodes the columns of a predictor of a table.

    Args:
        predictor: A predictor of a table.

    Raises:
        ConfigError: if its input is not a table.
    """
    block = predictor.encoder.blocks[0]
    if not isinstance(block, ColumnsBlock):
        raise ConfigError(f"this needs a predictor of a table, got one whose input is a {type(block).__name__}")
    return block


def _outputs(predictor: Predictor, frame: pd.DataFrame) -> Tensor:
    return predictor.outputs(frame).output


def _checked(task: Task) -> TableTask:
    if not isinstance(task, (TabularClassification, TabularRegression)):
        raise ConfigError(f"this needs the task of a table, got a {type(task).__name__}")
    return task


def _generator(seed: int, name: str, turn: int = 0) -> np.random.Generator:
    return np.random.default_rng(key(seed, crc32(name.encode()), turn))


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    if not len(frame):
        raise DataError("the frame has no rows: there is nothing to explain")
    return frame.set_axis([str(name) for name in frame.columns], axis=1)


def drawn_rows(frame: pd.DataFrame, most_rows: int, seed: int) -> pd.DataFrame:
    """Returns a random sample of at most ``most_rows`` rows, in their order, with column names as strings.

    Args:
        frame: Raw rows.
        most_rows: The most rows.
        seed: Seed of the sampling.

    Raises:
        DataError: if it has no rows.
    """
    in_range("most_rows", most_rows, 1, float("inf"))
    frame = _named(frame)
    if len(frame) > most_rows:
        frame = frame.iloc[np.sort(_generator(seed, "rows").choice(len(frame), most_rows, replace=False))]
    return frame.reset_index(drop=True)


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    if name not in frame.columns:
        raise DataError(f"the table has no column {name!r}: {nearest(name, map(str, frame.columns))}")
    return series(frame, name)


def _truth(frame: pd.DataFrame, target: str, task: TableTask) -> np.ndarray:
    """The targets: class indices, int64 (N,), or numbers, float64 (N,)."""
    column = _column(frame, target)
    if isinstance(task, TabularRegression):
        numbers = np.asarray(pd.to_numeric(column, errors="coerce"), np.float64)
        if not np.isfinite(numbers).all():
            raise DataError(
                f"{target!r} must be a number in every row, got {column.iloc[int(np.argmin(np.isfinite(numbers)))]!r}"
            )
        return numbers
    known = {name: i for i, name in enumerate(task.vocab)}
    names = [(str(v), str(int(v)) if isinstance(v, float) and v.is_integer() else str(v)) for v in column.tolist()]
    found = np.array([known.get(name, known.get(whole, -1)) for name, whole in names], np.int64)
    if (found < 0).any():
        wrong = names[int(np.argmax(found < 0))][1]
        raise DataError(f"{target!r} has the class {wrong!r}, which the model does not know: {nearest(wrong, known)}")
    return found


def _predictions(task: TableTask, output: Tensor) -> np.ndarray:
    """Probabilities, float64 (N, classes), or values (N, 1)."""
    found = output.double()
    return (task.value(found)[:, None] if isinstance(task, TabularRegression) else torch.softmax(found, 1)).numpy()


def _losses(task: TableTask, output: Any, truth: np.ndarray) -> np.ndarray:
    """The log-loss or squared error of each row, float64 (N,)."""
    predicted = _predictions(task, output)
    if isinstance(task, TabularRegression):
        return np.square(predicted[:, 0] - truth)
    return -np.log(np.maximum(predicted[np.arange(len(truth)), truth], 1e-9))


def _overall(task: TableTask, losses: np.ndarray) -> float:
    mean = float(losses.mean())
    return mean**0.5 if isinstance(task, TabularRegression) else mean


def _interval(task: TableTask, errors: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The 95 % interval of an error rate by Wilson (1927), or of a root mean squared error by the bootstrap."""
    rows = len(errors)
    if isinstance(task, TabularRegression):
        means = [errors[rng.integers(0, rows, rows)].mean() for _ in range(BOOTSTRAPS)]
        low, high = np.sqrt(np.quantile(means, [0.025, 0.975])).tolist()
        return low, high
    rate, z2 = float(errors.mean()), NORMAL_95**2
    middle = (rate + z2 / (2 * rows)) / (1 + z2 / rows)
    half = NORMAL_95 * (rate * (1 - rate) / rows + z2 / (4 * rows**2)) ** 0.5 / (1 + z2 / rows)
    return max(0.0, middle - half), min(1.0, middle + half)


# ---------------------------------------------------------------- values of a column


def _ordered(column: pd.Series, kind: str) -> np.ndarray:
    """A column's values as float64 (N,) that sort like them, NaN where missing."""
    if kind == "date" or pd.api.types.is_datetime64_any_dtype(column):
        dates = read_dates(column)
        return np.where(dates.isna(), np.nan, dates.to_numpy("datetime64[s]").astype(np.float64))
    if kind == "boolean":
        return read_booleans(column)
    values = column.astype(object) if isinstance(column.dtype, pd.CategoricalDtype) else column
    found = np.asarray(pd.to_numeric(values, errors="coerce"), np.float64)
    return np.where(np.isfinite(found), found, np.nan)


def _grid(column: pd.Series, kind: str, points: int) -> tuple[tuple[Any, ...], np.ndarray]:
    """The values to set a column to, and the rows that hold them."""
    if kind in ("category", "high_cardinality"):
        codes, values = _coded(column)
        counts = np.bincount(codes[codes >= 0], minlength=len(values))
        chosen = np.argsort(-counts, kind="stable")[:points]
        places = np.array([np.argmax(codes == code) for code in chosen], np.int64)
        grid = tuple(values[code] for code in chosen)
    else:
        order = _ordered(column, kind)
        filled = np.flatnonzero(np.isfinite(order))
        filled = filled[np.argsort(order[filled], kind="stable")]
        distinct = filled[np.unique(order[filled], return_index=True)[1]]
        places = distinct
        if len(distinct) > points:
            places = filled[np.round(np.linspace(0.05, 0.95, points) * (len(filled) - 1)).astype(int)]
            places = places[np.unique(order[places], return_index=True)[1]]
        grid = tuple(order[places].tolist() if kind == "number" else map(_shown, column.iloc[places].tolist()))
    if not len(places):
        raise DataError(f"no row has a value in {column.name!r}: give rows that have some")
    return grid, places


def _shown(value: Any) -> str:
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d}" if value == value.normalize() else f"{value:%Y-%m-%d %H:%M}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _coded(column: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Each row's index among the names of a column's levels (-1: missing), and those names."""
    named = column.astype(object).map(_shown, na_action="ignore")
    codes, values = pd.factorize(named)
    return np.asarray(codes), [str(value) for value in values]


def _levels(name: str, column: pd.Series) -> list[tuple[str, np.ndarray]]:
    """The slices of a column: their names, and the positions of their rows."""
    kind = infer_kind(name, column).kind
    order = _ordered(column, kind) if kind in ("number", "date") else np.zeros(0)
    seen = order[np.isfinite(order)]
    if len(np.unique(seen)) > FEW_LEVELS:
        edges = np.unique(np.quantile(seen, [0.25, 0.5, 0.75], method="inverted_cdf"))
        codes = np.where(np.isfinite(order), np.searchsorted(edges, order), -1)
        inside = [np.flatnonzero(codes == code) for code in range(len(edges) + 1)]
        ends = [rows[np.argsort(order[rows], kind="stable")[[0, -1][: len(rows)]]] for rows in inside]
        values = [" … ".join(_shown(column.iloc[place]) for place in rows.tolist()) for rows in ends]
    else:
        codes, values = _coded(column)
    by_code = np.argsort(codes, kind="stable")
    parts = np.split(by_code, np.searchsorted(codes[by_code], range(len(values))))  # the first part is missing values
    return [(f"{name}: {value}", rows) for value, rows in zip(["missing", *values], parts, strict=True)]
