"""The cache of encoded items, filled on the first pass, so that later epochs decode nothing.

Floor: store; may import augment and below. Used by: data, deploy.
"""

import copy
import shutil
import tempfile
import threading
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from common.blocks.batch import Batch, Value
from common.blocks.block import Block, EpochSeed
from common.blocks.content import is_file
from common.blocks.sample import SampleEncoder
from common.blocks.spatial import ImageBlock
from common.blocks.values import Ragged, count_of
from common.errors import ConfigError, CookbookError, ItemError
from common.sources.items import Items, item_name, subset, take
from common.store.cache_index import CacheIndex
from common.store.dirty import DirtyLog, DirtyPolicy, Failure, state
from common.store.fields import Encoded, FieldColumns, available_bytes, value_bytes

CHUNK = 4096
"""The number of texts that are encoded at a time when the loaders are built."""


class SampleStore:
    """Every item's encoded fields, encoded by threads on the first pass and cached as far as the memory allows.

    Args:
        encoder: The fitted blocks and item transforms.
        raws: One sequence of raw values per field, one entry per item.
        items: The items, for their names.
        rows: The positions that are used (those of the split).
        workers: Threads that decode (0: the caller decodes).
        cache_bytes: The most memory for lazily encoded fields; items beyond it are encoded again in each epoch.
        cache_dir: A folder to cache them in instead, shared with later runs and other processes.
        policy: What happens to an item that cannot be used.
        failures: Items that were already left out, for the log.

    Raises:
        ItemError: if an eagerly encoded field (a label) cannot be encoded, naming the item.
    """

    def __init__(
        self,
        encoder: SampleEncoder,
        raws: Sequence[Sequence[Any]],
        items: Items,
        rows: Sequence[int] | np.ndarray,
        *,
        workers: int = 2,
        cache_bytes: int | None = None,
        cache_dir: str | Path | None = None,
        policy: DirtyPolicy | None = None,
        failures: Sequence[Failure] = (),
    ) -> None:
        self.encoder, self.raws, self.items, self.workers = encoder, raws, items, workers
        self.count, self.cache_dir = len(raws[0]), None if cache_dir is None else Path(cache_dir)
        self.wanted = torch.from_numpy(np.array(rows, dtype=np.int64))
        self.dirty = DirtyLog(policy or DirtyPolicy(), failures)
        self._bad = np.zeros(self.count, bool)
        self.bad = torch.from_numpy(self._bad)  # shares memory with the array: numpy is faster for single rows
        self.lazy = any(not block.eager for block in encoder.blocks[: len(raws)])
        self._filled = np.full(self.count, not self.lazy)
        self.filled = torch.from_numpy(self._filled)
        self.cache_bytes = available_bytes() // 2 if cache_bytes is None else cache_bytes
        self.index: CacheIndex | None = None
        if self.lazy and cache_dir is not None:
            self.index = CacheIndex(Path(cache_dir), encoder, raws, [self.name(int(r)) for r in self.wanted])
        self._sizes = np.zeros((self.count, 2), np.int32)
        self.sizes = torch.from_numpy(self._sizes)
        self._folder: Path | None = None
        self.fields = [self._columns(i, block) for i, block in enumerate(encoder.blocks[: len(raws)])]
        self._room = self.cache_bytes
        self._partial: dict[int, np.ndarray] = {}  # eager fields that did not fit into memory: which rows are stored
        self._lock = threading.Lock()
        self._probe: tuple[int, Encoded, tuple[int, int] | None] | None = None
        self._probed = False
        self.image_size: tuple[int, int] | None = None  # (height, width) of the first stored image, set by `probe`
        self._device = torch.device("cpu")
        self._recall()
        self._encode_eager()

    def _temporary(self, cache_dir: Path) -> Path:
        """Makes a folder for fields that are not reused by later runs; it is deleted with the store."""
        cache_dir.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".texts-", dir=cache_dir))
        weakref.finalize(self, shutil.rmtree, folder, True)
        return folder

    def _columns(self, i: int, block: Block) -> FieldColumns:
        axes, path = self.encoder.axes(block), None
        if not block.eager and self.index is not None:
            path = self.index.folder / f"field{i}"
        elif block.eager and axes and self.cache_dir is not None:
            self._folder = self._folder or self._temporary(self.cache_dir)
            path = self._folder / f"field{i}"
        return FieldColumns(block, self.count, axes, path)

    def name(self, row: int) -> str:
        """Returns an item's name for people: its path, or the row of a table with the file it names."""
        name, raws = item_name(self.items, row), self.raws[0]
        known = isinstance(raws, (list, pd.Series)) and not self.encoder.blocks[0].eager
        shown = take(raws, row) if known else None
        named = is_file(shown, self.encoder.blocks[0].from_file)
        return f"{name}, {shown}" if named and str(shown) != name else name

    def _recall(self) -> None:
        """Leaves out the items in quarantine that have not changed since."""
        known = self.dirty.known
        for row in self.wanted.tolist() if known else ():
            failure, then = known.get(self.name(row), (None, ""))
            if failure is not None and self._state(row) == then:
                self.dirty.recall(row, failure)
                self._bad[row] = True

    def _state(self, row: int) -> str:
        from_file = [block.from_file for block in self.encoder.blocks[: len(self.raws)]]
        return state([take(raws, row) for raws in self.raws], from_file)

    def _leave_out(self, row: int, error: ItemError) -> None:
        self.dirty.add(row, error, partial(self._state, row))
        self._bad[row] = True

    # ------------------------------------------------------------ fields encoded at once

    def _encode_eager(self) -> None:
        for i, (field, raws) in enumerate(zip(self.fields, self.raws, strict=False)):
            rows = self.wanted[~self.bad[self.wanted]]
            if not field.block.eager or not len(rows):
                continue
            if field.axes:
                self._encode_in_chunks(i, field, raws, rows)
                continue
            while len(rows):
                everything = bool(torch.zeros(self.count, dtype=torch.bool).index_fill_(0, rows, True).all())
                rows = torch.arange(self.count) if everything else rows
                chosen = raws if everything else subset(raws, rows.numpy())
                try:
                    field.put_many(rows, field.block.encode_many(chosen))
                    break
                except (CookbookError, ValueError, TypeError, KeyError, RuntimeError):
                    # Find the bad rows, leave them out, and try again; an error without a bad row is not the data's.
                    for part in rows.split(CHUNK):
                        self._find(field.block, raws, part)
                    good = rows[~self.bad[rows]]
                    if len(good) == len(rows):
                        raise
                    rows = good

    def _find(self, block: Block, raws: Sequence[Any], rows: Tensor) -> None:
        """Finds and names each of some rows that cannot be encoded."""
        try:
            block.encode_many(subset(raws, rows.numpy()))
        except (CookbookError, ValueError, TypeError, KeyError, RuntimeError):
            for row in rows.tolist():
                self._one(block, raws, row)

    def _encode_in_chunks(self, i: int, field: FieldColumns, raws: Sequence[Any], rows: Tensor) -> None:
        """Encodes ragged fields in chunks; rows that do not fit into memory are encoded again in each epoch."""
        for part in rows.split(CHUNK):
            values = self._each(field.block, raws, part.tolist())
            if not values:
                continue
            if field.path is None and not self._reserve(value_bytes(list(values.values()))):
                stored = np.zeros(self.count, bool)
                stored[rows.numpy()[: int(torch.nonzero(rows == part[0])[0, 0])]] = True
                self._partial[i], self.lazy = stored, True
                self._filled[:] = False
                field.expect(next(iter(values.values())))
                return
            field.put_many(torch.tensor(list(values)), list(values.values()))

    def _each(self, block: Block, raws: Sequence[Any], rows: list[int]) -> dict[int, Value]:
        """The encoded values of some rows, by row; rows that cannot be encoded are left out, or raise."""
        chosen = subset(raws, rows)
        try:
            each = chosen.tolist() if isinstance(chosen, pd.Series) else chosen
            return dict(zip(rows, block.encode_each(each), strict=True))
        except (CookbookError, ValueError, TypeError, KeyError):  # one by one, to name the row that fails
            values = {row: self._one(block, raws, row) for row in rows}
            return {row: value for row, value in values.items() if value is not None}

    def _late(self) -> list[bool]:
        """Which fields are encoded while batches are made: lazy ones, and eager ones that do not fit into memory."""
        return [not field.block.eager or i in self._partial for i, field in enumerate(self.fields)]

    def _one(self, block: Block, raws: Sequence[Any], row: int) -> Value | None:
        try:
            return block.encode(take(raws, row))
        except (CookbookError, ValueError, TypeError, KeyError) as error:
            failure = ItemError(self.name(row), f"encode of {type(block).__name__}", str(error))
            failure.__cause__ = error
            self._leave_out(row, failure)
            return None

    # ------------------------------------------------------------ fields encoded on the first pass

    def encode(self, row: int) -> tuple[Encoded, tuple[int, int] | None]:
        """Encodes the lazy fields of one item, without storing them; every item takes this path.

        Raises:
            ItemError: naming the item, the stage and the reason.
        """
        values = [take(raws, row) for raws in self.raws]
        return self.encoder.encode(values, partial(self.name, row), skip=[not late for late in self._late()])

    def probe(self) -> None:
        """Encodes the first usable item, to infer the shapes; `load` does not encode it again."""
        with self._lock:
            if self._probed or not self.lazy:
                return
            for row in self.wanted.tolist():
                if self.bad[row]:
                    continue
                try:
                    self._probe = row, *self.encode(row)
                    break
                except ItemError as error:
                    self._leave_out(row, error)
            for field, value in zip(self.fields, self._probe[1] if self._probe else [], strict=False):
                if value is not None:
                    field.expect(value)
                if isinstance(value, Tensor) and field.block is self.encoder.image_block:
                    height, width = value.shape[:2]
                    self.image_size = height, width
            self._probed = True

    def _encoded(self, row: int) -> tuple[Encoded, tuple[int, int] | None]:
        probe = self._probe
        if probe is None or probe[0] != row:
            return self.encode(row)
        self._probe = None
        return probe[1], probe[2]

    def load(self, rows: Sequence[int]) -> dict[int, Encoded]:
        """Encodes and stores those of some rows that are not stored yet; several threads may call this.

        Returns:
            The values for which there is no room, by row.

        Raises:
            ItemError: for an item that cannot be used, where the policy is ``raise``.
        """
        spare: dict[int, Encoded] = {}
        for row in rows:
            if self._filled[row] or self._bad[row]:
                continue
            try:
                if self.index is not None:
                    self._load_shared(row, self.index)
                    continue
                values, size = self._encoded(row)
                if size is not None:
                    self._sizes[row] = size
                whole = all(stored[row] for stored in self._partial.values())
                if whole and self._reserve(value_bytes(values)):
                    self._put(row, values)
                    self._filled[row] = True
                else:
                    for field, value in zip(self.fields, values, strict=True):
                        if value is not None:
                            field.check(value, partial(self.name, row))
                    spare[row] = values
            except ItemError as error:
                self._leave_out(row, error)
        return spare

    def _put(self, row: int, values: Encoded) -> None:
        for i, (field, value) in enumerate(zip(self.fields, values, strict=True)):
            if value is not None and i not in self._partial:
                field.put(row, value, partial(self.name, row))

    def _reserve(self, size: int) -> bool:
        with self._lock:
            if size > self._room:
                return False
            self._room -= size
            return True

    def _load_shared(self, row: int, index: CacheIndex) -> None:
        """Uses a row of the cache on disk if it is intact and of the same content, else encodes and stores it."""
        self.probe()
        lazy = [field for field in self.fields if not field.block.eager]
        token = index.token(row)
        if not index.holds(row, token, lazy):
            values, size = self._encoded(row)
            self._put(row, values)
            index.record(row, token, lazy, size or (0, 0))
        self._sizes[row] = index.size(row)
        self._filled[row] = True

    def usable(self, rows: np.ndarray) -> np.ndarray:
        """Returns those of some positions that can be used; rows that are not encoded yet are encoded now."""
        for part in torch.from_numpy(rows).split(64):
            if not self.ready(part):
                self.load(part.tolist())
        return rows[~self._bad[rows]]

    def lengths(self, field: int, rows: Tensor) -> Tensor:
        """Returns how many entries (tokens, frames) some rows have in a ragged field, int64 (B,); 0 for bad ones.

        Rows that are not encoded yet are encoded now.

        Raises:
            ConfigError: if the field has no lengths.
        """
        if not 0 <= field < len(self.fields) or self.fields[field].axes != 1:
            raise ConfigError(f"field {field} has no entries of lengths of their own to order batches by")
        lengths = torch.zeros(len(rows), dtype=torch.int64)
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            spare = {} if self.ready(part) else self.load(part.tolist())
            for i, row in enumerate(part.tolist()) if spare else ():
                value = spare[row][field] if row in spare else None
                if value is not None:
                    lengths[start + i] = count_of(value)
            there = [row not in spare or spare[row][field] is None for row in part.tolist()]
            stored = torch.tensor(there) & ~self.bad[part]
            if stored.any():
                lengths[start : start + len(part)][stored] = self.fields[field].lengths(part[stored])
        return lengths

    # ------------------------------------------------------------ batches

    def ready(self, rows: Tensor) -> bool:
        """Whether none of these rows is left to encode."""
        return bool((self.filled[rows] | self.bad[rows]).all())

    def complete(self) -> bool:
        """Whether every item of the split is stored: from then on an epoch decodes nothing."""
        return self.ready(self.wanted)

    @property
    def ragged_image(self) -> bool:
        """Whether the stored images differ in height and width."""
        block = self.encoder.image_block
        return block is not None and self.encoder.axes(block) == 2

    @property
    def device(self) -> torch.device:
        """The device of the stored values."""
        return self._device

    def images(self, rows: Sequence[int], spare: dict[int, Encoded], blank: tuple[int, int]) -> list[np.ndarray]:
        """Returns the pixels of loaded rows, uint8 (H, W, C) each, without copying them.

        Args:
            rows: The positions.
            spare: The return value of `load`.
            blank: (height, width) of the black placeholder for an item that is left out.
        """
        place = self.encoder.blocks.index(self.encoder.image_block)
        columns, channels = self.fields[place].columns, cast(ImageBlock, self.encoder.image_block).channels
        images: list[np.ndarray] = []
        for row in rows:
            if self._bad[row]:
                images.append(np.zeros((*blank, channels), np.uint8))
            elif row in spare:
                images.append(cast(Tensor, spare[row][place]).numpy())
            else:
                images.append(columns["values"].array(row))
        return images

    def batch(
        self,
        rows: Tensor,
        spare: dict[int, Encoded],
        epoch_seed: EpochSeed,
        image: Tensor | None = None,
        *,
        flat: bool = False,
    ) -> Batch:
        """Returns loaded rows as a batch, without those that cannot be used.

        Args:
            rows: Positions (B,).
            spare: The return value of `load`.
            epoch_seed: The seed and the epoch, for blocks that offer several versions of a field.
            image: Replaces the image field, for the rows that are not bad; None: the stored pixels.
            flat: Whether ragged fields stay ragged, with all their versions, instead of being padded.
        """
        rows = rows[~self.bad[rows]]
        listed, late = (rows.tolist(), self._late()) if spare else ([], [])
        values: list[Value] = []
        extents: Tensor | None = None
        for i, field in enumerate(self.fields):
            if image is not None and field.block is self.encoder.image_block:
                values.append(image)
                continue
            plain = type(field.block).collate is Block.collate
            if spare and late[i]:
                pieces = [spare[row][i] if row in spare else field.piece(row) for row in listed]
                value, sizes = field.join(cast("list[Value]", pieces))
            elif field.axes == 1 and (flat or not plain):
                value, sizes = field.flat(rows), None
            else:
                value, sizes = field.gather(rows)
            extents = sizes if extents is None else extents
            if not (flat and isinstance(value, Ragged)):
                value = value if plain else field.block.collate(value, rows, epoch_seed)
                value = value.padded() if isinstance(value, Ragged) else value
            values.append(value)
        sizes = self.sizes[rows] if self.encoder.image_block is not None else None
        inputs = self.encoder.n_inp
        x = values[0] if inputs == 1 else tuple(values[:inputs])
        rest = values[inputs:]
        y = None if not rest else rest[0] if len(rest) == 1 else tuple(rest)
        return Batch(x=x, y=y, ids=rows, sizes=sizes, extents=extents)

    def with_entries(self, field: int, rows: Tensor, entries: dict[str, Tensor]) -> "SampleStore":
        """Returns a store of the same items in which some tensors of a field are replaced.

        It serves features that differ from fold to fold (target encodings), without encoding anything again; everything
        else is shared, until one of the stores is moved to a device.

        Args:
            field: The position of a field that is encoded for all items at once, as a dictionary.
            rows: Positions (n,); others have zeros.
            entries: The new tensors (n, …), by name.
        """
        made = copy.copy(self)
        made.fields = [f.with_entries(rows, entries if i == field else {}) for i, f in enumerate(self.fields)]
        return made

    def of_dense(self, items: Sequence[str], value: dict[str, Tensor]) -> "SampleStore":
        """Returns a store of new samples that are made from these (packs), replacing its only field.

        Args:
            items: The names of the new samples (N).
            value: Their tensors (N, …), by name.
        """
        made, count = copy.copy(self), len(items)
        made.items, made.raws, made.count = list(items), [list(items)], count
        made.wanted, made.lazy, made._partial, made._probe = torch.arange(count), False, {}, None
        made._bad, made._filled, made._sizes = (
            np.zeros(count, bool),
            np.ones(count, bool),
            np.zeros((count, 2), np.int32),
        )
        made.bad, made.filled = torch.from_numpy(made._bad), torch.from_numpy(made._filled)
        made.sizes, made.index = torch.from_numpy(made._sizes), None
        made.fields = [FieldColumns(self.fields[0].block, count, 0)]
        made.fields[0].put_many(made.wanted, value)
        return made

    def to(self, device: torch.device) -> None:
        """Moves everything stored to a device."""
        for field in self.fields:
            field.to(device)
        self._device = device

    @property
    def bytes(self) -> int:
        """Bytes stored."""
        return sum(field.bytes for field in self.fields)
