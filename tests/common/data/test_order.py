"""Orders: every item once an epoch, one number of batches, any batch at once, nothing above its budget."""

import numpy as np
import pytest
import torch

from common.blocks.values import Ragged
from common.data import ByGroup, ByLength, CategoryBlock, ColReader, DataBlock, IndexSplitter, TextBlock, TokenBudget
from common.data.order import Bucketed, InTurn, group_units
from common.errors import ConfigError

COUNT = 333


def texts(count=COUNT):
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(list("abcdef"), n)) for n in rng.integers(1, 60, count)]


def loaders(batching, bs=16, count=COUNT, **options):
    import pandas as pd

    frame = pd.DataFrame({"text": texts(count), "label": ["ab"[i % 2] for i in range(count)]})
    block = DataBlock(
        (TextBlock(min_count=1), CategoryBlock),
        get_x=ColReader("text"),
        get_y=ColReader("label"),
        splitter=IndexSplitter(range(3)),
    )
    return block.dataloaders(frame, bs=bs, batching=batching, **options)


GROUPS = [int(g) for g in np.random.default_rng(1).integers(0, 40, COUNT)]
BATCHINGS = {
    "by length": ByLength(),
    "token budget": TokenBudget(tokens=500),
    "by group": ByGroup(groups=GROUPS),
}
EVERY = pytest.mark.parametrize("batching", BATCHINGS.values(), ids=BATCHINGS)


@EVERY
def test_every_item_comes_once_an_epoch_and_the_number_of_batches_is_one(batching):
    train = loaders(batching).train
    epochs = []
    for epoch in range(4):
        batches = list(train.batches(epoch))
        assert [batch.number for batch in batches] == list(range(len(train)))
        ids = torch.cat([batch.ids for batch in batches])
        assert sorted(ids.tolist()) == list(range(3, COUNT))
        epochs.append([sorted(batch.ids.tolist()) for batch in batches])
    assert epochs[0] != epochs[1]
    if not isinstance(batching, ByGroup):  # other neighbours each time; small packs of groups are often the same
        assert sorted(map(tuple, epochs[0])) != sorted(map(tuple, epochs[1]))


@EVERY
def test_any_batch_is_known_at_once(batching, same):
    train = loaders(batching).train
    whole = list(train.batches(3))
    for start in (0, 1, len(train) // 2, len(train) - 1):
        rest = list(train.batches(3, start))
        assert [batch.number for batch in rest] == list(range(start, len(train)))
        assert all(same(a.x, b.x) and same(a.ids, b.ids) for a, b in zip(rest, whole[start:], strict=True))


@EVERY
def test_processes_share_each_batch(batching):
    train = loaders(batching, bs=20).train
    shares = [train.with_options(rank=rank, world=2) for rank in range(2)]
    whole, *parts = ({share.number: share.rows for share in loader.parts(2)} for loader in (train, *shares))
    for number, rows in whole.items():  # of a batch of one item the second process has no share
        found = torch.cat([part[number] for part in parts if number in part])
        assert sorted(found.tolist()) == sorted(rows.tolist())


def test_by_length_pads_little():
    plain, sorted_ = loaders(None).train, loaders(ByLength()).train
    shares = [np.mean([b.x.valid.float().mean() for b in loader.batches(0)]) for loader in (plain, sorted_)]
    assert shares[0] < 0.6
    assert shares[1] > 0.85


def test_a_token_budget_is_kept_by_the_padded_batch():
    train = loaders(TokenBudget(tokens=500)).train
    sizes = [batch.x.valid.numel() for epoch in range(5) for batch in train.batches(epoch)]
    assert max(sizes) <= 500
    assert np.mean(sizes) > 300


def test_an_entry_above_the_budget_is_an_error():
    with pytest.raises(ConfigError, match=r"an entry of length \d+ is longer than a batch may be \(10\)"):
        len(loaders(TokenBudget(tokens=10)).train)


def test_groups_stay_whole_and_batches_within_their_size():
    train = loaders(BATCHINGS["by group"], bs=40).train
    for batch in train.batches(1):
        assert len(batch) <= 40
        inside = {GROUPS[i] for i in batch.ids.tolist()}
        assert all(GROUPS[i] not in inside for i in set(range(3, COUNT)) - set(batch.ids.tolist()))


def test_a_field_without_lengths_cannot_order():
    with pytest.raises(ConfigError, match="field 1 has no entries"):
        len(loaders(ByLength(field=1)).train)


def test_evaluation_goes_in_turn():
    dls = loaders(ByLength())
    assert isinstance(dls.valid.order, InTurn)
    again = dls.train.with_options(shuffle=False, train=False, drop_last=False)
    assert torch.cat([batch.ids for batch in again.batches()]).tolist() == list(range(3, COUNT))


def test_what_came_before_a_batch_is_the_end_of_the_ones_before():
    positions = torch.arange(50) * 2
    for order in (
        InTurn(positions, 8, shuffle=True, seed=3),
        Bucketed(Ragged(positions, torch.arange(51)), torch.arange(50) % 7 + 1, 40, seed=3),
    ):
        line = torch.cat([order.rows(2, number) for number in range(len(order))])
        start = sum(len(order.rows(2, number)) for number in range(2))
        assert order.before(2, 2, 11).tolist() == torch.cat([line, line[:start]])[-11:].tolist()
        assert order.before(2, 0, 3).tolist() == line[-3:].tolist()
        number, place = order.place(2, int(line[start]))
        assert (number, place) == (2, 0)


def test_groups_in_any_order_and_of_words():
    units = group_units(torch.tensor([0, 1, 3, 4]), ["b", "a", "z", "b", "a"])
    assert [units[i].tolist() for i in range(len(units))] == [[0, 3], [1, 4]]


def test_lengths_of_what_there_is_no_room_to_keep(same):
    plain, tight = (loaders(ByLength(), cache_bytes=size).train for size in (None, 2000))
    for a, b in zip(plain.batches(1), tight.batches(1), strict=True):
        assert same(a.x, b.x)
        assert same(a.ids, b.ids)
