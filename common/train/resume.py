"""What a checkpoint of a training holds, written from a Trainer and put back into one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from common.errors import CheckpointError
from common.train import checkpoint as ckpt
from common.train.ema import WeightAverage

if TYPE_CHECKING:
    from common.train.trainer import Trainer


class Resumption:
    """A checkpoint under way into a Trainer: which fit it was made in, and what that fit still needs of it.

    Args:
        tensors: The checkpoint's groups of tensors.
        state: The rest of it.
    """

    def __init__(self, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        self.tensors = tensors
        self.state = state

    def start_epoch(self, phase: int, epochs: int) -> int:
        """Returns the epoch at which fit number ``phase`` starts: its end where the checkpoint is past it."""
        if phase > int(self.state["phase"]):
            return 0
        if phase < int(self.state["phase"]):
            return epochs
        return int(self.state["phase_epoch"])

    def load_optimizer(self, optimizer: torch.optim.Optimizer, average: WeightAverage | None) -> None:
        """Puts the checkpoint's optimizer state and average of the weights in place."""
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in self.tensors.get("optimizer", {}).items():
            index, entry = name.split(".", 1)
            state.setdefault(int(index), {})[entry] = value
        if state:
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        if average is not None and "average" in self.tensors:
            for name, value in self.tensors["average"].items():
                average.average[name].copy_(value)
            average.steps = int(self.state["average_steps"])


def write(trainer: "Trainer", folder: Path, phase: int, phase_epoch: int) -> None:
    """Writes a checkpoint of a Trainer whole or not at all.

    Args:
        trainer: The trainer.
        folder: Where to.
        phase: Which fit it is in, counted from 0.
        phase_epoch: Epochs of that fit that are done.
    """
    tensors = {"model": trainer.model.state_dict()}
    state: dict[str, Any] = {
        "phase": phase,
        "phase_epoch": phase_epoch,
        "epoch": trainer.epoch,
        "step": trainer.step,
        "history": trainer.history,
        "seed": trainer.options.seed,
        "average_steps": 0,
    }
    if trainer.optimizer is not None and phase_epoch:
        own = trainer.optimizer.state_dict()["state"]
        tensors["optimizer"] = {
            f"{index}.{name}": torch.as_tensor(value) for index, values in own.items() for name, value in values.items()
        }
    if trainer.average is not None:
        tensors["average"], state["average_steps"] = trainer.average.average, trainer.average.steps
    ckpt.write_checkpoint(folder, tensors, state)


def read(trainer: "Trainer", path: Path) -> tuple[Resumption, str]:
    """Puts the newest sound checkpoint's weights and history into a Trainer.

    Returns:
        What the next fit still needs, and one sentence: which checkpoint was used and which were passed over.

    Raises:
        CheckpointError: if there is no sound one, or it belongs to another model or seed.
    """
    folder, tensors, state, passed = ckpt.newest_sound(path)
    if state["seed"] != trainer.options.seed:
        raise CheckpointError(f"{folder} was made with seed={state['seed']}, this run has {trainer.options.seed}")
    try:
        trainer.model.load_state_dict(tensors["model"])
    except RuntimeError as error:
        raise CheckpointError(f"{folder} belongs to another model: {str(error).splitlines()[-1].strip()}") from error
    trainer.history = list(cast("list[dict[str, Any]]", state["history"]))
    trainer.epoch, trainer.step = int(state["epoch"]), int(state["step"])
    return Resumption(tensors, state), f"resumed from {folder}" + "".join(f"; passed over: {p}" for p in passed)
