"""One fit: epochs, batches, checkpoints. The loop reads top to bottom, and nothing in it waits for the device.

Floor: train; may import deploy and below. Used by: its own room.
"""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from common.blocks.batch import Batch
from common.counter import MODEL_STREAM, key
from common.data.loader import Loader
from common.errors import ConfigError, CookbookError
from common.task.evaluate import batches_of
from common.task.task import Task
from common.train import checkpoint as ckpt
from common.train import optim
from common.train.backend import forward_of, peer_lost, seeds_of
from common.train.ema import WeightAverage
from common.train.fingerprint import data_fingerprint, fit_fingerprint
from common.train.global_norm import global_norms
from common.train.hooks import Hook
from common.train.prepare import prepare
from common.train.resume import Place, Resumption, contents
from common.train.schedule import Schedule
from common.train.signals import Interrupted, Signals

if TYPE_CHECKING:
    from common.train.trainer import Trainer

_SEEDS = (1 << 63) - 1
_ODD = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: the seeds of successive steps lie far apart


class Fit:
    """One fit of a Trainer, from its start or from a checkpoint to its end.

    Args:
        trainer: The Trainer whose model, loaders, hooks and history it works on.
        phase: The number of this fit within the training, from 0.
        epochs: The number of epochs.
        rates: The peak rate of each layer group.
        schedule: The schedule of rates and momentum.
        resumption: The checkpoint to resume from, or None.
    """

    def __init__(
        self,
        trainer: "Trainer",
        phase: int,
        epochs: int,
        rates: list[float],
        schedule: Schedule,
        resumption: Resumption | None = None,
    ) -> None:
        self.trainer, self.epochs, self.schedule = trainer, epochs, schedule
        options = trainer.options
        self.steps = len(trainer.dls.train)
        self.rates = rates
        self.prepared = prepare(
            trainer.accelerator, trainer.model, lambda m: optim.make_optimizer(m, rates, options), options.compile
        )
        trainer.optimizer = self.prepared.optimizer
        if options.ema_decay is not None:
            if self.prepared.sharded:
                raise ConfigError("ema_decay needs whole weights at each step: leave it out with FSDP")
            trainer.average = WeightAverage(trainer.model, options.ema_decay)
        self.place = Place(phase=phase, began=trainer.step)
        if resumption is not None and resumption.state["fit"]:
            self.place = resumption.into(trainer, self.prepared, self.steps, self.facts)
        self.signals = Signals(str(phase), trainer.rank, trainer.world)
        self._generators = seeds_of(trainer.device)
        self._forward = forward_of(self.prepared.model, trainer.device, options.precision)
        self._base = key(options.seed, MODEL_STREAM, trainer.rank)
        within = options.checkpoint and options.checkpoint_every is not None
        train = trainer.dls.train
        order = train.order if isinstance(train, Loader) and train.options.batching is not None else None
        # With batches of different sizes the mean of their means is not the mean over samples: losses are weighted.
        uneven = order is not None and not order.even and (trainer.world > 1 or options.accumulate > 1)
        if order is not None and uneven and trainer.world > 1 and order.smallest < trainer.world:
            raise ConfigError(
                f"the smallest batch has {order.smallest} items, and {trainer.world} processes share it: "
                "allow longer batches, or fewer processes"
            )
        self._weighs = uneven or type(trainer.task).weights is not Task.weights
        self._group: Tensor | None = None  # the sum of the weights of the gradients accumulated for the next step
        self._every: float = options.checkpoint_every if within and options.checkpoint_every else math.inf
        self._written: Path | None = None  # the checkpoint that was written last
        self.graph: Any = None
        if options.cuda_graph and self._weighs:
            raise ConfigError(f"cuda_graph cannot weigh losses, as {type(trainer.task).__name__} does: leave it out")
        if options.cuda_graph:
            from common.train.graph import GraphedStep

            self.graph = GraphedStep(self._forward, trainer.task, self.prepared.parameters)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the training depends on, as checkpoints store it; computed only if there are any."""
        fit = fit_fingerprint(self.epochs, self.rates, self.schedule)
        return {"data": data_fingerprint(self.trainer.dls), "fit": fit}

    def run(self) -> None:
        """Trains to the end of the fit.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM, when a checkpoint is written.
            CheckpointError: if a checkpoint cannot be written.
        """
        trainer = self.trainer
        trainer.tell("fit_start", self.epochs, self.steps)
        devices = [trainer.device] if trainer.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=devices), global_norms(self.prepared.inner, trainer.world), self.signals:
                try:
                    while self.place.done < self.epochs and not trainer.stop:
                        self._one_epoch()
                        self._pause()
                    if self.signals.received:  # received after the last step: the fit is done, the next must not begin
                        raise self._interrupted()
                except Interrupted as stop:
                    # A checkpoint is written by all processes together, so only where all stop at the same step.
                    together = self.signals.agreed and (trainer.world == 1 or self.place.done < self.epochs)
                    stop.folder = self._checkpoint() if together else self._written
                    raise
                except RuntimeError as error:
                    if trainer.world > 1 and peer_lost(error):
                        raise self._lost() from error
                    raise
        finally:
            self._release()
            trainer.tell("fit_end")
            trainer.stop = False

    # ------------------------------------------------------------------- epochs

    def _one_epoch(self) -> None:
        trainer, place = self.trainer, self.place
        trainer.tell("epoch_start", place.done)
        began = time.perf_counter() - place.seconds
        self._train_epoch()
        loss, samples, weight = self._sums()
        if not samples:
            raise ConfigError("the training loader gave no batch: is the batch size above the number of items?")
        if not math.isfinite(loss):
            raise ConfigError(
                f"the training loss is not a number in epoch {trainer.epoch}: lower lr, or check the inputs"
            )
        record: dict[str, Any] = {"epoch": trainer.epoch, "train_loss": loss / weight}
        self.prepared.gather()
        if trainer.dls.has("valid"):
            with trainer.averaged():
                record |= trainer.measure(trainer.dls.valid, self._pause_alone)
        last = ((place.done + 1) * self.steps - 1) / max(self.epochs * self.steps - 1, 1)
        record["lr"] = float(self.prepared.optimizer.param_groups[-1]["peak"] * self.schedule.factor(last))
        record["items_per_second"] = round(samples / place.seconds, 1)
        record["wait_seconds"] = round(place.waited, 3)
        record["seconds"] = round(time.perf_counter() - began, 3)
        trainer.epoch += 1
        trainer.history.append(record)
        place.next_epoch(trainer.step)
        trainer.tell("epoch_end", record)
        self._checkpoint()

    def _train_epoch(self) -> None:
        """The loop. The cursor counts batch numbers, not batches, since a loader may leave one out."""
        trainer, place, prepared, graph = self.trainer, self.place, self.prepared, self.graph
        task, scale, steps = trainer.task, prepared.scaler.scale, self.steps
        accumulate, every = trainer.options.accumulate, self._every
        schedule, rates = self.schedule, None
        first, whole = place.done * steps, max(self.epochs * steps - 1, 1)
        forward, together = self._forward, nullcontext()
        weighs = self._weighs
        hooks = [hook.step_end for hook in trainer.hooks if type(hook).step_end is not Hook.step_end]
        clock, seed, batches = time.perf_counter, self._seed, self._batches()
        optim.train_mode(prepared.inner, trainer.options.freeze_norm)
        total, began, saved = self._total(), clock() - place.seconds, trainer.step
        pending = -1  # the accumulation group whose gradients wait for a step; -1: none
        while True:
            seed(trainer.step)  # before the batch: a torch DataLoader draws its order from here
            asked = clock()
            batch = next(batches, None)
            place.waited += clock() - asked
            if batch is None:
                break
            number = batch.number
            if pending >= 0 and number // accumulate != pending:  # the last batch of the group before was left out
                self._step()
            share = (first + number) / whole
            if rates != (rates := (schedule.factor(share), schedule.momentum(share))):
                optim.set_rates(prepared.optimizer, *rates)
            due = (number + 1) % accumulate == 0 or number + 1 == steps
            if graph is not None and graph.takes(batch):
                loss = graph(batch)
            else:
                with together if due else prepared.unsynced():
                    loss = task.loss(task.forward(forward, batch), batch)
                    if weighs:
                        scale(self._weighed(loss, batch)).backward()
                    else:
                        scale(loss / accumulate if accumulate > 1 else loss).backward()
            pending = -1 if due else number // accumulate
            if due:
                self._step()
            count, loss = len(batch), loss.detach()
            if not weighs:
                total.add_(loss, alpha=count)
            place.samples += count
            trainer.step += 1
            for step_end in hooks:
                step_end(trainer, number, loss, count)
            if due:
                place.cursor, place.seconds = number + 1, clock() - began
                if self.signals.received:
                    self._pause()
                if trainer.step - saved >= every and number + 1 < steps:
                    saved = trainer.step
                    self._checkpoint()
        if pending >= 0:
            self._step()
        place.cursor, place.seconds = steps, clock() - began

    def _step(self) -> None:
        """One step of the optimizer, and the update of the weight average."""
        if self._weighs:
            self._divide()
        prepared, average, clip = self.prepared, self.trainer.average, self.trainer.options.clip_norm
        if clip is not None:
            prepared.clip(clip)
        prepared.scaler.step(prepared.optimizer)
        prepared.scaler.update()
        for parameter in prepared.parameters:
            parameter.grad = None
        if average is not None:
            average.update()

    def _weighed(self, loss: Tensor, batch: Batch) -> Tensor:
        """A batch's mean loss times the sum of its weights; adds both to the sums of the step and of the epoch."""
        place, total = self.place, self._total()
        weights = self.trainer.task.weights(batch)
        amount = loss.new_full((), len(batch)) if weights is None else weights.sum(dtype=torch.float32)
        self._group = amount if self._group is None else self._group + amount
        place.weight = torch.zeros_like(total) if place.weight is None else place.weight
        place.weight.add_(amount)
        whole = loss * amount
        total.add_(whole.detach())
        return whole

    def _divide(self) -> None:
        """Divides the accumulated gradients by the sum of weights over all batches and processes of the step.

        DDP averages gradients over processes, so their sum is the world size times what the parameters hold.
        """
        trainer, group = self.trainer, cast(Tensor, self._group)
        self._group = None
        if trainer.world > 1:
            group = trainer.accelerator.reduce(group.reshape(1), "sum")[0]
        gradients = [p.grad for p in self.prepared.parameters if p.grad is not None]
        for gradient in gradients:
            gradient.mul_(trainer.world / group)

    def _total(self) -> Tensor:
        """The sum of the epoch's losses on the device, float64 where it has it."""
        place, device = self.place, self.trainer.device
        if place.loss is None:
            wide = torch.float32 if device.type == "mps" else torch.float64
            place.loss = torch.zeros((), dtype=wide, device=device)
        return place.loss

    def _seed(self, step: int) -> None:
        """Seeds torch before each step, so that dropout too is a function of the seed, the process and the step."""
        seed = (self._base + step * _ODD) & _SEEDS
        for manual_seed in self._generators:
            manual_seed(seed)

    def _batches(self) -> Iterator[Batch]:
        """The epoch's batches from the cursor on; a foreign loader must make and discard those before it."""
        trainer, place = self.trainer, self.place
        if place.cursor >= self.steps:
            return iter(())
        ours = isinstance(trainer.dls.train, Loader)
        batches = iter(batches_of(trainer.dls.train, trainer.device, trainer.epoch, place.cursor if ours else 0))
        for number in range(0 if ours else place.cursor):
            self._seed(place.began + number)
            next(batches, None)
        return batches

    # ------------------------------------------------- checkpoints, interruptions

    def _sums(self) -> tuple[float, int, float]:
        """The epoch's sum of losses, number of samples and sum of weights, over all processes."""
        own = torch.tensor([0.0, self.place.samples, self.place.samples], dtype=torch.float64)
        own[0] = self._total().double().cpu()
        if self._weighs:
            own[2] = 0.0 if self.place.weight is None else self.place.weight.double().cpu()
        loss, samples, weight = self.trainer.summed(own).tolist()
        return loss, int(samples), weight

    def contents(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Returns the content of a checkpoint at this point; a collective call, which every process must make."""
        self.prepared.gather()
        loss, samples, weight = self._sums()
        within, weights = (torch.tensor(v, dtype=torch.float64) if self.place.cursor else None for v in (loss, weight))
        place = replace(self.place, samples=samples, loss=within, weight=weights if self._weighs else None)
        return contents(self.trainer, place, self.prepared, self.facts)

    def _checkpoint(self) -> Path | None:
        """Writes a checkpoint if the options ask for them; all processes take part, the first one writes."""
        options = self.trainer.options
        if not options.checkpoint:
            return None
        tensors, state = self.contents()
        if self.trainer.rank:
            return None
        self._written = ckpt.add_checkpoint(Path(options.out or "") / "checkpoints", self.trainer.step, tensors, state)
        return self._written

    def _pause(self) -> None:
        """Ends the fit after a signal, where a checkpoint can be written."""
        if self.signals.received and self.signals.due(self.trainer.step):
            raise self._interrupted()

    def _interrupted(self) -> Interrupted:
        return Interrupted(self.signals.received, min(self.place.done + 1, self.epochs), self.epochs)

    def _pause_alone(self) -> None:
        """Does the same between validation batches, for one process only: several must finish validation together."""
        if self.trainer.world == 1:
            self._pause()

    def _lost(self) -> CookbookError:
        """The error for a lost process; printed at once, since the launcher is about to kill this one too."""
        where = f"in epoch {self.place.done + 1} of {self.epochs}"
        again = "start all of them again, with resume where checkpoints are kept"
        error = CookbookError(f"another process of this run ended {where}: {again}")
        print(error, file=sys.stderr, flush=True)
        return error

    def _release(self) -> None:
        """Loads the weight average into the model and removes the wrappers."""
        trainer = self.trainer
        if trainer.average is not None and trainer.average.steps:
            trainer.model.load_state_dict(trainer.average.average)
        trainer.average = None
        self.prepared.release()
