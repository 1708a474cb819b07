"""The loader: the same samples for any worker count, batch size and number of processes."""

import gc
import json
import os
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from common.augment import Augment
from common.blocks.batch import Batch
from common.data import (
    CategoryBlock,
    DataBlock,
    DataLoaders,
    ImageBlock,
    IndexSplitter,
    RegressionBlock,
    Resize,
    TextBlock,
    get_image_files,
    parent_label,
)
from common.data.loader import LoaderOptions
from common.errors import ConfigError, DataError

ALL = Augment(
    flip=True, flip_vertical=True, rotate=30, zoom=1.3, zoom_least=0.9, warp=0.3, translate=0.1, brightness=0.4,
    contrast=0.4, size=20, min_scale=0.4,
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory, picture):
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    for i in range(70):
        place = folder / "abc"[i % 3]
        place.mkdir(exist_ok=True)
        Image.fromarray(picture(24 + i % 6, 30 - i % 9, i)).save(place / f"{i}.png")
    return folder


BLOCK = DataBlock(
    (ImageBlock, CategoryBlock),
    get_image_files,
    get_y=parent_label,
    splitter=IndexSplitter([3, 33, 63]),
    item_tfms=Resize(26),
    batch_tfms=ALL,
)


@pytest.fixture(scope="module")
def reference(root, by_id):
    """Every training sample of epoch 2, by its id."""
    return by_id(BLOCK.dataloaders(root, bs=67, num_workers=0, seed=5).train.batches(2))


def check_same(found, reference, same):
    assert found.keys() == reference.keys()
    for sample, fields in found.items():
        assert all(same(a, b) for a, b in zip(fields, reference[sample], strict=True)), f"sample {sample} differs"


def loose(root, **options):
    """Training batches of every item, none dropped."""
    options = {"bs": 16, "num_workers": 0, "seed": 5, **options}
    return BLOCK.dataloaders(root, **options).train.with_options(drop_last=False)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_augmented_samples_are_bit_equal_for_any_batch_size(root, reference, by_id, same, size):
    check_same(by_id(loose(root, bs=size).batches(2)), reference, same)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_augmented_batches_are_bit_equal_for_any_worker_count(root, same, workers):
    one, other = (list(loose(root, num_workers=n).batches(2)) for n in (0, workers))
    assert len(one) == len(other) == 5
    for a, b in zip(one, other, strict=True):
        assert same((a.ids, a.x, a.y, a.sizes), (b.ids, b.x, b.y, b.sizes))


def test_later_epochs_over_kept_items_equal_the_first_pass(root, reference, by_id, same):
    dls = BLOCK.dataloaders(root, bs=16, num_workers=2, seed=5)
    train = dls.train.with_options(drop_last=False)
    for _ in range(2):
        check_same(by_id(train.batches(2)), reference, same)
    assert not train.store.complete()  # the validation items were not asked for
    list(dls.valid)
    assert train.store.complete()
    check_same(by_id(train.batches(2)), reference, same)


def test_items_that_are_not_kept_equal_those_that_are(root, reference, by_id, same):
    for workers in (0, 2):
        check_same(by_id(loose(root, cache_bytes=0, num_workers=workers).batches(2)), reference, same)


@pytest.mark.parametrize("world", [2, 4])
def test_the_processes_together_see_what_one_sees(root, reference, by_id, same, world):
    parts = [loose(root).with_options(rank=rank, world=world) for rank in range(world)]
    check_same(by_id(batch for part in parts for batch in part.batches(2)), reference, same)
    whole = list(loose(root).batches(2))
    shares = [[batch.ids.tolist() for batch in part.batches(2)] for part in parts]
    for i, batch in enumerate(whole):  # a process may have no share of the last, smaller batch
        assert sorted(sample for share in shares if len(share) > i for sample in share[i]) == sorted(batch.ids.tolist())


def test_each_process_gets_as_many_training_batches_of_one_size(root):
    dls = BLOCK.dataloaders(root, bs=16, num_workers=0)
    sizes = []
    for rank in range(2):
        dls.share(rank, 2)
        sizes.append([len(batch) for batch in dls.train.batches()])
    assert sizes == [[8] * 4] * 2


