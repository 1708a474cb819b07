"""`TabularClassifier` and `TabularRegressor` as scikit-learn estimators, on tables of every kind."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from applications.tabular import TabularClassifier, TabularRegressor
from common.deploy import Predictor
from common.errors import CookbookError

QUICK = {"members": ("linear", "xgboost"), "folds": 2}


@pytest.mark.slow
@pytest.mark.parametrize("made", [TabularClassifier(**QUICK), TabularRegressor(**QUICK)], ids=["classes", "number"])
def test_scikit_learns_checks_pass(made):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks themselves provoke them
        found = check_estimator(made, on_fail=None, on_skip=None)
    failed = {c["check_name"]: repr(c["exception"])[:200] for c in found if c["status"] == "failed"}
    assert not failed
    assert len(found) > 45


@pytest.mark.slow
@pytest.mark.parametrize("made", [TabularClassifier(folds=2), TabularRegressor(folds=2)], ids=["classes", "number"])
def test_scikit_learns_checks_pass_with_every_member(made):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_estimator(made, on_fail=None, on_skip=None)
    assert not {c["check_name"]: repr(c["exception"])[:200] for c in found if c["status"] == "failed"}


def test_constructors_only_store():
    members = ["linear"]
    made = TabularRegressor(members=members, folds=-3)
    assert made.members is members
    assert clone(made).get_params() == made.get_params()


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=120), "town": rng.choice(list("xyz"), 120)})
    return frame, frame["a"] * 2 + (frame["town"] == "x")


def test_polars_and_pandas_frames_give_the_same(table):
    polars = pytest.importorskip("polars")
    frame, y = table
    one = TabularRegressor(**QUICK).fit(frame, y)
    two = TabularRegressor(**QUICK).fit(polars.DataFrame(frame.to_dict(orient="list")), y.to_numpy())
    assert np.array_equal(one.predict(frame), two.predict(polars.DataFrame(frame.to_dict(orient="list"))))


@pytest.mark.parametrize("labels", [["no", "yes"], [0, 1], [3, 7], [True, False], ["🙂", "🙁"]])
def test_classes_come_back_as_they_were_given(table, labels):
    frame, y = table
    truth = np.array(labels, dtype=object if isinstance(labels[0], str) else None)[(y > 0.3).astype(int)]
    model = TabularClassifier(**QUICK).fit(frame, truth)
    assert set(model.predict(frame).tolist()) <= set(labels)
    assert model.predict_proba(frame).shape == (120, 2)
    assert model.score(frame, truth) > 0.9


def test_the_table_of_members_and_a_bundle_come_with_it(table, tmp_path):
    frame, y = table
    model = TabularRegressor(**QUICK).fit(frame, y)
    assert model.table_["member"].tolist() == ["linear", "xgboost", "ensemble"]
    found = [record["value"] for record in Predictor(model.export(tmp_path / "b")).predict_many(frame)]
    assert np.array_equal(np.array(found), model.predict(frame))


def odd(name):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"a": rng.normal(size=90)})
    if name == "infinities":
        frame["b"] = np.where(rng.random(90) < 0.1, np.inf, -np.inf)
        frame.loc[::7, "a"] = -np.inf
    elif name == "a column that is all missing":
        frame["b"] = np.nan
    elif name == "mixed types":
        frame["b"] = pd.Series([1, "two", None, 3.5, True, pd.Timestamp("2024-01-01")] * 15, dtype=object)
    elif name == "lists in cells":
        frame["b"] = pd.Series([[i % 3] for i in range(90)], dtype=object)
    elif name == "emoji":
        frame["b"] = ["so good 🙂🙂 really 🎉", "bad 🙁 and worse than before"] * 45
        frame["🎲"] = rng.choice(["🍏", "🍐", None], 90)
    elif name == "dates":
        frame["b"] = pd.date_range("2020-02-27 23:00", periods=90, freq="h")
    elif name == "column names that are numbers":
        frame = pd.DataFrame(rng.normal(size=(90, 3)))
    elif name == "an index that repeats":
        frame.index = [0] * 90
    return frame


@pytest.mark.parametrize(
    "name",
    ["infinities", "a column that is all missing", "mixed types", "lists in cells", "emoji", "dates",
     "column names that are numbers", "an index that repeats"],
)  # fmt: skip
def test_odd_tables_give_a_result(name):
    frame = odd(name)
    y = np.random.default_rng(2).normal(size=90)
    assert np.isfinite(TabularRegressor(**QUICK).fit(frame, y).predict(frame)).all()
    classes = np.where(y > 0, "up", "down")
    assert np.isfinite(TabularClassifier(**QUICK).fit(frame, classes).predict_proba(frame)).all()


@pytest.mark.slow
def test_a_hundred_thousand_categories_give_a_result():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {"who": [f"user {i}" for i in rng.integers(0, 100_000, 150_000)], "a": rng.normal(size=150_000)}
    )
    model = TabularRegressor(**QUICK).fit(frame, frame["a"])
    assert model.score(frame, frame["a"]) > 0.9


@pytest.mark.parametrize(
    ("frame", "y", "match"),
    [
        (pd.DataFrame([[1.0, 2.0]] * 9, columns=["a", "a"]), [0, 1, 2] * 3, "two columns called 'a'"),
        (pd.DataFrame({"a": [1.0]}), [1.0], "one row"),
        (pd.DataFrame({"a": []}), [], "0 sample"),
        (pd.DataFrame({"a": range(9)}), [1.0] * 8, "9 rows, y 8"),
        (pd.DataFrame({"a": [np.nan] * 9}), [1.0, 2.0, 3.0] * 3, "'a': every value is missing"),
        (pd.DataFrame({"a": range(9)}), [np.nan] * 9, "NaN or infinity"),
    ],
)
def test_what_cannot_be_fitted_is_one_sentence(frame, y, match):
    with pytest.raises((ValueError, CookbookError), match=match) as caught:
        TabularRegressor(**QUICK).fit(frame, y)
    assert "\n" not in str(caught.value)


def test_one_class_is_one_sentence():
    with pytest.raises(ValueError, match="one class only"):
        TabularClassifier(**QUICK).fit(pd.DataFrame({"a": range(9)}), ["x"] * 9)


def test_a_class_of_one_row_is_learned_with_the_others():
    frame = pd.DataFrame({"a": np.arange(30.0) / 4})
    model = TabularClassifier(**QUICK).fit(frame, ["x"] * 14 + ["y"] * 15 + ["z"])
    assert model.classes_.tolist() == ["x", "y", "z"]
    assert model.predict(frame.iloc[:5]).tolist() == ["x"] * 5
