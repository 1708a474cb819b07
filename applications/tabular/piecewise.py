"""Piecewise-linear encoding of numbers (Gorishniy et al. 2022): the share of each bin that a number has passed."""

import numpy as np
import torch
from torch import Tensor, nn

LOWEST, HIGHEST = -3.0, 4.0  # clamps of the first and last bin's share: a number may lie 3 bin widths outside


def quantile_edges(numbers: np.ndarray, missing: np.ndarray, bins: int) -> np.ndarray:
    """Returns the edges of the bins of each number, float32 (K, bins + 1).

    Two thirds of them are quantiles of the training rows, the rest quantiles of their distinct values: where nearly all
    rows are 0 (gains, counts) the few others are still distinguished. A number with fewer distinct values has fewer
    bins; its last edge is repeated.

    Args:
        numbers: float32 (N, K).
        missing: bool (N, K).
        bins: The most bins per number.
    """
    edges = np.zeros((numbers.shape[1], bins + 1), np.float32)
    for k in range(numbers.shape[1]):
        seen = numbers[~missing[:, k], k]
        if len(seen):
            rows = np.quantile(seen, np.linspace(0, 1, bins - bins // 3 + 1))
            values = np.quantile(np.unique(seen), np.linspace(0, 1, bins // 3 + 1))
            found = np.unique(np.concatenate([rows, values]).astype(np.float32))
        else:
            found = seen
        if len(found) < 2:
            middle = float(found[0]) if len(found) else 0.0
            found = np.array([middle, np.nextafter(np.float32(middle), np.float32(np.inf))], np.float32)
            found[1] = max(found[1], np.float32(middle + 1e-3))
        edges[k] = np.concatenate([found, np.full(bins + 1 - len(found), found[-1])])
    return edges


class PiecewiseLinear(nn.Module):
    """Encodes numbers (B, K) as (B, K, bins): 1 for each bin below the number, a share of its own bin, 0 above it.

    Args:
        numbers: K, the number of numeric features.
        bins: The most bins per number.

    Examples:
        >>> encode = PiecewiseLinear(1, 2)
        >>> encode.set(np.array([[0.0, 1.0, 3.0]], np.float32))
        >>> encode(torch.tensor([[0.5], [2.0]])).tolist()
        [[[0.5, 0.0]], [[1.0, 0.5]]]
    """

    edges: Tensor

    def __init__(self, numbers: int, bins: int) -> None:
        super().__init__()
        self.register_buffer("edges", torch.zeros(numbers, bins + 1))

    def set(self, edges: np.ndarray) -> None:
        """Sets the edges (K, bins + 1), each row ascending."""
        self.edges.copy_(torch.from_numpy(edges))

    def forward(self, numbers: Tensor) -> Tensor:
        low, width = self.edges[:, :-1], self.edges[:, 1:] - self.edges[:, :-1]
        used = width > 0
        share = (numbers[..., None] - low) / torch.where(used, width, 1.0)
        last = torch.zeros_like(used)
        last.scatter_(1, (used.sum(dim=1, keepdim=True) - 1).clamp(min=0), True)
        first = torch.zeros_like(used)
        first[:, 0] = True
        share = torch.where(first, share.clamp(min=LOWEST), share.clamp(min=0))
        share = torch.where(last, share.clamp(max=HIGHEST), share.clamp(max=1))
        return share * used
