"""Saving and resuming: an interrupted training that goes on is bit for bit the one that was not interrupted."""

import json

import pytest
import torch
from safetensors.torch import load_file

from common.errors import CheckpointError
from common.train import Trainer
from common.train.checkpoint import checkpoints, newest_sound, read_checkpoint, write_checkpoint
from common.train.hooks import Hook


class PowerCut(Hook):
    """Ends a training before one of its epochs, counted over all fits."""

    def __init__(self, epoch):
        self.epoch = epoch

    def epoch_start(self, trainer, epoch):
        if trainer.epoch == self.epoch:
            raise RuntimeError("power cut")


def one_fit(trainer):
    trainer.fit_one_cycle(4, 2e-2)


def tuned(trainer):
    trainer.fine_tune(2, base_lr=2e-2, freeze_epochs=2)


OPTIONS = {
    "plain": {},
    "average": {"ema_decay": 0.8},
    "sgd": {"optimizer": "sgd"},
    "clip and accumulate": {"clip_norm": 0.5, "accumulate": 2},
    "bf16": {"precision": "bf16"},
    "contiguous": {"channels_last": False},
}


@pytest.fixture()
def power(tmp_path, image_trainer, same, timeless):
    """Trains whole, and again with a cut and a resume, and returns both trainers."""

    def run(schedule, cut, damage=None, **options):
        whole = image_trainer(out=tmp_path / "whole", checkpoint=True, **options)
        schedule(whole)
        first = image_trainer(hooks=[PowerCut(cut)], out=tmp_path / "cut", checkpoint=True, **options)
        with pytest.raises(RuntimeError, match="power cut"):
            schedule(first)
        if damage is not None:
            damage(checkpoints(tmp_path / "cut" / "checkpoints"))
        again = image_trainer(out=tmp_path / "cut", checkpoint=True, **options)
        sentence = again.resume(tmp_path / "cut" / "checkpoints")
        schedule(again)
        assert timeless(again.history) == timeless(whole.history)
        assert same(again.model.state_dict(), whole.model.state_dict())
        last = [checkpoints(tmp_path / name / "checkpoints")[0] for name in ("whole", "cut")]
        for name in ("model", "optimizer"):
            assert same(*(load_file(folder / f"{name}.safetensors") for folder in last)), name
        return whole, again, sentence

    return run


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("cut", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_resumed_fit_is_bit_identical_to_an_uninterrupted_one(power, cut, options):
    whole, again, _ = power(one_fit, cut, **options)
    assert len(again.history) == 4
    assert again.validate() == whole.validate()


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.8}], ids=["plain", "average"])
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_resumed_fine_tune_is_bit_identical_in_either_phase(power, cut, options):
    power(tuned, cut, **options)  # 1: in the frozen phase; 2: between the phases; 3: in the second


def test_a_resumed_fit_with_early_stop_remembers_the_best_weights(power):
    def stops(trainer):
        trainer.fit(12, 0.3)  # a rate at which the validation loss soon rises

    whole, _, _ = power(stops, 2, early_stop=2)
    assert 3 <= len(whole.history) < 12


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.8}], ids=["plain", "average"])
def test_a_finished_training_resumed_is_the_finished_training(tmp_path, image_trainer, same, timeless, options):
    whole = image_trainer(out=tmp_path, checkpoint=True, **options)
    one_fit(whole)
    again = image_trainer(out=tmp_path, checkpoint=True, **options)
    again.resume(tmp_path / "checkpoints")
    one_fit(again)
    assert timeless(again.history) == timeless(whole.history)
    assert same(again.model.state_dict(), whole.model.state_dict())


def test_saved_by_hand_and_resumed_goes_on_with_the_next_fit(tmp_path, image_trainer, same, timeless):
    def two_fits(trainer):
        trainer.fit(1, 1e-2)
        trainer.fit(2, 5e-3)

    whole, first, again = (image_trainer() for _ in range(3))
    two_fits(whole)
    first.fit(1, 1e-2)
    first.save(tmp_path / "by_hand")
    assert "resumed from" in again.resume(tmp_path / "by_hand")
    two_fits(again)
    assert same(again.model.state_dict(), whole.model.state_dict())
    assert timeless(again.history) == timeless(whole.history)


def test_plain_torch_loaders_resume_bit_identically(tmp_path, mlp, blobs, loaders, classes_task, quiet, same):
    def make(name, hooks=()):
        options = quiet(out=tmp_path / name, checkpoint=True)
        return Trainer(mlp(dropout=0.3), loaders(*blobs()), classes_task, options, hooks=hooks)

    whole = make("whole")
    one_fit(whole)
    with pytest.raises(RuntimeError, match="power cut"):
        one_fit(make("cut", [PowerCut(2)]))
    again = make("cut")
    again.resume(tmp_path / "cut" / "checkpoints")
    one_fit(again)
    assert same(again.model.state_dict(), whole.model.state_dict())


