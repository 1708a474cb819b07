"""Checks of a table before a model is fitted to it: leakage, contradictory rows, shift between parts."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
from pandas.util import hash_pandas_object

from applications.tabular.booster import Booster, BoosterConfig
from applications.tabular.explain import NORMAL_95, drawn_rows
from applications.tabular.fold import Fold, Shape
from applications.tabular.shap import feature_names
from applications.tabular.targets import TargetMeans, TextScores, target_columns
from common.blocks.column_kinds import USED, Found, infer_kinds, read_dates, series
from common.blocks.columns import ColumnsBlock
from common.errors import DataError, in_range, nearest

NEARLY = 0.98  # AUC or R2 above which one column predicts the target nearly perfectly
LEAST_AUC, LEAST_R2 = 0.55, 0.1  # above these the order of an identifier is predictive
FOLDS = 3
LEAST_ROWS = 20  # with fewer rows no column is tested
TREES = BoosterConfig(rounds=60, learning_rate=0.1, depth=4, subsample=0.8, columns=0.8)


def leakage(
    frame: pd.DataFrame, target: str, classes: bool, *, parts: np.ndarray | None = None, time: str | None = None,
    ignore: Sequence[str] = (), most_rows: int = 5000, seed: int = 0,
) -> list[dict[str, Any]]:  # fmt: skip
    """Returns warnings of what may make a model look better than it is (leakage).

    It checks for a single column that predicts the target nearly perfectly (out of fold); an identifier whose order
    predicts it; a column named after the target; rows that are equal in every column but the target; rows of train that
    are also in valid or test; and rows of valid from before the last row of train, where the split is not by time.

    Args:
        frame: Raw rows with the target.
        target: The target's column.
        classes: Whether it names classes; else it is a number.
        parts: ``train``, ``valid`` or ``test`` of each row; all are train when None.
        time: The column of times; every date column is checked when None.
        ignore: Columns that are not features.
        most_rows: The most rows on which columns are tested; more are sampled.
        seed: Seed of the folds and of the sampled rows.

    Returns:
        One record per warning: ``check``, ``column`` (or ""), ``figure``, ``warning``.

    Raises:
        DataError: if a column is missing, or parts and rows differ in number.
    """
    in_range("most_rows", most_rows, 20, float("inf"))
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1).reset_index(drop=True)
    for name in (target, *([] if time is None else [time])):
        if name not in frame.columns:
            raise DataError(f"the table has no column {name!r}: {nearest(name, map(str, frame.columns))}")
    if parts is not None and len(parts) != len(frame):
        raise DataError(f"parts must name the part of each row, got {len(parts)} for {len(frame)} rows")
    where = np.full(len(frame), "train") if parts is None else np.asarray(parts)
    train = frame.loc[where == "train"]
    if not len(train):
        raise DataError(f"parts has no 'train', got {sorted(set(where.tolist()))[:5]}: name the rows of train so")
    kinds = infer_kinds(train.drop(columns=[target, *(name for name in ignore if name in frame.columns)]))
    features = [found.name for found in kinds if found.kind not in ("identifier", "ignored")]
    return [
        *_alone(train, target, classes, kinds, most_rows, seed),
        *_namesakes([found.name for found in kinds], target),
        *_contradictions(train, target, features, classes),
        *_shared(frame, where, features),
        *_times(frame, where, [time] if time else [found.name for found in kinds if found.kind == "date"], time),
    ]


def _warning(check: str, column: str, figure: float, warning: str) -> dict[str, Any]:
    return {"check": check, "column": column, "figure": figure, "warning": warning}


# ---------------------------------------------------------------- one column alone


def _alone(
    train: pd.DataFrame, target: str, classes: bool, kinds: list[Found], most_rows: int, seed: int
) -> list[dict[str, Any]]:
    some = drawn_rows(train, most_rows, seed)
    truth, count = _truth(series(some, target), classes)
    warnings: list[dict[str, Any]] = []
    if len(some) < LEAST_ROWS or not np.ptp(truth, axis=0).any():
        return warnings
    measure = "AUC" if classes else "R2"
    for kind in kinds:
        name, why = kind.name, ""
        if kind.kind in USED:
            figure = _figure(_predicted(some, kind, truth, count, seed), truth, classes)
            if figure > NEARLY:
                why = f"alone says {target!r} nearly perfectly: is it known when a prediction is made?"
        elif kind.kind == "identifier":
            order = pd.factorize(series(some, name), sort=True)[0].astype(np.float64)[:, None]
            figure = _figure(_tree(order, truth, seed), truth, classes)
            if _low(figure, truth, classes) > (LEAST_AUC if classes else LEAST_R2):
                why = f"is an identifier ({kind.why}), yet its order says {target!r}: divide by time or by group"
        else:
            continue
        if why:
            check = "identifier" if kind.kind == "identifier" else "one column"
            warnings.append(_warning(check, name, figure, f"{name!r} ({measure} {figure:.3f} out of fold) {why}"))
    return warnings


def _truth(column: pd.Series, classes: bool) -> tuple[np.ndarray, int]:
    """The target's columns, float64 (N, outputs), as `target_columns` makes them, and the number of classes."""
    if classes:
        codes, names = pd.factorize(column.astype(object).map(str))
        return target_columns(np.asarray(codes), max(2, len(names))), max(2, len(names))
    values = np.asarray(pd.to_numeric(column, errors="coerce"), np.float64)
    if not np.isfinite(values).all():
        wrong = column.iloc[int(np.argmin(np.isfinite(values)))]
        raise DataError(f"{column.name!r} must be a number in every row, got {wrong!r}: correct it, or set classes")
    return ((values - values.mean()) / (values.std() or 1.0))[:, None], 1


