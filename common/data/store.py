"""What is kept after the first pass: the encoded fields of every item, so that later epochs touch no decoder."""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from common.data.batch import Batch, Value
from common.data.blocks import Block, Counter
from common.data.items import Items, item_name, subset
from common.data.sample import SampleEncoder
from common.errors import CookbookError, DataError, ItemError


class DenseColumn:
    """Values of one shape, in one tensor (N, …)."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.data: Tensor | None = None
        self._lock = threading.Lock()

    def put(self, row: int, value: Tensor, name: str) -> None:
        """Keeps one value.

        Raises:
            ItemError: if its shape is not that of the values before it.
        """
        data = self.data
        if data is None:
            with self._lock:
                data = self.data
                if data is None:
                    with torch.inference_mode(False):  # kept for training too, whoever asks first
                        data = self.data = torch.zeros(self.count, *value.shape, dtype=value.dtype)
        if data.shape[1:] != value.shape:
            raise ItemError(
                name,
                "collate",
                f"its shape is {tuple(value.shape)}, the others' {tuple(data.shape[1:])}: give item_tfms=Resize(…)",
            )
        data[row] = value

    def gather(self, rows: Tensor) -> Tensor:
        """Returns the values of some rows (B, …), on the device where the data lies."""
        data = cast(Tensor, self.data)
        return data.index_select(0, rows.to(data.device))

    def to(self, device: torch.device) -> None:
        """Moves what is kept to a device."""
        self.data = None if self.data is None else self.data.to(device)

    @property
    def bytes(self) -> int:
        """Bytes kept."""
        return 0 if self.data is None else self.data.numel() * self.data.element_size()


class RaggedColumn:
    """Values of different lengths (T, …): pieces while they come in, then one flat tensor with offsets (N + 1)."""

    def __init__(self, count: int) -> None:
        self.pieces: list[Tensor | None] = [None] * count
        self.flat: Tensor | None = None
        self.offsets: Tensor | None = None

    def put(self, row: int, value: Tensor, name: str) -> None:
        """Keeps one value."""
        self.pieces[row] = value

    def flatten(self) -> None:
        """Joins the pieces to one tensor; rows that never came have length 0."""
        if self.flat is not None:
            return
        lengths = torch.tensor([0 if p is None else len(p) for p in self.pieces], dtype=torch.int64)
        present = [p for p in self.pieces if p is not None]
        self.offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        self.flat = torch.cat(present)
        self.pieces = []

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Returns padded values (B, T, …) with zeros, and valid (B, T) bool; T is the longest of these rows."""
        if self.flat is None:
            return _pad([cast(Tensor, self.pieces[int(row)]) for row in rows])
        flat, offsets = self.flat, cast(Tensor, self.offsets)
        rows = rows.to(flat.device)
        start = offsets[rows]
        lengths = offsets[rows + 1] - start
        longest = max(int(lengths.max()), 1)
        steps = torch.arange(longest, device=flat.device)
        valid = steps[None, :] < lengths[:, None]
        if not len(flat):
            return flat.new_zeros(len(rows), longest, *flat.shape[1:]), valid
        values = flat[(start[:, None] + steps[None, :]).clamp(max=len(flat) - 1)]
        values[~valid] = 0
        return values, valid

    def to(self, device: torch.device) -> None:
        """Moves what is kept to a device."""
        self.flatten()
        self.flat = cast(Tensor, self.flat).to(device)
        self.offsets = cast(Tensor, self.offsets).to(device)

    @property
    def bytes(self) -> int:
        """Bytes kept."""
        pieces = [self.flat] if self.flat is not None else self.pieces
        return sum(p.numel() * p.element_size() for p in pieces if p is not None)


def _pad(pieces: list[Tensor]) -> tuple[Tensor, Tensor]:
    longest = max(1, *(len(p) for p in pieces))
    values = torch.zeros(len(pieces), longest, *pieces[0].shape[1:], dtype=pieces[0].dtype)
    valid = torch.zeros(len(pieces), longest, dtype=torch.bool)
    for i, piece in enumerate(pieces):
        values[i, : len(piece)] = piece
        valid[i, : len(piece)] = True
    return values, valid


