"""UBJSON is read as the standard says, within the bytes that are there, and XGBoost's files as XGBoost's own JSON says."""

import json
import random
import struct
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb

import common.deploy.ubjson as ubjson
from common.deploy.ubjson import decode, encode
from common.errors import BundleError


def refused(data, match):
    with pytest.raises(BundleError, match=match) as caught:
        decode(data, "x.ubj")
    text = str(caught.value)
    assert text.startswith("x.ubj is not readable UBJSON: byte ")
    assert "\n" not in text
    assert len(text) < 300


def same(ours, theirs):
    """Equality with what ``json.loads`` gives: the same keys, lengths and texts, numbers as float32."""
    if isinstance(theirs, dict):
        assert isinstance(ours, dict)
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            same(ours[key], value)
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for mine, value in zip(ours, theirs, strict=True):
            same(mine, value)
    elif isinstance(theirs, float):
        assert np.float32(ours) == np.float32(theirs)
    else:
        assert ours == theirs


@pytest.fixture(scope="module")
def boosters():
    numbers = np.random.default_rng(0)
    x = numbers.normal(size=(200, 3))
    x[:, 0] = numbers.integers(0, 9, 200)
    y = numbers.integers(0, 5, 200)
    frame = pd.DataFrame({"a": pd.Categorical(numbers.choice(["x", "yy", "ä"], 200)), "b": x[:, 1]})
    coded = xgb.DMatrix(x, y, feature_types=["c", "q", "q"], feature_names=["k", "l", "m"], enable_categorical=True)
    plain = xgb.DMatrix(x, x[:, 1])
    one = {"nthread": 1, "max_depth": 3}
    return {
        "classes": xgb.train({**one, "objective": "multi:softprob", "num_class": 5}, coded, 3),
        "many trees": xgb.train({**one, "objective": "multi:softprob", "num_class": 5}, coded, 30),
        "forest": xgb.train({**one, "num_parallel_tree": 4}, plain, 2)[:1],
        "dart": xgb.train({**one, "booster": "dart", "rate_drop": 0.5}, plain, 4),
        "frame": xgb.train(one, xgb.DMatrix(frame, y, enable_categorical=True), 2),
        "no trees": xgb.train(one, plain, 0),
    }


KINDS = ["classes", "many trees", "forest", "dart", "frame", "no trees"]


# ------------------------------------------------------------------ XGBoost's files


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_reads_as_its_json_says(boosters, kind):
    same(decode(bytes(boosters[kind].save_raw("ubj")), "x.ubj"), json.loads(boosters[kind].save_raw("json")))


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_written_back_byte_for_byte(boosters, kind):
    raw = bytes(boosters[kind].save_raw("ubj"))
    assert encode(decode(raw, "x.ubj")) == raw


def test_a_saved_file_is_the_raw_buffer(boosters, tmp_path):
    boosters["classes"].save_model(tmp_path / "trees.ubj")
    assert (tmp_path / "trees.ubj").read_bytes() == bytes(boosters["classes"].save_raw("ubj"))


def test_every_beginning_of_a_model_is_refused(boosters):
    raw = bytes(boosters["forest"].save_raw("ubj"))
    for size in range(0, len(raw), 7):
        refused(raw[:size], "needed|needs more bytes")


# ------------------------------------------------------------------ values, by hand

