"""The contract of every registered block, and the plain targets."""

from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from common.blocks.values import Padded, map_tensors
from common.data import (
    BBoxBlock,
    Block,
    CategoryBlock,
    ColumnsBlock,
    DataBlock,
    EpochSeed,
    ImageBlock,
    IndexSplitter,
    InstanceBlock,
    MaskBlock,
    MultiCategoryBlock,
    Objects,
    PointBlock,
    RegressionBlock,
    SignalBlock,
    SpectrogramBlock,
    TextBlock,
)
from common.errors import ConfigError, CookbookError, DataError, ItemError
from common.files import dump_json
from common.registry import names, resolve
from common.spec import from_spec

PIXELS = (np.arange(6 * 8 * 3) % 251).reshape(6, 8, 3).astype(np.uint8)
IDS = (np.arange(48) % 5).reshape(6, 8).astype(np.uint8)
SOUND = np.linspace(-1, 1, 11, dtype=np.float32)
B = 4


@dataclass
class Case:
    """A block, raw values of a training set of four, and the shapes in a batch of all four."""

    template: Block
    raws: list[Any]
    shapes: Any


THING = Objects([[1, 1, 5, 4]], ["cat"], [[(1, 1), (5, 1), (5, 4), (1, 4)]], size=(6, 8))
NOTHING = Objects(shapes=[], size=(6, 8))
CASES = {
    "category": Case(CategoryBlock(), ["b", "a", "b", "c"], (B,)),
    "multi_category": Case(MultiCategoryBlock(), [["a"], ["b", "c"], [], ["a"]], (B, 3)),
    "number": Case(RegressionBlock(), [1.0, 2.5, -3.0, 0.0], (B,)),
    "columns": Case(
        ColumnsBlock(numbers=("age", "pay"), categories=("town",), dates=("day",)),
        [{"age": 1.0 + i, "pay": 4.0 - i * i, "town": "AB"[i % 2], "day": f"2024-0{i + 1}-09"} for i in range(4)],
        {"numbers": (B, 8), "missing": (B, 8), "categories": (B, 1), "text": (B, 0)},
    ),
    "image": Case(ImageBlock(), [PIXELS, PIXELS + 1, PIXELS + 2, PIXELS + 3], (B, 3, 6, 8)),
    "mask": Case(MaskBlock(), [IDS, IDS, IDS, IDS], (B, 6, 8)),
    "boxes": Case(
        BBoxBlock(),
        [
            ([[0, 0, 4, 2], [1, 1, 3, 3]], ["cat", "dog"]),
            ([], []),
            ([[2, 2, 5, 5]], ["dog"]),
            ([[0, 1, 2, 3]], ["cat"]),
        ],
        ({"boxes": (B, 2, 4), "labels": (B, 2)}, (B, 2)),
    ),
    "instances": Case(InstanceBlock(), [THING, NOTHING, THING, NOTHING], (B, 6, 8)),
    "points": Case(PointBlock(), [[[1.0, 2.0], [3.5, 4.0]]] * 4, (B, 2, 2)),
    "text": Case(TextBlock(min_count=1), ["a rose is", "a", "red rose", "is it"], ((B, 3), (B, 3))),
    "spectrogram": Case(
        SpectrogramBlock(),
        [np.arange(3.0 * n).reshape(3, n) for n in (5, 2, 4, 5)],
        ((B, 5, 3), (B, 5)),
    ),
    "signal": Case(SignalBlock(), [SOUND, SOUND[:3], SOUND[:7], SOUND], ((B, 11), (B, 11))),
}
EVERY = pytest.mark.parametrize("name", CASES)


def fitted(name):
    case = CASES[name]
    return case.template.setup(case.raws)


