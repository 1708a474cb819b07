"""Tables: from rows of numbers, categories, dates and texts to a bundle that predicts a class or a number.

Read from top to bottom: data, model, training, evaluation, bundle, report.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from recipes.options import CommonOptions, option

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from torch import Tensor

    from applications.tabular import TableSource, TabularEnsemble
    from applications.tabular.reading import TableReading
    from common import DataBlock, DataLoaders
    from common.blocks.columns import ColumnsBlock
    from common.data.prepared import Prepared
    from common.task.task import Outputs
    from common.train import AtOnce
    from recipes.run import RunFolder

LEAST_ROWS = 40  # the least rows of a part for adversarial validation against train
QUICK_MEMBERS = ("linear", "xgboost", "network")


@dataclass(frozen=True, kw_only=True)
class Options(CommonOptions):
    """Options of the tabular recipe."""

    target: str | None = option(None, "the column to predict (default: the last one)")
    kind: str = option("auto", "classification, regression or auto (by the target's values)")
    ignore: str | None = option(None, "columns that are no features, separated by commas")
    numbers: str | None = option(None, "columns that are numbers, where what was found out is wrong")
    categories: str | None = option(None, "columns that are categories, likewise")
    dates: str | None = option(None, "columns that are dates, likewise")
    texts: str | None = option(None, "columns that are texts, likewise")
    places: str | None = option(None, "latitude,longitude: columns that are places, where their names do not tell")
    text_encoder: str | None = option(
        None, "a folder with a pretrained transformer (config.json, model.safetensors, tokenizer.json) that reads texts"
    )
    group: str | None = option(
        None, "a column whose equal values stay on one side of every split (patients, customers)"
    )
    time: str | None = option(None, "a column of times: the latest rows validate")
    gap: float = option(0.0, "with --time: what is left out before them: seconds for dates, else the column's own unit")
    split_column: str = option("split", "a column of train, valid or test, which may be absent")
    valid_pct: float = option(0.2, "share of train that validates where the data has no such part")
    members: str | None = option(
        None, "xgboost, xgboost_shallow, xgboost_leafwise, xgboost_deep, forest, linear, network (default: all)"
    )
    folds: int = option(5, "folds: each member is fitted that many times, without one of them each time")
    budget: float = option(240.0, "seconds that the fit may take")
    tune: int = option(0, "settings of trees that are tried (needs Optuna), in at most half the budget")
    quantiles: str | None = option(None, "of a number, beside its value: such as 0.05,0.95")

    def __post_init__(self) -> None:
        from common.errors import ConfigError, in_range, one_of

        one_of("kind", self.kind, ("auto", "classification", "regression"))
        in_range("valid_pct", self.valid_pct, 0, 1, open_low=True, open_high=True)
        in_range("folds", self.folds, 2, 50)
        in_range("budget", self.budget, 1, 1e7)
        in_range("tune", self.tune, 0, 100_000)
        in_range("gap", self.gap, 0, float("inf"))
        if self.gap and self.time is None:
            raise ConfigError("gap needs --time, the column of times")
        quantiles_of(self.quantiles)
        places_of(self.places)


def names_of(text: str | None) -> tuple[str, ...]:
    """Returns the names in a comma-separated list."""
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()


def quantiles_of(text: str | None) -> tuple[float, ...]:
    """Returns the quantiles in a comma-separated list.

    Raises:
        ConfigError: if one is not a number.
    """
    from common.errors import ConfigError

    try:
        return tuple(float(part) for part in names_of(text))
    except ValueError as error:
        raise ConfigError(f"quantiles must be numbers such as 0.05,0.95, got {text!r}") from error


def places_of(text: str | None) -> tuple[tuple[str, str], ...]:
    """Returns the (latitude, longitude) pairs in a comma-separated list.

    Raises:
        ConfigError: if a longitude is missing.
    """
    from common.errors import ConfigError

    names = names_of(text)
    if len(names) % 2:
        raise ConfigError(f"places must be latitude,longitude (several pairs one after another), got {text!r}")
    return tuple(zip(names[::2], names[1::2], strict=True))


def find_source(options: Options) -> "TableSource":
    """The rows and their target; without data, tumours."""
    from applications.tabular.domain import TableReading, read
    from recipes.run import reading_of

    return read(options.data, reading_of(TableReading, options))


def make_block(options: Options, source: "TableSource") -> "DataBlock":
    """The four questions of the DataBlock, answered."""
    from common.text import Tokenizer

    splitter = source.dividing(options.valid_pct, options.seed, group=options.group, time=options.time, gap=options.gap)
    return source.block(
        splitter,
        numbers=names_of(options.numbers),
        categories=names_of(options.categories),
        dates=names_of(options.dates),
        texts=names_of(options.texts),
        places=places_of(options.places),
        tokenizer=None if options.text_encoder is None else Tokenizer.read(options.text_encoder),
    )


def make_loaders(options: Options, source: "TableSource") -> "tuple[Prepared, DataLoaders]":
    """The rows as matrices, and in batches."""
    from common.data.loader import LoaderOptions
    from recipes.run import dirty_policy

    prepared = make_block(options, source).prepare(source.items, dirty_policy(options, "tabular"))
    return prepared, prepared.loaders(LoaderOptions(batch_size=256, seed=options.seed), 4096, 0, None, "cpu")


def make_learner(options: Options, dls: "DataLoaders", reading: "TableReading", out: "Path") -> "AtOnce":
    """The ensemble for these columns and this target."""
    from applications.tabular import EnsembleConfig, tabular_learner
    from common.text import TextEncoder

    encoder = None if options.text_encoder is None else TextEncoder.read(options.text_encoder)
    members = names_of(options.members) or (QUICK_MEMBERS if options.quick else EnsembleConfig().members)
    config = EnsembleConfig(
        members=members,
        folds=min(options.folds, 3) if options.quick else options.folds,
        budget_s=min(options.budget, 30.0) if options.quick else options.budget,
        group=options.group,
        time=options.time,
        tune=options.tune,
        device=options.device,
        seed=options.seed,
    )
    learner = tabular_learner(
        dls,
        quantiles=quantiles_of(options.quantiles),
        config=config,
        text_encoder=encoder,
        out=out,
    )
    learner.reading = reading
    return learner


def train(options: Options, learner: "AtOnce") -> None:
    """Fits every member in every fold, and the weights of their mean."""
    learner.fit()


def run(options: Options) -> dict[str, float]:
    """Runs the recipe and returns its metrics."""
    from applications.tabular.domain import TableReading
    from recipes.run import carry_out, folder_of, reading_of

    source = find_source(options)
    kind = "classification" if source.classes else "regression"
    reading = replace(reading_of(TableReading, options), target=source.target, kind=kind)
    prepared, dls = make_loaders(options, source)
    learner = make_learner(options, dls, reading, folder_of(options, "tabular"))
    return carry_out(options, "tabular", source, prepared, learner, train, write_report)


def write_report(
    folder: "RunFolder",
    learner: "AtOnce",
    prepared: "Prepared",
    part: str,
    outputs: "Outputs",
    metrics: dict[str, float],
) -> None:
    """The report: metrics next to a simple baseline and each member, the columns, and explanations."""
    from applications.tabular import baseline, member_metrics
    from common.show.report import digits
    from recipes.run import interval

    page, task = folder.report, learner.task
    shown = [name for name in ("accuracy", "auc", "loss", "f1", "rmse", "mae", "r2") if name in metrics]
    with folder.section("Simple rule and members"):
        rules = baseline(task, learner.dls.train.arrays().y, outputs.target)
        alone = member_metrics(cast("TabularEnsemble", learner.fitted), task, learner.loader(part))
        first = shown[0]
        beside = "; ".join(f"{name} {digits(found[first])}" for name, found in rules.items() if first in found)
        sure = ""
        if first == "accuracy":
            low, high = interval(metrics[first], len(outputs.target))
            sure = f" (95 %: {low:.3f} to {high:.3f})"
        where = f"on {len(outputs.target):,} rows of the {part} part"
        folder.answer(f"{first} {digits(metrics[first])}{sure} {where}; {beside}")
        page.table(
            f"On the {part} part, beside a simple rule and each member alone",
            [
                {"model": name, **{metric: found.get(metric, float("nan")) for metric in shown}}
                for name, found in {"this model": metrics, **rules, **alone}.items()
            ],
        )
    page.table("Members, out of fold", cast("TabularEnsemble", learner.fitted).chosen.table)
    page.table("Columns", [
        {"column": c.name, "kind": c.kind, "why": c.why, "levels": len(c.levels) or ""}
        for c in columns_of(prepared).columns
    ])  # fmt: skip
    folder.training(learner, metrics)
    with folder.section("Results"):
        folder.picture("Results", "results", learner.show_results(max_n=9, part=part, outputs=outputs))
    explain(folder, learner, prepared, part, outputs)


def columns_of(prepared: "Prepared") -> "ColumnsBlock":
    """The fitted block of the columns."""
    return cast("ColumnsBlock", prepared.encoder.blocks[0])


def explain(folder: "RunFolder", learner: "AtOnce", prepared: "Prepared", part: str, outputs: "Outputs") -> None:
    """Adds importances, partial dependence, slices with high error, and leakage warnings to the report."""
    import numpy as np

    from applications.tabular import (
        TabularClassification,
        adversarial_validation,
        dependence_figure,
        importance_figure,
        leakage,
        partial_dependence,
        permutation_importance,
        slices,
    )

    page, task, predictor = folder.report, learner.task, learner.predictor()
    target: str = learner.reading.target or ""
    items, block = cast("pd.DataFrame", prepared.items), columns_of(prepared)
    kinds = {c.name: c.kind for c in block.columns}
    frame = items.iloc[cast("Tensor", outputs.ids).tolist()]
    used = [name for name, kind in kinds.items() if kind not in ("text", "identifier", "constant", "ignored")]
    with folder.section("What matters"):
        matters = permutation_importance(predictor, frame, target)
        page.table("What matters: rise of the loss when a column is shuffled", matters[:20])
        folder.picture("What matters", "importance", importance_figure(matters))
        best = [row["column"] for row in matters if kinds[row["column"]] != "text"][:6]
        if best:
            moved = [partial_dependence(predictor, frame, name) for name in best]
            folder.picture("How the answer moves with a column", "dependence", dependence_figure(moved))
    with folder.section("Where it errs most"):
        page.table("Where it errs most", slices(frame, target, outputs.output, task, used))
    with folder.section("To look at before it is trusted"):
        where = np.full(len(items), "", dtype=object)
        for name in ("train", "valid", "test"):
            where[prepared.split[name]] = name
        found = leakage(items, target, isinstance(task, TabularClassification), parts=where, ignore=block.ignore)
        rows = [{"column": row["column"], "why": row["warning"]} for row in found]
        page.table("To look at before it is trusted", rows)
    if len(frame) >= LEAST_ROWS:
        with folder.section("Train against the rest"):
            apart = adversarial_validation(items.iloc[prepared.split.train.tolist()], frame, block.ignore)
            said = f"AUC {apart['auc']:.3f} ({apart['low']:.3f} to {apart['high']:.3f}); 0.5: they are alike"
            page.text(f"Train against {part}: can a model tell their rows apart?", said)
