"""One fold of the ensemble: the features that were made with the target, and every member, fitted to the same rows."""

import time
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from applications.tabular.booster import Booster, BoosterConfig, class_scores
from applications.tabular.linear import LinearModel
from applications.tabular.network import NetworkConfig, TabularNetwork, embedding_width
from applications.tabular.piecewise import quantile_edges
from applications.tabular.targets import TargetMeans, TextScores, outputs_of, target_columns
from common.counter import seeded_weights
from common.data.dataloaders import DataLoaders
from common.errors import in_range
from common.train.options import TrainerOptions
from common.train.task import Task
from common.train.trainer import Trainer

BOOSTERS = {
    "xgboost": BoosterConfig(),
    "xgboost_shallow": BoosterConfig(learning_rate=0.06, depth=4, subsample=1.0, columns=1.0),
    "xgboost_deep": BoosterConfig(learning_rate=0.04, depth=9, min_child_weight=6.0, columns=0.5, l2=4.0),
    "forest": BoosterConfig(
        rounds=1, learning_rate=1.0, depth=14, min_child_weight=2.0, subsample=0.63, columns=0.4, l2=1e-3, forest=150
    ),
}
"""Of trees that learn one from another, three kinds (all but sampled; with no sampling; deep and few columns a split),
and of trees that do not. Chosen on splits of training rows of nine tables; no one of them was best on all."""
BOOSTERS["xgboost_embedded"] = BOOSTERS["xgboost"]
MEMBERS = ("linear", *BOOSTERS, "network")
QUANTILES = "quantiles"  # the trees that give them, beside the members
QUANTILE_TREES = BoosterConfig(rounds=1000, depth=5, patience=40)
FEW_ROWS = 2000  # up to which the network learns slowly and not for long
NATIVE = 64  # positions up to which trees get a category as such
FOLDED_WORDS = 1 << 14  # positions that the network folds words to


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the members of an ensemble are made for.

    Attributes:
        numbers: How many numbers a row has.
        sizes: How many positions each category has.
        buckets: Positions that words are hashed to; 0: no text.
        classes: How many classes the target has; 1 for a number.
        center: The mean of a number over the training rows.
        scale: Its deviation there.
        quantiles: Of a number, which are given beside it.
    """

    numbers: int
    sizes: tuple[int, ...]
    buckets: int
    classes: int
    center: float = 0.0
    scale: float = 1.0
    quantiles: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        in_range("numbers", self.numbers, 0, 1 << 16)
        in_range("buckets", self.buckets, 0, 1 << 24)
        in_range("classes", self.classes, 1, 1 << 16)
        in_range("scale", self.scale, 0, float("inf"), open_low=True, open_high=True)

    @property
    def native(self) -> tuple[int, ...]:
        """The categories that trees get as such."""
        return tuple(i for i, size in enumerate(self.sizes) if size <= NATIVE)

    @property
    def many(self) -> tuple[int, ...]:
        """The categories with more levels, of which trees get the mean target instead."""
        return tuple(i for i, size in enumerate(self.sizes) if size > NATIVE)

    @property
    def objective(self) -> str:
        """What XGBoost minimises."""
        if self.classes == 1:
            return "reg:squarederror"
        return "binary:logistic" if self.classes == 2 else "multi:softprob"


@dataclass(frozen=True)
class Rows:
    """What the members take of some rows.

    Attributes:
        x: The dictionary of a `ColumnsBlock`.
        scores: Text scores, float32 (N, s).
        matrix: The features of trees, float32 (N, F).
    """

    x: dict[str, Tensor]
    scores: np.ndarray
    matrix: np.ndarray


@dataclass(frozen=True)
class Given:
    """What the members of a fold are fitted to and judged on.

    Attributes:
        rows: The rows that they learn from.
        y: Their targets.
        held: The rows that say when to stop, and how good a member is.
        held_y: Their targets.
        dls: The same rows as loaders, for a network.
    """

    rows: Rows
    y: np.ndarray
    held: Rows
    held_y: np.ndarray
    dls: DataLoaders


class Fold(nn.Module):
    """The members that were fitted to the rows of all folds but one.

    Args:
        shape: What they are made for.
        names: Which members.
        seed: Of everything drawn.
    """

    def __init__(self, shape: Shape, names: tuple[str, ...] = (), seed: int = 0) -> None:
        super().__init__()
        self.shape, self.seed = shape, seed
        outputs = outputs_of(shape.classes)
        self.means = TargetMeans(tuple(shape.sizes[i] for i in shape.many), outputs)
        self.texts = TextScores(shape.buckets, outputs, shape.classes > 1) if shape.buckets else None
        self.members = nn.ModuleDict({name: self._make(name) for name in names})

    @property
    def text_width(self) -> int:
        """Text scores a row."""
        return self.texts.width if self.texts is not None else 0

    @property
    def features(self) -> int:
        """Columns of the features of trees."""
        return self.shape.numbers + len(self.shape.native) + self.means.width + self.text_width

    @property
    def native(self) -> tuple[int, ...]:
        """Which columns of the features of trees are categories."""
        return tuple(range(self.shape.numbers, self.shape.numbers + len(self.shape.native)))

    def _make(self, name: str) -> nn.Module:
        shape = self.shape
        if name == "linear":
            return LinearModel(shape.numbers, shape.sizes, self.text_width, shape.classes)
        if name == "network":
            config = NetworkConfig(
                numbers=shape.numbers, sizes=shape.sizes, text=FOLDED_WORDS if shape.buckets else 0,
                outputs=shape.classes, dropout=0.2 if shape.classes > 1 else 0.1,
                center=shape.center, scale=shape.scale,
            )  # fmt: skip
            with seeded_weights(self.seed):
                return TabularNetwork(config)
        if name == QUANTILES:
            return Booster(
                QUANTILE_TREES, "reg:quantileerror", self.features, self.native, len(shape.quantiles), self.seed
            )
        outputs = shape.classes if shape.classes > 2 else 1
        more = sum(embedding_width(size) for size in shape.sizes) if name == "xgboost_embedded" else 0
        return Booster(BOOSTERS[name], shape.objective, self.features + more, self.native, outputs, self.seed)

    # ------------------------------------------------------------ features

    def _many(self, x: dict[str, Tensor]) -> np.ndarray:
        return x["categories"].numpy()[:, list(self.shape.many)]

    def _matrix(self, x: dict[str, Tensor], means: np.ndarray, scores: np.ndarray) -> np.ndarray:
        numbers = x["numbers"].numpy().copy()
        numbers[x["missing"].numpy()] = np.nan
        codes = x["categories"].numpy()[:, list(self.shape.native)].astype(np.float32)
        return np.concatenate([numbers, codes, means, scores], axis=1)

    def rows(self, x: dict[str, Tensor]) -> Rows:
        """Returns what the members take of rows that they were not fitted to."""
        x = {name: tensor.cpu() for name, tensor in x.items()}
        scores = self.texts.features(x["text"].numpy()) if self.texts is not None else np.zeros((len(x["text"]), 0))
        scores = np.asarray(scores, np.float32)
        return Rows(x, scores, self._matrix(x, self.means.features(self._many(x)), scores))

    def fit_features(self, x: dict[str, Tensor], y: np.ndarray) -> Rows:
        """Learns the features made with the target, and returns what the members are fitted to.

        Args:
            x: The dictionary of a `ColumnsBlock`.
            y: Class positions or numbers (N,).
        """
        target = target_columns(y, self.shape.classes)
        if self.shape.classes == 1:
            target = (target - self.shape.center) / self.shape.scale
        means = self.means.fit(self._many(x), target, self.seed)
        scores = np.zeros((len(y), 0), np.float32)
        if self.texts is not None:
            scores = self.texts.fit(x["text"].numpy(), target, self.seed)
        return Rows(x, scores, self._matrix(x, means, scores))

    # ------------------------------------------------------------ members

    def fit_member(
        self, name: str, given: Given, task: Task, *, epochs: int, seconds: float = float("inf"), device: str = "cpu"
    ) -> None:
        """Makes and fits one member.

        Args:
            name: Which.
            given: What it is fitted to.
            task: Its task.
            epochs: Of a network.
            seconds: The most time, for trees.
            device: Where a network is trained.
        """
        member, train = self._make(name), given.rows
        y, held_y = given.y, given.held_y
        if self.shape.classes == 1:
            y, held_y = (y - self.shape.center) / self.shape.scale, (held_y - self.shape.center) / self.shape.scale
        if isinstance(member, LinearModel):
            member.fit(train.x, train.scores, y)
        elif isinstance(member, Booster):
            stops = member.config.forest == 1
            found = (self.seen(name, given.held), held_y) if stops else (None, None)
            member.fit(self.seen(name, train), y, *found, quantiles=self.shape.quantiles, seconds=seconds)
        else:
            self._train(cast(TabularNetwork, member), train, given.dls, task, epochs, device)
        self.members[name] = member

    def _train(
        self, network: TabularNetwork, train: Rows, dls: DataLoaders, task: Task, epochs: int, device: str
    ) -> None:
        edges = quantile_edges(train.x["numbers"].numpy(), train.x["missing"].numpy(), network.config.bins)
        network.numbers.encode.set(edges)
        options = TrainerOptions(
            seed=self.seed, device=device, precision="bf16", weight_decay=0.02, clip_norm=1.0, progress=False,
            channels_last=False,
        )  # fmt: skip
        rate = 3e-3 if len(train.scores) < FEW_ROWS else 1e-2
        Trainer(network, dls, task, options).fit_one_cycle(epochs, rate)
        network.cpu().eval()

    def seconds_an_epoch(self, dls: DataLoaders, task: Task, device: str) -> float:
        """Returns about how long an epoch of the network takes here, from a few steps of one that is thrown away."""
        network = cast(TabularNetwork, self._make("network"))
        options = TrainerOptions(device=device, precision="bf16", progress=False, channels_last=False)
        batch = dls.train.one_batch()
        few = DataLoaders([batch] * 2, [batch])
        trainer = Trainer(network, few, task, options)
        trainer.fit(1, 1e-4)
        began = time.perf_counter()
        trainer.fit(2, 1e-4)
        return (time.perf_counter() - began) / 6 * (len(dls.train) + len(dls.valid) * 2)

    def seen(self, name: str, rows: Rows) -> np.ndarray:
        """Returns what the trees of a member see of rows: with the network's embeddings of the categories, or without.

        Args:
            name: The member.
            rows: The rows.
        """
        if name != "xgboost_embedded":
            return rows.matrix
        network = cast(TabularNetwork, self.members["network"])
        with torch.no_grad():
            tables = [table(rows.x["categories"][:, i]).numpy() for i, table in enumerate(network.categories)]
        return np.concatenate([rows.matrix, *tables], axis=1)

    def predict(self, name: str, rows: Rows) -> np.ndarray:
        """Returns what a member says: probabilities, float64 (N, classes), or numbers (N,)."""
        member: Any = self.members[name]
        if isinstance(member, TabularNetwork):
            with torch.no_grad():
                parts = [
                    member({k: v[i : i + 2048] for k, v in rows.x.items()}) for i in range(0, len(rows.scores), 2048)
                ]
            out = torch.cat(parts).numpy()
        elif isinstance(member, LinearModel):
            out = member.scores(rows.x, rows.scores)
        else:
            out = member.scores(self.seen(name, rows))
            out = class_scores(out) if self.shape.classes > 1 else out
        if self.shape.classes > 1:
            return F.softmax(torch.from_numpy(out).double(), dim=1).numpy()
        if name == QUANTILES:
            return out.astype(np.float64) * self.shape.scale + self.shape.center
        out = out.astype(np.float64).reshape(len(out))
        return out if isinstance(member, TabularNetwork) else out * self.shape.scale + self.shape.center
