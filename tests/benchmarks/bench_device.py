"""How busy the trainer keeps a GPU: waits of the host in a step, share of time that kernels run, compiled and recorded.

python tests/benchmarks/bench_device.py    (on a machine with a CUDA GPU; writes results/device.json)

50,000 synthetic images of 32x32x3 bytes, as in CIFAR-10, go through a DataBlock with augmentation on the device into a
small residual net: bfloat16, channels last, batches of 512. The loader's store lies on the GPU. Measured are the waits of
the host between the steps of one epoch (torch warns of each), the share of the wall time of an epoch in which a kernel
runs (torch's profiler, intervals joined), images a second, and the same compiled and with a CUDA graph. An MLP whose
steps cost more to launch than to compute is measured with and without the graph.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, TensorDataset

from common.augment import Augment
from common.data import CategoryBlock, DataBlock, DataLoaders, ImageBlock, IndexSplitter
from common.task.task import Task
from common.train import Trainer, TrainerOptions, accuracy
from common.train.hooks import Hook

IMAGES, HELD, BATCH = 50_000, 2_000, 512


class Classes(Task):
    """Cross-entropy over ten classes."""

    def losses(self, output, batch):
        return F.cross_entropy(output, batch.y, reduction="none")


class Residual(nn.Module):
    """Two convolutions with a way past them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)) for _ in range(2)
        )

    def forward(self, x):
        return F.relu(x + self.second(F.relu(self.first(x))))


def residual_net() -> nn.Module:
    """Three stages of 64, 128 and 256 channels."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    before = 3
    for width in (64, 128, 256):
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2), Residual(width)]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


def image_loaders():
    """Images whose class shows in a bright stripe, under noise."""
    numbers = np.random.default_rng(0)
    labels = numbers.integers(0, 10, IMAGES)
    pixels = numbers.integers(0, 160, (IMAGES, 32, 32, 3), dtype=np.uint8)
    for label in range(10):
        pixels[labels == label, 3 * label : 3 * label + 3] += 80
    names = [str(label) for label in labels]
    block = DataBlock(
        blocks=(ImageBlock("RGB"), CategoryBlock),
        get_x=pixels.__getitem__,
        get_y=names.__getitem__,
        splitter=IndexSplitter(range(HELD)),
        batch_tfms=Augment(flip=True, translate=0.1, p_affine=1.0, brightness=0.1),
    )
    return block.dataloaders(list(range(IMAGES)), bs=BATCH, num_workers=8)


def mlp_parts():
    """The net and the loaders of the small-step measurement."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), *[m for _ in range(20) for m in (nn.ReLU(), nn.Linear(64, 64))])
    net.append(nn.Linear(64, 10))
    x, y = torch.randn(64_000, 64, device="cuda"), torch.randint(0, 10, (64_000,), device="cuda")
    batches = torch.arange(64_000, device="cuda").split(64)
    data = DataLoader(TensorDataset(x, y), batch_size=None, sampler=batches)  # whole batches, indexed on the device
    return net, DataLoaders(data)


class Timed(Hook):
    """Wall seconds of each epoch's training, the device brought to rest at both ends."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def epoch_start(self, trainer, epoch):
        torch.cuda.synchronize()
        self.started = time.perf_counter()

    def step_end(self, trainer, step, loss, samples):
        if step == len(trainer.dls.train) - 1:
            torch.cuda.synchronize()
            self.seconds.append(time.perf_counter() - self.started)


class Waits(Hook):
    """Counts the times that the host waits for the device between the first and the last step of an epoch."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.steps = 0

    def step_end(self, trainer, step, loss, samples):
        if step == 0:
            self.caught = warnings.catch_warnings(record=True)
            self.said = self.caught.__enter__()
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
        elif step == len(trainer.dls.train) - 1:
            torch.cuda.set_sync_debug_mode("default")
            self.found += [f"{Path(w.filename).name}:{w.lineno}" for w in self.said if "synchron" in str(w.message)]
            self.caught.__exit__(None, None, None)
            self.steps += step


