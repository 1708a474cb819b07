"""The DataBlock: what data, how to get the items, how to label them, how to make the validation set.

Floor: data; may import store and below. Used by: applications, recipes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.augment.batch_transforms import BatchTransform
from common.augment.pipeline import BatchPipeline
from common.blocks.block import Block, Target
from common.blocks.distinct import distinct
from common.blocks.item_transforms import ItemTransform
from common.blocks.sample import SampleEncoder, default_names
from common.data.check import DataCheck, inspect
from common.data.dataloaders import DataLoaders
from common.data.loader import LoaderOptions
from common.data.order import Batching
from common.data.packing import check_pack
from common.data.plan import Plan, plan
from common.data.prepared import Prepared
from common.errors import ConfigError, DataError, ItemError
from common.sources.items import ColReader, Getter, Items, item_name, read_fields, subset
from common.sources.splits import RandomSplitter, apply_splitter
from common.store.dirty import DirtyPolicy, Failure


def _many(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


@dataclass(frozen=True)
class DataBlock:
    """A reusable, frozen template of a data set; `dataloaders` fits copies of the blocks, never the template's own.

    Args:
        blocks: One block per field, inputs first; a class (``ImageBlock``) or an instance.
        get_items: From the source to the items; None: the source is the list or frame of items.
        get_x: From an item to the input's raw value (a list of getters for several inputs); None: the item itself.
        get_y: From an item to the target's raw value (a list for several targets).
        splitter: From the items to train, validation (and test) positions.
        n_inp: How many blocks are inputs; all but the last when None.
        item_tfms: Deterministic transforms of an item (`Resize`, `RandomResizedCrop`).
        batch_tfms: Random transforms of a batch on the device (`aug_transforms`, `Augment`, `Mixup`).
        names: The name of each field, for forms and for predictions from several inputs; when None, the columns that
            the getters read, or else the blocks' kinds.

    Raises:
        ConfigError: for something that is not a block or transform, or a number of getters that does not fit.

    Examples:
        >>> from common.data import CategoryBlock, RegressionBlock, ColReader
        >>> block = DataBlock(
        ...     blocks=(RegressionBlock, CategoryBlock), get_x=ColReader("x"), get_y=ColReader("y")
        ... )
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"x": range(10), "y": list("ab") * 5})
        >>> dls = block.dataloaders(frame, bs=4)
        >>> dls.train.n, dls.valid.n, dls.vocab
        (8, 2, ['a', 'b'])
    """

    blocks: Sequence[Any] = ()
    get_items: Callable[[Any], Any] | None = None
    get_x: Getter | Sequence[Getter | None] | None = None
    get_y: Getter | Sequence[Getter | None] | None = None
    splitter: Callable[..., Any] | None = None
    n_inp: int | None = None
    item_tfms: Any = None
    batch_tfms: Any = None
    names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        made = [b() if callable(b) and not isinstance(b, Block) else b for b in _many(self.blocks)]
        for block in made:
            if not isinstance(block, Block):
                raise ConfigError(f"blocks must hold blocks (ImageBlock, CategoryBlock, …), got {block!r:.60}")
        object.__setattr__(self, "blocks", tuple(made))
        object.__setattr__(self, "item_tfms", _many(self.item_tfms))
        object.__setattr__(self, "batch_tfms", _many(self.batch_tfms))
        if not made:
            raise ConfigError("blocks must name at least one block")
        for name, base in (("item_tfms", ItemTransform), ("batch_tfms", BatchTransform)):
            for transform in getattr(self, name):
                if not isinstance(transform, base):
                    other = "batch_tfms" if isinstance(transform, BatchTransform) else "item_tfms"
                    hint = (
                        f" (it belongs into {other})" if isinstance(transform, (ItemTransform, BatchTransform)) else ""
                    )
                    raise ConfigError(f"{name} cannot hold {transform!r:.60}{hint}")
        if self.n_inp is not None and not 0 < self.n_inp <= len(made):
            raise ConfigError(f"n_inp must lie in [1, {len(made)}], got {self.n_inp}")
        self._getters()

    def new(self, **changes: Any) -> "DataBlock":
        """Returns a copy with some parts changed: ``block.new(item_tfms=Resize(128))``."""
        return replace(self, **changes)

    @property
    def inputs(self) -> int:
        """How many blocks are inputs."""
        return self.n_inp if self.n_inp is not None else max(1, len(self.blocks) - 1)

    def _getters(self) -> list[Getter | None]:
        getters: list[Getter | None] = []
        for name, given, count in (
            ("get_x", self.get_x, self.inputs),
            ("get_y", self.get_y, len(self.blocks) - self.inputs),
        ):
            many: list[Any] = (
                list(given) if isinstance(given, (list, tuple)) else [given] * (1 if given is not None else count)
            )
            if len(many) != count:
                raise ConfigError(f"{name} must give {count} getter(s) for {count} block(s), got {len(many)}")
            getters += many
        return getters

    def _names(self) -> tuple[str, ...]:
        """Returns the fields' names: those given, else the columns that they come from, else their kinds."""
        if self.names is not None:
            return tuple(self.names)
        read = [getter.cols if isinstance(getter, ColReader) else None for getter in self._getters()]
        found = [c if isinstance(c, str) else n for c, n in zip(read, default_names(self.blocks), strict=True)]
        return tuple(found) if len(set(found)) == len(found) else default_names(self.blocks)

    def items(self, source: Any) -> Items:
        """Returns the items of a source.

        Raises:
            DataError: if there are none.
        """
        found = source if self.get_items is None else self.get_items(source)
        if isinstance(found, (str, bytes)) or not (hasattr(found, "__getitem__") and hasattr(found, "__len__")):
            raise DataError(
                f"the items must be a list or a frame, got {type(found).__name__} {found!s:.60}: "
                "give get_items, such as get_image_files"
            )
        if not len(found):
            raise DataError(f"{source!r:.80}: no items were found")
        return found

    def prepare(self, source: Any, policy: DirtyPolicy | None = None) -> Prepared:
        """Gets items, raw values and the split, and fits the blocks to the training items.

        Args:
            source: What ``get_items`` takes.
            policy: What happens to an item that a getter fails on or that has no label; by default it raises.

        Raises:
            DataError: naming what is wrong: no items, a getter that fails on one, an empty part, a missing label.
        """
        items, policy = self.items(source), policy or DirtyPolicy()
        sides = ["get_x"] * self.inputs + ["get_y"] * (len(self.blocks) - self.inputs)
        for getter, block, side in zip(self._getters(), self.blocks, sides, strict=True):
            if getter is None and hasattr(items, "columns") and block.target != Target.COLUMNS:
                raise ConfigError(
                    f"{side} is missing: {type(block).__name__} needs one column, such as ColReader('name')"
                )
        failed: dict[int, ItemError] = {}
        read = read_fields(list(zip(self._getters(), sides, strict=True)), items, None if policy.raises else failed)
        if not policy.raises:
            unlabelled(self.blocks, read, items, failed)
        if failed:
            good = np.delete(np.arange(len(items)), list(failed))
            items = subset(items, good)
            if not len(good):
                raise DataError(f"every item was left out, the first: {next(iter(failed.values()))}")
            read = [subset(raws, good) for raws in read]
        return self._fitted(items, read, [Failure.of(failed[row]) for row in sorted(failed)], policy)

    def _fitted(
        self, items: Items, raws: list[Sequence[Any]], failures: list[Failure], policy: DirtyPolicy
    ) -> Prepared:
        named = len(raws) > self.inputs and self.blocks[self.inputs].target == Target.CATEGORY
        labels = raws[self.inputs] if named else None
        split = apply_splitter(self.splitter or RandomSplitter(), items, labels)
        fitted: list[Block] = []
        for block, values in zip(self.blocks, raws, strict=True):
            train = subset(values, split.train) if block.needs_fit else ()
            fitted.append(block.setup(train))
        encoder = SampleEncoder(tuple(fitted), self.inputs, self.item_tfms, self._names())
        pipeline = BatchPipeline(encoder, self.batch_tfms)
        return Prepared(items, raws, split, encoder, pipeline, tuple(failures), policy)

    def dataloaders(
        self,
        source: Any,
        path: Any = None,
        *,
        bs: int = 64,
        val_bs: int | None = None,
        seed: int = 0,
        num_workers: int = 2,
        cache_bytes: int | None = None,
        cache_dir: str | Path | None = None,
        on_error: str = "raise",
        quarantine: str | Path = "quarantine.jsonl",
        device: str | torch.device = "cpu",
        batching: Batching | None = None,
        pack: int | None = None,
    ) -> DataLoaders:
        """Returns the loaders of the parts of a source.

        Args:
            source: What ``get_items`` takes: a folder, a frame, a list.
            path: Ignored; accepted so that calls from the book work unchanged.
            bs: Training samples per batch, over all processes together.
            val_bs: Validation samples per batch; ``bs`` when None.
            seed: Seed of the order and of augmentation.
            num_workers: Threads that decode and, on a CPU, augment photos; 0 does it in the calling thread.
            cache_bytes: The most memory for decoded items; half of what is free when None. Items beyond this limit are
                decoded again in each epoch.
            cache_dir: A folder to cache decoded items in instead, shared with later runs and other processes.
            on_error: What happens to an item that cannot be used: ``raise`` stops and names it, ``skip`` leaves it out,
                ``quarantine`` leaves it out and records it in a file.
            quarantine: The file for ``on_error="quarantine"``.
            device: Where batches go; a Trainer sets it to its own.
            batching: How training items are put into batches: `ByLength`, `TokenBudget` or `ByGroup`; shuffled when
                None.
            pack: Tokens per row, where the only field is a text: each part's texts are packed into rows of this length,
                and a batch's x is ``tokens`` and ``segments``, int32 (B, pack). Segments number the texts of a row from
                1; 0 is padding. The samples are then the packs; ``loader.store.name(id)`` names the items in one.

        Raises:
            ConfigError: if ``pack`` is given for other fields than one text, or with ``batching``.
            DataError: if the source, a label or the split is not what it must be, naming the item.
        """
        options = LoaderOptions(batch_size=bs, seed=seed, batching=batching)
        if pack is not None:
            check_pack(self.blocks, pack, batching)
        prepared = self.prepare(source, DirtyPolicy(on_error=on_error, quarantine=quarantine))
        return prepared.loaders(options, val_bs or bs, num_workers, cache_bytes, device, cache_dir, pack)

    def check(self, source: Any, *, bs: int = 64, limit: int | None = None) -> DataCheck:
        """Returns a report made by running the loader's own code path over the data.

        Args:
            source: What ``get_items`` takes.
            bs: Samples in the batch that is made at the end.
            limit: The most items to encode; None: all.
        """
        return inspect(self.prepare(source, DirtyPolicy(on_error="skip")), bs, limit)

    def summary(self, source: Any, bs: int = 4) -> None:
        """Prints the report of `check`."""
        print(self.check(source, bs=bs))

    def plan(
        self,
        source: Any,
        *,
        bs: int = 64,
        device: str = "cpu",
        num_workers: int = 2,
        cache_bytes: int | None = None,
        cache_dir: str | Path | None = None,
    ) -> Plan:
        """Returns what runs where, how much memory it takes and why, without training; see `dataloaders`.

        Args:
            source: What ``get_items`` takes.
            bs: Samples per batch.
            device: Where the batches go.
            num_workers: Threads that decode.
            cache_bytes: The most memory for decoded items.
            cache_dir: A folder to cache them in instead.
        """
        return plan(self.prepare(source), bs, device, num_workers, cache_bytes, cache_dir)


