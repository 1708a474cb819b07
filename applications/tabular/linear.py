"""The linear member: piecewise-linear numbers, one weight per level; fitted by scikit-learn."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from applications.tabular.piecewise import PiecewiseLinear, quantile_edges

BINS = 16


class LinearModel(nn.Module):
    """A weight for each bin of each number and each level of each category.

    Args:
        numbers: K, the number of numeric features.
        sizes: The number of positions of each category.
        outputs: The number of classes, or 1 for a number.
    """

    weights: Tensor
    bias: Tensor

    def __init__(self, numbers: int, sizes: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.sizes, self.outputs = sizes, outputs
        self.encode = PiecewiseLinear(numbers, BINS)
        self.columns = numbers * (BINS + 1) + sum(sizes)
        self.register_buffer("weights", torch.zeros(self.columns, outputs))
        self.register_buffer("bias", torch.zeros(outputs))

    def design(self, x: dict[str, Tensor]) -> Any:
        """Returns the features of each row as a sparse matrix (N, columns)."""
        from scipy.sparse import csr_matrix, hstack

        numbers = self.encode(x["numbers"]).flatten(1).numpy()
        codes = x["categories"].numpy()
        rows, places = len(codes), np.arange(len(codes))
        parts: list[Any] = [csr_matrix(numbers), csr_matrix(x["missing"].numpy().astype(np.float32))]
        for i, size in enumerate(self.sizes):
            parts.append(csr_matrix((np.ones(rows, np.float32), (places, codes[:, i])), (rows, size)))
        return hstack(parts, format="csr")

    def fit(self, x: dict[str, Tensor], y: np.ndarray) -> None:
        """Fits the weights.

        Args:
            x: The dictionary of a `ColumnsBlock`.
            y: Class positions, or standardised numbers (N,).
        """
        from sklearn.linear_model import LogisticRegression, Ridge

        self.encode.set(quantile_edges(x["numbers"].numpy(), x["missing"].numpy(), BINS))
        design = self.design(x)
        weights, bias = np.zeros((self.columns, self.outputs)), np.zeros(self.outputs)
        if self.outputs == 1:
            model: Any = Ridge(1.0, solver="sparse_cg").fit(design, y)
            weights[:, 0], bias[0] = model.coef_, model.intercept_
        elif len(np.unique(y)) == 1:  # scikit-learn refuses a single class: predict it with near certainty
            bias[int(y[0])] = 12.0
        else:
            model = LogisticRegression(C=1.0, max_iter=300).fit(design, y)
            seen = model.classes_.astype(int)
            if len(seen) == 2:
                weights[:, seen[1]], bias[seen[1]] = model.coef_[0], model.intercept_[0]
            else:
                weights[:, seen], bias[seen] = model.coef_.T, model.intercept_
            absent = np.setdiff1d(np.arange(self.outputs), seen)  # classes without a row in this fold
            bias[absent] = -12.0
        self.weights.copy_(torch.from_numpy(weights))
        self.bias.copy_(torch.from_numpy(bias))

    def scores(self, x: dict[str, Tensor]) -> np.ndarray:
        """Returns class scores (N, classes), or standardised numbers (N, 1), float32."""
        found = self.design(x) @ self.weights.numpy() + self.bias.numpy()
        return np.asarray(found, np.float32)
