"""What every registered block promises to forms, leak checks and bundles."""

import base64
import io
import json
import time
import wave

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from common.blocks.content import content_digest
from common.blocks.form import MAX_FILE_BYTES, MAX_TEXT, FormField
from common.data import (
    BBoxBlock,
    Block,
    CategoryBlock,
    ColumnsBlock,
    ImageBlock,
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
from common.errors import ConfigError, CookbookError, DataError
from common.files import dump_json
from common.registry import names, resolve
from common.spec import from_spec, to_spec
from common.text import Tokenizer


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def wav(samples, rate_hz=8000):
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate_hz)
        sound.writeframes(np.asarray(samples, "<i2").tobytes())
    return out.getvalue()


def npy(array):
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def b64(data):
    return base64.b64encode(data).decode("ascii")


PHOTO = png((np.arange(6 * 8 * 3) % 251).reshape(6, 8, 3).astype(np.uint8))
IDS = png((np.arange(48) % 5).reshape(6, 8).astype(np.uint8))
SOUND = wav([0, 16384, -16384])
FRAME = pd.DataFrame(
    {
        "age": [1.0, 3.0, 2.0, 9.0],
        "town": ["Berlin", "Bonn", "Berlin", "Bonn"],
        "day": ["2024-02-29", "2024-01-01", None, "2023-05-06"],
        "said": ["a red rose", "two", "x", "y"],
        "new": [True, False, True, True],
        "id": [1, 2, 3, 4],
    }
)
COLUMNS = ColumnsBlock(
    numbers=("age",), categories=("town",), dates=("day",), texts=("said",), ignore=("id",), infer=True
).setup(FRAME)
THINGS = {"boxes": [[1, 1, 5, 4]], "labels": ["cat"], "shapes": [[[1, 1, 5, 1, 5, 4]]], "size": [6, 8]}
ENTRIES = {  # a fitted block, what JSON or an upload holds, the kind of its form's first field
    "category": (CategoryBlock(("cat", "dog")), ("dog", None), "choice"),
    "multi_category": (MultiCategoryBlock(("cat", "dog")), (["dog"], None), "choices"),
    "number": (RegressionBlock(), ("2.5", None), "number"),
    "columns": (COLUMNS, ({"age": 2, "town": "Bonn"}, None), "number"),
    "image": (ImageBlock(), (None, PHOTO), "file"),
    "mask": (MaskBlock(), (None, IDS), "file"),
    "boxes": (BBoxBlock(("cat", "dog")), ({"boxes": [[0, 0, 4, 2]], "labels": ["cat"]}, None), "boxes"),
    "instances": (InstanceBlock(), (THINGS, None), "shapes"),
    "points": (PointBlock(), ([[1, 2.5]], None), "points"),
    "text": (TextBlock(vocab=("<pad>", "<unk>", "rose")), ("a rose", None), "text"),
    "signal": (SignalBlock(), (None, SOUND), "file"),
    "spectrogram": (SpectrogramBlock(), (None, npy(np.ones((3, 5)))), "file"),
}
EVERY = pytest.mark.parametrize("name", ENTRIES)
WRONG = [
    None,
    "",
    "photo.jpg",
    "/etc/passwd",
    3.5,
    True,
    [],
    [[]],
    ["x"],
    {},
    {"x": 1},
    float("nan"),
    "ß" * 300,
    [None],
]


def test_every_registered_block_is_tested_here():
    ours = {name for name in names("block") if resolve("block", name).__module__.startswith("common.")}
    assert set(ENTRIES) == ours


@EVERY
def test_a_form_is_plain_data_that_json_holds(name):
    block, _, kind = ENTRIES[name]
    form = block.form()
    assert form
    assert form[0].kind == kind
    assert all(isinstance(field, FormField) for field in form)
    data = json.loads(dump_json(to_spec(form)))
    assert [field["name"] for field in data] == [field.name for field in form]
    assert len({field.name for field in form}) == len(form)


@EVERY
def test_an_entry_becomes_a_raw_value_that_encode_takes(name):
    block, (value, data), _ = ENTRIES[name]
    raw = block.parse(value, data)
    block.encode(raw)
    assert block.token(raw) == block.token(block.parse(value, data))


@EVERY
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: repr(wrong)[:12])
def test_whatever_json_holds_is_a_raw_value_or_a_sentence(name, wrong):
    block = ENTRIES[name][0]
    said = ""
    try:
        block.encode(block.parse(wrong))
    except CookbookError as error:
        said = str(error)
    assert len(said) < 400


@EVERY
def test_the_name_of_a_field_is_the_one_that_is_given(name):
    block = ENTRIES[name][0]
    wanted = [field.name for field in block.form()] if name == "columns" else ["left photo"]
    assert [field.name for field in block.form("left photo")] == wanted


