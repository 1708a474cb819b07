"""How to train: one frozen set of options, all plain data.

Floor: train; may import deploy and below. Used by: vision, applications.
"""

from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigError, in_range, one_of

PRECISIONS = ("no", "bf16", "fp16")
OPTIMIZERS = ("adamw", "sgd")
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """Options of a Trainer.

    Attributes:
        seed: Seed of dropout and other random numbers inside the model.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``mps``.
        precision: ``no`` (float32), ``bf16`` or ``fp16`` (with loss scaling; needs a GPU).
        optimizer: ``adamw`` or ``sgd`` (with Nesterov momentum).
        weight_decay: Decoupled weight decay; not on biases and norms.
        accumulate: Batches whose gradients are accumulated for one optimizer step.
        clip_norm: The largest global norm of the gradient, or None.
        ema_decay: Decay of the moving average of the weights, which is evaluated and becomes the final weights, in
            (0, 1); None: no average.
        early_stop: Epochs without a better validation loss that are allowed, or None.
        compile: Whether to compile the model.
        cuda_graph: Whether to record forward and backward of a full batch once as a CUDA graph and replay it; for small
            models, whose steps cost more to launch than to compute. The model must not read tensors on the host.
        freeze_norm: Whether batch norms keep their pretrained running statistics (fine-tuning on few images); those of
            the last layer group, which is new, are updated.
        channels_last: Whether the model uses the channels-last memory format, faster on most CPUs and GPUs.
        progress: Whether to show progress.
        out: A folder for ``events.jsonl`` and checkpoints, or None.
        checkpoint: Whether to write a checkpoint after each epoch, and when Ctrl-C stops a fit (needs ``out``).
        checkpoint_every: Batches between further checkpoints within an epoch, or None.
        tensorboard: Whether to write TensorBoard events to ``out`` too.
    """

    seed: int = 0
    device: str = "auto"
    precision: str = "no"
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    accumulate: int = 1
    clip_norm: float | None = None
    ema_decay: float | None = None
    early_stop: int | None = None
    compile: bool = False
    cuda_graph: bool = False
    freeze_norm: bool = False
    channels_last: bool = True
    progress: bool = True
    out: str | Path | None = None
    checkpoint: bool = False
    checkpoint_every: int | None = 1000
    tensorboard: bool = False

    def __post_init__(self) -> None:
        one_of("device", self.device, DEVICES)
        one_of("precision", self.precision, PRECISIONS)
        one_of("optimizer", self.optimizer, OPTIMIZERS)
        in_range("accumulate", self.accumulate, 1, float("inf"))
        in_range("weight_decay", self.weight_decay, 0, float("inf"))
        if self.clip_norm is not None:
            in_range("clip_norm", self.clip_norm, 0, float("inf"), open_low=True)
        if self.ema_decay is not None:
            in_range("ema_decay", self.ema_decay, 0, 1, open_low=True, open_high=True)
        if self.early_stop is not None:
            in_range("early_stop", self.early_stop, 0, float("inf"))
        if self.checkpoint_every is not None:
            in_range("checkpoint_every", self.checkpoint_every, 1, float("inf"))
        if self.cuda_graph and self.accumulate > 1:
            raise ConfigError("cuda_graph records one batch a step: it needs accumulate=1")
        if self.cuda_graph and (self.device in ("cpu", "mps") or self.precision == "fp16"):
            raise ConfigError("cuda_graph needs a CUDA GPU, and precision 'no' or 'bf16'")
        if (self.checkpoint or self.tensorboard) and self.out is None:
            raise ConfigError("checkpoint and tensorboard need out, the folder to write to")
