"""Storage of encoded values: dense arrays and flat buffers with offsets, in memory or memory-mapped from a file.

Floor: store; may import augment and below. Used by: data.
"""

import fcntl
import math
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from common.blocks.values import looked_up, side_by_side
from common.errors import ItemError
from common.store.buffers import unshared

SLAB_BYTES = 64 << 20
"""The number of bytes by which a flat buffer grows."""
_ALIGN = 64  # bytes: allocations start on a cache line, so views of any dtype are aligned


def numpy_type(dtype: torch.dtype) -> np.dtype[Any]:
    """Returns the numpy dtype of a torch dtype."""
    return torch.empty(0, dtype=dtype).numpy().dtype


def mapped(path: Path, shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Returns a file as a memory-mapped, writable array; a new or shorter file is extended with zeros."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if os.fstat(handle).st_size < size:
            os.ftruncate(handle, size)
    finally:
        os.close(handle)
    return np.memmap(path, dtype=dtype, mode="r+", shape=tuple(shape))


class DenseColumn:
    """Values of one shape, in one tensor (N, …).

    Args:
        count: N.
        path: A file to store them in, or None for memory.
    """

    def __init__(self, count: int, path: Path | None = None) -> None:
        self.count = count
        self.path = path
        self.data: Tensor | None = None
        self._lock = threading.Lock()

    def _make(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        with self._lock:
            if self.data is None:
                wanted = (self.count, *shape)
                kind = numpy_type(dtype)
                array = np.zeros(wanted, kind) if self.path is None else mapped(self.path, wanted, kind)
                with torch.inference_mode(False):  # an inference tensor could not be used in training later
                    self.data = torch.from_numpy(array)
            return self.data

    def expect(self, value: Tensor) -> None:
        """Allocates for values of this shape and dtype, where a file may hold some already."""
        if self.path is not None:
            self._make(tuple(value.shape), value.dtype)

    def put(self, row: int, value: Tensor, name: Callable[[], str]) -> None:
        """Stores one value; ``name`` names its item in an error.

        Raises:
            ItemError: if its shape differs from that of the values before it.
        """
        data = self.data if self.data is not None else self._make(tuple(value.shape), value.dtype)
        if data.shape[1:] != value.shape:
            shapes = f"its shape is {tuple(value.shape)}, the others' {tuple(data.shape[1:])}"
            raise ItemError(name(), "collate", f"{shapes}: give item_tfms=Resize(…)")
        data[row] = value

    def put_many(self, rows: Tensor, values: Tensor) -> None:
        """Stores the values (n, …) of many rows at once."""
        self._make(tuple(values.shape[1:]), values.dtype)[rows] = values

    def piece(self, row: int) -> Tensor:
        """Returns the value of one row, without copying it."""
        return cast(Tensor, self.data)[row]

    def array(self, row: int) -> np.ndarray:
        """Returns the value of one row as an array, without copying it."""
        return self.piece(row).numpy()

    def gather(self, rows: Tensor) -> Tensor:
        """Returns the values of some rows (B, …), on the device of the data."""
        data = cast(Tensor, self.data)
        return data.index_select(0, rows.to(data.device, non_blocking=True))

    def to(self, device: torch.device) -> None:
        """Moves the stored values to a device."""
        self.data = None if self.data is None else self.data.to(device)

    @property
    def bytes(self) -> int:
        """Bytes stored."""
        return 0 if self.data is None else self.data.numel() * self.data.element_size()


class Slabs:
    """Memory slabs of deleted stores, reused by the next one: a page fault costs more than writing the page's pixels.

    Args:
        most: The most free slabs to hold on to.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.free: list[np.ndarray] = []

    def take(self) -> np.ndarray:
        """Returns a slab, its bytes undefined."""
        try:
            return self.free.pop()
        except IndexError:
            return np.empty(SLAB_BYTES, np.uint8)

    def give(self, slabs: list[np.ndarray]) -> None:
        """Takes back those of some slabs that no array or tensor references any more."""
        for place in range(len(slabs)):
            if len(slabs[place]) == SLAB_BYTES and unshared(slabs, place) and len(self.free) < self.most:
                self.free.append(slabs[place])


SPARE = Slabs(most=32)


def _aligned(size: int) -> int:
    return -(-max(size, 1) // _ALIGN) * _ALIGN


class MemoryArena:
    """A bump allocator in memory: bytes are handed out one after another from slabs, and growing copies nothing."""

    def __init__(self) -> None:
        self.slabs: list[np.ndarray] = []
        self.used = 0
        self._room = 0
        self._lock = threading.Lock()

    def __del__(self) -> None:
        SPARE.give(self.slabs)

    def take(self, size: int) -> tuple[int, int]:
        """Returns (slab, start) of ``size`` fresh bytes."""
        with self._lock:
            whole = _aligned(size)
            if whole > self._room:
                self.slabs.append(SPARE.take() if whole <= SLAB_BYTES else np.empty(whole, np.uint8))
                self._room = len(self.slabs[-1])
            start = len(self.slabs[-1]) - self._room
            self._room -= whole
            self.used += whole
            return len(self.slabs) - 1, start

    def view(self, slab: int, start: int, size: int) -> np.ndarray:
        """Returns ``size`` bytes, without copying them."""
        return self.slabs[slab][start : start + size]


class FileArena:
    """A bump allocator in a file; processes that share the file reserve separate slabs, so their writes never overlap.

    A slab is reserved by extending the file under an exclusive `flock`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.used = 0
        self._start = self._end = 0
        self._map = np.empty(0, np.uint8)
        self._lock = threading.Lock()

    def take(self, size: int) -> tuple[int, int]:
        """Returns (0, start) of ``size`` fresh bytes."""
        whole = _aligned(size)
        with self._lock:
            if self._start + whole > self._end:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX)
                    self._start = os.fstat(handle).st_size
                    self._end = self._start + max(SLAB_BYTES, whole)
                    os.ftruncate(handle, self._end)
                finally:
                    os.close(handle)
            start = self._start
            self._start += whole
            self.used += whole
            return 0, start

    def view(self, slab: int, start: int, size: int) -> np.ndarray:
        """Returns ``size`` bytes, without copying them; fewer where the file is shorter."""
        if start + size > len(self._map):
            with self._lock:
                length = os.stat(self.path).st_size if self.path.exists() else 0
                if length > len(self._map):
                    self._map = np.memmap(self.path, np.uint8, "r+", shape=(length,))
        return self._map[start : start + size]


class RaggedColumn:
    """Values whose leading axes differ in length: one flat buffer, and a table of each row's start and shape.

    Args:
        count: N.
        axes: How many leading axes differ: 1 (texts, sounds, boxes) or 2 (images).
        path: Files to store them in (this name with ``.rows`` and ``.bytes``), or None for memory.
    """

    def __init__(self, count: int, axes: int = 1, path: Path | None = None) -> None:
        self.count, self.axes, self.path = count, axes, path
        self.arena = MemoryArena() if path is None else FileArena(path.with_suffix(".bytes"))
        self.table: np.ndarray | None = None  # per row: slab, start in bytes, shape …
        self.dtype: torch.dtype | None = None
        self._kind, self._item = np.dtype(np.uint8), 1
        self.flat: Tensor | None = None  # on an accelerator: all rows one after another
        self.starts: Tensor | None = None
        self._lock = threading.Lock()

    def _prepare(self, value: Tensor) -> np.ndarray:
        with self._lock:
            if self.table is None:
                shape = (self.count, 2 + value.dim())
                if self.path is None:
                    self.table = np.zeros(shape, np.int64)
                else:
                    self.table = mapped(self.path.with_suffix(".rows"), shape, np.int64)
                self.dtype, self._kind, self._item = value.dtype, numpy_type(value.dtype), value.element_size()
            return self.table

    def expect(self, value: Tensor) -> None:
        """Allocates for values of this number of axes and dtype."""
        self._prepare(value)

    def put(self, row: int, value: Tensor, name: Callable[[], str]) -> None:
        """Stores one value; ``name`` names its item in an error."""
        table = self.table if self.table is not None else self._prepare(value)
        array = value.numpy()
        slab, start = self.arena.take(array.nbytes)
        if array.nbytes:
            self.arena.view(slab, start, array.nbytes)[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        table[row] = (slab, start, *array.shape)  # after the bytes: a row in the table is complete

    def put_many(self, rows: Sequence[int], values: Sequence[Tensor]) -> None:
        """Stores the values of many rows in one contiguous piece of the buffer."""
        table = self._prepare(values[0])
        joined = torch.cat([value.reshape(-1) for value in values])
        sizes = np.array([value.numel() * value.element_size() for value in values], np.int64)
        slab, start = self.arena.take(int(sizes.sum()))
        if len(joined):
            torch.from_numpy(self.arena.view(slab, start, int(sizes.sum()))).view(joined.dtype).copy_(joined)
        starts = start + np.concatenate([[0], np.cumsum(sizes)[:-1]])
        shapes = np.array([tuple(value.shape) for value in values], np.int64)
        table[np.asarray(rows)] = np.column_stack([np.full(len(rows), slab), starts, shapes])

    def array(self, row: int) -> np.ndarray:
        """Returns the value of one row as an array, without copying it."""
        slab, start, *shape = cast(np.ndarray, self.table)[row].tolist()
        return self.arena.view(slab, start, math.prod(shape) * self._item).view(self._kind).reshape(shape)

    def piece(self, row: int) -> Tensor:
        """Returns the value of one row, without copying it."""
        return torch.from_numpy(self.array(row))

    def lengths(self, rows: Tensor) -> Tensor:
        """Returns how many entries some rows have, int64 (B,), on the CPU."""
        return torch.from_numpy(cast(np.ndarray, self.table)[rows.numpy(), 2])

    def _shapes(self, rows: Tensor) -> Tensor:
        return torch.from_numpy(cast(np.ndarray, self.table)[rows.numpy(), 2:])

    def joined(self, rows: Tensor) -> Tensor:
        """Returns the values of some rows concatenated (total, …), on the device of the data."""
        if self.flat is None or self.starts is None:
            return torch.cat([self.piece(int(row)) for row in rows])
        shapes = self._shapes(rows)
        tail = [int(n) for n in shapes[0, 1:]]
        entries = self.flat.view(-1, *tail) if tail else self.flat
        starts = self.starts.cpu()[rows] // int(np.prod(tail, dtype=np.int64))
        ends = shapes[:, 0].cumsum(0)
        steps = torch.arange(int(ends[-1])) + torch.repeat_interleave(starts - (ends - shapes[:, 0]), shapes[:, 0])
        return entries[steps.to(entries.device, non_blocking=True)]

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Returns padded values (B, T, …) with zeros, and valid (B, T) bool; T is the longest of these rows."""
        if self.flat is None or self.starts is None:
            return padded([self.piece(int(row)) for row in rows])
        shapes = self._shapes(rows)
        flat, device = self.flat, self.flat.device
        tail = [int(n) for n in shapes[0, 1:]]
        longest = max(int(shapes[:, 0].max()), 1)
        lengths = shapes[:, 0].to(device, non_blocking=True)
        valid = torch.arange(longest, device=device) < lengths[:, None]
        entries = flat.view(-1, *tail) if tail else flat
        step = int(np.prod(tail, dtype=np.int64))
        return looked_up(entries, self.starts[rows.to(device, non_blocking=True)] // step, valid), valid

    def gather_images(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Returns images or masks (B, H, W, …), edge-padded to the largest, and their sizes int32 (B, 2)."""
        shapes = self._shapes(rows)
        extents = shapes[:, :2].to(torch.int32)
        if self.flat is None or self.starts is None:
            return padded_images([self.piece(int(row)) for row in rows]), extents
        flat, device = self.flat, self.flat.device
        high, wide = (int(n) for n in extents.amax(dim=0))
        tail = [int(n) for n in shapes[0, 2:]]
        step = int(np.prod(tail, dtype=np.int64))
        start = (self.starts[rows.to(device, non_blocking=True)] // step)[:, None, None]
        sizes = shapes.to(device, non_blocking=True)
        y = torch.arange(high, device=device)[None, :, None].minimum(sizes[:, 0, None, None] - 1)
        x = torch.arange(wide, device=device)[None, None, :].minimum(sizes[:, 1, None, None] - 1)
        return flat.view(-1, *tail)[start + y * sizes[:, 1, None, None] + x], extents.to(device, non_blocking=True)

    def to(self, device: torch.device) -> None:
        """Copies the stored values to a device, concatenated."""
        if self.table is None or self.dtype is None:
            return
        sizes = np.prod(self.table[:, 2:], axis=1, dtype=np.int64)
        ends = np.cumsum(sizes)
        self.flat = torch.empty(int(ends[-1]), dtype=self.dtype, device=device)
        for row in np.flatnonzero(sizes):
            self.flat[ends[row] - sizes[row] : ends[row]].copy_(self.piece(int(row)).reshape(-1))
        self.starts = torch.from_numpy(ends - sizes).to(device)

    @property
    def bytes(self) -> int:
        """Bytes stored."""
        return self.arena.used


def padded(pieces: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns values (B, T, …) padded with zeros to the longest, and valid (B, T) bool."""
    lengths = torch.tensor([len(piece) for piece in pieces])
    longest = max(1, int(lengths.max()))
    return side_by_side(pieces, longest), torch.arange(longest)[None, :] < lengths[:, None]


def padded_images(pieces: Sequence[Tensor]) -> Tensor:
    """Returns images (B, H, W, …) padded to the largest height and width by repeating their last row and column."""
    high, wide = max(piece.shape[0] for piece in pieces), max(piece.shape[1] for piece in pieces)
    out = pieces[0].new_empty(len(pieces), high, wide, *pieces[0].shape[2:])
    for i, piece in enumerate(pieces):
        height, width = piece.shape[:2]
        out[i, :height, :width] = piece
        out[i, :height, width:] = piece[:, -1:]
        out[i, height:] = out[i, height - 1 : height]
    return out
