"""Features made with the target: the mean target of a category's level, and what a linear model says of a text.

Made for the rows that they were learned from out of fold: each row's features come from the other folds, so that what
learns from them does not learn a row's own target (Micci-Barreca 2001; Wolpert 1992).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FOLDS = 5
SMOOTHING = 10.0  # rows that the overall mean counts for beside those of a level
MOST_CLASSES = 12  # of the target, for each of which a feature is made


def target_columns(target: np.ndarray, classes: int) -> np.ndarray:
    """Returns what the features tell the mean of, float64 (N, outputs): a number, or the marks of the classes.

    Of two classes the second is told; of many the most frequent ones.

    Args:
        target: Class positions, or numbers (N,).
        classes: How many classes there are; 1 for a number.
    """
    if classes == 1:
        return target.astype(np.float64)[:, None]
    counts = np.bincount(target, minlength=classes)
    shown = np.array([1]) if classes == 2 else np.sort(np.argsort(-counts, kind="stable")[:MOST_CLASSES])
    return (target[:, None] == shown).astype(np.float64)


def outputs_of(classes: int) -> int:
    """Returns how many columns `target_columns` gives."""
    return 1 if classes <= 2 else min(classes, MOST_CLASSES)


def out_of_fold(
    rows: int, seed: int, learn: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]], width: int
) -> np.ndarray:
    """Returns features of the rows that they are learned from, float32 (N, width), each from the other folds.

    Args:
        rows: N.
        seed: Of the folds.
        learn: From positions to learn from to what gives the features of other positions.
        width: Features a row.
    """
    found = np.zeros((rows, width), np.float32)
    fold = np.random.default_rng(seed).permutation(rows) % FOLDS
    for number in range(FOLDS):
        held = np.flatnonzero(fold == number)
        if len(held):
            found[held] = learn(np.flatnonzero(fold != number))(held)
    return found


def level_means(codes: np.ndarray, size: int, target: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Returns for each position of a category the smoothed mean of the target and the log of its rows.

    Args:
        codes: int64 (N,) positions.
        size: How many positions there are.
        target: float64 (N, outputs).
        prior: float64 (outputs,), the mean that a level without rows has.

    Returns:
        float32 (size, outputs + 1).
    """
    counts = np.bincount(codes, minlength=size)
    sums = np.stack([np.bincount(codes, weights=column, minlength=size) for column in target.T], axis=1)
    means = (sums + SMOOTHING * prior) / (counts[:, None] + SMOOTHING)
    return np.concatenate([means, np.log1p(counts)[:, None]], axis=1).astype(np.float32)


