"""Models that are fitted at once: all that a trained network can do, they can."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from common.data import CategoryBlock, ColReader, ColumnsBlock, DataBlock, IndexSplitter, NoSplitter, RegressionBlock
from common.deploy import Predictor, load
from common.deploy.bundle import seal
from common.errors import BundleError, ConfigError, DataError, ItemError
from common.registry import register
from common.spec import coerce
from common.task.fitted import FittedPart, fitted_parts, part_file
from common.train import AtOnce, ClassificationTask, FittedModel, Learner, RegressionTask

ROOT = Path(__file__).resolve().parents[3]
COUNT = 60


class Town(FittedPart):
    """Adds a number to the score of the class that a town had most often; kept in a file, as trees are."""

    def __init__(self, bonus=2.0):
        super().__init__()
        self.bonus, self.classes = bonus, None

    def fit(self, towns, y):
        found = {int(town): np.bincount(y[towns == town]) for town in np.unique(towns)}
        self.classes = {town: int(counts.argmax()) for town, counts in found.items()}

    def forward(self, towns, scores):
        for row, town in enumerate(towns.tolist()):
            if town in self.classes:
                scores[row, self.classes[town]] += self.bonus
        return scores

    def file_names(self):
        return ("towns.json",)

    def files(self):
        return {"towns.json": json.dumps(self.classes).encode()}

    def load_files(self, files):
        try:
            self.classes = {
                int(town): coerce(label, int, town) for town, label in json.loads(files["towns.json"]).items()
            }
        except (ValueError, AttributeError) as error:
            raise BundleError(f"towns.json does not hold the class of each town: {error}") from error


@register("model", "test_nearest_centroid")
class NearestCentroid(FittedModel):
    """Scores are minus the squared distance to the mean of each class, in a buffer; a part looks at the towns."""

    def __init__(self, numbers, classes):
        super().__init__()
        self.classes = classes
        self.register_buffer("centres", torch.zeros(classes, numbers))
        self.town = Town()

    def fit(self, dls, task, tell=print):
        data = dls.train.arrays()
        tell(f"{len(data.y)} rows")
        for label in range(self.classes):
            self.centres[label] = data.x["numbers"][data.y == label].mean(dim=0)
        self.town.fit(data.x["categories"][:, 0].numpy(), data.y.numpy())

    def forward(self, x):
        return self.town(x["categories"][:, 0], -(x["numbers"][:, None] - self.centres).square().sum(dim=2))

    def spec(self):
        return {"kind": self.registered_name, "numbers": self.centres.shape[1], "classes": self.classes}

    @classmethod
    def from_spec(cls, fields):
        return cls(coerce(fields["numbers"], int, "numbers"), coerce(fields["classes"], int, "classes"))


@pytest.fixture(scope="module")
def table():
    """A table whose class is where its point lies; every fourth row validates."""
    rng = np.random.default_rng(0)
    labels = np.arange(COUNT) % 3
    points = np.array([[0, 0], [4, 0], [0, 4]])[labels] + rng.normal(0, 0.4, (COUNT, 2))
    frame = pd.DataFrame(points, columns=["a", "b"])
    return frame.assign(town=np.array(list("ABC"))[labels], label=np.array(["low", "mid", "top"])[labels])


def loaders(table, splitter=None):
    return DataBlock(
        (ColumnsBlock(infer=True, ignore=("label",)), CategoryBlock),
        get_y=ColReader("label"),
        splitter=splitter or IndexSplitter(range(0, COUNT, 4)),
    ).dataloaders(table, bs=16, num_workers=0)


def learner(dls, **options):
    return AtOnce(
        NearestCentroid(2, dls.c), dls, ClassificationTask(tuple(dls.vocab)), **{"progress": False, **options}
    )


@pytest.fixture(scope="module")
def fitted(table):
    found = learner(loaders(table))
    found.fit()
    return found


@pytest.fixture(scope="module")
def exported(fitted, tmp_path_factory):
    return fitted.export(tmp_path_factory.mktemp("exported") / "bundle")


@pytest.fixture
def bundle(exported, tmp_path):
    """A copy of the bundle that a test may spoil."""
    return shutil.copytree(exported, tmp_path / "bundle")


def reseal(folder):
    """Writes a bundle's list of files anew, as a careful forger would."""
    content = json.loads((folder / "bundle.json").read_text("utf-8"))
    content["files"] = {
        file.name: {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in folder.iterdir()
        if file.name != "bundle.json"
    }
    (folder / "bundle.json").write_text(seal(content), "utf-8")


# --------------------------------------------------------------------- fitting


def test_a_known_answer_is_learned_from_the_training_rows_alone(fitted):
    assert isinstance(fitted, Learner)
    data = fitted.dls.train.arrays()
    assert len(data.y) == COUNT - COUNT // 4
    for label in range(3):
        wanted = data.x["numbers"].numpy()[data.y.numpy() == label].mean(axis=0)
        np.testing.assert_allclose(fitted.model.centres[label], wanted, rtol=1e-6)
    assert fitted.model.town.classes == {2: 0, 3: 1, 4: 2}
    assert fitted.validate()["accuracy"] == 1.0


def test_validate_measures_any_part(fitted):
    found = fitted.validate()
    assert set(found) == {"valid_loss", "accuracy", "error_rate"}
    outputs = fitted.get_preds("valid")
    assert found["valid_loss"] == pytest.approx(outputs.losses.double().mean().item(), rel=1e-6)
    assert fitted.validate("train")["accuracy"] == 1.0
    with pytest.raises(ConfigError, match="have no test part"):
        fitted.validate("test")


@pytest.mark.parametrize("part", ["train", "valid"])
def test_predictions_of_a_part_are_in_the_tables_order(fitted, table, part):
    outputs = fitted.get_preds(part)
    assert outputs.ids.tolist() == [i for i in range(COUNT) if (i % 4 == 0) == (part == "valid")]
    assert [r["label"] for r in outputs.records(fitted.task)] == table["label"].iloc[outputs.ids.tolist()].tolist()


def test_the_history_has_one_record_a_fit(table):
    found = learner(loaders(table))
    found.fit()
    found.fit()
    assert len(found.history) == 2
    record = found.history[-1]
    assert record["valid_loss"] == found.validate()["valid_loss"]
    assert record["accuracy"] == 1.0
    assert record["epoch"] == 0
    assert record["seconds"] >= 0
    assert record["items_per_second"] > 0


def test_without_a_validation_part_there_is_nothing_measured(table):
    found = learner(loaders(table, NoSplitter()))
    found.fit()
    assert set(found.history[0]) == {"epoch", "seconds", "items_per_second"}
    assert found.validate("train")["accuracy"] == 1.0
    with pytest.raises(ConfigError, match="have no valid part"):
        found.validate()


def test_given_metrics_are_measured(table):
    from common.train import accuracy

    found = learner(loaders(table), metrics=[accuracy])
    found.fit()
    assert "error_rate" not in found.history[0]


@pytest.mark.parametrize("progress", [True, False])
def test_what_goes_on_is_told_and_logged(table, tmp_path, capsys, progress):
    found = learner(loaders(table), progress=progress, out=tmp_path / "new" / "run")
    found.fit()
    assert capsys.readouterr().out == ("45 rows\n" if progress else "")
    events = [json.loads(line) for line in (tmp_path / "new" / "run" / "events.jsonl").read_text("utf-8").splitlines()]
    assert [event["event"] for event in events] == ["note", "fitted"]
    assert events[0]["said"] == "45 rows"
    assert {name: events[1][name] for name in found.history[0]} == found.history[0]


def test_a_model_that_learns_step_by_step_is_refused(table):
    with pytest.raises(ConfigError, match="Linear learns step by step: give it to a Trainer"):
        AtOnce(nn.Linear(2, 3), loaders(table), ClassificationTask(("a", "b", "c")))


def test_loaders_that_no_datablock_made_are_refused_before_the_fit(blobs, loaders, classes_task):
    found = AtOnce(NearestCentroid(4, 3), loaders(*blobs()), classes_task, progress=False)
    with pytest.raises(ConfigError, match="needs loaders that a DataBlock made"):
        found.fit()


# ------------------------------------------------------------------- prediction


def test_one_row_is_predicted_as_in_its_part(fitted, table):
    rows = table.drop(columns="label").to_dict("records")
    records = fitted.get_preds("valid").records(fitted.task)
    for place, row in zip(range(0, COUNT, 4), records, strict=True):
        found = fitted.predict(rows[place])
        assert found["label"] == row["label"]
        assert found["probabilities"] == pytest.approx(row["probabilities"], rel=1e-6)


def test_a_frame_is_predicted_as_its_rows_are(fitted, table):
    predictor = fitted.predictor()
    frame = table.drop(columns="label")
    whole = predictor.outputs(frame).output
    assert torch.equal(whole, predictor.outputs(frame.to_dict("records")).output)
    assert torch.equal(whole, predictor.outputs(frame, batch_size=7).output)
    assert torch.equal(whole, predictor.outputs(frame.set_index(frame.index[::-1])).output)
    assert predictor.predict_many(frame)[5]["label"] == table["label"].iloc[5]
    assert predictor.predict_many(frame.iloc[:0]) == []


def test_rows_of_columns_go_in_larger_batches_than_images(fitted, table):
    frame = pd.concat([table.drop(columns="label")] * 2)  # rows of one name
    assert fitted.predictor().loader([frame], frame).options.batch_size == 4096


def test_a_frame_without_a_column_is_refused_naming_the_near_one(fitted, table):
    wrong = table.rename(columns={"town": "towns"})
    for raws in (wrong, wrong.to_dict("records")):
        with pytest.raises((DataError, ItemError), match="no column 'town': did you mean 'towns'"):
            fitted.predictor().outputs(raws)


def test_results_are_drawn(fitted, tmp_path):
    import matplotlib.pyplot as plt

    plt.close(fitted.show_results(4, path=tmp_path / "results.png"))
    assert (tmp_path / "results.png").stat().st_size > 0


# ----------------------------------------------------------------------- bundle


def test_a_bundle_has_the_files_of_every_part(exported, fitted):
    assert sorted(file.name for file in exported.iterdir()) == [
        "README.md",
        "bundle.json",
        "model.safetensors",
        "town.towns.json",
    ]
    assert (exported / "town.towns.json").read_bytes() == fitted.model.town.files()["towns.json"]
    assert json.loads((exported / "bundle.json").read_text())["metrics"]["accuracy"] == 1.0


def test_loaded_it_gives_the_same_bits(exported, fitted, table):
    found = load(exported)
    assert isinstance(found.model, NearestCentroid)
    assert found.encoder == fitted.dls.train.store.encoder
    frame = table.drop(columns="label")
    assert torch.equal(Predictor(found).outputs(frame).output, fitted.predictor().outputs(frame).output)


def test_a_fresh_process_gives_the_same_bits(exported, fitted, table):
    frame = table.drop(columns="label")
    code = (
        "import importlib.util as u, json, sys; from common import Predictor;"
        "spec = u.spec_from_file_location('toy', sys.argv[1]); spec.loader.exec_module(u.module_from_spec(spec));"
        "found = Predictor(sys.argv[2]).outputs(json.loads(sys.argv[3])).output;"
        "print(found.numpy().tobytes().hex())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, __file__, str(exported), json.dumps(frame.to_dict("records"))],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert bytes.fromhex(done.stdout.strip()) == fitted.predictor().outputs(frame).output.numpy().tobytes()


def test_a_file_that_the_model_needs_may_not_be_missing(bundle):
    (bundle / "town.towns.json").unlink()
    with pytest.raises(BundleError, match=r"town\.towns\.json is missing"):
        load(bundle)
    reseal(bundle)
    with pytest.raises(BundleError, match=r"bundle\.json: files must name town\.towns\.json, which the model needs"):
        load(bundle)


def test_trees_that_no_part_asks_for_are_refused(bundle):
    (bundle / "more.ubj").write_bytes(b"{}")
    with pytest.raises(BundleError, match=r"more\.ubj is not in the bundle's list of files"):
        load(bundle)
    reseal(bundle)
    with pytest.raises(BundleError, match=r"more\.ubj belongs to no part of the model"):
        load(bundle)


def test_a_changed_file_is_refused(bundle):
    file = bundle / "town.towns.json"
    file.write_bytes(file.read_bytes().replace(b"0", b"1", 1))
    with pytest.raises(BundleError, match=r"town\.towns\.json was changed: its sha256"):
        load(bundle)


@pytest.mark.parametrize("wrong", [b"", b"[1]", b'{"2": "A"}', b"\xff"])
def test_what_a_part_cannot_read_is_refused(bundle, wrong):
    (bundle / "town.towns.json").write_bytes(wrong)
    reseal(bundle)
    with pytest.raises(BundleError, match=r"towns\.json does not hold the class of each town"):
        load(bundle)


# ------------------------------------------------------------------------ parts


def test_parts_are_found_by_their_place_in_the_model():
    outer = nn.Module()
    outer.members = nn.ModuleList([NearestCentroid(2, 3), nn.Linear(2, 2)])
    assert list(fitted_parts(outer)) == ["members.0", "members.0.town"]
    model = NearestCentroid(2, 3)
    assert fitted_parts(model) == {"": model, "town": model.town}
    assert list(fitted_parts(nn.Linear(2, 2))) == []
    assert (part_file("", "a.json"), part_file("members.0", "a.json")) == ("a.json", "members.0.a.json")


def test_a_part_has_no_files_unless_it_says_so():
    assert (FittedPart().files(), FittedPart().file_names()) == ({}, ())


def test_the_base_of_models_does_nothing_by_itself(table):
    for call in (
        lambda: FittedModel().spec(),
        lambda: FittedModel.from_spec({}),
        lambda: FittedModel().fit(None, None),
    ):
        with pytest.raises(NotImplementedError):
            call()


def test_a_number_is_learned_as_a_class_is(table):
    class Mean(FittedModel):
        """The mean of the training targets."""

        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(()))

        def fit(self, dls, task, tell=print):
            self.mean.fill_(dls.train.arrays().y.mean())

        def forward(self, x):
            return self.mean.expand(len(x["numbers"]))

    dls = DataBlock(
        (ColumnsBlock(numbers=("a",)), RegressionBlock),
        get_y=ColReader("b"),
        splitter=IndexSplitter(range(0, COUNT, 4)),
    ).dataloaders(table, bs=16, num_workers=0)
    found = AtOnce(Mean(), dls, RegressionTask(), progress=False)
    found.fit()
    held = np.arange(COUNT) % 4 == 0
    error = table["b"][held] - table["b"][~held].mean()
    assert found.history[0]["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    with pytest.raises(ConfigError, match="must be registered and have spec"):
        found.export("never written")
