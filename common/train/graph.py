"""Forward and backward of a full batch as one CUDA graph: captured once, replayed in every later step.

Floor: train; may import deploy and below. Used by: its own room.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from common.blocks.batch import Batch
from common.task.task import Task

WARM = 3  # ordinary steps before the capture, in which libraries choose their kernels


class GraphedStep:
    """Computes loss and gradients of batches of one shape by a CUDA graph; the optimizer's step is not part of it.

    The step stays outside since a schedule changes rates and momentum, which fused optimizers take as Python numbers: a
    graph would freeze those of its capture. Batches of another shape (the last of an epoch) are computed eagerly.

    Args:
        forward: Calls the model.
        task: Gives the loss.
        parameters: The trainable parameters; their gradients lie in the graph's memory after a replay.
    """

    def __init__(self, forward: Callable[[Any], Any], task: Task, parameters: list[nn.Parameter]) -> None:
        self.forward, self.task, self.parameters = forward, task, parameters
        self.graph: torch.cuda.CUDAGraph | None = None
        self.batch: Batch | None = None
        self.shapes: list[Any] = []
        self.warmed = 0
        self.loss: Tensor | None = None
        self.gradients: list[Tensor | None] = []

    def takes(self, batch: Batch) -> bool:
        """Whether a batch has the shape of the graph; before the capture, the newest batch sets that shape."""
        shapes = [(t.shape, t.dtype) for t in batch.tensors()]
        if shapes != self.shapes and self.graph is None:
            self.shapes, self.warmed = shapes, 0
        return shapes == self.shapes

    def __call__(self, batch: Batch) -> Tensor:
        """Leaves the gradients of a batch in the parameters and returns its loss, detached."""
        if self.warmed < WARM:
            self.warmed += 1
            return self._aside(batch)
        if self.graph is None:
            self._record(batch)
        assert self.graph is not None
        assert self.batch is not None
        assert self.loss is not None
        # A replay reads and writes the addresses of the capture: inputs are copied in, gradients assigned anew.
        for static, new in zip(self.batch.tensors(), batch.tensors(), strict=True):
            static.copy_(new, non_blocking=True)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.loss.clone()

    def _compute(self, batch: Batch) -> Tensor:
        loss = self.task.loss(self.task.forward(self.forward, batch), batch)
        loss.backward()
        return loss.detach()

    def _aside(self, batch: Batch) -> Tensor:
        """An eager step on a side stream, the warm-up that a capture needs."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            loss = self._compute(batch)
        torch.cuda.current_stream().wait_stream(stream)
        return loss

    def _record(self, batch: Batch) -> None:
        self.batch = batch.map(torch.clone)
        for parameter in self.parameters:
            parameter.grad = None
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = self._compute(self.batch)
        self.gradients = [parameter.grad for parameter in self.parameters]
