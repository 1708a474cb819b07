"""What a column is taken for, and the reason that is given."""

import time
from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from common.blocks.column_kinds import (
    KINDS,
    MANY_LEVELS,
    USED,
    duplicates,
    infer_kind,
    infer_kinds,
    infer_places,
    read_booleans,
    read_dates,
)

ROWS = 120
DAYS = pd.date_range("2020-01-01", periods=ROWS)
WORDS = ["a red dress", "much too small for me", "love it 😍😍 so much", "never again !", "blue and warm"]
SENTENCES = [f"{WORDS[i % 5]} number {i}" for i in range(ROWS)]


def cycle(*values):
    return pd.Series([values[i % len(values)] for i in range(ROWS)])


CASES = [
    ("pay", pd.Series(np.linspace(0, 9.5, ROWS)), "number", "120 different numbers"),
    ("pay", cycle(1, 2, 2, 70, 5), "number", "4 different numbers"),
    ("pay", cycle(0.5, None, 2.5), "number", "2 different numbers"),
    ("pay", cycle(1.0, np.inf, 2.0), "number", "3 different numbers"),
    ("pay", cycle("1.5", "2", " 3 "), "number", "3 different numbers, written as text"),
    ("pay", cycle(Decimal("1.5"), Decimal("2.5")), "number", "2 different numbers, written as text"),
    ("pay", pd.Series(["lots", *(str(i / 4) for i in range(ROWS - 1))]), "number", "119 different numbers, written as text"),
    ("pay", cycle(np.inf, -np.inf), "constant", "no value is finite"),
    ("same", cycle("x"), "constant", "every value is 'x'"),
    ("same", cycle(3), "constant", "every value is 3"),
    ("same", cycle(None), "constant", "every value is missing"),
    ("same", pd.Series(pd.Categorical([None] * ROWS, categories=["a"])), "constant", "every value is missing"),
    ("same", cycle([1, 2]), "constant", "every value is '[1, 2]'"),
    ("only", cycle("x", None), "category", "1 levels, words"),
    ("old", cycle(True, False), "boolean", "true or false"),
    ("old", cycle(True, None, False), "boolean", "true or false"),
    ("old", pd.Series(cycle(True, None, False), dtype="boolean"), "boolean", "true or false"),
    ("old", cycle(0, 1), "boolean", "0 or 1"),
    ("old", cycle(0.0, None, 1.0), "boolean", "0 or 1"),
    ("old", cycle("0", "1"), "boolean", "0 or 1, written as text"),
    ("old", cycle("yes", "No", " YES "), "boolean", "yes or no"),
    ("old", cycle("Y", "N", None), "boolean", "yes or no"),
    ("old", cycle("true", "false"), "boolean", "yes or no"),
    ("old", cycle("yes", "no", "maybe"), "category", "3 levels, words"),
    ("town", cycle("A", "B"), "category", "2 levels, words"),
    ("town", cycle("A", "B", None), "category", "2 levels, words"),
    ("town", pd.Series([f"t{i % 60}" for i in range(ROWS)]), "high_cardinality", "60 levels, words"),
    ("town", pd.Series(pd.Categorical(cycle("low", "high"))), "category", "2 levels, declared as categories"),
    ("town", pd.Series(pd.Categorical(cycle(1, 2, 3))), "category", "3 levels, declared as categories"),
    ("town", pd.Series(pd.Categorical(range(ROWS))), "high_cardinality", "120 levels, declared as categories"),
    ("mixed", cycle(1, "x", 2.5, True, None), "category", "3 levels, words"),  # True is 1
    ("mixed", cycle([1], [2], {"a": 1}), "category", "3 levels, words"),
    ("mood", cycle("😀", "😡", "👍🏽"), "category", "3 levels, words"),
    ("zip", cycle("01234", "98765", "00501"), "category", "3 levels, words"),
    ("zip_code", cycle(10115, 80331, 50667), "category", "3 levels, called a code"),
    ("StoreId", cycle(7, 8, 9), "category", "3 levels, called a code"),
    ("plz", pd.Series([10000 + i % 59 for i in range(ROWS)]), "high_cardinality", "59 levels, called a code"),
    ("paid", cycle(7, 8, 9), "number", "3 different numbers"),  # the end of a word is not its meaning
    ("row", pd.Series(range(ROWS)), "identifier", "a row number: whole, all different, without gaps"),
    ("row", pd.Series(range(ROWS, 0, -1)), "identifier", "a row number: whole, all different, without gaps"),
    ("row", pd.Series(map(str, range(ROWS))), "identifier", "a row number: whole, all different, without gaps, written as text"),
    ("user_id", pd.Series(range(0, 7000 * ROWS, 7000)), "identifier", "called an id, all different"),
    ("userId", pd.Series(range(0, 7000 * ROWS, 7000)), "identifier", "called an id, all different"),
    ("price", pd.Series(range(0, 7000 * ROWS, 7000)), "number", "120 different numbers"),
    ("key", pd.Series([f"k{i:05}x" for i in range(ROWS)]), "identifier", "one word, all different"),
    ("link", pd.Series([f"https://a.org/{i} b" for i in range(ROWS)]), "identifier", "addresses, most of them different"),
    ("when", pd.Series(DAYS), "date", "dates"),
    ("when", pd.Series(DAYS.tz_localize("Europe/Berlin")), "date", "dates"),
    ("when", pd.Series([date(2020, 1, 1 + i % 9) for i in range(ROWS)]), "date", "9 dates, written as text"),
    ("when", pd.Series([datetime(2020, 1, 1, i % 9) for i in range(ROWS)], dtype=object), "date", "9 dates, written as text"),
    ("when", pd.Series(pd.period_range("2020-01", periods=ROWS, freq="M")), "date", "120 dates, written as text"),
    *(
        ("when", pd.Series(DAYS.strftime(form)), "date", "120 dates, written as text")
        for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ", "%m/%d/%Y", "%d.%m.%Y", "%B %d, %Y", "%d %b %Y", "%Y-%m-%d %H:%M")
    ),
    ("when", pd.Series(["soon", *DAYS.strftime("%Y-%m-%d")[1:]]), "date", "120 dates, written as text"),
    ("when", cycle("2020-01-01", "soon"), "category", "2 levels, words"),
    ("phone", cycle("2024-55-1234", "2024-66-5678"), "category", "2 levels, words"),
    ("text", pd.Series(SENTENCES), "text", "6 words on average, 120 different texts"),
    ("text", pd.Series([f"👍 😍 {i}" for i in range(ROWS)]), "text", "3 words on average, 120 different texts"),
    ("text", cycle(*WORDS), "category", "5 levels, words"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "column", "kind", "why"), CASES)
