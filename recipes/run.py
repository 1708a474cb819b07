"""The shared part of all recipes: the folder of results, export, evaluation, report and the table of metrics."""

import dataclasses
import html
import math
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import Tensor

from common.data.prepared import Prepared
from common.errors import ConfigError
from common.figures import Picture
from common.files import dump_json, write_text
from common.show.report import Report, digits
from common.sources.items import item_keys
from common.sources.source import Source
from common.sources.splits import PARTS
from common.store.dirty import DirtyPolicy
from common.task.evaluate import collect
from common.task.task import Outputs
from common.train.hooks import EventLog
from common.train.learner import Learner
from common.train.trainer import Trainer
from recipes.options import CommonOptions

_O = TypeVar("_O", bound=CommonOptions)
_L = TypeVar("_L", bound=Learner)
_R = TypeVar("_R")
UNMADE = "could not be made"
"""What stands in a report in the place of a section that failed."""


class RunFolder:
    """The folder of a run's results; each file in it is complete or absent.

    Attributes:
        path: The folder.
        recipe: The name of the recipe.
        report: The report, written at the end.
    """

    def __init__(self, path: Path, recipe: str) -> None:
        self.path, self.recipe = path, recipe
        self.report = Report(f"cookbook run {recipe}")
        self.started = time.perf_counter()

    @property
    def pictures(self) -> Path:
        """The folder of the pictures."""
        return self.path / "pictures"

    @property
    def bundle(self) -> Path:
        """The bundle's folder."""
        return self.path / "bundle"

    def picture(self, heading: str, name: str, figure: Picture, caption: str = "") -> None:
        """Writes a picture to the folder and adds it to the report."""
        figure.save(self.pictures / f"{name}.png")
        self.report.picture(heading, figure.png(), caption)

    def tell(self, lines: Sequence[str]) -> None:
        """Says what was read, on the screen and in the report."""
        for line in lines:
            print(line, flush=True)
        self.report.lead["learned from"] = "; ".join(line.removeprefix("data: ") for line in lines[:2])
        self.report.text("What was read", "\n".join(lines))

    def answer(self, text: str) -> None:
        """Puts how good the model is on the report's first screen."""
        self.report.lead["how good"] = text

    def notes(self, heading: str, notes: Sequence[str]) -> None:
        """Says what a person should know of the data: the first in the terminal, all in the report."""
        if notes:
            more = f" (and {len(notes) - 1} more: see the report)" if len(notes) > 1 else ""
            print(f"{heading}: {notes[0]}{more}", file=sys.stderr)
            self.report.table(f"{heading[0].upper()}{heading[1:]}: {len(notes)}", [{"note": note} for note in notes])

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Keeps a run whole whose report fails in some section: a note says in its place what went wrong.

        The metrics are written before the first section is made.
        """
        try:
            yield
        except Exception as error:
            if os.environ.get("COOKBOOK_DEBUG"):
                raise
            said = f"{type(error).__name__}: {error}"
            self.report.text(name, f"{UNMADE}: {said}")
            print(f"the report's section {name!r} {UNMADE}: {said.splitlines()[0]}", file=sys.stderr)

    def training(self, trainer: Learner, metrics: Mapping[str, float]) -> None:
        """Adds the sections of every report: metrics, epochs, items left out, learning curves and batches."""
        from common.show import learning_curves

        page, train, history = self.report, trainer.dls.train, trainer.history
        page.table("Metrics", [{"metric": name, "value": value} for name, value in sorted(metrics.items())])
        stepwise = "train_loss" in history[0]  # else it was fitted at once
        if stepwise:
            page.table("Epochs", history)
        if left_out := train.store.dirty.table():
            page.table(f"Items left out: {len(left_out)}", left_out)
        if stepwise:
            with self.section("Learning curves"):
                self.picture("Learning curves", "curves", learning_curves(history, ["train_loss", "valid_loss"]))
        with self.section("Training items as the model sees them"):
            self.picture("Training items as the model sees them", "batch", train.show_batch(max_n=16))
        if train.pipeline.changes or train.pipeline.crops:
            with self.section("One item in successive epochs"):
                shown = train.show_batch(max_n=8, nrows=2, unique=True)
                self.picture("One item in successive epochs", "augmented", shown)

    def write_metrics(self, options: CommonOptions, metrics: Mapping[str, float]) -> dict[str, float]:
        """Writes config and metrics, and returns the metrics with the seconds of the run so far."""
        numbers = {name: float(value) for name, value in metrics.items()}
        numbers["seconds"] = round(time.perf_counter() - self.started, 2)
        write_text(self.path / "config.json", dump_json(dataclasses.asdict(options)))
        write_text(self.path / "metrics.json", dump_json(numbers))
        return numbers

    def finish(self, options: CommonOptions, metrics: Mapping[str, float]) -> dict[str, float]:
        """Writes the report, and the metrics again with the seconds of the whole run, which are returned."""
        numbers = self.write_metrics(options, metrics)
        speed = digits(numbers["items_per_second"])
        self.report.lead["how long"] = f"{numbers['seconds']:,.0f} s in all; {speed} items a second in training"
        self.report.lead["made by"] = command_of(options, self.recipe)
        self.report.write(self.path / "report.html")
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)
        return numbers


def command_of(options: CommonOptions, recipe: str) -> str:
    """Returns the command that runs a recipe with some options: those that are not the defaults.

    Examples:
        >>> command_of(CommonOptions(data="my photos", quick=True), "classification")
        "cookbook run classification --data 'my photos' --quick"
    """
    words = ["cookbook", "run", recipe]
    for one in dataclasses.fields(options):
        value, flag = getattr(options, one.name), one.name.replace("_", "-")
        if value != one.default:
            words += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return shlex.join(words)


def interval(share: float, count: int) -> tuple[float, float]:
    """Returns where a share of so many items lies with 95 % confidence (Wilson 1927).

    Examples:
        >>> [round(end, 3) for end in interval(0.9, 100)]
        [0.826, 0.945]
    """
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def folder_of(options: CommonOptions, recipe: str) -> Path:
    """Returns the folder of a run's results."""
    return Path(options.out or f"runs/{recipe}")


