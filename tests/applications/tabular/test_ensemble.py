"""The ensemble: what it learns, its folds and budget, and its way through a bundle."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from applications.tabular import EnsembleConfig, TabularEnsemble, member_metrics
from common.deploy import Predictor, load
from common.deploy.bundle import seal
from common.errors import BundleError, ConfigError, DataError
from common.files import sha256

ROOT = Path(__file__).resolve().parents[3]
KINDS = pytest.mark.parametrize("kind", ["regression", "classification"])


def test_the_known_answer_is_learned(learners, frames):
    found = learners["regression"].validate()
    spread = frames["regression"]()["price"].std()
    assert found["rmse"] < 0.35 * spread
    assert learners["classification"].validate()["accuracy"] > 0.8


@KINDS
def test_the_ensemble_is_not_worse_out_of_fold_than_its_best_member(learners, kind):
    table = learners[kind].model.chosen.table
    assert table[-1]["member"] == "ensemble"
    assert table[-1]["loss"] <= min(record["loss"] for record in table[:-1]) + 1e-9
    assert sum(record["weight"] for record in table[:-1]) == pytest.approx(1)


@KINDS
def test_the_output_is_the_weighted_mean_of_the_members(learners, kind):
    learner = learners[kind]
    x = learner.dls.valid.arrays().x
    every = learner.model.members(x)
    mean = sum(w * every[n] for n, w in zip(learner.model.chosen.names, learner.model.chosen.weights, strict=True))
    out = learner.model(x)
    if kind == "regression":
        np.testing.assert_allclose(out[:, 0], mean, rtol=1e-5)
    else:
        wanted = torch.from_numpy(mean).log().div(learner.model.chosen.temperature).softmax(1)
        np.testing.assert_allclose(out.softmax(1), wanted, atol=1e-5)
    assert set(member_metrics(learner.model, learner.task, learner.dls.valid)) == set(every)


def test_quantiles_rise_and_hold_about_their_share(learners):
    output = learners["regression"].get_preds("valid")
    assert bool((output.output[:, 1] <= output.output[:, 2]).all())
    found = learners["regression"].task.report(output)
    assert 0.6 < found["coverage"] <= 1.0


def fresh(bundle, rows):
    """What a fresh process predicts from a bundle, from another folder."""
    code = (
        "import sys, json, torch, pandas as pd; torch.set_num_threads(1); from common.deploy import Predictor;"
        f"out = Predictor({str(bundle)!r}).outputs(pd.read_parquet({str(rows)!r})).output;"
        "print(json.dumps(out.double().tolist()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True,
                          env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"})  # fmt: skip
    return torch.tensor(json.loads(done.stdout), dtype=torch.float64)


@KINDS
def test_predictions_of_a_bundle_in_a_fresh_process_are_the_same_bits(learners, frames, kind, tmp_path):
    learner, frame = learners[kind], frames[kind](60, seed=9)
    before = learner.predictor().outputs(frame).output
    bundle = learner.export(tmp_path / "bundle")
    frame.to_parquet(tmp_path / "rows.parquet")
    assert torch.equal(fresh(bundle, tmp_path / "rows.parquet"), before.double())


def test_rows_may_come_as_a_frame_or_as_dictionaries(learners, frames):
    predictor, frame = learners["classification"].predictor(), frames["classification"](8, seed=5)
    whole = predictor.predict_many(frame)
    assert [record["label"] for record in whole] == [
        predictor(row)["label"] for row in json.loads(frame.to_json(orient="records"))
    ]
    assert set(whole[0]["probabilities"]) == {"cheap", "dear"}
    with pytest.raises(DataError, match="this is a table of 8: give it to predict_many"):
        predictor(frame)


def forge(bundle, edit):
    """Changes the first tree file's content, and every hash with it: a careful forger."""
    from common.deploy.ubjson import decode, encode

    content = json.loads((bundle / "bundle.json").read_text())
    name = next(name for name in sorted(content["files"]) if name.endswith(".ubj"))
    data = decode((bundle / name).read_bytes(), name)
    edit(data["learner"]["gradient_booster"]["model"]["trees"][0])
    (bundle / name).write_bytes(encode(data))
    content["files"][name] = {"bytes": (bundle / name).stat().st_size, "sha256": sha256(bundle / name)}
    (bundle / "bundle.json").write_text(seal(content))


def child_out_of_range(tree):
    tree["left_children"] = np.where(np.arange(len(tree["left_children"])) == 0, 10**6, tree["left_children"])
    tree["left_children"] = tree["left_children"].astype(np.int32)


def self_loop(tree):
    tree["right_children"] = np.where(np.arange(len(tree["right_children"])) == 0, 0, tree["right_children"])
    tree["right_children"] = tree["right_children"].astype(np.int32)


def feature_out_of_range(tree):
    tree["split_indices"] = np.full_like(tree["split_indices"], 10**6)


@pytest.fixture
def bundle(learners, tmp_path):
    return learners["regression"].export(tmp_path / "bundle")


@pytest.mark.parametrize("edit", [child_out_of_range, self_loop, feature_out_of_range])
def test_a_bundle_whose_trees_were_edited_is_refused(bundle, edit):
    load(bundle)
    forge(bundle, edit)
    with pytest.raises(BundleError, match=r"trees\.ubj: tree 0"):
        load(bundle)


