"""Ensemble selection (Caruana et al. 2004): members are added one by one while the mean gets better."""

from collections.abc import Callable, Sequence

import numpy as np

Loss = Callable[[np.ndarray], float]

ROUNDS = 60
LEAST_SHARE = 0.02  # of the weights; what has less is left out
PRIOR_ROWS = 10.0  # that speak for a temperature of 1: few rows do not tell how sure one may be


def log_loss(target: np.ndarray) -> Loss:
    """Returns the mean negative log-likelihood of class positions as a function of probabilities (N, classes)."""
    rows = np.arange(len(target))
    return lambda found: float(-np.log(np.maximum(found[rows, target], 1e-9)).mean())


def squared_error(target: np.ndarray) -> Loss:
    """Returns the mean squared error of numbers (N,) as a function of what was found for them (N,)."""
    return lambda found: float(np.square(found - target).mean())


def loss_of(target: np.ndarray, classes: int) -> Loss:
    """Returns what is minimised: `log_loss` of classes, `squared_error` of a number (one class)."""
    return log_loss(target) if classes > 1 else squared_error(target)


def select_weights(predictions: Sequence[np.ndarray], loss: Loss, rounds: int = ROUNDS) -> np.ndarray:
    """Returns the weight of each member in the mean, float64, which add up to 1.

    Chosen on out-of-fold predictions. With few rounds and steps that only go down it does not overfit as a free fit of
    the weights would, and the mean is never worse there than the best member.

    Args:
        predictions: What each member says, arrays of one shape.
        loss: Of a mean; lower is better.
        rounds: How many times a member is added at most.

    Examples:
        >>> truth = np.array([0.0, 1.0, 2.0])
        >>> weights = select_weights([truth + 1, truth - 1, truth + 9], squared_error(truth))
        >>> weights.tolist()
        [0.5, 0.5, 0.0]
    """
    counts = np.zeros(len(predictions))
    total = np.zeros_like(predictions[0], dtype=np.float64)
    best = (np.inf, counts.copy())
    for taken in range(1, rounds + 1):
        losses = [loss((total + found) / taken) for found in predictions]
        chosen = int(np.argmin(losses))
        total += predictions[chosen]
        counts[chosen] += 1
        if losses[chosen] < best[0] - 1e-12:
            best = (losses[chosen], counts.copy())
    weights = best[1] / best[1].sum()
    weights[weights < LEAST_SHARE] = 0
    return weights / weights.sum()


def fit_temperature(probabilities: np.ndarray, target: np.ndarray) -> float:
    """Returns the temperature that the logarithms of probabilities are divided by to fit the target best (Guo 2017).

    With few rows it stays near 1 (a normal prior on its logarithm).

    Args:
        probabilities: Out-of-fold, (N, classes).
        target: Class positions (N,).
    """
    from scipy.optimize import minimize_scalar

    logits = np.log(np.maximum(probabilities, 1e-9))
    rows = np.arange(len(target))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        top = scaled.max(axis=1)
        loss = (np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top - scaled[rows, target]).mean()
        return float(loss + PRIOR_ROWS * log_temperature**2 / len(rows))

    found = minimize_scalar(loss, bounds=(-1.0, 1.0), method="bounded")
    return float(np.exp(found.x))
