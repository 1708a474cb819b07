"""SIGINT (Ctrl-C) and SIGTERM during a fit: recorded at once, acted on where a checkpoint can be written.

Floor: train; may import deploy and below. Used by: its own room.
"""

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
        epoch: The epoch of the fit in which it stopped, from 1.
        epochs: The number of epochs of the fit.
        folder: The checkpoint to resume from, or None without checkpoints.
    """

    def __init__(self, signal: int, epoch: int, epochs: int, folder: Path | None = None) -> None:
        super().__init__()
        self.signal, self.epoch, self.epochs, self.folder = signal, epoch, epochs, folder

    def __str__(self) -> str:
        checkpoint = f"its checkpoint is {self.folder}" if self.folder else "no checkpoint is kept"
        return f"stopped in epoch {self.epoch} of {self.epochs}; {checkpoint}"


class Signals:
    """Records SIGINT and SIGTERM during a ``with`` block; a second one raises KeyboardInterrupt at once.

    Python runs signal handlers in the main thread only: in other threads, and for ignored signals, nothing is changed.

    Args:
        name: The name of this fit, the same in every process.
        rank: The index of this process.
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
        self._announced_at = 0.0

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

        Several processes stop at one step: each announces the step at which it got the signal, and all go on until they
        have passed the largest. No process can be more than one step ahead, since gradients are reduced in each step.
        A process that the others do not answer within `PATIENCE_S` stops on its own.

        Args:
            step: The number of steps done.
        """
        if self.world == 1:
            return True
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # count the steps that the device has done, not those launched ahead of it
        store: Any = dist.distributed_c10d._get_default_store()  # type: ignore[reportPrivateUsage]
        keys = [f"stop/{self.name}/{rank}" for rank in range(self.world)]
        if not self._announced_at:
            self._announced_at = time.monotonic()
            store.set(keys[self.rank], str(step))
            return False
        if store.check(keys):
            return step > max(int(store.get(key)) for key in keys)
        self.agreed = time.monotonic() - self._announced_at < PATIENCE_S
        return not self.agreed
