"""What every recipe does around its training: the folder of results, and the table of metrics at the end."""

import dataclasses
import html
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.data.dirty import DirtyPolicy
from common.errors import ConfigError
from common.files import dump_json, write_text
from common.show.report import Report
from common.train.hooks import EventLog


class RunFolder:
    """The folder of a run's results; each file in it is whole or absent.

    Attributes:
        path: The folder.
        report: The page that is written at the end.
    """

    def __init__(self, path: Path, title: str) -> None:
        self.path = path
        self.report = Report(title)
        self.started = time.perf_counter()

    @property
    def pictures(self) -> Path:
        """The folder of the pictures."""
        return self.path / "pictures"

    @property
    def bundle(self) -> Path:
        """The bundle's folder."""
        return self.path / "bundle"

    def picture(self, heading: str, name: str, figure: Any, caption: str = "") -> None:
        """Writes a picture to the folder and puts it into the report."""
        figure.save(self.pictures / f"{name}.png")
        self.report.picture(heading, figure.png(), caption)

    def finish(self, options: Any, metrics: Mapping[str, float]) -> dict[str, float]:
        """Writes config, metrics and report, and returns the metrics with the seconds of the whole run."""
        found = {name: float(value) for name, value in metrics.items()}
        found["seconds"] = round(time.perf_counter() - self.started, 2)
        write_text(self.path / "config.json", dump_json(dataclasses.asdict(options)))
        self.report.write(self.path / "report.html")
        write_text(self.path / "metrics.json", dump_json(found))
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)
        return found


def folder_of(options: Any, recipe: str) -> Path:
    """Returns the folder that a run's results go to."""
    return Path(options.out or f"runs/{recipe}")


def dirty_policy(options: Any, recipe: str) -> DirtyPolicy:
    """Returns what happens to an item that cannot be used; the quarantine lies beside the results."""
    return DirtyPolicy(on_error=options.on_error, quarantine=folder_of(options, recipe) / "quarantine.jsonl")


@contextmanager
def run_folder(options: Any, recipe: str) -> Iterator[RunFolder]:
    """Yields the folder of a run; if the run fails before anything worth keeping, a folder made here is removed.

    A run that is resumed goes on with the log of the one before; see `EventLog`.
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
        yield RunFolder(path, f"cookbook run {recipe}")
    except BaseException:
        if path in missing and not (path / "bundle").exists() and not any(path.glob("checkpoints/*")):
            shutil.rmtree(path, ignore_errors=True)
            for parent in missing[1:]:
                try:
                    parent.rmdir()
                except OSError:
                    break
        raise


def print_metrics(results: Mapping[str, Mapping[str, float]]) -> None:
    """Prints one line a metric, in a table of recipes."""
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
