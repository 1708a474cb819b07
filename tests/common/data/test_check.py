"""check() finds every fault planted in the data, and plan() names every step."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from common.augment import Augment, Mixup
from common.blocks.values import Padded, Ragged
from common.data import (
    CategoryBlock,
    ColReader,
    ColumnsBlock,
    DataBlock,
    ImageBlock,
    IndexSplitter,
    MultiCategoryBlock,
    RandomResizedCrop,
    RegressionBlock,
    Resize,
    SignalBlock,
    TextBlock,
    get_image_files,
    parent_label,
)
from common.data.check import describe

BLOCK = DataBlock(
    (ImageBlock, CategoryBlock),
    get_image_files,
    get_y=parent_label,
    item_tfms=Resize(16),
    batch_tfms=[Augment(flip=True, rotate=10, brightness=0.1, size=12)],
)


def on_side(name):
    """A splitter that puts the files whose number is below 2 into the validation part."""
    return BLOCK.new(splitter=lambda items: split_by(items, lambda p: int(p.stem.split("_")[1]) < 2), **name)


def split_by(items, validates):
    sides = [bool(validates(item)) for item in items]
    return [i for i, v in enumerate(sides) if not v], [i for i, v in enumerate(sides) if v]


@pytest.fixture
def root(photo_folder):
    return photo_folder({"cat": 6, "dog": 6})


def test_good_data_is_ok(root):
    report = on_side({}).check(root, bs=4)
    assert report.ok
    assert report.counts == {"train": 8, "valid": 4}
    assert report.classes == {"train": {"cat": 4, "dog": 4}, "valid": {"cat": 2, "dog": 2}}
    assert (report.failures, report.leaks, report.duplicates, report.warnings) == ([], [], [], [])
    assert str(report).endswith("\nok")


def test_the_stages_are_those_of_the_real_path(root):
    stages = dict(on_side({}).check(root, bs=4).stages)
    assert stages["batch as kept, x"] == "uint8 (4, 16, 16, 3)"
    assert stages["batch as kept, y"] == "int64 (4,)"
    assert stages["batch to the model, x"] == "float32 (4, 3, 12, 12)"
    assert "cat_2.png" in stages["item"]
    assert "Image" in stages["opened by ImageBlock"]


def test_broken_files_are_all_found(root):
    (root / "cat/cat_3.png").write_bytes(b"no image at all")
    (root / "dog/dog_0.png").write_bytes(b"")
    report = on_side({}).check(root)
    assert not report.ok
    assert sorted(f.item for f in report.failures) == [str(root / "cat/cat_3.png"), str(root / "dog/dog_0.png")]
    assert {f.stage for f in report.failures} == {"open of ImageBlock"}
    assert "unusable: " + str(root / "cat/cat_3.png") in str(report)
    assert str(report).endswith("2 unusable, 0 leaks")


def test_identical_bytes_on_both_sides_are_a_leak(root):
    shutil.copy(root / "cat/cat_0.png", root / "cat/cat_9.png")
    report = on_side({}).check(root)
    assert not report.ok
    assert [sorted(group) for group in report.leaks] == [[str(root / "cat/cat_0.png"), str(root / "cat/cat_9.png")]]
    assert report.duplicates == []
    assert "same content in different parts" in str(report)


def test_identical_bytes_on_one_side_are_a_duplicate_and_no_leak(root):
    shutil.copy(root / "cat/cat_4.png", root / "dog/dog_9.png")
    report = on_side({}).check(root)
    assert report.ok
    assert [sorted(group) for group in report.duplicates] == [
        [str(root / "cat/cat_4.png"), str(root / "dog/dog_9.png")]
    ]


def test_the_same_photo_under_two_labels_is_a_warning_that_names_both(root):
    shutil.copy(root / "cat/cat_4.png", root / "dog/dog_9.png")
    report = on_side({}).check(root)
    assert report.warnings == [
        f"same content, different labels: {root / 'cat/cat_4.png'} is 'cat', {root / 'dog/dog_9.png'} is 'dog'"
    ]


TEXTS = ["A red rose", "two", "a  red ROSE", "three", "two", "x" * 5000]


def test_equal_texts_are_found_whatever_their_case_and_blanks():
    frame = pd.DataFrame({"text": TEXTS, "y": list("abacba")})
    block = DataBlock(
        (TextBlock(min_count=1), CategoryBlock), get_x=ColReader("text"), get_y=ColReader("y"),
        splitter=IndexSplitter([2]),
    )  # fmt: skip
    report = block.check(frame)
    assert (report.leaks, report.duplicates) == ([["row 0", "row 2"]], [["row 1", "row 4"]])
    assert report.warnings == ["valid lacks the classes b, c"]
    report = block.check(frame.assign(y=list("acbabc")), limit=None)
    assert "same content, different labels: row 0 is 'a', row 2 is 'b'" in report.warnings
    assert "same content, different labels: row 1 is 'c', row 4 is 'b'" in report.warnings


def test_a_text_that_is_called_like_a_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"the same")
    block = DataBlock((TextBlock(min_count=1), RegressionBlock), get_x=str, get_y=len, splitter=IndexSplitter([0]))
    assert block.check(["one", "two", "six"]).leaks == []


def test_equal_rows_of_a_table_are_found_by_the_columns_that_are_used():
    frame = pd.DataFrame(
        {"id": range(5), "a": [1.0, np.nan, 1.0, 2.0, np.nan], "b": list("xyxxy"), "y": [1.0, 2.0, 1.0, 3.0, 4.0]}
    )
    block = DataBlock(
        (ColumnsBlock(numbers=("a",), categories=("b",)), RegressionBlock), get_y=ColReader("y"),
        splitter=IndexSplitter([2]),
    )  # fmt: skip
    report = block.check(frame)
    assert (report.leaks, report.duplicates) == ([["row 0", "row 2"]], [["row 1", "row 4"]])
    assert report.warnings == ["same content, different labels: row 1 is 2.0, row 4 is 4.0"]


def test_items_are_the_same_only_where_every_input_is():
    rows = [(1, "a", 0), (1, "b", 0), (2, "a", 0), (1, "a", 0)]
    block = DataBlock(
        (RegressionBlock, TextBlock(min_count=1), RegressionBlock), n_inp=2, splitter=IndexSplitter([3]),
        get_x=[lambda r: r[0], lambda r: r[1]], get_y=lambda r: r[2],
    )  # fmt: skip
    assert block.check(rows).leaks == [["item 0", "item 3"]]


def test_equal_sounds_are_found_as_arrays_and_as_files(tmp_path):
    sounds = [np.zeros(4, np.float32), np.ones(4, np.float32), np.zeros(4, np.float32), np.zeros(5, np.float32)]
    block = DataBlock(
        (SignalBlock, RegressionBlock), get_x=lambda i: sounds[i], get_y=float, splitter=IndexSplitter([2])
    )
    assert block.check(range(4)).leaks == [["item 0", "item 2"]]


def test_many_equal_items_with_different_labels_are_counted_not_all_told():
    frame = pd.DataFrame({"text": [f"text {i // 2}" for i in range(60)], "y": list("ab") * 30})
    block = DataBlock(
        (TextBlock(min_count=1), CategoryBlock), get_x=ColReader("text"), get_y=ColReader("y"),
        splitter=IndexSplitter(range(60)[::7]),
    )  # fmt: skip
    warnings = block.check(frame).warnings
    assert len(warnings) == 21
    assert warnings[-1] == "same content, different labels: 10 more groups of items"


def test_a_class_missing_from_validation_is_a_warning(root):
    block = BLOCK.new(splitter=lambda items: split_by(items, lambda p: p.parent.name == "cat" and p.stem < "cat_2"))
    report = block.check(root)
    assert report.warnings == ["valid lacks the classes dog"]
    assert report.ok


def test_a_class_missing_from_training_is_found(root):
    block = BLOCK.new(splitter=lambda items: split_by(items, lambda p: p.parent.name == "dog" or p.stem == "cat_0"))
    report = block.check(root)
    assert not report.ok
    assert "valid has classes that train has not: dog" in report.warnings
    assert "there is only one class: cat" in report.warnings
    assert "dog" in report.failures[0].item


def test_a_single_class_is_a_warning(photo_folder):
    report = on_side({}).check(photo_folder({"cat": 5}))
    assert report.warnings == ["there is only one class: cat"]


def test_differing_sizes_are_found_with_the_remedy(root):
    report = on_side({"item_tfms": None}).check(root)
    assert not report.ok
    assert report.failures[0].stage == "collate"
    assert "Resize" in report.failures[0].reason
    assert report.failures[0].item.endswith(".png")


def test_a_limit_walks_fewer_items(root):
    for path in sorted(root.rglob("*.png"))[6:]:
        path.write_bytes(b"")
    assert len(on_side({}).check(root).failures) == 6
    assert len(on_side({}).check(root, limit=5).failures) == 1


def test_the_labels_of_several_are_counted_in_any_collection():
    for kind in (list, tuple, np.array):
        block = DataBlock(
            (RegressionBlock, MultiCategoryBlock),
            get_x=float,
            get_y=lambda i, k=kind: k(["a", "b"]) if i % 2 else k(["a"]),
        )
        report = block.new(splitter=IndexSplitter([0, 1])).check(range(6))
        assert report.classes == {"train": {"a": 4, "b": 2}, "valid": {"a": 2, "b": 1}}
        assert report.warnings == []


def test_tables_are_checked():
    frame = pd.DataFrame({"x": np.arange(6.0), "y": list("ababab")})
    block = DataBlock((RegressionBlock, CategoryBlock), get_x=ColReader("x"), get_y=ColReader("y"))
    assert block.check(frame).ok
    report = block.check(frame.assign(x=["0", "1", "two", "3", "4", "5"]))
    assert not report.ok
    assert [(f.item, f.stage) for f in report.failures] == [("row 2", "encode of RegressionBlock")]


def test_summary_prints_the_report(root, capsys):
    on_side({}).summary(root)
    assert capsys.readouterr().out.rstrip().endswith("ok")


def test_the_plan_names_every_step(root):
    block = on_side({"batch_tfms": [*BLOCK.batch_tfms, Mixup()]})
    plan = block.plan(root, bs=4)
    text = str(plan)
    for word in (
        "ImageBlock",
        "CategoryBlock",
        "Resize",
        "crop",
        "flip_horizontal",
        "rotate",
        "brightness",
        "normalise",
        "mixup",
    ):
        assert word in text, word
    assert plan.bytes_kept == 12 * 16 * 16 * 3
    assert plan.bytes_working > 4 * 4 * 3 * 4  # at least the batches under way


def test_the_plan_says_where_items_are_kept_and_what_does_not_fit(root, tmp_path):
    block = on_side({})
    assert "memory" in str(block.plan(root))
    assert str(tmp_path) in str(block.plan(root, cache_dir=tmp_path))
    assert "50% of them" in str(block.plan(root, cache_bytes=6 * 16 * 16 * 3))
    assert "pinned" in str(block.plan(root, device="cuda"))
    assert "the caller" in str(block.plan(root, num_workers=0))


def test_the_working_memory_that_the_plan_states_is_not_exceeded(tmp_path):
    """The most that tensors and arrays take at once during an epoch of photos, beside what is kept."""
    rng = np.random.default_rng(0)
    for i in range(96):
        pixels = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i:02d}.jpg")
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_image_files,
        get_y=lambda path: str(int(path.stem) % 3),
        splitter=IndexSplitter([0]),
        item_tfms=RandomResizedCrop(96),
    )
    plan = block.plan(tmp_path, bs=8)
    dls = block.dataloaders(tmp_path, bs=8)
    for epoch in range(3):
        for _ in dls.train.batches(epoch):
            assert dls.train.buffers.bytes <= plan.bytes_working


@pytest.mark.parametrize("bs", [3, 4, 8, 64])
def test_the_plan_counts_the_batches_that_the_loader_gives(root, bs):
    plan = on_side({}).plan(root, bs=bs)
    batches = len(on_side({}).dataloaders(root, bs=bs).train)
    assert plan.steps[-1][2] == f"{batches} a training epoch"


def test_what_is_padded_is_described_by_its_tensors():
    padded = Padded({"boxes": torch.zeros(2, 3, 4)}, torch.ones(2, 3, dtype=torch.bool))
    assert describe(padded) == "boxes: float32 (2, 3, 4), valid: bool (2, 3)"
    flat = Ragged(torch.zeros(5, dtype=torch.int32), torch.tensor([0, 2, 5]))
    assert describe(flat) == "int32 (5,), offsets: int64 (3,)"
