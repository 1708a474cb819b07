"""Packing: every token once and in order, rows nearly full, the same packs on every run."""

import numpy as np
import pytest
import torch

from common.blocks.values import Padded
from common.data import CategoryBlock, DataBlock, IndexSplitter, TextBlock, TokenBudget
from common.data.packing import pack
from common.errors import ConfigError, DataError

COUNT, LENGTH = 400, 64


def texts(count=COUNT, longest=50):
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(list("abcdefgh"), n)) for n in rng.integers(1, longest, count)]


BLOCK = DataBlock(blocks=TextBlock(min_count=1), splitter=IndexSplitter(range(60)))


def loaders(items=None, **options):
    return BLOCK.dataloaders(texts() if items is None else items, **{"bs": 8, "pack": LENGTH, **options})


def segments_of(batch):
    """(pack, tokens) of every segment of a batch."""
    for row, pack_id in enumerate(batch.ids.tolist()):
        segments, tokens = batch.x["segments"][row], batch.x["tokens"][row]
        assert (tokens[segments == 0] == 0).all()
        for number in range(1, int(segments.max()) + 1):
            where = torch.nonzero(segments == number).flatten()
            assert torch.equal(where, torch.arange(int(where[0]), int(where[-1]) + 1))  # side by side
            yield pack_id, tokens[where].tolist()


def test_every_piece_is_packed_once_and_no_pack_is_too_large():
    lengths = np.random.default_rng(1).integers(0, 300, 2000)
    packs = pack(lengths, 128)
    assert all(sum(p.stop - p.start for p in one) <= 128 for one in packs)
    found = sorted(piece for one in packs for piece in one)
    cut = [(i, s, min(s + 128, n)) for i, n in enumerate(lengths.tolist()) for s in range(0, n, 128)]
    assert [tuple(piece) for piece in found] == cut
    assert sum(p.stop - p.start for p in found) == lengths.sum()
    assert packs == pack(lengths.tolist(), 128)


@pytest.mark.parametrize("seed", range(3))
def test_random_lengths_fill_more_than_95_percent(seed):
    lengths = np.random.default_rng(seed).integers(5, 400, 5000)
    packs = pack(lengths, 512)
    assert lengths.sum() / (512 * len(packs)) > 0.95


def test_every_token_of_every_text_comes_once_in_its_order_part_by_part():
    items = texts()
    dls = loaders(items)
    block = dls.blocks[0]
    wanted = [block.encode(item).tolist() for item in items]
    for loader, part in ((dls.train.with_options(drop_last=False), wanted[60:]), (dls.valid, wanted[:60])):
        batches = list(loader.batches(0))
        assert all(b.x["tokens"].shape == (len(b.ids), LENGTH) and b.x["tokens"].dtype == torch.int32 for b in batches)
        assert all(b.x["segments"].dtype == torch.int32 and b.y is None for b in batches)
        found = [tokens for batch in batches for _, tokens in segments_of(batch)]
        assert sorted(found) == sorted(part)
        assert loader.fill == pytest.approx(sum(map(len, part)) / (LENGTH * loader.n))
    assert dls.train.fill > 0.95


def test_the_name_of_a_pack_tells_its_items():
    items = texts()
    dls = loaders(items)
    for pack_id, tokens in segments_of(dls.valid.one_batch()):
        assert dls.blocks[0].decode(torch.tensor(tokens)) in dls.valid.store.name(pack_id).split(" + ")


def test_packs_are_the_same_on_every_run_and_each_epoch_shuffles_them():
    one, two = loaders().train, loaders().train
    for a, b in zip(one.batches(2), two.batches(2), strict=True):
        assert torch.equal(a.ids, b.ids)
        assert torch.equal(a.x["tokens"], b.x["tokens"])
        assert torch.equal(a.x["segments"], b.x["segments"])
    orders = [torch.cat([batch.ids for batch in one.batches(epoch)]).tolist() for epoch in range(2)]
    assert orders[0] != orders[1]


def test_an_epoch_goes_on_from_any_batch_with_the_same_batches():
    train = loaders().train
    whole = list(train.batches(1))
    for start in range(len(whole)):
        rest = list(loaders().train.batches(1, start))
        assert [b.number for b in rest] == list(range(start, len(whole)))
        assert torch.equal(rest[0].ids, whole[start].ids)
        assert torch.equal(rest[0].x["tokens"], whole[start].x["tokens"])


def test_a_long_text_is_cut():
    items = ["a b", " ".join("abcd" * 50), "b"]
    dls = BLOCK.new(splitter=IndexSplitter([0])).dataloaders(items, bs=1, pack=64)
    store = dls.train.store
    whole = dls.blocks[0].encode(items[1])
    found = {store.name(i): tokens for b in dls.train.batches(0) for i, tokens in segments_of(b) if len(tokens) == 64}
    assert len(found) == 3
    for start in (0, 64, 128):
        (tokens,) = (tokens for name, tokens in found.items() if f"[{start}:{start + 64}]" in name)
        assert tokens == whole[start : start + 64].tolist()


def test_texts_that_do_not_fit_into_memory_are_packed_the_same():
    for a, b in zip(loaders().train.batches(0), loaders(cache_bytes=500).train.batches(0), strict=True):
        assert torch.equal(a.x["tokens"], b.x["tokens"])


def test_an_item_that_cannot_be_used_is_in_no_pack():
    items = [*texts(), None]
    dls = loaders(items, on_error="skip")
    assert dls.train.with_options(drop_last=False).fill == loaders().train.fill


def test_what_cannot_be_packed_is_refused():
    pair = DataBlock((TextBlock, CategoryBlock), get_y=len)
    with pytest.raises(ConfigError, match="pack=64 takes one field, a text .*got TextBlock, CategoryBlock"):
        pair.dataloaders(texts(), pack=64)
    with pytest.raises(ConfigError, match="batching must be None"):
        loaders(batching=TokenBudget(tokens=100))
    with pytest.raises(ConfigError, match="pack must"):
        loaders(pack=0)
    with pytest.raises(DataError, match="no text of the train part has a token"):
        BLOCK.new(splitter=IndexSplitter([0])).dataloaders(["a b", "", ""], pack=64)


def test_without_packing_texts_are_padded_and_there_is_no_fill():
    dls = loaders(pack=None)
    assert isinstance(dls.train.one_batch().x, Padded)
    assert dls.train.fill is None
