"""Kill -9 at any instant: every run resumes, and ends with the bits of the run that was left alone.

.venv/bin/python tests/benchmarks/bench_kill.py --kills 50 --out tests/benchmarks/results/kill.json

A small convolutional net (batch norm, dropout) learns scikit-learn's digits through a DataBlock with augmentation, an
average of the weights, early stop, accumulation and a checkpoint every few steps. Each run is a process forked from this
one, so that torch is imported once. It is killed at a random moment; at random steps of the second epoch and later; in
validation; and at every single file operation of a checkpoint's write (operations are seen by an audit hook; what a file
holds half-written is left to the random moments). Then it is resumed and compared: weights, history, log.
"""

import argparse
import json
import os
import platform
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from common.augment import Augment
from common.data import CategoryBlock, DataBlock, ImageBlock, IndexSplitter
from common.task.task import Task
from common.train import Accuracy, Trainer, TrainerOptions
from common.train.checkpoint import checkpoints, is_sound, save_tensors
from common.train.hooks import Hook

EPOCHS, BATCH, ITEMS, EVERY = 4, 16, 480, 4
CLOCK = ("seconds", "items_per_second", "wait_seconds")


class Digits(Task):
    """Cross-entropy over ten classes."""

    def losses(self, output, batch):
        return F.cross_entropy(output, batch.y, reduction="none")


class KillAt(Hook):
    """Ends this process at a step, counted from the start of the training."""

    def __init__(self, step):
        self.step = step

    def step_end(self, trainer, step, loss, samples):
        if trainer.step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class KillInValidation(Accuracy):
    """Ends this process at a batch of validation, counted over all epochs."""

    def __init__(self, batch):
        self.batch = batch

    def measure(self, output, batch):
        self.batch -= 1
        if self.batch == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().measure(output, batch)


class FileOperations:
    """Counts the file operations below the folder of the checkpoints, and ends this process at one of them.

    Args:
        folder: The folder.
        write: In which checkpoint's write to count, from 0; they begin with the making of a folder.
        number: The operation to die at, or None to count.
    """

    def __init__(self, folder, write, number=None):
        self.folder, self.write, self.number = str(folder), write, number
        self.writes, self.count = -1, 0
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if event != "open" and not event.startswith(("os.", "shutil.rmtree")):
            return
        path = next((str(a) for a in arguments if isinstance(a, (str, Path))), "")
        if not path.startswith(self.folder):
            return
        self.writes += event == "os.mkdir" and ".partial" in path
        if self.writes == self.write:
            self.count += 1
            if self.count == self.number:
                os.kill(os.getpid(), signal.SIGKILL)


def make_loaders():
    """Digits as arrays of uint8, augmented; a quarter validates."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = (found.images[:ITEMS] * 15.9375).astype("uint8")
    block = DataBlock(
        blocks=(ImageBlock("L"), CategoryBlock),
        get_x=pixels.__getitem__,
        get_y=lambda i: str(found.target[i]),
        splitter=IndexSplitter(range(0, ITEMS, 4)),
        batch_tfms=Augment(rotate=8, brightness=0.1, flip=False),
    )
    return block.dataloaders(list(range(ITEMS)), bs=BATCH, num_workers=0)


def make_model():
    """A small net with batch norm and dropout."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 10))


def train(loaders, folder: Path, hooks=(), metric=None, epochs=EPOCHS) -> None:
    """Trains, from the newest checkpoint where there is one, and leaves weights and history in the folder."""
    options = TrainerOptions(
        device="cpu", progress=False, out=folder, checkpoint=True, checkpoint_every=EVERY,
        ema_decay=0.9, early_stop=1, accumulate=2, clip_norm=1.0,
    )  # fmt: skip
    trainer = Trainer(make_model(), loaders, Digits(), options, metrics=[metric or Accuracy()], hooks=hooks)
    if any(is_sound(found) for found in checkpoints(folder / "checkpoints")):
        trainer.resume(folder / "checkpoints")
    else:
        (folder / "events.jsonl").unlink(missing_ok=True)
    trainer.fit_one_cycle(epochs, 2e-2)
    save_tensors(trainer.model.state_dict(), folder / "weights.safetensors")
    history = [{k: v for k, v in record.items() if k not in CLOCK} for record in trainer.history]
    (folder / "history.json").write_text(json.dumps(history, sort_keys=True))


def in_process(work: Callable[[], None], kill_after: float | None = None) -> tuple[bool, float]:
    """Runs work in a forked process, killed after some seconds; returns whether it came to its end, and its seconds."""
    started = time.perf_counter()
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"a run failed with code {code}")
    return code == 0, time.perf_counter() - started


def outcome(folder: Path) -> dict:
    """Returns what is compared: weights, history and the epochs in the log, in their order."""
    log = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    epochs = [event["epoch"] for event in log if event["event"] == "epoch"]
    return {
        "weights": (folder / "weights.safetensors").read_bytes(),
        "history": (folder / "history.json").read_text(),
        "log": epochs,
    }


