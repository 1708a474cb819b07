"""Reused batch buffers: page faults of fresh memory cost more than the arithmetic on it.

Floor: store; may import augment and below. Used by: data.
"""

import sys

import numpy as np
import torch
from torch import Tensor

# The reference count of an object that only a list holds, measured rather than assumed: it depends on the interpreter.
_ALONE = [object()]
_FREE = sys.getrefcount(_ALONE[0])


def unshared(arrays: list[np.ndarray], place: int) -> bool:
    """Whether only its list references an array: a view, or a tensor made from it, would hold another reference."""
    return sys.getrefcount(arrays[place]) == _FREE


class BufferPool:
    """Float buffers; one is reused only when no tensor, view or autograd graph references its memory any more.

    Args:
        spare: The most free buffers to hold on to.

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
