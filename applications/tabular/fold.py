"""One fold of the ensemble: features made with the target, and every member, fitted to the same training rows."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from applications.tabular.booster import Booster, BoosterConfig, class_scores
from applications.tabular.embeddings import EmbeddingScores
from applications.tabular.linear import LinearModel
from applications.tabular.network import NetworkConfig, TabularNetwork, embedding_width
from applications.tabular.piecewise import quantile_edges
from applications.tabular.places import TURNS, NearTargets, Place, turned
from applications.tabular.targets import TargetMeans, TextScores, outputs_of, target_columns
from common.counter import seeded_weights
from common.data.dataloaders import DataLoaders
from common.errors import in_range
from common.task.task import Task
from common.train.backend import fast_precision, find_device
from common.train.options import TrainerOptions
from common.train.trainer import Trainer

NATIVE = 64  # up to this number of positions trees get a category as a categorical feature
BOOSTERS = {
    "xgboost": BoosterConfig(),
    "xgboost_shallow": BoosterConfig(
        learning_rate=0.04,
        depth=4,
        min_child_weight=0.1,
        subsample=1.0,
        columns=1.0,
        l2=0.1,
        patience=80,
        one_hot=NATIVE,
    ),
    "xgboost_leafwise": BoosterConfig(learning_rate=0.04, depth=0, leaves=16, subsample=1.0, columns=1.0, l2=0.1),
    "xgboost_deep": BoosterConfig(
        learning_rate=0.03, depth=7, min_child_weight=3.0, subsample=1.0, columns=0.4, l2=1.0, patience=100
    ),
    "forest": BoosterConfig(
        rounds=1, learning_rate=1.0, depth=14, min_child_weight=2.0, subsample=0.63, columns=0.4, l2=1e-3, forest=150
    ),
}
"""Four settings of boosted trees (sampled rows and columns; shallow, with one-hot splits of categories; leaf-wise;
deep, with few columns per split), and a random forest. Selected on splits of the training rows of nine tables; none of
them was best on all."""
BOOSTERS["xgboost_embedded"] = BOOSTERS["xgboost"]
TUNED = "xgboost_tuned"  # trees with searched settings; see `tuning`
MEMBERS = ("linear", *BOOSTERS, TUNED, "network")
QUANTILES = "quantiles"  # the name of the quantile trees, which are not in the mean
QUANTILE_TREES = BoosterConfig(rounds=1000, depth=5, patience=40)
FEW_ROWS = 2000  # with fewer rows the network has a lower learning rate and more epochs


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The dimensions that the members of an ensemble are built for.

    Attributes:
        numbers: Numeric features per row.
        sizes: The number of positions of each category.
        buckets: Hash buckets of words; 0: no text.
        vector: Dimension of a row's text embeddings; 0: there is no transformer.
        classes: The number of classes; 1 for a number.
        places: The numbers that are a latitude and a longitude.
        rows: The most training rows of a fold.
        center: The mean of a numeric target over the training rows.
        scale: Its standard deviation there.
        quantiles: The quantiles of a number to predict in addition.
    """

    numbers: int
    sizes: tuple[int, ...]
    buckets: int
    classes: int
    vector: int = 0
    places: tuple[Place, ...] = ()
    rows: int = 0
    center: float = 0.0
    scale: float = 1.0
    quantiles: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        in_range("numbers", self.numbers, 0, 1 << 16)
        in_range("buckets", self.buckets, 0, 1 << 24)
        in_range("vector", self.vector, 0, 1 << 20)
        in_range("classes", self.classes, 1, 1 << 16)
        in_range("rows", self.rows, 0, 1 << 40)
        for place in self.places:
            in_range("places", max(place.latitude, place.longitude), 0, self.numbers, open_high=True)
        in_range("scale", self.scale, 0, float("inf"), open_low=True, open_high=True)

    @property
    def native(self) -> tuple[int, ...]:
        """The categories that trees get as categorical features."""
        return tuple(i for i, size in enumerate(self.sizes) if size <= NATIVE)

    @property
    def many(self) -> tuple[int, ...]:
        """The categories with more levels, for which trees get target encodings instead."""
        return tuple(i for i, size in enumerate(self.sizes) if size > NATIVE)

    @property
    def objective(self) -> str:
        """XGBoost's objective."""
        if self.classes == 1:
            return "reg:squarederror"
        return "binary:logistic" if self.classes == 2 else "multi:softprob"


Rows = dict[str, Tensor]
"""The members' input: the dictionary of a `ColumnsBlock` (and ``vector``, with a transformer), whose numbers are
extended by the features that a fold makes."""


