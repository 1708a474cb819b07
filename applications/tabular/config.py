"""The configuration of a table's ensemble, and what its fit selected; both are plain data in its bundle."""

from dataclasses import dataclass
from typing import Any

from applications.tabular.booster import BoosterConfig
from applications.tabular.fold import MEMBERS, TUNED
from common.errors import ConfigError, in_range, one_of
from common.train.options import DEVICES


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """The configuration of an ensemble.

    Attributes:
        members: The members; see `MEMBERS`.
        folds: The number of folds: each member is fitted once per fold, without the fold's held-out rows.
        budget_s: Time limit of the fit in seconds; members that would exceed it are left out, with a message.
        group: A column whose equal values stay in one fold.
        time: A column by which folds are contiguous.
        epochs: Epochs of the network; chosen by the held-out loss when 0; see `network_length`.
        batch_size: Batch size of the network; by the number of rows when 0.
        tune: The number of tree settings to try (with Optuna, in at most half the budget); the best ones make an
            additional member, ``xgboost_tuned``.
        device: The network's device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``mps``.
        seed: Random seed.
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
        """Returns the batch size of the network for a number of training rows."""
        return self.batch_size or (64 if rows < 4000 else 128 if rows < 12000 else 256 if rows < 24000 else 512)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What a fit selected, and the results of each member.

    Attributes:
        names: The members with a weight in the mean.
        weights: Their weights.
        folds: The number of folds.
        temperature: Divides the log-probabilities of the mean (calibration).
        shifts: Added to each quantile for the right out-of-fold coverage (conformal correction).
        tuned: The settings of ``xgboost_tuned``, where it is in the mean.
        table: One record per fitted member, and one for the ensemble: its out-of-fold loss, seconds, weight.
    """

    names: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    folds: int = 0
    temperature: float = 1.0
    shifts: tuple[float, ...] = ()
    tuned: BoosterConfig | None = None
    table: tuple[dict[str, Any], ...] = ()
