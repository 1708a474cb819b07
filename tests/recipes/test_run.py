"""The classification recipe: what a run leaves, and that evaluate and predict agree with it."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from common.deploy import Predictor, load

STANDARD = {"accuracy", "auc", "error_rate", "f1", "items_per_second", "loss", "seconds"}
FILES = {"bundle", "config.json", "events.jsonl", "metrics.json", "pictures", "report.html", "split.csv"}
PICTURES = {"augmented.png", "batch.png", "confusion.png", "curves.png", "results.png", "top_losses.png"}


def strict(text):
    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def metrics_of(out):
    return strict((out / "metrics.json").read_text())


# ------------------------------------------------------------ what a run leaves


def test_a_run_leaves_exactly_these_files(digits_run):
    assert {p.name for p in digits_run.iterdir()} == FILES
    assert {p.name for p in (digits_run / "pictures").iterdir()} == PICTURES
    assert {p.name for p in (digits_run / "bundle").iterdir()} == {"README.md", "bundle.json", "model.safetensors"}


def test_metrics_are_flat_numbers_by_their_standard_names(digits_run):
    metrics = metrics_of(digits_run)
    assert set(metrics) == STANDARD
    assert all(type(value) is float and np.isfinite(value) for value in metrics.values())
    assert metrics["error_rate"] == pytest.approx(1 - metrics["accuracy"])
    assert metrics["accuracy"] > 0.2  # two epochs; a tenth by chance
    assert metrics["seconds"] > 0
    assert metrics["items_per_second"] > 0


def test_config_holds_every_option(digits_run):
    from recipes.classification import Options

    config = strict((digits_run / "config.json").read_text())
    assert set(config) == set(Options.__dataclass_fields__)
    assert (config["epochs"], config["arch"], config["seed"]) == (2, "small_resnet", 0)
    assert Options(**config) == Options(epochs=2, out=str(digits_run), device="cpu")


def test_events_are_json_lines(digits_run):
    events = [strict(line) for line in (digits_run / "events.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events] == ["start", "fit_start", "epoch", "epoch", "fit_end"]


def test_pictures_are_pictures(digits_run):
    for file in (digits_run / "pictures").iterdir():
        with Image.open(file) as image:
            assert image.format == "PNG"
            assert np.asarray(image.convert("L")).std() > 5


def test_the_report_is_one_file_that_opens_offline(digits_run):
    page = (digits_run / "report.html").read_text()
    assert re.findall(r"https?:|//cdn|@import|<script|<link", page) == []
    sources = re.findall(r'(?:src|href)="([^"#][^"]{0,29})', page)
    assert len(sources) == len(PICTURES)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    metrics = metrics_of(digits_run)
    for name in ("accuracy", "f1", "loss"):
        assert f"<td>{name}</td><td>{metrics[name]:.4f}</td>" in page
    for rule in ("most frequent class", "nearest thumbnails"):
        assert rule in page


def test_the_split_holds_every_digit_once(digits_run):
    rows = [line.split(",") for line in (digits_run / "split.csv").read_text().splitlines()[1:]]
    assert len({row[0] for row in rows}) == len(rows) == 1797
    assert {row[1] for row in rows} == {"train", "valid", "test"}


def test_the_bundle_holds_the_metrics_of_the_run(digits_run):
    metrics = metrics_of(digits_run)
    found = load(digits_run / "bundle").metrics
    assert {k: found[k] for k in ("accuracy", "f1", "loss", "auc")} == {
        k: metrics[k] for k in ("accuracy", "f1", "loss", "auc")
    }


# ---------------------------------------------------------- evaluate, predict


def test_evaluate_equals_the_metrics_of_the_run_exactly(digits_run, here):
    code, out, err = here("evaluate", digits_run / "bundle", "--json")
    assert code == 0
    assert err.startswith("cookbook: note: measured on 359 of 1,797 items (test)")
    found, metrics = strict(out), metrics_of(digits_run)
    assert set(found) == STANDARD - {"seconds", "items_per_second"}
    assert found == {name: metrics[name] for name in found}


@pytest.mark.slow
def test_evaluate_in_a_fresh_process_equals_the_metrics_exactly(digits_run, fresh, tmp_path):
    done = fresh("evaluate", digits_run / "bundle", "--split", "test", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = metrics_of(digits_run)
    assert all(metrics[name] == value for name, value in strict(done.stdout).items())


def test_evaluate_prints_a_table_without_json(digits_run, here):
    code, out, _ = here("evaluate", digits_run / "bundle")
    assert code == 0
    assert f"{metrics_of(digits_run)['accuracy']:.4f}" in out


def test_photos_in_folders_run_evaluate_and_predict_alike(photos, tmp_path, here, fresh):
    data = photos(tmp_path / "photos")
    code, _, err = here(
        "run", "classification", "--data", data, "--size", 32, "--epochs", 1, "--out", tmp_path / "run", "--quick"
    )
    assert code == 0, err
    metrics = metrics_of(tmp_path / "run")
    code, out, err = here("evaluate", tmp_path / "run" / "bundle", "--data", data, "--split", "test", "--json")
    assert code == 0, err
    assert all(metrics[name] == value for name, value in strict(out).items())

    kept = [shutil.copy(p, tmp_path / f"kept_{i}.png") for i, p in enumerate(sorted(data.rglob("*.png"))[::20])]
    ours = Predictor(tmp_path / "run" / "bundle").predict_many(kept)
    shutil.rmtree(data)  # the training data is not needed any more
    shutil.move(tmp_path / "run" / "bundle", tmp_path / "elsewhere")
    (tmp_path / "cwd").mkdir()
    done = fresh(
        "predict", "../elsewhere", *[f"../kept_{i}.png" for i in range(len(kept))], "--json", cwd=tmp_path / "cwd"
    )
    assert done.returncode == 0, done.stderr
    lines = [strict(line) for line in done.stdout.splitlines()]
    assert [line["input"] for line in lines] == [f"../kept_{i}.png" for i in range(len(kept))]
    for line, record in zip(lines, ours, strict=True):
        assert line["label"] == record["label"]
        assert line["probabilities"] == pytest.approx(record["probabilities"], abs=1e-5)


def test_predict_equals_the_trainers_own_prediction(tmp_path, fresh):
    from recipes import classification as recipe

    source = recipe_source()
    options = recipe.Options(epochs=1, quick=True, device="cpu", out=str(tmp_path))
    _, dls = recipe.make_loaders(options, source)
    trainer = recipe.make_trainer(options, dls, None)
    trainer.hooks = []
    recipe.train(options, trainer)
    trainer.export(tmp_path / "bundle")
    Image.fromarray(source.items[3].pixels).save(tmp_path / "digit.png")
    (tmp_path / "cwd").mkdir()
    done = fresh("predict", tmp_path / "bundle", tmp_path / "digit.png", "--json", cwd=tmp_path / "cwd")
    assert done.returncode == 0, done.stderr
    theirs, ours = strict(done.stdout), trainer.predict(tmp_path / "digit.png")
    assert theirs["label"] == ours["label"]
    assert theirs["probabilities"] == pytest.approx(ours["probabilities"], abs=1e-5)


def recipe_source():
    from applications.classification import read_source

    return read_source(None)


def test_predict_in_words_names_input_label_and_probability(digits_run, here, tmp_path):
    Image.fromarray(recipe_source().items[0].pixels).save(tmp_path / "digit.png")
    code, out, _ = here("predict", digits_run / "bundle", "digit.png")
    assert code == 0
    assert re.fullmatch(r"digit\.png: \d [01]\.\d{3}\n", out)


# ------------------------------------------------------------------ the same


def test_one_seed_gives_the_same_bytes_of_weights(digits_run, tmp_path, here):
    code, _, err = here("run", "classification", "--epochs", 2, "--device", "cpu", "--seed", 0, "--out", "again")
    assert code == 0, err
    weights = [(out / "bundle" / "model.safetensors").read_bytes() for out in (digits_run, tmp_path / "again")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_another_seed_gives_other_bytes_over_an_older_run(digits_run, tmp_path, here):
    shutil.copytree(digits_run, tmp_path / "run")
    code, _, err = here("run", "classification", "--epochs", 2, "--device", "cpu", "--seed", 4, "--out", "run")
    assert code == 0, err
    weights = [(out / "bundle" / "model.safetensors").read_bytes() for out in (digits_run, tmp_path / "run")]
    assert weights[0] != weights[1]
    assert {p.name for p in (tmp_path / "run").iterdir()} == FILES


@pytest.mark.parametrize("form", [pytest.param("csv", marks=pytest.mark.slow), "labels"])
def test_a_table_runs_with_one_label_or_several(tmp_path, photos, here, form):
    data = photos(tmp_path / "photos", ("",), ("blue", "green", "red"), 8)
    files = sorted(data.rglob("*.png"))
    labels = [f.parent.name + (";bright" if i % 2 and form == "labels" else "") for i, f in enumerate(files)]
    rows = [f"{f.relative_to(tmp_path)},{label}" for f, label in zip(files, labels, strict=True)]
    (tmp_path / "t.csv").write_text("file,kind\n" + "\n".join(rows) + "\n")
    more = ["--label-delim", ";"] if form == "labels" else []
    columns = ["--image-column", "file", "--label-column", "kind", *more]
    code, _, err = here(
        "run",
        "classification",
        "--data",
        tmp_path / "t.csv",
        *columns,
        "--size",
        32,
        "--epochs",
        1,
        "--quick",
        "--out",
        "run",
    )
    assert code == 0, err
    out = tmp_path / "run"
    assert {p.name for p in out.iterdir()} == FILES
    assert load(out / "bundle").task.multi_label == (form == "labels")
    assert ("f1_micro" in metrics_of(out)) == (form == "labels")
    code, printed, err = here("evaluate", out / "bundle", "--data", tmp_path / "t.csv", *columns, "--json")
    assert code == 0, err
    assert 0 <= strict(printed)["accuracy"] <= 1


@pytest.mark.slow
def test_pretrained_tuning_resumes_where_it_was_cut(tmp_path, photos, here, monkeypatch):
    """The recipe's --resume gives the weights of a run that was not cut, in both of its ways of training."""
    from applications.classification import learner
    from common.train.loop import Fit

    real = learner.create_model
    monkeypatch.setattr(
        learner, "create_model", lambda *a, **k: real(*a, **{**k, "pretrained": False, "weights": None})
    )
    data = photos(tmp_path / "photos")
    command = [
        "run",
        "classification",
        "--data",
        data,
        "--arch",
        "resnet18",
        "--pretrained",
        "--size",
        32,
        "--epochs",
        3,
    ]
    code, _, err = here(*command, "--out", "whole")
    assert code == 0, err

    checkpoint = Fit._checkpoint

    def cut(fit):
        checkpoint(fit)
        if fit.place.done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Fit, "_checkpoint", cut)
    assert here(*command, "--out", "cut")[0] == 130
    monkeypatch.setattr(Fit, "_checkpoint", checkpoint)
    code, out, err = here(*command, "--out", "cut", "--resume")
    assert code == 0, err
    assert "resumed from" in out
    whole, again = ((tmp_path / name / "bundle" / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == again


@pytest.mark.slow
def test_the_demo_leaves_an_index_with_a_link_to_every_report(tmp_path, here):
    code, out, err = here("demo", "--out", "demo")
    assert code == 0, err
    page = (tmp_path / "demo" / "index.html").read_text()
    for link in re.findall(r'href="([^"]+)"', page):
        assert (tmp_path / "demo" / link).is_file()
    assert metrics_of(tmp_path / "demo" / "classification")["accuracy"] >= 0.9
    assert "accuracy" in out


# ------------------------------------------------- the measured part is seen once


@pytest.fixture()
def seen(monkeypatch):
    """Counts the samples that the small network sees in evaluation, batch by batch."""
    from applications.classification.model import SmallResNet

    counts, forward = [], SmallResNet.forward

    def counted(model, x):
        if not model.training:
            counts.append(len(x))
        return forward(model, x)

    monkeypatch.setattr(SmallResNet, "forward", counted)
    return counts


def test_the_test_part_is_seen_once_in_a_run(here, seen, tmp_path):
    code, _, err = here("run", "classification", "--epochs", 1, "--device", "cpu", "--out", "run")
    assert code == 0, err
    split = [line.split(",")[1] for line in (tmp_path / "run" / "split.csv").read_text().splitlines()[1:]]
    assert sum(seen) == split.count("valid") + split.count("test")  # the one after its epoch, the other at the end


def test_without_a_test_part_the_validation_part_is_seen_once_more(here, seen, photos, tmp_path):
    data = photos(tmp_path / "photos", ("",), ("blue", "red"), 20)
    run = ("run", "classification", "--data", data, "--size", 16, "--epochs", 1, "--device", "cpu", "--out", "run")
    code, _, err = here(*run)
    assert code == 0, err
    split = [line.split(",")[1] for line in (tmp_path / "run" / "split.csv").read_text().splitlines()[1:]]
    assert sum(seen) == 2 * split.count("valid")


def test_items_of_the_test_part_that_were_left_out_are_counted_as_evaluate_counts_them(here, photos, tmp_path):
    data = photos(tmp_path / "photos")
    for name in ("test/red/03.png", "test/blue/05.png", "train/red/07.png"):
        (data / name).write_bytes(b"no picture")
    run = ("run", "classification", "--data", data, "--size", 16, "--epochs", 1, "--on-error", "skip", "--out", "run")
    code, _, err = here(*run)
    assert code == 0, err
    metrics = metrics_of(tmp_path / "run")
    assert metrics["items_left_out"] == 2
    code, out, err = here("evaluate", "run/bundle", "--data", data, "--on-error", "skip", "--json")
    assert code == 0, err
    assert strict(out) == {name: metrics[name] for name in strict(out)}
