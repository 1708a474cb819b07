"""Segmentation of images larger than the model's input, by overlapping windows at the image's own resolution."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from applications.segmentation.metrics import main_output
from applications.segmentation.source_resolution import source_logits
from applications.segmentation.task import SegmentationTask
from common.deploy.predictor import Predictor
from common.errors import ConfigError
from common.task.evaluate import batches_of
from common.task.task import Record
from common.vision.windows import windows_of

LEAST = 1e-3  # the weight of a window's outermost pixels


def predict_sliding(
    predictor: Predictor,
    image: Any,
    window_px: int | tuple[int, int] | None = None,
    overlap: float = 0.25,
) -> Record:
    """Returns the record of an image, predicted through overlapping windows at its own resolution.

    Where windows overlap their probabilities are averaged, with weights that fall towards a window's edge, so that no
    seam shows. An image no larger than a window is predicted whole.

    Args:
        predictor: A predictor of a segmentation bundle.
        image: A path, bytes, a PIL image or an array.
        window_px: The windows' size in pixels, one number for a square or (height, width); the model's input when None.
        overlap: The least share of a window that overlaps with the next one, in [0, 1).

    Raises:
        ConfigError: if the predictor is not one of segmentation, or a number is out of its range.
    """
    task = predictor.task
    if not isinstance(task, SegmentationTask):
        raise ConfigError(f"predict_sliding needs a predictor of segmentation, got a {type(task).__name__}")
    cut = windows_of(predictor, image, window_px, overlap)
    height, width = cut.pieces[0].shape[:2]
    total, weights = torch.zeros(len(task.codes), *cut.size), torch.zeros(cut.size)
    ramp = _ramp(height)[:, None] * _ramp(width)[None, :]
    for piece, (y, x) in zip(_probabilities(predictor, cut.pieces), cut.corners, strict=True):
        total[:, y : y + height, x : x + width] += piece * ramp
        weights[y : y + height, x : x + width] += ramp
    return task.decode([(total / weights).argmax(dim=0).to(torch.uint8)])[0]


def _ramp(length: int) -> Tensor:
    """Weights that fall from the middle of a window to its edges: float32 (length,)."""
    place = (torch.arange(length) + 0.5) / length
    return (1 - (2 * place - 1).abs()).clamp(min=LEAST)


@torch.no_grad()
def _probabilities(predictor: Predictor, pieces: list[np.ndarray]) -> Iterator[Tensor]:
    """Class probabilities of pieces of an image, float32 (classes, h, w) each at the piece's own size."""
    loader, training = predictor.loader([pieces], range(len(pieces))), predictor.model.training
    predictor.model.eval()
    for batch in batches_of(loader, predictor.device):
        logits = main_output(predictor.task.forward(predictor.model, batch)).float().cpu()
        sizes, maps = cast(Tensor, batch.sizes).tolist(), cast(Tensor, batch.source).cpu()
        for own, size, source in zip(logits, sizes, maps, strict=True):
            yield source_logits(own, source, (size[0], size[1])).softmax(dim=0)
    predictor.model.train(training)
