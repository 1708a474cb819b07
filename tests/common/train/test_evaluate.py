"""Validation, predictions, test-time augmentation and the test of learning rates."""

import pytest
import torch
import torch.nn.functional as F

from common.augment import Mixup
from common.errors import ConfigError
from common.train import Trainer

# ----------------------------------------------------------------- evaluation


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


# -------------------------------------------------------------- the rate test


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
