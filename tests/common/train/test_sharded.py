"""FSDP: two processes that share weights, gradients and optimizer learn what one process learns.

Accelerate shards on GPUs only. Here its state is told otherwise, so that torch's FSDP runs on the CPU (gloo) and all of
this project's side of it is tried: preparing, gathering, checkpoints of whole tensors, resuming with another number.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from common.errors import ConfigError
from common.train import Trainer
from common.train.checkpoint import checkpoints, read_checkpoint

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn
from torch.distributed.tensor import DTensor
from common.data import CategoryBlock, DataBlock, IndexSplitter, RegressionBlock
from common.errors import ConfigError
from common.train import Trainer, TrainerOptions, backend
from common.train.checkpoint import save_tensors
from common.train.hooks import Hook
from common.train.task import Task

def on_the_cpu(**options):
    made = Accelerator(**options)
    if made.num_processes > 1:
        AcceleratorState._shared_state["distributed_type"] = DistributedType.FSDP
        AcceleratorState._shared_state["fsdp_plugin"] = FullyShardedDataParallelPlugin(
            fsdp_version=2, auto_wrap_policy="SIZE_BASED_WRAP", min_num_params=20
        )
    return made

backend.Accelerator = on_the_cpu

class Classes(Task):
    domain = "regression"
    def losses(self, output, batch):
        return F.cross_entropy(output, batch.y, reduction="none")

class Cut(Hook):
    def step_end(self, trainer, step, loss, samples):
        parts = list(trainer._running.prepared.inner.parameters())
        assert all(isinstance(part, DTensor) for part in parts) == (trainer.world > 1)
        if how == "cut" and trainer.step == 15:
            raise SystemExit(9)

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
model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
dls = block.dataloaders(list(range(len(labels))), bs=16, num_workers=0)
options = TrainerOptions(
    device="cpu", progress=False, out=out, checkpoint=True, checkpoint_every=5, clip_norm=0.5, accumulate=2, early_stop=9
)
trainer = Trainer(model, dls, Classes(), options, hooks=[Cut()])
if how == "resume":
    trainer.resume(out / "checkpoints")
trainer.fit_one_cycle(3, 0.05)
assert trainer.model is model and type(model[0].weight) is nn.Parameter
if trainer.world > 1:
    try:
        trainer.with_options(ema_decay=0.9).fit(1)
    except ConfigError as error:
        assert "leave it out with FSDP" in str(error)
    else:
        sys.exit("an average of sharded weights was not refused")
if trainer.rank == 0:
    save_tensors(trainer.model.state_dict(), out / "weights.safetensors")
    (out / "losses").write_text(str([record["valid_loss"] for record in trainer.history]))
if trainer.world > 1:
    torch.distributed.destroy_process_group()
"""
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
LAUNCH += ["--num_cpu_threads_per_process", "1"]


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """Runs the script with a number of processes and returns its exit code and what it said."""
    script = tmp_path_factory.mktemp("script") / "train.py"
    script.write_text(SCRIPT)

    def run(folder, how, world):
        folder.mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, *(LAUNCH if world == 2 else []), str(script), str(folder), how],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, cwd=folder,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.slow
def test_two_sharded_processes_learn_what_one_learns_and_resume(train, tmp_path):
    for name, world in (("one", 1), ("two", 2)):
        code, said = train(tmp_path / name, "train", world)
        assert code == 0, said
    code, said = train(tmp_path / "cut", "cut", 2)
    assert code != 0
    tensors, state = read_checkpoint(checkpoints(tmp_path / "cut" / "checkpoints")[0])
    assert (state["place"]["done"], state["place"]["cursor"]) == (1, 6)
    assert tensors["optimizer"]["0.weight.exp_avg"].shape == (8, 4)
    code, said = train(tmp_path / "cut", "resume", 2)
    assert code == 0, said
    one, two, again = (load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two", "cut"))
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=1e-5), name
        assert torch.equal(two[name], again[name]), name
    losses = [json.loads((tmp_path / name / "losses").read_text()) for name in ("one", "two", "cut")]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert losses[2] == losses[1]


def test_sharding_on_the_cpu_is_refused_with_the_remedy(monkeypatch, mlp, blobs, loaders, classes_task, quiet):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="shards on GPUs only: leave --use_fsdp out"):
        Trainer(mlp(), loaders(*blobs()), classes_task, quiet())
