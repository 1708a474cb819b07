"""The order of a loader: which positions make each batch of an epoch, with random access to any batch.

A checkpoint's cursor counts batches, and processes share each of them. So every order gives the same number of batches
in every epoch, and the `rows` of a batch are a function of the seed, the epoch and the batch's number alone: resuming,
ranks and replay work with each.

Floor: data; may import store and below. Used by: its own room.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from common.blocks.values import Ragged, offsets_of
from common.counter import key, permuted, uniform
from common.errors import ConfigError, in_range

BATCHES_STREAM = 2
"""The random stream of the order of batches, and of the shuffling within a bucket."""
JITTER = 0.15  # the relative noise on lengths, so that the batches of a bucket differ from epoch to epoch
ALIKE = 1.25  # the longest over the shortest entry of a bucket


class Order(ABC):
    """Which positions make the batches of an epoch.

    Args:
        positions: int64 (N,): the positions of a part.
    """

    even: bool = True
    """Whether all batches but the last have the same size."""

    def __init__(self, positions: Tensor) -> None:
        self.positions = positions

    @abstractmethod
    def __len__(self) -> int:
        """The number of batches, the same in every epoch."""

    @abstractmethod
    def rows(self, epoch: int, number: int) -> Tensor:
        """Returns the positions of one batch of an epoch, int64 (B,)."""

    def several(self, epoch: int, first: int, last: int) -> list[Tensor]:
        """Returns the positions of the batches from number ``first`` up to, without, ``last``."""
        return [self.rows(epoch, number) for number in range(first, last)]

    def before(self, epoch: int, number: int, count: int) -> Tensor:
        """Returns the ``count`` positions that precede a batch, in order; before the first batch comes the last one."""
        pieces: list[Tensor] = []
        missing = count
        while missing > 0:
            number = (number - 1) % len(self)
            rows = self.rows(epoch, number)[-missing:]
            pieces.insert(0, rows)
            missing -= len(rows)
        return torch.cat(pieces) if pieces else self.positions[:0]

    def place(self, epoch: int, position: int) -> tuple[int, int] | None:
        """Returns the number of the batch that holds a position, and its index in it; None if no batch does."""
        for number in range(len(self)):
            found = torch.nonzero(self.rows(epoch, number) == position)
            if len(found):
                return number, int(found[0, 0])
        return None

    @property
    def smallest(self) -> int:
        """The size of the smallest batch of an epoch that all processes take part in."""
        return min(len(self.rows(0, number)) for number in range(len(self)))


class InTurn(Order):
    """Positions in their own order, or shuffled differently in each epoch.

    Args:
        positions: int64 (N,).
        batch_size: Samples per batch.
        shuffle: Whether to shuffle.
        drop_last: Whether a last, smaller batch is left out.
        seed: Seed of the order.
    """

    def __init__(
        self, positions: Tensor, batch_size: int, *, shuffle: bool = False, drop_last: bool = False, seed: int = 0
    ) -> None:
        super().__init__(positions)
        self.batch_size, self.shuffle, self.drop_last, self.seed = batch_size, shuffle, drop_last, seed

    def __len__(self) -> int:
        whole, rest = divmod(len(self.positions), self.batch_size)
        return whole + (1 if rest and not (self.drop_last and whole > 0) else 0)

    def places(self, epoch: int, start: int, stop: int) -> Tensor:
        """Returns the positions at places ``start`` to ``stop`` of the epoch's order, without computing the rest."""
        stop = min(stop, len(self.positions))
        if not self.shuffle:
            return self.positions[start:stop]
        at = torch.arange(start, max(start, stop))
        return self.positions[permuted(at, len(self.positions), self.seed, epoch)]

    def rows(self, epoch: int, number: int) -> Tensor:
        return self.places(epoch, number * self.batch_size, (number + 1) * self.batch_size)

    def several(self, epoch: int, first: int, last: int) -> list[Tensor]:
        return list(self.places(epoch, first * self.batch_size, last * self.batch_size).split(self.batch_size))

    def before(self, epoch: int, number: int, count: int) -> Tensor:
        places = [(number * self.batch_size - step) % len(self.positions) for step in range(count, 0, -1)]
        return torch.cat([self.positions[:0], *(self.places(epoch, at, at + 1) for at in places)])

    def place(self, epoch: int, position: int) -> tuple[int, int] | None:
        found = torch.nonzero(self.places(epoch, 0, len(self.positions)) == position)
        return divmod(int(found[0, 0]), self.batch_size) if len(found) else None


