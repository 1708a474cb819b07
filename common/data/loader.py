"""The loader of one part of a split.

Floor: data; may import store and below. Used by: task, show, deploy, train, applications, recipes.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from common.augment.pipeline import BatchPipeline
from common.blocks.batch import Batch
from common.blocks.block import EpochSeed
from common.blocks.spatial import ImageBlock
from common.blocks.values import Ragged
from common.data.order import Batching, Bucketed, ByGroup, InTurn, Order, TokenBudget, group_units
from common.data.placement import Placement
from common.data.work import Work, alone, on_device
from common.errors import ConfigError, DataError
from common.memory import keep_freed_memory
from common.sources.items import take
from common.store.buffers import BufferPool
from common.store.cache import DenseColumn
from common.store.store import SampleStore

AHEAD = 2  # batches that are being prepared while one is in use
LAID_OUT = 8192  # positions of an epoch's order that are computed at a time


@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """How a loader makes batches.

    Attributes:
        batch_size: Samples per batch, over all processes together.
        shuffle: Whether the order is shuffled, differently in each epoch.
        drop_last: Whether a last, smaller batch is left out.
        train: Whether the batch transforms draw random changes.
        mixing: Whether ``train`` may blend samples with each other.
        seed: Seed of the order and of augmentation.
        rank: The index of this process among ``world``; each takes its share of every batch.
        world: The number of processes.
        batching: How a shuffled part is cut into batches: `ByLength`, `TokenBudget` or `ByGroup`; consecutive items of
            the shuffled order when None.
    """

    batch_size: int = 64
    shuffle: bool = False
    drop_last: bool = False
    train: bool = False
    mixing: bool = True
    seed: int = 0
    rank: int = 0
    world: int = 1
    batching: Batching | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.train and self.batching is None and self.batch_size % self.world:
            raise ConfigError(f"batch_size={self.batch_size} must be a multiple of the {self.world} processes")


class Share(NamedTuple):
    """One process's share of one batch of an epoch.

    Attributes:
        number: The batch's place in the epoch.
        rows: int64 (R,): the positions: first the process's own samples, then others that are only mixed into them.
        mates: int64 (B, k): for each own sample, the indices in ``rows`` of its mixing partners (mixup, CutMix); None
            without mixing.
    """

    number: int
    rows: Tensor
    mates: Tensor | None


class Loader:
    """Batches of one part of the data, on the device, in an order that is a function of the seed and the epoch.

    Args:
        store: The encoded items.
        rows: The positions of this part.
        pipeline: The batch transforms.
        options: How to make batches.
        device: Where batches are delivered and transformed.

    Examples:
        ``for batch in loader: …`` iterates one epoch and counts it; ``loader.batches(epoch)`` names the epoch.
    """

    def __init__(
        self,
        store: SampleStore,
        rows: Sequence[int] | np.ndarray | Tensor,
        pipeline: BatchPipeline,
        options: LoaderOptions,
        device: torch.device | str = "cpu",
    ) -> None:
        self.store = store
        self.rows = rows if isinstance(rows, Tensor) else torch.from_numpy(np.array(rows, dtype=np.int64))
        self.full = pipeline
        self.pipeline = pipeline if options.train else pipeline.evaluation
        self.options = options
        self.device = torch.device(device)
        self.epoch = 0
        self.buffers = BufferPool()
        self.placement = Placement()
        self._order: tuple[Any, Order] | None = None

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        return len(self.order)

    @property
    def n(self) -> int:
        """The number of items."""
        return len(self.rows)

    @property
    def fill(self) -> float | None:
        """The share of the tokens of packed texts that is not padding; None where nothing is packed."""
        segments = self.store.fields[0].columns.get("segments")
        if not isinstance(segments, DenseColumn):
            return None
        return float((segments.gather(self.rows) > 0).double().mean())

    @property
    def items(self) -> list[Any]:
        """The items of this part, in their order."""
        return [take(self.store.items, int(row)) for row in self.rows]

    @property
    def order(self) -> Order:
        """Which positions make each batch of an epoch."""
        options = self.options
        asked = (options.batch_size, options.shuffle, options.drop_last, options.seed, options.batching)
        if self._order is None or self._order[0] != asked:
            self._order = asked, self._ordered()
        return self._order[1]

    def _ordered(self) -> Order:
        options, batching = self.options, self.options.batching
        size, seed = options.batch_size, options.seed
        if batching is None or not options.shuffle:
            return InTurn(self.rows, size, shuffle=options.shuffle, drop_last=options.drop_last, seed=seed)
        if isinstance(batching, ByGroup):
            units = group_units(self.rows, batching.groups)
            return Bucketed(units, units.lengths, size, seed=seed)
        lengths = self.store.lengths(batching.field, self.rows)
        units = Ragged(self.rows, torch.arange(len(self.rows) + 1))
        if isinstance(batching, TokenBudget):
            return Bucketed(units, lengths, batching.tokens, seed=seed)
        return Bucketed(units, lengths, count=size, seed=seed)

    def parts(self, epoch: int, start: int = 0, stop: int | None = None) -> Iterator[Share]:
        """Yields each batch of an epoch from number ``start`` to ``stop`` that this process takes a share of."""
        order, rank, world = self.order, self.options.rank, self.options.world
        ahead, mates = max(1, LAID_OUT // self.options.batch_size), self._mixed_with
        stop = len(self) if stop is None else min(stop, len(self))
        for first in range(start, stop, ahead):
            last = min(first + ahead, stop)
            earlier = order.before(epoch, first, mates) if mates else self.rows[:0]
            for number, own in enumerate(order.several(epoch, first, last), first):
                line = torch.cat([earlier, own]) if mates else own
                before = line.unfold(0, mates, 1)[: len(own)].flip(1) if mates else own[:, None]
                earlier = line[len(line) - mates :]
                if len(own) > rank:
                    yield self._share(number, own[rank::world], before[rank::world], world)

    @property
    def _mixed_with(self) -> int:
        """With how many others a sample may be mixed; these must be loaded with it."""
        return self.pipeline.mates if self.options.train and self.options.mixing else 0

    def _share(self, number: int, own: Tensor, before: Tensor, world: int) -> Share:
        """A batch's own positions, and its mixing partners as far as they are not in the batch itself."""
        count, mates = len(own), self._mixed_with
        if not mates:
            return Share(number, own, None)
        if world > 1:
            places = torch.arange(count, count + count * mates).reshape(count, mates)
            return Share(number, torch.cat([own, before.flatten()]), places)
        # Sample i is mixed with the samples just before it; the partners of the first few come from the batch before.
        steps = torch.arange(count)[:, None] - torch.arange(1, mates + 1)
        return Share(number, torch.cat([own, before[0]]), torch.where(steps < 0, count - 1 - steps, steps))

    def raw_batches(
        self, epoch: int = 0, start: int = 0, stop: int | None = None, *, flat: bool = False
    ) -> Iterator[Batch]:
        """Yields the batches of an epoch as they are stored (images uint8), before the batch transforms.

        Where samples are mixed, those that are only partners of others come last; see ``Batch.mates``.
        """
        epoch_seed = EpochSeed(self.options.seed, epoch)
        for share, work in self._ahead(epoch, start, stop, None, self.store.workers):
            batch = self._made(share, work, epoch_seed, None, flat)
            if batch is not None:
                yield batch

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yields the batches of one epoch as the model takes them, from batch ``start`` on.

        A batch of which every item is left out is skipped, and its number with it.
        """
        if self.device.type == "cuda":
            self._move_to_device()
        stored = self._stored_size()
        places = self._places(stored)
        if places != self.placement.places:
            self.placement = Placement(places)
        while start < len(self):
            measured = self.options.train and self.store.ready(self.rows)
            place, count = self.placement.turn() if measured else (places[0], None)
            stop = len(self) if count is None else min(start + count, len(self))
            began = time.perf_counter()
            yield from self._placed(place, epoch, start, stop, stored)
            if measured and count is not None:
                self.placement.note(place, (time.perf_counter() - began) / (stop - start))
            start = stop

    def _places(self, stored: tuple[int, int] | None) -> tuple[str, ...]:
        """Where batches of these images could be augmented, the most promising first."""
        photos = stored is not None and self.pipeline.per_image(torch.device("cpu"), stored)
        if self.device.type == "cpu":
            return ("threads", "caller") if photos and self.store.workers else ("caller",)
        on_host = self.store.device.type == "cpu"
        return ("device", "threads") if photos and self.store.workers and on_host else ("device",)

    @property
    def augments(self) -> str | None:
        """Where augmentation runs, with the timings measured; None without augmentation or before a place is chosen."""
        random = self.pipeline.changes or self.pipeline.crops
        return str(self.placement) if random and self.placement.chosen is not None else None

    def _placed(self, place: str, epoch: int, start: int, stop: int, stored: tuple[int, int] | None) -> Iterator[Batch]:
        """Yields finished batches; on the CPU, worker threads decode, warp and normalise each photo in one pass."""
        pipeline, options, cpu = self.pipeline, self.options, torch.device("cpu")
        epoch_seed = EpochSeed(options.seed, epoch)
        if place == "device" or stored is None or not pipeline.per_image(cpu, stored):
            for batch in on_device(self.raw_batches(epoch, start, stop), self.device):
                yield pipeline(batch, epoch_seed, options.train, options.mixing)
            return
        keep_freed_memory()
        yield from on_device(self._rendered(epoch, start, stop, stored, place), self.device)

    def _rendered(
        self, epoch: int, start: int, stop: int | None, stored: tuple[int, int], place: str
    ) -> Iterator[Batch]:
        epoch_seed = EpochSeed(self.options.seed, epoch)
        workers = self.store.workers if place == "threads" or not self.store.ready(self.rows) else 0
        for share, work in self._ahead(epoch, start, stop, stored, workers):
            batch = self._made(share, work, epoch_seed, stored)
            if batch is not None:
                yield batch

    def _made(
        self, share: Share, work: Work, epoch_seed: EpochSeed, stored: tuple[int, int] | None, flat: bool = False
    ) -> Batch | None:
        """Waits for a batch's work and returns the batch; None if every item is left out."""
        spare, rows, mates = work.spare(), share.rows, share.mates
        good = ~self.store.bad[rows]
        count = len(rows) if mates is None else len(mates)
        if not bool(good[:count].any()):
            self._left_out(share.number)
            return None
        if mates is not None:
            # Renumber partners after bad rows are dropped; a sample whose partner is bad is mixed with itself.
            place = torch.cumsum(good, 0) - 1
            mates = torch.where(good[mates], place[mates], place[:count, None])[good[:count]]
        if stored is None:
            batch = self.store.batch(rows, spare, epoch_seed, flat=flat)
            return replace(batch, number=share.number, mates=mates, source=self._source(batch))
        drawn, image = work.drawn(), cast(Tensor, work.image)
        if not bool(good.all()):
            image, drawn = image[good], drawn.rows(good)
        batch = self.store.batch(rows, spare, epoch_seed, image)
        batch = replace(batch, number=share.number, mates=mates, source=self._source(batch))
        batch = self.pipeline.place(batch, image.permute(0, 3, 1, 2), drawn, stored)
        return self.pipeline.finished(batch, epoch_seed, self.options.train, self.options.mixing)

    def _source(self, batch: Batch) -> Tensor | None:
        """The map from pixels of the batch's images back to their source images, for predictions in source pixels."""
        return None if self.options.train or batch.sizes is None else self.pipeline.to_source(batch.sizes)

    def replay(self, sample_id: int, epoch: int) -> Batch:
        """Returns one sample as the model gets it in an epoch: a batch of one.

        Args:
            sample_id: Its id (see ``Batch.ids``).
            epoch: The epoch, from 0.

        Raises:
            DataError: if this part has no such sample, or the sample was left out.
        """
        found, mates = self.order.place(epoch, sample_id), self._mixed_with
        if found is None:
            raise DataError(f"this part has no sample {sample_id}")
        number, place = found
        rows = self.order.rows(epoch, number)
        line = torch.cat([self.order.before(epoch, number, mates), rows])
        before = line[place : place + mates].flip(0)[None] if mates else rows[place : place + 1, None]
        share = self._share(0, rows[place : place + 1], before, 1)
        epoch_seed, stored = EpochSeed(self.options.seed, epoch), self._stored_size()
        if stored is not None and not self.pipeline.per_image(self.device, stored):
            stored = None
        batch = self._made(share, self._work(share.rows, epoch_seed, stored, None), epoch_seed, stored)
        if batch is None:
            raise DataError(f"sample {sample_id} was left out")
        if stored is None:
            batch = self.pipeline(batch.to(self.device), epoch_seed, self.options.train, self.options.mixing)
        return batch

    def _left_out(self, number: int) -> None:
        """Handles a batch without usable items: one process skips it, but several must all make the same steps.

        Raises:
            DataError: if there are other processes, which would wait for this one.
        """
        if self.options.train and self.options.world > 1:
            share = f"process {self.options.rank} of {self.options.world}"
            raise DataError(
                f"every item of the share that {share} has of batch {number} was left out: "
                "remove the items that cannot be used (check() names them), or take larger batches"
            )

    def _stored_size(self) -> tuple[int, int] | None:
        """(height, width) of the first image as it is stored, or None where there is no image."""
        if self.pipeline.has_image:
            self.store.probe()
        return self.store.image_size

    def _ahead(
        self, epoch: int, start: int, stop: int | None, stored: tuple[int, int] | None, workers: int
    ) -> Iterator[tuple[Share, Work]]:
        """Yields each batch with its work; threads prepare the next `AHEAD` batches meanwhile."""
        if stored is None and self.store.ready(self.rows):
            workers = 0
        pool = ThreadPoolExecutor(workers, "loader", initializer=alone) if workers else None
        epoch_seed = EpochSeed(self.options.seed, epoch)
        waiting: deque[tuple[Share, Work]] = deque()
        try:
            for share in self.parts(epoch, start, stop):
                waiting.append((share, self._work(share.rows, epoch_seed, stored, pool)))
                if len(waiting) > (AHEAD if pool else 0):
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)

    def _work(
        self, rows: Tensor, epoch_seed: EpochSeed, stored: tuple[int, int] | None, pool: ThreadPoolExecutor | None
    ) -> Work:
        image = None
        if stored is not None:
            block = cast(ImageBlock, self.store.encoder.image_block)
            image = self.buffers.take((len(rows), *self.pipeline.out_size(stored), block.channels))
        work = Work(self.store, self.pipeline, rows, epoch_seed, self.options.train, stored, image)
        if stored is None and self.store.ready(rows):
            return work
        work.begin(pool)
        return work

    def _move_to_device(self) -> None:
        """Moves the whole store to the GPU once every item is stored, if it takes less than 40 % of the free memory."""
        if self.device.type != "cuda" or self.store.device.type == "cuda" or not self.store.complete():
            return
        free, _ = torch.cuda.mem_get_info(self.device)
        if self.store.bytes < 0.4 * free:
            self.store.to(self.device)

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches of the next epoch and counts it."""
        yield from self.batches(self.epoch)
        self.epoch += 1

    def one_batch(self, epoch: int = 0) -> Batch:
        """Returns the first batch of an epoch.

        Raises:
            DataError: if this part has no items.
        """
        for batch in self.batches(epoch):
            return batch
        raise DataError("this loader has no items")

    def arrays(self) -> Batch:
        """Returns every item of this part in one batch, encoded and unaugmented, for models that are fitted at once.

        Ragged fields stay ragged: flat values with offsets (`Ragged`).
        """
        whole = self.with_options(
            batch_size=max(len(self.rows), 1), shuffle=False, drop_last=False, train=False, rank=0, world=1
        )
        for batch in whole.raw_batches(flat=True):
            return batch
        raise DataError("this loader has no items")

    def with_options(self, **changes: Any) -> "Loader":
        """Returns a loader of the same items with other options (see `LoaderOptions`)."""
        return Loader(self.store, self.rows, self.full, replace(self.options, **changes), self.device)

    def show_batch(
        self, max_n: int = 9, nrows: int | None = None, *, unique: bool = False, epoch: int = 0, path: Any = None
    ) -> Any:
        """Draws samples as the model gets them and returns the matplotlib figure (a notebook shows it).

        Args:
            max_n: The most samples to draw.
            nrows: Rows of the picture; about a square when None.
            unique: Draw one sample repeatedly, as augmented in successive epochs.
            epoch: The (first) epoch to draw.
            path: A file to write the picture to.
        """
        from common.data.show_batch import show_batch

        return show_batch(self, max_n=max_n, nrows=nrows, unique=unique, epoch=epoch, path=path)
