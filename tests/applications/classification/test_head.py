"""The head in closed form, against scikit-learn's discriminant analysis."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from applications.classification import (
    DataBlock,
    ImageBlock,
    MultiCategoryBlock,
    TrainerOptions,
    create_model,
    fine_tune_upper,
    fit_head,
    vision_learner,
)
from applications.classification.head import SHRINKAGE, discriminant
from common.data import CategoryBlock, IndexSplitter
from common.errors import ConfigError


def features(count=120, dims=9, classes=4, seed=0):
    numbers = np.random.default_rng(seed)
    y = np.arange(count) % classes
    mixing = numbers.normal(size=(dims, dims))
    x = numbers.normal(size=(classes, dims))[y] * 1.5 + numbers.normal(size=(count, dims)) @ mixing
    return x, y


@pytest.mark.parametrize("solver", ["lsqr", "eigen"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_discriminants_predict_what_scikit_learn_does(solver, seed):
    x, y = features(seed=seed)
    weight, bias = discriminant(torch.tensor(x).float(), torch.tensor(y), 4)
    theirs = LinearDiscriminantAnalysis(solver=solver, shrinkage=SHRINKAGE, priors=[0.25] * 4).fit(x, y)
    probe = np.random.default_rng(9).normal(size=(500, 9)) * 2
    ours = (torch.tensor(probe).float() @ weight.T + bias).argmax(1).numpy()
    assert (ours == theirs.predict(probe)).mean() > 0.99
    assert ((torch.tensor(x).float() @ weight.T + bias).argmax(1).numpy() == y).mean() > 0.5


def test_discriminants_are_the_formula_written_out():
    x, y = features(60, 5, 3)
    weight, bias = discriminant(torch.tensor(x), torch.tensor(y), 3)
    means = np.stack([x[y == k].mean(axis=0) for k in range(3)])
    covariance = sum((row - means[k])[:, None] * (row - means[k])[None] for row, k in zip(x, y, strict=True)) / len(x)
    shrunken = 0.5 * covariance + 0.5 * np.trace(covariance) / 5 * np.eye(5)
    inverse = np.linalg.inv(shrunken)
    scores = np.stack([x @ inverse @ m - 0.5 * m @ inverse @ m for m in means], axis=1)  # equal priors
    ours = (torch.tensor(x).float() @ weight.T + bias).numpy()
    differences = scores - scores[:, :1]
    assert np.allclose(ours - ours[:, :1], differences, atol=1e-3)


def test_a_class_without_samples_is_never_preferred():
    x, y = features(60, 5, 3)
    weight, bias = discriminant(torch.tensor(x), torch.tensor(y), 5)
    assert weight.shape == (5, 5)
    assert torch.isfinite(weight).all()
    chosen = (torch.tensor(x).float() @ weight.T + bias).argmax(1)
    assert set(chosen.tolist()) <= {0, 1, 2}


def test_fewer_samples_than_features_are_enough():
    x, y = features(12, 64, 3)
    weight, bias = discriminant(torch.tensor(x), torch.tensor(y), 3)
    assert torch.isfinite(weight).all()
    assert (torch.tensor(x).float() @ weight.T + bias).argmax(1).tolist() == y.tolist()


@pytest.fixture()
def learner(draw):
    """Makes a learner on 36 small coloured pictures."""

    def make(block=CategoryBlock, arch="small_resnet", smoothing=0.0, hooks=(), **options):
        names = ["blue", "green", "red"]
        labels = [names[i % 3] for i in range(36)]
        pixels = [np.asarray(draw([label], i, (16, 16))) for i, label in enumerate(labels)]
        many = block is MultiCategoryBlock
        data = DataBlock(
            blocks=(ImageBlock, block),
            get_x=pixels.__getitem__,
            get_y=lambda i: [labels[i]] if many else labels[i],
            splitter=IndexSplitter(range(24, 36)),
        )
        dls = data.dataloaders(list(range(36)), bs=8, num_workers=0)
        chosen = TrainerOptions(device="cpu", progress=False, **options)
        trainer = vision_learner(dls, arch, pretrained=False, label_smoothing=smoothing, options=chosen)
        trainer.hooks += list(hooks)
        return trainer

    return make


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_fit_head_gives_the_discriminants_at_the_best_scale(learner, smoothing):
    trainer = learner(smoothing=smoothing)
    found = fit_head(trainer)
    outputs = trainer.get_preds("train")
    loss = float(F.cross_entropy(outputs.output, outputs.target, label_smoothing=smoothing))
    assert found == pytest.approx(loss, rel=1e-4)
    for factor in (0.8, 1.25):  # no other scale of the outputs is better
        assert float(F.cross_entropy(outputs.output * factor, outputs.target, label_smoothing=smoothing)) >= loss - 1e-4
    assert trainer.validate()["accuracy"] == 1.0


def test_fit_head_changes_the_head_alone(learner):
    trainer = learner()
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    fit_head(trainer)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("body"), name


def test_fit_head_of_several_labels_is_refused(learner):
    with pytest.raises(ConfigError, match="fit_head needs a linear head, one label an image"):
        fit_head(learner(MultiCategoryBlock))


def test_fit_head_of_a_convolutional_head_is_refused(learner):
    trainer = learner()
    trainer.model = create_model("squeezenet1_0", 3)
    with pytest.raises(ConfigError, match="fit_head needs a linear head"):
        fit_head(trainer)


def test_fine_tune_upper_keeps_the_lower_half(learner):
    trainer = learner(arch="resnet18", freeze_norm=True)
    lower, upper, _ = trainer.model.layer_groups()
    before = [p.detach().clone() for p in lower], [p.detach().clone() for p in upper]
    fine_tune_upper(trainer, 1)
    assert all(torch.equal(a, b) for a, b in zip(lower, before[0], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(upper, before[1], strict=True) if a.dim() > 1)


def test_fine_tune_upper_of_a_model_of_two_groups_learns(learner):
    trainer = learner()
    fine_tune_upper(trainer, 1)
    assert trainer.validate()["accuracy"] == 1.0


@pytest.mark.parametrize("cut", [1, 2])
def test_a_resumed_fine_tune_upper_is_bit_identical(learner, tmp_path, cut):
    from common.train.hooks import Hook

    class PowerCut(Hook):
        def epoch_start(self, trainer, epoch):
            if epoch == cut:
                raise RuntimeError("power cut")

    def make(name, hooks=()):
        return learner(hooks=hooks, out=tmp_path / name, checkpoint=True)

    whole = make("whole")
    fine_tune_upper(whole, 3)
    with pytest.raises(RuntimeError, match="power cut"):
        fine_tune_upper(make("cut", [PowerCut()]), 3)
    again = make("cut")
    again.resume(tmp_path / "cut" / "checkpoints")
    fine_tune_upper(again, 3)
    state = whole.model.state_dict()
    assert [r["epoch"] for r in again.history] == [r["epoch"] for r in whole.history]
    assert all(torch.equal(value, state[name]) for name, value in again.model.state_dict().items())