class Busy(Hook):
    """Profiles the steps of one epoch and returns the share of the time in which a kernel or a copy runs."""

    def __init__(self, epoch: int) -> None:
        self.epoch, self.share = epoch, None
        self.profile = None

    def epoch_start(self, trainer, epoch):
        if epoch == self.epoch:
            torch.cuda.synchronize()
            self.profile = profile(activities=[ProfilerActivity.CUDA])
            self.profile.__enter__()

    def step_end(self, trainer, step, loss, samples):
        if self.profile is not None and step == len(trainer.dls.train) - 1:
            torch.cuda.synchronize()
            self.profile.__exit__(None, None, None)
            with tempfile.TemporaryDirectory() as folder:
                self.profile.export_chrome_trace(f"{folder}/trace.json")
                trace = json.loads(Path(folder, "trace.json").read_text())
            self.share, self.profile = busy_share(trace["traceEvents"]), None


def busy_share(events: list[dict]) -> float:
    """Returns the share of the time from the first device event to the last in which at least one runs."""
    kinds = ("kernel", "gpu_memcpy", "gpu_memset")
    spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e.get("cat") in kinds)
    busy, end = 0.0, spans[0][0]
    for start, stop in spans:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return busy / (end - spans[0][0])


def train(net, loaders, epochs: int, hooks=(), **options) -> dict:
    """Trains and returns images a second of each epoch after the first, and what the loop waited for data."""
    timed = Timed()
    chosen = TrainerOptions(device="cuda", progress=False, **options)
    trainer = Trainer(net, loaders, Classes(), chosen, metrics=[accuracy], hooks=[*hooks, timed])
    trainer.fit_one_cycle(epochs, 1e-2)
    samples = BATCH * len(loaders.train) if loaders.has("valid") else 64_000
    found = [samples / seconds for seconds in timed.seconds[1:]]
    last = trainer.history[-1]
    return {
        "items_per_second": round(statistics.median(found)), "spread": [round(min(found)), round(max(found))],
        "us_per_step": round(1e6 * statistics.median(timed.seconds[1:]) / len(loaders.train), 1),
        "wait_seconds": last["wait_seconds"], "train_loss": last["train_loss"], "accuracy": last.get("accuracy"),
    }  # fmt: skip


def main() -> None:
    """Measures everything in one call."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "device.json"))
    given = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a CUDA GPU")
    loaders = image_loaders()
    bf16 = {"precision": "bf16", "channels_last": True}
    variants = {"eager": {}, "compile": {"compile": True}, "graph": {"cuda_graph": True}}
    images: dict[str, dict] = {}
    for name, options in variants.items():
        waits, busy = Waits(), Busy(given.epochs - 1)
        images[name] = train(residual_net(), loaders, given.epochs, **bf16, **options)
        watched = train(residual_net(), loaders, given.epochs, [waits, busy], **bf16, **options)
        places = {place: waits.found.count(place) for place in sorted(set(waits.found))}
        images[name] |= {"busy_share": busy.share, "waits_per_step": len(waits.found) / waits.steps, "waits": places}
        images[name]["accuracy_watched"] = watched["accuracy"]
        print("images", name, images[name], flush=True)
    small: dict[str, dict] = {}
    for name, options in {"eager": {}, "graph": {"cuda_graph": True}}.items():
        net, data = mlp_parts()
        small[name] = train(net, data, given.epochs, **options)
        print("small steps", name, small[name], flush=True)
    result = {
        "what": "the trainer on a GPU: waits, share of time busy, compile and CUDA graph",
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"gpu": torch.cuda.get_device_name(), "python": platform.python_version()},
        "versions": {"torch": torch.__version__, "cuda": torch.version.cuda},
        "batch": BATCH, "epochs": given.epochs, "images": images, "small_steps": small,
    }  # fmt: skip
    Path(given.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