class TargetMeans(nn.Module):
    """The smoothed mean target of each level of each category, and how often it occurs.

    Args:
        sizes: How many positions each category has.
        outputs: Columns of the target; see `target_columns`.
    """

    table: Tensor

    def __init__(self, sizes: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.sizes, self.outputs = sizes, outputs
        self.register_buffer("table", torch.zeros(sum(sizes), outputs + 1))

    @property
    def width(self) -> int:
        """Features a row."""
        return len(self.sizes) * (self.outputs + 1)

    def _table(self, codes: np.ndarray, target: np.ndarray, prior: np.ndarray) -> np.ndarray:
        tables = [level_means(codes[:, i], size, target, prior) for i, size in enumerate(self.sizes)]
        return np.concatenate([np.zeros((0, self.outputs + 1), np.float32), *tables])

    def _look_up(self, table: np.ndarray, codes: np.ndarray) -> np.ndarray:
        starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64) if self.sizes else np.zeros(0, int)
        return table[codes + starts].reshape(len(codes), self.width)

    def fit(self, codes: np.ndarray, target: np.ndarray, seed: int) -> np.ndarray:
        """Learns the means, and returns the features of these same rows, float32 (N, width), out of fold.

        Args:
            codes: int64 (N, m) positions.
            target: float64 (N, outputs).
            seed: Of the folds.
        """
        prior = target.mean(axis=0)
        self.table.copy_(torch.from_numpy(self._table(codes, target, prior)))

        def learn(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            table = self._table(codes[rows], target[rows], prior)
            return lambda held: self._look_up(table, codes[held])

        return out_of_fold(len(codes), seed, learn, self.width)

    def features(self, codes: np.ndarray) -> np.ndarray:
        """Returns the features of other rows, float32 (N, width)."""
        return self._look_up(self.table.numpy(), codes)


def word_counts(text: np.ndarray, buckets: int) -> Any:
    """Returns how often each position occurs in each row, as a sparse matrix (N, buckets)."""
    from scipy.sparse import csr_matrix

    used = text > 0
    ends = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
    counts = csr_matrix((np.ones(int(ends[-1]), np.float32), text[used].astype(np.int32), ends), (len(text), buckets))
    counts.sum_duplicates()
    return counts


def linear_columns(features: Any, target: np.ndarray, classes: bool, model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights (F, outputs) and biases (outputs,) of a linear model fitted to each column of the target.

    Where there is nothing to fit (no features, or a class that is always or never there) the bias alone tells the mean.

    Args:
        features: (N, F), dense or sparse.
        target: float64 (N, outputs).
        classes: Whether they are marks of classes.
        model: scikit-learn's, fitted anew to each column.
    """
    weights, bias = np.zeros((features.shape[1], target.shape[1])), np.zeros(target.shape[1])
    for i, column in enumerate(target.T):
        if not features.shape[1] or (classes and len(np.unique(column)) < 2):
            bias[i] = column.mean() if not classes else 6.0 if column.mean() > 0.5 else -6.0
            continue
        model.fit(features, column)
        weights[:, i], bias[i] = model.coef_.reshape(-1), float(np.reshape(model.intercept_, -1)[0])
    return weights.astype(np.float32), bias.astype(np.float32)


class TextScores(nn.Module):
    """What a linear model of the words says: rarer words count more (tf-idf), each text's weights have length 1.

    Args:
        buckets: Positions that words are hashed to.
        outputs: Columns of the target; see `target_columns`.
        classes: Whether they are marks of classes (logistic regression) or a number (ridge regression).
    """

    def __init__(self, buckets: int, outputs: int, classes: bool) -> None:
        super().__init__()
        self.buckets, self.width, self.classes = buckets, outputs, classes
        self.register_buffer("rarity", torch.zeros(buckets))
        self.register_buffer("weights", torch.zeros(buckets, outputs))
        self.register_buffer("bias", torch.zeros(outputs))

    def _weighed(self, counts: Any, rarity: np.ndarray) -> Any:
        from sklearn.preprocessing import normalize

        found = counts.copy()
        found.data = (1 + np.log(found.data)) * rarity[found.indices]
        return normalize(found)

    def _learn(self, counts: Any, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        from sklearn.linear_model import LogisticRegression, Ridge

        rows = counts.shape[0]
        seen = np.bincount(counts.indices, minlength=self.buckets)
        rarity = np.where(seen > 1, np.log((1 + rows) / (1 + seen)) + 1, 0).astype(np.float32)
        used = np.flatnonzero(rarity)
        weighed = self._weighed(counts, rarity)[:, used]
        model = LogisticRegression(C=3.0, solver="liblinear") if self.classes else Ridge(1.0, solver="lsqr")
        weights = np.zeros((self.buckets, self.width), np.float32)
        weights[used], bias = linear_columns(weighed, target, self.classes, model)
        return rarity, weights, bias

    def fit(self, text: np.ndarray, target: np.ndarray, seed: int) -> np.ndarray:
        """Learns the weights, and returns the scores of these same rows, float32 (N, outputs), out of fold.

        Args:
            text: int32 (N, t) positions, 0 for none.
            target: float64 (N, outputs).
            seed: Of the folds.
        """
        counts = word_counts(text, self.buckets)
        for name, array in zip(("rarity", "weights", "bias"), self._learn(counts, target), strict=True):
            getattr(self, name).copy_(torch.from_numpy(array))

        def learn(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            rarity, weights, bias = self._learn(counts[rows], target[rows])
            return lambda held: self._weighed(counts[held], rarity) @ weights + bias

        return out_of_fold(len(text), seed, learn, self.width)

    def features(self, text: np.ndarray) -> np.ndarray:
        """Returns the scores of other rows, float32 (N, outputs)."""
        rarity, weights, bias = (getattr(self, name).numpy() for name in ("rarity", "weights", "bias"))
        weighed = self._weighed(word_counts(text, self.buckets), rarity)
        return np.asarray(weighed @ weights + bias, np.float32)
