"""Counter-based random numbers: each is a function of (seed, epoch, sample id, stream), not of earlier draws.

So a sample's augmentation is the same for any batch size, worker count or rank, can be replayed from its id, and
resuming needs no state. The mixing function is the finaliser of SplitMix64 (Steele, Lea and Flood 2014, "Fast
splittable pseudorandom number generators"), in wrapping 64-bit integer arithmetic, which is the same on CPU and GPU.

Floor: ground; imports only from the ground. Used by: augment, data, train, applications.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

_Words = np.ndarray[tuple[int], np.dtype[np.uint64]]
_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # SplitMix64's increment and its two multipliers
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
ORDER_STREAM = 0
MODEL_STREAM = 1
AUGMENT_STREAM = 1000
SORTED = 4096  # the largest number of positions that are permuted by sorting random keys


def _signed(value: int) -> int:
    """The same 64 bits as a signed integer, for torch's int64 arithmetic."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _mix(value: int) -> int:
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


def key(*parts: int) -> int:
    """Returns a 64-bit key (0 … 2^64 - 1) that depends on every part and their order.

    Examples:
        >>> key(1, 2) == key(1, 2), key(1, 2) == key(2, 1)
        (True, False)
    """
    state = 0
    for part in parts:
        state = _mix(state ^ _mix(part & _MASK))
    return state