def test_each_kind_is_found_with_its_reason(name, column, kind, why):
    found = infer_kind(name, column)
    assert (found.name, found.kind, found.why) == (name, kind, why)


def test_every_kind_but_the_users_is_found():
    assert {kind for _, _, kind, _ in CASES} == set(KINDS) - {"ignored"}
    assert set(USED) < set(KINDS)


def test_distinct_values_and_the_share_of_missing_are_counted():
    found = infer_kind("town", pd.Series(["A", "B", None, "A"]))
    assert (found.distinct, found.missing) == (2, 0.25)
    found = infer_kind("listed", pd.Series([[1], [1], [2], None]))
    assert (found.distinct, found.missing) == (2, 0.25)


@pytest.mark.parametrize(("levels", "kind"), [(MANY_LEVELS, "category"), (MANY_LEVELS + 1, "high_cardinality")])
def test_from_many_levels_on_a_category_has_a_high_cardinality(levels, kind):
    assert infer_kind("a", pd.Series([f"w{i}" for i in range(levels)] * 2)).kind == kind


def test_few_rows_are_never_identifiers():
    assert infer_kind("id", pd.Series(range(19))).kind == "number"
    assert infer_kind("key", pd.Series([f"k{i}" for i in range(19)])).kind == "category"


def test_a_whole_frame_is_told_in_the_order_of_its_columns():
    frame = pd.DataFrame({"b": SENTENCES, "a": cycle([1], None), 3: cycle(1.5, 2.5)})
    found = infer_kinds(frame)
    assert [(f.name, f.kind) for f in found] == [("b", "text"), ("a", "category"), ("3", "number")]
    assert infer_kinds(pd.DataFrame()) == []


