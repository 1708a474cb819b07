"""What matters to a model of a table is found where it is known, and is what trusted libraries find."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest
from sklearn import inspection
from sklearn.base import BaseEstimator, RegressorMixin

from applications.tabular import EnsembleConfig, TabularClassification, TabularRegression, shap
from applications.tabular import explain as x
from applications.tabular.booster import Booster
from applications.tabular.data import table_source
from applications.tabular.learner import tabular_learner
from common.errors import ConfigError, DataError
from common.sources.splits import NoSplitter

CONFIG = EnsembleConfig(members=("linear", "xgboost"), folds=2)
WORDS = np.array(["blue ink on paper", "red ink on paper", "old glass in boxes", "new glass in boxes"])


def rows(count, seed=0):
    """A target made of `size` (as a step) and `town`; `noise` says nothing."""
    rng = np.random.default_rng(seed)
    size, town = rng.normal(size=count), rng.choice(["A", "B", "C"], count)
    score = 2.0 * (size > 0) + np.where(town == "A", 1.5, 0.0) + rng.normal(0, 0.3, count)
    return pd.DataFrame({
        "size": size, "town": town, "noise": rng.normal(size=count),
        "opened": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, count), unit="D"),
        "big": rng.choice(["yes", "no"], count), "score": score, "class": np.where(score > 1.4, "high", "low"),
    })  # fmt: skip


def taught(frame, target, ignore=(), members=None):
    torch.set_num_threads(1)
    source = table_source(frame, target, ignore=ignore)
    dls = source.block(NoSplitter()).dataloaders(source.items)
    learn = tabular_learner(dls, members, target=target, config=CONFIG, progress=False)
    learn.fit()
    return learn


@pytest.fixture(scope="module")
def classifier():
    return taught(rows(300), "class", ("score",))


@pytest.fixture(scope="module")
def regressor():
    return taught(rows(300), "score", ("class",))


# ---------------------------------------------------------------- shuffled columns


class Wrapped(RegressorMixin, BaseEstimator):
    """A predictor as scikit-learn takes it."""

    def __init__(self, predictor=None):
        self.predictor = predictor
        self.fitted_ = True

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, frame, truth):
        raise AssertionError

    def predict(self, frame):
        return self.predictor.outputs(frame).output.double().numpy()


def test_columns_that_matter_raise_the_loss_when_shuffled(classifier, regressor):
    held = rows(200, seed=1)
    for learn, target in ((classifier, "class"), (regressor, "score")):
        found = x.permutation_importance(learn.predictor(), held, target)
        assert [record["column"] for record in found[:2]] == ["size", "town"]
        by = {record["column"]: record["importance"] for record in found}
        assert set(by) == {"size", "town", "noise", "opened", "big"}
        assert by["town"] > 0.1
        assert all(abs(by[name]) < 0.05 for name in ("noise", "opened", "big"))


def test_importance_is_that_of_scikit_learn(regressor):
    held, predictor = rows(150, seed=1), regressor.predictor()
    features = held.drop(columns=["score", "class"])

    def negative_rmse(model, frame, truth):
        return -float(np.sqrt(np.mean((model.predict(frame) - truth) ** 2)))

    ours = {r["column"]: r for r in x.permutation_importance(predictor, held, "score", repeats=8)}
    theirs = inspection.permutation_importance(
        Wrapped(predictor), features, held["score"].to_numpy(), scoring=negative_rmse, n_repeats=8, random_state=0
    )
    for name, mean, std in zip(features.columns, theirs.importances_mean, theirs.importances_std, strict=True):
        spread = (ours[name]["std"] ** 2 + std**2) ** 0.5 / 8**0.5
        assert abs(ours[name]["importance"] - mean) < 4 * spread + 1e-6, name


def test_a_shuffle_is_a_function_of_seed_column_and_repeat(classifier):
    held, predictor = rows(60, seed=1), classifier.predictor()
    one = x.permutation_importance(predictor, held, "class", repeats=2)
    same = x.permutation_importance(predictor, held[held.columns[::-1]], "class", repeats=2)
    other = x.permutation_importance(predictor, held, "class", repeats=2, seed=1)
    assert one == same
    assert one != other
    assert len(x.permutation_importance(predictor, held, "class", repeats=1, most_rows=20)) == 5


# ---------------------------------------------------------------- dependence


def test_dependence_is_that_of_scikit_learn(regressor):
    held, predictor = rows(100, seed=1), regressor.predictor()
    features = held[["size", "town", "noise", "opened", "big"]]
    ours = x.partial_dependence(predictor, held, "size", points=7)
    theirs = inspection.partial_dependence(
        Wrapped(predictor), features, ["size"], custom_values={"size": np.array(ours.grid)}, method="brute"
    )
    np.testing.assert_allclose(ours.values[:, 0], theirs["average"][0], atol=1e-5)
    ours = x.partial_dependence(predictor, held, "town")
    theirs = inspection.partial_dependence(
        Wrapped(predictor), features, ["town"], categorical_features=["town"], method="brute"
    )
    by = dict(zip(ours.grid, ours.values[:, 0], strict=True))
    np.testing.assert_allclose([by[name] for name in theirs["grid_values"][0]], theirs["average"][0], atol=1e-5)


def test_the_answer_moves_as_the_data_were_made(classifier, regressor):
    held = rows(200, seed=1)
    size = x.partial_dependence(regressor.predictor(), held, "size")
    low, high = size.values[np.array(size.grid) < -0.3, 0], size.values[np.array(size.grid) > 0.3, 0]
    assert high.min() - low.max() == pytest.approx(2.0, abs=0.5)
    town = x.partial_dependence(classifier.predictor(), held, "town")
    assert town.names == ("high", "low")
    assert sorted(town.grid) == ["A", "B", "C"]
    np.testing.assert_allclose(town.values.sum(axis=1), 1, atol=1e-6)
    shares = dict(zip(town.grid, town.values[:, 0], strict=True))
    assert shares["A"] > shares["B"] + 0.3


def test_dates_and_yes_and_no_have_a_dependence_too(regressor):
    held, predictor = rows(100, seed=1), regressor.predictor()
    opened = x.partial_dependence(predictor, held, "opened", points=5)
    assert opened.kind == "date"
    assert list(opened.grid) == sorted(opened.grid)
    assert opened.grid[0].startswith("2024-")
    big = x.partial_dependence(predictor, held, "big")
    assert big.grid == ("no", "yes")
    assert np.ptp(big.values) < 0.1


def test_columns_without_a_dependence_are_named(regressor):
    held, predictor = rows(40), regressor.predictor()
    with pytest.raises(ConfigError, match="does not use a column 'sizes': did you mean 'size'"):
        x.partial_dependence(predictor, held, "sizes")
    with pytest.raises(DataError, match="no row has a value in 'size'"):
        x.partial_dependence(predictor, held.assign(size=np.nan), "size")


# ---------------------------------------------------------------- SHAP values


def trees_of(learn, frame):
    """The weighted mean of what the trees say, plainly."""
    model, block = learn.fitted, learn.dls.train.store.encoder.blocks[0]
    encoded, total, weight = block.encode_many(frame), 0.0, 0.0
    for fold in model.folds:
        for name, share in zip(model.chosen.names, model.chosen.weights, strict=True):
            if isinstance(fold.members[name], Booster):
                scores = fold.members[name].scores(fold.seen(name, fold.rows(encoded)))
                total, weight = total + share * scores.astype(np.float64), weight + share
    return total / weight, encoded, block


def test_shap_values_add_up_to_what_the_trees_say(classifier, regressor):
    held = rows(50, seed=1)
    said, encoded, block = trees_of(classifier, held)
    names, values = shap.shap_values(classifier.fitted, encoded, block)
    np.testing.assert_allclose(values.sum(axis=2), said, atol=1e-4)
    assert values.shape == (50, 1, len(names) + 1)
    assert ("size", "size") in names
    assert ("opened.weekday", "opened") in names
    said, encoded, block = trees_of(regressor, held)
    values = shap.shap_values(regressor.fitted, encoded, block)[1]
    shape = regressor.fitted.shape
    np.testing.assert_allclose(values.sum(axis=2), said * shape.scale + shape.center, atol=1e-4)


def test_shap_importance_finds_the_columns_that_matter(classifier):
    found = shap.shap_importance(classifier.predictor(), rows(100, seed=1))
    assert [record["column"] for record in found[:2]] == ["size", "town"]
    assert found[0]["importance"] > 10 * found[-1]["importance"]


def test_features_made_with_the_target_are_named_after_their_columns():
    rng = np.random.default_rng(0)
    town, words = rng.integers(0, 70, 420), rng.integers(0, 4, 420)
    review = [f"{WORDS[w]} number {i}" for i, w in enumerate(words)]
    kind = np.array(["x", "y", "z"])[(town % 2) + (words > 1)]
    frame = pd.DataFrame(
        {"town": [f"t{i}" for i in town], "review": review, "size": rng.normal(size=420), "kind": kind}
    )
    learn = taught(frame, "kind", members=("xgboost_shallow",))
    said, encoded, block = trees_of(learn, frame[:40])
    names, values = shap.shap_values(learn.fitted, encoded, block)
    fold = learn.fitted.folds[0]
    assert len(shap.feature_names(fold, block)) == fold.features
    assert [name for name, _ in names] == [
        "review.words", "review.characters", "size", "town: mean target", "town: rows", "review: text"
    ]  # fmt: skip
    assert values.shape == (40, 3, 7)
    np.testing.assert_allclose(values.sum(axis=2), said, atol=1e-4)
    found = shap.shap_importance(learn.predictor(), frame[:100])
    assert {record["column"] for record in found[:2]} == {"town", "review"}


def test_an_ensemble_without_trees_has_no_shap_values():
    learn = taught(rows(60), "class", ("score",), members=("linear",))
    with pytest.raises(ConfigError, match="the mean holds no trees"):
        shap.shap_importance(learn.predictor(), rows(10))


# ---------------------------------------------------------------- slices


def test_the_slice_that_is_wrong_comes_first_with_wilsons_interval():
    frame = rows(400)
    task = TabularClassification(("high", "low"))
    truth = (frame["class"] == "low").to_numpy().astype(int)
    said = np.where((frame["town"] == "B") & (frame["noise"] > 0), 1 - truth, truth)
    output = torch.nn.functional.one_hot(torch.from_numpy(said), 2).float() * 5
    found = x.slices(frame, "class", output, task, most=40)
    first = found[0]
    assert first["slice"] == "town: B"
    wrong = int((said != truth)[frame["town"] == "B"].sum())
    interval = binomtest(wrong, first["rows"]).proportion_ci(method="wilson")
    assert first["error"] == pytest.approx(wrong / first["rows"])
    assert (first["low"], first["high"]) == pytest.approx((interval.low, interval.high), abs=1e-6)
    assert first["worse"] == pytest.approx(first["low"] - (said != truth).mean())
    quartiles = [record for record in found if record["slice"].startswith("noise: ")]
    assert sum(record["rows"] for record in quartiles) == 400
    assert all(" … " in record["slice"] for record in quartiles)
    assert all(95 <= record["rows"] <= 105 for record in quartiles)


def test_slices_of_numbers_tell_where_the_error_is_large():
    frame = rows(400)
    frame.loc[::5, "noise"] = np.nan
    off = np.where(frame["noise"].isna(), 1.0, 0.1)
    output = torch.from_numpy(frame["score"].to_numpy() + off)
    found = x.slices(frame, "score", output, TabularRegression(), columns=["noise"])
    assert found[0]["slice"] == "noise: missing"
    assert (found[0]["rows"], found[0]["error"]) == (80, pytest.approx(1.0))
    assert found[1]["error"] == pytest.approx(0.1)
    again = x.slices(frame, "score", output, TabularRegression(), columns=["noise"])
    assert found == again
    assert x.slices(frame, "score", output, TabularRegression(), columns=["noise"], least=90) == []


def test_the_bootstrap_interval_holds_the_error():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"town": ["A"] * 200, "score": np.zeros(200)})
    inside = 0
    for _ in range(40):
        output = torch.from_numpy(rng.normal(size=200))
        record = x.slices(frame, "score", output, TabularRegression(), columns=["town"])[0]
        inside += record["low"] < 1.0 < record["high"]
    assert inside >= 34


def test_what_does_not_fit_is_named(classifier):
    frame, task = rows(40), TabularClassification(("high", "low"))
    with pytest.raises(DataError, match="got 3 outputs for 40 rows"):
        x.slices(frame, "class", torch.zeros(3, 2), task)
    with pytest.raises(DataError, match="has no column 'twon'"):
        x.slices(frame, "class", torch.zeros(40, 2), task, columns=["twon"])
    with pytest.raises(DataError, match="has the class 'hihg'"):
        x.permutation_importance(classifier.predictor(), frame.assign(**{"class": "hihg"}), "class")
    with pytest.raises(ConfigError, match="repeats must lie in"):
        x.permutation_importance(classifier.predictor(), frame, "class", repeats=0)
    with pytest.raises(DataError, match="must be a number in every row, got 'low'"):
        x.slices(frame.assign(score="low"), "score", torch.zeros(40), TabularRegression())


# ---------------------------------------------------------------- pictures


def test_importances_and_dependences_are_drawn(tmp_path):
    records = [{"column": "a $x_{", "importance": 0.3, "std": 0.1}, {"column": "b", "importance": -0.1, "std": 0.0}]
    figure = x.importance_figure(records, path=tmp_path / "one.png")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a $x_{", "b"]
    assert (tmp_path / "one.png").stat().st_size > 1000
    number = x.Dependence("size", "number", (0.0, 1.0), ("high", "low"), np.array([[0.2, 0.8], [0.6, 0.4]]))
    level = x.Dependence("town", "category", ("A", "B"), ("value",), np.array([[1.0], [2.0]]))
    figure = x.dependence_figure([number, level], path=tmp_path / "two.png")
    assert [line.get_ydata().tolist() for axes in figure.axes for line in axes.lines] == [[0.8, 0.4], [1.0, 2.0]]
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["A", "B"]
