"""Pictures of a part's samples with targets and predictions.

Floor: show; may import task and below. Used by: train, applications.
"""

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from common.data.dataloaders import DataLoaders
from common.data.loader import Loader
from common.data.show_batch import draw_fields, fields_of, sample_of
from common.errors import ConfigError
from common.figures import Picture, axes_grid, finish, fit_rows
from common.sources.items import take
from common.task.evaluate import collect
from common.task.task import Outputs, Task


class Learned(Protocol):
    """A trained model with its loaders and its task, on a device (a `Trainer`, an `AtOnce`)."""

    model: nn.Module
    dls: DataLoaders
    task: Task
    device: torch.device


def show_results(
    trainer: Learned,
    *,
    max_n: int = 9,
    part: str = "valid",
    ids: Sequence[int] | None = None,
    nrows: int | None = None,
    cell: float = 2.2,
    path: Any = None,
    outputs: Outputs | None = None,
) -> Picture:
    """Draws samples of a part with target and prediction; wrong predictions in red.

    Args:
        trainer: The trainer.
        max_n: The most samples.
        part: ``valid``, ``test`` or ``train``.
        ids: Which samples, by their ids; the first ones when None.
        nrows: Rows of the picture; about square when None.
        cell: The width of each sample in inches.
        path: A file to write the picture to.
        outputs: The outputs of the part, if already computed; else the model is run on the shown samples.
    """
    loader = trainer.dls.part(part)
    if not isinstance(loader, Loader):
        raise ConfigError("show_results needs loaders that a DataBlock made")
    known = loader.rows if outputs is None or outputs.ids is None else outputs.ids
    rows = [int(i) for i in (known[:max_n] if ids is None else ids)]
    options = loader.with_options(batch_size=len(rows), shuffle=False, drop_last=False, train=False, world=1, rank=0)
    chosen = Loader(loader.store, rows, loader.full, options.options, loader.device)
    seen = collect(trainer.model, chosen, trainer.task, trainer.device) if outputs is None else outputs.of(rows)
    records = seen.records(trainer.task)
    batch = chosen.one_batch()
    encoder = loader.store.encoder
    figure, every = axes_grid(len(rows), nrows, cell)
    task, raws = trainer.task, loader.store.raws
    for i, axes in enumerate(every):
        if task.raw_targets:  # records are in pixels of the source image: draw that, not the transformed one
            raw = [take(field, int(cast(Tensor, batch.ids)[i])) for field in raws]
            inputs = [block.encode(value) for block, value in zip(encoder.x_blocks, raw, strict=False)]
            target = raw[encoder.n_inp]
        else:
            inputs, target = [sample_of(v, i) for v in fields_of(batch.x)], sample_of(fields_of(batch.y)[0], i)
        draw_fields(axes, encoder.x_blocks, inputs)
        task.draw(axes, records[i], encoder.y_blocks[0], target)
        if seen.losses is not None and ids is not None:
            title = axes.title
            axes.set_title(
                f"{title.get_text()}\nloss {float(seen.losses[i]):.2f}",
                fontsize=8, color=title.get_color(), parse_math=False,
            )  # fmt: skip
    if not task.raw_targets:
        figure.suptitle("true / predicted", fontsize=9)
    fit_rows(figure, every, 0.45)
    return finish(figure, path)
