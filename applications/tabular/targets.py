"""Features made with the target: target encodings of categories, and predictions of a linear model on texts.

For the training rows they are made out of fold: each row's features are fitted on the other folds, so that the members
do not see a row's own target in them (Micci-Barreca 2001; Wolpert 1992).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FOLDS = 5
SMOOTHING = 10.0  # the weight of the overall mean in a level's mean, in rows
MOST_CLASSES = 12  # the most classes of the target for which features are made


def target_columns(target: np.ndarray, classes: int) -> np.ndarray:
    """Returns the target as columns, float64 (N, outputs): a number, or indicators of classes.

    Of two classes only the second has a column; of many only the most frequent ones.

    Args:
        target: Class indices, or numbers (N,).
        classes: The number of classes; 1 for a number.
    """
    if classes == 1:
        return target.astype(np.float64)[:, None]
    counts = np.bincount(target, minlength=classes)
    shown = np.array([1]) if classes == 2 else np.sort(np.argsort(-counts, kind="stable")[:MOST_CLASSES])
    return (target[:, None] == shown).astype(np.float64)


def outputs_of(classes: int) -> int:
    """Returns the number of columns of `target_columns`."""
    return 1 if classes <= 2 else min(classes, MOST_CLASSES)


def out_of_fold(
    rows: int, seed: int, learn: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]], width: int
) -> np.ndarray:
    """Returns out-of-fold features of training rows, float32 (N, width): each row's are fitted on the other folds.

    Args:
        rows: N, the number of rows.
        seed: Seed of the folds.
        learn: Fits on some positions; returns a function from other positions to their features.
        width: Features per row.
    """
    features = np.zeros((rows, width), np.float32)
    fold = np.random.default_rng(seed).permutation(rows) % FOLDS
    for number in range(FOLDS):
        held = np.flatnonzero(fold == number)
        if len(held):
            features[held] = learn(np.flatnonzero(fold != number))(held)
    return features


def level_means(codes: np.ndarray, size: int, target: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Returns for each position of a category the smoothed mean of the target and log(1 + its number of rows).

    Args:
        codes: int64 (N,) positions.
        size: The number of positions.
        target: float64 (N, outputs).
        prior: float64 (outputs,), the mean of a level without rows.

    Returns:
        float32 (size, outputs + 1).
    """
    counts = np.bincount(codes, minlength=size)
    sums = np.stack([np.bincount(codes, weights=column, minlength=size) for column in target.T], axis=1)
    means = (sums + SMOOTHING * prior) / (counts[:, None] + SMOOTHING)
    return np.concatenate([means, np.log1p(counts)[:, None]], axis=1).astype(np.float32)


