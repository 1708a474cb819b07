"""Hyperparameter search for boosted trees on one fold, by Optuna's tree-structured Parzen estimator (Bergstra 2011)."""

import time
from dataclasses import dataclass
from typing import Any

from applications.tabular.booster import BoosterConfig
from applications.tabular.fold import BOOSTERS, NATIVE, TUNED, Fold, Given
from applications.tabular.selection import loss_of
from common.errors import ConfigError
from common.task.task import Task

TRIAL_SHARE = 0.2  # the largest share of the time for all trials that one may take
ROUNDS_OF_A_RATE = 3.0  # early stopping's patience is this over the learning rate


@dataclass(frozen=True)
class Tuned:
    """The result of a search.

    Attributes:
        config: The best settings.
        loss: Their loss on the fold's held-out rows.
        start: The loss there of the first settings.
        trials: The number of trials.
    """

    config: BoosterConfig
    loss: float
    start: float
    trials: int


def tune_booster(fold: Fold, given: Given, task: Task, *, trials: int, end: float, seed: int = 0) -> Tuned:
    """Returns the settings of trees with the lowest loss on one fold's held-out rows.

    The first trial uses the settings of ``xgboost``, so that the result is no worse than those.

    Args:
        fold: The fold in which trees are tried; it keeps none of them.
        given: Its data.
        task: Its task.
        trials: The number of trials; fewer where the time runs out.
        end: The deadline, by ``time.perf_counter``.
        seed: Random seed.

    Raises:
        ConfigError: if Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("tune needs Optuna: pip install 'applications-cookbook[tuning]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    loss = loss_of(given.held_y, fold.shape.classes)
    longest = (end - time.perf_counter()) * TRIAL_SHARE

    def objective(trial: Any) -> float:
        left = max(min(longest, end - time.perf_counter()), 0.5)
        fold.tuned = settings(trial)
        fold.fit_member(TUNED, given, task, seconds=left)
        return loss(fold.predict(TUNED, given.held))

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial(_params(BOOSTERS["xgboost"]))
    study.optimize(objective, n_trials=trials, timeout=max(end - time.perf_counter(), 0.1))
    del fold.members[TUNED]
    start = study.trials[0].value
    return Tuned(settings(study.best_trial), float(study.best_value), float(start or 0.0), len(study.trials))


def _params(config: BoosterConfig) -> dict[str, Any]:
    names = ("learning_rate", "depth", "min_child_weight", "subsample", "columns", "l2", "one_hot")
    return {name: getattr(config, name) for name in names}


def settings(trial: Any) -> BoosterConfig:
    """Returns the settings of an Optuna trial, drawn from the search space."""
    rate = trial.suggest_float("learning_rate", 0.015, 0.2, log=True)
    return BoosterConfig(
        learning_rate=rate,
        depth=trial.suggest_int("depth", 3, 10),
        min_child_weight=trial.suggest_float("min_child_weight", 0.1, 30.0, log=True),
        subsample=trial.suggest_float("subsample", 0.5, 1.0),
        columns=trial.suggest_float("columns", 0.2, 1.0),
        l2=trial.suggest_float("l2", 0.01, 30.0, log=True),
        one_hot=trial.suggest_categorical("one_hot", [4, NATIVE]),
        patience=round(min(max(ROUNDS_OF_A_RATE / rate, 30), 150)),
    )
