"""The batch that a loader hands to a model, in every domain.

Floor: blocks; may import text and below. Used by: augment, store, data, task, train, applications.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from common.blocks.values import Padded, Ragged, count_of, map_tensors
from common.errors import DataError

Value = Tensor | dict[str, Tensor] | Padded | Ragged
"""One encoded field: a tensor, named tensors (columns), or variable-length entries (texts, sounds, boxes)."""

Field = Value | tuple[Value, ...]
"""The inputs or targets of a batch: one value, or a tuple where the DataBlock has several blocks on that side."""


@dataclass(frozen=True)
class Batch:
    """Inputs, targets and the identity of each sample.

    Attributes:
        x: Inputs. Images are uint8 (B, H, W, C) before the batch transforms, float (B, C, H, W) after them.
        y: Targets, or None for prediction. Variable-length ones are `Padded`; in `Loader.arrays` they are `Ragged`.
        ids: int64 (B,): the position of each sample among all items; augmentation is a function of it.
        sizes: int32 (B, 2): height and width of the source image in pixels, or None where nothing is spatial.
        extents: int32 (B, rank): each sample's own extents (height and width in pixels; bands and frames), where they
            differ and x is padded; or None.
        mates: int64 (M, k): for each of the first M samples, the indices of its mixing partners (mixup, CutMix), or
            None; samples from M on are only there as partners.
        number: The batch's number in its epoch, from 0: what a saved cursor counts.
        source: float64 (B, 3, 3): maps (x, y, 1) in pixels of the images in x to pixels of their source images, in
            evaluation; or None. With it predictions are reported in pixels of the source file.
    """

    x: Any
    y: Any = None
    ids: Tensor | None = None
    sizes: Tensor | None = None
    extents: Tensor | None = None
    mates: Tensor | None = None
    number: int = 0
    source: Tensor | None = None

    def __len__(self) -> int:
        return count_of(self.x)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """Returns the batch with ``function`` applied to every tensor."""
        fields = (self.x, self.y, self.ids, self.sizes, self.extents, self.mates, self.source)
        x, y, ids, sizes, extents, mates, source = (map_tensors(value, function) for value in fields)
        return replace(self, x=x, y=y, ids=ids, sizes=sizes, extents=extents, mates=mates, source=source)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Batch":
        """Returns the batch with every tensor on ``device``."""
        return self.map(lambda t: t if t.device == device else t.to(device, non_blocking=non_blocking))

    def pinned(self) -> "Batch":
        """Returns the batch in page-locked memory, from which an accelerator copies without the host waiting."""
        return self.map(lambda t: t.pin_memory() if t.device.type == "cpu" else t)

    def tensors(self) -> list[Tensor]:
        """Returns every tensor of the batch, always in the same order."""
        tensors: list[Tensor] = []
        self.map(lambda tensor: (tensors.append(tensor), tensor)[1])
        return tensors

    def record(self, stream: Any) -> None:
        """Marks the tensors as used by a stream, so that the caching allocator does not reuse their memory early."""
        for tensor in self.tensors():
            if tensor.is_cuda:
                tensor.record_stream(stream)

    @classmethod
    def of(cls, raw: Any) -> "Batch":
        """Returns whatever a DataLoader yields as a Batch: a Batch as it is, a pair (x, y), or inputs alone.

        Raises:
            DataError: for a tuple of another length.
        """
        if isinstance(raw, Batch):
            return raw
        if isinstance(raw, (tuple, list)):
            if len(raw) == 2:
                return cls(x=raw[0], y=raw[1])
            raise DataError(f"a DataLoader must yield (x, y) or a Batch, got a {type(raw).__name__} of {len(raw)}")
        return cls(x=raw)
