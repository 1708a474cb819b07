"""Small models, tasks and loaders with known answers, for the tests of the trainer."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from common.augment import Augment
from common.data import CategoryBlock, DataBlock, DataLoaders, ImageBlock, IndexSplitter
from common.task.task import Task
from common.train import Trainer, TrainerOptions, accuracy
from common.train.hooks import Hook

matplotlib.use("Agg")
torch.set_num_threads(1)


@dataclass(frozen=True)
class Classes(Task):
    """Cross-entropy of outputs (B, classes), the plainest task with an accuracy."""

    def losses(self, output, batch):
        return F.cross_entropy(output, batch.y, reduction="none")

    def metrics(self):
        return (accuracy,)

    def activation(self, output):
        return output.softmax(dim=1)

    def decode(self, output):
        return [{"label": i} for i in output.argmax(dim=1).tolist()]

    def report(self, outputs):
        return {"accuracy": accuracy(outputs.output, outputs.target)}


class ConvNet(nn.Module):
    """Convolution with batch norm, dropout and a linear head: the three kinds of state a checkpoint must carry."""

    def __init__(self, channels=1, classes=3, dropout=0.2):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8)
        )
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(8, classes))

    def forward(self, x):
        return self.head(self.body(x).mean(dim=(2, 3)))

    def layer_groups(self):
        return [list(self.body[:2].parameters()), list(self.body[3:].parameters()), list(self.head.parameters())]


class Snapshots(Hook):
    """Keeps a copy of the weights after every step and every epoch, and what the optimizer was given."""

    def __init__(self):
        self.steps, self.epochs, self.groups, self.rates = [], [], [], []

    @staticmethod
    def copy(trainer):
        return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}

    def fit_start(self, trainer, epochs, steps):
        self.groups.append([dict(group) for group in trainer.optimizer.param_groups])

    def step_end(self, trainer, step, loss, samples):
        self.steps.append(self.copy(trainer))
        self.rates.append([group["lr"] for group in trainer.optimizer.param_groups])

    def epoch_end(self, trainer, record):
        self.epochs.append(self.copy(trainer))


def build(maker, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return maker()


def gaussian_blobs(count=96, classes=3, seed=0, spread=0.4):
    """Points (count, 4) around one corner of a cube a class: any classifier that works separates them."""
    numbers = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    centres = torch.eye(4)[:classes] * 3
    return centres[y] + spread * torch.randn(count, 4, generator=numbers), y


@pytest.fixture(scope="session")
def classes_task():
    return Classes()


@pytest.fixture(scope="session")
def blobs():
    return gaussian_blobs


@pytest.fixture(scope="session")
def loaders():
    """Makes plain torch loaders of tensors in their order, train and valid alike."""

    def make(x, y, bs=16, valid=None, shuffle=False):
        data = DataLoader(TensorDataset(x, y), batch_size=bs, shuffle=shuffle)
        held = data if valid is None else DataLoader(TensorDataset(*valid), batch_size=bs)
        return DataLoaders(data, held)

    return make


@pytest.fixture(scope="session")
def mlp():
    return lambda seed=0, dropout=0.0: build(
        lambda: nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Dropout(dropout), nn.Linear(12, 3)), seed
    )


@pytest.fixture(scope="session")
def convnet():
    return lambda seed=0, **options: build(lambda: ConvNet(**options), seed)


@pytest.fixture(scope="session")
def quiet():
    """Makes options that write nothing and run on the CPU."""
    return lambda **changes: TrainerOptions(**{"device": "cpu", "progress": False, **changes})


@pytest.fixture()
def snapshots():
    return Snapshots()


@pytest.fixture(scope="session")
def image_loaders():
    """Makes loaders of a DataBlock: grey 8x8 pictures, three classes by brightness, shuffled and augmented."""

    def make(bs=8, seed=0, augment=True, count=48, batch_tfms=None):
        numbers = np.random.default_rng(5)
        labels = [int(v) for v in np.arange(count) % 3]
        pixels = [np.clip(numbers.normal(50 + 70 * k, 25, (8, 8)), 0, 255).astype(np.uint8) for k in labels]
        block = DataBlock(
            blocks=(ImageBlock("L"), CategoryBlock),
            get_x=pixels.__getitem__,
            get_y=lambda i: f"class {labels[i]}",
            splitter=IndexSplitter(range(0, count, 4)),
            batch_tfms=batch_tfms or (Augment(flip=True, brightness=0.2) if augment else None),
        )
        return block.dataloaders(list(range(count)), bs=bs, seed=seed, num_workers=0)

    return make


@pytest.fixture(scope="session")
def image_trainer(image_loaders, convnet, quiet):
    """Makes a Trainer of the convolutional net on the pictures."""

    def make(hooks=(), task=None, loaders=None, model=None, **options):
        model = convnet(options.get("seed", 0)) if model is None else model
        dls = image_loaders(seed=options.get("seed", 0)) if loaders is None else loaders
        return Trainer(model, dls, task or Classes(), quiet(**options), hooks=hooks)

    return make


def same_state(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="session")
def same():
    """Compares two state dictionaries bit by bit."""
    return same_state


@pytest.fixture(scope="session")
def state_of():
    return lambda model: {name: value.detach().clone() for name, value in model.state_dict().items()}


@pytest.fixture(scope="session")
def timeless():
    """An epoch's records without what a clock decides."""

    def strip(history):
        clock = ("seconds", "items_per_second", "wait_seconds")
        return [{k: v for k, v in record.items() if k not in clock} for record in history]

    return strip


TOY = """
import numpy as np
import torch
import torch.nn.functional as F
from common.data import CategoryBlock, DataBlock, IndexSplitter, RegressionBlock
from common.task.task import Task

torch.set_num_threads(1)

class Classes(Task):
    def losses(self, output, batch):
        return F.cross_entropy(output, batch.y, reduction="none")

def loaders(count, held):
    numbers = np.random.default_rng(0)
    labels = np.arange(count + held) % 3
    points = (np.eye(4)[labels] * 2 + numbers.normal(0, 0.5, (len(labels), 4))).astype(np.float32)
    block = DataBlock(
        blocks=(RegressionBlock, CategoryBlock), get_x=lambda i: points[i], get_y=lambda i: str(labels[i]),
        splitter=IndexSplitter(range(count, count + held)),
    )
    return block.dataloaders(list(range(len(labels))), bs=16, num_workers=0)

def finish(trainer):
    if trainer.world > 1:
        torch.distributed.destroy_process_group()
"""
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
LAUNCH += ["--num_cpu_threads_per_process", "1"]
LIMIT_S = 120


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts a script, which may import ``toy``, in one process or two: its arguments are a folder and others."""
    scripts = tmp_path_factory.mktemp("scripts")
    (scripts / "toy.py").write_text(TOY)
    root = Path(__file__).resolve().parents[3]

    def run(source, folder, *given, world=2):
        folder.mkdir(exist_ok=True)
        (scripts / "train.py").write_text(source)
        return subprocess.Popen(
            [sys.executable, *(LAUNCH if world == 2 else []), str(scripts / "train.py"), str(folder), *given],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{root}{os.pathsep}{scripts}"}, cwd=folder,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def ended():
    """Waits for a process and returns its exit code and what it said."""

    def wait(process):
        try:
            said, _ = process.communicate(timeout=LIMIT_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        return process.returncode, said

    return wait
