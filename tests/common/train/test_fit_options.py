"""Accumulation, clipping, averaging, early stop, freezing, rates and precision against slow plain formulas."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from common.data import DataLoaders
from common.errors import ConfigError
from common.train import RegressionTask, Trainer
from common.train.backend import fast_precision
from common.train.hooks import Hook
from common.train.optim import layer_groups

# ------------------------------------------ accumulation, clipping, averaging


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_accumulating_two_batches_equals_one_of_double_size(mlp, blobs, loaders, classes_task, quiet, optimizer):
    x, y = blobs(160)
    small = Trainer(mlp(), loaders(x, y, bs=16), classes_task, quiet(accumulate=2, optimizer=optimizer))
    large = Trainer(mlp(), loaders(x, y, bs=32), classes_task, quiet(optimizer=optimizer))
    small.fit(2, 1e-2)
    large.fit(2, 1e-2)
    for name, value in large.model.state_dict().items():
        assert torch.allclose(small.model.state_dict()[name], value, atol=1e-5), name


def test_the_last_batches_are_used_when_accumulation_does_not_divide_them(mlp, blobs, loaders, classes_task, quiet):
    class Count(Hook):
        changes = 0
        last = None

        def step_end(self, trainer, step, loss, samples):
            now = [p.detach().clone() for p in trainer.model.parameters()]
            self.changes += self.last is not None and any(
                not torch.equal(a, b) for a, b in zip(now, self.last, strict=True)
            )
            self.last = now

    count = Count()
    trainer = Trainer(mlp(), loaders(*blobs(80), bs=16), classes_task, quiet(accumulate=2), hooks=[count])
    trainer.fit(1, 1e-2)
    assert count.changes == 3  # five batches: after the second, the fourth and the fifth


@pytest.mark.parametrize("limit", [1e-3, 1e-2])
def test_clipping_bounds_the_step_exactly(mlp, blobs, loaders, classes_task, quiet, limit):
    x, y = blobs(16)

    def moved(clip):
        options = quiet(optimizer="sgd", weight_decay=0.0, clip_norm=clip)
        trainer = Trainer(mlp(), loaders(x, y), classes_task, options)
        before = torch.cat([p.detach().ravel().clone() for p in trainer.model.parameters()])
        trainer.fit(1, 0.1)
        return float((torch.cat([p.detach().ravel() for p in trainer.model.parameters()]) - before).norm())

    # the first step of Nesterov momentum is rate * (1 + momentum) * gradient
    assert moved(limit) == pytest.approx(0.1 * 1.9 * limit, rel=1e-3)
    assert moved(None) > 0.1 * 1.9 * limit * 5
    assert moved(1e6) == pytest.approx(moved(None), rel=1e-6)


def test_average_of_the_weights_equals_a_slow_plain_formula(convnet, image_trainer, snapshots):
    trainer = image_trainer(hooks=[snapshots], ema_decay=0.7)
    average = {name: value.double() for name, value in convnet(0).state_dict().items()}
    trainer.fit(2, 1e-2)
    for t, state in enumerate(snapshots.steps, start=1):
        decay = min(0.7, (1 + t) / (10 + t))
        for name, value in state.items():
            counted = not value.is_floating_point()
            average[name] = value.double() if counted else decay * average[name] + (1 - decay) * value.double()
    assert len(snapshots.steps) == 2 * 4  # 36 training pictures in batches of 8, the last smaller one left out
    for name, value in trainer.model.state_dict().items():
        assert torch.allclose(value.double(), average[name], atol=1e-5), name
    raw = snapshots.steps[-1]
    assert not all(torch.equal(raw[name], value) for name, value in trainer.model.state_dict().items())


def test_the_average_is_what_is_evaluated(image_trainer):
    trainer = image_trainer(ema_decay=0.9)
    trainer.fit(2, 1e-2)
    assert trainer.validate()["valid_loss"] == pytest.approx(trainer.history[-1]["valid_loss"], abs=1e-6)


# ----------------------------------------------------------------- early stop


@pytest.mark.parametrize("patience", [0, 2])
@pytest.mark.parametrize("ema", [None, 0.5])
def test_early_stop_stops_and_restores_the_best_weights(quiet, snapshots, patience, ema):
    x = torch.ones(8, 1)
    train = DataLoader(TensorDataset(x, torch.full((8,), 10.0)), batch_size=8)  # pulls the weight towards 10 …
    valid = DataLoader(TensorDataset(x, torch.full((8,), 3.0)), batch_size=8)  # … past 3, where it is judged best
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    options = quiet(early_stop=patience, ema_decay=ema, weight_decay=0.0)
    trainer = Trainer(model, DataLoaders(train, valid), RegressionTask(), options, hooks=[snapshots])
    trainer.fit(60, 0.2)
    losses = [record["valid_loss"] for record in trainer.history]
    best = int(np.argmin(losses))
    assert 0 < best < 40
    assert len(losses) == best + 1 + patience + 1
    assert trainer.validate()["valid_loss"] == pytest.approx(losses[best], rel=1e-5)
    if ema is None:
        assert torch.equal(model.weight, snapshots.epochs[best]["weight"])


def test_a_fit_after_an_early_stop_trains_again(quiet, blobs, loaders, mlp, classes_task):
    trainer = Trainer(mlp(), loaders(*blobs()), classes_task, quiet(early_stop=0))
    trainer.fit(3, 100.0)
    stopped = len(trainer.history)
    trainer.fit(2, 1e-4)
    assert stopped < 3
    assert len(trainer.history) > stopped


def test_early_stop_keeps_the_last_weights_where_they_are_the_best(quiet, blobs, loaders, mlp, classes_task, same):
    runs = []
    for stop in (None, 5):
        trainer = Trainer(mlp(), loaders(*blobs()), classes_task, quiet(early_stop=stop))
        trainer.fit(3, 1e-3)
        runs.append(trainer.model.state_dict())
    assert same(*runs)


# ----------------------------------------------------------- freezing, groups


def test_freeze_leaves_frozen_weights_and_running_statistics_untouched(image_trainer, state_of):
    trainer = image_trainer()
    before = state_of(trainer.model)
    trainer.freeze()
    trainer.fit(2, 1e-2)
    after = trainer.model.state_dict()
    for name in before:
        assert torch.equal(before[name], after[name]) == name.startswith("body"), name


def test_freeze_to_a_group_frees_it_and_those_after_it(image_trainer, state_of):
    trainer = image_trainer()
    before = state_of(trainer.model)
    trainer.freeze_to(1)
    trainer.fit(1, 1e-2)
    after = trainer.model.state_dict()
    for name in before:
        lowest = name.startswith(("body.0", "body.1"))
        assert torch.equal(before[name], after[name]) == lowest, name


def test_unfreeze_lets_everything_learn(image_trainer, state_of):
    trainer = image_trainer()
    trainer.freeze()
    trainer.unfreeze()
    before = state_of(trainer.model)
    trainer.fit(1, 1e-2)
    assert not any(torch.equal(before[name], value) for name, value in trainer.model.state_dict().items())


def test_freeze_norm_keeps_running_statistics_but_not_weights(image_trainer, state_of):
    trainer = image_trainer(freeze_norm=True)
    before = state_of(trainer.model)
    trainer.fit(1, 1e-2)
    after = trainer.model.state_dict()
    for name in before:
        statistic = "running" in name or "tracked" in name
        assert torch.equal(before[name], after[name]) == statistic, name


def test_training_with_everything_frozen_is_refused(image_trainer):
    trainer = image_trainer()
    for parameter in trainer.model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ConfigError, match="every layer group is frozen"):
        trainer.fit(1)


def rates_of(groups, model):
    """The peak rate that each parameter of a model got, by its name."""
    found = {id(p): g["peak"] for g in groups for p in g["params"]}
    return {name: found.get(id(p)) for name, p in model.named_parameters()}


def test_discriminative_rates_reach_the_layer_groups(image_trainer, snapshots):
    trainer = image_trainer(hooks=[snapshots])
    trainer.fit(1, slice(1e-4, 1e-2))
    for name, rate in rates_of(snapshots.groups[0], trainer.model).items():
        wanted = 1e-2 if name.startswith("head") else 1e-4 if name.startswith(("body.0", "body.1")) else 1e-3
        assert rate == pytest.approx(wanted), name
    assert {round(r, 9) for r in snapshots.rates[-1]} == {1e-4, 1e-3, 1e-2}


def test_fine_tune_is_the_books_two_phases(image_trainer, snapshots):
    trainer = image_trainer(hooks=[snapshots])
    trainer.fine_tune(2, base_lr=4e-3, freeze_epochs=1, lr_mult=100)
    frozen, free = (rates_of(groups, trainer.model) for groups in snapshots.groups)
    assert {name for name, rate in frozen.items() if rate is not None} == {"head.1.weight", "head.1.bias"}
    assert frozen["head.1.weight"] == pytest.approx(4e-3)
    assert free["head.1.weight"] == pytest.approx(2e-3)
    assert free["body.3.weight"] == pytest.approx(2e-4)
    assert free["body.0.weight"] == pytest.approx(2e-5)
    assert len(trainer.history) == 3


def test_the_schedule_reaches_every_step(image_trainer, snapshots):
    from common.train.schedule import OneCycle

    trainer = image_trainer(hooks=[snapshots])
    trainer.fit_one_cycle(2, 1e-2, div=10, pct_start=0.5)
    cycle = OneCycle(div=10, pct_start=0.5)
    expected = [1e-2 * cycle.factor(i / 7) for i in range(8)]
    assert [rates[-1] for rates in snapshots.rates] == pytest.approx(expected)


def test_weights_decay_but_biases_and_norms_do_not(image_trainer, snapshots):
    trainer = image_trainer(hooks=[snapshots], weight_decay=0.3)
    trainer.fit(1)
    groups = snapshots.groups[0]
    for group in groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.3 if parameter.dim() > 1 else 0.0)
    assert sum(len(g["params"]) for g in groups) == len(list(trainer.model.parameters()))


def test_a_model_without_groups_is_one_group(mlp):
    model = mlp()
    assert layer_groups(model) == [list(model.parameters())]


# ----------------------------------------------------- precision, compilation


def test_bf16_learns_on_the_cpu_and_leaves_float32_weights(mlp, blobs, loaders, classes_task, quiet):
    trainer = Trainer(mlp(), loaders(*blobs()), classes_task, quiet(precision="bf16"))
    trainer.fit_one_cycle(8, 2e-2)
    assert trainer.validate()["accuracy"] > 0.95
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    assert trainer.get_preds().output.dtype == torch.float32


def test_bf16_computes_in_bf16(mlp, blobs, loaders, classes_task, quiet, same):
    runs = []
    for precision in ("no", "bf16"):
        trainer = Trainer(mlp(), loaders(*blobs()), classes_task, quiet(precision=precision))
        trainer.fit(1, 1e-2)
        runs.append(trainer.model.state_dict())
    assert not same(*runs)
    assert torch.allclose(runs[0]["0.weight"], runs[1]["0.weight"], atol=0.02)


@pytest.mark.parametrize("there", [True, False])
def test_bf16_on_a_cpu_without_instructions_for_it_warns(there, mlp, blobs, loaders, classes_task, quiet, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": there})
    assert fast_precision(torch.device("cpu")) == ("bf16" if there else "no")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Trainer(mlp(), loaders(*blobs()), classes_task, quiet(precision="bf16"))
    assert [str(one.message).split(":")[0] for one in caught] == [] if there else ["precision='bf16'"]


def test_fp16_on_the_cpu_is_refused_with_the_remedy(mlp, blobs, loaders, classes_task, quiet):
    with pytest.raises(ConfigError, match="precision='fp16' needs a GPU.*use 'bf16' or 'no'"):
        Trainer(mlp(), loaders(*blobs()), classes_task, quiet(precision="fp16"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_a_gpu_that_is_not_there_is_refused_with_the_remedy(mlp, blobs, loaders, classes_task, quiet):
    with pytest.raises(ConfigError, match="device='cuda', but torch sees no CUDA GPU.*'cpu'"):
        Trainer(mlp(), loaders(*blobs()), classes_task, quiet(device="cuda"))


def test_trainers_of_different_precision_follow_one_another(mlp, blobs, loaders, classes_task, quiet, same):
    def run(precision):
        trainer = Trainer(mlp(), loaders(*blobs()), classes_task, quiet(precision=precision))
        trainer.fit(1, 1e-2)
        return trainer.model.state_dict()

    first, half, again, half_again = (run(p) for p in ("no", "bf16", "no", "bf16"))
    assert same(first, again)
    assert same(half, half_again)
    assert not same(first, half)


def test_two_trainers_of_different_precision_live_side_by_side(mlp, blobs, loaders, classes_task, quiet, same):
    alone = {}
    for precision in ("no", "bf16"):
        trainer = Trainer(mlp(), loaders(*blobs()), classes_task, quiet(precision=precision))
        trainer.fit(2, 1e-2)
        alone[precision] = trainer.model.state_dict()
    pair = {p: Trainer(mlp(), loaders(*blobs()), classes_task, quiet(precision=p)) for p in ("no", "bf16")}
    for trainer in pair.values():  # both were made before either is trained
        trainer.fit(2, 1e-2)
    for precision, trainer in pair.items():
        assert same(trainer.model.state_dict(), alone[precision]), precision


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's compiler warns about itself
def test_a_compiled_model_learns_the_same_weights(mlp, blobs, loaders, classes_task, quiet):
    runs = []
    for compiled in (False, True):
        trainer = Trainer(mlp(), loaders(*blobs()), classes_task, quiet(compile=compiled))
        trainer.fit(2, 1e-2)
        runs.append(trainer)
    plain, fast = (run.model.state_dict() for run in runs)
    assert plain.keys() == fast.keys()
    for name in plain:
        assert torch.allclose(plain[name], fast[name], atol=1e-4), name
    assert type(runs[1].model) is type(runs[0].model)
    assert runs[1].validate()["accuracy"] == pytest.approx(runs[0].validate()["accuracy"], abs=0.02)
