"""An exponential moving average of the weights, which often predicts better than the last ones."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


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
        own = model.state_dict()  # detached, of the same memory as the model's: what follows it sees the model learn
        self.average = {name: value.detach().clone() for name, value in own.items()}
        floating = [name for name, value in own.items() if value.is_floating_point()]
        self._own, self._kept = [own[name] for name in floating], [self.average[name] for name in floating]
        self._counts = [(self.average[name], own[name]) for name in own if name not in floating]

    @torch.no_grad()
    def update(self) -> None:
        """Takes the model's present weights into the average."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._kept, self._own, 1 - decay)  # type: ignore[reportPrivateUsage]
        for average, value in self._counts:
            average.copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the average into the model for the length of a block."""
        own = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        try:
            yield
        finally:
            self.model.load_state_dict(own)