class Bucketed(Order):
    """Batches of entries of similar length, or of whole groups of rows; composition and order change each epoch.

    Units (positions, or groups of them) are sorted by length and cut into buckets of similar lengths. In each epoch the
    units of a bucket are sorted again, by lengths with random noise of up to `JITTER`, and cut into batches of equally
    many units: as many as keep the batch within ``most`` even if all are as long as the bucket's longest. Then the
    order of all batches is shuffled. So neither the number of batches nor the largest possible batch depends on the
    epoch.

    Args:
        units: The positions of each unit, those of a group one after another.
        lengths: int64 (units,): the length of each unit.
        most: The most that a batch may hold: its number of units times the longest of them. None: ``count`` decides.
        count: Units per batch where ``most`` is None; all units are then one bucket.
        seed: Seed of the shuffling.

    Raises:
        ConfigError: if a unit is longer than ``most``.
    """

    even = False

    def __init__(
        self,
        units: Ragged,
        lengths: Tensor,
        most: int | None = None,
        *,
        count: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(units.values)
        self.units, self.seed = units, seed
        self.sorted = torch.argsort(lengths, stable=True)
        self.lengths = lengths[self.sorted]
        self._orders: tuple[int, dict[int, Tensor]] = (-1, {})
        ordered: list[int] = self.lengths.tolist()
        if most is not None and ordered and ordered[-1] > most:
            raise ConfigError(f"an entry of length {ordered[-1]} is longer than a batch may be ({most}): allow more")
        self.batches: list[tuple[int, int, int, int]] = []  # bucket, its first and last unit, which batch of it
        self.counts: list[int] = []  # units a batch, by bucket
        start = 0
        while start < len(ordered):
            stop = len(ordered)
            if most is not None:
                stop = bisect_right(ordered, max(ordered[start] * ALIKE, ordered[start] + 2), lo=start)
                number = -(-(stop - start) // max(most // max(ordered[stop - 1], 1), 1))
                count = -(-(stop - start) // number)  # spread evenly, so that no batch is much smaller
            self.batches += [(len(self.counts), start, stop, i) for i in range(-(-(stop - start) // count))]
            self.counts.append(count)
            start = stop

    def _mixed(self, epoch: int, bucket: int, start: int, stop: int) -> Tensor:
        """The order of a bucket's units in an epoch; computed once per epoch."""
        if self._orders[0] != epoch:
            self._orders = epoch, {}
        order = self._orders[1].get(bucket)
        if order is None:
            drawn = uniform(self.seed, epoch, torch.arange(start, stop), BATCHES_STREAM, 1)[:, 0]
            lengths = self.lengths[start:stop].to(torch.float64) * (1 + JITTER * drawn)
            order = self._orders[1][bucket] = torch.argsort(lengths, stable=True)
        return order

    def __len__(self) -> int:
        return len(self.batches)

    def rows(self, epoch: int, number: int) -> Tensor:
        number = int(permuted(torch.tensor([number]), len(self), key(self.seed, BATCHES_STREAM), epoch))
        bucket, start, stop, which = self.batches[number]
        count = self.counts[bucket]
        places = self._mixed(epoch, bucket, start, stop)[which * count : (which + 1) * count]
        return self.units.rows(self.sorted[start + places]).values


@dataclass(frozen=True, kw_only=True)
class ByLength:
    """Batches of ``bs`` items of similar length: little padding, composed differently in every epoch.

    Attributes:
        field: The field whose lengths decide, by its position among the blocks.
    """

    field: int = 0


@dataclass(frozen=True, kw_only=True)
class TokenBudget:
    """Batches of items of similar length, as many as keep the padded batch within a number of tokens.

    Attributes:
        tokens: The most entries (tokens, frames) of a padded batch.
        field: The field whose lengths decide, by its position among the blocks.
    """

    tokens: int
    field: int = 0

    def __post_init__(self) -> None:
        in_range("tokens", self.tokens, 1, 1 << 40)


@dataclass(frozen=True, kw_only=True)
class ByGroup:
    """Batches of whole groups (the ratings of a user, the sentences of a document), of ``bs`` items at most.

    Attributes:
        groups: One group an item, in the order of all items.
    """

    groups: Sequence[int | str]


Batching = ByLength | TokenBudget | ByGroup
"""What a user can ask for instead of batches of consecutive items."""


def group_units(positions: Tensor, groups: Sequence[int | str]) -> Ragged:
    """Returns the positions of each group one after another, groups in the order in which they first occur."""
    codes = pd.factorize(pd.Series(groups).iloc[positions.numpy()])[0]
    order = np.argsort(codes, kind="stable")
    return Ragged(positions[torch.from_numpy(order)], offsets_of(torch.from_numpy(np.bincount(codes))))