def plain(value):
    """A raw or encoded value as plain lists, to compare."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    return value.tolist() if isinstance(value, (np.ndarray, torch.Tensor, np.generic)) else value


def alike(found, wanted):
    """Whether a decoded value is the raw one; numbers of a table go through float32."""
    if isinstance(wanted, Objects):  # which thing each pixel is of: the shapes themselves are not kept
        return plain(found) == plain(InstanceBlock().encode(wanted))
    if isinstance(wanted, dict):
        return found == pytest.approx(wanted, abs=1e-6)
    return plain(found) == plain(wanted)


def shapes(value):
    if isinstance(value, Padded):
        return shapes(value.values), shapes(value.valid)
    return {k: tuple(v.shape) for k, v in value.items()} if isinstance(value, dict) else tuple(value.shape)


def test_every_registered_block_is_tested_here():
    ours = {name for name in names("block") if resolve("block", name).__module__.startswith("common.")}
    assert set(CASES) == ours


@EVERY
def test_spec_roundtrip_of_a_fitted_block_is_identity(name):
    block = fitted(name)
    spec = block.spec()
    assert spec["kind"] == name
    dump_json(spec)
    assert from_spec("block", spec, "block") == block


@EVERY
def test_setup_returns_a_copy_and_leaves_the_template_unfitted(name):
    case = CASES[name]
    before = case.template.spec()
    block = case.template.setup(case.raws)
    assert case.template.spec() == before
    assert (block.spec() != before) == case.template.needs_fit


@EVERY
def test_a_fitted_block_cannot_be_changed(name):
    block = fitted(name)
    for field in block.spec():
        with pytest.raises(AttributeError):
            setattr(block, field, None)


@EVERY
def test_encode_is_deterministic(name):
    for raw in CASES[name].raws:
        assert plain(fitted(name).encode(raw)) == plain(fitted(name).encode(raw))


@EVERY
def test_decode_reverses_encode(name):
    block = fitted(name)
    for raw in CASES[name].raws:
        assert alike(block.decode(block.encode(raw)), raw)


@EVERY
def test_many_encode_as_one_by_one(name):
    block = fitted(name)
    if block.ragged:
        pytest.skip("values of different lengths are kept flat, not stacked")
    many = block.encode_many(CASES[name].raws)
    for i, raw in enumerate(CASES[name].raws):
        one = block.encode(raw)
        picked = {k: v[i] for k, v in many.items()} if isinstance(many, dict) else many[i]
        assert plain(picked) == plain(one)


@EVERY
def test_a_loader_gives_the_documented_shapes(name, same):
    case = CASES[name]
    block = DataBlock(
        (case.template, RegressionBlock), get_x=lambda i: case.raws[i % 4], get_y=float, splitter=IndexSplitter([4])
    )
    dls = block.dataloaders(range(5), bs=B, num_workers=0)
    assert dls.blocks[0] == fitted(name)
    batch = dls.train.one_batch()
    assert shapes(batch.x) == case.shapes
    assert len(batch) == B
    assert batch.y.tolist() == [float(i) for i in batch.ids]
    for i, sample in enumerate(batch.ids.tolist()):
        value = map_tensors(batch.x, lambda tensor, i=i: tensor[i])
        assert alike(dls.blocks[0].decode(value), case.raws[sample])


@EVERY
def test_collate_of_a_plain_block_changes_nothing(name, same):
    block = fitted(name)
    value = torch.zeros(2, 3)
    assert block.collate(value, torch.arange(2), EpochSeed()) is value


@EVERY
def test_draw_puts_something_on_the_axes(name):
    block = fitted(name)
    figure, axes = plt.subplots()
    empty = len(axes.get_children())
    block.draw(axes, block.encode(CASES[name].raws[0]))
    assert len(axes.get_children()) > empty or axes.get_title()
    plt.close(figure)


@EVERY
def test_a_block_that_needs_fitting_says_so_before(name):
    template = CASES[name].template
    if not template.needs_fit:
        pytest.skip("nothing to fit")
    with pytest.raises(ConfigError, match="is not fitted"):
        template.encode(CASES[name].raws[0])


def test_vocab_is_sorted_with_numbers_in_their_order():
    assert CategoryBlock().setup(["b", 10, "2", "a", 2]).vocab == ("2", "10", "a", "b")


def test_a_category_of_any_written_digit_is_a_name():
    assert CategoryBlock().setup(["m²", "²", "1"]).vocab[0] == "1"


def test_a_given_vocab_is_kept():
    assert CategoryBlock(("z", "a")).setup(["a"]).vocab == ("z", "a")


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT])
def test_a_missing_label_is_an_error(missing):
    with pytest.raises(DataError, match="the label is missing"):
        CategoryBlock().setup(["a", missing])
    with pytest.raises(DataError, match="the label is missing"):
        CategoryBlock(("a",)).encode(missing)


def test_an_unknown_label_answers_with_the_near_one():
    with pytest.raises(DataError, match="label 'grizly' is not among the 2 training classes: did you mean 'grizzly'"):
        CategoryBlock(("black", "grizzly")).encode("grizly")


@pytest.mark.parametrize("wrong", ["car", 3, None])
def test_several_labels_must_be_a_list(wrong):
    with pytest.raises(DataError, match="must be a list of names"):
        MultiCategoryBlock(("car",)).encode(wrong)


@pytest.mark.parametrize("many", [["a", "c"], ("a", "c"), {"a", "c"}, np.array(["a", "c"])])
def test_several_labels_come_in_any_collection(many):
    assert MultiCategoryBlock(("a", "b", "c")).encode(many).tolist() == [1.0, 0.0, 1.0]


def test_a_number_may_be_text_or_a_row():
    assert RegressionBlock().encode("2.5").item() == 2.5
    assert RegressionBlock().encode([1, 2]).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("wrong", ["much", None, float("nan"), float("inf"), pd.NA, [1, None]])
def test_what_is_no_finite_number_is_refused(wrong):
    with pytest.raises(DataError, match="not a"):
        RegressionBlock().encode(wrong)


def test_a_validation_label_that_training_lacks_names_its_item():
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "y": ["a", "b", "c"]}, index=[7, 8, 9])
    block = DataBlock(
        (RegressionBlock, CategoryBlock), get_x=lambda r: r["x"], get_y=lambda r: r["y"], splitter=IndexSplitter([2])
    )
    with pytest.raises(ItemError, match="row 9: the label 'c' is not among the 2 training classes"):
        block.dataloaders(frame)


@pytest.mark.parametrize("kind", [RegressionBlock, TextBlock])
def test_a_forgotten_get_x_of_a_table_is_explained(kind):
    frame = pd.DataFrame({"text": ["a b", "b c", "c d"], "y": [1.0, 2.0, 3.0]})
    block = DataBlock((kind, RegressionBlock), get_y=lambda r: r["y"], splitter=IndexSplitter([0]))
    with pytest.raises(CookbookError):
        block.dataloaders(frame)