def _predicted(frame: pd.DataFrame, kind: Found, truth: np.ndarray, count: int, seed: int) -> np.ndarray:
    """One column's out-of-fold predictions of the target, float64 (N, …): by level means, a text's words, or a tree."""
    given = {"number": "numbers", "date": "dates", "text": "texts"}.get(kind.kind, "categories")
    block = replace(ColumnsBlock(), **{given: (kind.name,)}).setup(frame)
    x, outputs = block.encode_many(frame), truth.shape[1]
    if block.category_names:
        return TargetMeans(block.sizes, outputs).fit(x["categories"].numpy(), truth, seed)[:, :outputs]
    if block.ngrams:
        return TextScores(block.buckets, outputs, count > 1).fit(x["text"].numpy(), truth, seed)
    numbers = x["numbers"].double().numpy()
    if count > 1:
        return _tree(np.where(x["missing"].numpy(), np.nan, numbers), truth, seed)
    line = numbers * np.where((numbers * truth).mean(axis=0) < numbers.mean(axis=0) * truth.mean(), -1, 1)
    return np.concatenate([_tree(np.where(x["missing"].numpy(), np.nan, numbers), truth, seed), line], axis=1)


def _tree(numbers: np.ndarray, truth: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.tree import DecisionTreeRegressor

    folds = KFold(FOLDS, shuffle=True, random_state=seed)
    tree = DecisionTreeRegressor(max_depth=6, min_samples_leaf=3, random_state=seed)
    return np.asarray(cross_val_predict(tree, numbers, truth, cv=folds)).reshape(len(truth), -1)


def _figure(predicted: np.ndarray, truth: np.ndarray, classes: bool) -> float:
    """The mean AUC over the classes, or the highest squared correlation (0 for a negative correlation)."""
    from sklearn.metrics import roc_auc_score

    if classes:
        used = [i for i in range(truth.shape[1]) if np.ptp(truth[:, i]) > 0]
        return float(np.mean([roc_auc_score(truth[:, i], predicted[:, i]) for i in used]))
    varying = [column for column in predicted.T if np.ptp(column) > 0]
    return float(max([np.corrcoef(column, truth[:, 0])[0, 1] for column in varying] + [0.0]) ** 2)


def _low(figure: float, truth: np.ndarray, classes: bool) -> float:
    """The lower end of the 95 % confidence interval of a `_figure` (for a correlation by Fisher's z)."""
    if classes:
        positive = float(truth.sum(axis=0).mean())
        return auc_interval(figure, positive, len(truth) - positive)[0]
    z = np.arctanh(min(figure, 1 - 1e-12) ** 0.5) - NORMAL_95 / (len(truth) - 3) ** 0.5
    return float(np.tanh(max(z, 0.0)) ** 2)


def auc_interval(auc: float, positive: float, negative: float) -> tuple[float, float]:
    """Returns the 95 % confidence interval of an area under the ROC curve (Hanley and McNeil 1982).

    Args:
        auc: The area.
        positive: The number of rows of one class.
        negative: The number of rows of the other.

    Examples:
        >>> [round(end, 3) for end in auc_interval(0.5, 100, 100)]
        [0.42, 0.58]
    """
    one, two = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (positive - 1) * (one - auc**2) + (negative - 1) * (two - auc**2)
    half = NORMAL_95 * (max(spread, 0.0) / (positive * negative)) ** 0.5
    return max(0.0, auc - half), min(1.0, auc + half)


# ---------------------------------------------------------------- names, rows, times


def _tokens(name: str) -> str:
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return "_" + "_".join(re.findall(r"[^\W_]+", split.lower())) + "_"


def _namesakes(names: list[str], target: str) -> list[dict[str, Any]]:
    """Warns of columns whose names contain the target's; a short name must match whole words."""
    wanted = _tokens(target)
    wanted = wanted.strip("_") if len(target) >= 4 else wanted
    return [
        _warning("name", name, 1.0, f"{name!r} is called after the target {target!r}: is it made from it?")
        for name in names
        if wanted and wanted in _tokens(name)
    ]


def _keys(frame: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """A hash of each row's cells in some columns, uint64 (N,)."""
    cells = pd.DataFrame({name: series(frame, name).astype(object).map(str) for name in columns})
    return np.asarray(cast(Any, hash_pandas_object)(cells, index=False))


def _contradictions(train: pd.DataFrame, target: str, columns: list[str], classes: bool) -> list[dict[str, Any]]:
    """Warns of rows that are equal in every column but the target."""
    if not columns:
        return []
    codes = pd.factorize(series(train, target).astype(object).map(str))[0]
    rows = pd.factorize(_keys(train, columns))[0].astype(np.int64)
    # One number per pair (distinct row, target): a row in several pairs contradicts itself.
    pairs, counts = np.unique(rows * (codes.max() + 1) + codes, return_counts=True)
    group = pairs // (codes.max() + 1)
    share = float((np.bincount(group) > 1)[rows].mean())
    if not share:
        return []
    text = f"{share:.1%} of the rows equal another one in every column, but differ in {target!r}"
    if classes:
        best = np.zeros(int(group.max()) + 1)
        np.maximum.at(best, group, counts)
        text += f": no model is right on more than {best.sum() / len(train):.1%}"
    return [_warning("contradiction", "", share, text)]


def _shared(frame: pd.DataFrame, where: np.ndarray, columns: list[str]) -> list[dict[str, Any]]:
    """Warns of rows of valid and test that are in train as well."""
    if not columns:
        return []
    keys, warnings = _keys(frame, columns), list[dict[str, Any]]()
    train = keys[where == "train"]
    own = float(pd.Series(train).duplicated(keep=False).mean())
    for part in ("valid", "test"):
        share = float(np.isin(keys[where == part], train).mean()) if (where == part).any() else 0.0
        if share:
            text = f"{share:.1%} of the rows of {part} are in train as well, equal in every column"
            warnings.append(_warning("duplicate", "", share, f"{text} ({own:.1%} of train's own have a twin there)"))
    return warnings


def _times(frame: pd.DataFrame, where: np.ndarray, names: list[str], given: str | None) -> list[dict[str, Any]]:
    """Warns of time columns in which rows of valid are earlier than the last row of train."""
    warnings: list[dict[str, Any]] = []
    for name in names if (where == "valid").any() else []:
        column = series(frame, name)
        values = np.asarray(column if pd.api.types.is_numeric_dtype(column) else read_dates(column))
        gone = np.asarray(pd.isna(values))
        train, valid = values[(where == "train") & ~gone], values[(where == "valid") & ~gone]
        share = float((valid < train.max()).mean()) if len(train) and len(valid) else 0.0
        if share:
            text = f"{share:.1%} of the rows of valid lie before the last {name!r} of train"
            if given is None:
                text += f": if the model is to predict what comes after, divide by time (time={name!r})"
            else:
                text += ": the model is measured on what it could have known, divide by time"
            warnings.append(_warning("time", name, share, text))
    return warnings


# ---------------------------------------------------------------- do two parts differ?


def adversarial_validation(
    train: pd.DataFrame, test: pd.DataFrame, ignore: Sequence[str] = (), seed: int = 0, *, most_rows: int = 10_000
) -> dict[str, Any]:
    """Returns how well boosted trees distinguish the rows of two parts, and by which columns.

    An AUC of 0.5 means that they cannot; if it is well above, metrics on one part need not hold for the other.

    Args:
        train: Raw rows of one part.
        test: Raw rows of the other; columns that only one has are left out.
        ignore: Columns that are left out (the target, the part), in addition to identifiers.
        seed: Seed of the folds, the trees, and the sampled rows.
        most_rows: The most rows of each part; more are sampled.

    Returns:
        ``auc`` (the mean over three folds), ``low``, ``high`` (its 95 % interval), ``rows`` (the number of rows used of
        both parts), ``columns`` (records of ``column`` and ``gain``, its share of the total gain, largest first).

    Raises:
        DataError: if a part has too few rows, or they share no usable column.
    """
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold

    frames = [drawn_rows(part, most_rows, seed) for part in (train, test)]
    for name, frame in zip(("train", "test"), frames, strict=True):
        if len(frame) < LEAST_ROWS:
            raise DataError(f"{name} has {len(frame)} rows, at least {LEAST_ROWS} are needed to tell parts apart")
    common = [name for name in frames[0].columns if name in frames[1].columns and name not in ignore]
    ids = {c.name for frame in frames for c in infer_kinds(frame.loc[:, common]) if c.kind == "identifier"}
    whole = pd.concat([frame.loc[:, [n for n in common if n not in ids]] for frame in frames], ignore_index=True)
    block = ColumnsBlock(infer=True).setup(whole)
    x = block.encode_many(whole)
    part = np.repeat([0, 1], [len(frame) for frame in frames])
    areas, gains = list[float](), dict[str, float]()
    for learned, held in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(part, part):
        fold, trees = _told_apart({name: t[learned] for name, t in x.items()}, part[learned], block, seed)
        scores = trees.scores(fold.matrix(fold.rows({name: t[held] for name, t in x.items()})))
        areas.append(float(roc_auc_score(part[held], scores[:, 0])))
        names = feature_names(fold, block)
        for feature, gain in trees.booster.get_score(importance_type="total_gain").items():
            column = names[int(feature[1:])][1]
            gains[column] = gains.get(column, 0.0) + float(gain)
    auc, total = float(np.mean(areas)), sum(gains.values()) or 1.0
    low, high = auc_interval(auc, float(part.sum()), float(len(part) - part.sum()))
    columns = [{"column": name, "gain": gain / total} for name, gain in sorted(gains.items(), key=lambda e: -e[1])]
    return {"auc": auc, "low": low, "high": high, "rows": len(part), "columns": columns}


def _told_apart(x: dict[str, Any], part: np.ndarray, block: ColumnsBlock, seed: int) -> tuple[Fold, Booster]:
    """Fits trees to the part of each row; returns them with the fold that makes their features."""
    buckets = block.buckets if block.ngrams else 0
    fold = Fold(Shape(numbers=x["numbers"].shape[1], sizes=block.sizes, buckets=buckets, classes=2), (), seed)
    rows = fold.fit_features(x, part)
    trees = Booster(TREES, "binary:logistic", fold.features, fold.native, 1, seed)
    trees.fit(fold.matrix(rows), part)
    return fold, trees
