"""Hooks: callbacks at five moments of a fit, each a method that does nothing unless it is overridden.

State that must survive a resume is returned by ``state_dict`` and restored by ``load_state_dict``.

Floor: train; may import deploy and below. Used by: recipes.
"""

import json
import os
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from torch import Tensor

from common.files import finite

if TYPE_CHECKING:
    from common.train.trainer import Trainer

DRAW_S = 0.25  # seconds between two refreshes of the bar
UNSHOWN = ("phase", "items_per_second", "lr", "wait_seconds")


class Hook:
    """Base of the hooks."""

    def fit_start(self, trainer: "Trainer", epochs: int, steps: int) -> None:
        """Before the first epoch of a fit of ``epochs`` epochs of ``steps`` steps."""

    def epoch_start(self, trainer: "Trainer", epoch: int) -> None:
        """Before an epoch of this fit, counted from 0."""

    def step_end(self, trainer: "Trainer", step: int, loss: Tensor, samples: int) -> None:
        """After a step; ``loss`` lies on the device: reading it waits for the device."""

    def epoch_end(self, trainer: "Trainer", record: dict[str, Any]) -> None:
        """After validation; ``record`` holds the epoch's numbers by name."""

    def fit_end(self, trainer: "Trainer") -> None:
        """After the last epoch, or when the fit ends by an error."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the hook's state for a checkpoint: tensors, and data that JSON can hold, by name."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, when a fit is resumed; called before ``fit_start``."""


