"""Ensemble selection (Caruana et al. 2004): members are added one by one while the mean gets better."""

from collections.abc import Callable, Sequence

import numpy as np

Loss = Callable[[np.ndarray], float]

ROUNDS = 60
LEAST_SHARE = 0.02  # members with a smaller weight are dropped
PRIOR_ROWS = 10.0  # the strength of the prior for a temperature of 1, in rows: few rows cannot calibrate


def log_loss(target: np.ndarray) -> Loss:
    """Returns the mean negative log-likelihood of class indices as a function of probabilities (N, classes)."""
    rows = np.arange(len(target))
    return lambda found: float(-np.log(np.maximum(found[rows, target], 1e-9)).mean())


def squared_error(target: np.ndarray) -> Loss:
    """Returns the mean squared error of numbers (N,) as a function of their predictions (N,)."""
    return lambda found: float(np.square(found - target).mean())


def loss_of(target: np.ndarray, classes: int) -> Loss:
    """Returns the loss to minimise: `log_loss` for classes, `squared_error` for a number (one class)."""
    return log_loss(target) if classes > 1 else squared_error(target)


def select_weights(predictions: Sequence[np.ndarray], loss: Loss, rounds: int = ROUNDS) -> np.ndarray:
    """Returns the weight of each member in the mean, float64, summing to 1, by greedy selection with replacement.

    In each round the member whose addition gives the lowest loss of the mean is added; the weights are the counts at
    the best round. With few rounds this overfits less than a free fit of the weights, and before small weights are
    dropped the mean is never worse on these predictions than the best member.

    Args:
        predictions: Each member's out-of-fold predictions, arrays of one shape.
        loss: The loss of a mean; lower is better.
        rounds: The number of additions.

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
        losses = [loss((total + one) / taken) for one in predictions]
        chosen = int(np.argmin(losses))
        total += predictions[chosen]
        counts[chosen] += 1
        if losses[chosen] < best[0] - 1e-12:
            best = (losses[chosen], counts.copy())
    weights = best[1] / best[1].sum()
    weights[weights < LEAST_SHARE] = 0
    return weights / weights.sum()


def fit_temperature(probabilities: np.ndarray, target: np.ndarray) -> float:
    """Returns the temperature that calibrates probabilities best, dividing their logarithms (Guo et al. 2017).

    With few rows it stays near 1 (a normal prior on its logarithm).

    Args:
        probabilities: Out-of-fold probabilities (N, classes).
        target: Class indices (N,).
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
