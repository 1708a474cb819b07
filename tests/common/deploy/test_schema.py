"""What a bundle keeps of the reading of its data, and that bundles of schema 1 are still read."""

import json

import pytest

from common.deploy import Predictor, load
from common.deploy.bundle import seal
from common.deploy.domain import find_domain
from common.deploy.schema import SCHEMA, fields_of, upgraded
from common.errors import BundleError, ConfigError


def as_schema_1(folder, **changes):
    """Writes the content of a fresh bundle as schema 1 had it, sealed as it was."""
    content = json.loads((folder / "bundle.json").read_text("utf-8"))
    content = {name: value for name, value in content.items() if name in fields_of(1)} | {"schema": 1} | changes
    (folder / "bundle.json").write_text(seal(content), "utf-8")
    return folder


def test_a_bundle_of_schema_1_predicts_as_it_did(bundle, exported, photos):
    found = load(as_schema_1(bundle))
    assert found.reading == find_domain("classification").options()
    assert found.parts == {}
    files = sorted(photos.rglob("*.png"))[:4]
    assert Predictor(found).predict_many(files) == Predictor(exported).predict_many(files)


def test_a_table_of_schema_1_has_its_target_in_the_reading(tmp_path):
    import numpy as np
    import pandas as pd

    from applications.tabular import TabularDataLoaders, evaluate, tabular_learner

    frame = pd.DataFrame({"x": np.arange(60.0), "seen": 1, "kind": ["a", "b"] * 30})
    frame["y"] = frame["x"] * 2
    for target, kind in (("kind", "tabular_classification"), ("y", "tabular_regression")):
        dls = TabularDataLoaders.from_df(frame, y_names=target)
        learner = tabular_learner(dls, ("linear",), target=target, progress=False)
        learner.fit()
        fresh = learner.export(tmp_path / target)
        assert load(fresh).reading.target == target
        frame.to_csv(tmp_path / "t.csv", index=False)
        metrics = evaluate(Predictor(fresh), tmp_path / "t.csv")
        task = json.loads((fresh / "bundle.json").read_text())["task"]
        old = load(as_schema_1(fresh, task={**task, "kind": kind, "target": target}))
        assert old.task == learner.task
        assert old.reading.target == target
        assert evaluate(Predictor(old), tmp_path / "t.csv") == metrics


def test_a_bundle_of_schema_1_that_was_changed_is_refused(bundle):
    main = as_schema_1(bundle) / "bundle.json"
    main.write_text(main.read_text().replace('"threshold": 0.5', '"threshold": 0.6'))
    with pytest.raises(BundleError, match=r"bundle\.json was changed"):
        load(bundle)


def test_schema_1_has_none_of_the_later_fields(bundle):
    as_schema_1(bundle, reading={})
    with pytest.raises(BundleError, match="there is no field 'reading' in a bundle"):
        load(bundle)


def test_content_of_this_schema_stays_as_it_is():
    content = {"schema": SCHEMA, "task": {"kind": "tabular_classification", "target": "x"}}
    assert upgraded(content) is content


def test_the_reading_is_kept_and_of_the_domain(make_trainer, tmp_path):
    from applications.classification.domain import ImageReading
    from applications.tabular.reading import TableReading

    trainer = make_trainer(epochs=1)
    trainer.reading = ImageReading(label_column="kind")
    folder = trainer.export(tmp_path / "b")
    assert json.loads((folder / "bundle.json").read_text())["reading"]["label_column"] == "kind"
    assert load(folder).reading == trainer.predictor().reading == trainer.reading
    trainer.reading = TableReading()
    with pytest.raises(
        ConfigError, match="reading of the domain classification must be ImageReading, got TableReading"
    ):
        trainer.export(tmp_path / "b")
    assert load(folder).reading == ImageReading(label_column="kind")