def dirty_policy(options: CommonOptions, recipe: str) -> DirtyPolicy:
    """Returns the policy for items that cannot be used, with the quarantine file in the folder of results."""
    return DirtyPolicy(on_error=options.on_error, quarantine=folder_of(options, recipe) / "quarantine.jsonl")


@contextmanager
def run_folder(options: CommonOptions, recipe: str) -> Iterator[RunFolder]:
    """Yields the folder of a run; if the run fails before a bundle or checkpoint, a folder made here is removed.

    A resumed run appends to the log of the run before; see `EventLog`.
    """
    path = folder_of(options, recipe)
    if path.exists() and not path.is_dir():
        raise ConfigError(f"out={path} is a file: name a folder")
    missing = [p for p in (path, *path.parents) if not p.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        events = path / "events.jsonl"
        if not getattr(options, "resume", False):
            events.unlink(missing_ok=True)
        if not events.exists():
            EventLog(events).write("start", recipe=recipe, options=dataclasses.asdict(options))
        yield RunFolder(path, recipe)
    except BaseException:
        if path in missing and not (path / "bundle").exists() and not any(path.glob("checkpoints/*")):
            shutil.rmtree(path, ignore_errors=True)
            for parent in missing[1:]:
                try:
                    parent.rmdir()
                except OSError:
                    break
        raise


def reading_of(reading: type[_R], options: CommonOptions) -> _R:
    """Returns the reading options among a recipe's options, as a bundle stores them.

    Args:
        reading: The domain's dataclass of reading options.
        options: The recipe's options, which include all of them under the same names.
    """
    names = [field.name for field in dataclasses.fields(cast(Any, reading))]
    return reading(**{name: getattr(options, name) for name in names})


def judged(bundle: Path, trainer: Learner, source: Source, part: str) -> tuple[Outputs, dict[str, float]]:
    """Returns the outputs and metrics of the reloaded bundle on a part, from one pass over it.

    The test part is evaluated in the batches of a `Predictor`, so that ``cookbook evaluate`` gives the same numbers.

    Args:
        bundle: The bundle's folder.
        trainer: The trainer whose loaders have the part, already decoded.
        source: The data.
        part: ``test`` or ``valid``.
    """
    from common.deploy import Predictor

    predictor, own = Predictor(bundle, trainer.device), trainer.loader(part)
    size = None if part == "test" else own.options.batch_size
    loader = predictor.loader_of(own.store, own.rows, batch_size=size)
    outputs = collect(predictor.model, loader, predictor.task, predictor.device)
    metrics = predictor.task.report(outputs)
    left_out = len(source.part(part)) - len(cast(Tensor, outputs.ids)) if part == "test" else 0
    return outputs, {**metrics, "items_left_out": float(left_out)} if left_out else metrics


def worst_ids(outputs: Outputs, count: int) -> list[int]:
    """Returns the ids of the samples with the largest losses, the largest first.

    Args:
        outputs: The outputs of a part, with losses.
        count: The most samples.
    """
    losses, ids = cast(Tensor, outputs.losses), cast(Tensor, outputs.ids)
    return [int(own) for own in ids[losses.topk(min(count, len(losses))).indices]]


def carry_out(
    options: _O,
    recipe: str,
    source: Source,
    prepared: Prepared,
    trainer: _L,
    train: Callable[[_O, _L], None],
    write_report: Callable[[RunFolder, _L, Prepared, str, Outputs, dict[str, float]], None],
    said: Sequence[str] = (),
) -> dict[str, float]:
    """Trains, exports, evaluates and reports, the same way in every recipe; returns the metrics.

    The test part (without one, the validation part) is evaluated once, with the exported bundle loaded again.

    Args:
        options: The recipe's options.
        recipe: Its name.
        source: The data.
        prepared: The DataBlock applied to it.
        trainer: The model's trainer.
        train: Trains it; called with the options and the trainer.
        write_report: Fills the report; called with the folder, the trainer, the prepared data, the evaluated part, its
            outputs and the metrics.
        said: What more there is to say of what was read, a line each.
    """
    with run_folder(options, recipe) as folder:
        prepared.split.write(folder.path / "split.csv", prepared.items)
        going_on: list[str] = []
        if getattr(options, "resume", False) and isinstance(trainer, Trainer):
            going_on.append(trainer.resume(folder.path / "checkpoints"))
        open_held_out(trainer)
        folder.tell([*what_was_read(source, prepared), *said, *going_on])
        folder.notes("set right in the data", prepared.notes())
        folder.notes("to look at in the data", equal_items(prepared))
        train(options, trainer)
        trainer.export(folder.bundle)
        part = "test" if trainer.dls.has("test") else "valid"
        outputs, metrics = judged(folder.bundle, trainer, source, part)
        if undefined := [name for name, value in metrics.items() if not math.isfinite(value)]:
            print(f"not defined on the {part} part: {', '.join(undefined)}", file=sys.stderr)
            metrics = {name: value for name, value in metrics.items() if name not in undefined}
        trainer.export(folder.bundle, metrics)
        metrics["items_per_second"] = trainer.history[-1]["items_per_second"]
        folder.write_metrics(options, metrics)
        with folder.section("Report"):
            write_report(folder, trainer, prepared, part, outputs, metrics)
        return folder.finish(options, metrics)


def what_was_read(source: Source, prepared: Prepared) -> list[str]:
    """Returns what a run learns from, a line each: the data, the targets, the inputs, and what is to be known of them.

    Args:
        source: The data.
        prepared: The DataBlock applied to it.
    """
    parts = ", ".join(f"{part} {len(prepared.split[part]):,}" for part in PARTS if len(prepared.split[part]))
    given = "" if source.parts is None else f" ({' and '.join(sorted(set(source.parts.tolist())))}: the data's own)"
    lines = [f"data: {source.kind}; {parts}{given}"]
    for side, blocks in (("target", prepared.encoder.y_blocks), ("input", prepared.encoder.x_blocks)):
        lines += [f"{side}: {line}" for block in blocks if (line := block.about())]
    failures = prepared.failures
    if failures:
        first = f"{failures[0].item}: {failures[0].reason}"
        lines.append(f"note: {len(failures):,} items were left out, the first {first}")
    return lines + [f"note: {note}" for note in source.notes]


def equal_items(prepared: Prepared) -> list[str]:
    """Returns what is to be said of items with the same content: on two sides of the split, or with two labels.

    Args:
        prepared: The items.
    """
    from common.data.check import label_of, same_content

    part_of = {int(row): part for part in PARTS for row in prepared.split[part]}
    found = same_content(prepared, list(part_of))
    names = item_keys(prepared.items)
    notes: list[str] = []
    if across := [group for group in found.groups if len({part_of[row] for row in group}) > 1]:
        few = " and ".join(f"{names[row]} ({part_of[row]})" for row in across[0][:3])
        count = sum(len(group) for group in across)
        notes.append(f"{count:,} items have the same content as one of another part, such as {few}: figures flatter")
    if found.disagreeing:
        few = " and ".join(f"{names[row]} ({label_of(prepared, row)})" for row in found.disagreeing[0])
        notes.append(f"{len(found.disagreeing):,} groups of items have the same content and different labels: {few}")
    return notes


def open_held_out(trainer: Learner) -> None:
    """Opens every item that validates or tests, so that one which cannot be used is found before the first epoch.

    What was decoded is kept as far as there is room, and not decoded again.
    """
    for part in ("valid", "test"):
        if trainer.dls.has(part):
            loader = trainer.loader(part)
            loader.store.usable(loader.rows.numpy())


def print_metrics(results: Mapping[str, Mapping[str, float]]) -> None:
    """Prints a table of recipes with one line per metric."""
    from rich.console import Console
    from rich.table import Table

    table = Table("recipe", "metric", "value")
    for name, metrics in results.items():
        for i, (metric, value) in enumerate(sorted(metrics.items())):
            table.add_row(name if i == 0 else "", metric, f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}")
    Console(width=100).print(table)


def write_index(path: Path, results: Mapping[str, Mapping[str, float]]) -> None:
    """Writes the demo's page: each recipe's metrics and a link to its report."""
    page = Report("cookbook demo")
    for name, metrics in results.items():
        page.table(name, [{"metric": k, "value": v} for k, v in sorted(metrics.items())])
        link = html.escape(f"{name}/report.html")
        page.parts.append(f'<p><a href="{link}">the whole report of {html.escape(name)}</a></p>')
    page.write(path)
