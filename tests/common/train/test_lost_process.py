"""One of two processes is killed, or both are told to stop: the run ends at once, says so, and goes on from there."""

import json
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from common.train.checkpoint import checkpoints, read_checkpoint

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import torch
from torch import nn
from toy import Classes, finish, loaders
from common.train import Trainer, TrainerOptions
from common.train.checkpoint import checkpoints, save_tensors
from common.train.hooks import Hook

class Killed(Hook):
    def step_end(self, trainer, step, loss, samples):
        time.sleep(0.01 if how == "signal" else 0)
        if how == "kill" and trainer.rank == 1 and trainer.step == 18:  # in the third epoch of eight steps
            print("killed at", time.time(), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "signal" and trainer.rank == 0 and trainer.step == 10:
            Path(out, "ready").touch()

out, how = Path(sys.argv[1]), sys.argv[2]
torch.manual_seed(0)
# no bias before the batch norm: its gradient is rounding alone, which Adam makes large
model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
options = TrainerOptions(
    device="cpu", progress=False, out=out, checkpoint=True, checkpoint_every=5, ema_decay=0.8, early_stop=9
)
trainer = Trainer(model, loaders(128, 21), Classes(), options, hooks=[Killed()])
if how == "resume":
    trainer.resume(out / "checkpoints")
trainer.fit_one_cycle(40 if how == "signal" else 4, 0.05)
if trainer.rank == 0:
    save_tensors(trainer.model.state_dict(), out / "weights.safetensors")
finish(trainer)
"""


@pytest.fixture(scope="module")
def lost(start, ended, tmp_path_factory):
    """A run that was left alone, and one of whose two processes one was killed."""
    folder = tmp_path_factory.mktemp("lost")
    assert ended(start(SCRIPT, folder / "whole", "train"))[0] == 0
    code, said = ended(start(SCRIPT, folder / "killed", "kill"))
    return folder, code, said, time.time()


@pytest.mark.slow
def test_the_other_process_ends_with_a_sentence_within_thirty_seconds(lost):
    _, code, said, now = lost
    assert code != 0
    died = float(said.split("killed at ")[1].split()[0])
    assert now - died < 30
    sentence = (
        "another process of this run ended in epoch 3 of 4: start all of them again, "
        "with resume where checkpoints are kept"
    )
    assert sentence in said.splitlines()


@pytest.mark.slow
def test_the_checkpoint_of_two_processes_is_within_the_epoch_and_sums_over_both(lost):
    folder = lost[0]
    found = [read_checkpoint(path)[1]["place"] for path in checkpoints(folder / "killed" / "checkpoints")]
    assert [(place["done"], place["cursor"], place["samples"]) for place in found] == [(2, 0, 0), (1, 5, 80)]


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 1])
def test_it_goes_on_with_two_processes_and_with_one(lost, start, ended, tmp_path, world):
    import shutil

    folder = lost[0]
    shutil.copytree(folder / "killed", tmp_path / "again")
    code, said = ended(start(SCRIPT, tmp_path / "again", "resume", world=world))
    assert code == 0, said
    whole, again = (load_file(path / "weights.safetensors") for path in (folder / "whole", tmp_path / "again"))
    for name, value in whole.items():
        if world == 2:
            assert torch.equal(value, again[name]), name
        assert torch.allclose(value, again[name], atol=1e-5), name
    events = [json.loads(line) for line in (tmp_path / "again" / "events.jsonl").read_text().splitlines()]
    assert [event["epoch"] for event in events if event["event"] == "epoch"] == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_launcher_stops_both_at_one_step_with_a_checkpoint(start, ended, tmp_path, number):
    process = start(SCRIPT, tmp_path / "run", "signal")
    while not (tmp_path / "run" / "ready").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    told = time.monotonic()
    process.send_signal(number)
    code, said = ended(process)
    assert code != 0
    assert time.monotonic() - told < 30
    assert "its checkpoint is" in said
    _, state = read_checkpoint(checkpoints(tmp_path / "run" / "checkpoints")[0])
    assert state["step"] >= 10
    assert state["place"]["samples"] == state["place"]["cursor"] * 16
