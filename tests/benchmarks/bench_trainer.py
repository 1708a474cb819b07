"""What a trainer costs: CPU microseconds a step over a hand-written torch loop that does the same work.

PYTHONPATH=. ../peers/bin/python tests/benchmarks/bench_trainer.py --out tests/benchmarks/results/trainer.json

One small net (784-50-10), batches of 64, Nesterov SGD by torch and cross-entropy in every contender, and one DataLoader
that fetches whole batches; each contender as quiet as it can be: no bar, log, metric or checkpoint. Every contender
trains a long and a short epoch in turn with the others; microseconds a step are the slope between the two, the
milliseconds of an empty fit what is left over. Ours runs with its bar drawn, too, and over its own loader.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TERM="xterm", COLUMNS="120")

import argparse
import contextlib
import functools
import gc
import importlib.metadata
import io
import json
import logging
import platform
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

import common  # noqa: F401 (found once, its parts are found even without the project in sys.path)

BATCH = 64
RATE = 0.01
SGD = {"lr": RATE, "momentum": 0.9, "nesterov": True}
Maker = Callable[[int], Callable[[], None]]


def model() -> nn.Module:
    """The net, always with the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10))


@functools.cache
def arrays(steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random inputs and classes, enough for a number of steps."""
    numbers = torch.Generator().manual_seed(0)
    return torch.rand(steps * BATCH, 784, generator=numbers), torch.randint(0, 10, (steps * BATCH,), generator=numbers)


class Batches(Dataset):
    """Takes the cost of single items out: a batch is one indexing."""

    def __init__(self, steps: int) -> None:
        self.x, self.y = arrays(steps)

    def __len__(self) -> int:
        return len(self.x)

    def __getitems__(self, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.tensor(indices)
        return self.x[chosen], self.y[chosen]

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x[index], self.y[index]


def whole(batch):
    """Leaves a batch as it was fetched."""
    return batch


def loader(steps: int) -> DataLoader:
    """The DataLoader that every contender gets."""
    return DataLoader(Batches(steps), BATCH, shuffle=True, collate_fn=whole)


# ---------------------------------------------------------------- contenders


def hand_written(steps: int):
    """The loop that the others are measured against."""
    net, data = model(), loader(steps)
    optimizer = torch.optim.SGD(net.parameters(), **SGD)

    def run() -> None:
        net.train()
        for x, y in data:
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()

    return run


class Terminal(io.StringIO):
    """Takes what a terminal would show, and throws it away."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


def our_task():
    """Cross-entropy as the hand-written loop has it."""
    from common.task.task import Task

    class Classes(Task):
        def loss(self, output, batch):
            return F.cross_entropy(output, batch.y)

    return Classes()


def ours(steps: int, bar: bool = False, one_cycle: bool = False, own_loader: bool = False):
    """This project's Trainer."""
    from common.data import DataLoaders
    from common.train import ProgressBar, Trainer, TrainerOptions

    data = DataLoaders(our_loader(steps) if own_loader else loader(steps))
    options = TrainerOptions(device="cpu", progress=False, optimizer="sgd", weight_decay=0.0)
    hooks = [ProgressBar(Terminal())] if bar else []
    trainer = Trainer(model(), data, our_task(), options, metrics=[], hooks=hooks)
    return lambda: trainer.fit_one_cycle(1, RATE) if one_cycle else trainer.fit(1, RATE)


@functools.cache
def our_loader(steps: int):
    """This project's loader over the same arrays."""
    from common.data import CategoryBlock, DataBlock, IndexSplitter, RegressionBlock

    x, y = arrays(steps)
    points, labels = x.numpy(), [str(label) for label in y.tolist()]
    block = DataBlock(
        blocks=(RegressionBlock, CategoryBlock),
        get_x=points.__getitem__,
        get_y=labels.__getitem__,
        splitter=IndexSplitter([0]),
    )
    return block.dataloaders(list(range(len(points))), bs=BATCH, num_workers=0).train


def hand_written_over_our_loader(steps: int):
    """The hand-written loop over this project's loader."""
    net, data = model(), our_loader(steps)
    optimizer = torch.optim.SGD(net.parameters(), **SGD)

    def run() -> None:
        net.train()
        for batch in data:
            F.cross_entropy(net(batch.x), batch.y).backward()
            optimizer.step()
            optimizer.zero_grad()

    return run


def accelerate(steps: int):
    """A plain loop on Accelerate."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    net = model()
    net, optimizer, data = accelerator.prepare(net, torch.optim.SGD(net.parameters(), **SGD), loader(steps))

    def run() -> None:
        net.train()
        for x, y in data:
            accelerator.backward(F.cross_entropy(net(x), y))
            optimizer.step()
            optimizer.zero_grad()

    return run


def lightning(steps: int):
    """Lightning's Trainer, everything that can be turned off turned off."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = model()

        def training_step(self, batch, index):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), **SGD)

    module, data = Module(), loader(steps)
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")

    def run() -> None:
        lightning.Trainer(max_epochs=1, accelerator="cpu", **dict.fromkeys(off, False)).fit(module, data)

    return run