def unlabelled(
    blocks: Sequence[Block], raws: Sequence[Sequence[Any]], items: Items, failed: dict[int, ItemError]
) -> None:
    """Records in ``failed`` the items that a block cannot be fitted to (a missing label).

    Args:
        blocks: The blocks.
        raws: One sequence of raw values per block.
        items: The items, for their names.
        failed: The errors by item position, added to here; items already in it are skipped.
    """
    for block, values in zip(blocks, raws, strict=True):
        if not block.needs_fit or block.target == Target.COLUMNS:  # a table's cell is never invalid, at most missing
            continue
        try:
            given = np.delete(np.arange(len(values)), list(failed)) if failed else None
            block.setup(values if given is None else subset(values, given))
        except (DataError, TypeError, ValueError):
            # Try each distinct value alone: thousands of items often share a few labels.
            codes, kinds = distinct(values)
            wrong: dict[int, str] = {}
            for kind, value in enumerate(kinds):
                try:
                    block.setup([value])
                except (DataError, TypeError, ValueError) as error:
                    wrong[kind] = str(error)
            for row in np.flatnonzero(np.isin(codes, list(wrong))).tolist():
                error = ItemError(item_name(items, row), f"setup of {type(block).__name__}", wrong[int(codes[row])])
                failed.setdefault(row, error)
