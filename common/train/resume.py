"""What a checkpoint of a training holds, written from a Trainer and put back into one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from common.errors import CheckpointError
from common.files import finite
from common.train import checkpoint as ckpt
from common.train.ema import WeightAverage

if TYPE_CHECKING:
    from common.train.trainer import Trainer


STATE = ("phase", "phase_epoch", "epoch", "step", "history", "seed", "average_steps")


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

    def finish_phase(self, phase: int, model: nn.Module) -> None:
        """Ends a fit that the checkpoint already holds whole: its average of the weights becomes the weights."""
        if phase == int(self.state["phase"]) and int(self.state["average_steps"]):
            model.load_state_dict(self.tensors["average"])

    def load_optimizer(self, optimizer: torch.optim.Optimizer, average: WeightAverage | None) -> None:
        """Puts the checkpoint's optimizer state and average of the weights in place."""
        state: dict[int, dict[str, Tensor]] = {}
        parameters: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
        for name, value in self.tensors.get("optimizer", {}).items():
            index, entry = name.split(".", 1)
            like = parameters[int(index)]
            if value.shape == like.shape:  # in the parameter's memory layout: fused optimizers walk both as one
                value = torch.empty_like(like, dtype=value.dtype).copy_(value)
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
        "history": finite(trainer.history),
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
    for name in STATE:
        if name not in state:
            raise CheckpointError(f"{folder / 'state.json'} lacks {name!r}")
    if state["seed"] != trainer.options.seed:
        raise CheckpointError(f"{folder} was made with seed={state['seed']}, this run has {trainer.options.seed}")
    wanted, found = trainer.model.state_dict(), tensors["model"]
    for name in sorted(set(wanted) | set(found)):
        if name not in found or name not in wanted or found[name].shape != wanted[name].shape:
            raise CheckpointError(f"{folder} belongs to another model: {name} is missing or has another shape")
    trainer.model.load_state_dict(found)
    trainer.history = list(cast("list[dict[str, Any]]", state["history"]))
    trainer.epoch, trainer.step = int(state["epoch"]), int(state["step"])
    return Resumption(tensors, state), f"resumed from {folder}" + "".join(f"; passed over: {p}" for p in passed)