def test_a_bundle_without_one_of_its_tree_files_is_refused(bundle):
    content = json.loads((bundle / "bundle.json").read_text())
    name = next(name for name in content["files"] if name.endswith(".ubj"))
    del content["files"][name]
    (bundle / name).unlink()
    (bundle / "bundle.json").write_text(seal(content))
    with pytest.raises(BundleError, match="which the model needs"):
        load(bundle)


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda m: m["chosen"]["names"].append("mystery"), "one weight a name"),
        (lambda m: m["chosen"]["names"].__setitem__(0, "mystery"), "mystery"),
        (lambda m: m["shape"].update(numbers=10**9), "numbers must lie in"),
        (lambda m: m["shape"].update(scale=0.0), "scale must lie in"),
        (lambda m: m["chosen"].update(folds=10**6), "folds must lie in"),
        (lambda m: m["chosen"].update(shifts=[1.0]), "one shift a quantile"),
        (lambda m: m["config"].update(folds="many"), "folds must be int"),
        (lambda m: m.update(surprise=1), "surprise"),
    ],
)
def test_a_bundle_with_an_edited_description_is_refused(bundle, edit, match):
    content = json.loads((bundle / "bundle.json").read_text())
    edit(content["model"])
    (bundle / "bundle.json").write_text(seal(content))
    with pytest.raises(BundleError, match=match):
        load(bundle)


def test_one_seed_gives_the_same_bundle(fit, frames, tmp_path):
    made = [fit(frames["regression"](120), ("linear", "xgboost", "network"), folds=2, epochs=2) for _ in range(2)]
    one, two = (learner.export(tmp_path / str(i)) for i, learner in enumerate(made))
    for file in sorted(one.iterdir()):
        if file.suffix in (".ubj", ".safetensors"):
            assert file.read_bytes() == (two / file.name).read_bytes(), file.name


def test_equal_groups_stay_in_one_fold(fit, frames):
    frame = frames["regression"](120)
    frame["owner"] = np.arange(120) // 6
    learner = fit(frame, ("linear",), whole=True, group="owner")
    loader = learner.dls.train
    for train, held in learner.model._cuts(loader, loader.arrays().y.numpy()):
        owners = frame["owner"].to_numpy()
        assert not set(owners[train]) & set(owners[held])


def test_folds_by_time_are_contiguous(fit, frames):
    frame = frames["regression"](120).sample(frac=1, random_state=3).reset_index(drop=True)
    frame["day"] = pd.date_range("2024-01-01", periods=120).to_numpy()
    frame = frame.sample(frac=1, random_state=4).reset_index(drop=True)
    learner = fit(frame, ("linear",), whole=True, time="day")
    loader = learner.dls.train
    for _, held in learner.model._cuts(loader, loader.arrays().y.numpy()):
        days = np.sort(frame["day"].to_numpy()[held])
        assert (np.diff(days) == np.timedelta64(1, "D")).all()


def test_a_missing_fold_column_is_named(fit, frames):
    with pytest.raises(DataError, match="no column 'owner'"):
        fit(frames["regression"](60), ("linear",), group="owner")


def test_the_budget_is_kept_and_what_was_left_out_is_told(fit, frames, capsys):
    def seconds(budget_s):
        started = time.perf_counter()
        fit(frame, ("xgboost", "linear", "network"), folds=2, budget_s=budget_s, progress=True)
        return time.perf_counter() - started

    frame = frames["regression"](3000)
    least = min(seconds(1e-3), seconds(1e-3))  # what is not the budget's: reading, encoding, one member, validation
    assert seconds(3.0) < 3.0 * 1.1 + 2 * least
    assert "ensemble: out-of-fold loss" in capsys.readouterr().out


def test_a_budget_that_is_too_short_leaves_members_out_but_not_all(fit, frames, capsys):
    learner = fit(frames["regression"](400), ("xgboost", "network"), folds=2, budget_s=0.05, progress=True)
    assert learner.model.chosen.names == ("xgboost",)
    assert "network: left out, it would not be done within budget_s=0.05" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"members": ()}, "members must name at least one"),
        ({"members": ("xgbost",)}, "did you mean 'xgboost'"),
        ({"members": ("xgboost_embedded", "network")}, "name network before it"),
        ({"folds": 1}, "folds must lie in"),
        ({"budget_s": 0.0}, "budget_s must lie in"),
        ({"device": "gpu"}, "device has no option"),
    ],
)
def test_wrong_options_are_one_sentence(options, match):
    with pytest.raises(ConfigError, match=match):
        EnsembleConfig(**options)


def test_an_ensemble_that_is_not_fitted_says_so():
    with pytest.raises(ConfigError, match="not fitted"):
        TabularEnsemble(EnsembleConfig())({})


def test_evaluate_with_the_bundle_is_what_the_learner_measured(learners, frames, tmp_path):
    from applications.tabular import evaluate

    learner, frame = learners["classification"], frames["classification"](50, seed=4)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    found = evaluate(Predictor(learner.export(tmp_path / "bundle")), tmp_path / "rows.csv")
    right = [r["label"] == t for r, t in zip(learner.predictor().predict_many(frame), frame["price"], strict=True)]
    assert found["accuracy"] == pytest.approx(np.mean(right))


@KINDS
def test_members_say_the_same_before_and_after_an_evaluation(learners, kind):
    learner = learners[kind]
    x = learner.dls.valid.arrays().x
    before = learner.model.members(x)
    learner.get_preds("valid")
    learner.model.train()
    for name, said in learner.model.members(x).items():
        assert np.array_equal(said, before[name]), name