def test_a_batch_size_that_processes_cannot_share_is_refused():
    with pytest.raises(ConfigError, match="batch_size=7 must be a multiple of the 2 processes"):
        LoaderOptions(batch_size=7, world=2, train=True)
    with pytest.raises(ConfigError, match="batch_size must be at least 1, got 0"):
        LoaderOptions(batch_size=0)


def test_starting_at_batch_k_equals_skipping_k(root, same):
    loader = loose(root)
    for k in (0, 1, 3, 5, 9):
        rest, all_of_it = list(loader.batches(1, start=k)), list(loader.batches(1))
        assert len(rest) == max(len(all_of_it) - k, 0)
        for a, b in zip(rest, all_of_it[k:], strict=True):
            assert same((a.ids, a.x, a.y), (b.ids, b.x, b.y))


def test_training_order_differs_by_epoch_and_seed_and_validation_order_never(root):
    dls, other = (BLOCK.dataloaders(root, bs=67, num_workers=0, seed=seed) for seed in (0, 1))
    orders = {
        tuple(loader.train.order.places(epoch, 0, loader.train.n).tolist())
        for loader in (dls, other)
        for epoch in range(3)
    }
    assert len(orders) == 6
    assert {tuple(sorted(order)) for order in orders} == {tuple(sorted(dls.train.rows.tolist()))}
    assert dls.valid.order.rows(0, 0).tolist() == dls.valid.order.rows(7, 0).tolist() == [3, 33, 63]


def test_iterating_counts_the_epochs(root, same):
    loader = loose(root)
    first, second = list(loader), list(loader)
    assert loader.epoch == 2
    for epoch, seen in enumerate((first, second)):
        for a, b in zip(seen, loader.batches(epoch), strict=True):
            assert same((a.ids, a.x), (b.ids, b.x))


def test_validation_is_the_same_each_time_and_never_augmented(root, same):
    valid = BLOCK.dataloaders(root, num_workers=0, seed=1).valid
    other = BLOCK.dataloaders(root, num_workers=0, seed=2).valid
    assert same(valid.one_batch(0).x, valid.one_batch(5).x)
    assert same(valid.one_batch(0).x, other.one_batch(3).x)


@pytest.mark.parametrize(("bs", "sizes"), [(20, [20, 20, 20]), (67, [67]), (100, [67]), (66, [66])])
def test_the_last_smaller_training_batch_is_dropped_unless_it_is_the_only_one(root, bs, sizes):
    train = BLOCK.dataloaders(root, bs=bs, num_workers=0).train
    assert [len(batch) for batch in train.batches()] == sizes
    assert len(train) == len(sizes)


def test_no_validation_batch_is_dropped(root):
    valid = BLOCK.dataloaders(root, bs=20, val_bs=2, num_workers=0).valid
    assert [len(batch) for batch in valid] == [2, 1]
    assert (len(valid), valid.n) == (2, 3)


def test_arrays_are_all_items_in_order_as_they_are_kept(root):
    dls = BLOCK.dataloaders(root, bs=8, num_workers=0)
    arrays = dls.train.arrays()
    assert arrays.x.dtype == torch.uint8
    assert arrays.x.shape == (67, 26, 26, 3)
    assert arrays.ids.tolist() == dls.train.rows.tolist() == sorted(arrays.ids.tolist())
    assert [dls.vocab[i] for i in arrays.y] == [item.parent.name for item in dls.train.items]


def test_arrays_are_all_items_on_every_process(root):
    train = BLOCK.dataloaders(root, bs=8, num_workers=0).train
    assert train.with_options(rank=1, world=2).arrays().ids.tolist() == train.arrays().ids.tolist()


def test_text_batches_are_padded_to_their_own_longest():
    texts = ["a", "a a a a", "a a", "a a a"]
    block = DataBlock(
        (TextBlock(min_count=1), RegressionBlock), get_x=texts.__getitem__, get_y=float, splitter=IndexSplitter([1])
    )
    valid = block.dataloaders(range(4), bs=1)
    lengths = {int(b.ids): b.x.values.shape[1] for loader in valid for b in loader}
    assert lengths == {0: 1, 1: 4, 2: 2, 3: 3}