class ProgressBar(Hook):
    """Loss, metrics, items a second, time left: a live bar in a terminal and a notebook, one line per epoch in a pipe.

    The last line of a fit says how long the loop waited for the loader's next batch. On a GPU that is time of the host:
    the device may still have been busy with the batches before.

    Args:
        stream: Where to write; standard error when None, so that a pipe gets results only.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream
        self.bar: Any = None
        self.task: Any = None
        self.header = False
        self.epoch = self.epochs = self.steps = self.samples = 0
        self.started = self.shown = self.trained = self.waited = 0.0

    def fit_start(self, trainer: "Trainer", epochs: int, steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        stream = self.stream or sys.stderr
        self.console = Console(file=stream, width=None if stream.isatty() else 10_000, highlight=False)
        self.epochs, self.steps, self.header = epochs, steps, False
        self.trained = self.waited = 0.0
        if self.console.is_terminal or self.console.is_jupyter:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
            )
            # refreshed by the loop: rich's own thread would take the interpreter lock ten times a second
            self.bar = Progress(*columns, console=self.console, transient=True, auto_refresh=False)
            self.bar.start()

    def epoch_start(self, trainer: "Trainer", epoch: int) -> None:
        self.epoch, self.samples = epoch, 0
        self.started = self.shown = time.perf_counter()
        if self.bar is not None:
            left = self.steps * self.epochs
            if self.task is None:
                self.task = self.bar.add_task("", total=left, note="")
            self.bar.update(self.task, description=f"epoch {epoch + 1}/{self.epochs}", completed=epoch * self.steps)
            self.bar.refresh()

    def step_end(self, trainer: "Trainer", step: int, loss: Tensor, samples: int) -> None:
        self.samples += samples
        if self.bar is None:
            return
        now = time.perf_counter()
        if now - self.shown >= DRAW_S:  # the only time a step waits for the device, and only with a live bar
            self.shown = now
            rate = self.samples / (now - self.started)
            done = self.epoch * self.steps + step + 1
            self.bar.update(self.task, completed=done, note=f"loss {float(loss):.4f}  {rate:,.0f} items/s")
            self.bar.refresh()

    def epoch_end(self, trainer: "Trainer", record: dict[str, Any]) -> None:
        self.waited += float(record.get("wait_seconds", 0.0))
        self.trained += float(record.get("seconds", 0.0))
        names = [name for name in record if name not in UNSHOWN]
        if not self.header:
            self.header = True
            self.console.print("  ".join(f"{name:>12}" for name in names))
        cells = [f"{v:>12.4f}" if isinstance(v, float) else f"{v!s:>12}" for v in (record[n] for n in names)]
        self.console.print("  ".join(cells))

    def fit_end(self, trainer: "Trainer") -> None:
        if self.bar is not None:
            self.bar.stop()
        self.bar = self.task = None
        if self.header:
            share = self.waited / max(self.trained, 1e-9)
            waited = f"the device waited {self.waited:.1f} s of {self.trained:.1f} s ({100 * share:.0f} %) for data"
            where = getattr(trainer.dls.train, "augments", None)
            self.console.print(waited if where is None else f"{waited}; {where}")


class EventLog(Hook):
    """One JSON object per line: the start of each fit, every epoch's numbers, the end.

    Args:
        path: The file to append to.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def write(self, event: str, **fields: Any) -> None:
        """Appends one event with the time in seconds since 1970."""
        line = json.dumps({"event": event, "time": round(time.time(), 3), **finite(fields)}, ensure_ascii=False)
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def fit_start(self, trainer: "Trainer", epochs: int, steps: int) -> None:
        self.write("fit_start", epochs=epochs, steps=steps, phase=trainer.phase)

    def epoch_end(self, trainer: "Trainer", record: dict[str, Any]) -> None:
        self.write("epoch", **record)

    def fit_end(self, trainer: "Trainer") -> None:
        self.write("fit_end", phase=trainer.phase)

    def state_dict(self) -> dict[str, Any]:
        written = self.path.read_bytes() if self.path.is_file() else b""
        return {"bytes": len(written), "crc": zlib.crc32(written)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Truncates the log to where the checkpoint was made: what came after it is trained, and logged, again."""
        written = self.path.read_bytes() if self.path.is_file() else b""
        length = int(state["bytes"])
        if length and len(written) >= length and zlib.crc32(written[:length]) == state["crc"]:
            os.truncate(self.path, length)
        elif written and not written.endswith(b"\n"):  # not the checkpoint's log, and cut within a line by a kill
            os.truncate(self.path, written.rfind(b"\n") + 1)
        self.write("resume")


class TensorBoardLog(Hook):
    """The same numbers for TensorBoard (package ``tensorboard``).

    Args:
        path: The folder of the log.
    """

    def __init__(self, path: str | Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(path))

    def epoch_end(self, trainer: "Trainer", record: dict[str, Any]) -> None:
        for name, value in record.items():
            if isinstance(value, float):
                self.writer.add_scalar(name, value, record["epoch"])
        self.writer.flush()


class EarlyStop(Hook):
    """Stops when a number has not improved for some epochs, and goes back to the best weights.

    Args:
        patience: Epochs without improvement that are allowed.
        monitor: The number's name in an epoch's record.
        lower: Whether lower is better.
    """

    def __init__(self, patience: int, monitor: str = "valid_loss", lower: bool = True) -> None:
        self.patience, self.monitor, self.lower = patience, monitor, lower
        self.best: float | None = None
        self.waited = 0
        self.weights: dict[str, Tensor] = {}

    def epoch_end(self, trainer: "Trainer", record: dict[str, Any]) -> None:
        from common.errors import ConfigError, nearest

        if self.monitor not in record:
            raise ConfigError(f"early stop has no number {self.monitor!r}: {nearest(self.monitor, record)}")
        value = float(record[self.monitor])
        better = self.best is None or (value < self.best if self.lower else value > self.best)
        if better:
            self.best, self.waited = value, 0
            self.weights = {k: v.detach().clone() for k, v in trainer.evaluation_state().items()}
        else:
            self.waited += 1
            trainer.stop = trainer.stop or self.waited > self.patience

    def fit_end(self, trainer: "Trainer") -> None:
        if self.weights and self.waited:
            trainer.model.load_state_dict(self.weights)
        self.best, self.waited, self.weights = None, 0, {}

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, **{f"weights.{k}": v for k, v in self.weights.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], int(state["waited"])
        self.weights = {k.removeprefix("weights."): v for k, v in state.items() if k.startswith("weights.")}
