"""FSDP: two processes that share weights, gradients and optimizer learn what one process learns.

Accelerate shards on GPUs only. Here its state is told otherwise, so that torch's FSDP runs on the CPU (gloo) and all of
this project's side of it is tried: preparing, gathering, checkpoints of whole tensors, resuming with another number.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

from common.errors import ConfigError
from common.train import Trainer
from common.train.checkpoint import checkpoints, read_checkpoint

SCRIPT = """
import sys
from pathlib import Path
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn
from torch.distributed.tensor import DTensor
from toy import Classes, finish, loaders
from common.errors import ConfigError
from common.train import Trainer, TrainerOptions, backend
from common.tensors import save_tensors
from common.train.hooks import Hook

def on_the_cpu(**options):
    made = Accelerator(**options)
    if made.num_processes > 1:
        AcceleratorState._shared_state["distributed_type"] = DistributedType.FSDP
        AcceleratorState._shared_state["fsdp_plugin"] = FullyShardedDataParallelPlugin(
            fsdp_version=2, auto_wrap_policy="SIZE_BASED_WRAP", min_num_params=20
        )
    return made

backend.Accelerator = on_the_cpu

class Cut(Hook):
    def step_end(self, trainer, step, loss, samples):
        parts = list(trainer._running.prepared.inner.parameters())
        assert all(isinstance(part, DTensor) for part in parts) == (trainer.world > 1)
        if how == "cut" and trainer.step == 15:
            raise SystemExit(9)

out, how = Path(sys.argv[1]), sys.argv[2]
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
options = TrainerOptions(
    device="cpu", progress=False, out=out, checkpoint=True, checkpoint_every=5, clip_norm=0.5, accumulate=2, early_stop=9
)
trainer = Trainer(model, loaders(128, 21), Classes(), options, hooks=[Cut()])
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
finish(trainer)
"""


@pytest.mark.slow
def test_two_sharded_processes_learn_what_one_learns_and_resume(start, ended, tmp_path):
    for name, world in (("one", 1), ("two", 2)):
        code, said = ended(start(SCRIPT, tmp_path / name, "train", world=world))
        assert code == 0, said
    code, said = ended(start(SCRIPT, tmp_path / "cut", "cut", world=2))
    assert code != 0
    tensors, state = read_checkpoint(checkpoints(tmp_path / "cut" / "checkpoints")[0])
    assert (state["place"]["done"], state["place"]["cursor"]) == (1, 6)
    assert tensors["optimizer"]["0.weight.exp_avg"].shape == (8, 4)
    code, said = ended(start(SCRIPT, tmp_path / "cut", "resume", world=2))
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