@EVERY
def test_a_block_without_files_gives_none_and_takes_none(name):
    block = ENTRIES[name][0]
    assert (block.files(), block.missing_files()) == ({}, ())
    assert block.load_files({}) == block
    with pytest.raises(ConfigError, match="has no file 'x.json'"):
        block.load_files({"x.json": b"{}"})


def test_a_block_that_takes_no_entries_says_so():
    class Own(Block):
        pass

    assert Own().form() == ()
    with pytest.raises(DataError, match="Own takes nothing from a form"):
        Own().parse(1)


# --------------------------------------------------------------------- form


def test_a_table_has_one_field_a_used_column():
    form = {field.name: field for field in COLUMNS.form()}
    assert {name: field.kind for name, field in form.items()} == {
        "age": "number",
        "town": "choice",
        "day": "date",
        "said": "text",
        "new": "boolean",
    }
    assert form["town"].choices == ("Berlin", "Bonn")
    assert not form["town"].open
    assert (form["age"].low, form["age"].high) == (None, None)
    assert not any(field.required for field in form.values())


def test_a_column_of_many_levels_is_open():
    block = ColumnsBlock(infer=True).setup(pd.DataFrame({"zip": [f"z{i % 60}" for i in range(180)]}))
    assert block.form()[0].open
    assert block.parse({"zip": "z999"}) == {"zip": "z999"}


def test_an_unfitted_block_says_so():
    for template in (ColumnsBlock(), CategoryBlock(), BBoxBlock()):
        with pytest.raises(ConfigError, match="not fitted"):
            template.parse({})


