"""What is kept after the first pass."""

import threading
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from common.blocks.sample import SampleEncoder
from common.data import (
    BBoxBlock,
    CategoryBlock,
    ColReader,
    ColumnsBlock,
    DataBlock,
    EpochSeed,
    ImageBlock,
    IndexSplitter,
    RegressionBlock,
    Resize,
    TextBlock,
    get_image_files,
    parent_label,
)
from common.errors import CookbookError, ItemError
from common.store.cache import DenseColumn, RaggedColumn
from common.store.store import SampleStore


def test_flat_rows_come_back_padded_with_a_valid_mask():
    pieces = [torch.tensor([5, 6, 7]), torch.tensor([], dtype=torch.int64), torch.tensor([8])]
    column = RaggedColumn(3)
    for row in (2, 0, 1):
        column.put(row, pieces[row], str)
    rows = torch.tensor([2, 0, 1, 0])
    before = column.gather(rows)
    column.to(torch.device("cpu"))
    for values, valid in (before, column.gather(rows)):
        assert values.tolist() == [[8, 0, 0], [5, 6, 7], [0, 0, 0], [5, 6, 7]]
        assert valid.tolist() == [[True, False, False], [True] * 3, [False] * 3, [True] * 3]
    assert column.flat.tolist() == [5, 6, 7, 8]
    assert column.starts.tolist() == [0, 3, 3]


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("shape", [(), (4,)])
def test_random_ragged_rows_equal_a_slow_padding(shape, flat):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(0, 9, (40,), generator=generator).tolist()
    pieces = [torch.rand(n, *shape, generator=generator) for n in lengths]
    column = RaggedColumn(40)
    for i, piece in enumerate(pieces):
        column.put(i, piece, str)
    if flat:
        column.to(torch.device("cpu"))
    for rows in torch.randperm(40, generator=generator).split(7):
        values, valid = column.gather(rows)
        longest = max(1, *(lengths[i] for i in rows.tolist()))
        assert values.shape == (len(rows), longest, *shape)
        for i, row in enumerate(rows.tolist()):
            assert valid[i].tolist() == [t < lengths[row] for t in range(longest)]
            assert torch.equal(values[i, : lengths[row]], pieces[row])
            assert not values[i, lengths[row] :].any()


def test_rows_without_any_entry_are_padded_to_length_one():
    column = RaggedColumn(2)
    for row in range(2):
        column.put(row, torch.zeros(0, 4), str)
    for _ in range(2):
        values, valid = column.gather(torch.tensor([0, 1]))
        assert values.shape == (2, 1, 4)
        assert not valid.any()
        column.to(torch.device("cpu"))


def test_a_dense_value_of_another_shape_names_its_item():
    column = DenseColumn(2)
    column.put(0, torch.zeros(3, 2), str)
    with pytest.raises(ItemError, match=r"b\.png: its shape is \(2, 2\), the others' \(3, 2\): give item_tfms=Resize"):
        column.put(1, torch.zeros(2, 2), lambda: "b.png")


@pytest.fixture
def classified(photo_folder):
    root = photo_folder({"cat": 6, "dog": 5})
    block = DataBlock((ImageBlock, CategoryBlock), get_image_files, get_y=parent_label, item_tfms=Resize(12))
    return block, root


@pytest.fixture
def opened(monkeypatch):
    """Counts how often each raw value is opened by an image block."""
    tally, lock = {}, threading.Lock()
    real = ImageBlock.open

    def count(self, raw):
        with lock:
            tally[raw] = tally.get(raw, 0) + 1
        return real(self, raw)

    monkeypatch.setattr(ImageBlock, "open", count)
    return tally


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_later_epochs_touch_no_decoder(classified, opened, workers):
    block, root = classified
    dls = block.dataloaders(root, bs=4, num_workers=workers)
    for epoch in range(3):
        for loader in (dls.train.with_options(drop_last=False), dls.valid):
            list(loader.batches(epoch))
    assert sorted(opened.values()) == [1] * 11


def test_without_memory_every_epoch_decodes_anew(classified, opened):
    block, root = classified
    dls = block.dataloaders(root, bs=4, num_workers=0, cache_bytes=0)
    for epoch in range(3):
        list(dls.valid.batches(epoch))
    assert {item for item, count in opened.items() if count == 3} == set(dls.valid.items)
    assert sum(opened.values()) == 3 * dls.valid.n + 1  # and one, to see how large an item is
    assert dls.train.store.bytes == 11 * 8  # the categories alone


def test_kept_bytes_are_those_of_pixels_and_labels(classified):
    block, root = classified
    dls = block.dataloaders(root, bs=4, num_workers=0)
    for loader in dls:
        list(loader.with_options(drop_last=False).batches())
    store = dls.train.store
    assert store.complete()
    assert store.bytes == 11 * (12 * 12 * 3 + 8)


def test_source_sizes_travel_with_the_batch(classified):
    block, root = classified
    dls = block.dataloaders(root, bs=11, num_workers=2)
    for cache_bytes in (None, 0):
        store = block.prepare(root).store(0, cache_bytes)
        rows = dls.train.rows[:5]
        for _ in range(2):
            sizes = store.batch(rows, store.load(rows.tolist()), EpochSeed()).sizes
            for row, size in zip(rows.tolist(), sizes.tolist(), strict=True):
                with Image.open(store.items[row]) as image:
                    assert size == [image.height, image.width]