class FieldColumns:
    """The columns of one field: one for a tensor, several for a dictionary."""

    def __init__(self, block: Block, count: int) -> None:
        self.block = block
        self.count = count
        self.columns: dict[str, DenseColumn | RaggedColumn] = {}
        self.single = True
        self._lock = threading.Lock()

    def _column(self, key: str) -> DenseColumn | RaggedColumn:
        with self._lock:
            if key not in self.columns:
                self.columns[key] = (RaggedColumn if self.block.ragged else DenseColumn)(self.count)
            return self.columns[key]

    def put(self, row: int, value: Value, name: str) -> None:
        """Keeps the encoded value of one row."""
        if isinstance(value, dict):
            self.single = False
            if self.block.ragged and len({len(tensor) for tensor in value.values()}) > 1:
                lengths = {key: len(tensor) for key, tensor in value.items()}
                raise ItemError(
                    name, "collate", f"the entries of one ragged field must be of one length, got {lengths}"
                )
            for key, tensor in value.items():
                self._column(key).put(row, tensor, name)
        else:
            self._column("values").put(row, value, name)

    def put_many(self, rows: Tensor, value: Value) -> None:
        """Keeps the encoded values (N, …) of many rows at once."""
        if isinstance(value, dict):
            self.single = False
        for key, tensor in value.items() if isinstance(value, dict) else [("values", value)]:
            column = cast(DenseColumn, self._column(key))
            column.data = torch.zeros(self.count, *tensor.shape[1:], dtype=tensor.dtype)
            column.data[rows] = tensor

    def gather(self, rows: Tensor) -> Value:
        """Returns the values of some rows as a batch: a tensor, or a dictionary (with ``valid`` where ragged)."""
        if not self.block.ragged:
            found = {key: cast(DenseColumn, column).gather(rows) for key, column in self.columns.items()}
            return found["values"] if self.single else found
        out: dict[str, Tensor] = {}
        for key, column in self.columns.items():
            out[key], out["valid"] = cast(RaggedColumn, column).gather(rows)
        return out

    def flatten(self) -> None:
        """Joins what is ragged to flat buffers."""
        for column in self.columns.values():
            if isinstance(column, RaggedColumn):
                column.flatten()

    def to(self, device: torch.device) -> None:
        """Moves what is kept to a device."""
        for column in self.columns.values():
            column.to(device)

    @property
    def bytes(self) -> int:
        """Bytes kept."""
        return sum(column.bytes for column in self.columns.values())


