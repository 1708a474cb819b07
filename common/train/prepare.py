"""Which backend a fit runs on: one module to a process, or one that is divided over them."""

from collections.abc import Callable

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from common.train.backend import Optimizer, Prepared
from common.train.sharded import Sharded


def prepare(
    accelerator: Accelerator,
    model: nn.Module,
    make_optimizer: Callable[[nn.Module], Optimizer],
    compiled: bool = False,
) -> Prepared:
    """Returns a model and its optimizer as a fit uses them, sharded where ``accelerate launch --use_fsdp`` says so.

    Args:
        accelerator: Of the trainer.
        model: The trainer's model.
        make_optimizer: Makes the optimizer of a model.
        compiled: Whether to compile the model.
    """
    if accelerator.distributed_type == DistributedType.FSDP:
        return Sharded(accelerator, model, make_optimizer, compiled)
    return Prepared(accelerator, model, make_optimizer, compiled)
