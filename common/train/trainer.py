"""The Trainer: what is done with a model, for every domain. One fit of it is in `loop.py`."""

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
from common.train import checkpoint as ckpt
from common.train import optim, resume
from common.train.backend import forward_of, make_accelerator
from common.train.ema import WeightAverage
from common.train.evaluate import Outputs, batches_of, collect
from common.train.fingerprint import data_fingerprint
from common.train.hooks import EarlyStop, EventLog, Hook, ProgressBar, TensorBoardLog
from common.train.loop import Fit
from common.train.lr_find import SuggestedRates, find_lr
from common.train.metrics import Metric, as_metrics
from common.train.options import TrainerOptions
from common.train.schedule import Constant, OneCycle, Schedule, group_rates
from common.train.task import Record, Task


class Trainer:
    """Trains a model on DataLoaders for a task.

    Args:
        model: The model; with ``layer_groups()`` it can be frozen in part and learn at rates of its own in each.
        dls: The loaders; ours or any torch DataLoaders that yield (x, y).
        task: The domain's losses, metrics and records.
        options: How to train.
        metrics: Metrics to show at each epoch; the task's own when None.
        hooks: More hooks.

    Attributes:
        history: One record of numbers an epoch, over all fits.

    Examples:
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from common.train.regression import RegressionTask
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
        self.device = self.accelerator.device
        if self.device.type == "cpu":
            keep_freed_memory()
        self.world, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self.dls = dls.to(self.device)
        dls.share(self.rank, self.world)
        layout = torch.channels_last if self.options.channels_last else torch.contiguous_format
        self.model: nn.Module = model.to(self.device, memory_format=layout)  # type: ignore[reportCallIssue]
        self.task = task
        self.metrics: tuple[Metric, ...] = as_metrics(metrics) if metrics is not None else task.metrics()
        self.hooks = [*self._own_hooks(), *hooks]
        self.history: list[dict[str, Any]] = []
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
            epochs: How many.
            lr_max: The peak rate; a slice spreads it over the layer groups.
            div: The peak over the first rate.
            div_final: The peak over the last rate.
            pct_start: The share of training that the rise takes.
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
            lr_mult: The last group's rate over the first group's.
            pct_start: The share of the second part that the rise takes.
            div: The peak over the first rate in the second part.
        """
        self.freeze()
        self.fit_one_cycle(freeze_epochs, base_lr, pct_start=0.99)
        self.unfreeze()
        base_lr /= 2
        self.fit_one_cycle(epochs, slice(base_lr / lr_mult, base_lr), pct_start=pct_start, div=div)

    def freeze_to(self, group: int) -> None:
        """Freezes the layer groups before ``group``; -1 leaves only the last one to learn."""
        optim.freeze_to(self.model, group)

    def freeze(self) -> None:
        """Freezes all layer groups but the last."""
        self.freeze_to(-1)

    def unfreeze(self) -> None:
        """Lets every layer group learn."""
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
        """Tells every hook of a moment."""
        for hook in self.hooks:
            cast("Callable[..., None]", getattr(hook, moment))(self, *arguments)

    def summed(self, sums: Tensor) -> Tensor:
        """Adds up over the processes."""
        if self.world == 1:
            return sums
        return cast(Tensor, self.accelerator.reduce(sums.to(self.device), "sum")).cpu()

    # -------------------------------------------------------------- evaluation

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Puts the average of the weights, where one is kept, into the model for the length of a block."""
        with self.average.applied() if self.average is not None and self.average.steps else nullcontext():
            yield

    def evaluation_state(self) -> dict[str, Tensor]:
        """Returns the weights that are evaluated: the average where one is kept, else the model's."""
        return self.average.average if self.average is not None else self.model.state_dict()

    @torch.no_grad()
    def measure(self, loader: Any, between: Callable[[], None] | None = None) -> dict[str, float]:
        """Returns the loss and the metrics over a loader; nothing is read from the device before its last batch.

        Args:
            loader: The loader.
            between: Called after each batch.
        """
        self.model.eval()
        forward = forward_of(self.model, self.device, self.options.precision)
        sums: list[list[Tensor]] = []
        for batch in batches_of(loader, self.device, 0):
            output = self.task.forward(forward, batch)
            loss = self.task.losses(output, batch)
            total = torch.stack([loss.sum(dtype=torch.float64), loss.new_full((), len(loss), dtype=torch.float64)])
            sums.append([total, *(metric.measure(output, batch) for metric in self.metrics)])
            if between is not None:
                between()
        own = [torch.stack(column).sum(dim=0).cpu() for column in zip(*sums, strict=True)]
        every = [part for part in self._gather(own) if part]  # a process may have had no sample of a small part
        if not every:
            raise ConfigError("the validation loader gave no batch")
        total, *rest = [torch.stack(column).sum(dim=0) for column in zip(*every, strict=True)]
        found = {"valid_loss": float(total[0] / total[1])}
        return found | {m.name: m.compute(column) for m, column in zip(self.metrics, rest, strict=True)}

    def _gather(self, own: list[Tensor]) -> list[list[Tensor]]:
        """Returns what each process holds."""
        return [own] if self.world == 1 else cast("list[list[Tensor]]", gather_object([own]))

    def validate(self, part: str = "valid") -> dict[str, float]:
        """Returns the loss and the metrics of one part (``valid``, ``test`` or ``train``) by name."""
        return self.measure(self._loader(part))

    def _loader(self, part: str) -> Any:
        found = self.dls.part(part)
        if part == "train" and isinstance(found, Loader):  # every item once, in order, unchanged
            return found.with_options(shuffle=False, drop_last=False, train=False)
        return found

    def get_preds(self, part: str = "valid") -> Outputs:
        """Returns every output, target, id and loss of one part, in order."""
        return collect(self.model, self._loader(part), self.task, self.device)

    def tta(self, part: str = "valid", n: int = 4, beta: float = 0.25) -> tuple[Tensor, Any]:
        """Returns probabilities averaged over augmented versions (test-time augmentation), and the targets.

        Args:
            part: ``valid`` or ``test``.
            n: How many augmented versions.
            beta: The weight of the plain version, in [0, 1].
        """
        loader = self._loader(part)
        if not isinstance(loader, Loader):
            raise ConfigError("tta needs a loader that a DataBlock made")
        plain = collect(self.model, loader, self.task, self.device)
        changed = loader.with_options(train=True, shuffle=False, mixing=False)
        versions = [collect(self.model, changed, self.task, self.device, epoch) for epoch in range(n)]
        mean = torch.stack([self.task.activation(v.output) for v in versions]).mean(dim=0)
        return beta * self.task.activation(plain.output) + (1 - beta) * mean, plain.target

    def predict(self, raw: Any) -> Record:
        """Returns the prediction for one raw input (a path, an image) as a plain record; see `Predictor`."""
        return self.predictor()(raw)

    def predictor(self) -> Any:
        """Returns a `Predictor` that uses this trainer's model as it is now."""
        from common.deploy.predictor import Predictor

        encoder = self._train_loader().store.encoder
        return Predictor.of(self.model, self.task, encoder, self._train_loader().pipeline, self.device)

    def _train_loader(self) -> Loader:
        if not isinstance(self.dls.train, Loader):
            raise ConfigError("this needs loaders that a DataBlock made: they know how a raw input becomes a tensor")
        return self.dls.train

    def show_results(self, max_n: int = 9, *, part: str = "valid", path: Any = None) -> Any:
        """Draws samples of a part with target / prediction and returns the matplotlib figure."""
        from common.show.pictures import show_results

        return show_results(self, max_n=max_n, part=part, path=path)

    def find_lr(self, low: float = 1e-7, high: float = 10.0, steps: int = 100) -> SuggestedRates:
        """Tries rates from low to high on training batches and suggests one; the model is left as it was.

        Args:
            low: The first rate.
            high: The last rate; the test ends early when the loss explodes.
            steps: How many batches.
        """
        return find_lr(self, low, high, steps)

    lr_find = find_lr  # the book's name

    # ------------------------------------------------------- saving and export

    def export(self, path: str | Path = "bundle", metrics: dict[str, float] | None = None) -> Path:
        """Writes a bundle: data only, everything that was fitted in it; returns its folder.

        Args:
            path: The bundle's folder; an older bundle there is replaced when the new one is whole.
            metrics: Measured results for the model card; the last epoch's when None.
        """
        from common.deploy.bundle import export

        loader = self._train_loader()
        if metrics is None and self.history:
            metrics = {
                k: v for k, v in self.history[-1].items() if isinstance(v, float) and k not in ("lr", "wait_seconds")
            }
        return export(Path(path), self.model, self.task, loader.store.encoder, loader.pipeline, metrics or {})

    def save(self, path: str | Path) -> None:
        """Writes a checkpoint of the training as it stands, to go on with `resume`; in a fit, from ``epoch_end``."""
        if self._running is not None:
            tensors, state = self._running.contents()
        else:
            facts = {"data": data_fingerprint(self.dls), "fit": {}}
            tensors, state = resume.contents(self, resume.Place(phase=self.phase), None, facts)
        if self.rank == 0:
            ckpt.write_checkpoint(Path(path), tensors, state)

    def resume(self, path: str | Path) -> str:
        """Takes up a checkpoint: call the same fits again, those already done are passed over.

        It goes on within an epoch, with any number of processes and of the loader's threads. Data and options that
        are no longer as they were are named in a warning.

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
        """Whether a checkpoint was taken up and the next fit still has to reach it."""
        return self._resumption is not None

    def with_options(self, **changes: Any) -> "Trainer":
        """Returns a Trainer of the same model and data with other options."""
        return Trainer(self.model, self.dls, self.task, replace(self.options, **changes), metrics=self.metrics)
