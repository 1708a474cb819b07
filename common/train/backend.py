"""Accelerate under the Trainer: device, precision and processes, resolved once per fit so that a step is cheap.

Floor: train; may import deploy and below. Used by: applications.
"""

import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from common.blocks.values import map_tensors
from common.errors import ConfigError
from common.train.options import TrainerOptions

Optimizer = torch.optim.Optimizer
LOST = ("closed by peer", "reset by peer", "Broken pipe", "timed out", "Timed out", "another process of this run")

SLOW_BF16 = "precision='bf16': this CPU has no instructions for it, a step may take thirty times as long: use 'no'"


def find_device(name: str) -> torch.device:
    """Returns the device of an option: ``cpu``, ``cuda``, ``mps``, or with ``auto`` a GPU where there is one.

    Raises:
        ConfigError: for one that this machine does not have.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name in there and not there[name]:
        kind = "CUDA" if name == "cuda" else "Apple"
        raise ConfigError(f"device={name!r}, but torch sees no {kind} GPU: use device='auto' or 'cpu'")
    return torch.device(next((gpu for gpu, found in there.items() if found), "cpu") if name == "auto" else name)


def fast_precision(device: torch.device) -> str:
    """Returns ``bf16`` where a device has instructions for it, else ``no``.

    A CPU without them (AVX2 only, say) emulates bf16 in scalar code: a matrix product takes about thirty times as long
    as in float32.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    if device.type == "cpu":
        found = torch.cpu.get_capabilities()
        return "bf16" if any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")) else "no"
    return "no"


def make_accelerator(options: TrainerOptions) -> Accelerator:
    """Returns a fresh Accelerator for one Trainer, unaffected by Accelerate's process-wide state.

    Raises:
        ConfigError: for a device or precision that this machine does not have.
    """
    find_device(options.device)
    distributed = dist.is_available() and dist.is_initialized()
    AcceleratorState._reset_state(reset_partial_state=not distributed)  # type: ignore[reportPrivateUsage]
    cpu = options.device == "cpu"
    if options.precision == "fp16" and (cpu or not (torch.cuda.is_available() or torch.backends.mps.is_available())):
        raise ConfigError("precision='fp16' needs a GPU (its loss scaling has no CPU form): use 'bf16' or 'no'")
    made = Accelerator(cpu=cpu, mixed_precision=options.precision)
    if options.precision == "bf16" and made.device.type == "cpu" and fast_precision(made.device) == "no":
        warnings.warn(SLOW_BF16, stacklevel=3)
    if cpu and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise ConfigError("accelerate shards on GPUs only: leave --use_fsdp out on the CPU")
    if options.cuda_graph and (made.device.type != "cuda" or made.num_processes > 1):
        raise ConfigError(f"cuda_graph needs one process on a CUDA GPU, got {made.num_processes} on {made.device.type}")
    return made


def forward_of(model: nn.Module, device: torch.device, precision: str) -> Callable[..., Any]:
    """Returns a function that runs a model under autocast and casts its outputs, and so the losses, to float32.

    Args:
        model: The model, wrapped or not.
        device: Where it is.
        precision: ``no``, ``bf16`` or ``fp16``; not read from Accelerate, whose state is that of the newest Trainer.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    if dtype is None:
        return model
    autocast = torch.autocast(device.type, dtype=dtype)

    def forward(*inputs: Any) -> Any:
        with autocast:
            output = model(*inputs)
        return map_tensors(output, lambda t: t.float() if t.dtype == dtype else t)

    return forward


def seeds_of(device: torch.device) -> list[Callable[[int], Any]]:
    """Returns the ``manual_seed`` of each default generator: the host's and the device's."""
    found: list[Callable[[int], Any]] = [torch.default_generator.manual_seed]
    if device.type == "cuda":
        index: Any = device.index
        index = torch.cuda.current_device() if index is None else index
        found.append(torch.cuda.default_generators[index].manual_seed)
    elif device.type == "mps":
        found.append(torch.mps.manual_seed)
    return found


def peer_lost(error: BaseException) -> bool:
    """Whether an error of a collective says that another process is gone."""
    return isinstance(error, dist.DistError) or any(words in str(error) for words in LOST)


class Prepared:
    """A model and its optimizer as one fit uses them: compiled, wrapped for several processes, with loss scaling.

    Args:
        accelerator: The trainer's Accelerator.
        model: The trainer's model.
        make_optimizer: Makes the optimizer of a model.
        compiled: Whether to compile the model.

    Attributes:
        inner: The module that holds the trainable parameters: the model itself.
        model: The module to call, wrapped and compiled.
        optimizer: torch's own optimizer, over the inner module's parameters.
        scaler: The gradient scaler of fp16; disabled, it passes everything through.
        sharded: Whether the trainable parameters are sharded over the processes.
    """

    sharded = False

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        make_optimizer: Callable[[nn.Module], Optimizer],
        compiled: bool = False,
    ) -> None:
        self.accelerator = accelerator
        self.inner: nn.Module = model
        self.model: nn.Module = model
        self.several = accelerator.num_processes > 1
        self.optimizer = self._wrap(make_optimizer)
        self.scaler: Any = accelerator.scaler or torch.amp.GradScaler(accelerator.device.type, enabled=False)
        self.parameters = [p for p in self.inner.parameters() if p.requires_grad]
        if compiled:
            self.model = cast(nn.Module, torch.compile(self.model))

    def _wrap(self, make_optimizer: Callable[[nn.Module], Optimizer]) -> Optimizer:
        if self.several:
            self.model = self.accelerator.prepare_model(self.model)
        return make_optimizer(self.inner)

    def unsynced(self) -> AbstractContextManager[Any]:
        """Returns the context of a backward pass whose gradients are not yet reduced over the processes."""
        return self.accelerator.no_sync(self.model) if self.several else nullcontext()

    def clip(self, norm: float) -> None:
        """Clips the global norm of the gradients."""
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.parameters, norm)

    def gather(self) -> None:
        """Copies trained weights into the trainer's model; nothing to do here, where they are the same module."""

    def optimizer_state(self) -> dict[str, Tensor]:
        """Returns the optimizer's tensors by parameter and entry, such as ``head.weight.exp_avg``."""
        names = {id(p): name for name, p in self.inner.named_parameters()}
        return {
            f"{names[id(p)]}.{entry}": torch.as_tensor(value)
            for p, values in self.optimizer.state.items()
            for entry, value in values.items()
            if value is not None
        }

    def load_optimizer_state(self, tensors: dict[str, Tensor]) -> None:
        """Restores the optimizer's tensors; those of parameters that are now frozen are left out."""
        names = {id(p): name for name, p in self.inner.named_parameters()}
        parameters: list[Tensor] = [p for group in self.optimizer.param_groups for p in group["params"]]
        index = {names[id(p)]: (i, p) for i, p in enumerate(parameters)}
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            name, entry = key.rsplit(".", 1)
            if name in index:
                place, like = index[name]
                if value.shape == like.shape:  # in the parameter's memory layout: fused optimizers walk both as one
                    value = torch.empty_like(like, dtype=value.dtype).copy_(value)
                state.setdefault(place, {})[entry] = value
        if state:
            self.optimizer.load_state_dict(
                {"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]}
            )

    def release(self) -> None:
        """Removes wrappers and hooks from the model."""
        if self.several:
            self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False, keep_torch_compile=False)
            self.accelerator.free_memory()
        self.model = self.inner
