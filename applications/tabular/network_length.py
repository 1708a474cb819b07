"""The training length of the network: compared from short to long on the first fold, within the time budget.

Where a network begins to overfit differs from table to table. A one-cycle schedule must know its length beforehand, so
lengths are compared instead of stopping early.
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
LENGTHS_OF_FEW = (10, 25, 60)  # the same where rows are few, so that an epoch has few steps
GAIN = 0.005  # the relative reduction of the loss that a longer training must bring
LEAST_EPOCHS = 3  # with time for fewer epochs the network is left out
SPARE = 0.95  # the share of the remaining time that is planned for


@dataclass(frozen=True)
class _Trained:
    """Networks of one length: epochs, mean loss, predictions for each fold's held-out rows, the networks."""

    epochs: int
    loss: float
    predictions: list[np.ndarray]
    members: list[Any]


def fit_network(
    folds: Sequence[tuple[Fold, Given]], task: Task, end: float, *, epochs: int = 0, device: str = "cpu"
) -> list[np.ndarray] | None:
    """Trains the network of every fold and returns its predictions for the held-out rows.

    It takes the shortest length that the next longer one does not beat by 0.5 %. Lengths are compared on the first
    fold; where rows are few, on all.

    Args:
        folds: The folds, each with its data.
        task: The task.
        end: The deadline, by ``time.perf_counter``.
        epochs: The length; chosen by comparison when 0.
        device: The device to train on.

    Returns:
        Probabilities or numbers for each fold's held-out rows; None where there is time for too few epochs.
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
        trained = _train(compared, task, min(length, possible), device)
        an_epoch = (time.perf_counter() - began) / len(compared) / trained.epochs
        if best is not None and not trained.loss < best.loss * (1 - GAIN):
            break
        best = trained
    if best is None:
        return None
    for (fold, _), member in zip(compared, best.members, strict=True):
        fold.members["network"] = member
    predictions = list(best.predictions)
    for number in range(len(compared), len(folds)):
        possible = int((end - time.perf_counter()) * SPARE / (len(folds) - number) / an_epoch)
        if possible < min(best.epochs, LEAST_EPOCHS):
            return None
        began = time.perf_counter()
        trained = _train(folds[number : number + 1], task, min(best.epochs, possible), device)
        an_epoch = (time.perf_counter() - began) / trained.epochs
        predictions += trained.predictions
    return predictions


def _train(folds: Sequence[tuple[Fold, Given]], task: Task, epochs: int, device: str) -> _Trained:
    predictions, members, losses = list[np.ndarray](), list[Any](), list[float]()
    for fold, given in folds:
        fold.fit_member("network", given, task, epochs=epochs, device=device)
        predictions.append(fold.predict("network", given.held))
        members.append(fold.members["network"])
        losses.append(loss_of(given.held_y, fold.shape.classes)(predictions[-1]))
    return _Trained(epochs, float(np.mean(losses)), predictions, members)
