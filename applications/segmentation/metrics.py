"""Segmentation metrics, all from one confusion matrix of pixels that is summed over batches."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.blocks.batch import Batch
from common.task.metrics import Metric


def main_output(output: Any) -> Tensor:
    """Returns the logits (B, classes, H, W) of a model's output: a tensor, or torchvision's dictionary with ``out``."""
    return output["out"] if isinstance(output, dict) else output


def pixel_confusion(predicted: Tensor, target: Tensor, classes: int, void: int | None = None) -> Tensor:
    """Returns counts of pixels, int64 (classes, classes): rows are true classes, columns predictions.

    Args:
        predicted: Class ids, integer of any shape.
        target: Class ids of the same shape.
        classes: The number of classes.
        void: The ignored true id, or None.

    Examples:
        >>> pixel_confusion(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 9]), 2, void=9).tolist()
        [[1, 1], [0, 0]]
    """
    truth = target.reshape(-1).long()
    pairs = truth * classes + predicted.reshape(-1).long()
    spare = classes * classes  # the bin of ignored pixels; boolean indexing would make the host wait for its size
    pairs = pairs if void is None else pairs.masked_fill(truth == void, spare)
    if pairs.device.type == "cpu":
        counts = torch.bincount(pairs, minlength=spare + 1)
    else:
        counts = torch.zeros(spare + 1, dtype=torch.int64, device=pairs.device)
        counts.scatter_add_(0, pairs, torch.ones_like(pairs))
    return counts[:spare].reshape(classes, classes)


def intersection_over_union(matrix: Tensor) -> Tensor:
    """Returns each class's IoU, float64 (classes,); NaN for a class that is neither in the truth nor predicted.

    Args:
        matrix: Counts (classes, classes) of `pixel_confusion`.
    """
    counts = matrix.to(torch.float64)
    right = counts.diagonal()
    return right / (counts.sum(dim=0) + counts.sum(dim=1) - right)  # 0 / 0 is NaN: a class that is nowhere


def mean_iou(matrix: Tensor) -> float:
    """Returns the mean IoU over the classes that occur in the truth or in the predictions; NaN if all is ignored.

    Args:
        matrix: Counts (classes, classes) of `pixel_confusion`.
    """
    return float(intersection_over_union(matrix).nanmean())


def pixel_accuracy(matrix: Tensor) -> float:
    """Returns the share of correctly classified pixels; NaN if all are ignored.

    Args:
        matrix: Counts (classes, classes) of `pixel_confusion`.
    """
    total = int(matrix.sum())
    return int(matrix.diagonal().sum()) / total if total else float("nan")


@dataclass
class _OfConfusion(Metric):
    """A metric of the confusion matrix of outputs (B, classes, H, W) and masks, ids (B, H, W) or soft targets.

    Args:
        void: The ignored true id, or None.
    """

    void: int | None = None

    def measure(self, output: Any, batch: Batch) -> Tensor:
        logits = main_output(output)
        target: Tensor = batch.y
        if target.is_floating_point():
            target = target.argmax(dim=1)
        return pixel_confusion(logits.argmax(dim=1), target, logits.shape[1], self.void).reshape(-1).to(torch.float64)

    def _matrix(self, sums: Tensor) -> Tensor:
        side = round(len(sums) ** 0.5)
        return sums.reshape(side, side)


@dataclass
class MeanIoU(_OfConfusion):
    """Mean IoU over the classes that occur in the truth or in the predictions.

    Args:
        void: The ignored true id, or None.

    Examples:
        >>> logits = torch.tensor([[[[2.0, 0.0]], [[0.0, 2.0]]]])
        >>> MeanIoU()(logits, torch.tensor([[[0, 0]]]))
        0.25
    """

    name = "miou"
    better = "higher"

    def compute(self, sums: Tensor) -> float:
        return mean_iou(self._matrix(sums))


@dataclass
class PixelAccuracy(_OfConfusion):
    """Share of correctly classified pixels.

    Args:
        void: The ignored true id, or None.
    """

    name = "pixel_accuracy"
    better = "higher"

    def compute(self, sums: Tensor) -> float:
        return pixel_accuracy(self._matrix(sums))