class Bench:
    """Runs of one training, each killed in its way, against the one that was not."""

    def __init__(self, root: Path, epochs: int = EPOCHS) -> None:
        self.root, self.epochs = root, epochs
        self.loaders = make_loaders()
        self.runs: list[dict] = []
        self.train(root / "warm")  # what is imported and decoded once is so before the first fork
        self.seconds = in_process(lambda: self.train(root / "whole"))[1]
        self.wanted = outcome(root / "whole")
        assert outcome(root / "warm") == self.wanted, "two runs that were left alone differ"
        self.steps = epochs * len(self.loaders.train)

    def train(self, folder: Path, hooks=(), metric=None) -> None:
        """Trains in this process."""
        train(self.loaders, folder, hooks, metric, self.epochs)

    def run(self, how: str, work: Callable[[Path], Callable[[], None]], kill_after: float | None = None) -> dict:
        """One run: killed, resumed until it ends, compared."""
        folder = self.root / f"run{len(self.runs):03d}"
        ended, seconds = in_process(work(folder), kill_after)
        kept = [found for found in checkpoints(folder / "checkpoints") if is_sound(found)]
        state = json.loads((kept[0] / "state.json").read_text())["place"] if kept else {}
        left = [p.name for p in (folder / "checkpoints").glob(".*")] if folder.exists() else []
        in_process(lambda: self.train(folder))
        found = outcome(folder)
        record = {
            "how": how, "killed": not ended, "after_s": round(seconds, 3), "checkpoint": kept[0].name if kept else None,
            "done": state.get("done"), "cursor": state.get("cursor"), "half_written": bool(left),
            **{name: found[name] == self.wanted[name] for name in self.wanted},
            "left_over": len(list((folder / "checkpoints").glob(".*"))),
        }  # fmt: skip
        self.runs.append(record)
        return record

    def random_moment(self, numbers: random.Random) -> dict:
        """Killed after a random time."""
        return self.run(
            "at a random moment",
            lambda folder: lambda: self.train(folder),
            numbers.uniform(0.01, self.seconds),
        )

    def at_step(self, step: int) -> dict:
        """Killed at a step."""
        return self.run(
            "at a step of epoch 2 or later" if step > self.steps // self.epochs else "at a step of epoch 1",
            lambda folder: lambda: self.train(folder, [KillAt(step)]),
        )

    def in_validation(self, batch: int) -> dict:
        """Killed at a batch of validation, counted over all epochs."""
        return self.run("in validation", lambda folder: lambda: self.train(folder, metric=KillInValidation(batch)))

    def operations(self, write: int) -> int:
        """Returns how many file operations a checkpoint's write makes, with the pruning after it."""
        count = self.root / "count"

        def work() -> None:
            counted = FileOperations(count / "checkpoints", write)
            self.train(count)
            (count / "operations").write_text(str(counted.count))

        in_process(work)
        return int((count / "operations").read_text())

    def at_operation(self, write: int, number: int) -> dict:
        """Killed at a file operation of a checkpoint's write."""

        def killed(folder: Path) -> Callable[[], None]:
            def work() -> None:
                FileOperations(folder / "checkpoints", write, number)
                self.train(folder)

            return work

        return self.run("inside a checkpoint's write", killed)


def main() -> None:
    """Runs all and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="runs killed at a random moment")
    parser.add_argument(
        "--step-kills", type=int, default=12, help="runs killed at a step, and in validation half as many"
    )
    parser.add_argument("--operations", type=int, default=10_000, help="the most file operations to be killed at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="a JSON file for the result")
    given = parser.parse_args()
    torch.set_num_threads(1)
    numbers = random.Random(given.seed)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as root:
        bench = Bench(Path(root))
        while sum(run["killed"] for run in bench.runs) < given.kills:  # some come to their end before the blow
            bench.random_moment(numbers)
        for _ in range(given.step_kills):
            bench.at_step(numbers.randint(bench.steps // EPOCHS + 1, bench.steps - 1))
        for _ in range(given.step_kills // 2):
            bench.in_validation(numbers.randint(1, EPOCHS * len(bench.loaders.valid)))
        write = numbers.randint(3, 8)
        total = bench.operations(write)
        chosen = numbers.sample(range(1, total + 1), min(total, given.operations))
        for number in sorted(chosen):
            bench.at_operation(write, number)
    table(bench.runs)
    result = {
        "what": "kill -9, resume, compare with the run that was left alone",
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()},
        "versions": {"torch": torch.__version__},
        "steps": bench.steps, "uninterrupted_s": round(bench.seconds, 3), "operations_of_a_write": total,
        "wall_s": round(time.perf_counter() - started, 1), "runs": bench.runs,
    }  # fmt: skip
    if given.out:
        Path(given.out).write_text(json.dumps(result, indent=1) + "\n")
    bad = [run for run in bench.runs if not (run["weights"] and run["history"] and run["log"])]
    sys.exit(f"{len(bad)} runs differ: {bad[:3]}" if bad else 0)


def table(runs: list[dict]) -> None:
    """Prints one line a way of dying."""
    print(
        f"{'killed':32}{'runs':>6}{'died':>6}{'half-written':>14}{'weights':>9}{'history':>9}{'log':>6}{'median s':>10}"
    )
    for how in dict.fromkeys(run["how"] for run in runs):
        own = [run for run in runs if run["how"] == how]
        counts = [sum(bool(run[k]) for run in own) for k in ("killed", "half_written", "weights", "history", "log")]
        after = statistics.median(run["after_s"] for run in own)
        print(
            f"{how:32}{len(own):>6}{counts[0]:>6}{counts[1]:>14}{counts[2]:>9}{counts[3]:>9}{counts[4]:>6}{after:>10.2f}"
        )


if __name__ == "__main__":
    main()
