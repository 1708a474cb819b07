"""The ensemble of a table: members fitted in each fold, and the weights of the best out-of-fold mean."""

import math
import time
import warnings
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from applications.tabular.config import Chosen, EnsembleConfig
from applications.tabular.fold import MEMBERS, QUANTILES, TUNED, Fold, Given, Rows, Shape
from applications.tabular.network_length import fit_network
from applications.tabular.places import Place
from applications.tabular.selection import Loss, fit_temperature, loss_of, select_weights
from applications.tabular.task import TabularRegression
from applications.tabular.tuning import tune_booster
from common.blocks.columns import ColumnsBlock
from common.data.dataloaders import DataLoaders
from common.data.loader import Loader
from common.errors import ConfigError, DataError, in_range, one_of
from common.registry import register
from common.spec import build, to_spec
from common.task.fitted import FittedModel, Tell, silent
from common.task.task import Outputs, Task
from common.text.encoder import TextEncoder
from common.train.backend import find_device


@register("model", "tabular_ensemble")
class TabularEnsemble(FittedModel):
    """Members (linear, boosted trees, a forest, a network) fitted in folds, and their weighted mean.

    Called with the dictionary of a `ColumnsBlock` it returns class scores (B, classes) or numbers (B,).

    Args:
        config: The ensemble's configuration.
        shape: The dimensions that the members are built for; inferred by `fit` when None.
        chosen: What a fit selected, to build the model of a bundle.
        text_encoder: A transformer whose text embeddings give additional features; the block needs its tokenizer.
    """

    def __init__(
        self,
        config: EnsembleConfig,
        shape: Shape | None = None,
        chosen: Chosen | None = None,
        text_encoder: TextEncoder | None = None,
    ) -> None:
        super().__init__()
        self.config, self.shape, self.chosen = config, shape, chosen or Chosen()
        self.text_encoder = text_encoder
        self.folds = nn.ModuleList()
        if shape is not None:
            names = kept_members(self.chosen.names, shape)
            self.folds.extend(Fold(shape, names, config.seed + i, self.chosen.tuned) for i in range(self.chosen.folds))
        self.out_of_fold: dict[str, np.ndarray] = {}

    @property
    def _known(self) -> Shape:
        if self.shape is None:
            raise ConfigError("this ensemble is not fitted yet")
        return self.shape

    # ------------------------------------------------------------ fitting

    def fit(self, dls: DataLoaders, task: Task, tell: Tell = silent) -> None:
        started = time.perf_counter()
        end = started + self.config.budget_s
        loader: Loader = dls.train
        whole = loader.arrays()
        x: Rows = whole.x
        y: np.ndarray = whole.y.numpy()
        self.shape = shape_of(x, y, loader, task)
        x = self._read_texts(x, started, end, tell)
        shape = self._known
        cuts = self._cuts(loader, y)
        parts = [self._part(i, loader, x, y, train, held) for i, (train, held) in enumerate(cuts)]
        tell(f"features of {len(cuts)} folds: {time.perf_counter() - started:.1f} s")
        if self.config.tune:
            self._tune(parts, task, (time.perf_counter() + end) / 2, tell)
        self.out_of_fold, table = {}, list[dict[str, Any]]()
        loss = loss_of(y, shape.classes)
        for name in self.config.members:
            began = time.perf_counter()
            if name == "xgboost_embedded" and "network" not in self.out_of_fold:
                tell(f"{name}: left out, there is no network whose embeddings it could see")
                continue
            predictions = self._fit_member(name, parts, len(y), task, end, first=not table)
            if predictions is None:
                tell(f"{name}: left out, it would not be done within budget_s={self.config.budget_s:g}")
                continue
            self.out_of_fold[name] = predictions
            table.append({"member": name, "loss": loss(predictions), "seconds": round(time.perf_counter() - began, 2)})
            tell(f"{name}: out-of-fold loss {table[-1]['loss']:.6g}, {table[-1]['seconds']:.1f} s")
        self._choose(parts, y, loss, table)
        if shape.quantiles:
            self._fit_quantiles(parts, y, task, end)
        table.append({"member": "ensemble", "loss": loss(self.out_of_fold["ensemble"])})
        table[-1] |= {"seconds": round(time.perf_counter() - started, 2), "weight": 1.0}
        self.chosen = replace(self.chosen, table=tuple(table))
        tell(f"ensemble: out-of-fold loss {table[-1]['loss']:.6g}, {table[-1]['seconds']:.1f} s")

    def _read_texts(self, x: Rows, started: float, end: float, tell: Tell) -> Rows:
        """Returns the rows with text embeddings; if they would take over half of the time, drops the transformer."""
        if self.text_encoder is None:
            return x
        if "tokens" not in x:
            raise ConfigError("a text encoder needs its tokenizer in the block: ColumnsBlock(tokenizer=…)")
        vectors = self._vectors(self.text_encoder, x["tokens"], find_device(self.config.device), (started + end) / 2)
        if vectors is None:
            tell(f"text encoder: left out, it would take over half of budget_s={self.config.budget_s:g}")
            self.text_encoder = None
            return x
        self.shape = replace(self._known, vector=vectors.shape[1])
        tell(f"text encoder: {vectors.shape[1]} numbers a row, {time.perf_counter() - started:.1f} s")
        return {**x, "vector": vectors}

    def _vectors(
        self, encoder: TextEncoder, tokens: Tensor, device: torch.device, end: float = float("inf")
    ) -> Tensor | None:
        """The embeddings of each row's texts, concatenated; None where the time is too short."""
        vectors = encoder.embed(tokens.reshape(-1, tokens.shape[2]), device, end)
        return None if vectors is None else vectors.reshape(len(tokens), -1)

    def seen(self, x: Rows) -> Rows:
        """Returns the dictionary of a `ColumnsBlock` with the embeddings of its texts, where there is a transformer."""
        if self.text_encoder is None:
            return x
        return {**x, "vector": cast(Tensor, self._vectors(self.text_encoder, x["tokens"], x["numbers"].device))}

    def _tune(self, parts: "list[_Part]", task: Task, end: float, tell: Tell) -> None:
        """Searches the settings of the tuned trees on the first fold."""
        first = parts[0]
        found = tune_booster(first.fold, first.given, task, trials=self.config.tune, end=end, seed=self.config.seed)
        for part in parts:
            part.fold.tuned = found.config
        tell(f"{TUNED}: {found.trials} settings tried, loss {found.start:.6g} with the first, {found.loss:.6g} at best")

    def _part(
        self, number: int, loader: Loader, x: dict[str, Tensor], y: np.ndarray, train: np.ndarray, held: np.ndarray
    ) -> "_Part":
        """Makes one fold with its features and the data that its members are fitted to."""
        fold = Fold(self._known, (), self.config.seed + number)
        rows = fold.fit_features(_take(x, train), y[train])
        seen = fold.rows(_take(x, held))
        loaders = _loaders(loader, (train, rows), (held, seen), self.config.batch_size_of(len(train)))
        return _Part(fold, Given(rows, y[train], seen, y[held], loaders), held)

    def _fit_member(
        self, name: str, parts: "list[_Part]", rows: int, task: Task, end: float, first: bool
    ) -> np.ndarray | None:
        """Fits a member in every fold and returns its out-of-fold predictions; None where the time is too short.

        Trees stop growing when their share of the time is up; the network trains for fewer epochs.
        """
        shape = self._known
        predictions = np.zeros((rows, shape.classes) if shape.classes > 1 else rows)
        if name == "network":
            folds = [(part.fold, part.given) for part in parts]
            by_fold = fit_network(folds, task, end, epochs=self.config.epochs, device=self.config.device)
            if by_fold is None:
                return None
            for part, values in zip(parts, by_fold, strict=True):
                predictions[part.places] = values
            return predictions
        for number, part in enumerate(parts):
            left, rest = end - time.perf_counter(), len(parts) - number
            if left <= 0 and not first:
                return None
            began = time.perf_counter()
            part.fold.fit_member(name, part.given, task, seconds=max(left, 1.0) / rest)
            predictions[part.places] = part.fold.predict(name, part.given.held)
            took = time.perf_counter() - began
            if not first and took * (rest - 1) > end - time.perf_counter():
                return None
        return predictions

    def _choose(self, parts: "list[_Part]", y: np.ndarray, loss: Loss, table: list[dict[str, Any]]) -> None:
        """Selects the weights, and drops the members that have none."""
        shape, fitted = self._known, list(self.out_of_fold)
        weights = select_weights([self.out_of_fold[name] for name in fitted], loss)
        mean = cast(np.ndarray, sum(w * self.out_of_fold[n] for n, w in zip(fitted, weights, strict=True)))
        for record, weight in zip(table, weights.tolist(), strict=True):
            record["weight"] = weight
        names = tuple(name for name, weight in zip(fitted, weights, strict=True) if weight > 0)
        kept = kept_members(names, shape)
        for part in parts:
            for name in set(part.fold.members) - set(kept):
                del part.fold.members[name]
        self.folds = nn.ModuleList(part.fold for part in parts)
        self.eval()
        self.out_of_fold["ensemble"] = mean
        self.chosen = Chosen(
            names=names,
            weights=tuple(weight for weight in weights.tolist() if weight > 0),
            folds=len(parts),
            temperature=fit_temperature(mean, y) if shape.classes > 1 else 1.0,
            tuned=parts[0].fold.tuned if TUNED in names else None,
        )

    def _fit_quantiles(self, parts: "list[_Part]", y: np.ndarray, task: Task, end: float) -> None:
        """Fits the quantile trees, and shifts each quantile to its nominal out-of-fold coverage.

        A shift is the same quantile of the out-of-fold residuals, as in conformalized quantile regression (Romano et
        al. 2019): then a share of q of the rows lies below the shifted q-quantile.
        """
        quantiles = self._known.quantiles
        predictions = np.zeros((len(y), len(quantiles)))
        for number, part in enumerate(parts):
            share = max(end - time.perf_counter(), 1.0) / (len(parts) - number)
            part.fold.fit_member(QUANTILES, part.given, task, seconds=share)
            predictions[part.places] = part.fold.predict(QUANTILES, part.given.held)
        shifts = [float(np.quantile(y - predictions[:, i], quantile)) for i, quantile in enumerate(quantiles)]
        self.chosen = replace(self.chosen, shifts=tuple(shifts))

    def _cuts(self, loader: Loader, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """The positions among the training rows of each fold's training rows and held-out rows."""
        from sklearn import model_selection as select

        config, count = self.config, self.config.folds
        items = loader.store.items
        column = config.group or config.time
        values: Any = None
        if column is not None:
            if not isinstance(items, pd.DataFrame) or column not in items.columns:
                raise DataError(f"the table has no column {column!r} to make folds by")
            values = items[column].iloc[loader.rows.tolist()]
        if config.time is not None:
            order = np.argsort(pd.factorize(values, sort=True)[0], kind="stable")
            parts = np.array_split(order, count)
            return [(np.sort(np.concatenate([p for p in parts if p is not held])), np.sort(held)) for held in parts]
        # scikit-learn refuses more stratified folds than the largest class has rows.
        classes = self._known.classes
        if classes > 1 and np.bincount(y, minlength=classes).max() < count:
            count = max(2, int(np.bincount(y, minlength=classes).max()))
        if config.group is not None:
            groups = pd.factorize(values)[0]
            kind: Any = select.StratifiedGroupKFold if classes > 1 else select.GroupKFold
            return list(kind(count, shuffle=True, random_state=config.seed).split(y, y, groups))
        kind = select.StratifiedKFold if classes > 1 else select.KFold
        with warnings.catch_warnings():  # it warns of a class with fewer rows than folds
            warnings.simplefilter("ignore", UserWarning)
            return list(kind(count, shuffle=True, random_state=config.seed).split(y, y))

    # ------------------------------------------------------------ predicting

    def members(self, x: dict[str, Tensor]) -> dict[str, np.ndarray]:
        """Returns each member's predictions, the mean over its folds: probabilities (B, classes) or numbers (B,)."""
        return self._predicted(x, self.chosen.names)

    def _predicted(self, x: dict[str, Tensor], names: tuple[str, ...]) -> dict[str, Any]:
        means: dict[str, Any] = dict.fromkeys(names, 0.0)
        x = self.seen(x)
        for fold in cast("list[Fold]", list(self.folds)):
            rows = fold.rows(x)
            for name in names:
                means[name] = means[name] + fold.predict(name, rows) / len(self.folds)
        return means

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        if not len(self.folds):
            raise ConfigError("this ensemble is not fitted yet")
        shape, device = self._known, x["numbers"].device
        names = (*self.chosen.names, QUANTILES) if shape.quantiles else self.chosen.names
        every = self._predicted(x, names)
        mean = cast(np.ndarray, sum(w * every[n] for n, w in zip(self.chosen.names, self.chosen.weights, strict=True)))
        out = torch.from_numpy(mean)
        if shape.classes > 1:
            out = out.clamp(min=1e-9).log() / self.chosen.temperature
        if shape.quantiles:
            ends = np.sort(every[QUANTILES] + np.array(self.chosen.shifts), axis=1)  # sorted: quantiles must not cross
            out = torch.cat([out[:, None], torch.from_numpy(ends)], dim=1)
        return out.float().to(device)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Keeps trees, tables and linear models on the CPU, where they compute; a text encoder moves by itself."""
        return self

    # ------------------------------------------------------------ in a bundle

    def spec(self) -> dict[str, Any]:
        return {
            "kind": self.registered_name,
            "config": to_spec(self.config),
            "shape": None if self.shape is None else to_spec(self.shape),
            "chosen": to_spec(self.chosen),
            "text_encoder": None if self.text_encoder is None else self.text_encoder.spec(),
        }

    @classmethod
    def from_spec(cls, fields: dict[str, Any]) -> Self:
        for name in fields:
            one_of("model", name, ("config", "shape", "chosen", "text_encoder"))
        config = build(EnsembleConfig, fields.get("config") or {}, "model.config")
        shape = build(Shape, fields.get("shape") or {}, "model.shape")
        chosen = build(Chosen, fields.get("chosen") or {}, "model.chosen")
        if len(chosen.names) != len(chosen.weights):
            raise ConfigError("model.chosen must have one weight a name")
        for name in chosen.names:
            one_of("model.chosen.names", name, MEMBERS)
        in_range("model.chosen.folds", chosen.folds, 1, 50)
        if len(chosen.shifts) != len(shape.quantiles):
            raise ConfigError("model.chosen must have one shift a quantile")
        given = fields.get("text_encoder")
        if (given is None) != (shape.vector == 0):
            raise ConfigError("model.shape.vector must be above 0 where there is a text encoder, and only there")
        encoder = None if given is None else TextEncoder.from_spec(given)
        return cls(config, shape, chosen, encoder)


@dataclass(frozen=True)
class _Part:
    """A fold, the data of its members, and the positions of its held-out rows among the training rows."""

    fold: Fold
    given: Given
    places: np.ndarray


def kept_members(names: tuple[str, ...], shape: Shape) -> tuple[str, ...]:
    """Returns the members that a fold must hold: those in the mean, those that they depend on, and the quantiles'."""
    network = ("network",) if "xgboost_embedded" in names and "network" not in names else ()
    return (*names, *network, *((QUANTILES,) if shape.quantiles else ()))


def shape_of(x: dict[str, Tensor], y: np.ndarray, loader: Loader, task: Task) -> Shape:
    """Returns the dimensions that the members are built for: from the block's columns and the target."""
    block = loader.store.encoder.blocks[0]
    if not isinstance(block, ColumnsBlock):
        raise ConfigError(f"an ensemble of a table needs a ColumnsBlock as its input, got {type(block).__name__}")
    vocab = getattr(task, "vocab", None)
    quantiles = tuple(getattr(task, "quantiles", ()))
    shape = Shape(
        numbers=x["numbers"].shape[1], sizes=block.sizes, buckets=block.buckets if block.ngrams else 0,
        classes=len(vocab) if vocab else 1, places=places_of(block), rows=len(y),
    )  # fmt: skip
    if not vocab:
        deviation = float(y.astype(np.float64).std())
        shape = replace(
            shape,
            center=float(y.astype(np.float64).mean()),
            scale=deviation if deviation > 0 else 1.0,
            quantiles=quantiles,
        )
    return shape


def places_of(block: ColumnsBlock) -> tuple[Place, ...]:
    """Returns the places of a block: which of its numbers are a latitude and a longitude."""
    names, found = block.number_names, list[Place]()
    centers, scales = block.spreads.tolist()
    for latitude, longitude in block.located:
        i, j = names.index(latitude), names.index(longitude)
        east = scales[j] * math.cos(math.radians(centers[i]))  # a degree of longitude shrinks with the latitude
        found.append(Place(latitude=i, longitude=j, north=scales[i], east=east))
    return tuple(found)


def _take(x: dict[str, Tensor], rows: np.ndarray) -> dict[str, Tensor]:
    chosen = torch.from_numpy(rows)
    return {name: tensor[chosen] for name, tensor in x.items()}


def _loaders(
    loader: Loader, train: tuple[np.ndarray, Rows], held: tuple[np.ndarray, Rows], batch_size: int
) -> DataLoaders:
    """Loaders of a fold's training and held-out rows, with the features that the fold made of them."""
    places = [loader.rows[torch.from_numpy(rows)] for rows, _ in (train, held)]
    seen = {name: torch.cat([train[1][name], held[1][name]]) for name in ("numbers", "missing")}
    store = loader.store.with_entries(0, torch.cat(places), seen)
    loaders: list[Loader] = []
    for rows, learning in zip(places, (True, False), strict=True):
        options = replace(
            loader.options, train=learning, shuffle=learning, drop_last=learning, rank=0, world=1,
            batch_size=batch_size if learning else 2048,
        )  # fmt: skip
        loaders.append(Loader(store, rows, loader.full, options, loader.device))
    return DataLoaders(*loaders)


def member_metrics(model: TabularEnsemble, task: Task, loader: Loader) -> dict[str, dict[str, float]]:
    """Returns the metrics of each member alone, the mean over its folds, on the rows of a loader.

    Args:
        model: A fitted ensemble.
        task: Its task.
        loader: The rows.
    """
    whole = loader.arrays()
    if isinstance(task, TabularRegression):
        task = replace(task, quantiles=())  # the members predict none
    metrics: dict[str, dict[str, float]] = {}
    for name, predictions in model.members(whole.x).items():
        values = torch.from_numpy(predictions)
        output = values.clamp(min=1e-9).log() if values.dim() > 1 else values
        metrics[name] = task.report(Outputs(output.float(), whole.y))
    return metrics
