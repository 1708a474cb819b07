"""The loader of one part of a split, and `DataLoaders`, which keeps the parts together."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from common.augment.pipeline import BatchPipeline
from common.counter import permuted
from common.data.batch import Batch
from common.data.blocks import Counter
from common.data.buffers import BufferPool
from common.data.spatial import ImageBlock
from common.data.splits import PARTS
from common.data.store import SampleStore
from common.data.work import Work, alone, on_device
from common.errors import ConfigError, DataError
from common.memory import keep_freed_memory

AHEAD = 2  # batches under way while one is in use
LAID_OUT = 8192  # positions of an epoch's order that are worked out together


@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """How a loader makes batches.

    Attributes:
        batch_size: Samples a batch, over all processes together.
        shuffle: Whether the order is drawn anew each epoch.
        drop_last: Whether a last, smaller batch is left out.
        train: Whether the batch transforms draw random changes.
        mixing: Whether ``train`` may blend samples with each other.
        seed: Of order and augmentation.
        rank: This process among ``world``; each takes its share of every batch.
        world: The number of processes.
    """

    batch_size: int = 64
    shuffle: bool = False
    drop_last: bool = False
    train: bool = False
    mixing: bool = True
    seed: int = 0
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.train and self.batch_size % self.world:
            raise ConfigError(f"batch_size={self.batch_size} must be a multiple of the {self.world} processes")


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
        self.pipeline = pipeline
        self.options = options
        self.device = torch.device(device)
        self.epoch = 0
        self.buffers = BufferPool()

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        size = self.options.batch_size
        whole, rest = divmod(len(self.rows), size)
        return whole + (1 if rest and not self._drops(whole) else 0)

    def _drops(self, whole: int) -> bool:
        return self.options.drop_last and whole > 0

    @property
    def n(self) -> int:
        """The number of items."""
        return len(self.rows)

    @property
    def items(self) -> list[Any]:
        """The items of this part, in their order."""
        from common.data.items import take

        return [take(self.store.items, int(row)) for row in self.rows]

    def order(self, epoch: int, start: int = 0, stop: int | None = None) -> Tensor:
        """Returns the positions in the order of an epoch, int64, from place ``start`` to ``stop``: any part at once."""
        stop = len(self.rows) if stop is None else min(stop, len(self.rows))
        if not self.options.shuffle:
            return self.rows[start:stop]
        places = torch.arange(start, max(start, stop))
        return self.rows[permuted(places, len(self.rows), self.options.seed, epoch)]

    def parts(self, epoch: int, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        """Yields number and positions of each batch of an epoch that this process takes a share of."""
        size, world = self.options.batch_size, self.options.world
        ahead = max(1, LAID_OUT // size)
        for first in range(start, len(self), ahead):
            last = min(first + ahead, len(self))
            laid_out = self.order(epoch, first * size, last * size)
            for number, chunk in enumerate(laid_out.split(size), first):
                part = chunk[self.options.rank :: world]
                if len(part):
                    yield number, part

    def raw_batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yields the batches of an epoch as they are kept (images uint8), before the batch transforms."""
        counter = Counter(self.options.seed, epoch)
        for number, rows, work in self._ahead(epoch, start, None):
            spare = work.spare()
            if not bool(self.store.bad[rows].all()):
                yield replace(self.store.batch(rows, spare, counter), number=number)
            else:
                self._left_out(number)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yields the batches of one epoch as the model takes them, from batch ``start`` on.

        A batch whose every item is left out is not there, and its number is missing.
        """
        counter = Counter(self.options.seed, epoch)
        if self.device.type == "cpu":
            yield from self._on_cpu(epoch, start, counter)
            return
        self._settle()
        for batch in on_device(self.raw_batches(epoch, start), self.device):
            yield self.pipeline(batch, counter, self.options.train, self.options.mixing)

    def _on_cpu(self, epoch: int, start: int, counter: Counter) -> Iterator[Batch]:
        """Photos are decoded, cropped, warped and normalised in one go by threads, each where it lies in the cache."""
        pipeline, options = self.pipeline, self.options
        kept = self._kept()
        if kept is None or not pipeline.per_image(self.device, kept):
            for batch in self.raw_batches(epoch, start):
                yield pipeline(batch, counter, options.train, options.mixing)
            return
        keep_freed_memory()
        for number, rows, work in self._ahead(epoch, start, kept):
            spare, drawn, image = work.spare(), work.drawn(), cast(Tensor, work.image)
            good = ~self.store.bad[rows]
            if not bool(good.all()):
                image, drawn = image[good], drawn.only(good)
            if not len(image):
                self._left_out(number)
                continue
            batch = self.store.batch(rows, spare, counter, image)
            batch = pipeline.place(batch, image.permute(0, 3, 1, 2), drawn, kept, options.train)
            yield pipeline.mixed(replace(batch, number=number), counter, options.train, options.mixing)

    def _left_out(self, number: int) -> None:
        """A batch of which nothing is left: one process passes it over; several must all make the same steps.

        Raises:
            DataError: if there are other processes, which would wait for this one.
        """
        if self.options.train and self.options.world > 1:
            share = f"process {self.options.rank} of {self.options.world}"
            raise DataError(
                f"every item of the share that {share} has of batch {number} was left out: "
                "remove the items that cannot be used (check() names them), or take larger batches"
            )

    def _kept(self) -> tuple[int, int] | None:
        """(height, width) of the first image as it is kept, or None where there is no image."""
        if self.pipeline.has_image:
            self.store.probe()
        return self.store.image_size

    def _ahead(self, epoch: int, start: int, kept: tuple[int, int] | None) -> Iterator[tuple[int, Tensor, Work]]:
        """Yields each batch with the work of making it, done; the next ones are under way in threads meanwhile."""
        workers = self.store.workers if kept is not None or not self.store.ready(self.rows) else 0
        pool = ThreadPoolExecutor(workers, "loader", initializer=alone) if workers else None
        waiting: deque[tuple[int, Tensor, Work]] = deque()
        try:
            for number, rows in self.parts(epoch, start):
                waiting.append((number, rows, self._work(rows, Counter(self.options.seed, epoch), kept, pool)))
                if len(waiting) > (AHEAD if pool else 0):
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)

    def _work(
        self, rows: Tensor, counter: Counter, kept: tuple[int, int] | None, pool: ThreadPoolExecutor | None
    ) -> Work:
        image = None
        if kept is not None:
            block = cast(ImageBlock, self.store.encoder.image_block)
            image = self.buffers.take((len(rows), *self.pipeline.out_size(kept), block.channels))
        work = Work(self.store, self.pipeline, rows, counter, self.options.train, kept, image)
        if kept is None and self.store.ready(rows):
            return work
        work.begin(pool)
        return work

    def _settle(self) -> None:
        """On an accelerator the whole store lies beside the model once all is kept, if it fits."""
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
        """Returns every item of this part at once, encoded and unaugmented: what models fitted at once take."""
        whole = self.with_options(
            batch_size=max(len(self.rows), 1), shuffle=False, drop_last=False, train=False, rank=0, world=1
        )
        for batch in whole.raw_batches():
            return batch
        raise DataError("this loader has no items")

    def with_options(self, **changes: Any) -> "Loader":
        """Returns a loader of the same items with other options (see `LoaderOptions`)."""
        return Loader(self.store, self.rows, self.pipeline, replace(self.options, **changes), self.device)

    def show_batch(
        self, max_n: int = 9, nrows: int | None = None, *, unique: bool = False, epoch: int = 0, path: Any = None
    ) -> Any:
        """Draws samples as the model gets them and returns the matplotlib figure (a notebook shows it).

        Args:
            max_n: The most samples to draw.
            nrows: Rows of the picture; about a square when None.
            unique: Draw one sample again and again, as augmented in successive epochs.
            epoch: The (first) epoch to draw.
            path: A file to write the picture to.
        """
        from common.show.pictures import show_batch

        return show_batch(self, max_n=max_n, nrows=nrows, unique=unique, epoch=epoch, path=path)


class DataLoaders:
    """Keeps the loaders of the parts: ``train``, ``valid`` and, where there is one, ``test``.

    Any torch DataLoader is taken as it is; ours add ``show_batch``, blocks and a seed.

    Args:
        loaders: The loaders of train, valid and test, in this order; one at least.

    Examples:
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> data = DataLoader(TensorDataset(torch.zeros(4, 2), torch.zeros(4)), batch_size=2)
        >>> len(DataLoaders(data, data).valid)
        2
    """

    def __init__(self, *loaders: Any) -> None:
        if not loaders:
            raise ConfigError("DataLoaders needs at least a training loader")
        self.loaders = list(loaders)

    def _part(self, index: int, name: str) -> Any:
        if len(self.loaders) <= index or self.loaders[index] is None:
            raise ConfigError(f"these DataLoaders have no {name} part")
        return self.loaders[index]

    def part(self, name: str) -> Any:
        """Returns the loader of a part: ``train``, ``valid`` or ``test``.

        Raises:
            ConfigError: if there is no such part.
        """
        if name not in PARTS:
            raise ConfigError(f"part must be train, valid or test, got {name!r}")
        return self._part(PARTS.index(name), name)

    @property
    def train(self) -> Any:
        """The loader to learn from."""
        return self._part(0, "train")

    @property
    def valid(self) -> Any:
        """The loader to choose by."""
        return self._part(1, "valid")

    @property
    def test(self) -> Any:
        """The loader that is only evaluated, once, at the end."""
        return self._part(2, "test")

    def has(self, part: str) -> bool:
        """Whether there is a ``train``, ``valid`` or ``test`` loader."""
        index = PARTS.index(part)
        return len(self.loaders) > index and self.loaders[index] is not None

    def __getitem__(self, index: int) -> Any:
        return self.loaders[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loaders)

    @property
    def blocks(self) -> tuple[Any, ...]:
        """The fitted blocks.

        Raises:
            ConfigError: if the training loader is not one of ours.
        """
        if not isinstance(self.train, Loader):
            raise ConfigError("blocks are known only to loaders that a DataBlock made")
        return self.train.store.encoder.blocks

    @property
    def vocab(self) -> list[str]:
        """The categories of the first target that has some, in order."""
        blocks = self.blocks  # says so if these loaders know none
        inputs = int(self.train.store.encoder.n_inp)
        for block in (*blocks[inputs:], *blocks[:inputs]):
            if getattr(block, "vocab", None):
                return list(cast("tuple[str, ...]", block.vocab))
        raise ConfigError("no block of these DataLoaders has a vocab")

    @property
    def c(self) -> int:
        """The number of categories."""
        return len(self.vocab)

    def to(self, device: torch.device | str) -> "DataLoaders":
        """Sets the device that our loaders deliver to, and returns self."""
        for loader in self.loaders:
            if isinstance(loader, Loader):
                loader.device = torch.device(device)
        return self

    def share(self, rank: int, world: int) -> None:
        """Tells our loaders which process this is; each takes its share of every batch."""
        for loader in self.loaders:
            if isinstance(loader, Loader):
                loader.options = replace(loader.options, rank=rank, world=world)

    def one_batch(self) -> Batch:
        """Returns the first training batch."""
        return Batch.of(next(iter(self.train))) if not isinstance(self.train, Loader) else self.train.one_batch()

    def show_batch(self, max_n: int = 9, nrows: int | None = None, **options: Any) -> Any:
        """Draws training samples as the model gets them; see `Loader.show_batch`."""
        return self.train.show_batch(max_n, nrows, **options)
