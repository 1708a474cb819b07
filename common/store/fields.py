"""The encoded values of one field over all items: dense or ragged columns, one for each of its tensors.

Floor: store; may import augment and below. Used by: data.
"""

import copy
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from common.blocks.batch import Value
from common.blocks.block import Block
from common.blocks.values import Padded, Ragged, offsets_of
from common.errors import ItemError
from common.store.cache import DenseColumn, RaggedColumn, padded_images

Encoded = list[Value | None]
"""One encoded value per field; None where the field was encoded for all items at once."""


LENGTHS = ".lengths"
"""The suffix of the column that holds the lengths of nested ragged entries."""


def entries(value: Any) -> dict[str, Tensor]:
    """Returns a value's tensors by name; a plain tensor is called ``values``.

    A nested ragged entry (the captions of an image) becomes two tensors: its flat values and its lengths.
    """
    named: dict[str, Any] = value if isinstance(value, dict) else {"values": value}
    tensors: dict[str, Tensor] = {}
    for name, part in named.items():
        if isinstance(part, Ragged):
            tensors[name], tensors[name + LENGTHS] = part.values, part.lengths
        else:
            tensors[name] = part
    return tensors


class FieldColumns:
    """The columns of one field: one for a tensor, several for a dictionary.

    Args:
        block: The field's block.
        count: The number of items.
        axes: How many leading axes of its values differ from item to item.
        path: A folder and a file name prefix, to store them in files; None for memory.
    """

    def __init__(self, block: Block, count: int, axes: int, path: Path | None = None) -> None:
        self.block, self.count, self.axes, self.path = block, count, axes, path
        self.dense: dict[str, DenseColumn] = {}
        self.ragged: dict[str, RaggedColumn] = {}
        self.single = True
        self._lock = threading.Lock()

    @property
    def columns(self) -> Mapping[str, DenseColumn | RaggedColumn]:
        """The columns by the names of their tensors, all dense or all ragged."""
        return self.ragged if self.axes else self.dense

    def _path(self, key: str) -> Path | None:
        return None if self.path is None else self.path.with_name(f"{self.path.name}-{key}.dense")

    def _dense(self, key: str) -> DenseColumn:
        with self._lock:
            if key not in self.dense:
                self.dense[key] = DenseColumn(self.count, self._path(key))
            return self.dense[key]

    def _ragged(self, key: str) -> RaggedColumn:
        with self._lock:
            if key not in self.ragged:
                self.ragged[key] = RaggedColumn(self.count, self.axes, self._path(key))
            return self.ragged[key]

    def _column(self, key: str) -> DenseColumn | RaggedColumn:
        return self._ragged(key) if self.axes else self._dense(key)

    def put(self, row: int, value: Value, name: Callable[[], str]) -> None:
        """Stores the encoded value of one row; ``name`` names the item in an error.

        Raises:
            ItemError: if its shape does not fit the values stored before.
        """
        if isinstance(value, Tensor):
            (self.columns.get("values") or self._column("values")).put(row, value, name)
            return
        self.check(value, name)
        self.single = not isinstance(value, dict)
        for key, tensor in entries(value).items():
            self._column(key).put(row, tensor, name)

    def check(self, value: Value, name: Callable[[], str]) -> None:
        """Checks that the entries of one ragged value have the same length.

        Raises:
            ItemError: naming the lengths.
        """
        named: dict[str, Any] = value if isinstance(value, dict) else {"values": value}
        lengths = {key: len(part) for key, part in named.items()}
        if self.axes and len(set(lengths.values())) > 1:
            raise ItemError(name(), "collate", f"the entries of one ragged field must be of one length, got {lengths}")

    def expect(self, value: Value) -> None:
        """Allocates for values like this one, without storing it."""
        self.single = not isinstance(value, dict)
        for key, tensor in entries(value).items():
            self._column(key).expect(tensor)

    def put_many(self, rows: Tensor, values: Any) -> None:
        """Stores the values of many rows: stacked (n, …) where dense, a list of them where ragged."""
        if self.axes:
            self.single = not isinstance(values[0], dict)
            for key in entries(values[0]):
                self._ragged(key).put_many(rows.tolist(), [entries(value)[key] for value in values])
            return
        self.single = not isinstance(values, dict)
        for key, tensor in entries(values).items():
            self._dense(key).put_many(rows, tensor)

    def with_entries(self, rows: Tensor, entries: dict[str, Tensor]) -> "FieldColumns":
        """Returns columns that share memory with these except for some names; moving them to a device leaves these."""
        changed = FieldColumns(self.block, self.count, self.axes)
        changed.single = self.single
        changed.dense = {name: copy.copy(column) for name, column in self.dense.items() if name not in entries}
        changed.ragged = {name: copy.copy(column) for name, column in self.ragged.items() if name not in entries}
        if entries:
            changed.put_many(rows, entries)
        return changed

    @property
    def nested(self) -> bool:
        """Whether entries are ragged themselves (several texts per item)."""
        return any(key.endswith(LENGTHS) for key in self.columns)

    def _value(self, tensors: dict[str, Tensor]) -> Any:
        """Builds a value from its tensors by name, the inverse of `entries`."""
        named: dict[str, Any] = {}
        for key, tensor in tensors.items():
            if not key.endswith(LENGTHS):
                lengths = tensors.get(key + LENGTHS)
                named[key] = tensor if lengths is None else Ragged(tensor, offsets_of(lengths))
        return named["values"] if self.single else named

    def piece(self, row: int) -> Value:
        """Returns the value of one row, without copying it."""
        return self._value({key: column.piece(row) for key, column in self.columns.items()})

    def lengths(self, rows: Tensor) -> Tensor:
        """Returns how many entries some rows of a ragged field have, int64 (B,), on the CPU."""
        key = next(key for key in self.ragged if key + LENGTHS not in self.ragged)
        return self.ragged[key].lengths(rows)

    def gather(self, rows: Tensor) -> tuple[Value, Tensor | None]:
        """Returns the values of some rows as a batch, ragged ones padded, and the sizes of padded images."""
        if not self.axes:
            return self._value({k: column.gather(rows) for k, column in self.dense.items()}), None
        if self.axes == 2:
            return self.ragged["values"].gather_images(rows)
        if self.nested:
            return self.flat(rows).padded(), None
        padded: dict[str, Tensor] = {}
        valid = torch.empty(0)
        for key, column in self.ragged.items():
            padded[key], valid = column.gather(rows)
        return Padded(self._value(padded), valid), None

    def flat(self, rows: Tensor) -> Ragged:
        """Returns the values of some rows of a ragged field, concatenated."""
        joined = {key: column.joined(rows) for key, column in self.ragged.items()}
        value = self._value(joined)
        return Ragged(value, offsets_of(self.lengths(rows)).to(next(iter(joined.values())).device))

    def join(self, values: Sequence[Value]) -> tuple[Value, Tensor | None]:
        """Collates values that are not stored: dense ones and images as `gather` does, ragged ones concatenated."""
        if self.axes == 2:
            images = cast("Sequence[Tensor]", values)
            sizes = torch.tensor([image.shape[:2] for image in images], dtype=torch.int32)
            return padded_images(images), sizes
        if self.axes:
            return Ragged.of(values), None
        stacked = {key: torch.stack([entries(value)[key] for value in values]) for key in entries(values[0])}
        return (stacked if isinstance(values[0], dict) else stacked["values"]), None

    def to(self, device: torch.device) -> None:
        """Moves the stored values to a device."""
        for column in self.columns.values():
            column.to(device)

    @property
    def bytes(self) -> int:
        """Bytes stored."""
        return sum(column.bytes for column in self.columns.values())


def available_bytes() -> int:
    """Returns the available memory in bytes; 4 GiB where the system does not report it."""
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 4 << 30


def value_bytes(values: Encoded) -> int:
    """Returns the bytes of an item's lazily encoded values."""
    return sum(tensor.nbytes for value in values if value is not None for tensor in entries(value).values())
