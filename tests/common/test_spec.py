"""Specs: what is registered goes to JSON and back, and every error names the field."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from common.augment import Augment, CutMix, Mixup, Mosaic, Normalize, SpecAugment, SpectrogramImage
from common.blocks.columns import Column
from common.data import (
    BBoxBlock,
    CategoryBlock,
    ColumnsBlock,
    ImageBlock,
    InstanceBlock,
    MaskBlock,
    MultiCategoryBlock,
    PointBlock,
    RandomResizedCrop,
    RegressionBlock,
    Resize,
    SignalBlock,
    SpectrogramBlock,
    TextBlock,
)
from common.errors import ConfigError
from common.files import dump_json
from common.registry import names, resolve
from common.spec import build, coerce, from_spec, to_spec

EXAMPLES = {
    "block": [
        CategoryBlock(("cat", "dog")),
        MultiCategoryBlock(("car", "person")),
        RegressionBlock(),
        ColumnsBlock(("age",), ("town",), texts=("note",), infer=True, buckets=99, most_ngrams=7),
        ColumnsBlock(
            ("age",),
            columns=(
                Column("age", "number", "given", ("value",), (1.5,), (2.0,)),
                Column("town", "category", levels=("A", "B")),
            ),
            ngrams=3,
        ),
        ImageBlock(),
        ImageBlock("L", (0.25,), (0.5,)),
        MaskBlock(("sky", "ground"), 255),
        MaskBlock(("off", "on"), None, (0, 255), ((0, 0, 0), (255, 0, 0))),
        BBoxBlock(("cat",)),
        InstanceBlock(),
        PointBlock(),
        TextBlock("char", ("<pad>", "<unk>", "é"), 1, 7),
        SignalBlock(16000),
        SpectrogramBlock(64),
    ],
    "item_transform": [
        Resize(128),
        Resize((64, 96), "pad", "zeros"),
        RandomResizedCrop((64, 96), 0.3, (0.5, 2.0), 0.9),
    ],
    "batch_transform": [
        Augment(),
        Augment(
            flip=True, flip_vertical=True, rotate=10, zoom=1.2, zoom_least=0.9, warp=0.1, size=(8, 9), min_scale=0.5
        ),
        Mixup(0.3),
        CutMix(0.7, 0.2),
        Mosaic(0.3),
        SpecAugment(time_mask=0.3, shift=0.1, gain=3.0),
        SpectrogramImage(-20.0, 10.0),
        Normalize((0.1,), (0.2,)),
    ],
}
CASES = [(group, value) for group, values in EXAMPLES.items() for value in values]


def ours(group):
    """The names that this package registers; the applications' own are tested beside them."""
    return {name for name in names(group) if resolve(group, name).__module__.startswith("common.")}


@pytest.mark.parametrize("group", EXAMPLES)
def test_every_registered_class_has_an_example_here(group):
    assert {value.registered_name for value in EXAMPLES[group]} == ours(group)


@pytest.mark.parametrize(("group", "value"), CASES)
def test_spec_roundtrip_through_json_is_identity(group, value):
    spec = json.loads(dump_json(to_spec(value)))
    again = from_spec(group, spec, "here")
    assert type(again) is type(value)
    assert again == value
    assert to_spec(again) == to_spec(value)


@pytest.mark.parametrize(("group", "value"), CASES)
def test_spec_names_the_kind_and_every_field(group, value):
    spec = to_spec(value)
    assert spec.pop("kind") == value.registered_name
    assert set(spec) == {f.name for f in dataclasses.fields(value) if f.init}


@pytest.mark.parametrize(("group", "value"), CASES)
def test_a_wrong_type_in_any_field_names_that_field(group, value):
    for field in dataclasses.fields(value):
        for wrong in ({"no": 1}, object()):
            spec = {**to_spec(value), field.name: wrong}
            with pytest.raises(ConfigError, match=rf"blocks\[0\]\.{field.name} must be"):
                from_spec(group, spec, "blocks[0]")


@pytest.mark.parametrize(("group", "value"), CASES)
def test_an_unknown_field_is_named(group, value):
    with pytest.raises(ConfigError, match="here has no field 'surprise'"):
        from_spec(group, {**to_spec(value), "surprise": 1}, "here")


def test_a_misspelt_field_answers_with_the_near_one():
    with pytest.raises(ConfigError, match="did you mean 'vocab'"):
        from_spec("block", {"kind": "category", "vocabs": []}, "here")


def test_a_missing_field_is_named():
    with pytest.raises(ConfigError, match=r"item_tfms\[1\] lacks the field 'size'"):
        from_spec("item_transform", {"kind": "resize"}, "item_tfms[1]")


def test_a_missing_kind_is_refused():
    with pytest.raises(ConfigError, match="no block is named None"):
        from_spec("block", {"vocab": []}, "here")


@pytest.mark.parametrize("wrong", [None, [], "category", 3])
def test_what_is_not_an_object_is_refused(wrong):
    with pytest.raises(ConfigError, match="here must be an object"):
        from_spec("block", wrong, "here")


def test_a_value_out_of_range_is_refused_when_read_back():
    with pytest.raises(ConfigError, match="size must lie in"):
        from_spec("item_transform", {"kind": "resize", "size": 0}, "here")


@pytest.mark.parametrize("wrong", [lambda: 0, {1, 2}, b"x", object()])
def test_what_json_cannot_hold_is_refused(wrong):
    with pytest.raises(ConfigError, match="a spec holds plain data only"):
        to_spec({"a": [wrong]})


@dataclass(frozen=True)
class Inner:
    a: int = 1


@dataclass(frozen=True)
class Outer:
    inner: Inner
    pair: tuple[int, str] = (1, "x")
    table: dict[str, float] = dataclasses.field(default_factory=dict)
    choice: Literal["near", "far"] = "near"
    maybe: float | None = None
    anything: Any = None


def test_nested_dataclasses_dictionaries_and_unions_are_built():
    fields = {"inner": {"a": 2}, "pair": [3, "y"], "table": {"k": 4}, "choice": "far", "maybe": 5, "anything": [6]}
    made = build(Outer, fields, "here")
    assert made == Outer(Inner(2), (3, "y"), {"k": 4.0}, "far", 5.0, [6])
    assert isinstance(made.table["k"], float)
    assert isinstance(made.maybe, float)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inner": {"a": "2"}}, r"here\.inner\.a must be int, got str '2'"),
        ({"inner": {"b": 2}}, r"here\.inner has no field 'b'"),
        ({"inner": {}, "pair": [1]}, r"here\.pair must have 2 entries, got 1"),
        ({"inner": {}, "pair": [1, 2]}, r"here\.pair\[1\] must be str"),
        ({"inner": {}, "table": {"k": "v"}}, r"here\.table\.k must be float"),
        ({"inner": {}, "choice": "middle"}, r"here\.choice must be .*got str 'middle'"),
        ({"inner": {}, "maybe": "1"}, r"here\.maybe must be float or None"),
        ({}, "here lacks the field 'inner'"),
    ],
)
def test_an_error_inside_names_the_whole_path(fields, message):
    with pytest.raises(ConfigError, match=message):
        build(Outer, fields, "here")


@pytest.mark.parametrize(("value", "hint"), [(True, int), (True, float), (1, bool), (1.5, int), ("1", float), (1, str)])
def test_no_type_passes_for_another(value, hint):
    with pytest.raises(ConfigError, match=f"here must be {hint.__name__}"):
        coerce(value, hint, "here")


def test_an_integer_becomes_the_float_that_is_declared():
    made = coerce(3, float, "here")
    assert isinstance(made, float)
    assert made == 3.0
