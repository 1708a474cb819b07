"""Between two steps nothing is read from the device, and a recorded step is the step that was recorded."""

import sys

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from common.data import DataLoaders
from common.errors import ConfigError
from common.train import Trainer, accuracy
from common.train.graph import GraphedStep
from common.train.hooks import Hook

READS = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "unique", "_unique2")


class Reads(TorchDispatchMode):
    """Notes every operation whose result the host must know, but not the loader's lists of what is kept: they lie there.

    Copies to the host show on a GPU only; see below.
    """

    def __init__(self):
        super().__init__()
        self.names, self.operations = [], 0

    @staticmethod
    def from_the_host():
        frame = sys._getframe(2)
        while frame is not None and "/common/" not in frame.f_code.co_filename:
            frame = frame.f_back
        return frame is not None and frame.f_code.co_filename.endswith(("store/store.py", "data/loader.py"))

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.operations += 1
        if name in READS and not self.from_the_host():
            self.names.append(name)
        return function(*args, **(kwargs or {}))


class Between(Hook):
    """Watches from the first step's end of an epoch to the last one's."""

    def __init__(self):
        self.found, self.mode = [], None

    def step_end(self, trainer, step, loss, samples):
        if step == 0:
            self.mode = Reads()
            self.mode.__enter__()
        elif step == len(trainer.dls.train) - 1:
            self.mode.__exit__(None, None, None)
            self.found.append(self.mode)


OPTIONS = {
    "adamw": {},
    "sgd": {"optimizer": "sgd"},
    "average, clip, accumulate": {"ema_decay": 0.9, "clip_norm": 1.0, "accumulate": 2},
    "bf16": {"precision": "bf16"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_step_reads_nothing_from_the_device(image_trainer, tmp_path, options):
    between = Between()
    trainer = image_trainer(hooks=[between], out=tmp_path, checkpoint=True, early_stop=5, **options)
    trainer.fit_one_cycle(3, 1e-2)
    assert len(between.found) == 3
    for mode in between.found:
        assert mode.operations > 100
        assert mode.names == []


def test_a_hook_that_reads_the_loss_is_noticed(image_trainer):
    class Curious(Hook):
        def step_end(self, trainer, step, loss, samples):
            float(loss)

    between = Between()
    image_trainer(hooks=[between, Curious()]).fit(1, 1e-2)
    assert len(between.found[0].names) >= 2


def test_validation_reads_nothing_before_its_last_batch(image_trainer):
    modes, trainer = [], image_trainer()

    def watch():
        if not modes:
            modes.append(Reads())
            modes[0].__enter__()
        elif modes[0].operations and len(modes) == 1:
            modes[0].__exit__(None, None, None)
            modes.append(None)

    trainer.measure(trainer.dls.valid, watch)  # two batches: between their ends
    assert modes[0].operations > 10
    assert modes[0].names == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cuda_graph": True}, "cuda_graph needs a CUDA GPU"),
        ({"cuda_graph": True, "device": "cuda", "accumulate": 2}, "it needs accumulate=1"),
        ({"cuda_graph": True, "device": "cuda", "precision": "fp16"}, "precision 'no' or 'bf16'"),
    ],
)
def test_a_graph_where_it_cannot_be_is_refused(quiet, options, says):
    with pytest.raises(ConfigError, match=says):
        quiet(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_a_graph_on_a_machine_without_a_gpu_is_refused(mlp, blobs, loaders, classes_task, quiet):
    with pytest.raises(ConfigError, match="cuda_graph needs one process on a CUDA GPU, got 1 on cpu"):
        Trainer(mlp(), loaders(*blobs()), classes_task, quiet(cuda_graph=True, device="auto"))


def test_a_graph_takes_batches_of_the_shape_it_saw_in_the_steps_before_it(image_trainer):
    trainer = image_trainer()
    step = GraphedStep(trainer.model, trainer.task, [])
    large, small = (trainer.dls.train.with_options(batch_size=size).one_batch() for size in (8, 3))
    assert step.takes(small)  # a resumed epoch may begin with its last, small batch …
    assert step.takes(large)  # … which does not decide for those after it
    step.graph = object()
    assert step.takes(large)
    assert not step.takes(small)


# ---------------------------------------------------------------- with a GPU


def gpu_trainer(classes_task, quiet, hooks=(), **options):
    numbers = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 1, 12, 12, generator=numbers), torch.arange(200) % 3
    x[torch.arange(200), 0, y] += 2.0
    data = DataLoader(TensorDataset(x, y), batch_size=32)  # six full batches and one of eight
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(800, 3)
    )
    chosen = quiet(**{"device": "cuda", **options})
    return Trainer(net, DataLoaders(data, data), classes_task, chosen, hooks=hooks, metrics=[accuracy])


class NoSync(Hook):
    """Between the first step and the last one of an epoch, torch raises where the host waits for the device."""

    def step_end(self, trainer, step, loss, samples):
        if step == 0:
            torch.cuda.set_sync_debug_mode("error")
        elif step == len(trainer.dls.train) - 1:
            torch.cuda.set_sync_debug_mode("default")

    def fit_end(self, trainer):
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize(
    "options",
    [{}, {"optimizer": "sgd"}, {"precision": "bf16", "ema_decay": 0.9, "clip_norm": 1.0}, {"precision": "fp16"}],
    ids=str,
)
def test_on_a_gpu_no_step_waits_for_the_device(classes_task, quiet, options):
    trainer = gpu_trainer(classes_task, quiet, [NoSync()], **options)
    trainer.fit_one_cycle(3, 1e-2)
    assert trainer.history[-1]["accuracy"] > 0.6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("options", [{}, {"optimizer": "sgd"}, {"precision": "bf16"}, {"clip_norm": 0.5}], ids=str)
def test_on_a_gpu_a_recorded_step_learns_what_the_ordinary_one_learns(classes_task, quiet, options):
    runs = []
    for graph in (False, True):
        trainer = gpu_trainer(classes_task, quiet, cuda_graph=graph, **options)
        trainer.fit_one_cycle(4, 1e-2)
        runs.append(trainer)
    atol = 2e-2 if "precision" in options else 1e-4
    for name, value in runs[0].model.state_dict().items():
        assert torch.allclose(value.float(), runs[1].model.state_dict()[name].float(), atol=atol), name
    assert runs[1].history[-1]["accuracy"] == pytest.approx(runs[0].history[-1]["accuracy"], abs=0.03)
