"""The content of a training checkpoint: collected from a fit and restored into one.

Floor: train; may import deploy and below. Used by: its own room.
"""

import dataclasses
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from common.errors import CheckpointError
from common.files import finite
from common.train import checkpoint as ckpt
from common.train.backend import Prepared
from common.train.fingerprint import changes, data_fingerprint, known, option_fingerprint

if TYPE_CHECKING:
    from common.train.trainer import Trainer


@dataclasses.dataclass
class Place:
    """The progress of a fit.

    Attributes:
        phase: The number of the fit within the training, from 0.
        done: Completed epochs of the fit.
        cursor: The number of the next batch of the epoch; batches are counted over all processes together.
        began: The trainer's step count when the epoch began.
        samples: Samples of the epoch that this process has seen.
        seconds: Time spent on training in the epoch, including before an interruption.
        waited: The part of it in which the loop waited for the loader, in seconds.
        loss: The sum of the samples' losses in the epoch, a scalar on the device; None before the first.
        weight: The sum of their weights, likewise, where a task weighs its losses; else None.
    """

    phase: int = 0
    done: int = 0
    cursor: int = 0
    began: int = 0
    samples: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    loss: Tensor | None = None
    weight: Tensor | None = None

    def next_epoch(self, step: int) -> None:
        """Moves to the start of the next epoch."""
        self.done, self.cursor, self.began = self.done + 1, 0, step
        self.samples, self.seconds, self.waited, self.loss, self.weight = 0, 0.0, 0.0, None, None


PLACE = [field.name for field in dataclasses.fields(Place) if field.name not in ("loss", "weight")]
STATE = ("place", "epoch", "step", "history", "seed", "stop", "average_steps", "scaler", "options", "data", "fit")


