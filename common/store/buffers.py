"""Batches written into memory that is used again: fresh pages cost more than the arithmetic on them."""

import sys

import numpy as np
import torch
from torch import Tensor

_ALONE = [object()]
_FREE = sys.getrefcount(_ALONE[0])


def unshared(arrays: list[np.ndarray], place: int) -> bool:
    """Whether nothing but its list holds an array: a view, or a tensor made from it, would count as one more."""
    return sys.getrefcount(arrays[place]) == _FREE


class BufferPool:
    """Float buffers; one is handed out again only when no tensor, view or graph holds its memory any more.

    Args:
        spare: The most free buffers to keep.

    Examples:
        >>> pool = BufferPool()
        >>> first = pool.take((2, 3)); place = first.data_ptr()
        >>> held = first[0]; del first
        >>> pool.take((2, 3)).data_ptr() == place
        False
        >>> del held
        >>> pool.take((2, 3)).data_ptr() == place
        True
    """

    def __init__(self, spare: int = 6) -> None:
        self.spare = spare
        self.arrays: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """Returns a float32 tensor of a shape, its values undefined."""
        size = int(np.prod(shape, dtype=np.int64))
        free = [place for place in range(len(self.arrays)) if unshared(self.arrays, place)]
        fitting = [place for place in free if self.arrays[place].size >= size]
        array = self.arrays[fitting[0]] if fitting else np.empty(size, np.float32)
        for place in reversed(free if not fitting else free[self.spare :]):
            if self.arrays[place] is not array:
                del self.arrays[place]
        if not fitting:
            self.arrays.append(array)
        return torch.from_numpy(array)[:size].view(shape)

    @property
    def bytes(self) -> int:
        """Bytes held."""
        return sum(array.nbytes for array in self.arrays)
