"""The forms of an encoded field: a tensor, named tensors, or variable-length entries (padded or ragged).

Floor: blocks; may import text and below. Used by: augment, store, data, task, train.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from common.errors import DataError


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Applies ``function`` to every tensor in a field, keeping its structure (a list holds one entry per sample)."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {k: map_tensors(v, function) for k, v in value.items()}
    if isinstance(value, Padded):
        return Padded(map_tensors(value.values, function), function(value.valid))
    if isinstance(value, Ragged):
        return Ragged(map_tensors(value.values, function), function(value.offsets))
    if isinstance(value, list):
        return [map_tensors(v, function) for v in value]
    if isinstance(value, tuple):
        return tuple(map_tensors(v, function) for v in value)
    return value


@dataclass(frozen=True)
class Padded:
    """Entries of B samples padded to one length, as models take texts, sounds and boxes.

    For a single sample (`map_tensors` with an index) the first axis is missing everywhere.

    Attributes:
        values: (B, T, …), or several such tensors by name (boxes and labels), or again `Padded` where the entries vary
            in length too (the corners of polygons: (B, T, P, …)).
        valid: bool (B, T): False where padded.
    """

    values: Any
    valid: Tensor

    def __len__(self) -> int:
        return len(self.valid)

    @property
    def lengths(self) -> Tensor:
        """How many entries each sample has, int64 (B,)."""
        return self.valid.sum(dim=-1)

    def own(self) -> Any:
        """Returns the entries without padding: those of a single sample (T, …), or of all samples concatenated."""
        return map_tensors(self.values, lambda tensor: tensor[self.valid])

    def ragged(self) -> "Ragged":
        """Returns the same entries as `Ragged`; padding must come last in each row."""
        return Ragged(self.own(), offsets_of(self.lengths))


@dataclass(frozen=True)
class Ragged:
    """Concatenated entries of B samples: those of sample i are ``values[offsets[i]:offsets[i + 1]]``.

    Attributes:
        values: (total, …), or several such tensors by name, or again `Ragged` where the entries vary in length too (an
            image's captions, each of several tokens).
        offsets: int64 (B + 1,), rising from 0.

    Examples:
        >>> texts = Ragged(torch.tensor([5, 6, 7]), torch.tensor([0, 1, 3]))
        >>> texts.padded().values.tolist(), texts[1].tolist()
        ([[5, 0], [6, 7]], [6, 7])
    """

    values: Any
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, sample: int) -> Any:
        """Returns the entries of one sample."""
        return _cut(self.values, int(self.offsets[sample]), int(self.offsets[sample + 1]))

    @property
    def lengths(self) -> Tensor:
        """How many entries each sample has, int64 (B,)."""
        return self.offsets.diff()

    @classmethod
    def of(cls, samples: Sequence[Any]) -> "Ragged":
        """Returns the values of samples, concatenated.

        Args:
            samples: The value of each: a tensor (n, …), tensors of one length by name, or `Ragged`.

        Raises:
            DataError: if there are none.
        """
        if not samples:
            raise DataError("no samples to put one after another")
        return cls(joined(list(samples)), offsets_of(torch.tensor([count_of(sample) for sample in samples])))

    def rows(self, chosen: Tensor) -> "Ragged":
        """Returns some samples, by their positions int64 (n,)."""
        lengths = self.lengths[chosen]
        offsets = offsets_of(lengths)
        steps = torch.arange(int(offsets[-1]), device=offsets.device)
        places = steps + torch.repeat_interleave(self.offsets[chosen] - offsets[:-1], lengths)
        return Ragged(_taken(self.values, places), offsets)

    def padded(self) -> Padded:
        """Returns the same entries padded with zeros to the longest sample, one entry at least."""
        lengths = self.lengths
        longest = max(int(lengths.max()) if len(lengths) else 0, 1)
        valid = torch.arange(longest, device=lengths.device) < lengths[:, None]
        return Padded(_spread(self.values, self.offsets, longest, valid), valid)


def offsets_of(lengths: Tensor) -> Tensor:
    """Returns the offsets of concatenated samples from their lengths: int64 (B + 1,), from 0 to the total."""
    offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64, device=lengths.device)
    torch.cumsum(lengths, 0, out=offsets[1:])
    return offsets


def _cut(values: Any, start: int, stop: int) -> Any:
    if isinstance(values, Ragged):
        offsets = values.offsets[start : stop + 1]
        return Ragged(_cut(values.values, int(offsets[0]), int(offsets[-1])), offsets - offsets[0])
    if isinstance(values, dict):
        return {name: _cut(value, start, stop) for name, value in values.items()}
    return values[start:stop]


def _taken(values: Any, places: Tensor) -> Any:
    if isinstance(values, Ragged):
        return values.rows(places)
    if isinstance(values, dict):
        return {name: _taken(value, places) for name, value in values.items()}
    return values[places]


def _spread(values: Any, offsets: Tensor, longest: int, valid: Tensor) -> Any:
    """Flat values (total, …) padded with zeros (B, T, …); row by row on a CPU, by one indexing on a device.

    A loop on a device would wait for its offsets.
    """
    if isinstance(values, Ragged):
        inner = values.padded()
        return map_tensors(inner, lambda tensor: _spread(tensor, offsets, longest, valid))
    if isinstance(values, dict):
        return {n: _spread(v, offsets, longest, valid) for n, v in values.items()}
    flat: Tensor = values
    if flat.device.type == "cpu" and len(valid):
        return side_by_side([flat[start:stop] for start, stop in pairwise(offsets.tolist())], longest)
    return looked_up(flat, offsets[:-1], valid)


def side_by_side(pieces: Sequence[Tensor], longest: int) -> Tensor:
    """Returns samples' entries (n, …) stacked as (B, longest, …), padded with zeros."""
    out = pieces[0].new_zeros(len(pieces), longest, *pieces[0].shape[1:])
    for i, piece in enumerate(pieces):
        out[i, : len(piece)] = piece
    return out


def looked_up(flat: Tensor, starts: Tensor, valid: Tensor) -> Tensor:
    """Returns entries of a flat buffer (total, …) as (B, T, …), zeros where not ``valid`` (B, T), by one indexing.

    Args:
        flat: The entries of all samples.
        starts: int64 (B,): where each sample's entries begin.
        valid: bool (B, T), on the same device.
    """
    if not len(flat):
        return flat.new_zeros(*valid.shape, *flat.shape[1:])
    places = starts[:, None] + torch.arange(valid.shape[1], device=flat.device)
    found = flat[places.clamp(max=len(flat) - 1)]
    return found.masked_fill(~valid.reshape(*valid.shape, *[1] * (flat.dim() - 1)), 0)


def count_of(value: Any) -> int:
    """Returns how many samples a field holds.

    Raises:
        DataError: if there is no tensor in it.
    """
    if isinstance(value, (Padded, Ragged)):
        return len(value)
    if isinstance(value, Tensor):
        return value.shape[0]
    if isinstance(value, list):
        return len(value)
    parts = tuple(value.values()) if isinstance(value, dict) else value
    for part in parts or ():
        return count_of(part)
    raise DataError("an empty batch: there is no tensor in it")


def joined(parts: Sequence[Any]) -> Any:
    """Concatenates batches' values along their first axis, recursively in dictionaries and tuples.

    `Padded` values are padded to the longest of all batches.
    """
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, Ragged):
        return Ragged(joined([part.values for part in parts]), offsets_of(torch.cat([part.lengths for part in parts])))
    if isinstance(first, Padded):
        longest = max(part.valid.shape[1] for part in parts)
        wide = [_widened(part, longest) for part in parts]
        return Padded(joined([part.values for part in wide]), torch.cat([part.valid for part in wide]))
    if isinstance(first, dict):
        return {key: joined([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple):
        return tuple(joined([part[i] for part in parts]) for i in range(len(first)))
    if isinstance(first, list):
        return [entry for part in parts for entry in part]
    return list(parts)


def _widened(value: Padded, longest: int) -> Padded:
    """The same value, padded to ``longest``."""

    def widen(tensor: Tensor) -> Tensor:
        more = longest - tensor.shape[1]
        return tensor if not more else torch.cat([tensor, tensor.new_zeros(len(tensor), more, *tensor.shape[2:])], 1)

    return map_tensors(value, widen)
