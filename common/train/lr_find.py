"""The learning rate range test (Smith 2015, arXiv:1506.01186): a short ramp, the loss at each rate, a suggestion.

Floor: train; may import deploy and below. Used by: its own room.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from common.errors import in_range
from common.task.evaluate import batches_of
from common.train import optim
from common.train.backend import forward_of
from common.train.schedule import Ramp, group_rates

if TYPE_CHECKING:
    from common.train.trainer import Trainer


@dataclass(frozen=True)
class SuggestedRates:
    """The result of the learning rate range test.

    Attributes:
        valley: The suggested rate: two thirds into the longest falling stretch of the smoothed loss.
        rates: The rates tried.
        losses: The smoothed loss at each.
    """

    valley: float
    rates: list[float]
    losses: list[float]

    def plot(self, path: Any = None) -> Any:
        """Draws loss over rate and returns the matplotlib figure."""
        from common.figures import line_figure

        marks = {"valley": self.valley}
        return line_figure(
            {"loss": (self.rates, self.losses)}, "learning rate", "loss", log_x=True, marks=marks, path=path
        )


def valley(rates: list[float], losses: list[float]) -> float:
    """Returns the rate two thirds into the longest falling stretch of the losses.

    Examples:
        >>> valley([1e-4, 1e-3, 1e-2, 1e-1], [4.0, 3.0, 2.0, 9.0])
        0.001
    """
    best_start, best_length = 0, 1
    start = 0
    for i in range(1, len(losses)):
        if losses[i] >= losses[i - 1]:
            start = i
        if i - start + 1 > best_length:
            best_start, best_length = start, i - start + 1
    return rates[best_start + int((best_length - 1) * 2 / 3)]


def find_lr(trainer: "Trainer", low: float, high: float, steps: int) -> SuggestedRates:
    """Trains a copy of the weights for a few steps at rising rates; the model is left as it was."""
    in_range("low", low, 0, high, open_low=True, open_high=True)
    in_range("steps", steps, 2, float("inf"))
    model, schedule = trainer.model, Ramp(low, high)
    modes = [(module, module.training) for module in model.modules()]
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    optimizer = optim.make_optimizer(model, group_rates(high, len(optim.layer_groups(model))), trainer.options)
    forward = forward_of(model, trainer.device, trainer.options.precision)
    rates: list[float] = []
    losses: list[float] = []
    smooth = 0.0
    devices = [trainer.device] if trainer.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(trainer.options.seed)
            optim.train_mode(model)
            for i, batch in enumerate(_endless(trainer, steps)):
                share = i / (steps - 1)
                optim.set_rates(optimizer, schedule.factor(share), None)
                loss = trainer.task.loss(trainer.task.forward(forward, batch), batch)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                smooth = 0.98 * smooth + 0.02 * float(loss.detach())
                value = smooth / (1 - 0.98 ** (i + 1))  # bias correction, as in Adam: the average starts at 0
                rates.append(float(optimizer.param_groups[-1]["lr"]))
                losses.append(value)
                if value != value or value > 4 * min(losses):
                    break
    finally:
        model.load_state_dict(before)
        for module, mode in modes:
            module.training = mode
    first = max(1, len(losses) // 10)
    return SuggestedRates(valley(rates[first:-1] or rates, losses[first:-1] or losses), rates, losses)


def _endless(trainer: "Trainer", steps: int) -> Any:
    epoch = done = 0
    while done < steps:
        start = done
        for batch in batches_of(trainer.dls.train, trainer.device, epoch):
            yield batch
            done += 1
            if done >= steps:
                return
        epoch += 1
        if done == start:  # an epoch without a batch
            return
