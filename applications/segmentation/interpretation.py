"""Pictures of a trained segmenter: predicted next to true masks, with a legend of the classes."""

from collections.abc import Sequence
from typing import Any, cast

from applications.segmentation.task import SegmentationTask
from common.blocks.spatial import class_colors
from common.figures import Picture, finish
from common.show.results import show_results
from common.task.task import Outputs
from common.train.trainer import Trainer

COLUMNS = 2
WIDTH_IN = 8.0  # of a picture
LEGEND = 24  # classes above which colours are not named


def show_maps(
    trainer: Trainer,
    *,
    max_n: int = 6,
    part: str = "valid",
    ids: Sequence[int] | None = None,
    path: Any = None,
    outputs: Outputs | None = None,
) -> Picture:
    """Draws images of a part, each with its true mask over it on the left and the predicted one on the right.

    Args:
        trainer: A trained trainer.
        max_n: The most images.
        part: ``valid``, ``test`` or ``train``.
        ids: Which samples, by their ids; the first ones when None.
        path: A file to write the picture to.
        outputs: The outputs of the part, if already computed; else the model is run on the shown samples.
    """
    task = cast(SegmentationTask, trainer.task)
    count = min(max_n, len(trainer.dls.part(part).rows)) if ids is None else len(ids)
    rows = -(-count // COLUMNS)
    cell = WIDTH_IN / min(count, COLUMNS)
    figure = show_results(trainer, max_n=max_n, part=part, ids=ids, nrows=rows, cell=cell, outputs=outputs)
    if len(task.codes) <= LEGEND:
        from matplotlib.patches import Patch

        colors = class_colors(len(task.codes))
        patches = [Patch(color=color, label=code) for color, code in zip(colors, task.codes, strict=True)]
        chosen = [patch for i, patch in enumerate(patches) if i != task.block.background]
        figure.set_figheight(figure.get_figheight() + 0.6)
        figure.legend(handles=chosen, loc="outside lower center", ncols=6, fontsize=7, frameon=False)
    return finish(figure, path)
