"""Metrics as sums: each batch gives a few sums, which are added over batches and processes and read at the end.

A metric object has no state, and nothing is read from the device before the epoch ends.

Floor: task; may import data and below. Used by: train, applications.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from common.blocks.batch import Batch
from common.errors import ConfigError, one_of


class Metric:
    """Base of the metrics; also a function of (outputs, targets) that returns the value as a float.

    Attributes:
        name: The standard name under which it is reported.
        better: ``higher`` or ``lower``.
    """

    name: str = "metric"
    better: str = "higher"

    def measure(self, output: Tensor, batch: Batch) -> Tensor:
        """Returns this batch's sums, float64 (k,), on the outputs' device."""
        raise NotImplementedError

    def compute(self, sums: Tensor) -> float:
        """Returns the metric from sums that were added over batches."""
        raise NotImplementedError

    def __call__(self, output: Tensor, target: Any) -> float:
        return self.compute(self.measure(output, Batch(x=output, y=target)))


def _ratio(sums: Tensor) -> float:
    count = float(sums[1])
    return float(sums[0]) / count if count else float("nan")


def hard_target(target: Tensor) -> Tensor:
    """Returns class indices (B,) from indices, or from soft targets (B, classes), as after mixup."""
    return target.argmax(dim=1) if target.is_floating_point() and target.dim() == 2 else target


@dataclass
class Accuracy(Metric):
    """Share of samples whose highest output is the true class: outputs (B, classes), targets int64 (B,).

    Examples:
        >>> Accuracy()(torch.tensor([[0.2, 0.8], [0.9, 0.1]]), torch.tensor([1, 1]))
        0.5
    """

    name = "accuracy"
    better = "higher"

    def measure(self, output: Tensor, batch: Batch) -> Tensor:
        target = hard_target(batch.y)
        right = (output.argmax(dim=1) == target).sum(dtype=torch.float64)
        return torch.stack([right, right.new_full((), len(target))])

    def compute(self, sums: Tensor) -> float:
        return _ratio(sums)


@dataclass
class ErrorRate(Accuracy):
    """One minus the accuracy.

    Examples:
        >>> ErrorRate()(torch.tensor([[0.2, 0.8], [0.9, 0.1]]), torch.tensor([1, 1]))
        0.5
    """

    name = "error_rate"
    better = "lower"

    def compute(self, sums: Tensor) -> float:
        return 1 - _ratio(sums)


@dataclass
class TopKAccuracy(Metric):
    """Share of samples whose true class is among the k highest outputs.

    Args:
        k: How many outputs count.
    """

    k: int = 5
    name = "top_k_accuracy"
    better = "higher"

    def measure(self, output: Tensor, batch: Batch) -> Tensor:
        target = hard_target(batch.y)
        best = output.topk(min(self.k, output.shape[1]), dim=1).indices
        right = (best == target[:, None]).any(dim=1).sum(dtype=torch.float64)
        return torch.stack([right, right.new_full((), len(target))])

    def compute(self, sums: Tensor) -> float:
        return _ratio(sums)


@dataclass
class AccuracyMulti(Metric):
    """Share of correct labels: outputs (B, classes) before the sigmoid, targets (B, classes) of zeros and ones.

    Args:
        thresh: The probability above which a label is predicted.
        sigmoid: Whether to apply the sigmoid to the outputs first.
    """

    thresh: float = 0.5
    sigmoid: bool = True
    name = "accuracy_multi"
    better = "higher"

    def measure(self, output: Tensor, batch: Batch) -> Tensor:
        chosen = (output.sigmoid() if self.sigmoid else output) > self.thresh
        right = (chosen == (batch.y > 0.5)).sum(dtype=torch.float64)
        return torch.stack([right, right.new_full((), chosen.numel())])

    def compute(self, sums: Tensor) -> float:
        return _ratio(sums)


class _F1(Metric):
    """F1 from true positives, predicted and actual counts of each class."""

    average: str
    absent: ClassVar[bool] = False  # whether classes that neither occur nor are predicted enter the macro mean, as 0

    def _marks(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def measure(self, output: Tensor, batch: Batch) -> Tensor:
        chosen, actual = (m.to(torch.float64) for m in self._marks(output, batch))
        if self.average == "samples":
            total = chosen.sum(1) + actual.sum(1)
            f1 = torch.where(total > 0, 2 * (chosen * actual).sum(1) / total.clamp(min=1), torch.zeros_like(total))
            return torch.stack([f1.sum(), f1.new_full((), len(f1))])
        return torch.cat([(chosen * actual).sum(0), chosen.sum(0), actual.sum(0)])

    def compute(self, sums: Tensor) -> float:
        if self.average == "samples":
            return _ratio(sums)
        hits, chosen, actual = sums.cpu().reshape(3, -1)
        if self.average == "micro":
            hits, chosen, actual = (v.sum()[None] for v in (hits, chosen, actual))
        total = chosen + actual
        f1 = torch.where(total > 0, 2 * hits / total.clamp(min=1), torch.zeros_like(total))
        seen = torch.ones_like(total, dtype=torch.bool) if self.absent else total > 0
        return float(f1[seen].mean()) if bool(seen.any()) else 0.0


@dataclass
class F1Score(_F1):
    """F1 of single-label outputs (B, classes).

    Args:
        average: ``macro`` (mean over classes) or ``micro`` (over samples).
    """

    average: str = "macro"
    name = "f1"
    better = "higher"

    def __post_init__(self) -> None:
        one_of("average", self.average, ["macro", "micro"])

    def _marks(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        classes = torch.arange(output.shape[1], device=output.device)
        target = hard_target(batch.y)
        return output.argmax(dim=1)[:, None] == classes, target[:, None] == classes


@dataclass
class F1ScoreMulti(_F1):
    """F1 of multi-label outputs (B, classes) before the sigmoid.

    Args:
        thresh: The probability above which a label is predicted.
        average: ``macro`` (mean over classes), ``micro`` or ``samples`` (mean over samples).
        sigmoid: Whether to apply the sigmoid to the outputs first.
    """

    thresh: float = 0.5
    average: str = "macro"
    sigmoid: bool = True
    absent: ClassVar[bool] = True
    name = "f1"
    better = "higher"

    def __post_init__(self) -> None:
        one_of("average", self.average, ["macro", "micro", "samples"])

    def _marks(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        chosen = (output.sigmoid() if self.sigmoid else output) > self.thresh
        return chosen, batch.y > 0.5


@dataclass
class RootMeanSquaredError(Metric):
    """Root of the mean squared difference of outputs and targets of one shape."""

    name = "rmse"
    better = "lower"

    def measure(self, output: Tensor, batch: Batch) -> Tensor:
        target: Tensor = batch.y
        error = (output.reshape(target.shape).to(torch.float64) - target).square().sum()
        return torch.stack([error, error.new_full((), target.numel())])

    def compute(self, sums: Tensor) -> float:
        return _ratio(sums) ** 0.5


@dataclass
class Averaged(Metric):
    """Any function of (outputs, targets) as a metric: its mean over batches, weighted by their size.

    Args:
        function: Called with outputs and targets; returns a number.
        name: The name under which it is reported.
    """

    function: Callable[[Tensor, Any], Any]
    name: str = "metric"

    def measure(self, output: Tensor, batch: Batch) -> Tensor:
        value = torch.as_tensor(self.function(output, batch.y), dtype=torch.float64, device=output.device)
        return torch.stack([value * len(batch), value.new_full((), len(batch))])

    def compute(self, sums: Tensor) -> float:
        return _ratio(sums)


accuracy = Accuracy()
error_rate = ErrorRate()
top_k_accuracy = TopKAccuracy()
rmse = RootMeanSquaredError()


def accuracy_multi(output: Tensor, target: Tensor, thresh: float = 0.5, sigmoid: bool = True) -> float:
    """Returns the share of correct labels (the book's function; ``partial(accuracy_multi, thresh=0.2)``).

    Args:
        output: Before the sigmoid, (B, classes).
        target: Zeros and ones, (B, classes).
        thresh: The probability above which a label is predicted.
        sigmoid: Whether to apply the sigmoid to the outputs first.
    """
    return AccuracyMulti(thresh, sigmoid)(output, target)


def as_metrics(given: Any) -> tuple[Metric, ...]:
    """Returns metrics from one or several metrics, metric classes or functions of (outputs, targets).

    Raises:
        ConfigError: for something that cannot be called.
    """
    if given is None:
        return ()
    many = given if isinstance(given, (list, tuple)) else [given]
    metrics: list[Metric] = []
    for one in many:
        metric = one() if isinstance(one, type) and issubclass(one, Metric) else one
        if isinstance(metric, Metric):
            metrics.append(metric)
        elif callable(metric):
            inner = getattr(metric, "func", metric)  # what a functools.partial wraps
            metrics.append(Averaged(metric, name=str(getattr(inner, "__name__", type(metric).__name__))))
        else:
            raise ConfigError(f"metrics must be metrics or functions of (outputs, targets), got {metric!r}")
    return tuple(metrics)
