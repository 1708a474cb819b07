"""Batch norm over the batch of all processes together, on any device, so that two processes train as one would.

Floor: train; may import deploy and below. Used by: its own room.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class _SumOverProcesses(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        out = tensor.clone()
        dist.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        out = gradients[0].contiguous().clone()
        dist.all_reduce(out)
        return out


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):  # type: ignore[reportPrivateUsage]
    """A batch norm whose mean and variance in training are those of all processes' samples together.

    Shape:
        (B, C, …) to the same.
    """

    @classmethod
    def standing_in(cls, norm: nn.Module) -> "GlobalBatchNorm":
        """Returns a norm that shares parameters, statistics and mode with ``norm``, by sharing its ``__dict__``."""
        twin = cls.__new__(cls)
        twin.__dict__ = norm.__dict__
        return twin

    def forward(self, input: Tensor) -> Tensor:
        """Normalises by the statistics over all processes in training, by the running statistics in evaluation."""
        x = input
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        axes = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums: Tensor = _SumOverProcesses.apply(torch.cat([x.sum(axes), x.square().sum(axes), count]))
        total, square, samples = sums.split([x.shape[1], x.shape[1], 1])
        mean = total / samples
        variance = (square / samples - mean.square()).clamp(min=0)  # E[x²] - E[x]² may round to just below 0
        # As in torch: the biased variance normalises, the unbiased one enters the running statistics.
        self._track(mean.detach(), (variance * samples / (samples - 1)).detach())
        out = (x - mean.reshape(shape)) * torch.rsqrt(variance + self.eps).reshape(shape)
        return out * self.weight.reshape(shape) + self.bias.reshape(shape) if self.affine else out

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


@contextmanager
def global_norms(model: nn.Module, world: int) -> Iterator[None]:
    """Replaces every batch norm by a `GlobalBatchNorm` for the duration of a ``with`` block.

    Args:
        model: The model; its own norms are restored afterwards.
        world: The number of processes; with 1 nothing is replaced.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    if world > 1:
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.modules.batchnorm._BatchNorm):  # type: ignore[reportPrivateUsage]
                    replaced.append((parent, name, child))
                    setattr(parent, name, GlobalBatchNorm.standing_in(child))
    try:
        yield
    finally:
        for parent, name, child in replaced:
            setattr(parent, name, child)
