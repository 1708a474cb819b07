"""An exponential moving average of the weights, which often predicts better than the last ones."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average of a model's weights and running statistics.

    Args:
        model: The model whose state is averaged.
        decay: What is kept of the average at each step, in (0, 1); less in the first steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model
        self.decay = decay
        self.steps = 0
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Takes the model's present weights into the average."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        kept: list[Tensor] = []
        new: list[Tensor] = []
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                kept.append(self.average[name])
                new.append(value.detach())
            else:
                self.average[name].copy_(value)
        torch._foreach_lerp_(kept, new, 1 - decay)  # type: ignore[reportPrivateUsage]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the average into the model for the length of a block."""
        own = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        try:
            yield
        finally:
            self.model.load_state_dict(own)
