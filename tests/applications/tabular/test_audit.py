"""What was hidden in a table is found and named; a clean table gets no warning."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from applications.tabular.audit import adversarial_validation, auc_interval, leakage
from common.errors import ConfigError, DataError


def rows(count=300, seed=0):
    """Rows whose columns say something of the target, none of them all."""
    rng = np.random.default_rng(seed)
    size, town = rng.normal(size=count), rng.choice(["A", "B", "C"], count)
    score = size + (town == "A") + rng.normal(0, 1, count)
    return pd.DataFrame({
        "size": size, "town": town, "serial": rng.permutation(count), "score": score,
        "churn": np.where(score > 0.3, "yes", "no"),
    })  # fmt: skip


def found(frame, target="churn", classes=True, ignore=("score",), **options):
    return leakage(frame, target, classes, ignore=ignore, **options)


# ---------------------------------------------------------------- leaks


def test_a_clean_table_has_no_warning():
    assert found(rows()) == []
    assert found(rows(), "score", False, ("churn",)) == []
    three = rows().assign(churn=pd.cut(rows()["score"], 3, labels=["x", "y", "z"]).astype(str))
    assert found(three) == []


@pytest.mark.parametrize(
    "leak",
    [
        lambda f: (f["churn"] == "yes") + np.linspace(0, 0.5, len(f)),
        lambda f: f["churn"].map({"yes": "left", "no": "stayed"}),
        lambda f: [f"customer {i} has said that he {v} leave us" for i, v in enumerate(f["churn"].map({"yes": "will", "no": "won't"}))],
        lambda f: pd.to_datetime("2024-01-01") + pd.to_timedelta(np.where(f["churn"] == "yes", 90, 0) + np.arange(len(f)) % 30, unit="D"),
    ],
    ids=["number", "category", "text", "date"],
)  # fmt: skip
def test_a_column_that_says_the_target_is_named(leak):
    frame = rows()
    frame.insert(1, "answer", leak(frame))
    (warning,) = found(frame)
    assert (warning["check"], warning["column"]) == ("one column", "answer")
    assert warning["figure"] > 0.98
    assert warning["warning"].startswith("'answer' (AUC ")


def test_a_column_that_is_a_number_in_other_units_is_named():
    frame = rows()
    frame["cents"] = -100 * np.exp(2 * frame["score"])
    frame["euros"] = np.exp(2 * frame["score"])
    (warning,) = found(frame, "cents", False, ("churn", "score"))
    assert (warning["column"], warning["figure"]) == ("euros", pytest.approx(1))
    assert "R2 1.000" in warning["warning"]


def test_an_identifier_whose_order_says_the_target_is_named():
    frame = rows()
    assert found(frame) == []
    for target, classes, ignore in (("churn", True, ("score",)), ("score", False, ("churn",))):
        by_target = frame.sort_values(target).assign(serial=range(len(frame)))
        (warning,) = found(by_target, target, classes, ignore)
        assert (warning["check"], warning["column"]) == ("identifier", "serial")
        assert "its order says" in warning["warning"]


def test_columns_called_after_the_target_are_named():
    frame = rows().rename(columns={"town": "daysSinceChurn"})
    assert [w["column"] for w in found(frame) if w["check"] == "name"] == ["daysSinceChurn"]
    short = rows().rename(columns={"churn": "y", "town": "year", "size": "mean_y"})
    assert [w["column"] for w in found(short, "y") if w["check"] == "name"] == ["mean_y"]


def test_rows_that_contradict_each_other_are_counted():
    frame = rows(100)
    twin = frame.iloc[:10].assign(
        churn=["no" if v == "yes" else "yes" for v in frame["churn"][:10]], serial=range(100, 110)
    )
    (warning,) = found(pd.concat([frame, twin], ignore_index=True))
    assert (warning["check"], warning["figure"]) == ("contradiction", pytest.approx(20 / 110))
    assert "no model is right on more than 90.9%" in warning["warning"]
    same = pd.concat([frame, frame.iloc[:10].assign(serial=range(100, 110))], ignore_index=True)
    assert found(same) == []


# ---------------------------------------------------------------- parts


def test_rows_in_two_parts_are_counted():
    frame = pd.concat(
        [rows(100), rows(100).iloc[:5].assign(serial=range(100, 105)), rows(15, 1).assign(serial=range(105, 120))],
        ignore_index=True,
    )
    parts = np.array(["train"] * 100 + ["valid"] * 20)
    (warning,) = found(frame, parts=parts)
    assert (warning["check"], warning["figure"]) == ("duplicate", pytest.approx(0.25))
    assert "25.0% of the rows of valid are in train" in warning["warning"]
    parts[100:] = "test"
    assert "rows of test" in found(frame, parts=parts)[0]["warning"]


@pytest.mark.parametrize("dates", [True, False])
def test_a_division_that_is_not_by_time_is_told(dates):
    rng, frame = np.random.default_rng(0), rows(200)
    sold = np.arange(200) % 50
    frame["sold"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(sold, unit="D") if dates else sold
    drawn = np.where(rng.random(200) < 0.2, "valid", "train")
    (warning,) = found(frame, parts=drawn, time="sold")
    last = sold[drawn == "train"].max()
    assert (warning["check"], warning["column"]) == ("time", "sold")
    assert warning["figure"] == pytest.approx((sold[drawn == "valid"] < last).mean())
    assert found(frame, parts=np.where(sold >= 40, "valid", "train"), time="sold") == []
    assert found(frame, time="sold") == []
    if dates:  # a hint, since it may be any date
        assert "divide by time (time='sold')" in found(frame, parts=drawn)[0]["warning"]


def test_what_does_not_fit_a_table_is_named():
    frame = rows(40)
    with pytest.raises(DataError, match="has no column 'chrun': did you mean 'churn'"):
        found(frame, "chrun")
    with pytest.raises(DataError, match="has no column 'when'"):
        found(frame, time="when")
    with pytest.raises(DataError, match="got 3 for 40 rows"):
        found(frame, parts=np.array(["train"] * 3))
    with pytest.raises(DataError, match="parts has no 'train'"):
        found(frame, parts=np.array(["a"] * 40))
    with pytest.raises(DataError, match="'churn' must be a number in every row"):
        found(frame, classes=False)
    with pytest.raises(ConfigError, match="most_rows must lie in"):
        found(frame, most_rows=1)


# ---------------------------------------------------------------- parts that differ


def test_rows_of_one_kind_cannot_be_told_apart():
    said = adversarial_validation(rows(600), rows(600, seed=1))
    assert abs(said["auc"] - 0.5) < 0.05
    assert said["low"] < 0.5 < said["high"]
    assert said["rows"] == 1200
    assert "serial" not in {record["column"] for record in said["columns"]}


@pytest.mark.parametrize("column", ["size", "town", "street", "note"])
def test_the_column_that_has_moved_is_named_first(column):
    parts = []
    for seed in (0, 1):
        rng, frame = np.random.default_rng(10 + seed), rows(240, seed)
        frame["street"] = [f"s{i}" for i in rng.integers(0, 80, 240)]
        frame["note"] = [f"a note on the thing {i} of many" for i in rng.integers(0, 200, 240)]
        parts.append(frame)
    moved = {
        "size": lambda f: f["size"] + 2,
        "town": lambda f: np.where(np.arange(240) % 2, "D", f["town"]),
        "street": lambda f: f["street"].str.replace("s1", "r1").str.replace("s2", "r2"),
        "note": lambda f: f["note"].str.replace("thing", "gadget"),
    }
    parts[1][column] = moved[column](parts[1])
    said = adversarial_validation(*parts, ignore=("score", "churn"))
    assert said["low"] > 0.55
    assert said["columns"][0]["column"] == column
    assert sum(record["gain"] for record in said["columns"]) == pytest.approx(1)
    assert said == adversarial_validation(*parts, ignore=("score", "churn"))


def test_too_few_rows_are_refused():
    with pytest.raises(DataError, match="test has 5 rows, at least 20"):
        adversarial_validation(rows(30), rows(5))


def test_the_interval_of_an_area_holds_it_as_often_as_it_says():
    rng, held = np.random.default_rng(0), 0
    part = np.repeat([0, 1], 80)
    area = 0.7602  # of two normals one deviation apart: the distribution function at 1 / sqrt(2)
    for _ in range(200):
        low, high = auc_interval(float(roc_auc_score(part, rng.normal(size=160) + part)), 80, 80)
        held += low < area < high
    assert 180 <= held <= 199
