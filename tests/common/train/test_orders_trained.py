"""Training in batches by length: killed anywhere and resumed with the same bits, and alike in one process and in two."""

import json
import os
import random
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from common.data import ByGroup, ByLength, CategoryBlock, ColReader, DataBlock, IndexSplitter, TextBlock, TokenBudget
from common.task.classification import ClassificationTask
from common.tensors import save_tensors
from common.train import Trainer, TrainerOptions
from common.train.checkpoint import checkpoints, is_sound
from common.train.hooks import Hook

KILLS, COUNT = 30, 160
GROUPS = [i % 23 for i in range(COUNT)]
BATCHINGS = {"length": ByLength(), "tokens": TokenBudget(tokens=160), "groups": ByGroup(groups=GROUPS)}


class Words(nn.Module):
    def __init__(self, words):
        super().__init__()
        self.table, self.drop, self.head = nn.Embedding(words, 6), nn.Dropout(0.1), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.drop((self.table(x.values) * x.valid[..., None]).sum(dim=1)))


def loaders(batching):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdef"), n)) for n in rng.integers(1, 30, COUNT)]
    frame = pd.DataFrame({"text": texts, "label": ["ab"["a" in text] for text in texts]})
    block = DataBlock(
        (TextBlock(min_count=1), CategoryBlock),
        get_x=ColReader("text"),
        get_y=ColReader("label"),
        splitter=IndexSplitter(range(8)),
    )
    return block.dataloaders(frame, bs=12, batching=batching)


class Kill(Hook):
    """Ends the process, as a power cut does, at the end of a step."""

    def __init__(self, step):
        self.step = step

    def step_end(self, trainer, step, loss, samples):
        if trainer.step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train(dls, folder, hooks=()):
    torch.manual_seed(0)
    options = TrainerOptions(
        device="cpu", progress=False, out=folder, checkpoint=True, checkpoint_every=3, accumulate=2, clip_norm=1.0
    )
    trainer = Trainer(Words(8), dls, ClassificationTask(tuple(dls.vocab)), options, hooks=hooks)
    if any(is_sound(found) for found in checkpoints(folder / "checkpoints")):
        trainer.resume(folder / "checkpoints")
    trainer.fit_one_cycle(3, 2e-2)
    save_tensors(trainer.model.state_dict(), folder / "weights.safetensors")
    return trainer


def killed(work):
    """Runs work in a forked process and returns the signal that ended it, 0 for none."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", BATCHINGS)
def test_runs_killed_anywhere_end_with_the_same_bits(name, tmp_path, same):
    torch.set_num_threads(1)
    dls, draw = loaders(BATCHINGS[name]), random.Random(0)
    whole = train(dls, tmp_path / "whole")
    steps = len(dls.train) * 3
    wanted = load_file(tmp_path / "whole" / "weights.safetensors")
    for kill in range(KILLS if name == "length" else 5):
        folder = tmp_path / f"killed_{kill}"
        folder.mkdir()
        first = draw.randrange(1, steps)
        assert killed(partial(train, dls, folder, [Kill(first)])) == signal.SIGKILL
        if kill % 2:  # and again, on the way of the resumed run
            later = draw.randrange(first, steps)
            assert killed(partial(train, dls, folder, [Kill(later)])) in (signal.SIGKILL, 0)
        assert killed(partial(train, dls, folder)) == 0
        assert same(load_file(folder / "weights.safetensors"), wanted), (first, kill)
    assert whole.step == steps


SCRIPT = """
import json, sys
from pathlib import Path
import torch
import torch.nn.functional as F
from dataclasses import dataclass
from test_orders import Words, loaders, BATCHINGS
from toy import finish
from common.task.classification import ClassificationTask
from common.tensors import save_tensors
from common.train import Trainer, TrainerOptions

class Weighed(ClassificationTask):
    def weights(self, batch):
        return batch.x.lengths  # tokens count, not texts

out = Path(sys.argv[1])
for name in ("length", "weighed"):
    torch.manual_seed(0)
    model = Words(8)
    model.drop.p = 0.0
    dls = loaders(BATCHINGS["length" if name == "weighed" else name])
    task = (Weighed if name == "weighed" else ClassificationTask)(tuple(dls.vocab))
    options = TrainerOptions(device="cpu", progress=False, optimizer="sgd", accumulate=2 if name == "weighed" else 1)
    trainer = Trainer(model, dls, task, options)
    trainer.fit_one_cycle(2, 0.1)
    if trainer.rank == 0:
        (out / f"{name}.json").write_text(json.dumps([trainer.world, trainer.history[-1]["train_loss"]]))
        save_tensors(trainer.model.state_dict(), out / f"{name}.safetensors")
finish(trainer)
"""


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one_in_uneven_batches(start, ended, tmp_path):
    source = Path(__file__).read_text("utf-8").split("SCRIPT = ")[0]  # what it shares with this file
    for world in (1, 2):
        folder = tmp_path / str(world)
        folder.mkdir()
        (folder / "test_orders.py").write_text(source)
        script = f"import sys; sys.path.insert(0, {str(folder)!r})\n" + SCRIPT
        code, said = ended(start(script, folder, world=world))
        assert code == 0, said[-3000:]
    for name in ("length", "weighed"):
        (one, loss), (two, other) = (json.loads((tmp_path / str(w) / f"{name}.json").read_text()) for w in (1, 2))
        assert (one, two) == (1, 2)
        assert other == pytest.approx(loss, rel=1e-5)
        weights = [load_file(tmp_path / str(w) / f"{name}.safetensors") for w in (1, 2)]
        for key, value in weights[0].items():
            assert torch.allclose(value, weights[1][key], atol=1e-5), (name, key)


def test_a_mean_over_tokens_is_that_of_all_tokens_whatever_the_batches():
    """Accumulated over two uneven batches, the step is that of both as one batch: checked by hand."""

    class Weighed(ClassificationTask):
        def weights(self, batch):
            return batch.x.lengths

    dls = loaders(ByLength())
    torch.manual_seed(0)
    model = Words(8)
    model.drop.p = 0.0
    options = TrainerOptions(device="cpu", progress=False, optimizer="sgd", accumulate=len(dls.train), weight_decay=0.0)
    wanted = Words(8)
    wanted.load_state_dict(model.state_dict())
    wanted.drop.p = 0.0
    total = tokens = 0
    for batch in dls.train.batches(0):
        total = total + (F.cross_entropy(wanted(batch.x), batch.y, reduction="none") * batch.x.lengths).sum()
        tokens += int(batch.x.lengths.sum())
    (total / tokens).backward()
    trainer = Trainer(model, dls, Weighed(tuple(dls.vocab)), options)
    before = {name: value.clone() for name, value in model.named_parameters()}
    trainer.fit(1, 0.1)
    assert trainer.history[-1]["train_loss"] == pytest.approx(float(total.detach()) / tokens, rel=1e-5)
    for name, value in model.named_parameters():
        step = before[name] - value  # SGD with Nesterov momentum 0.9: the first step is 1.9 times the gradient
        gradient = dict(wanted.named_parameters())[name].grad
        torch.testing.assert_close(step, 0.1 * 1.9 * gradient, atol=1e-6, rtol=1e-4)