def test_a_table_without_rows_has_nothing_but_constants():
    found = infer_kinds(pd.DataFrame({"a": pd.Series([], dtype=float), "b": pd.Series([], dtype=object)}))
    assert [(f.kind, f.why, f.missing) for f in found] == [("constant", "every value is missing", 1.0)] * 2


@pytest.mark.parametrize("make", [lambda i: f"level {i}", lambda i: f"l{i}", lambda i: i * 3, lambda i: [i]])
def test_a_hundred_thousand_levels_take_less_than_two_seconds(make):
    column = pd.Series([make(i) for i in range(100_000)] * 2)
    start = time.process_time()
    assert infer_kind("a", column).distinct == 100_000
    assert time.process_time() - start < 2


def test_dates_are_read_without_their_zone_and_what_is_none_is_missing():
    given = pd.Series(["2024-01-02T03:00:00+02:00", "2024-01-02", "soon", None, "Jan 5, 2024"], dtype=object)
    found = read_dates(given)
    assert found.dt.tz is None
    assert found.isna().tolist() == [False, False, True, True, False]
    assert [str(day) for day in found.dropna()] == ["2024-01-02 01:00:00", "2024-01-02 00:00:00", "2024-01-05 00:00:00"]


@pytest.mark.parametrize("values", [[20240101, 1], [1.5, None], [True, False]])
def test_numbers_are_no_dates(values):
    assert read_dates(pd.Series(values)).isna().all()


def test_what_is_neither_yes_nor_no_is_missing():
    given = pd.Series(["Yes", " n", "TRUE", "f", "1", "0.0", 1, 0.0, True, "2", "maybe", "", None, [1]], dtype=object)
    wanted = [1, 0, 1, 0, 1, 0, 1, 0, 1, *[np.nan] * 5]
    np.testing.assert_array_equal(read_booleans(given), wanted)
    np.testing.assert_array_equal(read_booleans(pd.Series([0, 1, 2])), [0, 1, np.nan])
    np.testing.assert_array_equal(read_booleans(pd.Series([True, None], dtype="boolean")), [1, np.nan])


def test_names_that_occur_again_are_told():
    assert list(duplicates(["a", "b", "a", 1, "1", "a"])) == ["a", "1", "a"]


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (("latitude", "longitude"), (("latitude", "longitude"),)),
        (("Lat", "Lng"), (("Lat", "Lng"),)),
        (("pickupLatitude", "pickupLongitude"), (("pickupLatitude", "pickupLongitude"),)),
        (("start_lat", "end_lat", "end_long", "start_long"), (("start_lat", "start_long"), ("end_lat", "end_long"))),
        (("lat", "pickup_lon"), ()),
        (("flat", "along"), ()),
        (("latest", "longest"), ()),
    ],
)
def test_places_are_told_by_their_names(names, pairs):
    frame = pd.DataFrame({name: [1.0, 2.0, None] for name in names})
    assert infer_places(frame) == pairs


def test_a_latitude_beyond_the_pole_is_none():
    assert infer_places(pd.DataFrame({"lat": [10.0, 90.1], "lon": [0.0, 1.0]})) == ()
    assert infer_places(pd.DataFrame({"lat": [10.0, np.inf], "lon": [0.0, -180.0]})) == (("lat", "lon"),)