class TargetMeans(nn.Module):
    """Target encoding: the smoothed mean target of each level of each category, and its frequency.

    Args:
        sizes: The number of positions of each category.
        outputs: Columns of the target; see `target_columns`.
    """

    table: Tensor

    def __init__(self, sizes: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.sizes, self.outputs = sizes, outputs
        self.register_buffer("table", torch.zeros(sum(sizes), outputs + 1))

    @property
    def width(self) -> int:
        """Features per row."""
        return len(self.sizes) * (self.outputs + 1)

    def _table(self, codes: np.ndarray, target: np.ndarray, prior: np.ndarray) -> np.ndarray:
        tables = [level_means(codes[:, i], size, target, prior) for i, size in enumerate(self.sizes)]
        return np.concatenate([np.zeros((0, self.outputs + 1), np.float32), *tables])

    def _look_up(self, table: np.ndarray, codes: np.ndarray) -> np.ndarray:
        starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64) if self.sizes else np.zeros(0, int)
        return table[codes + starts].reshape(len(codes), self.width)

    def fit(self, codes: np.ndarray, target: np.ndarray, seed: int) -> np.ndarray:
        """Fits the means, and returns the out-of-fold features of the same rows, float32 (N, width).

        Args:
            codes: int64 (N, m) positions.
            target: float64 (N, outputs).
            seed: Seed of the folds.
        """
        prior = target.mean(axis=0)
        self.table.copy_(torch.from_numpy(self._table(codes, target, prior)))

        def learn(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            table = self._table(codes[rows], target[rows], prior)
            return lambda held: self._look_up(table, codes[held])

        return out_of_fold(len(codes), seed, learn, self.width)

    def features(self, codes: np.ndarray) -> np.ndarray:
        """Returns the features of new rows, float32 (N, width)."""
        return self._look_up(self.table.numpy(), codes)


def word_counts(text: np.ndarray, buckets: int) -> Any:
    """Returns the counts of each hash bucket in each row, as a sparse matrix (N, buckets)."""
    from scipy.sparse import csr_matrix

    used = text > 0
    ends = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
    counts = csr_matrix((np.ones(int(ends[-1]), np.float32), text[used].astype(np.int32), ends), (len(text), buckets))
    counts.sum_duplicates()
    return counts


def linear_columns(features: Any, target: np.ndarray, classes: bool, model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights (F, outputs) and biases (outputs,) of a linear model fitted to each column of the target.

    Where nothing can be fitted (no features, or a class that is always or never present) the bias alone gives the mean.

    Args:
        features: (N, F), dense or sparse.
        target: float64 (N, outputs).
        classes: Whether they are class indicators.
        model: A scikit-learn model, refitted for each column.
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
    """The predictions of a linear model on words: tf-idf weights, normalised to length 1 per text.

    Args:
        buckets: Hash buckets of words.
        outputs: Columns of the target; see `target_columns`.
        classes: Whether they are class indicators (logistic regression) or a number (ridge regression).
    """

    def __init__(self, buckets: int, outputs: int, classes: bool) -> None:
        super().__init__()
        self.buckets, self.width, self.classes = buckets, outputs, classes
        self.register_buffer("rarity", torch.zeros(buckets))
        self.register_buffer("weights", torch.zeros(buckets, outputs))
        self.register_buffer("bias", torch.zeros(outputs))

    def _weighed(self, counts: Any, rarity: np.ndarray) -> Any:
        from sklearn.preprocessing import normalize

        weighed = counts.copy()
        weighed.data = (1 + np.log(weighed.data)) * rarity[weighed.indices]
        return normalize(weighed)

    def _learn(self, counts: Any, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        from sklearn.linear_model import LogisticRegression, Ridge

        rows = counts.shape[0]
        seen = np.bincount(counts.indices, minlength=self.buckets)
        # Smoothed inverse document frequency, as scikit-learn's; words that occur in one text only are ignored.
        rarity = np.where(seen > 1, np.log((1 + rows) / (1 + seen)) + 1, 0).astype(np.float32)
        used = np.flatnonzero(rarity)
        weighed = self._weighed(counts, rarity)[:, used]
        model = LogisticRegression(C=3.0, solver="liblinear") if self.classes else Ridge(1.0, solver="lsqr")
        weights = np.zeros((self.buckets, self.width), np.float32)
        weights[used], bias = linear_columns(weighed, target, self.classes, model)
        return rarity, weights, bias

    def fit(self, text: np.ndarray, target: np.ndarray, seed: int) -> np.ndarray:
        """Fits the weights, and returns the out-of-fold scores of the same rows, float32 (N, outputs).

        Args:
            text: int32 (N, t) hash buckets, padded with 0.
            target: float64 (N, outputs).
            seed: Seed of the folds.
        """
        counts = word_counts(text, self.buckets)
        for name, array in zip(("rarity", "weights", "bias"), self._learn(counts, target), strict=True):
            getattr(self, name).copy_(torch.from_numpy(array))

        def learn(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            rarity, weights, bias = self._learn(counts[rows], target[rows])
            return lambda held: self._weighed(counts[held], rarity) @ weights + bias

        return out_of_fold(len(text), seed, learn, self.width)

    def features(self, text: np.ndarray) -> np.ndarray:
        """Returns the scores of new rows, float32 (N, outputs)."""
        rarity, weights, bias = (getattr(self, name).numpy() for name in ("rarity", "weights", "bias"))
        weighed = self._weighed(word_counts(text, self.buckets), rarity)
        return np.asarray(weighed @ weights + bias, np.float32)