@dataclass(frozen=True)
class Given:
    """The data on which the members of a fold are fitted and evaluated.

    Attributes:
        rows: The training rows.
        y: Their targets.
        held: The held-out rows, for early stopping and evaluation.
        held_y: Their targets.
        dls: The same rows as loaders, for a network.
    """

    rows: Rows
    y: np.ndarray
    held: Rows
    held_y: np.ndarray
    dls: DataLoaders


class Fold(nn.Module):
    """The members fitted to the rows of all folds but one, and the features made with the target.

    Args:
        shape: The dimensions that they are built for.
        names: The members.
        seed: Random seed.
        tuned: The settings of ``xgboost_tuned``.
    """

    def __init__(
        self, shape: Shape, names: tuple[str, ...] = (), seed: int = 0, tuned: BoosterConfig | None = None
    ) -> None:
        super().__init__()
        self.shape, self.seed, self.tuned = shape, seed, tuned
        outputs = outputs_of(shape.classes)
        self.means = TargetMeans(tuple(shape.sizes[i] for i in shape.many), outputs)
        self.texts = TextScores(shape.buckets, outputs, shape.classes > 1) if shape.buckets else None
        self.vectors = EmbeddingScores(shape.vector, outputs, shape.classes > 1) if shape.vector else None
        self.near = nn.ModuleList(NearTargets(shape.rows, outputs) for _ in shape.places)
        self.members = nn.ModuleDict({name: self._make(name) for name in names})

    @property
    def text_width(self) -> int:
        """Features made of a row's texts: scores of their words, and features of their embeddings."""
        return sum(maker.width for maker in (self.texts, self.vectors) if maker is not None)

    @property
    def place_width(self) -> int:
        """Features made of a place."""
        return len(TURNS) + cast(NearTargets, self.near[0]).width if len(self.near) else 0

    @property
    def numbers(self) -> int:
        """Numeric features of the members: a row's numbers, and the features made of it."""
        shape = self.shape
        return shape.numbers + self.means.width + self.text_width + self.place_width * len(shape.places)

    @property
    def features(self) -> int:
        """The number of columns in the trees' feature matrix."""
        return self.numbers + len(self.shape.native)

    @property
    def native(self) -> tuple[int, ...]:
        """The columns of the trees' feature matrix that are categories."""
        return tuple(range(self.numbers, self.features))

    def _make(self, name: str) -> LinearModel | Booster | TabularNetwork:
        shape = self.shape
        if name == "linear":
            return LinearModel(self.numbers, shape.sizes, shape.classes)
        if name == "network":
            config = NetworkConfig(
                numbers=self.numbers, sizes=shape.sizes,
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
        config = self.tuned or BOOSTERS["xgboost"] if name == TUNED else BOOSTERS[name]
        return Booster(config, shape.objective, self.features + more, self.native, outputs, self.seed)

    # ------------------------------------------------------------ features

    def _many(self, x: dict[str, Tensor]) -> np.ndarray:
        return x["categories"].numpy()[:, list(self.shape.many)]

    def _widened(self, x: Rows, make: Callable[[Any, np.ndarray], np.ndarray]) -> Rows:
        """Rows extended by the made features; those of a missing place are missing."""
        numbers, missing = x["numbers"].numpy(), x["missing"].numpy()
        made = [make(self.means, self._many(x))]
        if self.texts is not None:
            made.append(make(self.texts, x["text"].numpy()))
        if self.vectors is not None:
            made.append(make(self.vectors, x["vector"].numpy()))
        gone = [np.zeros((len(numbers), self.means.width + self.text_width), bool)]
        for place, near in zip(self.shape.places, self.near, strict=True):
            points = place.points(numbers, missing)
            made += [turned(points), make(near, points)]
            gone.append(np.repeat(np.isnan(points[:, :1]), self.place_width, axis=1))
        lacking = np.concatenate(gone, axis=1)
        more = np.where(lacking, np.float32(0), np.concatenate(made, axis=1).astype(np.float32))
        return {
            **x,
            "numbers": torch.cat([x["numbers"], torch.from_numpy(more)], dim=1),
            "missing": torch.cat([x["missing"], torch.from_numpy(lacking)], dim=1),
        }

    def rows(self, x: Rows) -> Rows:
        """Returns new rows as the members take them, with the fold's features."""
        x = {name: tensor.cpu() for name, tensor in x.items()}
        return self._widened(x, lambda maker, given: maker.features(given))

    def fit_features(self, x: Rows, y: np.ndarray) -> Rows:
        """Fits the features made with the target, and returns the rows that the members are fitted to.

        Args:
            x: The dictionary of a `ColumnsBlock`.
            y: Class indices or numbers (N,).
        """
        target = target_columns(y, self.shape.classes)
        if self.shape.classes == 1:
            target = (target - self.shape.center) / self.shape.scale
        return self._widened(x, lambda maker, given: maker.fit(given, target, self.seed))

    # ------------------------------------------------------------ members

    def fit_member(
        self,
        name: str,
        given: Given,
        task: Task,
        *,
        epochs: int = 1,
        seconds: float = float("inf"),
        device: str = "cpu",
    ) -> None:
        """Makes and fits one member.

        Args:
            name: The member.
            given: The data of the fold.
            task: Its task.
            epochs: Epochs of a network.
            seconds: Time limit of trees.
            device: The device of a network's training.
        """
        member, train = self._make(name), given.rows
        y, held_y = given.y, given.held_y
        if self.shape.classes == 1:
            y, held_y = (y - self.shape.center) / self.shape.scale, (held_y - self.shape.center) / self.shape.scale
        if isinstance(member, LinearModel):
            member.fit(train, y)
        elif isinstance(member, Booster):
            stops = member.config.forest == 1
            held = (self.seen(name, given.held), held_y) if stops else (None, None)
            member.fit(self.seen(name, train), y, *held, quantiles=self.shape.quantiles, seconds=seconds)
        else:
            self._train(member, train, given.dls, task, epochs, device)
        self.members[name] = member

    def _train(
        self, network: TabularNetwork, train: Rows, dls: DataLoaders, task: Task, epochs: int, device: str
    ) -> None:
        edges = quantile_edges(train["numbers"].numpy(), train["missing"].numpy(), network.config.bins)
        network.numbers.encode.set(edges)
        options = _options(device, self.seed)
        rate = 3e-3 if len(train["numbers"]) < FEW_ROWS else 1e-2
        Trainer(network, dls, task, options).fit_one_cycle(epochs, rate)
        network.cpu().eval()

    def seconds_an_epoch(self, dls: DataLoaders, task: Task, device: str) -> float:
        """Returns an estimate of the seconds of an epoch, from a few steps of a network that is thrown away."""
        network = cast(TabularNetwork, self._make("network"))
        batch = dls.train.one_batch()
        few = DataLoaders([batch] * 2, [batch])
        trainer = Trainer(network, few, task, _options(device))
        trainer.fit(1, 1e-4)
        began = time.perf_counter()
        trainer.fit(2, 1e-4)
        return (time.perf_counter() - began) / 6 * (len(dls.train) + len(dls.valid) * 2)

    def matrix(self, rows: Rows) -> np.ndarray:
        """Returns the features of trees, float32 (N, F): numbers, NaN where missing, and positions of categories.

        Args:
            rows: The result of `rows` or `fit_features`.
        """
        numbers = rows["numbers"].numpy().copy()
        numbers[rows["missing"].numpy()] = np.nan
        codes = rows["categories"].numpy()[:, list(self.shape.native)]
        return np.concatenate([numbers, codes.astype(np.float32)], axis=1)

    def seen(self, name: str, rows: Rows) -> np.ndarray:
        """Returns the feature matrix of a member's trees, with the network's category embeddings if it uses them.

        Args:
            name: The member.
            rows: The rows.
        """
        if name != "xgboost_embedded":
            return self.matrix(rows)
        network = cast(TabularNetwork, self.members["network"])
        with torch.no_grad():
            tables = [table(rows["categories"][:, i]).numpy() for i, table in enumerate(network.categories)]
        return np.concatenate([self.matrix(rows), *tables], axis=1)

    def predict(self, name: str, rows: Rows) -> np.ndarray:
        """Returns a member's predictions: probabilities, float64 (N, classes), or numbers (N,)."""
        member: Any = self.members[name]
        if isinstance(member, TabularNetwork):
            with torch.no_grad():
                starts = range(0, len(rows["numbers"]), 2048)
                parts = [member({k: v[i : i + 2048] for k, v in rows.items()}) for i in starts]
            out = torch.cat(parts).numpy()
        elif isinstance(member, LinearModel):
            out = member.scores(rows)
        else:
            out = member.scores(self.seen(name, rows))
            out = class_scores(out) if self.shape.classes > 1 else out
        if self.shape.classes > 1:
            return F.softmax(torch.from_numpy(out).double(), dim=1).numpy()
        if name == QUANTILES:
            return out.astype(np.float64) * self.shape.scale + self.shape.center
        out = out.astype(np.float64).reshape(len(out))
        return out if isinstance(member, TabularNetwork) else out * self.shape.scale + self.shape.center


def _options(device: str, seed: int = 0) -> TrainerOptions:
    return TrainerOptions(
        seed=seed, device=device, precision=fast_precision(find_device(device)), weight_decay=0.02, clip_norm=1.0,
        progress=False, channels_last=False,
    )  # fmt: skip
