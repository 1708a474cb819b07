"""The Trainer against hand-written loops and known answers."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from common.augment import Augment
from common.data import Batch, DataLoaders, Loader
from common.data.loader import LoaderOptions
from common.errors import ConfigError
from common.train import OneCycle, RegressionTask, Trainer, TrainerOptions
from common.train.hooks import Hook

# ------------------------------------------------------------- the plain loop


class Batches(Loader):
    """Our kind of loader over tensors: its batches have numbers, and some may be missing."""

    left_out = ()

    def __init__(self, x, y):
        self.x, self.y, self.rows, self.options = x, y, torch.arange(len(x)), LoaderOptions(batch_size=16)
        self.device, self.pipeline, self.store = torch.device("cpu"), Nothing(), Nothing()
        self._order = None

    def batches(self, epoch=0, start=0):
        for number, (x, y) in enumerate(zip(self.x.split(16), self.y.split(16), strict=True)):
            if number >= start and number not in self.left_out:
                yield Batch(x, y, number=number)


class Nothing:
    """Stands for a store of items and a pipeline that have nothing to say."""

    items = range(10_000)
    transforms = ()

    @property
    def encoder(self):
        return self

    def spec(self):
        return {}


class Rates(Hook):
    def __init__(self, found):
        self.found = found

    def step_end(self, trainer, step, loss, samples):
        self.found.append(trainer.optimizer.param_groups[0]["lr"])


def plain_loop(model, batches, loss_of, optimizer, clip=None):
    for x, y in batches:
        loss_of(model(x), y).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()


def adamw(model, lr, decay=0.01, fused=True):
    many = [p for p in model.parameters() if p.dim() > 1]
    few = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": many, "weight_decay": decay}, {"params": few, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99), eps=1e-5, fused=fused)


@pytest.mark.parametrize("clip", [None, 0.1])
def test_ten_steps_equal_a_hand_written_loop_bit_for_bit(mlp, blobs, loaders, classes_task, quiet, same, clip):
    x, y = blobs(160)
    trainer = Trainer(mlp(1), loaders(x, y), classes_task, quiet(clip_norm=clip))
    trainer.fit(1, 1e-2)
    model = mlp(1)
    plain_loop(model, zip(x.split(16), y.split(16), strict=True), F.cross_entropy, adamw(model, 1e-2), clip)
    assert trainer.step == 10
    assert same(trainer.model.state_dict(), model.state_dict())
    assert not same(trainer.model.state_dict(), mlp(1).state_dict())


def test_ten_steps_are_near_torchs_unfused_adamw(mlp, blobs, loaders, classes_task, quiet):
    x, y = blobs(160)
    trainer = Trainer(mlp(1), loaders(x, y), classes_task, quiet())
    trainer.fit(1, 1e-2)
    model = mlp(1)
    plain_loop(model, zip(x.split(16), y.split(16), strict=True), F.cross_entropy, adamw(model, 1e-2, fused=False))
    for name, value in model.state_dict().items():
        assert torch.allclose(trainer.model.state_dict()[name], value, atol=1e-6), name


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_ten_steps_of_one_cycle_equal_a_hand_written_loop_bit_for_bit(
    mlp, blobs, loaders, classes_task, quiet, same, kind
):
    x, y = blobs(160)
    trainer = Trainer(mlp(1), loaders(x, y), classes_task, quiet(optimizer=kind, weight_decay=0.0))
    trainer.fit_one_cycle(1, 1e-2)
    model = mlp(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, nesterov=True)
    if kind == "adamw":
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=1.0, betas=(0.9, 0.99), eps=1e-5, weight_decay=0.0, fused=True
        )
    cycle = OneCycle()

    def scheduled():
        for i, batch in enumerate(zip(x.split(16), y.split(16), strict=True)):
            group, momentum = optimizer.param_groups[0], cycle.momentum(i / 9)
            group["lr"] = 1e-2 * cycle.factor(i / 9)
            group |= {"betas": (momentum, 0.99)} if kind == "adamw" else {"momentum": momentum}
            yield batch

    plain_loop(model, scheduled(), F.cross_entropy, optimizer)
    assert trainer.step == 10
    assert same(trainer.model.state_dict(), model.state_dict())


def test_batches_that_a_loader_leaves_out_leave_the_others_as_they_are(mlp, blobs, classes_task, quiet, same):
    """A batch whose every item was bad has no number in the epoch; schedule and groups of gradients go by the numbers."""
    x, y = blobs(160)

    class Gaps(Batches):
        left_out = (3, 8, 9)

    def run(loader):
        trainer = Trainer(mlp(1), DataLoaders(loader), classes_task, quiet(accumulate=2, optimizer="sgd"))
        rates = []
        trainer.hooks.append(Rates(rates))
        trainer.fit_one_cycle(1, 1e-2)
        return trainer, rates

    _, all_rates = run(Batches(x, y))
    gaps, some_rates = run(Gaps(x, y))
    assert gaps.step == 7
    assert some_rates == [rate for number, rate in enumerate(all_rates) if number not in Gaps.left_out]
    model, cycle = mlp(1), OneCycle()
    decay = [{"params": [p for p in model.parameters() if (p.dim() > 1) == many]} for many in (True, False)]
    optimizer = torch.optim.SGD(decay, lr=1.0, momentum=0.9, nesterov=True)
    optimizer.param_groups[0]["weight_decay"] = 0.01
    xs, ys = x.split(16), y.split(16)
    for group in ((0, 1), (2,), (4, 5), (6, 7)):
        for number in group:
            (F.cross_entropy(model(xs[number]), ys[number]) / 2).backward()
        # the step of a group whose last batch is missing is made when the next group comes, before its rates are set
        for settings in optimizer.param_groups:
            settings |= {"lr": 1e-2 * cycle.factor(group[-1] / 9), "momentum": cycle.momentum(group[-1] / 9)}
        optimizer.step()
        optimizer.zero_grad()
    assert same(gaps.model.state_dict(), model.state_dict())


def test_sgd_equals_a_hand_written_loop_bit_for_bit(mlp, blobs, loaders, classes_task, quiet, same):
    x, y = blobs(160)
    trainer = Trainer(mlp(1), loaders(x, y), classes_task, quiet(optimizer="sgd", weight_decay=0.0))
    trainer.fit(1, 1e-2)
    model = mlp(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, nesterov=True)
    plain_loop(model, zip(x.split(16), y.split(16), strict=True), F.cross_entropy, optimizer)
    assert same(trainer.model.state_dict(), model.state_dict())


def test_the_loss_of_an_epoch_is_the_mean_over_samples(mlp, blobs, loaders, classes_task, quiet):
    x, y = blobs(40)
    trainer = Trainer(mlp(), loaders(x, y, bs=16), classes_task, quiet())
    frozen = F.cross_entropy(trainer.model(x), y).detach()
    trainer.fit(1, 1e-12)  # so little that the weights are the same at every step; batches of 16, 16 and 8
    assert trainer.history[0]["train_loss"] == pytest.approx(float(frozen), abs=1e-5)
    assert trainer.history[0]["valid_loss"] == pytest.approx(float(frozen), abs=1e-5)


# ---------------------------------------------------------------- determinism


def test_two_runs_with_one_seed_give_the_same_weights_bit_for_bit(image_trainer, same, timeless):
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        np.random.seed(noise)
        trainer = image_trainer(ema_decay=0.9)
        trainer.fit_one_cycle(2, 1e-2)
        runs.append(trainer)
    assert same(runs[0].model.state_dict(), runs[1].model.state_dict())
    assert timeless(runs[0].history) == timeless(runs[1].history)


def test_another_seed_gives_other_weights(image_trainer, image_loaders, convnet, same):
    runs = []
    for seed in (0, 1):  # one model and one order of the data: the seed of dropout alone differs
        trainer = image_trainer(seed=seed, loaders=image_loaders(), model=convnet(0))
        trainer.fit(1, 1e-2)
        runs.append(trainer.model.state_dict())
    assert not same(*runs)


def test_a_shuffling_torch_loader_is_shuffled_by_the_trainers_seed(mlp, blobs, loaders, classes_task, quiet, same):
    x, y = blobs(64)
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        trainer = Trainer(mlp(), loaders(x, y, shuffle=True), classes_task, quiet())
        trainer.fit(2, 1e-2)
        runs.append(trainer.model.state_dict())
    assert same(*runs)


def test_fit_leaves_the_global_random_state_unchanged(image_trainer):
    trainer = image_trainer()
    torch.manual_seed(11)
    np.random.seed(11)
    random.seed(11)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    trainer.fit_one_cycle(2, 1e-2)
    trainer.find_lr(steps=5)
    trainer.tta(n=2)
    trainer.validate()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]


def test_fit_leaves_the_global_random_state_unchanged_with_torch_loaders(mlp, blobs, loaders, classes_task, quiet):
    trainer = Trainer(mlp(dropout=0.5), loaders(*blobs(), shuffle=True), classes_task, quiet())
    before = torch.get_rng_state()
    trainer.fit(2, 1e-3)
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------- learning


def test_separable_classes_are_learned(mlp, blobs, loaders, classes_task, quiet):
    trainer = Trainer(mlp(), loaders(*blobs(96), valid=blobs(60, seed=9)), classes_task, quiet())
    before = trainer.validate()["accuracy"]
    trainer.fit_one_cycle(8, 2e-2)
    assert before < 0.7
    assert trainer.validate()["accuracy"] > 0.97
    assert trainer.history[-1]["valid_loss"] < trainer.history[0]["valid_loss"]


def test_a_line_is_recovered(quiet):
    x = torch.linspace(-1, 1, 64)[:, None]
    data = DataLoader(TensorDataset(x, 3 * x[:, 0] + 1), batch_size=16)
    trainer = Trainer(nn.Linear(1, 1), DataLoaders(data, data), RegressionTask(), quiet(weight_decay=0.0))
    trainer.fit_one_cycle(40, 0.1)
    assert trainer.model.weight.item() == pytest.approx(3, abs=0.02)
    assert trainer.model.bias.item() == pytest.approx(1, abs=0.02)
    assert trainer.validate()["rmse"] < 0.02


def test_brightness_is_learned_from_augmented_pictures(image_trainer):
    trainer = image_trainer()
    trainer.fit_one_cycle(12, 3e-2)
    assert trainer.validate()["accuracy"] > 0.85


# ------------------------------------------------------------------ wrong use


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_a_number_gives_a_sentence(mlp, blobs, loaders, classes_task, quiet, value):
    x, y = blobs()
    x[20, 1] = value
    trainer = Trainer(mlp(), loaders(x, y), classes_task, quiet())
    with pytest.raises(ConfigError, match=r"the training loss is .* in epoch 0: lower lr, or check the inputs"):
        trainer.fit(1, 1e-3)


def test_an_infinite_loss_gives_a_sentence(quiet, loaders):
    trainer = Trainer(nn.Linear(1, 1), loaders(torch.ones(8, 1), torch.full((8,), 1e30)), RegressionTask(), quiet())
    with pytest.raises(ConfigError, match=r"the training loss is .* in epoch 0"):
        trainer.fit(1, 1e-3)


def test_a_negative_number_of_epochs_is_refused(image_trainer):
    with pytest.raises(ConfigError, match="epochs"):
        image_trainer().fit(-1)


def test_no_frozen_epochs_are_none(image_trainer):
    trainer = image_trainer()
    trainer.fine_tune(1, freeze_epochs=0)
    assert len(trainer.history) == 1


def test_an_empty_loader_gives_a_sentence(mlp, blobs, quiet, classes_task):
    x, y = blobs(8)
    data = DataLoader(TensorDataset(x, y), batch_size=16, drop_last=True)
    with pytest.raises(ConfigError, match="the training loader gave no batch"):
        Trainer(mlp(), DataLoaders(data), classes_task, quiet()).fit(1)


def test_training_without_validation_data_keeps_the_training_loss(mlp, blobs, quiet, classes_task):
    data = DataLoader(TensorDataset(*blobs()), batch_size=16)
    trainer = Trainer(mlp(), DataLoaders(data), classes_task, quiet())
    trainer.fit(1, 1e-3)
    assert "valid_loss" not in trainer.history[0]
    assert trainer.history[0]["train_loss"] > 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device", "gpu"),
        ("precision", "fp64"),
        ("optimizer", "adam"),
        ("accumulate", 0),
        ("weight_decay", -0.1),
        ("clip_norm", 0.0),
        ("ema_decay", 1.0),
        ("ema_decay", 0.0),
        ("early_stop", -1),
        ("checkpoint", True),
        ("tensorboard", True),
    ],
)
def test_an_option_out_of_range_is_named(quiet, name, value):
    with pytest.raises(ConfigError, match=name):
        quiet(**{name: value})


def test_options_are_frozen_and_by_name_only(quiet):
    with pytest.raises(AttributeError):
        quiet().seed = 1
    with pytest.raises(TypeError):
        TrainerOptions(1)


def test_with_options_trains_the_same_model_in_another_way(image_trainer):
    trainer = image_trainer()
    other = trainer.with_options(optimizer="sgd", seed=4)
    assert other.model is trainer.model
    assert (other.options.optimizer, other.options.seed, other.options.device) == ("sgd", 4, "cpu")


def test_augmented_training_sees_other_pictures_each_epoch(image_loaders):
    loader = image_loaders(batch_tfms=[Augment(brightness=0.5, p_lighting=1.0)]).train.with_options(shuffle=False)
    assert not torch.equal(loader.one_batch(0).x, loader.one_batch(1).x)
    assert torch.equal(loader.one_batch(1).x, loader.one_batch(1).x)
