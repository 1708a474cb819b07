"""FSDP through Accelerate: trainable weights, gradients and optimizer state are sharded over the processes.

Floor: train; may import deploy and below. Used by: its own room.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from common.errors import ConfigError
from common.train.backend import Optimizer, Prepared

WHOLE = StateDictOptions(full_state_dict=True)


class Sharded(Prepared):
    """Trains a sharded copy of the model; the trainer's own, whole in each process, is validated and saved.

    So each process holds its share of gradients and optimizer state, and one whole set of weights in addition. The
    weights are gathered at the end of each epoch and for each checkpoint.

    Raises:
        ConfigError: for version 1 of FSDP, which flattens parameters into shared tensors.
    """

    sharded = True

    def _wrap(self, make_optimizer: Callable[[nn.Module], Optimizer]) -> Optimizer:
        if not self.accelerator.is_fsdp2:
            raise ConfigError("sharded training needs FSDP 2: accelerate launch --use_fsdp --fsdp_version 2")
        self.whole = self.inner
        self.inner = copy.deepcopy(self.whole)
        prepared: Any = self.accelerator.prepare(self.inner, make_optimizer(self.inner))
        self.model = prepared[0]
        return prepared[1].optimizer

    def clip(self, norm: float) -> None:
        """Clips the global norm of the gradients over all processes."""
        self.accelerator.clip_grad_norm_(self.inner.parameters(), norm)

    @torch.no_grad()
    def gather(self) -> None:
        """Gathers the trained weights into the trainer's model, in every process."""
        self.whole.load_state_dict(get_model_state_dict(self.inner, options=WHOLE))

    def optimizer_state(self) -> dict[str, Tensor]:
        """Returns the optimizer's unsharded tensors; a collective call, which every process must make."""
        found: dict[str, Any] = get_optimizer_state_dict(self.inner, self.optimizer, options=WHOLE)
        state: dict[str, dict[str, Any]] = found["state"]
        return {f"{name}.{e}": torch.as_tensor(v) for name, values in state.items() for e, v in values.items()}

    def load_optimizer_state(self, tensors: dict[str, Tensor]) -> None:
        """Gives each process its share of the optimizer's tensors."""
        found: dict[str, Any] = get_optimizer_state_dict(self.inner, self.optimizer, options=WHOLE)
        state: dict[str, dict[str, Any]] = found["state"]
        for key, value in tensors.items():
            name, entry = key.rsplit(".", 1)
            if name in state:
                state[name][entry] = value
        set_optimizer_state_dict(self.inner, self.optimizer, found, options=WHOLE)

    def release(self) -> None:
        """Drops the sharded copy; the trainer's model remains."""
        self.accelerator.free_memory()
        self.model = self.inner = self.whole
