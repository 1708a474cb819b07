"""Features from text embeddings: out-of-fold predictions of a linear model, and principal components."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from applications.tabular.targets import linear_columns, out_of_fold

DIRECTIONS = 16  # principal components
GRID = 4096.0  # features are rounded to 1/4096: trees split at seen values, so a GPU's other last bits must not matter


class EmbeddingScores(nn.Module):
    """The predictions of a linear model on text embeddings, and the embeddings' principal components.

    Args:
        width: D, the dimension of a vector.
        outputs: Columns of the target; see `targets.target_columns`.
        classes: Whether they are class indicators (logistic regression) or a number (ridge regression).
    """

    def __init__(self, width: int, outputs: int, classes: bool) -> None:
        super().__init__()
        self.outputs, self.classes, self.directions = outputs, classes, min(DIRECTIONS, width)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("components", torch.zeros(width, self.directions))
        self.register_buffer("weights", torch.zeros(width, outputs))
        self.register_buffer("bias", torch.zeros(outputs))

    @property
    def width(self) -> int:
        """Features per row."""
        return self.outputs + self.directions

    def _learn(self, vectors: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.linear_model import LogisticRegression, Ridge

        model: Any = LogisticRegression(C=10.0, max_iter=300) if self.classes else Ridge(1.0)
        return linear_columns(vectors, target, self.classes, model)

    def fit(self, vectors: np.ndarray, target: np.ndarray, seed: int) -> np.ndarray:
        """Fits both, and returns the features of the same rows, float32 (N, width), with out-of-fold predictions.

        Args:
            vectors: float32 (N, D).
            target: float64 (N, outputs).
            seed: Seed of the folds.
        """
        mean = vectors.mean(axis=0)
        centred = (vectors - mean).astype(np.float64)
        _, eigenvectors = np.linalg.eigh(centred.T @ centred)
        directions = eigenvectors[:, ::-1][:, : self.directions]
        # An eigenvector's sign is arbitrary: make its largest entry positive, so that every machine agrees.
        directions = directions * np.where(
            directions[np.abs(directions).argmax(axis=0), range(self.directions)] < 0, -1, 1
        )
        weights, bias = self._learn(vectors, target)
        arrays = {"mean": mean, "components": directions.astype(np.float32), "weights": weights, "bias": bias}
        for name, array in arrays.items():
            getattr(self, name).copy_(torch.from_numpy(np.ascontiguousarray(array)))

        def learn(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            weights, bias = self._learn(vectors[rows], target[rows])
            return lambda held: vectors[held] @ weights + bias

        scores = out_of_fold(len(vectors), seed, learn, self.outputs)
        return np.concatenate([_rounded(scores), self.features(vectors)[:, self.outputs :]], axis=1)

    def features(self, vectors: np.ndarray) -> np.ndarray:
        """Returns the features of new rows, float32 (N, width)."""
        mean, components, weights, bias = (
            getattr(self, name).numpy() for name in ("mean", "components", "weights", "bias")
        )
        return _rounded(np.concatenate([vectors @ weights + bias, (vectors - mean) @ components], axis=1))


def _rounded(features: np.ndarray) -> np.ndarray:
    return (np.round(features * GRID) / GRID).astype(np.float32)