VALUES = {
    "int8": (b"i\xff", -1),
    "uint8": (b"U\xff", 255),
    "int16": (b"I\x01\x00", 256),
    "int32": (b"l\x00\x01\x00\x00", 65536),
    "int64": (b"L\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
    "float32": (b"d\x3f\xc0\x00\x00", 1.5),
    "float64": (b"D\x3f\xf8\x00\x00\x00\x00\x00\x00", 1.5),
    "null": (b"Z", None),
    "true": (b"T", True),
    "false": (b"F", False),
    "character": (b"Ca", "a"),
    "text": (b"Si\x03\xc3\xa4b", "äb"),
    "empty text": (b"SU\x00", ""),
    "text with an int16 length": (b"SI\x00\x02hi", "hi"),
    "text with an int32 length": (b"Sl\x00\x00\x00\x02hi", "hi"),
    "text with an int64 length": (b"SL\x00\x00\x00\x00\x00\x00\x00\x02hi", "hi"),
    "array": (b"[i\x01TSi\x01a]", [1, True, "a"]),
    "empty array": (b"[]", []),
    "counted array": (b"[#i\x02i\x01Z", [1, None]),
    "object": (b"{i\x01ai\x01i\x01b[]}", {"a": 1, "b": []}),
    "empty object": (b"{}", {}),
    "counted object": (b"{#i\x01i\x01aT", {"a": True}),
    "typed object": (b"{$i#i\x02i\x01a\x07i\x01b\x08", {"a": 7, "b": 8}),
    "array of texts": (b"[$S#i\x02i\x01ai\x01b", ["a", "b"]),
    "array of characters": (b"[$C#i\x02ab", ["a", "b"]),
    "array of arrays": (b"[$[#i\x02i\x01]]", [[1], []]),
    "array of objects": (b"[${#i\x01i\x01aT}", [{"a": True}]),
    "no-ops": (b"N[NNi\x01Ni\x02N]", [1, 2]),
    "no-ops in an object": (b"{Ni\x01aNTN}", {"a": True}),
}


@pytest.mark.parametrize("what", list(VALUES))
def test_a_value_is_read_as_draft_12_says(what):
    data, value = VALUES[what]
    found = decode(data, "x.ubj")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("marker", "dtype"),
    [("i", "int8"), ("U", "uint8"), ("I", "int16"), ("l", "int32"), ("L", "int64"), ("d", "float32"), ("D", "float64")],
)
def test_a_typed_array_is_an_array_of_its_type(marker, dtype):
    values = np.array([0, 1, 77, 100], dtype)
    data = b"[$" + marker.encode() + b"#i\x04" + values.astype(values.dtype.newbyteorder(">")).tobytes()
    found = decode(data, "x.ubj")
    assert found.dtype == np.dtype(dtype)
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, values)
    assert decode(b"[$" + marker.encode() + b"#i\x00", "x.ubj").shape == (0,)


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (126, b"i\x7e"),
        (127, b"I\x00\x7f"),
        (-127, b"i\x81"),
        (-128, b"I\xff\x80"),
        (1 << 15, b"l\x00\x00\x80\x00"),
        (1 << 31, b"L\x00\x00\x00\x00\x80\x00\x00\x00"),
        (1.5, b"d\x3f\xc0\x00\x00"),
        (1e300, b"d\x7f\x80\x00\x00"),
        ([None, True, False], b"[#L\x00\x00\x00\x00\x00\x00\x00\x03ZTF"),
    ],
)
def test_a_value_is_written_as_xgboost_writes_it(value, data):
    assert encode(value) == data


def test_keys_are_written_in_the_order_of_their_bytes():
    assert encode({"b": 1, "a": 2}) == encode({"a": 2, "b": 1})
    assert encode({"b": 1, "B": 2}).index(b"B") < encode({"b": 1, "B": 2}).index(b"b")


@pytest.mark.parametrize("value", [{1}, b"x", np.zeros((2, 2)), np.zeros(2, np.uint64), [object()]])
def test_what_ubjson_has_no_form_for_is_a_type_error(value):
    with pytest.raises(TypeError, match="UBJSON has no form for"):
        encode(value)


# ------------------------------------------------------------------ what is refused

