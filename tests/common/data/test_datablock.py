"""The DataBlock: a frozen template."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from common.augment import Augment, Mixup, Normalize
from common.blocks.sample import SampleEncoder
from common.data import (
    CategoryBlock,
    ColReader,
    DataBlock,
    ImageBlock,
    IndexSplitter,
    MaskBlock,
    RandomResizedCrop,
    RegressionBlock,
    Resize,
    get_image_files,
    parent_label,
)
from common.errors import ConfigError, CookbookError, DataError, ItemError
from common.spec import to_spec

FRAME = pd.DataFrame({"x": np.arange(10.0), "y": list("ab") * 5})
PLAIN = DataBlock((RegressionBlock, CategoryBlock), get_x=ColReader("x"), get_y=ColReader("y"))


def test_a_template_is_not_changed_by_its_use():
    block = DataBlock((RegressionBlock, CategoryBlock), get_x=float, get_y=lambda i: "ab"[i % 2])
    before = block.blocks
    vocab = block.dataloaders(range(10)).vocab
    again = block.new(get_y=lambda i: "xyz"[i % 3]).dataloaders(range(30)).vocab
    assert (vocab, again) == (["a", "b"], ["x", "y", "z"])
    assert block.blocks == before == (RegressionBlock(), CategoryBlock())
    with pytest.raises(dataclasses.FrozenInstanceError):
        block.splitter = None


def test_new_changes_only_what_is_named():
    block = PLAIN.new(splitter=IndexSplitter([0]))
    assert block.splitter == IndexSplitter([0])
    assert block.blocks == PLAIN.blocks
    assert PLAIN.splitter is None


def test_without_a_splitter_a_fifth_validates():
    dls = PLAIN.dataloaders(FRAME, bs=4)
    assert (dls.train.n, dls.valid.n, dls.has("test")) == (8, 2, False)


def test_a_test_part_is_its_own_loader():
    dls = PLAIN.new(splitter=lambda items: ([0, 1, 2, 3], [4, 5], [6, 7, 8])).dataloaders(FRAME, bs=4)
    assert dls.test.rows.tolist() == [6, 7, 8]
    assert dls.test.arrays().x.tolist() == [6, 7, 8]


def test_the_vocab_comes_from_the_training_items_alone():
    frame = FRAME.assign(y=["a", "b", "c", *"abababa"])
    assert PLAIN.new(splitter=lambda items: ([0, 1], [3], [4])).dataloaders(frame).vocab == ["a", "b"]


def test_items_name_each_part():
    dls = PLAIN.new(splitter=IndexSplitter([2, 5])).dataloaders(FRAME)
    assert [row["x"] for row in dls.valid.items] == [2.0, 5.0]
    assert dls.c == 2


def test_one_input_block_makes_batches_without_targets():
    dls = DataBlock(RegressionBlock, get_x=float).dataloaders(range(10), bs=4)
    assert dls.train.one_batch().y is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": ()}, "blocks must name at least one block"),
        ({"blocks": (ImageBlock, "category")}, "blocks must hold blocks .* got '?category"),
        ({"item_tfms": Augment()}, r"item_tfms cannot hold Augment.*it belongs into batch_tfms"),
        ({"batch_tfms": [Resize(8)]}, r"batch_tfms cannot hold Resize.*it belongs into item_tfms"),
        ({"batch_tfms": ["flip"]}, r"batch_tfms cannot hold '?flip'?$"),
        ({"get_x": [str, str]}, r"get_x must give 1 getter\(s\) for 1 block\(s\), got 2"),
        (
            {"n_inp": 2, "blocks": (CategoryBlock, CategoryBlock, RegressionBlock), "get_x": str},
            "get_x must give 2 getter",
        ),
        ({"blocks": (ImageBlock, CategoryBlock, CategoryBlock), "n_inp": 1, "get_y": str}, "get_y must give 2 getter"),
    ],
)
def test_a_wrong_template_is_explained_when_it_is_made(options, message):
    with pytest.raises(ConfigError, match=message):
        DataBlock(**{"blocks": (ImageBlock, CategoryBlock), **options})


@pytest.mark.parametrize("count", [0, -1, 3])
def test_a_number_of_inputs_out_of_range_is_named(count):
    with pytest.raises(ConfigError, match="n_inp must lie in"):
        DataBlock((RegressionBlock, CategoryBlock), n_inp=count).dataloaders(range(10))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("photos", "the items must be a list or a frame, got str '?photos'?: give get_items, such as get_image_files"),
        (7, "the items must be a list or a frame, got int"),
        ([], "no items were found"),
        (FRAME.iloc[:0], "no items were found"),
    ],
)
def test_a_source_without_items_is_explained(source, message):
    with pytest.raises(DataError, match=message):
        PLAIN.dataloaders(source)


def test_a_folder_that_is_not_there_is_explained(tmp_path):
    with pytest.raises(DataError, match="not there"):
        DataBlock((ImageBlock, CategoryBlock), get_image_files, get_y=parent_label).dataloaders(tmp_path / "none")


def test_a_label_that_cannot_be_read_names_its_item():
    block = PLAIN.new(get_y=lambda row: {0.0: "a"}[row["x"]])
    with pytest.raises(DataError, match="row 1: get_y failed"):
        block.dataloaders(FRAME)


def test_a_missing_label_of_a_training_item_is_refused():
    with pytest.raises(DataError, match="the label is missing"):
        PLAIN.dataloaders(FRAME.assign(y=["a", None] * 5))


@pytest.mark.parametrize("transform", [Augment(flip=True), Augment(brightness=0.1), Augment(size=8), Normalize()])
def test_batch_transforms_of_images_need_an_image(transform):
    with pytest.raises(ConfigError, match="image"):
        PLAIN.new(batch_tfms=transform).dataloaders(FRAME)


@pytest.mark.parametrize("transform", [Resize(8), RandomResizedCrop(8)])
def test_item_transforms_of_images_need_an_image(transform):
    with pytest.raises(ConfigError, match="image"):
        PLAIN.new(item_tfms=transform).dataloaders(FRAME)


UNMIXABLE = {
    "two inputs": DataBlock(
        (RegressionBlock, RegressionBlock, RegressionBlock), get_x=[float] * 2, get_y=float, n_inp=2
    ),
    "no target": DataBlock(RegressionBlock, get_x=float),
    "a category as input": DataBlock((CategoryBlock, RegressionBlock), get_x=lambda i: "ab"[i % 2], get_y=float),
}


@pytest.mark.parametrize("name", UNMIXABLE)
def test_what_mixup_cannot_blend_is_refused_when_the_loaders_are_built(name):
    with pytest.raises(ConfigError, match="mixup"):
        UNMIXABLE[name].new(batch_tfms=Mixup()).dataloaders(range(10))


def test_a_mask_of_another_size_than_its_image_is_refused(picture):
    def block(shape):
        mask = np.zeros(shape, np.uint8)
        made = DataBlock(
            (ImageBlock, MaskBlock), get_x=lambda i: picture(20, 30), get_y=lambda i: mask, item_tfms=Resize(16)
        )
        return made.dataloaders(range(5), bs=2, num_workers=0)

    assert block((20, 30)).train.one_batch().y.shape == (2, 16, 16)
    for wrong in ((10, 15), (30, 20), (40, 60)):
        with pytest.raises(ItemError, match=r"item [0-9]: .*(20|30)"):
            block(wrong).train.one_batch()


def test_each_of_two_images_is_normalised_by_its_own_block(picture):
    pixels = picture(8, 8)
    block = DataBlock(
        (ImageBlock(mean=(0.0,) * 3, std=(1.0,) * 3), ImageBlock("L", (0.5,), (0.25,)), RegressionBlock),
        get_x=[lambda i: pixels, lambda i: pixels[..., 0].copy()],
        get_y=float,
        n_inp=2,
    )
    colour, grey = block.dataloaders(range(5), bs=2, num_workers=0).train.one_batch().x
    wanted = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    torch.testing.assert_close(colour[0], wanted)
    torch.testing.assert_close(grey[0], (wanted[:1] - 0.5) / 0.25)


def test_encoder_roundtrip_through_its_spec():
    encoder = SampleEncoder((ImageBlock("L"), CategoryBlock(("a", "b"))), 1, (Resize(8), RandomResizedCrop(16)))
    assert SampleEncoder.from_spec(encoder.spec()) == encoder
    assert encoder.spec()["item_tfms"][0] == to_spec(Resize(8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": None}, "blocks must be a list, got NoneType"),
        ({"item_tfms": {}}, "item_tfms must be a list, got dict"),
        ({"n_inp": "1"}, "n_inp must be int"),
        ({"n_inp": 9}, r"n_inp must lie in \[1, 1\], got 9"),
        ({"blocks": [{"kind": "magic"}]}, "no block is named 'magic'"),
        ({"blocks": [{"kind": "category", "vocab": [1]}]}, r"blocks\[0\]\.vocab\[0\] must be str"),
    ],
)
def test_a_wrong_encoder_spec_is_explained(change, message):
    spec = {**SampleEncoder((CategoryBlock(("a",)),)).spec(), **change}
    with pytest.raises(CookbookError, match=message):
        SampleEncoder.from_spec(spec)


def test_inputs_alone_are_enough_for_a_prediction(picture):
    encoder = SampleEncoder((ImageBlock(), CategoryBlock(("a",))), 1, (Resize(8),))
    values, size = encoder.encode([picture(10, 20)], "upload")
    assert len(values) == 1
    assert values[0].shape == (8, 8, 3)
    assert size == (10, 20)


def test_an_error_of_a_prediction_names_item_and_stage():
    encoder = SampleEncoder((ImageBlock(), CategoryBlock(("a",))))
    with pytest.raises(ItemError, match=r"^upload: the file does not exist \(stage: open of ImageBlock\)$"):
        encoder.encode([Path("nowhere.png")], "upload")
    with pytest.raises(ItemError, match=r"\(stage: encode of CategoryBlock\)$"):
        encoder.encode([np.zeros((2, 2), np.uint8), "b"], "upload")
