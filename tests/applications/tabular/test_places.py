"""Places on a map: turned axes, and what the nearest training rows say."""

import numpy as np
import pandas as pd
import pytest
import torch

from applications.tabular import EnsembleConfig, TabularRegressor, read_source, tabular_learner
from applications.tabular.ensemble import places_of
from applications.tabular.places import LEAST_DISTANCE, NEAREST, TURNS, NearTargets, Place, turned
from applications.tabular.shap import shap_values
from common.data import ColumnsBlock
from common.deploy import Predictor
from common.errors import ConfigError

RNG = np.random.default_rng(3)


def cities(rows, seed=0):
    """Rows about nine towns whose prices are drawn town by town: no line on the map tells them apart."""
    rng = np.random.default_rng(seed)
    town = rng.integers(0, 9, rows)
    middle = np.stack([town // 3, town % 3], 1) * 0.5 + [48.0, 9.0]
    where = middle + rng.normal(0, 0.05, (rows, 2))
    price = np.random.default_rng(7).permutation(9)[town] * 10.0
    return pd.DataFrame({"lat": where[:, 0], "lon": where[:, 1], "noise": rng.normal(size=rows)}), price


def plain_features(points, target, point):
    """The same by hand, one row at a time."""
    distance = np.maximum(np.sqrt(((points - point) ** 2).sum(1)), LEAST_DISTANCE)
    order = np.argsort(distance)
    found = []
    for count in NEAREST:
        near = order[:count]
        found.append(float((target[near, 0] / distance[near]).sum() / (1 / distance[near]).sum()))
    return [*found, float(target[order[: max(NEAREST)], 0].std()), float(np.log(distance[order[NEAREST[0] - 1]]))]


def test_turned_axes_are_unit_directions_and_differ():
    axes = turned(np.eye(2))
    assert axes.shape == (2, len(TURNS))
    assert np.allclose((axes**2).sum(0), 1)
    assert len(np.unique(axes.round(6), axis=1).T) == len(TURNS)


def test_features_are_the_means_of_the_nearest_rows():
    points, target = RNG.normal(size=(200, 2)), RNG.normal(size=(200, 1))
    near = NearTargets(300, 1)
    near.fit(points, target, 0)
    asked = RNG.normal(size=(20, 2))
    expected = [plain_features(points, target.astype(np.float32), point) for point in asked]
    assert np.allclose(near.features(asked), expected, atol=1e-4)


def test_a_training_row_does_not_see_its_own_target():
    points, target = RNG.normal(size=(400, 2)), np.zeros((400, 1))
    before = NearTargets(400, 1).fit(points, target, 0)
    for row in (0, 17, 399):
        changed = target.copy()
        changed[row] = 1e3
        after = NearTargets(400, 1).fit(points, changed, 0)
        assert np.array_equal(after[row], before[row])
        assert not np.array_equal(after, before)


def test_a_row_without_a_place_has_the_overall_mean():
    points, target = RNG.normal(size=(50, 2)), np.arange(50.0)[:, None]
    points[::5] = np.nan
    near = NearTargets(50, 1)
    found = near.fit(points, target, 0)
    assert (found[::5, : len(NEAREST)] == 24.5).all()
    assert (near.features(np.full((1, 2), np.nan))[0, : len(NEAREST)] == 24.5).all()
    assert np.isfinite(found).all()


@pytest.mark.parametrize("rows", [1, 2, 7, 30])
def test_few_rows_give_finite_features(rows):
    near = NearTargets(rows, 2)
    assert np.isfinite(near.fit(RNG.normal(size=(rows, 2)), RNG.normal(size=(rows, 2)), 0)).all()
    assert near.features(np.zeros((3, 2))).shape == (3, near.width)


def test_no_row_with_a_place_gives_finite_features():
    near = NearTargets(4, 1)
    assert np.isfinite(near.fit(np.full((4, 2), np.nan), np.ones((4, 1)), 0)).all()
    assert near.features(np.zeros((1, 2)))[0, 0] == 1


def test_rows_that_are_looked_up_travel_with_the_state():
    points, target = RNG.normal(size=(60, 2)), RNG.normal(size=(60, 1))
    near, again = NearTargets(80, 1), NearTargets(80, 1)
    near.fit(points, target, 0)
    again.load_state_dict(near.state_dict())
    asked = RNG.normal(size=(9, 2))
    assert np.array_equal(again.features(asked), near.features(asked))


def test_a_place_counts_in_degrees_of_latitude():
    frame = pd.DataFrame({"lat": np.linspace(59.0, 61.0, 40), "lon": np.linspace(10.0, 14.0, 40)[::-1]})
    block = ColumnsBlock(infer=True).setup(frame)
    (place,) = places_of(block)
    x = block.encode_many(frame)
    points = place.points(x["numbers"].numpy(), x["missing"].numpy())
    span = points.max(0) - points.min(0)
    assert span[0] == pytest.approx(2.0, rel=1e-4)
    assert span[1] == pytest.approx(4.0 * 0.5, rel=0.01)  # a degree of longitude is half as long at 60 degrees north


def test_a_place_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="north must lie in"):
        Place(latitude=0, longitude=1, north=0.0)


@pytest.mark.parametrize("members", [("xgboost",), ("linear",), ("network",)])
def test_what_no_line_on_the_map_tells_is_learned_from_the_neighbours(members):
    x, y = cities(600)
    rows, truth = cities(300, seed=1)
    errors = {}
    for kind, frame in {"place": x, "numbers": x.rename(columns={"lat": "a", "lon": "b"})}.items():
        model = TabularRegressor(members=members, folds=2).fit(frame, y)
        errors[kind] = np.sqrt(np.mean((model.predict(rows.set_axis(frame.columns, axis=1)) - truth) ** 2))
    assert errors["place"] < 6
    assert errors["place"] < errors["numbers"]


def test_a_bundle_with_places_predicts_the_same_bits(tmp_path):
    x, y = cities(300)
    source_file = tmp_path / "homes.csv"
    x.assign(price=y).to_csv(source_file, index=False)
    source = read_source(source_file, "price")

    dls = source.block(source.dividing(0.2, 0)).dataloaders(source.items)
    learner = tabular_learner(dls, target="price", config=EnsembleConfig(members=("xgboost", "linear"), folds=2))
    learner.fit()
    learner.export(tmp_path / "bundle")
    rows = cities(20, seed=2)[0]
    rows.loc[3, "lat"] = None
    said = Predictor(tmp_path / "bundle").predict_many(rows)
    block = dls.blocks[0]
    with torch.inference_mode():
        expected = learner.model(block.encode_many(rows))
    assert [record["value"] for record in said] == expected.tolist()


def test_shap_values_of_trees_that_see_places_add_up():
    x, y = cities(300)
    model = TabularRegressor(members=("xgboost",), folds=2).fit(x, y)
    block = model.predictor_.encoder.blocks[0]
    names, values = shap_values(model.predictor_.model, block.encode_many(x), block)
    assert ("lat + lon: place", "lat + lon") in names
    assert np.allclose(values.sum(axis=2)[:, 0], model.predict(x), atol=1e-3)
