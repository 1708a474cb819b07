"""Features of places (latitude, longitude): rotated coordinates, and the targets of the nearest training rows.

A tree splits along one axis at a time, while a coast or a road may run in any direction: rotated axes can follow it. A
place's neighbours predict its target well; like a target encoding, a training row's features use only neighbours from
other folds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from applications.tabular.targets import out_of_fold
from common.errors import in_range

NEAREST = (5, 20)  # numbers of neighbours whose targets are averaged, weighted by inverse distance
TURNS = (1, 2, 3, 5, 6, 7)  # rotations in eighths of a half turn; 0 and 4 are the coordinates themselves
MOST_ROWS = 200_000  # the most training rows that are stored for the neighbour search
LEAST_DISTANCE = 1e-4  # degrees, about 11 m: the lower bound of distances in the weights


@dataclass(frozen=True, kw_only=True)
class Place:
    """The numbers of a row that are a latitude and a longitude.

    Attributes:
        latitude: The position of the latitude among the numbers.
        longitude: The position of the longitude.
        north: One unit of the (standardised) latitude in degrees.
        east: The length of one unit of the longitude in degrees of latitude, at the rows' median latitude.
    """

    latitude: int
    longitude: int
    north: float = 1.0
    east: float = 1.0

    def __post_init__(self) -> None:
        for name in ("latitude", "longitude"):
            in_range(name, getattr(self, name), 0, 1 << 16)
        for name in ("north", "east"):
            in_range(name, getattr(self, name), 0, float("inf"), open_low=True, open_high=True)

    def points(self, numbers: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Returns planar coordinates, float64 (N, 2) in degrees of latitude north and east; NaN where missing.

        Args:
            numbers: float32 (N, K).
            missing: bool (N, K).
        """
        found = np.stack([numbers[:, self.latitude] * self.north, numbers[:, self.longitude] * self.east], axis=1)
        gone = missing[:, self.latitude] | missing[:, self.longitude]
        return np.where(gone[:, None], np.nan, found.astype(np.float64))


def turned(points: np.ndarray) -> np.ndarray:
    """Returns coordinates along rotated axes, (N, 6); with latitude and longitude eight directions in all."""
    angles = np.pi * np.array(TURNS) / 8
    return points[:, :1] * np.cos(angles) + points[:, 1:] * np.sin(angles)


class NearTargets(nn.Module):
    """The mean target of a place's nearest training rows, its spread, and their distance.

    Args:
        rows: The most rows that it is fitted to.
        outputs: Columns of the target; see `target_columns`.
    """

    points: Tensor
    count: Tensor
    target: Tensor
    prior: Tensor

    def __init__(self, rows: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        rows = min(rows, MOST_ROWS)
        self.register_buffer("points", torch.zeros(rows, 2, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("target", torch.zeros(rows, outputs))
        self.register_buffer("prior", torch.zeros(outputs))
        self.tree: Any = None

    @property
    def width(self) -> int:
        """Features per row."""
        return len(NEAREST) * self.outputs + self.outputs + 1

    def fit(self, points: np.ndarray, target: np.ndarray, seed: int) -> np.ndarray:
        """Stores the rows, and returns the out-of-fold features of the same rows, float32 (N, width).

        Args:
            points: float64 (N, 2), NaN where a place is missing.
            target: float64 (N, outputs).
            seed: Seed of the folds, and of the sample where there are too many rows.
        """
        known = np.flatnonzero(np.isfinite(points[:, 0]))
        stored = self.points
        if len(known) > len(stored):
            known = np.sort(np.random.default_rng(seed).choice(known, len(stored), replace=False))
        stored.zero_()
        self.count.fill_(len(known))
        stored[: len(known)] = torch.from_numpy(points[known])
        self.target[: len(known)] = torch.from_numpy(target[known].astype(np.float32))
        self.prior.copy_(torch.from_numpy(target.mean(axis=0)))
        self.tree = None
        usable = np.zeros(len(points), bool)
        usable[known] = True

        def learn(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            chosen = rows[usable[rows]]
            tree, values = _tree(points[chosen]), target[chosen].astype(np.float32)
            return lambda held: self._looked_up(tree, values, points[held])

        return out_of_fold(len(points), seed, learn, self.width)

    def features(self, points: np.ndarray) -> np.ndarray:
        """Returns the features of new rows, float32 (N, width)."""
        count = max(0, int(self.count))
        if self.tree is None:
            self.tree = _tree(self.points.numpy()[:count])
        return self._looked_up(self.tree, self.target.numpy()[:count], points)

    def _looked_up(self, tree: Any, target: np.ndarray, points: np.ndarray) -> np.ndarray:
        features = np.zeros((len(points), self.width), np.float32)
        prior = self.prior.numpy()
        features[:, : len(NEAREST) * self.outputs] = np.tile(prior, len(NEAREST))
        rows = np.flatnonzero(np.isfinite(points[:, 0]))
        if not len(rows) or not len(target):
            return features
        distance, near = tree.query(points[rows], k=np.arange(1, min(max(NEAREST), len(target)) + 1))
        distance = np.maximum(distance, LEAST_DISTANCE)
        values = target[near].astype(np.float64)  # (N, k, outputs)
        columns = []
        for count in NEAREST:
            weight = 1 / distance[:, :count, None]
            columns.append((values[:, :count] * weight).sum(axis=1) / weight.sum(axis=1))
        far = min(NEAREST[0], len(target))
        columns += [values.std(axis=1), np.log(distance[:, far - 1 : far])]
        features[rows] = np.concatenate(columns, axis=1)
        return features


def _tree(points: np.ndarray) -> Any:
    from scipy.spatial import KDTree

    return KDTree(points)