REFUSED = {
    "nothing": (b"", "byte 0: 1 bytes are needed, 0 are left"),
    "trailing bytes": (b"i\x01i", "byte 2: 1 bytes follow the end"),
    "a trailing no-op": (b"ZN", "byte 1: 1 bytes follow the end"),
    "an unknown type": (b"[q]", "byte 1: there is no type 'q'"),
    "a number of any precision": (b"Hi\x011", "byte 0: there is no type 'H'"),
    "JSON": (b'{"a": 1}', "byte 1: a length must be of type i, U, I, l or L, got '\"'"),
    "a short number": (b"l\x00\x00", "byte 1: 4 bytes are needed, 2 are left"),
    "an open array": (b"[i\x01", "byte 3: 1 bytes are needed"),
    "an open object": (b"{i\x01aT", "byte 5: 1 bytes are needed"),
    "a key alone": (b"{i\x01a}", "byte 4: there is no type '}'"),
    "a key given twice": (b"{i\x01aTU\x01aF}", "byte 5: the key 'a' is given twice"),
    "a key given twice in a counted object": (b"{#i\x02i\x01aTi\x01aF", "byte 8: the key 'a' is given twice"),
    "text that is not UTF-8": (b"Si\x03a\xff\xfe", "byte 4: the text is not UTF-8"),
    "a surrogate": (b"Si\x03\xed\xa0\x80", "byte 3: the text is not UTF-8"),
    "a key that is not UTF-8": (b"{i\x01\xffT}", "byte 3: the text is not UTF-8"),
    "a character above 127": (b"C\xe4", "byte 1: a character must be below 128, got 228"),
    "a negative length": (b"Si\xff", "byte 1: a length must not be negative, got -1"),
    "a negative count": (b"[$l#L" + b"\xff" * 8, "byte 4: a length must not be negative, got -1"),
    "a length that is a float": (b"Sd\0\0\0\0", "byte 1: a length must be of type"),
    "a text longer than the file": (b"Sl\x7f\xff\xff\xffabc", "byte 1: the length 2147483647 needs more bytes than the 3 left"),
    "an array longer than the file": (b"[$d#i\x02\0\0\0\0\0\0\0", "byte 4: the length 2 needs more bytes than the 7 left"),
    "a count above the bytes left": (b"[#i\x03TT", "byte 2: the length 3 needs more bytes"),
    "a huge count": (b"[$L#L" + b"\x7f" + b"\xff" * 7, "byte 4: the length 9223372036854775807 needs more bytes"),
    "a typed container without a count": (b"[$ii\x01]", "byte 1: a container with a type must have a count"),
    "a container of nothing": (b"[$T#i\x01", "byte 1: a container of the type 'T' has no size"),
    "a container of no-ops": (b"[$N#l\x7f\xff\xff\xff", "byte 1: a container of the type 'N' has no size"),
    "an object of nulls": (b"{$Z#i\x01i\x01a", "byte 1: a container of the type 'Z' has no size"),
}  # fmt: skip


@pytest.mark.parametrize("what", list(REFUSED))
def test_what_is_not_exactly_one_value_is_refused_with_its_place(what):
    data, match = REFUSED[what]
    refused(data, match)


@pytest.mark.parametrize("opening", [b"[", b"{i\x01a", b"[#i\x01", b"[$[#i\x01"])
def test_nesting_is_bounded(opening):
    refused(opening * 100_000, "nested deeper than 64 containers")


def test_the_deepest_nesting_is_read():
    found = decode(b"[" * 64 + b"]" * 64, "x.ubj")
    for _ in range(63):
        (found,) = found
    assert found == []
    refused(b"[" * 65 + b"]" * 65, "byte 64: nested deeper than 64 containers")


def test_the_number_of_values_is_bounded(monkeypatch):
    monkeypatch.setattr(ubjson, "MAX_VALUES", 100)
    assert len(decode(b"[" + b"Z" * 99 + b"]", "x.ubj")) == 99
    refused(b"[" + b"Z" * 100 + b"]", "the file holds more than 100 values")
    assert decode(b"[$U#I\x03\xe8" + b"\0" * 1000, "x.ubj").size == 1000


@pytest.mark.parametrize("kind", [b"$d#", b"$S#", b"$[#", b"#"])
@pytest.mark.parametrize("container", [b"[", b"{"])
def test_a_count_allocates_no_more_than_the_bytes_justify(container, kind):
    data = container + kind + b"L" + struct.pack(">q", 1 << 40) + b"\0" * 1000
    tracemalloc.start()
    try:
        refused(data, "needs more bytes")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_random_changes_raise_nothing_but_a_bundle_error(boosters):
    raw = bytes(boosters["frame"].save_raw("ubj"))
    draw = random.Random(0)
    taken, texts = 0, []
    for _ in range(2000):
        data = bytearray(raw)
        for _ in range(draw.randint(1, 3)):
            data[draw.randrange(len(data))] = draw.choice([0, 1, 127, 255, *b"[{]}$#NTSCHiUIlLdD", draw.randrange(256)])
        try:
            encode(decode(bytes(data), "x.ubj"))
            taken += 1
        except BundleError as error:
            texts.append(str(error))
    assert not any("\n" in text for text in texts)
    assert taken
    assert texts
