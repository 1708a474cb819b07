"""A DataBlock applied to a source: what `DataBlock.prepare` gives, and the loaders that it makes.

Floor: data; may import store and below. Used by: recipes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.augment.pipeline import BatchPipeline
from common.blocks.block import Block
from common.blocks.sample import SampleEncoder
from common.data.dataloaders import DataLoaders
from common.data.loader import Loader, LoaderOptions
from common.data.packing import packed
from common.sources.items import Items, take
from common.sources.splits import Split
from common.store.dirty import DirtyPolicy, Failure
from common.store.store import SampleStore


@dataclass(frozen=True)
class Prepared:
    """A DataBlock applied to a source: items, raw values, split, fitted blocks, batch pipeline.

    Attributes:
        items: The items.
        raws: One sequence of raw values per block.
        split: The positions of the items of each part.
        encoder: The fitted blocks and item transforms.
        pipeline: The batch transforms, checked against the blocks.
        failures: The items that a getter or a block already failed on, and that are left out.
        policy: What happens to an item that cannot be used.
    """

    items: Items
    raws: list[Sequence[Any]]
    split: Split
    encoder: SampleEncoder
    pipeline: BatchPipeline
    failures: tuple[Failure, ...] = ()
    policy: DirtyPolicy = field(default_factory=DirtyPolicy)

    def notes(self, rows: Sequence[int] | None = None) -> list[str]:
        """Returns one sentence for each irregularity that was corrected (a box clipped to its image).

        Args:
            rows: The positions to look at; those of all parts when None.
        """
        if rows is None:
            rows = [int(row) for part in ("train", "valid", "test") for row in self.split[part]]
        noting = [
            pair for pair in zip(self.encoder.blocks, self.raws, strict=True) if type(pair[0]).notes != Block.notes
        ]
        given = ((block, take(raws, row)) for block, raws in noting for row in rows)
        return [note for block, raw in given if raw is not None for note in block.notes(raw)]

    def store(
        self, workers: int = 2, cache_bytes: int | None = None, cache_dir: str | Path | None = None
    ) -> SampleStore:
        """Returns the store of every item that is in some part."""
        return SampleStore(
            self.encoder,
            self.raws,
            self.items,
            np.concatenate([self.split[part] for part in ("train", "valid", "test")]),
            workers=workers,
            cache_bytes=cache_bytes,
            cache_dir=cache_dir,
            policy=self.policy,
            failures=self.failures,
        )

    def loaders(
        self,
        options: LoaderOptions,
        val_bs: int,
        workers: int,
        cache_bytes: int | None,
        device: str | torch.device,
        cache_dir: str | Path | None = None,
        pack: int | None = None,
    ) -> DataLoaders:
        """Returns the loaders over one shared store."""
        store = self.store(workers, cache_bytes, cache_dir)
        positions = {part: self.split[part] for part in ("train", "valid", "test")}
        if pack is not None:
            store, positions = packed(store, positions, pack)
        made: list[Loader | None] = []
        for part in ("train", "valid", "test"):
            rows = positions[part]
            train = part == "train"
            own = replace(
                options,
                train=train,
                shuffle=train,
                drop_last=train,
                batch_size=options.batch_size if train else val_bs,
                batching=options.batching if train else None,
            )
            made.append(Loader(store, rows, self.pipeline, own, device) if len(rows) else None)
        return DataLoaders(*(made if made[2] is not None else made[:2]))