class Resumption:
    """A checkpoint that a Trainer has read but whose fit has not started yet: what that fit still has to restore.

    Args:
        folder: The checkpoint's folder.
        tensors: Its groups of tensors.
        state: Its JSON data.

    Attributes:
        place: The progress at which it was made.
    """

    def __init__(self, folder: Path, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        self.folder, self.tensors, self.state = folder, tensors, state
        self.place = Place(**{name: state["place"][name] for name in PLACE})

    def into(self, trainer: "Trainer", prepared: Prepared, steps: int, facts: dict[str, Any]) -> Place:
        """Restores optimizer, scaler, average and hooks, and returns the progress to continue from.

        Args:
            trainer: The trainer; its weights and history are those of the checkpoint already.
            prepared: The fit's model and optimizer.
            steps: The present number of batches per epoch.
            facts: What the fit now depends on: its arguments (``fit``) and the data; see `fingerprint.py`.
        """
        place, was = self.place, known(self.state["fit"])
        if was and trainer.rank == 0:  # empty in a checkpoint that was saved by hand between two fits
            say_changes(self.folder, changes(was, facts["fit"]))
        if known(self.state["options"]).get("optimizer") == trainer.options.optimizer:
            prepared.load_optimizer_state(self.tensors.get("optimizer", {}))
        if self.state["scaler"] and prepared.scaler.is_enabled():
            prepared.scaler.load_state_dict(self.state["scaler"])
        if trainer.average is not None and "average" in self.tensors:
            for name, value in self.tensors["average"].items():
                trainer.average.average[name].copy_(value)
            trainer.average.steps = int(self.state["average_steps"])
        load_hooks(trainer, self.tensors.get("hooks", {}), known(self.state.get("hooks")))
        trainer.stop = bool(self.state["stop"])
        before, now = known(self.state["data"]).get("batch_size"), facts["data"]["batch_size"]
        if before and now and before != now:  # another batch size: go on after as many samples
            place.cursor = place.cursor * before // now
        place.cursor = min(place.cursor, steps)
        if "progress" in self.tensors and trainer.rank == 0:  # sums over all processes; the others start with nothing
            sums = {name: tensor.to(trainer.device) for name, tensor in self.tensors["progress"].items()}
            place.loss, place.weight = sums["loss"], sums.get("weight")
        else:
            place.samples = 0
        return place


def say_changes(folder: Path, found: list[str]) -> None:
    """Warns, in one sentence, of what has changed since a checkpoint was made."""
    if found:
        warnings.warn(f"{folder} was made otherwise, and training goes on: {'; '.join(found)}", stacklevel=2)


def hook_keys(trainer: "Trainer") -> dict[str, Any]:
    """Returns the trainer's hooks by class name, with a ``+`` for each earlier hook of the same class."""
    found: dict[str, Any] = {}
    for hook in trainer.hooks:
        name = type(hook).__name__
        while name in found:
            name += "+"
        found[name] = hook
    return found


def load_hooks(trainer: "Trainer", tensors: dict[str, Tensor], states: dict[str, Any]) -> None:
    """Restores each hook's state from a checkpoint."""
    for name, hook in hook_keys(trainer).items():
        own = {key.split("/", 1)[1]: value for key, value in tensors.items() if key.split("/", 1)[0] == name}
        if own or states.get(name):
            hook.load_state_dict({**known(states.get(name)), **own})


def contents(
    trainer: "Trainer", place: Place, prepared: Prepared | None, facts: dict[str, Any]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Returns the content of a checkpoint: groups of tensors, and the rest as JSON data.

    Args:
        trainer: The trainer.
        place: The progress of its fit, with sums over all processes.
        prepared: The fit's model and optimizer, or None between two fits.
        facts: What the training depends on: the data, and the fit's arguments (empty between two fits).
    """
    tensors = {"model": trainer.model.state_dict()}
    hooks: dict[str, dict[str, Any]] = {}
    held: dict[str, Tensor] = {}
    scaler: dict[str, Any] = {}
    if prepared is not None:
        tensors["optimizer"] = prepared.optimizer_state()
        scaler = prepared.scaler.state_dict()
        for name, hook in hook_keys(trainer).items():
            own = hook.state_dict()
            held |= {f"{name}/{key}": value for key, value in own.items() if isinstance(value, Tensor)}
            hooks[name] = {key: finite(value) for key, value in own.items() if not isinstance(value, Tensor)}
    if trainer.average is not None:
        tensors["average"] = trainer.average.average
    if place.loss is not None:
        tensors["progress"] = {"loss": place.loss} | ({} if place.weight is None else {"weight": place.weight})
    tensors["hooks"] = held
    state: dict[str, Any] = {
        "place": {name: getattr(place, name) for name in PLACE},
        "epoch": trainer.epoch,
        "step": trainer.step,
        "history": finite(trainer.history),
        "seed": trainer.options.seed,
        "stop": trainer.stop,
        "average_steps": trainer.average.steps if trainer.average is not None else 0,
        "scaler": scaler,
        "hooks": hooks,
        "options": option_fingerprint(trainer.options, trainer.device),
        **facts,
    }
    return {name: group for name, group in tensors.items() if group}, state


def read(trainer: "Trainer", path: Path) -> tuple[Resumption, str]:
    """Loads weights and history of the newest sound checkpoint into a Trainer.

    Returns:
        What the next fit still has to restore, and one sentence: which checkpoint was used and which were skipped.

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
    resumption = Resumption(folder, tensors, state)
    if trainer.rank == 0:
        differing = changes(known(state["data"]), data_fingerprint(trainer.dls))
        differing += changes(known(state["options"]), option_fingerprint(trainer.options, trainer.device))
        say_changes(folder, differing)
    with torch.no_grad():
        trainer.model.load_state_dict(found)
    trainer.history = list(state["history"])
    trainer.epoch, trainer.step, trainer.phase = int(state["epoch"]), int(state["step"]), 0
    return resumption, f"resumed from {folder}" + "".join(f"; passed over: {p}" for p in passed)