def available_bytes() -> int:
    """Returns the memory that is free to use now; 4 GiB where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 4 << 30


class SampleStore:
    """Every item's encoded fields, filled on the first pass by threads and kept while they fit.

    Args:
        encoder: The fitted blocks and item transforms.
        raws: One sequence of raw values a field, one entry an item.
        items: The items, for their names.
        rows: The positions that will be asked for (those of the split).
        workers: Threads that decode (0: the caller decodes).
        cache_bytes: The most memory to keep lazily encoded fields in; above it they are encoded anew each epoch.

    Raises:
        ItemError: if an eagerly encoded field (a label) cannot be encoded, naming the item.
    """

    def __init__(
        self,
        encoder: SampleEncoder,
        raws: Sequence[Sequence[Any]],
        items: Items,
        rows: Sequence[int],
        *,
        workers: int = 2,
        cache_bytes: int | None = None,
    ) -> None:
        self.encoder = encoder
        self.raws = raws
        self.items = items
        self.workers = workers
        self.cache_bytes = available_bytes() // 2 if cache_bytes is None else cache_bytes
        self.count = len(raws[0])
        self.fields = [FieldColumns(block, self.count) for block in encoder.blocks[: len(raws)]]
        self.sizes = torch.zeros(self.count, 2, dtype=torch.int32)
        self.lazy = any(not field.block.eager for field in self.fields)
        self.filled = torch.full((self.count,), not self.lazy)
        self.wanted = torch.as_tensor(list(rows), dtype=torch.int64)
        self.kept: bool | None = None if self.lazy else True
        self._encode_eager()

    def name(self, row: int) -> str:
        """Returns an item as a person knows it: its path, or the row of a table with the file it names."""
        name, raws = item_name(self.items, row), self.raws[0]
        shown = raws[row] if isinstance(raws, list) and not self.encoder.blocks[0].eager else None
        return f"{name}, {shown}" if isinstance(shown, (str, Path)) and str(shown) != name else name

    def _encode_eager(self) -> None:
        if not len(self.wanted):
            return
        for field, raws in zip(self.fields, self.raws, strict=False):
            if not field.block.eager:
                continue
            if field.block.ragged:
                for row in self.wanted.tolist():
                    field.put(row, self._one(field.block, raws[row], row), self.name(row))
                field.flatten()
                continue
            chosen = subset(cast(Items, raws), self.wanted.tolist())
            try:
                encoded = field.block.encode_many(cast("Sequence[Any]", chosen))
            except (CookbookError, ValueError, TypeError, KeyError, RuntimeError):
                for row in self.wanted.tolist():  # find and name the one that fails
                    self._one(field.block, cast(Any, subset(cast(Items, raws), [row]))[0], row)
                raise
            field.put_many(self.wanted, encoded)

    def _one(self, block: Block, raw: Any, row: int) -> Value:
        try:
            return block.encode(raw)
        except (CookbookError, ValueError, TypeError, KeyError) as error:
            raise ItemError(self.name(row), f"encode of {type(block).__name__}", str(error)) from error

    def encode(self, row: int) -> tuple[list[Value | None], tuple[int, int] | None]:
        """Encodes the lazy fields of one item: the real path, without the store.

        Raises:
            ItemError: naming the item, the stage and the reason.
        """
        return self.encoder.encode([raws[row] for raws in self.raws], self.name(row), lazy_only=True)

    def _decide(self, values: list[Value | None]) -> bool:
        """Whether the lazy fields of all wanted items fit into the memory allowed, judged by one of them."""
        total = 0
        for value in values:
            tensors = value.values() if isinstance(value, dict) else [value]
            total += sum(t.numel() * t.element_size() for t in tensors if t is not None)
        return total * self.count <= self.cache_bytes

    def _fill(self, rows: list[int], target: "list[FieldColumns]", sizes: Tensor, offset: int | None) -> None:
        """Encodes rows into columns: at their own positions, or from ``offset`` on in a batch's own."""
        for i, row in enumerate(rows):
            values, size = self.encode(row)
            place = row if offset is None else offset + i
            for field, value in zip(target, values, strict=True):
                if value is not None:
                    field.put(place, value, self.name(row))
            if size is not None:
                sizes[place] = torch.tensor(size, dtype=torch.int32)

    def request(self, rows: Tensor, pool: ThreadPoolExecutor | None) -> "Pending":
        """Starts encoding the rows of a batch that are not kept yet, and returns what to wait for."""
        if self.kept is None:
            values, _ = self.encode(int(rows[0]))
            self.kept = self._decide(values)
        missing = rows[~self.filled[rows]].tolist()
        if self.kept:
            jobs = [(missing[i : i + 8], self.fields, self.sizes, None) for i in range(0, len(missing), 8)]
            pending = Pending(self, rows, None, None, [])
        else:
            fields = [f if f.block.eager else FieldColumns(f.block, len(rows)) for f in self.fields]
            sizes = torch.zeros(len(rows), 2, dtype=torch.int32)
            listed = rows.tolist()
            jobs = [(listed[i : i + 8], fields, sizes, i) for i in range(0, len(listed), 8)]
            pending = Pending(self, rows, fields, sizes, [])
        if pool is None:
            for job in jobs:
                self._fill(*job)
        else:
            pending.futures = [pool.submit(self._fill, *job) for job in jobs]
        return pending

    def complete(self) -> bool:
        """Whether every wanted item is kept: from then on an epoch touches no decoder."""
        return bool(self.kept) and bool(self.filled[self.wanted].all())

    def finish(self) -> None:
        """Joins ragged pieces to flat buffers once all are kept."""
        for field in self.fields:
            field.flatten()

    def to(self, device: torch.device) -> None:
        """Moves everything kept to a device."""
        self.finish()
        for field in self.fields:
            field.to(device)
        self.sizes = self.sizes.to(device)

    @property
    def bytes(self) -> int:
        """Bytes kept."""
        return sum(field.bytes for field in self.fields)


class Pending:
    """A batch under way: the rows, where their values go, and the threads' jobs."""

    def __init__(
        self,
        store: SampleStore,
        rows: Tensor,
        fields: "list[FieldColumns] | None",
        sizes: Tensor | None,
        futures: "list[Future[None]]",
    ) -> None:
        self.store = store
        self.rows = rows
        self.fields = fields
        self.sizes = sizes
        self.futures = futures

    def batch(self, counter: Counter) -> Batch:
        """Waits for the jobs and returns the gathered batch, images uint8 (B, H, W, C).

        Raises:
            ItemError: the first error of a job.
        """
        for future in self.futures:
            future.result()
        store, rows = self.store, self.rows
        if self.fields is None:
            store.filled[rows] = True
        local = torch.arange(len(rows))
        values: list[Value] = []
        for i, field in enumerate(store.fields):
            if self.fields is not None and not field.block.eager:
                value = self.fields[i].gather(local)
            else:
                value = field.gather(rows)
            values.append(field.block.collate(value, rows, counter))
        sizes = None
        if store.encoder.image_block is not None:
            sizes = self.sizes if self.sizes is not None else store.sizes[rows.to(store.sizes.device)]
        inputs = store.encoder.n_inp
        x = values[0] if inputs == 1 else tuple(values[:inputs])
        rest = values[inputs:]
        y = None if not rest else rest[0] if len(rest) == 1 else tuple(rest)
        return Batch(x=x, y=y, ids=rows, sizes=sizes)


def check_rows(rows: Sequence[int], count: int) -> None:
    """Checks positions against the number of items.

    Raises:
        DataError: naming the first one out of range.
    """
    wrong = [row for row in rows if not 0 <= row < count]
    if wrong:
        raise DataError(f"there is no item {wrong[0]}: there are {count}")