def test_plain_torch_dataloaders_are_taken_as_they_are():
    data = DataLoader(TensorDataset(torch.arange(6.0)[:, None], torch.arange(6)), batch_size=4)
    dls = DataLoaders(data, data)
    assert dls.train is data
    assert dls[1] is data
    assert list(dls) == [data, data]
    assert dls.one_batch().y.tolist() == [0, 1, 2, 3]
    assert dls.to("cpu") is dls
    assert (dls.has("train"), dls.has("valid"), dls.has("test")) == (True, True, False)
    with pytest.raises(ConfigError, match="no test part"):
        _ = dls.test
    with pytest.raises(ConfigError, match="known only to loaders that a DataBlock made"):
        _ = dls.blocks
    with pytest.raises(ConfigError, match="at least a training loader"):
        DataLoaders()


def test_what_a_dataloader_yields_becomes_a_batch():
    x, y = torch.zeros(2, 3), torch.ones(2)
    assert Batch.of((x, y)).y is y
    assert Batch.of([x, y]).x is x
    assert Batch.of(x).y is None
    batch = Batch(x)
    assert Batch.of(batch) is batch
    with pytest.raises(DataError, match=r"must yield \(x, y\) or a Batch, got a tuple of 3"):
        Batch.of((x, y, y))


@pytest.mark.parametrize(
    "x", [torch.zeros(3, 2), {"values": torch.zeros(3, 2)}, (torch.zeros(3), torch.zeros(3)), ({"a": torch.zeros(3)},)]
)
def test_a_batch_is_as_long_as_its_first_tensor(x):
    assert len(Batch(x)) == 3
    assert len(Batch(x, torch.zeros(3)).to(torch.device("cpu"))) == 3


@pytest.mark.parametrize("x", [None, (), {}])
def test_a_batch_without_a_tensor_is_refused(x):
    with pytest.raises(DataError, match="an empty batch"):
        len(Batch(x))


def test_vocab_is_that_of_the_first_target():
    block = DataBlock(
        (TextBlock(min_count=1), CategoryBlock, CategoryBlock),
        get_x=str,
        get_y=[lambda i: f"first {i % 2}", lambda i: f"second {i % 2}"],
        n_inp=1,
    )
    assert block.dataloaders(range(20)).vocab == ["first 0", "first 1"]


def test_vocab_of_an_input_serves_where_no_target_has_one():
    block = DataBlock((CategoryBlock, RegressionBlock), get_x=lambda i: "ab"[i % 2], get_y=float)
    assert block.dataloaders(range(20)).vocab == ["a", "b"]


@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_batches_of_an_epoch_are_its_order_cut(size, monkeypatch):
    monkeypatch.setattr("common.data.loader.LAID_OUT", 100)
    block = DataBlock(
        (RegressionBlock, CategoryBlock), get_x=float, get_y=lambda i: str(i % 2), splitter=IndexSplitter([0, 1, 2])
    )
    train = block.dataloaders(list(range(503)), bs=size).train.with_options(drop_last=False)
    numbers, rows, _ = zip(*train.parts(5), strict=True)
    assert list(numbers) == list(range(len(train)))
    assert torch.equal(torch.cat(rows), train.order.places(5, 0, train.n))
    later = list(train.parts(5, 3))
    assert [share.number for share in later] == list(numbers[3:])
    assert all(torch.equal(a.rows, b) for a, b in zip(later, rows[3:], strict=True))
    assert torch.equal(train.order.places(5, 10, 40), train.order.places(5, 0, train.n)[10:40])


def test_memory_stays_flat_over_epochs():
    """What Python and numpy hold after each epoch, traced."""
    block = DataBlock((RegressionBlock, CategoryBlock), get_x=float, get_y=lambda i: str(i % 3))
    train = block.dataloaders(list(range(20_000)), bs=256).train
    list(train.batches(0))
    tracemalloc.start()
    held = []
    for epoch in range(1, 6):
        for _ in train.batches(epoch):
            pass
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert max(held) - min(held) < 50_000


@pytest.mark.slow
def test_a_million_items_build_in_two_seconds_and_300_mb():
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_items.py"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "items.json"
        subprocess.run(
            [sys.executable, str(script), "--epochs", "6", "--out", str(out)],
            check=True,
            capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parents[2])},
        )
        found = json.loads(out.read_text())
    for name in ("numbers", "photo paths", "frame"):
        assert found[name]["seconds"] < 2
        assert found[name]["peak_mb"] < 300
    memory = [epoch["resident_mb"] for epoch in found["epochs"]]
    assert memory[-1] - memory[1] < 5