def hugging_face(steps: int):
    """Hugging Face's Trainer. It must not take this project's folder of data cards for a package named datasets."""
    sys.path = [folder for folder in sys.path if not Path(folder, "datasets", "README.md").is_file()]
    from transformers import Trainer, TrainingArguments

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model()

        def forward(self, x, labels):
            output = self.net(x)
            return {"loss": F.cross_entropy(output, labels), "logits": output}

    net, folder = Net(), tempfile.mkdtemp()
    arguments = TrainingArguments(
        output_dir=folder, per_device_train_batch_size=BATCH, num_train_epochs=1, use_cpu=True, max_grad_norm=0.0,
        report_to="none", remove_unused_columns=False, dataloader_pin_memory=False, disable_tqdm=True,
        logging_strategy="no", save_strategy="no",
    )  # fmt: skip

    def run() -> None:
        optimizer = torch.optim.SGD(net.parameters(), **SGD)
        constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        Trainer(
            net, arguments, train_dataset=Batches(steps), optimizers=(optimizer, constant),
            data_collator=lambda batch: {"x": batch[0], "labels": batch[1]},
        ).train()  # fmt: skip

    return run


def fastai(steps: int):
    """Fastai's Learner over the same DataLoader and torch's optimizer; its bar and its log are off."""
    from fastai.basics import DataLoaders, Learner, OptimWrapper
    from fastai.callback.core import Callback, CancelValidException
    from fastai.callback.progress import ProgressCallback  # brings no_bar

    class NoValidation(Callback):
        def before_validate(self):
            raise CancelValidException()

    data = loader(steps)
    settings = {"momentum": SGD["momentum"], "nesterov": True}
    learner = Learner(
        DataLoaders(data, data), model(), loss_func=F.cross_entropy, lr=RATE, moms=None, train_bn=True,
        opt_func=functools.partial(OptimWrapper, opt=torch.optim.SGD, **settings),
    )  # fmt: skip

    def run() -> None:
        assert any(isinstance(callback, ProgressCallback) for callback in learner.cbs)
        with learner.no_bar(), learner.no_logging():
            learner.fit(1, lr=RATE, cbs=NoValidation())

    return run


CONTENDERS: dict[str, tuple[Maker, str]] = {
    "hand-written": (hand_written, ""),
    "ours": (ours, "hand-written"),
    "ours (one cycle)": (functools.partial(ours, one_cycle=True), "hand-written"),
    "ours (bar drawn)": (functools.partial(ours, bar=True), "hand-written"),
    "accelerate loop": (accelerate, "hand-written"),
    "Lightning": (lightning, "hand-written"),
    "Hugging Face": (hugging_face, "hand-written"),
    "fastai": (fastai, "hand-written"),
    "hand-written (our loader)": (hand_written_over_our_loader, ""),
    "ours (our loader)": (functools.partial(ours, own_loader=True), "hand-written (our loader)"),
}
PACKAGES = ("torch", "accelerate", "lightning", "transformers", "fastai")


