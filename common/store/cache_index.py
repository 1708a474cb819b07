"""The index of a cache on disk: which rows are stored, from what content, and whether their bytes are intact.

Floor: store; may import augment and below. Used by: its own room.
"""

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from common.blocks.content import DIGEST_BYTES, content_digest
from common.blocks.sample import SampleEncoder
from common.errors import ConfigError, DataError
from common.files import dump_json, write_text
from common.sources.items import take
from common.store.cache import mapped

if TYPE_CHECKING:
    from common.store.fields import FieldColumns

SCHEMA = 1
LIBRARIES = ("torch", "numpy", "pillow", "simplejpeg", "opencv-python-headless", "soundfile", "applications-cookbook")
_WORD = (1 << 64) - 1


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def content_token(raws: Sequence[Any], from_file: Sequence[bool] = ()) -> int:
    """Returns a 64-bit hash of the content of an item's raw values; for a file, of its bytes.

    Args:
        raws: One raw value per cached field.
        from_file: For each field, whether a string names a file (`Block.from_file`); empty: none does.
    """
    digest = hashlib.blake2b(digest_size=8)
    for raw, named in zip(raws, from_file or (False,) * len(raws), strict=True):
        try:
            digest.update(content_digest(raw, from_file=named))
        except DataError:  # unreadable: encoding the item reports the reason
            digest.update(bytes(DIGEST_BYTES))
    return int.from_bytes(digest.digest(), "little") | 1  # never 0, which marks an empty row of the index


def checksum(tensor: Tensor) -> int:
    """Returns a checksum of a tensor's bytes, as 64-bit words, and of its shape; it detects a page not written."""
    flat = tensor.contiguous().view(-1).view(torch.uint8).numpy() if tensor.numel() else np.empty(0, np.uint8)
    whole = len(flat) // 8 * 8
    total = int(flat[:whole].view(np.uint64).sum(dtype=np.uint64)) + int.from_bytes(flat[whole:].tobytes(), "little")
    for place, length in enumerate(tensor.shape):
        total += (length + 1) * (0x9E3779B97F4A7C15 + 2 * place)
    return total & _WORD


class CacheIndex:
    """A folder of cached values that runs may share: one folder per set of items, transforms and library versions.

    A row's entry is written after its bytes: a hash of its source content and a checksum of the stored bytes. A row of
    other content (the file was changed) or another checksum (an interrupted write) is detected when first asked for.

    Args:
        root: The folder that the user named.
        encoder: The fitted blocks and item transforms.
        raws: One sequence of raw values per field.
        names: The items' names.

    Raises:
        ConfigError: if the folder cannot be made or is of another kind.
    """

    def __init__(self, root: Path, encoder: SampleEncoder, raws: Sequence[Sequence[Any]], names: Sequence[str]) -> None:
        self.raws = [r for r, block in zip(raws, encoder.blocks, strict=False) if not block.eager]
        self.from_file = [block.from_file for _, block in zip(raws, encoder.blocks, strict=False) if not block.eager]
        spec = {
            "schema": SCHEMA,
            "blocks": [block.spec() for block in encoder.blocks if not block.eager],
            "item_tfms": encoder.spec()["item_tfms"],
            "versions": {name: _version(name) for name in LIBRARIES},
            "items": hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest(),
            "count": len(raws[0]),
        }
        text = dump_json(spec)
        self.folder = root / hashlib.sha256(text.encode()).hexdigest()[:16]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "cache.json").exists():
                write_text(self.folder / "cache.json", text)
            elif json.loads((self.folder / "cache.json").read_text("utf-8")) != spec:
                raise ConfigError(f"{self.folder}: cache.json is not that of this data: delete the folder")
            count = len(raws[0])
            self._rows = mapped(self.folder / "index", (count, 2), np.uint64)
            self._sizes = mapped(self.folder / "sizes", (count, 2), np.int32)
        except (OSError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"cache_dir={root}: {error}") from error

    def token(self, row: int) -> int:
        """Returns the hash of the present content of one row's raw values."""
        return content_token([take(raws, row) for raws in self.raws], self.from_file)

    def holds(self, row: int, token: int, fields: "Sequence[FieldColumns]") -> bool:
        """Whether a row is stored, made from this content, and intact."""
        if int(self._rows[row, 0]) != token:
            return False
        try:
            return int(self._rows[row, 1]) == self._sum(row, fields)
        except (RuntimeError, ValueError, IndexError, OverflowError, MemoryError):  # a damaged table entry
            return False

    def record(self, row: int, token: int, fields: "Sequence[FieldColumns]", size: tuple[int, int]) -> None:
        """Marks a row as stored, after its bytes were written."""
        self._sizes[row] = size
        # The token goes last, and 0 first: a reader, or a crash in between, never pairs a token with an old checksum.
        self._rows[row, 0] = 0
        self._rows[row, 1] = self._sum(row, fields)
        self._rows[row, 0] = token

    def size(self, row: int) -> np.ndarray:
        """Returns the source image's (height, width) of a stored row."""
        return self._sizes[row]

    @staticmethod
    def _sum(row: int, fields: "Sequence[FieldColumns]") -> int:
        total = 0
        for field in fields:
            for column in field.columns.values():
                total = (total * 31 + checksum(column.piece(row))) & _WORD
        return total
