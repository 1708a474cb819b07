"""The bundle: what is exported predicts the same when loaded, and a failing export spoils nothing."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from common import tensors
from common.deploy import Bundle, Predictor, load, load_learner
from common.deploy.bundle import export, seal
from common.errors import BundleError, ConfigError

ROOT = Path(__file__).resolve().parents[3]


def listing(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def test_a_bundle_is_three_files_of_data(exported):
    assert listing(exported) == ["README.md", "bundle.json", "model.safetensors"]


def test_loaded_it_is_what_was_exported(exported, trainer):
    found = load(exported)
    assert isinstance(found, Bundle)
    assert found.domain == "classification"
    assert found.task == trainer.task
    assert found.encoder == trainer.dls.train.store.encoder
    assert found.pipeline.transforms == trainer.dls.train.pipeline.transforms
    assert not found.model.training
    state = trainer.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in found.model.state_dict().items())
    assert found.metrics["accuracy"] == trainer.history[-1]["accuracy"]
    assert found.versions["torch"] == torch.__version__.split("+")[0] or found.versions["torch"] == torch.__version__


def test_loaded_it_predicts_the_same(exported, trainer, photos):
    files = sorted(photos.rglob("*.png"))
    ours, theirs = trainer.predictor().outputs(files).output, Predictor(exported).outputs(files).output
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert torch.allclose(theirs[0], theirs[0])
    assert not torch.allclose(theirs[0], theirs[1], atol=1e-6)


def test_the_trainer_predicts_by_the_path_that_validation_walks(trainer):
    outputs = trainer.get_preds("valid")
    again = trainer.predictor().outputs(trainer.dls.valid.items)
    assert torch.allclose(outputs.output, again.output, atol=1e-6)


def test_a_fresh_process_elsewhere_without_the_data_predicts_the_same(exported, trainer, photos, tmp_path):
    photo = sorted(photos.rglob("*.png"))[3]
    shutil.copytree(exported, tmp_path / "moved" / "model")
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(photo, tmp_path / "elsewhere" / "one.png")
    code = "import json; from common import Predictor; print(json.dumps(Predictor('../moved/model')('one.png')))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    theirs, ours = json.loads(done.stdout), trainer.predict(photo)
    assert theirs["label"] == ours["label"]
    assert theirs["probabilities"] == pytest.approx(ours["probabilities"], abs=1e-6)


def test_the_content_is_plain_json_with_its_own_hash(exported):
    text = (exported / "bundle.json").read_text("utf-8")
    content = json.loads(text)
    assert text == seal(content)
    assert content["schema"] == 2
    assert set(content["files"]) == {"README.md", "model.safetensors"}
    assert content["encoder"]["blocks"][1]["vocab"] == ["dark", "grey", "light"]


def test_the_card_names_classes_metrics_and_use(exported, trainer):
    card = (exported / "README.md").read_text("utf-8")
    assert "dark, grey, light" in card
    assert f"| accuracy | {trainer.history[-1]['accuracy']:.4f} |" in card
    assert "Predictor(" in card
    assert "small_resnet" in card


def test_given_metrics_are_the_bundles(trainer, tmp_path):
    trainer.export(tmp_path / "b", {"accuracy": 0.5})
    assert load(tmp_path / "b").metrics == {"accuracy": 0.5}


def test_an_export_replaces_an_older_bundle(make_trainer, bundle):
    other = make_trainer(seed=3, epochs=1)
    assert other.export(bundle) == bundle
    state = load(bundle).model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in other.model.state_dict().items())
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


def test_the_same_trainer_exports_the_same_tensors(trainer, tmp_path):
    files = [trainer.export(tmp_path / name) / "model.safetensors" for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_failing_write_leaves_the_older_bundle_whole(make_trainer, bundle, monkeypatch, code):
    before = {name: (bundle / name).read_bytes() for name in listing(bundle)}

    def full(tensors, path):
        Path(path).write_bytes(b"half of a file")
        raise OSError(code, os.strerror(code), str(path))

    other = make_trainer(seed=5, epochs=1)
    monkeypatch.setattr(tensors, "save_file", full)
    with pytest.raises(OSError, match=os.strerror(code)):
        other.export(bundle)
    assert {name: (bundle / name).read_bytes() for name in listing(bundle)} == before
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]
    load(bundle)


def test_a_disk_that_is_full_at_the_last_flush_leaves_the_older_bundle_whole(trainer, bundle, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = (bundle / "bundle.json").read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        trainer.export(bundle)
    assert (bundle / "bundle.json").read_bytes() == before
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


def test_a_file_that_cannot_grow_is_an_oserror(trainer, tmp_path):
    """The system's own refusal, from inside safetensors: the file size is limited below the model's."""
    resource = pytest.importorskip("resource", reason="RLIMIT_FSIZE is POSIX's")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError):  # noqa: PT011 - the words are the system's
            trainer.export(tmp_path / "b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_holds_code_is_refused(trainer, tmp_path):
    loader = trainer.dls.train
    with pytest.raises(ConfigError, match="must be registered and have spec\\(\\), Linear is not"):
        export(tmp_path / "b", nn.Linear(2, 2), trainer.task, loader.store.encoder, loader.pipeline, {})
    assert list(tmp_path.iterdir()) == []


def test_a_metric_that_is_not_a_number_does_not_lose_the_model(trainer, tmp_path):
    trainer.export(tmp_path / "b", {"accuracy": 0.5, "auc": float("nan")})
    assert load(tmp_path / "b").metrics["accuracy"] == 0.5


@pytest.mark.parametrize("reader", [load, Predictor, load_learner])
def test_what_is_no_bundle_is_refused_by_every_reader(reader, tmp_path):
    (tmp_path / "export.pkl").write_bytes(b"\x80\x04.")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        BundleError, match=r"export\.pkl is a file: a bundle is a folder.*pickled learners are never read"
    ):
        reader(tmp_path / "export.pkl")
    with pytest.raises(BundleError, match=r"empty is not a bundle: it has no bundle\.json"):
        reader(tmp_path / "empty")
    with pytest.raises(BundleError, match=r"nowhere is not a bundle"):
        reader(str(tmp_path / "nowhere"))


def test_loading_leaves_the_global_random_state(exported):
    before = torch.get_rng_state()
    load(exported)
    assert torch.equal(torch.get_rng_state(), before)