# -------------------------------------------------------------------- parse


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("category", "dgo", r"one of 2 choices, got 'dgo': did you mean 'dog'\?"),
        ("category", ["dog"], "one of 2 choices, got list"),
        ("multi_category", "dog", "must be a list, got str 'dog'"),
        ("multi_category", ["dog", "cta"], "category 1 of the list .* did you mean 'cat'"),
        ("number", "much", "must be a number such as 2.5, got str 'much'"),
        ("number", True, "must be a number, got bool True"),
        ("number", float("inf"), "must be a finite number"),
        ("number", 1e300, "at most 3.4e"),
        ("number", 10**400, "must be a number"),
        ("number", [], "must have at least one"),
        ("image", "photo.jpg", "base64 text, got 'photo.jpg' .no path is opened"),
        ("image", b64(b"no image at all"), "not an image in a format that is read here"),
        ("image", None, "uploaded file or its bytes as base64 text, got NoneType"),
        ("image", "data:text/plain,x", "must hold base64"),
        ("image", "", "must not be empty"),
        ("signal", "sound.wav", "no path is opened"),
        ("signal", b64(b"RIFF"), "cannot be read as a WAV file"),
        ("signal", [0.1, "x"], "sample 1 of a sound must be a number"),
        ("spectrogram", [[1, 2], [3]], "differ in length"),
        ("spectrogram", b64(npy(np.array([print], dtype=object))), "cannot be read as a NumPy file"),
        ("spectrogram", b64(npy(np.array(["a"]))), "must hold real numbers"),
        ("text", 3, "must be a string, got int 3"),
        ("text", "x" * (MAX_TEXT + 1), "at most 4,194,304 signs"),
        ("points", [[1, 2, 3]], r"points\[0\] must have 2 numbers, got 3"),
        ("boxes", {"boxes": [[0, 0, 1, 1]], "labels": ["cta"]}, r"labels\[0\] .* did you mean 'cat'"),
        ("boxes", {"boxes": [[0, 0, 1]], "labels": ["cat"]}, r"boxes\[0\] must have 4 numbers"),
        ("boxes", {"boxes": [[0, 0, 1, 1]], "labels": []}, "1 boxes but 0 labels"),
        ("boxes", {"box": []}, "did you mean 'boxes'"),
        ("boxes", {"labels": []}, "things must have boxes"),
        ("instances", {**THINGS, "size": [6.5, 8]}, "whole pixels"),
        ("instances", {**THINGS, "shapes": [["a"]]}, r"shapes\[0\] must be polygons"),
        ("instances", {**THINGS, "shapes": [{"size": [9, 9], "counts": [81]}]}, "size of the image"),
        ("columns", [1], "must be an object of names and values, got list"),
        ("columns", {"towm": "Bonn"}, "no 'towm': did you mean 'town'"),
        ("columns", {"age": "old"}, "the column 'age' must be a number such as 2.5, got str 'old'"),
        ("columns", {"age": [1]}, "the column 'age' must be a number, got list"),
        ("columns", {"town": "Berln"}, "the column 'town' must be one of 2 choices, got 'Berln': did you mean 'Berlin'"),
        ("columns", {"day": "soon"}, "the column 'day' must be a date such as"),
        ("columns", {"day": 20240101}, "the column 'day' must be a date such as"),
        ("columns", {"new": "perhaps"}, "the column 'new' must be true or false"),
        ("columns", {"said": {"a": 1}}, "the column 'said' must be a text or a number, got dict"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_told_with_rule_value_and_remedy(name, value, match):
    with pytest.raises(DataError, match=match):
        ENTRIES[name][0].parse(value)


@pytest.mark.parametrize("name", ["image", "mask", "signal", "spectrogram"])
def test_a_string_in_json_is_never_opened_as_a_path(name, tmp_path, monkeypatch):
    block, (_, data), _ = ENTRIES[name]
    monkeypatch.chdir(tmp_path)
    for path in ("abcd", str(tmp_path / "abcd")):  # the first is base64 too
        (tmp_path / "abcd").write_bytes(data)
        with pytest.raises(DataError):
            block.parse(path)


@pytest.mark.parametrize("name", ["image", "mask", "signal", "spectrogram"])
def test_base64_in_json_is_the_upload(name):
    block, (_, data), _ = ENTRIES[name]
    wrapped = "\n".join(b64(data)[i : i + 60] for i in range(0, len(b64(data)), 60))
    for text in (b64(data), wrapped, "data:application/octet-stream;base64," + b64(data)):
        assert block.token(block.parse(text)) == block.token(block.parse(None, data))


@pytest.mark.parametrize("name", ["image", "signal"])
def test_a_file_that_is_too_large_is_refused_before_it_is_decoded(name):
    with pytest.raises(DataError, match="at most 67,108,864 bytes"):
        ENTRIES[name][0].parse(None, bytes(MAX_FILE_BYTES + 1))
    with pytest.raises(DataError, match="at most 67,108,864 bytes"):
        ENTRIES[name][0].parse("A" * (MAX_FILE_BYTES * 4 // 3 + 100))


def test_a_file_and_json_at_once_are_refused():
    with pytest.raises(DataError, match="given twice"):
        ImageBlock().parse(b64(PHOTO), PHOTO)


@pytest.mark.parametrize("name", ["category", "multi_category", "number", "columns", "boxes", "instances", "points"])
def test_what_is_no_file_takes_none(name):
    with pytest.raises(DataError, match="must be given as JSON, got a file of 3 bytes"):
        ENTRIES[name][0].parse(None, b"abc")


def test_a_text_file_is_a_text():
    block = ENTRIES["text"][0]
    assert block.parse(None, "\ufeffeine Rose".encode()) == "eine Rose"
    with pytest.raises(DataError, match="must be in UTF-8"):
        block.parse(None, b"\xff\xfe")


def test_missing_cells_become_missing_and_columns_that_are_not_used_go():
    row = COLUMNS.parse({"age": "", "town": None, "said": float("nan"), "id": 7})
    assert row == {"age": None, "town": None, "day": None, "said": None, "new": None}
    assert bool(COLUMNS.encode(row)["missing"][0])


def test_cells_of_a_row_are_read_as_a_form_writes_them():
    row = COLUMNS.parse({"age": "2", "town": "Bonn", "day": "2024-02-29", "said": 5, "new": "yes"})
    assert row == {"age": 2.0, "town": "Bonn", "day": "2024-02-29", "said": "5", "new": True}


# -------------------------------------------------------------------- token


@pytest.mark.parametrize(
    ("block", "one", "same", "other"),
    [
        (TextBlock(), "A  rose\nis", "a rose IS", "a rose was"),
        (RegressionBlock(), 1, np.float32(1), 2),
        (RegressionBlock(), "2.5", 2.5, 2.25),
        (RegressionBlock(), [1, 2], (1.0, 2.0), [2, 1]),
        (RegressionBlock(), float("nan"), np.float32("nan"), 0.0),
        (RegressionBlock(), 0.0, -0.0, 1.0),
        (CategoryBlock(), 1, "1", "2"),
        (MultiCategoryBlock(), ["a", "b"], {"b", "a"}, ["a"]),
        (PointBlock(), [[1, 2]], np.array([[1.0, 2.0]]), [[2, 1]]),
        (SpectrogramBlock(), np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((3, 2))),
        (SignalBlock(), np.zeros(3, np.float32), np.zeros(3, np.float32), np.zeros(4, np.float32)),
        (ImageBlock(), np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8)),
        (BBoxBlock(), ([[0, 0, 1, 2]], ["a"]), Objects(np.array([[0.0, 0, 1, 2]]), ["a"]), ([[0, 0, 1, 2]], ["b"])),
        (COLUMNS, {**FRAME.iloc[0], "id": 1}, {**FRAME.iloc[0], "id": 2}, {**FRAME.iloc[0], "age": 2.0}),
        (COLUMNS, {**FRAME.iloc[0], "said": "a  RED rose"}, FRAME.iloc[0], FRAME.iloc[1]),
        (COLUMNS, {**FRAME.iloc[0], "age": None}, {**FRAME.iloc[0], "age": np.nan}, {**FRAME.iloc[0], "age": 0}),
        (COLUMNS, {**FRAME.iloc[0], "age": 1}, {**FRAME.iloc[0], "age": "1.0"}, {**FRAME.iloc[0], "town": None}),
    ],
)
def test_a_token_is_equal_where_the_content_is(block, one, same, other):
    assert block.token(one) == block.token(same)
    assert block.token(one) != block.token(other)


def test_a_file_is_its_bytes_whatever_it_is_called(tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(PHOTO)
    block = ImageBlock()
    assert block.token(tmp_path / "a") == block.token(str(tmp_path / "b")) == block.token(PHOTO)
    with pytest.raises(DataError, match="the file does not exist"):
        block.token(tmp_path / "c")


def test_a_text_that_is_called_like_a_file_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rose").write_bytes(b"x")
    assert TextBlock().token("rose") == content_digest("rose") != content_digest(b"x")
    assert TextBlock().token("é" * 100_000)


@pytest.mark.parametrize("odd", ["\ud800", "a\0b", "", "x" * 5000, None, [], {}, object, b"", (1, (2, [3])), 10**400])
def test_anything_has_a_digest(odd):
    assert content_digest(odd) == content_digest(odd)
    assert content_digest([odd]) != content_digest([odd, odd])


def test_one_list_is_not_the_other_cut_elsewhere():
    pairs = [["ab", "c"], ["a", "bc"], ["abc"], [["ab"], "c"], "abc", b"abc", {"ab": "c"}, {"a": "bc"}]
    assert len({content_digest(pair) for pair in pairs}) == len(pairs)


def test_a_rows_token_is_the_same_in_a_table_and_alone():
    many = COLUMNS.token_many(FRAME)
    assert many == [COLUMNS.token(row) for row in FRAME.to_dict("records")]
    assert len(set(many)) == 4


def test_tokens_of_a_table_are_fast():
    rng, count = np.random.default_rng(0), 100_000
    frame = pd.DataFrame(
        {
            "a": rng.normal(size=count),
            "b": rng.choice(["x", "y", "z"], count),
            "c": rng.integers(0, 5000, count).astype(str),
            "t": [f"A text of number {i}" for i in range(count)],
        }
    )
    block = ColumnsBlock(numbers=("a",), categories=("b", "c"), texts=("t",)).setup(frame.iloc[:500])
    start = time.process_time()
    tokens = block.token_many(frame)
    assert time.process_time() - start < 4  # half a second on a core of its own
    assert len(set(tokens)) == count


# -------------------------------------------------------------------- files


def test_a_tokenizer_is_a_file_and_not_in_the_spec(tiny_transformer):
    made = Tokenizer.read(tiny_transformer, most=8)
    block = ColumnsBlock(texts=("said",), tokenizer=made).setup(FRAME)
    spec = json.loads(dump_json(block.spec()))
    assert spec["tokenizer"] == {"most": 8, "sha256": made.sha256}
    empty = from_spec("block", spec, "block")
    assert empty.missing_files() == ("tokenizer.json",)
    with pytest.raises(ConfigError, match="this tokenizer has no content yet"):
        empty.encode_many(FRAME)
    with pytest.raises(ConfigError, match="needs the file tokenizer.json, which is missing"):
        empty.load_files({})
    assert list(block.files()) == ["tokenizer.json"]
    loaded = empty.load_files(block.files())
    assert loaded == block
    assert loaded.encode_many(FRAME)["tokens"].equal(block.encode_many(FRAME)["tokens"])


@pytest.mark.parametrize(
    ("data", "match"), [(b"{}", "was changed"), (b"\xff", "is not UTF-8"), (bytes(33 << 20), "is larger than 32 MiB")]
)
def test_another_file_than_the_blocks_tokenizer_is_refused(tiny_transformer, data, match):
    block = ColumnsBlock(texts=("said",), tokenizer=Tokenizer.read(tiny_transformer)).setup(FRAME)
    empty = from_spec("block", block.spec(), "block")
    with pytest.raises(ConfigError, match=match):
        empty.load_files({"tokenizer.json": data})


def test_a_spec_that_holds_the_tokenizer_itself_is_still_read(tiny_transformer):
    made = Tokenizer.read(tiny_transformer, most=8)
    block = ColumnsBlock(texts=("said",), tokenizer=made).setup(FRAME)
    old = {**block.spec(), "tokenizer": {"content": made.content, "most": 8}}
    again = from_spec("block", old, "block")
    assert again == block
    assert again.missing_files() == ()
