"""Layer groups, freezing and the optimizer over them.

Floor: train; may import deploy and below. Used by: applications.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from common.train.options import TrainerOptions


@runtime_checkable
class Grouped(Protocol):
    """A model with layer groups for discriminative learning rates, lowest layers first, the head last."""

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Returns the parameters of each group; every parameter is in exactly one."""
        ...


def layer_groups(model: nn.Module) -> list[list[nn.Parameter]]:
    """Returns a model's layer groups; one group of everything where it names none."""
    return model.layer_groups() if isinstance(model, Grouped) else [list(model.parameters())]


def freeze_to(model: nn.Module, group: int) -> None:
    """Freezes the layer groups before ``group`` (-1: all but the last) and unfreezes it and those after it."""
    groups = layer_groups(model)
    first = group % len(groups) if group < 0 else min(group, len(groups))
    for i, parameters in enumerate(groups):
        for parameter in parameters:
            parameter.requires_grad_(i >= first)


def train_mode(model: nn.Module, freeze_norm: bool = False) -> None:
    """Puts a model into training mode, but frozen modules into evaluation mode: their running statistics stay too.

    Args:
        model: The model.
        freeze_norm: Whether batch norms keep their running statistics, except those of the last of several layer
            groups, the new head, which has not gathered any yet.
    """
    model.train()
    groups = layer_groups(model)
    new = {id(p) for p in groups[-1]} if len(groups) > 1 else set[int]()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        frozen = own and not any(p.requires_grad for p in own)
        fixed = freeze_norm and isinstance(module, nn.modules.batchnorm._BatchNorm)  # type: ignore[reportPrivateUsage]
        if frozen or (fixed and not any(id(p) in new for p in own)):
            module.train(False)


def make_optimizer(model: nn.Module, rates: list[float], options: TrainerOptions) -> torch.optim.Optimizer:
    """Returns the optimizer over the trainable parameters, each layer group split by weight decay.

    Biases and norms (one-dimensional parameters) get no decay. Each parameter group has an entry ``peak``, the peak
    learning rate, which the schedule multiplies.
    """
    groups: list[dict[str, Any]] = []
    for parameters, rate in zip(layer_groups(model), rates, strict=True):
        free = [p for p in parameters if p.requires_grad]
        decays = [p for p in free if p.dim() > 1 or options.weight_decay == 0]
        for chosen, decay in (
            (decays, options.weight_decay),
            ([p for p in free if p.dim() <= 1 and options.weight_decay], 0.0),
        ):
            if chosen:
                groups.append({"params": chosen, "lr": rate, "peak": rate, "weight_decay": decay})
    # A fused optimizer is one kernel launch and does not read its step count back from the device.
    device = next(model.parameters()).device.type
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True, fused=True if device == "cuda" else None)
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-5, fused=device in ("cpu", "cuda"))


def set_rates(optimizer: torch.optim.Optimizer, factor: float, momentum: float | None) -> None:
    """Sets each group's rate to ``factor`` times its peak, and the momentum where it is given."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
        if momentum is not None:
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum
