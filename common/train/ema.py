"""An exponential moving average of the weights, which often predicts better than the last ones.

Floor: train; may import deploy and below. Used by: its own room.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class WeightAverage:
    """The exponential moving average of a model's weights and running statistics.

    Args:
        model: The model whose state is averaged.
        decay: The weight of the old average in each update, in (0, 1); smaller in the first steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model
        self.decay = decay
        self.steps = 0
        own = model.state_dict()  # views of the model's own memory, so that `update` reads the current weights
        self.average = {name: value.detach().clone() for name, value in own.items()}
        floating = [name for name, value in own.items() if value.is_floating_point()]
        self._own, self._averages = [own[name] for name in floating], [self.average[name] for name in floating]
        self._counts = [(self.average[name], own[name]) for name in own if name not in floating]

    @torch.no_grad()
    def update(self) -> None:
        """Updates the average with the model's current weights."""
        self.steps += 1
        # Warm-up, as in TensorFlow's ExponentialMovingAverage: early on the initial weights would dominate.
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._averages, self._own, 1 - decay)  # type: ignore[reportPrivateUsage]
        for average, value in self._counts:
            average.copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Loads the average into the model for the duration of a ``with`` block."""
        own = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        try:
            yield
        finally:
            self.model.load_state_dict(own)
