"""How long a network is trained: tried from short to long on the first fold, and each fold's training within its time.

A network that learns the rows by heart says less from epoch to epoch about others, and where that begins differs from
table to table. A one-cycle schedule must know its length beforehand, so lengths are compared, not stopped.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from applications.tabular.fold import FEW_ROWS, Fold, Given
from applications.tabular.selection import loss_of
from common.task.task import Task

LENGTHS = (4, 10, 25)  # epochs, from short to long
LENGTHS_OF_FEW = (10, 25, 60)  # where an epoch has few steps
GAIN = 0.005  # share of the loss that a longer training must save
LEAST_EPOCHS = 3  # with time for fewer the network is left out
SPARE = 0.95  # of the time that is left is planned with


@dataclass(frozen=True)
class _Trained:
    """Folds with a network of one length: the epochs, the mean loss, what they say of their own rows, the networks."""

    epochs: int
    loss: float
    said: list[np.ndarray]
    members: list[Any]


def fit_network(
    folds: Sequence[tuple[Fold, Given]], task: Task, end: float, *, epochs: int = 0, device: str = "cpu"
) -> list[np.ndarray] | None:
    """Trains the network of every fold and returns what each says of the rows it is judged on.

    The shortest length is taken that the next longer one does not beat by 0.5 %. Lengths are compared on the first
    fold; where rows are few, on all.

    Args:
        folds: Each with what its network is fitted to.
        task: The task.
        end: When it must be done, by ``time.perf_counter``.
        epochs: The length; found out when 0.
        device: Where it is trained.

    Returns:
        Probabilities or numbers of each fold's held rows; None where there is time for too few epochs.
    """
    few = len(folds[0][1].y) < FEW_ROWS
    lengths = (epochs,) if epochs else LENGTHS_OF_FEW if few else LENGTHS
    compared = folds if few and not epochs else folds[:1]
    an_epoch = folds[0][0].seconds_an_epoch(folds[0][1].dls, task, device)
    best: _Trained | None = None
    for length in lengths:
        possible = int((end - time.perf_counter()) * SPARE / len(folds) / an_epoch)
        if length > possible and (best is not None or possible < min(length, LEAST_EPOCHS)):
            break
        began = time.perf_counter()
        found = _train(compared, task, min(length, possible), device)
        an_epoch = (time.perf_counter() - began) / len(compared) / found.epochs
        if best is not None and not found.loss < best.loss * (1 - GAIN):
            break
        best = found
    if best is None:
        return None
    for (fold, _), member in zip(compared, best.members, strict=True):
        fold.members["network"] = member
    said = list(best.said)
    for number in range(len(compared), len(folds)):
        possible = int((end - time.perf_counter()) * SPARE / (len(folds) - number) / an_epoch)
        if possible < min(best.epochs, LEAST_EPOCHS):
            return None
        began = time.perf_counter()
        found = _train(folds[number : number + 1], task, min(best.epochs, possible), device)
        an_epoch = (time.perf_counter() - began) / found.epochs
        said += found.said
    return said


def _train(folds: Sequence[tuple[Fold, Given]], task: Task, epochs: int, device: str) -> _Trained:
    said, members, losses = list[np.ndarray](), list[Any](), list[float]()
    for fold, given in folds:
        fold.fit_member("network", given, task, epochs=epochs, device=device)
        said.append(fold.predict("network", given.held))
        members.append(fold.members["network"])
        losses.append(loss_of(given.held_y, fold.shape.classes)(said[-1]))
    return _Trained(epochs, float(np.mean(losses)), said, members)
