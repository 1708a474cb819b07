"""The choice of a fit's backend: the whole module in every process, or one that is sharded over them.

Floor: train; may import deploy and below. Used by: its own room.
"""

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
    """Returns a model and its optimizer as a fit uses them, sharded under ``accelerate launch --use_fsdp``.

    Args:
        accelerator: The trainer's Accelerator.
        model: The trainer's model.
        make_optimizer: Makes the optimizer of a model.
        compiled: Whether to compile the model.
    """
    if accelerator.distributed_type == DistributedType.FSDP:
        return Sharded(accelerator, model, make_optimizer, compiled)
    return Prepared(accelerator, model, make_optimizer, compiled)
