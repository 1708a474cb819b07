"""Ctrl-C and a polite kill during a fit: noted at once, acted on where a checkpoint can be written."""

import signal
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist

WATCHED = (signal.SIGINT, signal.SIGTERM)
PATIENCE_S = 10.0  # how long a process waits to learn that the others were signalled too


class Interrupted(KeyboardInterrupt):
    """A fit that Ctrl-C or SIGTERM stopped.

    Attributes:
        signal: The signal's number.
        epoch: The epoch of the fit that it stopped in, from 1.
        epochs: How many the fit has.
        folder: The checkpoint to go on from, or None where none is kept.
    """

    def __init__(self, signal: int, epoch: int, epochs: int, folder: Path | None = None) -> None:
        super().__init__()
        self.signal, self.epoch, self.epochs, self.folder = signal, epoch, epochs, folder

    def __str__(self) -> str:
        kept = f"its checkpoint is {self.folder}" if self.folder else "no checkpoint is kept"
        return f"stopped in epoch {self.epoch} of {self.epochs}; {kept}"


class Signals:
    """Notes SIGINT and SIGTERM for the length of a ``with`` block; a second one raises KeyboardInterrupt at once.

    Only the main thread can be told of signals: elsewhere, and for a signal that is ignored, nothing is changed.

    Args:
        name: Of this fit, the same in every process.
        rank: This process.
        world: The number of processes.

    Attributes:
        received: The signal's number, or 0.
        agreed: Whether every process stops at the same step (then a checkpoint can be written together).
    """

    def __init__(self, name: str = "", rank: int = 0, world: int = 1) -> None:
        self.name, self.rank, self.world = name, rank, world
        self.received = 0
        self.agreed = True
        self._before: dict[signal.Signals, Any] = {}
        self._told_at = 0.0

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in WATCHED:
                before = signal.getsignal(number)
                if before is not None and before is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            self._restore()
            raise KeyboardInterrupt
        self.received = number

    def due(self, step: int) -> bool:
        """Whether to stop at this step boundary, after a signal.

        Several processes stop at one step: each tells the others where the signal met it, and all go on until they
        have passed the farthest. No process can be more than one step ahead, since gradients are added up in each.
        A process that hears nothing of the others for some seconds stops by itself.

        Args:
            step: The number of steps done.
        """
        if self.world == 1:
            return True
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # so that "done" is what the device has done
        store: Any = dist.distributed_c10d._get_default_store()  # type: ignore[reportPrivateUsage]
        keys = [f"stop/{self.name}/{rank}" for rank in range(self.world)]
        if not self._told_at:
            self._told_at = time.monotonic()
            store.set(keys[self.rank], str(step))
            return False
        if store.check(keys):
            return step > max(int(store.get(key)) for key in keys)
        self.agreed = time.monotonic() - self._told_at < PATIENCE_S
        return not self.agreed
