"""How threads make one batch, and how it is copied to an accelerator.

Floor: data; may import store and below. Used by: its own room.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import cast

import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from common.augment.drawn import Drawn
from common.augment.pipeline import BatchPipeline
from common.blocks.batch import Batch
from common.blocks.block import EpochSeed
from common.store.fields import Encoded
from common.store.store import SampleStore


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def alone() -> None:
    """Limits the calling thread to one OpenMP thread: workers that each start a team of their own are no faster."""
    torch.get_num_threads()  # torch sets a new thread's number when it is first asked
    _libraries().limit(limits=1, user_api="openmp")


CHUNK = 32  # items that one thread takes at a time


class Work:
    """A batch in preparation: its rows in chunks, which threads load and (photos on a CPU) render.

    Args:
        store: Where the items are stored.
        pipeline: The batch transforms.
        rows: The positions (B,).
        epoch_seed: The seed and the epoch.
        train: Whether the batch transforms draw random changes.
        stored: (height, width) of the images as stored, where threads render them; None: the rows are only loaded.
        image: float32 (B, H, W, C) to render into.
    """

    def __init__(
        self,
        store: SampleStore,
        pipeline: BatchPipeline,
        rows: Tensor,
        epoch_seed: EpochSeed,
        train: bool,
        stored: tuple[int, int] | None,
        image: Tensor | None,
    ) -> None:
        self.store, self.pipeline, self.rows, self.epoch_seed, self.train = store, pipeline, rows, epoch_seed, train
        self.stored, self.image = stored, image
        self.counted: Drawn | None = None
        self.jobs: list[Future[tuple[dict[int, Encoded], Drawn | None]]] = []
        self._done: list[tuple[dict[int, Encoded], Drawn | None]] = []

    def begin(self, pool: ThreadPoolExecutor | None) -> None:
        """Submits the chunks to a pool, or runs them in the calling thread."""
        if self.stored is not None:
            self.counted = self.pipeline.counted(self.rows, self.epoch_seed, self.train, self.stored)
        for first in range(0, len(self.rows), CHUNK):
            if pool is None:
                self._done.append(self._chunk(first))
            else:
                self.jobs.append(pool.submit(self._chunk, first))

    def _chunk(self, first: int) -> tuple[dict[int, Encoded], Drawn | None]:
        store = self.store
        rows = self.rows[first : first + CHUNK].tolist()
        spare = store.load(rows)
        if self.stored is None:
            return spare, None
        images = store.images(rows, spare, self.stored)
        sizes = torch.tensor([image.shape[:2] for image in images])
        counted = cast(Drawn, self.counted).rows(slice(first, first + CHUNK))
        drawn = self.pipeline.complete(counted, sizes if store.ragged_image else self.stored, self.train)
        self.pipeline.render(images, drawn, self.stored, cast(Tensor, self.image)[first : first + CHUNK])
        return spare, drawn

    def _results(self) -> list[tuple[dict[int, Encoded], Drawn | None]]:
        if self.jobs:
            self._done, self.jobs = [job.result() for job in self.jobs], []
        return self._done

    def spare(self) -> dict[int, Encoded]:
        """Waits for the work and returns the values that did not fit into the cache, by row.

        Raises:
            ItemError: the first error of a chunk.
        """
        return {row: values for spare, _ in self._results() for row, values in spare.items()}

    def drawn(self) -> Drawn:
        """Waits for the work and returns the parameters that the images were rendered with."""
        return Drawn.joined([cast(Drawn, drawn) for _, drawn in self._results()])


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yields batches on an accelerator, each copied while the one before it is in use.

    The copy runs from pinned memory on a side stream; the computing stream waits for it, the host does not.
    """
    if device.type != "cuda":
        for batch in batches:
            yield batch if device.type == "cpu" else batch.to(device)
        return
    side = torch.cuda.Stream(device)
    ready: Batch | None = None
    for batch in batches:
        with torch.cuda.stream(side):
            moved = batch.pinned().to(device, non_blocking=True)
        if ready is not None:
            yield ready
        torch.cuda.current_stream(device).wait_stream(side)
        moved.record(torch.cuda.current_stream(device))  # memory of the side stream is not reused while in use here
        ready = moved
    if ready is not None:
        yield ready
