"""Two processes on the CPU (gloo, ``accelerate launch``) against one with the same global batch.

``accelerate launch --cpu --num_processes 2`` starts one process only (accelerate 1.15 takes several on the CPU from
MPI alone); ``--multi_gpu`` is its name for torch's launcher, and the script's ``device="cpu"`` makes it gloo.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from torch import nn
from toy import Classes, finish, loaders
from common.train import F1Score, Trainer, TrainerOptions, accuracy
from common.tensors import save_tensors

CASES = {
    "plain": {},
    "average, clip, accumulate": {"ema_decay": 0.8, "clip_norm": 0.3, "accumulate": 2},
    "stopped": {"early_stop": 0},
}
out, held = Path(sys.argv[1]), int(sys.argv[2])
report = {}
for name, options in CASES.items():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    folder = out / name.split(",")[0]
    chosen = TrainerOptions(device="cpu", progress=False, optimizer="sgd", out=folder, checkpoint=True, **options)
    trainer = Trainer(model, loaders(64, held), Classes(), chosen, metrics=[accuracy, F1Score("macro")])
    trainer.fit_one_cycle(3 if name != "stopped" else 6, 0.05 if name != "stopped" else 30.0)
    if trainer.rank == 0:
        history = [{k: r[k] for k in ("train_loss", "valid_loss", "accuracy", "f1")} for r in trainer.history]
        report[name] = {"world": trainer.world, "step": trainer.step, "history": history}
        save_tensors(trainer.model.state_dict(), folder / "weights.safetensors")
if trainer.rank == 0:
    (out / "report.json").write_text(json.dumps(report))
finish(trainer)
"""


@pytest.fixture(scope="module")
def both(start, ended, tmp_path_factory):
    """Runs the script in one process and in two, for a number of validation items, and returns what each wrote."""
    made = {}

    def run(held):
        if held not in made:
            made[held] = tmp_path_factory.mktemp("processes")
            for world in (1, 2):
                code, said = ended(start(SCRIPT, made[held] / str(world), str(held), world=world))
                assert code == 0, said[-3000:]
        return made[held]

    return run


def reports(folder):
    return [json.loads((folder / str(world) / "report.json").read_text()) for world in (1, 2)]


# 21 validation items in batches of 16: the last batch of 5 is divided into 3 and 2
@pytest.mark.slow
@pytest.mark.parametrize("held", [21])
def test_two_processes_give_the_weights_of_one(both, held):
    folder = both(held)
    one, two = reports(folder)
    assert one.keys() == two.keys()
    for name in one:
        assert (one[name]["world"], two[name]["world"]) == (1, 2)
        assert one[name]["step"] == two[name]["step"], name
        weights = [load_file(folder / str(w) / name.split(",")[0] / "weights.safetensors") for w in (1, 2)]
        for key, value in weights[0].items():
            assert torch.allclose(value, weights[1][key], atol=1e-5), (name, key)


@pytest.mark.slow
@pytest.mark.parametrize("held", [21])
def test_two_processes_measure_what_one_measures(both, held):
    one, two = reports(both(held))
    for name in one:
        assert len(one[name]["history"]) == len(two[name]["history"]), name
        for ours, theirs in zip(one[name]["history"], two[name]["history"], strict=True):
            assert theirs == pytest.approx(ours, rel=1e-5, abs=1e-5), name
    assert one["plain"]["history"][-1]["accuracy"] > 0.8
    assert len(one["stopped"]["history"]) < 6


@pytest.mark.slow
@pytest.mark.parametrize("held", [21])
def test_two_processes_write_one_log_and_sound_checkpoints(both, held):
    from common.train.checkpoint import newest_sound

    folder = both(held) / "2" / "plain"
    events = [json.loads(line)["event"] for line in (folder / "events.jsonl").read_text().splitlines()]
    assert events == ["fit_start", "epoch", "epoch", "epoch", "fit_end"]
    _, tensors, state, passed = newest_sound(folder / "checkpoints")
    assert (state["epoch"], passed) == (3, [])
    weights = load_file(folder / "weights.safetensors")
    assert all(torch.equal(tensors["model"][name], value) for name, value in weights.items())


@pytest.mark.slow
def test_a_process_without_validation_items_does_not_fail(both):
    one, two = reports(both(1))
    for ours, theirs in zip(one["plain"]["history"], two["plain"]["history"], strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5, abs=1e-5)
