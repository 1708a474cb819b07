"""Columns of a table as one field: what is fitted, and that every row is encoded by it the same way, always."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from common.blocks.columns import Column
from common.blocks.levels import MISSING, OTHER, RARE_FROM
from common.data import ColReader, ColumnsBlock, DataBlock, IndexSplitter, RegressionBlock
from common.errors import ConfigError, DataError
from common.files import dump_json
from common.spec import from_spec

FRAME = pd.DataFrame(
    {
        "age": [1.0, 3.0, np.nan, np.inf, 100.0],
        "pay": [5, 5, 5, 5, 5],
        "town": ["B", "A", None, "A", "C"],
        "y": [0.0, 1.0, 2.0, 3.0, 4.0],
    }
)
BLOCK = ColumnsBlock(numbers=("age", "pay"), categories=("town",))
COUNT = 60
TIMES = pd.Timestamp("2024-02-28 00:30") + pd.to_timedelta(np.arange(COUNT) * 1379, unit="min")
VARIED = pd.DataFrame(
    {
        "number": np.random.default_rng(0).normal(3, 7, COUNT),
        "gaps": [None if i % 5 == 0 else i * 1.5 for i in range(COUNT)],
        "whole": pd.array([None if i % 7 == 0 else i % 4 for i in range(COUNT)], dtype="Int64"),
        "written": [None if i % 9 == 0 else f"{i / 8}" for i in range(COUNT)],
        "yes": [(True, False, None)[i % 3] for i in range(COUNT)],
        "answer": [("Yes", "no ")[i % 2] for i in range(COUNT)],
        "town": [("A", "B", None)[i % 3] for i in range(COUNT)],
        "mixed": [(1, "x", 2.5, 3.0, True, None)[i % 6] for i in range(COUNT)],
        "listed": [([1, 2], [], None)[i % 3] for i in range(COUNT)],
        "declared": pd.Categorical([("low", "high", None)[i % 3] for i in range(COUNT)]),
        "time": TIMES.where(np.arange(COUNT) % 4 > 0),
        "day": [None if i % 8 == 0 else f"2023-{i % 12 + 1:02}-{i % 28 + 1:02}" for i in range(COUNT)],
        "text": [None if i % 10 == 0 else f"a red dress number {i} 🙂" for i in range(COUNT)],
        "same": "x",
    }
)


def column(block, name):
    return next(column for column in block.columns if column.name == name)


def numbers(block, raws, name):
    """The encoded numbers of one name."""
    return block.encode_many(raws)["numbers"][:, block.number_names.index(name)].tolist()


# ------------------------------------------------------------------ numbers


def test_numbers_are_centred_on_the_median_and_divided_by_the_spread_of_their_middle_half():
    block = ColumnsBlock(numbers=("a",)).setup(pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0, 100.0]}))
    assert column(block, "a").center == (2.0,)
    assert column(block, "a").scale == pytest.approx((2 / 1.349,))  # the quartiles are 1 and 3
    assert numbers(block, [{"a": 4.0}], "a") == pytest.approx([1.349])


def test_of_a_normals_numbers_the_scale_is_nearly_the_deviation():
    values = np.random.default_rng(0).normal(3, 7, 20_000)
    block = ColumnsBlock(numbers=("a",)).setup(pd.DataFrame({"a": values}))
    assert column(block, "a").scale[0] == pytest.approx(7, rel=0.03)


def test_where_the_middle_half_is_one_value_the_deviation_divides():
    values = [0.0] * 8 + [1.0, 2.0]
    block = ColumnsBlock(numbers=("a",)).setup(pd.DataFrame({"a": values}))
    assert column(block, "a").scale == pytest.approx((np.std(values),))


def test_a_constant_number_is_zero_and_divided_by_one():
    block = BLOCK.setup(FRAME)
    assert (column(block, "pay").center, column(block, "pay").scale) == ((5.0,), (1.0,))
    assert numbers(block, FRAME, "pay") == [0.0] * 5


@pytest.mark.parametrize("gone", [None, np.nan, np.inf, -np.inf, pd.NA, "lots", "", [1, 2]])
def test_what_is_no_finite_number_is_zero_and_marked(gone):
    block = ColumnsBlock(numbers=("a", "b")).setup(pd.DataFrame({"a": [1.0, 2.0, 9.0], "b": [1.0, 2.0, 4.0]}))
    batch = block.encode({"a": gone, "b": 4.0})
    assert batch["missing"].tolist() == [True, False]
    assert batch["numbers"][0] == 0.0
    assert batch["numbers"][1] > 0.0


def test_missing_and_infinite_numbers_are_left_out_of_the_fit():
    block = ColumnsBlock(numbers=("a",)).setup(pd.DataFrame({"a": [1.0, np.nan, 2.0, np.inf, 9.0, -np.inf]}))
    assert column(block, "a").center == (2.0,)


def test_a_column_of_nothing_is_zero_and_marked():
    block = ColumnsBlock(numbers=("a",)).setup(pd.DataFrame({"a": [None, np.nan, np.inf]}))
    batch = block.encode({"a": 7.0})
    assert (batch["numbers"].tolist(), batch["missing"].tolist()) == ([7.0], [False])
    assert block.encode({"a": None})["missing"].tolist() == [True]


def test_an_outlier_drowns_no_other_number():
    values = np.arange(100.0)
    plain = ColumnsBlock(numbers=("a",)).setup(pd.DataFrame({"a": values}))
    spoilt = ColumnsBlock(numbers=("a",)).setup(pd.DataFrame({"a": [*values, 1e30]}))
    rows = pd.DataFrame({"a": values})
    np.testing.assert_allclose(numbers(spoilt, rows, "a"), numbers(plain, rows, "a"), atol=0.03)
    assert np.ptp(numbers(spoilt, rows, "a")) > 2


@pytest.mark.parametrize("most", [1e30, 1.7e308])
def test_the_largest_numbers_stay_finite(most):
    frame = pd.DataFrame({"a": [-most, -1.0, 1.0, most], "b": [0.0, 1e-300, 2e-300, most]})
    batch = ColumnsBlock(numbers=("a", "b")).setup(frame).encode_many(frame)
    assert torch.isfinite(batch["numbers"]).all()
    assert not batch["missing"].any()
    assert batch["numbers"][0, 0] < 0 < batch["numbers"][3, 0]


def test_datetimes_and_spans_given_as_numbers_are_days_and_seconds():
    days = pd.to_datetime(pd.Series(["2024-01-01", "2024-01-02", None, "2024-01-05"]))
    for unit in ("s", "ms", "us", "ns"):
        frame = pd.DataFrame({"day": days.astype(f"datetime64[{unit}]")})
        frame["span"] = frame["day"] - frame["day"].iloc[0]
        block = ColumnsBlock(numbers=("day", "span")).setup(frame)
        assert column(block, "day").center == (19724.0,)  # 54 years, 13 leap days and one day after 1970-01-01
        assert column(block, "span").center == (86400.0,)
        assert block.encode_many(frame)["missing"].tolist() == [[False] * 2, [False] * 2, [True] * 2, [False] * 2]
        assert torch.equal(block.encode(frame.to_dict("records")[1])["numbers"], torch.zeros(2))


def test_yes_and_no_are_one_and_zero_however_they_are_written():
    block = ColumnsBlock(infer=True).setup(pd.DataFrame({"a": [True, True, False, False]}))
    assert column(block, "a").kind == "boolean"
    high, low = numbers(block, [{"a": True}, {"a": False}], "a")
    assert high > low
    for word in ("yes", " Y", "TRUE", "1", 1, 1.0):
        assert numbers(block, [{"a": word}], "a") == [high]
    for word in ("No", "n", "false ", "0", 0, 0.0):
        assert numbers(block, [{"a": word}], "a") == [low]
    for word in ("maybe", "", None, 2, -1.0):
        assert block.encode({"a": word})["missing"].tolist() == [True]


# ---------------------------------------------------------------- categories


def test_missing_is_0_unseen_is_1_and_levels_start_at_2():
    block = BLOCK.setup(FRAME.iloc[:4])
    assert column(block, "town").levels == ("A", "B")
    assert block.sizes == (4,)
    assert block.encode_many(FRAME)["categories"].tolist() == [[3], [2], [MISSING], [2], [OTHER]]


def test_only_among_many_levels_one_that_occurs_once_is_other():
    few = pd.DataFrame({"a": [f"l{i}" for i in range(RARE_FROM)] * 2 + ["once"]}).iloc[1:]
    assert len(column(ColumnsBlock(categories=("a",)).setup(few.iloc[:-1]), "a").levels) == RARE_FROM
    block = ColumnsBlock(categories=("a",)).setup(few)
    assert "once" not in column(block, "a").levels
    assert "l0" not in column(block, "a").levels  # its first row was cut off
    assert block.encode({"a": "once"})["categories"].tolist() == [OTHER]
    assert block.encode({"a": "l1"})["categories"].tolist() == [2 + sorted(column(block, "a").levels).index("l1")]


def test_levels_that_all_occur_once_are_all_kept():
    frame = pd.DataFrame({"a": [f"l{i}" for i in range(RARE_FROM + 10)]})
    assert ColumnsBlock(categories=("a",)).setup(frame).sizes == (RARE_FROM + 12,)


@pytest.mark.parametrize(
    ("trained", "asked"),
    [
        ([1, 2, None], 2),  # float in pandas; the same row as JSON has an int
        ([1, 2, 2], 2.0),
        (["1", "2", "2"], 2),
        (pd.array([1, 2, None], dtype="Int64"), 2),
        (pd.Categorical([1, 2, 2]), 2.0),
        ([1, "2", None], 2.0),
    ],
)
def test_a_whole_number_is_one_category_whatever_its_type(trained, asked):
    block = ColumnsBlock(categories=("rooms",)).setup(pd.DataFrame({"rooms": trained}))
    assert column(block, "rooms").levels == ("1", "2")
    assert block.encode({"rooms": asked})["categories"].tolist() == [3]


def test_one_and_one_point_zero_and_the_word_are_one_level_of_a_mixed_column():
    frame = pd.DataFrame({"a": pd.Series([1, 1.0, "1", "x", None], dtype=object)})
    block = ColumnsBlock(categories=("a",)).setup(frame)
    assert block.encode_many(frame)["categories"][:, 0].tolist() == [2, 2, 2, 3, MISSING]


def test_a_column_of_missing_categories_has_no_levels():
    block = ColumnsBlock(categories=("a",)).setup(pd.DataFrame({"a": [None, None]}))
    assert block.sizes == (2,)
    assert block.encode_many([{"a": None}, {"a": "x"}])["categories"].tolist() == [[MISSING], [OTHER]]


# --------------------------------------------------------------------- dates


def test_the_parts_of_a_date_are_the_calendars():
    block = ColumnsBlock(dates=("d",)).setup(pd.DataFrame({"d": ["2024-02-29", "2024-01-01"]}))
    assert block.number_names == ("d.days", "d.year", "d.month", "d.day", "d.weekday", "d.yearday")
    found = block.encode({"d": "2024-02-29"})["numbers"].numpy()
    back = found * np.array(column(block, "d").scale) + np.array(column(block, "d").center)
    # 2024-02-29 was a Thursday, the 60th day of its year, 19,782 days after 1970-01-01
    np.testing.assert_allclose(back, [19782, 2024, 2, 29, 3, 60], rtol=1e-6)


def test_the_hour_is_a_part_where_some_time_is_not_midnight():
    block = ColumnsBlock(dates=("d",)).setup(pd.DataFrame({"d": ["2024-02-29 00:00", "2024-01-01 18:30"]}))
    assert block.number_names[-1] == "d.hour"
    assert column(block, "d").center[-1] == 9.25
    assert block.encode({"d": "2025-01-01"})["missing"].tolist() == [False] * 7


@pytest.mark.parametrize(
    "written",
    [
        [f"{1995 + i % 40}-{i % 12 + 1:02}-{i % 28 + 1:02}" for i in range(COUNT)],
        [str(time)[:16] for time in TIMES],
        [f"2024-05-0{1 + i % 9} {i % 24:02}:{i:02}" for i in range(COUNT)],
    ],
    ids=["days", "times", "every minute"],
)
def test_decode_gives_the_date_back(written):
    frame = pd.DataFrame({"d": written})
    block = ColumnsBlock(dates=("d",)).setup(frame)
    assert [block.decode(block.encode({"d": day}))["d"] for day in written] == written
    assert block.decode(block.encode({"d": None})) == {"d": None}


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_a_date_is_the_same_as_text_as_a_timestamp_and_in_any_unit(unit):
    frame = pd.DataFrame({"d": pd.Series(TIMES).astype(f"datetime64[{unit}]")})
    block = ColumnsBlock(dates=("d",)).setup(frame)
    assert block == ColumnsBlock(dates=("d",)).setup(pd.DataFrame({"d": [str(time) for time in TIMES]}))
    wanted = block.encode({"d": "2024-03-01 12:30"})["numbers"]
    for same in (pd.Timestamp("2024-03-01 12:30"), "2024-03-01T12:30:00Z", "2024-03-01T14:30:00+02:00"):
        assert torch.equal(block.encode({"d": same})["numbers"], wanted)


@pytest.mark.parametrize("gone", [None, "soon", np.nan, pd.NaT, 20240101])
def test_what_is_no_date_is_zero_in_every_part_and_marked(gone):
    block = ColumnsBlock(dates=("d",)).setup(pd.DataFrame({"d": ["2024-02-29", "2023-01-01"]}))
    batch = block.encode({"d": gone})
    assert batch["numbers"].tolist() == [0.0] * 6
    assert batch["missing"].tolist() == [True] * 6


# --------------------------------------------------------------------- texts


def test_a_text_is_its_hashed_words_and_how_many_there_are():
    block = ColumnsBlock(texts=("t",)).setup(pd.DataFrame({"t": ["red dress", "a red red dress", ""]}))
    assert block.number_names == ("t.words", "t.characters")
    batch = block.encode_many([{"t": "red dress"}, {"t": ""}, {"t": None}])
    assert batch["text"].shape == (3, 7)  # four words and three pairs
    assert batch["text"].dtype == torch.int32
    assert (batch["text"] > 0).sum(dim=1).tolist() == [3, 0, 0]
    words = np.array(column(block, "t").scale) * batch["numbers"].numpy() + np.array(column(block, "t").center)
    np.testing.assert_allclose(words, [[2, 9], [0, 0], [0, 0]], atol=1e-6)
    assert block.decode({name: value[0] for name, value in batch.items()}) == {"t": "(2 words)"}


def test_a_text_row_has_at_most_the_given_ngrams():
    frame = pd.DataFrame({"t": ["a b c d e f", "a"], "u": ["x y", "z"]})
    block = ColumnsBlock(texts=("t", "u"), most_ngrams=8).setup(frame)
    assert block.ngrams == 8  # eleven of t are cut to eight, which leaves none for u
    long = block.encode({"t": "a b c d e f g h i j k l", "u": "x y"})["text"]
    assert long.shape == (8,)
    assert (long > 0).all()
    assert (block.encode({"t": "a", "u": "z"})["text"] > 0).sum() == 2


def test_a_longer_text_than_any_in_training_is_cut_to_the_longest():
    block = ColumnsBlock(texts=("t",)).setup(pd.DataFrame({"t": ["a b", "c"]}))
    assert block.encode({"t": "a b c d e"})["text"].shape == (3,)


def test_a_word_of_one_column_is_another_word_in_the_next():
    block = ColumnsBlock(texts=("t", "u")).setup(pd.DataFrame({"t": ["red", "a"], "u": ["red", "b"]}))
    first, second = block.encode({"t": "red", "u": "red"})["text"].tolist()
    assert first != second


def test_positions_of_words_stay_below_the_buckets():
    block = ColumnsBlock(texts=("t",), buckets=5).setup(pd.DataFrame({"t": [" ".join(map(str, range(99)))]}))
    found = block.encode({"t": " ".join(map(str, range(99)))})["text"]
    assert set(found.tolist()) == {1, 2, 3, 4}


def test_a_number_in_a_text_column_is_the_same_word_in_a_table_with_gaps_and_in_a_request():
    frame = pd.DataFrame({"t": [5, None, 7]})  # float in pandas
    block = ColumnsBlock(texts=("t",)).setup(frame)
    assert torch.equal(block.encode_many(frame)["text"][0], block.encode({"t": 5})["text"])


# ------------------------------------------------- what holds for every kind


def test_every_kind_is_among_the_varied_columns():
    block = ColumnsBlock(infer=True).setup(VARIED)
    found = {column.name: column.kind for column in block.columns}
    assert found == {
        "number": "number", "gaps": "number", "whole": "number", "written": "number", "yes": "boolean", "answer": "boolean",
        "town": "category", "mixed": "category", "listed": "category", "declared": "category", "time": "date",
        "day": "date", "text": "text", "same": "constant",
    }  # fmt: skip


def test_the_parts_have_the_documented_shapes_and_types():
    block = ColumnsBlock(infer=True).setup(VARIED)
    batch = block.encode_many(VARIED)
    assert {name: (tuple(v.shape), v.dtype) for name, v in batch.items()} == {
        "numbers": ((COUNT, len(block.number_names)), torch.float32),
        "missing": ((COUNT, len(block.number_names)), torch.bool),
        "categories": ((COUNT, len(block.category_names)), torch.int64),
        "text": ((COUNT, block.ngrams), torch.int32),
    }
    assert block.category_names == ("town", "mixed", "listed", "declared")
    assert (batch["categories"] < torch.tensor(block.sizes)).all()


@pytest.mark.parametrize("order", ["as it is", "turned"])
def test_encoding_the_training_rows_equals_encoding_each_row_by_itself(order, same):
    block = ColumnsBlock(infer=True).setup(VARIED)
    many = block.encode_many(VARIED)
    for i, row in enumerate(VARIED.to_dict("records")):
        if order == "turned":
            row = dict(reversed(row.items()))
        assert same({name: value[i] for name, value in many.items()}, block.encode(row)), row


def test_a_row_that_went_through_json_is_encoded_the_same(same):
    block = ColumnsBlock(infer=True).setup(VARIED)
    many = block.encode_many(VARIED)
    for i, line in enumerate(VARIED.to_json(orient="records", lines=True, date_format="iso").splitlines()):
        assert same({name: value[i] for name, value in many.items()}, block.encode(json.loads(line))), line


def test_columns_that_are_not_used_need_not_be_there(same):
    block = ColumnsBlock(infer=True).setup(VARIED)
    assert same(block.encode_many(VARIED.drop(columns="same")), block.encode_many(VARIED.assign(more=1)))


def test_a_column_without_gaps_in_training_may_be_missing_in_a_request():
    full = VARIED.ffill().bfill()
    block = ColumnsBlock(infer=True).setup(full)
    assert not block.encode_many(full)["missing"].any()
    nothing = block.encode(dict.fromkeys(VARIED.columns))
    gone = torch.tensor([not name.startswith("text.") for name in block.number_names])
    assert torch.equal(nothing["missing"], gone)  # no text is a text of no words
    assert not nothing["numbers"][gone].any()
    assert nothing["categories"].tolist() == [MISSING] * len(block.category_names)
    assert not nothing["text"].any()


def test_decode_gives_what_a_person_reads():
    block = ColumnsBlock(infer=True).setup(VARIED)
    row = VARIED.to_dict("records")[5]
    found = block.decode(block.encode(row))
    assert list(found) == [name for name in VARIED.columns if name != "same"]
    assert found["number"] == pytest.approx(row["number"], rel=1e-5)
    assert (found["gaps"], found["yes"], found["town"], found["listed"]) == (None, None, None, None)
    assert (found["answer"], found["day"], found["time"]) == (False, "2023-06-06", str(TIMES[5])[:16])
    assert block.decode(block.encode({**row, "town": "Z"}))["town"] == "(other)"


def test_the_fitted_block_goes_to_json_and_back(same):
    block = ColumnsBlock(infer=True, ignore=("whole",)).setup(VARIED)
    again = from_spec("block", json.loads(dump_json(block.spec())), "block")
    assert again == block
    assert isinstance(again.columns[0], Column)
    assert same(again.encode_many(VARIED), block.encode_many(VARIED))


def test_only_training_rows_are_fitted():
    dls = DataBlock((BLOCK, RegressionBlock), get_y=ColReader("y"), splitter=IndexSplitter([4])).dataloaders(
        FRAME, bs=4
    )
    assert dls.blocks[0] == BLOCK.setup(FRAME.iloc[:4])
    assert dls.blocks[0] != BLOCK.setup(FRAME)
    assert dls.valid.arrays().x["categories"].tolist() == [[OTHER]]


def test_a_fitted_block_is_fitted_anew():
    assert BLOCK.setup(FRAME).setup(FRAME.iloc[:4]) == BLOCK.setup(FRAME.iloc[:4])


def test_rows_as_dictionaries_fit_as_the_frame_does():
    assert BLOCK.setup(FRAME.to_dict("records")) == BLOCK.setup(FRAME)


# -------------------------------------------------- which columns are used


def test_without_infer_the_columns_that_are_not_named_are_left_out():
    assert [column.name for column in BLOCK.setup(FRAME).columns] == ["age", "pay", "town"]


def test_the_users_word_overrules_what_would_be_inferred():
    assert column(ColumnsBlock(infer=True).setup(VARIED), "whole").kind == "number"
    block = ColumnsBlock(infer=True, categories=("whole",), texts=("town",), ignore=("text",)).setup(VARIED)
    assert [(c.kind, c.why) for c in (column(block, name) for name in ("whole", "town", "text"))] == [
        ("category", "given"),
        ("text", "given"),
        ("ignored", "given"),
    ]
    assert "text.words" not in block.number_names


def test_names_that_are_no_text_are_taken_as_text():
    frame = pd.DataFrame([[1.0, "a"], [2.0, "b"]])
    block = ColumnsBlock(numbers=("0",), categories=("1",)).setup(frame)
    assert block.encode_many(frame)["categories"].tolist() == [[2], [3]]


@pytest.mark.parametrize("names", [["a", "a"], [1, "1"]])
def test_two_columns_of_one_name_are_refused(names):
    frame = pd.DataFrame([[1.0, 2.0], [2.0, 1.0]], columns=names)
    with pytest.raises(DataError, match=f"two columns called '{names[1]}': rename one"):
        ColumnsBlock(infer=True).setup(frame)


def test_a_missing_column_answers_with_the_near_one():
    wrong = FRAME.rename(columns={"pay": "pays"})
    with pytest.raises(DataError, match="no column 'pay': did you mean 'pays'"):
        BLOCK.setup(wrong)
    with pytest.raises(DataError, match="no column 'pay': did you mean 'pays'"):
        BLOCK.setup(FRAME).encode(wrong.to_dict("records")[0])


@pytest.mark.parametrize(
    ("frame", "options", "reason"),
    [
        (FRAME[["pay"]], {"infer": True}, r"'pay': every value is 5"),
        (FRAME, {"infer": True, "ignore": tuple(FRAME.columns)}, r"'age': given"),
        (FRAME, {}, "there are none"),
        (pd.DataFrame({"id": range(50)}), {"infer": True}, "'id': a row number"),
    ],
)
def test_a_table_without_a_usable_column_is_refused_with_the_reasons(frame, options, reason):
    with pytest.raises(DataError, match=rf"no column of the table can be learned from \(.*{reason}"):
        ColumnsBlock(**options).setup(frame)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"numbers": ("a",), "categories": ("a",)}, "the column 'a' is given twice"),
        ({"dates": ("a", "a")}, "the column 'a' is given twice"),
        ({"texts": ("a",), "ignore": ("a",)}, "the column 'a' is given twice"),
        ({"places": (("a",),)}, r"places must be pairs of columns \(latitude, longitude\)"),
        ({"places": (("a", "a"),)}, r"places must be pairs of columns \(latitude, longitude\)"),
        ({"buckets": 1}, r"buckets must lie in \[2, "),
        ({"most_ngrams": 0}, r"most_ngrams must lie in \[1, "),
        ({"most_ngrams": 9, "ngrams": 10}, r"ngrams must lie in \[0, 9\]"),
    ],
)
def test_wrong_options_are_named(options, says):
    with pytest.raises(ConfigError, match=says):
        ColumnsBlock(**options)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"scale": [0.0]}, "'age' must have a finite center and a scale above 0"),
        ({"scale": [-1.0]}, "'age' must have a finite center and a scale above 0"),
        ({"center": [float("nan")]}, "'age' must have a finite center and a scale above 0"),
        ({"center": []}, "'age' must have a finite center and a scale above 0"),
        ({"parts": ["days"]}, "'age': parts of a number must be value"),
        ({"kind": "date", "parts": ["day"]}, "'age': parts of a date must be days, year"),
        ({"kind": "money"}, r"block\.columns\[0\]\.kind must be"),
    ],
)
def test_a_fitted_column_that_cannot_be_is_refused_when_read_back(changed, says):
    spec = BLOCK.setup(FRAME).spec()
    spec["columns"][0].update(changed)
    with pytest.raises(ConfigError, match=says):
        from_spec("block", spec, "block")


def test_several_rows_need_a_fitted_block():
    with pytest.raises(ConfigError, match="not fitted"):
        ColumnsBlock(numbers=("age",)).encode_many(FRAME)
