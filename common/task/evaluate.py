"""Evaluation: all outputs of a part, in order; the same code after training, for a bundle and for pictures.

Floor: task; may import data and below. Used by: show, deploy, train, applications, recipes.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from common.blocks.batch import Batch
from common.blocks.values import joined, map_tensors
from common.data.loader import Loader
from common.errors import DataError
from common.sources.items import take
from common.task.task import Outputs, Task


def batches_of(loader: Any, device: torch.device, epoch: int = 0, start: int = 0) -> Iterable[Batch]:
    """Yields any loader's batches as `Batch` on a device, from batch ``start`` on: ours by epoch, others as they come.

    Each carries its ``number`` in the epoch. Our loaders jump to ``start``; others must make every batch before it.
    """
    if isinstance(loader, Loader):
        yield from loader.batches(epoch, start)
        return
    for number, raw in enumerate(loader):
        if number >= start:
            yield replace(Batch.of(raw).to(device, non_blocking=True), number=number)


def predicted(model: nn.Module, batch: Batch, task: Task) -> tuple[Any, Tensor | None]:
    """Returns a batch's condensed predictions and, with targets, each sample's loss (B,).

    One forward pass serves both, unless the task overrides `Task.predict` (a text is generated, say).

    Args:
        model: In evaluation mode.
        batch: On the model's device.
        task: Gives predictions and losses.
    """
    if type(task).predict is Task.predict:
        output = task.forward(model, batch)
        losses = None if batch.y is None else task.losses(output, batch)
        return task.condense(output, batch), losses
    output = task.predict(model, batch)
    if batch.y is None or type(task).losses is Task.losses:
        return output, None
    return output, task.losses(task.forward(model, batch), batch)


@torch.no_grad()
def collect(model: nn.Module, loader: Any, task: Task, device: torch.device, epoch: int = 0) -> Outputs:
    """Runs a model over a whole part and returns its condensed outputs with targets, ids and losses, on the CPU.

    Args:
        model: In any mode; it is put into evaluation mode and back.
        loader: The part's loader.
        task: Gives predictions and losses.
        device: Where the model is.
        epoch: The epoch whose order and augmentation to use, for our loaders.

    Raises:
        DataError: if the loader gives no batch.
    """
    training = model.training
    model.eval()
    outputs, targets, inputs = list[Any](), list[Any](), list[Any]()
    ids, losses, weights = list[Tensor](), list[Tensor](), list[Tensor]()
    for batch in batches_of(loader, device, epoch):
        output, loss = predicted(model, batch, task)
        outputs.append(map_tensors(output, lambda t: (t.float() if t.is_floating_point() else t).cpu()))
        if loss is not None:
            losses.append(loss.float().cpu())
            if (share := task.weights(batch)) is not None:
                weights.append(share.double().cpu())
        if batch.y is not None:
            targets.append(_targets(batch, loader, task))
        if task.keeps_inputs:
            inputs.append(map_tensors(batch.x, lambda t: t.cpu()))
        if batch.ids is not None:
            ids.append(batch.ids.cpu())
    model.train(training)
    if not outputs:
        raise DataError("there is nothing to evaluate: the part is empty, or none of its items can be used")
    return Outputs(
        joined(outputs),
        joined(targets) if targets else None,
        torch.cat(ids) if ids else None,
        torch.cat(losses) if losses else None,
        joined(inputs) if inputs else None,
        torch.cat(weights) if weights else None,
    )


def _targets(batch: Batch, loader: Any, task: Task) -> Any:
    if not task.raw_targets or not isinstance(loader, Loader):
        return map_tensors(batch.y, lambda t: t.cpu())
    store, rows = loader.store, cast(Tensor, batch.ids).tolist()
    fields = [[take(raws, row) for row in rows] for raws in store.raws[store.encoder.n_inp :]]
    return fields[0]