# -------------------------------------------------------------------- damage


def flip(file, position=None):
    data = bytearray(file.read_bytes())
    data[len(data) // 2 if position is None else position] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_a_flipped_byte_is_passed_over_for_the_older_checkpoint(power, name):
    damaged = []

    def damage(folders):
        assert len(folders) == 2
        flip(folders[0] / name)
        damaged.extend(folders)

    _, _, sentence = power(one_fit, 3, damage)
    assert f"resumed from {damaged[1]}" in sentence
    assert f"passed over: {damaged[0]}" in sentence
    assert "manifest" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
def test_a_missing_file_is_passed_over_for_the_older_checkpoint(power, name):
    _, _, sentence = power(one_fit, 3, lambda folders: (folders[0] / name).unlink())
    assert "passed over" in sentence


@pytest.fixture()
def trained(tmp_path, image_trainer):
    trainer = image_trainer(out=tmp_path, checkpoint=True)
    trainer.fit(3, 1e-2)
    return tmp_path / "checkpoints"


def test_two_checkpoints_are_kept(trained):
    found = checkpoints(trained)
    assert [folder.name for folder in found] == ["checkpoint-000000012", "checkpoint-000000008"]
    assert sorted(p.name for p in trained.iterdir()) == sorted(folder.name for folder in found)


def test_a_checkpoint_is_safetensors_and_json_alone(trained):
    for folder in checkpoints(trained):
        names = {file.name for file in folder.iterdir()}
        assert names == {"model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}
        assert json.loads((folder / "state.json").read_text())["epoch"] in (2, 3)


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"schema": 1, "files": []}', '{"schema": 2, "files": {}}', "null", "\0"]
)
def test_a_manifest_of_another_form_is_a_sentence(trained, content):
    folder = checkpoints(trained)[0]
    (folder / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError, match="checkpoint-000000012"):
        read_checkpoint(folder)


def test_a_checkpoint_without_its_state_is_a_sentence(tmp_path, image_trainer):
    write_checkpoint(tmp_path / "odd", {"model": {"weight": torch.zeros(2)}}, {"step": 3})
    with pytest.raises(CheckpointError, match="odd"):
        image_trainer().resume(tmp_path / "odd")


def test_nothing_usable_is_a_sentence_with_the_first_reason(trained, image_trainer):
    for folder in checkpoints(trained):
        flip(folder / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"holds no usable checkpoint: .*000000012.*model\.safetensors is missing or"
    ):
        image_trainer().resume(trained)


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_without_checkpoints_is_a_sentence(tmp_path, image_trainer, made):
    folder = tmp_path / "empty"
    if made:
        folder.mkdir()
    with pytest.raises(CheckpointError, match="empty holds no usable checkpoint"):
        image_trainer().resume(folder)


def test_another_seed_is_refused(trained, image_trainer):
    with pytest.raises(CheckpointError, match="was made with seed=0, this run has 7"):
        image_trainer(seed=7).resume(trained)


def test_another_model_is_refused_and_left_as_it_was(trained, image_trainer, convnet, state_of, same):
    trainer = image_trainer(model=convnet(classes=5))
    before = state_of(trainer.model)
    with pytest.raises(CheckpointError, match="belongs to another model"):
        trainer.resume(trained)
    assert same(before, trainer.model.state_dict())


def test_a_full_disk_leaves_the_older_checkpoint_and_nothing_beside_it(tmp_path, monkeypatch):
    from common import tensors

    write_checkpoint(tmp_path / "checkpoint-1", {"model": {"w": torch.ones(3)}}, {"step": 1})

    def full(tensors, path):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(tensors, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(tmp_path / "checkpoint-1", {"model": {"w": torch.zeros(3)}}, {"step": 2})
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(tmp_path / "checkpoint-2", {"model": {"w": torch.zeros(3)}}, {"step": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-1"]
    _, tensors, state, passed = newest_sound(tmp_path)
    assert tensors["model"]["w"].tolist() == [1, 1, 1]
    assert (state, passed) == ({"step": 1}, [])


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_tensors_of_any_layout_are_written_and_read_back(tmp_path, layout):
    image = torch.arange(48.0).reshape(1, 3, 4, 4).to(memory_format=layout)
    shared = torch.arange(6.0)
    tensors = {"image": image, "strided": image[:, :, ::2], "a": shared, "b": shared, "count": torch.tensor(3)}
    write_checkpoint(tmp_path / "c", {"model": tensors}, {})
    found, _ = read_checkpoint(tmp_path / "c")
    assert found["model"].keys() == tensors.keys()
    assert all(torch.equal(found["model"][name], value) for name, value in tensors.items())
