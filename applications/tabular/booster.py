"""Boosted trees and random forests by XGBoost, as a module whose file is validated before XGBoost reads it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.errors import BundleError, ConfigError, in_range, one_of
from common.task.fitted import FittedPart

TREES = "trees.ubj"
OBJECTIVES = ("binary:logistic", "multi:softprob", "reg:squarederror", "reg:quantileerror")


@dataclass(frozen=True, kw_only=True)
class BoosterConfig:
    """How trees are grown.

    Attributes:
        rounds: The most rounds; early stopping ends sooner.
        learning_rate: Shrinkage of each tree's predictions.
        depth: The largest depth of a tree; 0: limited by ``leaves`` only.
        leaves: The most leaves of a tree, grown leaf-wise (best first); 0: level-wise, down to ``depth``.
        min_child_weight: The least sum of hessians in a leaf.
        subsample: Share of the rows that each tree is grown on.
        columns: Share of the columns that are candidates for each split.
        l2: L2 penalty on the leaf values.
        patience: Rounds without a better held-out loss after which growing stops.
        one_hot: Up to this number of levels, a split separates one level of a category; with more, it splits groups.
        forest: Trees per round; above 1 with one round it is a random forest.
    """

    rounds: int = 3000
    learning_rate: float = 0.05
    depth: int = 6
    leaves: int = 0
    min_child_weight: float = 1.0
    subsample: float = 0.8
    columns: float = 0.7
    l2: float = 3.0
    patience: int = 60
    one_hot: int = 4
    forest: int = 1

    def __post_init__(self) -> None:
        in_range("rounds", self.rounds, 1, 100_000)
        in_range("learning_rate", self.learning_rate, 0, 1, open_low=True)
        in_range("leaves", self.leaves, 0, 1 << 16)
        in_range("depth", self.depth, 0 if self.leaves else 1, 16)
        in_range("subsample", self.subsample, 0, 1, open_low=True)
        in_range("columns", self.columns, 0, 1, open_low=True)


class Booster(FittedPart):
    """Trees over a matrix of features; `scores` returns raw scores, float32 (N, outputs).

    Args:
        config: How they are grown.
        objective: One of `OBJECTIVES`.
        features: The number of columns of the matrix.
        categories: The columns that are categories.
        outputs: Scores per row: 1, the number of classes of multi:softprob, or of quantiles.
        seed: Seed of the sampled rows and columns.
    """

    def __init__(
        self,
        config: BoosterConfig,
        objective: str,
        features: int,
        categories: tuple[int, ...] = (),
        outputs: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        one_of("objective", objective, OBJECTIVES)
        self.config, self.objective, self.features = config, objective, features
        self.categories, self.outputs, self.seed = categories, outputs, seed
        self.booster: Any = None

    @property
    def _types(self) -> list[str]:
        chosen = set(self.categories)
        return ["c" if i in chosen else "q" for i in range(self.features)]

    def _growing(self, quantiles: tuple[float, ...], threads: int) -> dict[str, Any]:
        config = self.config
        found: dict[str, Any] = {
            "objective": self.objective,
            "tree_method": "hist",
            "learning_rate": config.learning_rate,
            "max_depth": config.depth,
            "max_leaves": config.leaves,
            "grow_policy": "lossguide" if config.leaves else "depthwise",
            "max_cat_to_onehot": config.one_hot,
            "min_child_weight": config.min_child_weight,
            "subsample": config.subsample,
            "colsample_bynode": config.columns,
            "lambda": config.l2,
            "num_parallel_tree": config.forest,
            "seed": self.seed,
            "nthread": threads,
            "verbosity": 0,
        }
        if self.objective == "multi:softprob":
            found |= {"num_class": self.outputs, "eval_metric": "mlogloss"}
        elif self.objective == "binary:logistic":
            found["eval_metric"] = "logloss"
        elif self.objective == "reg:quantileerror":
            found["quantile_alpha"] = list(quantiles)
        return found

    def fit(
        self,
        x: np.ndarray,
        y: np.ndarray,
        held_x: np.ndarray | None = None,
        held_y: np.ndarray | None = None,
        *,
        quantiles: tuple[float, ...] = (),
        seconds: float = float("inf"),
        threads: int = 0,
    ) -> int:
        """Grows the trees and returns the number of rounds kept, those up to the best one.

        Args:
            x: Features, float32 (N, F); NaN for missing ones, positions for categories.
            y: Targets (N,): 0 and 1, class indices or numbers.
            held_x: Features of held-out rows for early stopping; None: all rounds are grown.
            held_y: Their targets.
            quantiles: The quantiles of reg:quantileerror.
            seconds: The time limit; trees grown by then are kept.
            threads: XGBoost's threads; 0: as many as torch's.
        """
        import torch
        import xgboost as xgb
        from xgboost.callback import EarlyStopping

        threads = threads or torch.get_num_threads()
        options: dict[str, Any] = {"feature_types": self._types, "enable_categorical": True, "nthread": threads}
        data = xgb.QuantileDMatrix(x, y, **options)
        watched: list[tuple[Any, str]] = []
        callbacks: list[Any] = [_clock(time.perf_counter() + seconds)] if seconds != float("inf") else []
        if held_x is not None:
            watched = [(xgb.QuantileDMatrix(held_x, held_y, ref=data, **options), "held")]
            callbacks.append(EarlyStopping(rounds=self.config.patience))
        grown = xgb.train(
            self._growing(quantiles, threads),
            data,
            num_boost_round=self.config.rounds,
            evals=watched,
            verbose_eval=False,
            callbacks=callbacks,
        )
        kept = grown.best_iteration + 1 if watched else grown.num_boosted_rounds()
        self.booster = grown[:kept]
        self.booster.set_attr(best_iteration=None, best_score=None)
        return kept

    def _need(self) -> Any:
        if self.booster is None:
            raise ConfigError("these trees are not grown yet: call fit, or load a bundle")
        return self.booster

    def _matrix(self, x: np.ndarray) -> Any:
        import torch
        import xgboost as xgb

        return xgb.DMatrix(x, feature_types=self._types, enable_categorical=True, nthread=torch.get_num_threads())

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Returns raw scores, float32 (N, outputs)."""
        found = self._need().predict(self._matrix(x), output_margin=True, strict_shape=True)
        return np.asarray(found, np.float32).reshape(len(x), self.outputs)

    def contributions(self, x: np.ndarray) -> np.ndarray:
        """Returns the SHAP values of each feature for each score; the last column is the bias.

        float32 (N, outputs, F + 1), whose sum over the last axis is `scores`.
        """
        found = self._need().predict(self._matrix(x), pred_contribs=True, strict_shape=True)
        return np.asarray(found, np.float32).reshape(len(x), self.outputs, self.features + 1)

    # ------------------------------------------------------------ in a bundle

    def file_names(self) -> tuple[str, ...]:
        return (TREES,)

    def files(self) -> dict[str, bytes]:
        return {TREES: bytes(self._need().save_raw("ubj"))}

    def load_files(self, files: Mapping[str, bytes]) -> None:
        import xgboost as xgb

        from common.deploy.trees import check_trees

        data = files[TREES]
        found = check_trees(data, TREES, features=self.features, outputs=self.outputs)
        if found.objective != self.objective:
            raise BundleError(f"{TREES} minimises {found.objective}, the model needs {self.objective}")
        booster = xgb.Booster()
        try:
            booster.load_model(bytearray(data))
        except xgb.core.XGBoostError as error:
            raise BundleError(f"{TREES} is no model that XGBoost reads: {str(error).splitlines()[0]}") from error
        self.booster = booster


def _clock(end: float) -> Any:
    """A callback that stops growing at a time limit."""
    from xgboost.callback import TrainingCallback

    class Clock(TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            return time.perf_counter() >= end

    return Clock()


def class_scores(scores: np.ndarray) -> np.ndarray:
    """Returns raw scores of trees as class scores before softmax: the one score s of binary:logistic becomes (0, s)."""
    return np.concatenate([np.zeros_like(scores), scores], axis=1) if scores.shape[1] == 1 else scores
