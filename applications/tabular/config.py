"""How an ensemble of a table is made, and what its fit has chosen: both are data, and travel in its bundle."""

from dataclasses import dataclass
from typing import Any

from applications.tabular.booster import BoosterConfig
from applications.tabular.fold import MEMBERS, TUNED
from common.errors import ConfigError, in_range, one_of
from common.train.options import DEVICES


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """How an ensemble is made.

    Attributes:
        members: Which; see `MEMBERS`.
        folds: Each member is fitted that many times, each time without a fold, on which it is judged.
        budget_s: Seconds that the fit may take; members that would take longer are left out, and told.
        group: A column whose equal values stay in one fold.
        time: A column by which folds are contiguous.
        epochs: Of the network; as many as help when 0; see `schedule`.
        batch_size: Rows a step of the network; by their number when 0.
        tune: How many settings of trees are tried (with Optuna, in at most half the budget); the best are those of a
            member more, ``xgboost_tuned``.
        device: Where the network is trained: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``mps``.
        seed: Of everything drawn.
    """

    members: tuple[str, ...] = (
        "xgboost", "linear", "xgboost_shallow", "xgboost_leafwise", "xgboost_deep", "forest", "network"
    )  # fmt: skip
    folds: int = 5
    budget_s: float = 240.0
    group: str | None = None
    time: str | None = None
    epochs: int = 0
    batch_size: int = 0
    tune: int = 0
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        in_range("tune", self.tune, 0, 100_000)
        first = (TUNED,) if self.tune and TUNED not in self.members else ()
        object.__setattr__(self, "members", (*first, *self.members))
        if TUNED in self.members and not self.tune:
            raise ConfigError(f"{TUNED} has settings that are sought: say with tune how many are to be tried")
        if not self.members:
            raise ConfigError(f"members must name at least one of {', '.join(MEMBERS)}")
        for name in self.members:
            one_of("members", name, MEMBERS)
        one_of("device", self.device, DEVICES)
        if (
            "xgboost_embedded" in self.members
            and "network" not in self.members[: self.members.index("xgboost_embedded")]
        ):
            raise ConfigError("xgboost_embedded sees the network's embeddings: name network before it")
        in_range("folds", self.folds, 2, 50)
        in_range("budget_s", self.budget_s, 0, float("inf"), open_low=True)

    def batch_size_of(self, rows: int) -> int:
        """Returns the rows a step of the network."""
        return self.batch_size or (64 if rows < 4000 else 128 if rows < 12000 else 256 if rows < 24000 else 512)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What a fit has chosen, and how each member did.

    Attributes:
        names: The members that are in the mean.
        weights: Of each in it.
        folds: How many folds there are.
        temperature: That the logarithms of the mean's probabilities are divided by.
        shifts: What is added to each quantile, so that it holds out of fold.
        tuned: The settings of ``xgboost_tuned``, where it is in the mean.
        table: One record a member that was fitted, and one for the ensemble: its out-of-fold loss, seconds, weight.
    """

    names: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    folds: int = 0
    temperature: float = 1.0
    shifts: tuple[float, ...] = ()
    tuned: BoosterConfig | None = None
    table: tuple[dict[str, Any], ...] = ()
