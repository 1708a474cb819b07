"""Interpretation of a trained classifier: confusion matrix and largest losses."""

from typing import Any, cast

import torch
from torch import Tensor

from common.errors import ConfigError
from common.figures import Picture, matrix_figure, resize
from common.show.results import show_results
from common.task.classification import ClassificationTask, confusion
from common.task.task import Outputs
from common.train.trainer import Trainer


class Interpretation:
    """The outputs of a part, with pictures of them.

    Args:
        trainer: A trained trainer.
        part: ``valid`` or ``test``.
        outputs: The outputs of that part, if already computed.
    """

    def __init__(self, trainer: Trainer, part: str = "valid", outputs: Outputs | None = None) -> None:
        self.trainer = trainer
        self.part = part
        self.outputs = trainer.get_preds(part) if outputs is None else outputs

    @classmethod
    def from_learner(cls, learn: Trainer, part: str = "valid") -> "Interpretation":
        """Returns the interpretation of a trainer's validation part (the book's name)."""
        return cls(learn, part)

    def top_losses(self, k: int = 9) -> tuple[Tensor, Tensor]:
        """Returns the k largest losses and the ids of their samples, largest first."""
        losses = cast(Tensor, self.outputs.losses)
        best = losses.topk(min(k, len(losses)))
        ids = self.outputs.ids if self.outputs.ids is not None else torch.arange(len(losses))
        return best.values, ids[best.indices]

    def plot_top_losses(
        self, k: int = 9, nrows: int | None = None, figsize: tuple[float, float] | None = None, *, path: Any = None
    ) -> Picture:
        """Draws the k samples with the largest losses: true / predicted and the loss.

        Args:
            k: The number of samples.
            nrows: Rows of the picture; about square when None.
            figsize: Width and height in inches.
            path: A file to write the picture to.
        """
        _, ids = self.top_losses(k)
        outputs = self.outputs if self.outputs.ids is not None else None
        figure = show_results(self.trainer, part=self.part, ids=ids.tolist(), nrows=nrows, outputs=outputs)
        return resize(figure, figsize, path)


class ClassificationInterpretation(Interpretation):
    """`Interpretation` with a confusion matrix.

    Args:
        trainer: A trained trainer.
        part: ``valid`` or ``test``.
        outputs: The outputs of that part, if already computed.
    """

    @property
    def _task(self) -> ClassificationTask:
        return cast(ClassificationTask, self.trainer.task)

    def confusion_matrix(self) -> Tensor:
        """Returns counts, int64 (classes, classes): rows are true classes, columns predictions."""
        if self._task.multi_label:
            raise ConfigError("a confusion matrix needs one label an image; this task has several")
        return confusion(self.outputs.output, self.outputs.target, len(self._task.vocab))

    def plot_confusion_matrix(
        self,
        normalize: bool = False,
        figsize: tuple[float, float] | None = None,
        dpi: float | None = None,
        *,
        path: Any = None,
    ) -> Picture:
        """Draws the confusion matrix.

        Args:
            normalize: Whether to show shares of each true class instead of counts.
            figsize: Width and height in inches.
            dpi: Pixels per inch.
            path: A file to write the picture to.
        """
        vocab = self._task.vocab
        figure = matrix_figure(self.confusion_matrix().numpy(), vocab, normalize=normalize)
        if dpi is not None:
            figure.set_dpi(dpi)
        return resize(figure, figsize, path)

    def most_confused(self, min_val: int = 1) -> list[tuple[str, str, int]]:
        """Returns (true, predicted, count) of the wrong pairs that occur at least ``min_val`` times, most first."""
        matrix = self.confusion_matrix().tolist()
        vocab = self._task.vocab
        pairs = [
            (vocab[i], vocab[j], n)
            for i, row in enumerate(matrix)
            for j, n in enumerate(row)
            if i != j and n >= min_val
        ]
        return sorted(pairs, key=lambda pair: -pair[2])