def test_the_pixels_kept_are_those_of_the_encoder(classified):
    block, root = classified
    prepared = block.prepare(root)
    store = prepared.store(0)
    rows = torch.tensor([7, 0, 3])
    batch = store.batch(rows, store.load(rows.tolist()), EpochSeed())
    assert torch.equal(batch.ids, rows)
    for i, row in enumerate(rows.tolist()):
        (pixels, label), size = prepared.encoder.encode([raws[row] for raws in prepared.raws], "x")
        assert torch.equal(batch.x[i], pixels)
        assert batch.y[i] == label
        assert batch.sizes[i].tolist() == list(size)


@pytest.mark.parametrize("workers", [0, 2])
def test_photos_of_differing_sizes_name_the_file_and_the_remedy(photo_folder, workers):
    folder = photo_folder({"cat": 3}, size=(10, 10))
    odd = photo_folder({"dog": 1}, size=(10, 11))
    block = DataBlock((ImageBlock, CategoryBlock), get_image_files, get_y=lambda p: "x", splitter=IndexSplitter([0]))
    dls = block.dataloaders(folder, bs=3, num_workers=workers)
    with pytest.raises(ItemError, match=r"give item_tfms=Resize") as caught:
        list(dls.train.with_options(shuffle=False).batches())
    assert str(odd / "dog" / "dog_0.png") in str(caught.value)
    assert "(10, 11, 3)" in str(caught.value)


@pytest.mark.parametrize("raws", [[("", "a")] * 3, [("", "a"), ("x", "b"), ("", "a")]])
def test_empty_texts_make_a_batch(raws):
    block = DataBlock(
        (TextBlock(vocab=("<pad>", "<unk>")), CategoryBlock),
        get_x=lambda r: r[0],
        get_y=lambda r: r[1],
        splitter=IndexSplitter([2]),
    )
    batch = block.dataloaders(raws, bs=2).valid.one_batch()
    assert batch.x.values.tolist() == [[0]]
    assert batch.x.valid.tolist() == [[False]]


def test_photos_without_any_box_make_a_batch(picture):
    block = DataBlock(
        (ImageBlock, BBoxBlock(("cat",))),
        get_x=lambda i: picture(8, 8),
        get_y=lambda i: ([], []),
        splitter=IndexSplitter([2]),
    )
    dls = block.dataloaders(range(3), bs=2, num_workers=0)
    for _ in range(2):
        for loader in (dls.train, dls.valid):
            for batch in loader:
                assert batch.y.values["boxes"].shape == (len(batch), 1, 4)
                assert not batch.y.valid.any()


@dataclass(frozen=True)
class TwoLengths(TextBlock):
    """A field of two rows that have lengths of their own."""

    eager: ClassVar[bool] = False

    def encode(self, raw, view=None):
        return {"words": torch.arange(raw), "marks": torch.arange(2 * raw)}


def test_rows_of_two_lengths_do_not_share_one_valid_mask():
    encoder = SampleEncoder((TwoLengths(vocab=("a",)), RegressionBlock()))
    store = SampleStore(encoder, [[1, 2], [0.0, 0.0]], ["a", "b"], [0, 1], workers=0)
    with pytest.raises(CookbookError, match="of one length"):
        store.batch(torch.tensor([0, 1]), store.load([0, 1]), EpochSeed())


def test_a_label_is_encoded_once_for_all_items(monkeypatch):
    calls = []
    real = CategoryBlock.encode_many

    def count(self, raws):
        calls.append(len(raws))
        return real(self, raws)

    monkeypatch.setattr(CategoryBlock, "encode_many", count)
    block = DataBlock((RegressionBlock, CategoryBlock), get_x=float, get_y=lambda i: "ab"[i % 2])
    dls = block.dataloaders(range(100), bs=10)
    list(dls.train)
    list(dls.valid)
    assert calls == [100]


def test_items_in_no_part_are_not_encoded(picture):
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_x=lambda i: np.zeros((4, 4, 3), np.uint8) if i < 4 else "broken",
        get_y=lambda i: "ab"[i % 2] if i < 4 else None,
        splitter=lambda items: ([0, 1], [2, 3]),
    )
    dls = block.dataloaders(range(6), bs=2)
    assert [len(batch) for loader in dls for batch in loader] == [2, 2]


def test_other_tensors_of_a_field_are_served_and_the_rest_is_shared():
    frame = pd.DataFrame({"a": [1.0, 2.0, 4.0, 8.0], "town": ["A", "B", "A", "B"], "y": [0.0, 1.0, 2.0, 3.0]})
    block = DataBlock((ColumnsBlock(infer=True, ignore=("y",)), RegressionBlock()), get_y=ColReader("y"))
    store = block.dataloaders(frame, bs=2).train.store
    before = store.batch(torch.arange(4), {}, EpochSeed())
    other = store.with_entries(0, torch.tensor([3, 1]), {"numbers": torch.tensor([[5.0, 6.0], [7.0, 8.0]])})
    found = other.batch(torch.arange(4), {}, EpochSeed())
    assert found.x["numbers"].tolist() == [[0, 0], [7, 8], [0, 0], [5, 6]]
    assert torch.equal(found.x["categories"], before.x["categories"])
    assert torch.equal(found.y, before.y)
    assert torch.equal(store.batch(torch.arange(4), {}, EpochSeed()).x["numbers"], before.x["numbers"])
    other.to(torch.device("meta"))
    there = other.batch(torch.arange(4), {}, EpochSeed())
    assert {t.device.type for t in (there.y, *there.x.values())} == {"meta"}
    after = store.batch(torch.arange(4), {}, EpochSeed())
    assert torch.equal(after.y, before.y)
    assert torch.equal(after.x["categories"], before.x["categories"])
