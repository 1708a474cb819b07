"""The Trainer against hand-written loops, slow plain formulas and known answers."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from common.augment import Augment, Mixup
from common.data import DataLoaders
from common.errors import ConfigError
from common.train import RegressionTask, Trainer
from common.train.hooks import Hook
from common.train.optim import layer_groups

# ------------------------------------------------------------- the plain loop


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


# ----------------------------------------------------------------- determinism


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


# ------------------------------------------- accumulation, clipping, averaging


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


# ------------------------------------------------------------------ early stop


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


# ------------------------------------------------------------ freezing, groups


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


# ------------------------------------------------------- precision, compilation


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


# ------------------------------------------------------------------ evaluation


def test_validate_equals_one_pass_by_hand(mlp, blobs, loaders, classes_task, quiet):
    x, y = blobs(50, spread=2.0)
    trainer = Trainer(mlp(), loaders(x, y), classes_task, quiet())
    output = trainer.model(x).detach()
    found = trainer.validate()
    assert found["valid_loss"] == pytest.approx(float(F.cross_entropy(output, y)), abs=1e-6)
    assert found["accuracy"] == float((output.argmax(1) == y).double().mean())


def test_predictions_of_training_pictures_are_in_order_and_not_augmented(image_trainer):
    trainer = image_trainer()
    found = trainer.get_preds("train")
    loader = trainer.dls.train
    assert found.ids.tolist() == loader.rows.tolist()
    whole = loader.with_options(batch_size=100, shuffle=False, drop_last=False, train=False).one_batch()
    trainer.model.eval()
    with torch.no_grad():
        assert torch.allclose(found.output, trainer.model(whole.x), atol=1e-6)
    assert torch.equal(found.target, whole.y)


def test_a_part_that_is_not_there_is_named(image_trainer):
    trainer = image_trainer()
    with pytest.raises(ConfigError, match="no test part"):
        trainer.validate("test")
    with pytest.raises(ConfigError, match="part must be train, valid or test, got 'tets'"):
        trainer.validate("tets")


@pytest.mark.parametrize(("n", "beta"), [(3, 0.25), (1, 0.0), (2, 1.0)])
def test_tta_is_the_mean_by_hand(image_trainer, n, beta):
    trainer = image_trainer()
    trainer.fit(1, 1e-2)
    model, loader = trainer.model.eval(), trainer.dls.valid
    changed = loader.with_options(train=True, shuffle=False)
    with torch.no_grad():
        plain = torch.cat([model(b.x).softmax(1) for b in loader.batches()])
        versions = [torch.cat([model(b.x).softmax(1) for b in changed.batches(epoch)]) for epoch in range(n)]
    found, target = trainer.tta(n=n, beta=beta)
    expected = beta * plain + (1 - beta) * sum(versions) / n
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.equal(target, torch.cat([b.y for b in loader.batches()]))
    assert beta == 1.0 or not torch.allclose(found, plain, atol=1e-6)


def test_tta_does_not_mix_pictures(image_trainer, image_loaders):
    trainer = image_trainer(loaders=image_loaders(batch_tfms=[Mixup(2.0)]))
    trainer.fit(1, 1e-2)
    found, _ = trainer.tta(n=2)
    assert torch.allclose(found, trainer.get_preds().output.softmax(1), atol=1e-6)


def test_tta_without_pictures_is_refused(mlp, blobs, loaders, classes_task, quiet):
    with pytest.raises(ConfigError, match="tta needs a loader that a DataBlock made"):
        Trainer(mlp(), loaders(*blobs()), classes_task, quiet()).tta()


# ---------------------------------------------------------------- the rate test


def test_find_lr_leaves_the_model_bit_identical(image_trainer, state_of, same):
    trainer = image_trainer()
    before = state_of(trainer.model)
    found = trainer.find_lr(steps=30)
    assert same(before, trainer.model.state_dict())
    assert all(p.grad is None and p.requires_grad for p in trainer.model.parameters())
    assert found.rates[0] < found.valley < found.rates[-1]


def test_find_lr_leaves_the_mode_of_every_module(image_trainer):
    trainer = image_trainer()
    trainer.model.eval()
    trainer.find_lr(steps=3)
    assert not any(module.training for module in trainer.model.modules())


def test_find_lr_tries_rates_that_rise_evenly_in_the_logarithm(image_trainer):
    found = image_trainer().find_lr(1e-6, 1e-2, 9)
    assert found.rates == pytest.approx([10 ** (-6 + i / 2) for i in range(9)])
    assert len(found.losses) == 9
    assert found.valley in found.rates


def test_training_after_find_lr_is_the_same_as_without_it(image_trainer, same):
    plain, tried = image_trainer(), image_trainer()
    tried.find_lr(steps=12)
    for trainer in (plain, tried):
        trainer.fit_one_cycle(2, 1e-2)
    assert same(plain.model.state_dict(), tried.model.state_dict())


def test_find_lr_ends_when_the_loss_explodes(mlp, blobs, loaders, classes_task, quiet, state_of, same):
    trainer = Trainer(mlp(), loaders(*blobs()), classes_task, quiet(optimizer="sgd"))
    before = state_of(trainer.model)
    found = trainer.find_lr(1e-3, 1e6, 100)
    assert len(found.rates) < 100
    assert same(before, trainer.model.state_dict())


@pytest.mark.parametrize(
    ("low", "high", "steps", "name"), [(0, 1, 9, "low"), (1, 1e-3, 9, "low"), (1e-3, 1, 1, "steps")]
)
def test_find_lr_refuses_what_is_out_of_range(image_trainer, low, high, steps, name):
    with pytest.raises(ConfigError, match=f"{name} must lie in"):
        image_trainer().find_lr(low, high, steps)


def test_suggested_rates_can_be_drawn(image_trainer, tmp_path):
    image_trainer().find_lr(steps=10).plot(tmp_path / "rates.png")
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")


# ----------------------------------------------------------------- wrong use


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
    from common.train import TrainerOptions

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