# --------------------------------------------------------------- measurement


def cpu_s() -> float:
    """CPU seconds of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@contextlib.contextmanager
def silence():
    """What a contender prints all the same is thrown away."""
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        yield


def measure(chosen: list[str], long: int, short: int, rounds: int) -> dict[str, dict]:
    """Runs the contenders in turn and returns each one's figures, or its error."""
    runs: dict[tuple[str, int], Callable[[], None]] = {}
    found: dict[str, dict] = {}
    for name in chosen:
        try:
            with silence():
                made = {(name, steps): CONTENDERS[name][0](steps) for steps in (long, short)}
                for run in made.values():
                    run()
            runs |= made
            found[name] = {"cpu_s": {long: [], short: []}}
        except Exception as error:  # a peer that is not installed is a result too
            found[name] = {"error": f"{type(error).__name__}: {error}"[:200]}
    for number in range(rounds):
        for (name, steps), run in runs.items():
            gc.collect()
            started = cpu_s()
            with silence():
                run()
            found[name]["cpu_s"][steps].append(cpu_s() - started)
        print(f"round {number + 1}/{rounds}", file=sys.stderr, flush=True)
    return found


def evaluate(found: dict[str, dict], long: int, short: int) -> None:
    """Adds microseconds a step, those over the hand-written loop, and milliseconds of an empty fit."""
    for result in found.values():
        if "cpu_s" in result:
            pairs = list(zip(result["cpu_s"][long], result["cpu_s"][short], strict=True))
            result["us"] = [(a - b) / (long - short) * 1e6 for a, b in pairs]
            result["us_median"] = round(statistics.median(result["us"]), 1)
            best = (min(a for a, _ in pairs) - min(b for _, b in pairs)) / (long - short) * 1e6
            result["us_best"] = round(best, 1)
            fixed = [b * 1e3 - us * short / 1e3 for (_, b), us in zip(pairs, result["us"], strict=True)]
            result["fixed_ms"] = round(statistics.median(fixed), 1)
    for name, result in found.items():
        base = found.get(CONTENDERS[name][1], {})
        if "us" in result and "us" in base:
            over = [a - b for a, b in zip(result["us"], base["us"], strict=True)]
            low, middle, high = statistics.quantiles(over, n=4)
            result["overhead_us"] = round(middle, 1)
            result["overhead_us_quartiles"] = [round(low, 1), round(high, 1)]
            result["overhead_us_best"] = round(result["us_best"] - base["us_best"], 1)


def table(found: dict[str, dict]) -> None:
    """Prints one line a contender."""
    print(f"{'contender':26}{'us/step':>9}{'overhead':>10}{'quartiles':>18}{'best':>8}{'ms a fit':>10}")
    for name, result in found.items():
        if "error" in result:
            print(f"{name:26}{result['error']}")
            continue
        over, spread = result.get("overhead_us", ""), result.get("overhead_us_quartiles", ["", ""])
        best, fixed = result.get("overhead_us_best", ""), result["fixed_ms"]
        print(f"{name:26}{result['us_median']:>9}{over:>10}{spread[0]!s:>9}{spread[1]!s:>9}{best!s:>8}{fixed:>10}")


def version(name: str) -> str | None:
    """Returns a package's version, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600, help="of a long epoch; a short one has a fifth")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", help="contenders by name, separated by commas")
    parser.add_argument("--out", help="a JSON file for the result")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    chosen = [name for name in CONTENDERS if not given.only or name in given.only.split(",")]
    long, short = given.steps, given.steps // 5
    started = time.perf_counter()
    found = measure(chosen, long, short, given.rounds)
    evaluate(found, long, short)
    table(found)
    result = {
        "what": "CPU microseconds a step over a hand-written loop; 784-50-10, batch 64, Nesterov SGD, one thread",
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()},
        "versions": {name: version(name) for name in PACKAGES},
        "steps": [long, short], "rounds": given.rounds, "wall_s": round(time.perf_counter() - started, 1),
        "contenders": found,
    }  # fmt: skip
    if given.out:
        Path(given.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
