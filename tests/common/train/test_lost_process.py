"""One of two processes is killed, or both are told to stop: the run ends at once, says so, and goes on from there."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from common.train.checkpoint import checkpoints, read_checkpoint

ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 120
SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from common.data import CategoryBlock, DataBlock, IndexSplitter, RegressionBlock
from common.train import Trainer, TrainerOptions
from common.train.checkpoint import checkpoints, save_tensors
from common.train.hooks import Hook
from common.train.task import Task

class Classes(Task):
    domain = "regression"
    def losses(self, output, batch):
        return F.cross_entropy(output, batch.y, reduction="none")

class Killed(Hook):
    def step_end(self, trainer, step, loss, samples):
        time.sleep(0.01 if how == "signal" else 0)
        if how == "kill" and trainer.rank == 1 and trainer.step == 18:  # in the third epoch of eight steps
            print("killed at", time.time(), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "signal" and trainer.rank == 0 and trainer.step == 10:
            Path(out, "ready").touch()

torch.set_num_threads(1)
out, how = Path(sys.argv[1]), sys.argv[2]
numbers = np.random.default_rng(0)
labels = np.arange(149) % 3
points = (np.eye(4)[labels] * 2 + numbers.normal(0, 0.5, (len(labels), 4))).astype(np.float32)
block = DataBlock(
    blocks=(RegressionBlock, CategoryBlock), get_x=lambda i: points[i], get_y=lambda i: str(labels[i]),
    splitter=IndexSplitter(range(128, 149)),
)
torch.manual_seed(0)
# no bias before the batch norm: its gradient is rounding alone, which Adam makes large
model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
dls = block.dataloaders(list(range(len(labels))), bs=16, num_workers=0)
options = TrainerOptions(
    device="cpu", progress=False, out=out, checkpoint=True, checkpoint_every=5, ema_decay=0.8, early_stop=9
)
trainer = Trainer(model, dls, Classes(), options, hooks=[Killed()])
if how == "resume":
    trainer.resume(out / "checkpoints")
trainer.fit_one_cycle(40 if how == "signal" else 4, 0.05)
if trainer.rank == 0:
    save_tensors(trainer.model.state_dict(), out / "weights.safetensors")
if trainer.world > 1:
    torch.distributed.destroy_process_group()
"""
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
LAUNCH += ["--num_cpu_threads_per_process", "1"]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts the script in one process or two."""
    script = tmp_path_factory.mktemp("script") / "train.py"
    script.write_text(SCRIPT)

    def run(folder, how, world=2):
        folder.mkdir(exist_ok=True)
        return subprocess.Popen(
            [sys.executable, *(LAUNCH if world == 2 else []), str(script), str(folder), how],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, cwd=folder,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    return run


def ended(process):
    """Waits for a process and returns its exit code and what it said."""
    try:
        said, _ = process.communicate(timeout=LIMIT_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return process.returncode, said


@pytest.fixture(scope="module")
def lost(start, tmp_path_factory):
    """A run that was left alone, and one of whose two processes one was killed."""
    folder = tmp_path_factory.mktemp("lost")
    assert ended(start(folder / "whole", "train"))[0] == 0
    code, said = ended(start(folder / "killed", "kill"))
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
def test_it_goes_on_with_two_processes_and_with_one(lost, start, tmp_path, world):
    import shutil

    folder = lost[0]
    shutil.copytree(folder / "killed", tmp_path / "again")
    code, said = ended(start(tmp_path / "again", "resume", world))
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
def test_a_signal_to_the_launcher_stops_both_at_one_step_with_a_checkpoint(start, tmp_path, number):
    process = start(tmp_path / "run", "signal")
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