@contextmanager
def seeded_weights(seed: int) -> Generator[None]:
    """Seeds the initial weights of models built within the ``with`` block; torch's generator is restored afterwards.

    Args:
        seed: Seed of the weights.

    Examples:
        >>> with seeded_weights(1): one = torch.nn.Linear(2, 2)
        >>> with seeded_weights(1): same = torch.nn.Linear(2, 2)
        >>> torch.equal(one.weight, same.weight)
        True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, MODEL_STREAM) >> 1)
        yield


def _shift(value: Tensor, bits: int) -> Tensor:
    """Logical right shift (torch's shift of int64 copies the sign)."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix_tensor(value: Tensor) -> Tensor:
    value = value + _signed(_GOLDEN)
    value = (value ^ _shift(value, 30)) * _signed(_FIRST)
    value = (value ^ _shift(value, 27)) * _signed(_SECOND)
    return value ^ _shift(value, 31)


def uniform(seed: int, epoch: int, ids: Tensor, stream: int, count: int) -> Tensor:
    """Returns uniform numbers in [0, 1), one row per sample.

    Args:
        seed: The run's seed.
        epoch: The epoch, from 0.
        ids: int64, shape (B,): the samples' ids.
        stream: The stream of the operation that draws: different streams are independent.
        count: How many numbers each sample needs.

    Returns:
        float64, shape (B, count), multiples of 2^-53, on the device of ``ids``.

    Examples:
        >>> a = uniform(0, 3, torch.arange(8), 1, 2)
        >>> b = uniform(0, 3, torch.tensor([5]), 1, 2)
        >>> bool((a[5] == b[0]).all())
        True
    """
    return uniform_of(stream_keys(seed, epoch, [(stream, count)]).to(ids.device), ids)


def stream_keys(seed: int, epoch: int, streams: Sequence[tuple[int, int]]) -> Tensor:
    """Returns the keys of several streams in an epoch, for `uniform_of`: int64 (2, total), on the CPU.

    Args:
        seed: The run's seed.
        epoch: The epoch, from 0.
        streams: Each stream, and how many of its numbers a sample needs.
    """
    bases = [_signed(key(seed, epoch, stream)) for stream, count in streams for _ in range(count)]
    places = [_signed(place * _GOLDEN) for _, count in streams for place in range(count)]
    return torch.tensor([bases, places], dtype=torch.int64)


def uniform_of(keys: Tensor, ids: Tensor) -> Tensor:
    """Returns the uniform numbers of `stream_keys`, float64 (B, total), for samples int64 (B,), on their device."""
    state = _mix_tensor(ids.to(torch.int64)[:, None] ^ keys[0])
    # The top 53 bits, as many as a float64 holds exactly: a uniform number in [0, 1).
    return _shift(_mix_tensor(state + keys[1]), 11).to(torch.float64) * (1.0 / (1 << 53))


def permuted(places: Tensor, count: int, seed: int, epoch: int) -> Tensor:
    """Returns which of ``count`` positions come at some places of an epoch's random order; each place costs the same.

    A Feistel network of six rounds over the smallest power of two that holds ``count``; results outside are permuted
    again until they lie inside (cycle walking: Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). So the
    permutation of an epoch is never materialised, and any element of it is computed directly. Up to 4,096 positions,
    where so small a network would favour some orders, random keys are sorted instead.

    Args:
        places: int64 (n,), each in [0, count), on the CPU.
        count: The number of positions, at least 1.
        seed: The run's seed.
        epoch: The epoch, from 0.

    Returns:
        int64 (n,), each in [0, count); different places give different positions.

    Examples:
        >>> sorted(permuted(torch.arange(5), 5, 0, 1).tolist())
        [0, 1, 2, 3, 4]
    """
    if count <= SORTED:
        return torch.argsort(uniform(seed, epoch, torch.arange(count), ORDER_STREAM, 1)[:, 0], stable=True)[places]
    bits = (count - 1).bit_length()
    low = bits // 2
    keys = [np.uint64(key(seed, epoch, ORDER_STREAM, turn)) for turn in range(6)]
    out = places.numpy().astype(np.uint64)
    outside = np.arange(len(out))
    while len(outside):
        out[outside] = _feistel(out[outside], bits - low, low, keys)
        outside = outside[out[outside] >= np.uint64(count)]
    return torch.from_numpy(out.astype(np.int64))


def _feistel(value: _Words, high: int, low: int, keys: list[np.uint64]) -> _Words:
    """A permutation of [0, 2^(high + low)): each round XORs one half with a hash of the other, which is invertible."""
    left, right = value >> np.uint64(low), value & np.uint64((1 << low) - 1)
    masks = np.uint64((1 << high) - 1), np.uint64((1 << low) - 1)
    for turn, word in enumerate(keys):
        if turn % 2:
            right = right ^ (_mix_words(left ^ word) & masks[1])
        else:
            left = left ^ (_mix_words(right ^ word) & masks[0])
    return (left << np.uint64(low)) | right


def _mix_words(value: _Words) -> _Words:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(_FIRST)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(_SECOND)
    return value ^ (value >> np.uint64(31))


def words(start: Tensor, count: int) -> Tensor:
    """Returns ``count`` words of 32 random bits for each start, for per-pixel noise, where 64 bits would cost twice.

    The mixing function is Wellons' "lowbias32", applied to the word's index XOR the start.

    Args:
        start: int64 (B,): the low 32 bits of each are used.
        count: The number of words.

    Returns:
        int64 (B, count), each in [0, 2^32).
    """
    value = torch.arange(count, dtype=torch.int64, device=start.device)[None] ^ (start[:, None] & 0xFFFF_FFFF)
    value = ((value ^ (value >> 16)) * 0x7FEB_352D) & 0xFFFF_FFFF
    value = ((value ^ (value >> 15)) * 0x846C_A68B) & 0xFFFF_FFFF
    return value ^ (value >> 16)


def words_alone(start: int, count: int) -> np.ndarray:
    """Returns the words of `words` for one start as numpy uint32 (count,), in a third of the time."""
    value = np.arange(count, dtype=np.uint32) ^ np.uint32(start & 0xFFFF_FFFF)
    value ^= value >> np.uint32(16)
    value *= np.uint32(0x7FEB_352D)
    value ^= value >> np.uint32(15)
    value *= np.uint32(0x846C_A68B)
    value ^= value >> np.uint32(16)
    return value
