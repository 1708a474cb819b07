"""The Trainer: training, saving and resuming, for every domain. The loop of one fit is in `loop.py`.

Floor: train; may import deploy and below. Used by: vision, applications, recipes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from common.data.dataloaders import DataLoaders
from common.data.loader import Loader
from common.errors import ConfigError, in_range
from common.memory import keep_freed_memory
from common.task.evaluate import collect
from common.task.task import Task
from common.train import checkpoint as ckpt
from common.train import optim, resume
from common.train.backend import forward_of, make_accelerator
from common.train.ema import WeightAverage
from common.train.fingerprint import data_fingerprint
from common.train.hooks import EarlyStop, EventLog, Hook, ProgressBar, TensorBoardLog
from common.train.learner import Learner
from common.train.loop import Fit
from common.train.lr_find import SuggestedRates, find_lr
from common.train.options import TrainerOptions
from common.train.schedule import Constant, OneCycle, Schedule, group_rates


class Trainer(Learner):
    """Trains a model on DataLoaders for a task.

    Args:
        model: The model; with ``layer_groups()`` it can be partly frozen and trained at discriminative rates.
        dls: The loaders; ours or any torch DataLoaders that yield (x, y).
        task: The domain's losses, metrics and records.
        options: How to train.
        metrics: Metrics to show at each epoch; the task's own when None.
        hooks: More hooks.

    Attributes:
        history: One record of numbers per epoch, over all fits.

    Examples:
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from common.task.regression import RegressionTask
        >>> x = torch.linspace(-1, 1, 64)[:, None]
        >>> data = DataLoader(TensorDataset(x, 3 * x[:, 0]), batch_size=16)
        >>> quiet = TrainerOptions(device="cpu", progress=False)
        >>> trainer = Trainer(nn.Linear(1, 1), DataLoaders(data, data), RegressionTask(), quiet)
        >>> trainer.fit_one_cycle(40, 0.5)
        >>> trainer.validate()["rmse"] < 0.1
        True
    """

    def __init__(
        self,
        model: nn.Module,
        dls: DataLoaders,
        task: Task,
        options: TrainerOptions | None = None,
        *,
        metrics: Any = None,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self.options = options or TrainerOptions()
        self.accelerator = make_accelerator(self.options)
        device = self.accelerator.device
        if device.type == "cpu":
            keep_freed_memory()
        self.world, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        layout = torch.channels_last if self.options.channels_last else torch.contiguous_format
        placed: nn.Module = model.to(device, memory_format=layout)  # type: ignore[reportCallIssue]
        super().__init__(placed, dls, task, device, metrics=metrics)
        dls.share(self.rank, self.world)
        self.hooks = [*self._own_hooks(), *hooks]
        self.phase = self.epoch = self.step = 0
        self.stop = False
        self.average: WeightAverage | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self._resumption: resume.Resumption | None = None
        self._running: Fit | None = None

    def _own_hooks(self) -> list[Hook]:
        options, found = self.options, list[Hook]()
        if options.early_stop is not None:
            found.append(EarlyStop(options.early_stop))
        if self.rank == 0:
            if options.progress:
                found.append(ProgressBar())
            if options.out is not None:
                found.append(EventLog(Path(options.out) / "events.jsonl"))
                if options.tensorboard:
                    found.append(TensorBoardLog(Path(options.out) / "tensorboard"))
        return found

    # ---------------------------------------------------------------- training

    def fit(self, epochs: int, lr: float | slice | Sequence[float] = 1e-3) -> None:
        """Trains at a constant rate."""
        self._fit(epochs, lr, Constant())

    def fit_one_cycle(
        self,
        epochs: int,
        lr_max: float | slice | Sequence[float] = 1e-3,
        *,
        div: float = 25.0,
        div_final: float = 1e5,
        pct_start: float = 0.25,
    ) -> None:
        """Trains with the one-cycle schedule (Smith 2018).

        Args:
            epochs: The number of epochs.
            lr_max: The peak rate; a slice spreads it over the layer groups.
            div: The ratio of the peak rate to the first rate.
            div_final: The ratio of the peak rate to the last rate.
            pct_start: The share of training spent on the rise.
        """
        self._fit(epochs, lr_max, OneCycle(div=div, div_final=div_final, pct_start=pct_start))

    def fine_tune(
        self,
        epochs: int,
        base_lr: float = 2e-3,
        freeze_epochs: int = 1,
        lr_mult: float = 100.0,
        *,
        pct_start: float = 0.3,
        div: float = 5.0,
    ) -> None:
        """Trains the head with the rest frozen, then everything, lower layers at lower rates (the book's recipe).

        Args:
            epochs: Epochs with everything unfrozen.
            base_lr: Peak rate of the frozen epochs; halved for the last group afterwards.
            freeze_epochs: Epochs with all but the last layer group frozen.
            lr_mult: The ratio of the last group's rate to the first group's.
            pct_start: The share of the unfrozen epochs spent on the rise.
            div: The ratio of the peak rate to the first rate in the unfrozen epochs.
        """
        self.freeze()
        self.fit_one_cycle(freeze_epochs, base_lr, pct_start=0.99)
        self.unfreeze()
        base_lr /= 2
        self.fit_one_cycle(epochs, slice(base_lr / lr_mult, base_lr), pct_start=pct_start, div=div)

    def freeze_to(self, group: int) -> None:
        """Freezes the layer groups before ``group``; -1 leaves only the last one trainable."""
        optim.freeze_to(self.model, group)

    def freeze(self) -> None:
        """Freezes all layer groups but the last."""
        self.freeze_to(-1)

    def unfreeze(self) -> None:
        """Makes every layer group trainable."""
        self.freeze_to(0)

    def _fit(self, epochs: int, lr: float | slice | Sequence[float], schedule: Schedule) -> None:
        in_range("epochs", epochs, 0, float("inf"))
        phase, self.phase = self.phase, self.phase + 1
        if self._resumption is not None and phase < self._resumption.place.phase:
            return  # the checkpoint is past this fit
        resumption, self._resumption = self._resumption, None
        if not epochs:
            return
        if not any(p.requires_grad for p in self.model.parameters()):
            raise ConfigError("every layer group is frozen: call unfreeze() or freeze_to() before fit")
        if self.options.out is not None:
            Path(self.options.out).mkdir(parents=True, exist_ok=True)
        rates = group_rates(lr, len(optim.layer_groups(self.model)))
        self._running = Fit(self, phase, epochs, rates, schedule, resumption)
        try:
            self._running.run()
        finally:
            self._running = None

    def tell(self, moment: str, *arguments: Any) -> None:
        """Calls a method of every hook."""
        for hook in self.hooks:
            getattr(hook, moment)(self, *arguments)

    def summed(self, sums: Tensor) -> Tensor:
        """Returns the sum of a CPU tensor over the processes."""
        if self.world == 1:
            return sums
        return cast(Tensor, self.accelerator.reduce(sums.to(self.device), "sum")).cpu()

    # -------------------------------------------------------------- evaluation

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Loads the weight average, if there is one, into the model for the duration of a ``with`` block."""
        with self.average.applied() if self.average is not None and self.average.steps else nullcontext():
            yield

    def evaluation_state(self) -> dict[str, Tensor]:
        """Returns the weights that are evaluated: the weight average if there is one, else the model's."""
        return self.average.average if self.average is not None else self.model.state_dict()

    def _forward(self) -> Callable[..., Any]:
        return forward_of(self.model, self.device, self.options.precision)

    def _gather(self, own: list[Tensor]) -> list[list[Tensor]]:
        return [own] if self.world == 1 else gather_object([own])

    def tta(self, part: str = "valid", n: int = 4, beta: float = 0.25) -> tuple[Tensor, Any]:
        """Returns probabilities averaged over augmented versions (test-time augmentation), and the targets.

        Args:
            part: ``valid`` or ``test``.
            n: How many augmented versions.
            beta: The weight of the unaugmented version, in [0, 1].
        """
        loader = self.loader(part)
        if not isinstance(loader, Loader):
            raise ConfigError("tta needs a loader that a DataBlock made")
        plain = collect(self.model, loader, self.task, self.device)
        changed = loader.with_options(train=True, shuffle=False, mixing=False)
        versions = [collect(self.model, changed, self.task, self.device, epoch) for epoch in range(n)]
        mean = torch.stack([self.task.activation(v.output) for v in versions]).mean(dim=0)
        return beta * self.task.activation(plain.output) + (1 - beta) * mean, plain.target

    def find_lr(self, low: float = 1e-7, high: float = 10.0, steps: int = 100) -> SuggestedRates:
        """Tries rates from low to high on training batches and suggests one; the model is left as it was.

        Args:
            low: The first rate.
            high: The last rate; the test ends early when the loss diverges.
            steps: The number of batches.
        """
        return find_lr(self, low, high, steps)

    lr_find = find_lr  # the book's name

    # ------------------------------------------------------- saving and export

    def save(self, path: str | Path) -> None:
        """Writes a checkpoint of the current state, for `resume`; within a fit, call it from a hook's ``epoch_end``."""
        if self._running is not None:
            tensors, state = self._running.contents()
        else:
            facts = {"data": data_fingerprint(self.dls), "fit": {}}
            tensors, state = resume.contents(self, resume.Place(phase=self.phase), None, facts)
        if self.rank == 0:
            ckpt.write_checkpoint(Path(path), tensors, state)

    def resume(self, path: str | Path) -> str:
        """Resumes from a checkpoint: call the same fits again, and those already done are skipped.

        Training continues within an epoch, with any number of processes and loader threads. Data and options that have
        changed are named in a warning.

        Args:
            path: A checkpoint folder, or a folder of them (the newest sound one is used).

        Returns:
            One sentence: which checkpoint was used, and which newer ones were damaged.

        Raises:
            CheckpointError: if there is no sound one, or it belongs to another model or seed.
        """
        self._resumption, sentence = resume.read(self, Path(path))
        return sentence

    @property
    def resuming(self) -> bool:
        """Whether `resume` was called and no fit has reached the checkpoint yet."""
        return self._resumption is not None

    def with_options(self, **changes: Any) -> "Trainer":
        """Returns a Trainer of the same model and data with other options."""
        return Trainer(self.model, self.dls, self.task, replace(self.options, **changes), metrics=self.metrics)
