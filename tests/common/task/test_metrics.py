"""Metrics: against scikit-learn, and sums over batches against the whole."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from common.blocks.batch import Batch
from common.errors import ConfigError
from common.task.metrics import (
    Accuracy,
    AccuracyMulti,
    Averaged,
    ErrorRate,
    F1Score,
    F1ScoreMulti,
    Metric,
    RootMeanSquaredError,
    TopKAccuracy,
    accuracy,
    accuracy_multi,
    as_metrics,
    error_rate,
    rmse,
    top_k_accuracy,
)

NUMBERS = torch.Generator().manual_seed(3)
LOGITS = torch.randn(101, 7, generator=NUMBERS)
TARGET = torch.randint(0, 7, (101,), generator=NUMBERS)
MARKS = (torch.rand(101, 7, generator=NUMBERS) < 0.4).float()
CHOSEN = LOGITS.argmax(dim=1).numpy()
YES = (LOGITS.sigmoid() > 0.5).numpy()

SINGLE = [
    (Accuracy(), sk.accuracy_score(TARGET, CHOSEN)),
    (ErrorRate(), sk.zero_one_loss(TARGET, CHOSEN)),
    (F1Score(), sk.f1_score(TARGET, CHOSEN, average="macro")),
    (F1Score("micro"), sk.f1_score(TARGET, CHOSEN, average="micro")),
    *[(TopKAccuracy(k), sk.top_k_accuracy_score(TARGET, LOGITS.numpy(), k=k, labels=range(7))) for k in (1, 2, 5)],
]
MULTI = [
    (AccuracyMulti(), (MARKS.bool().numpy() == YES).mean()),
    (AccuracyMulti(0.2), 1 - sk.hamming_loss(MARKS, (LOGITS.sigmoid() > 0.2).numpy())),
    (AccuracyMulti(0.2, sigmoid=False), 1 - sk.hamming_loss(MARKS, (LOGITS > 0.2).numpy())),
    (F1ScoreMulti(), sk.f1_score(MARKS, YES, average="macro")),
    (F1ScoreMulti(average="micro"), sk.f1_score(MARKS, YES, average="micro")),
    (F1ScoreMulti(0.7, "macro"), sk.f1_score(MARKS, (LOGITS.sigmoid() > 0.7).numpy(), average="macro")),
    (F1ScoreMulti(0.3, "micro", sigmoid=False), sk.f1_score(MARKS, (LOGITS > 0.3).numpy(), average="micro")),
]
CASES = [*((m, TARGET, v) for m, v in SINGLE), *((m, MARKS, v) for m, v in MULTI)]
CASES.append((RootMeanSquaredError(), torch.randn(101, 7, generator=NUMBERS), None))
IDS = [repr(metric) for metric, _, _ in CASES]


@pytest.mark.parametrize(("metric", "target", "expected"), CASES, ids=IDS)
def test_metric_equals_scikit_learn(metric, target, expected):
    expected = sk.root_mean_squared_error(target.ravel(), LOGITS.ravel()) if expected is None else expected
    assert metric(LOGITS, target) == pytest.approx(float(expected), abs=1e-7)


@pytest.mark.parametrize(("metric", "target", "expected"), CASES, ids=IDS)
@pytest.mark.parametrize("size", [1, 10, 64])
def test_sums_over_batches_equal_the_whole(metric, target, expected, size):
    parts = zip(LOGITS.split(size), target.split(size), strict=True)
    sums = torch.stack([metric.measure(output, Batch(x=output, y=y)) for output, y in parts]).sum(dim=0)
    assert sums.dtype == torch.float64
    assert metric.compute(sums) == pytest.approx(metric(LOGITS, target), abs=1e-12)


@pytest.mark.parametrize("average", ["macro", "micro"])
def test_f1_skips_no_class_that_was_predicted_or_true(average):
    output, target = torch.eye(5)[[0, 1, 1, 3]], torch.tensor([0, 1, 0, 1])
    expected = sk.f1_score(target, [0, 1, 1, 3], average=average, zero_division=0.0)
    assert F1Score(average)(output, target) == pytest.approx(expected, abs=1e-12)


def test_f1_of_several_labels_with_an_absent_class_equals_scikit_learn():
    marks, logits = MARKS.clone(), LOGITS.clone()
    marks[:, 2], logits[:, 2] = 0, -9
    yes = (logits.sigmoid() > 0.5).numpy()
    assert F1ScoreMulti()(logits, marks) == pytest.approx(
        sk.f1_score(marks, yes, average="macro", zero_division=0.0), abs=1e-9
    )


def test_top_k_of_fewer_classes_than_k_is_always_right():
    assert TopKAccuracy(5)(torch.randn(8, 3, generator=NUMBERS), torch.zeros(8, dtype=torch.int64)) == 1.0


def test_targets_as_shares_count_as_their_greatest():
    shares = torch.nn.functional.one_hot(TARGET, 7).float() * 0.7 + 0.3 / 7
    for metric, _ in SINGLE:
        assert metric(LOGITS, shares) == metric(LOGITS, TARGET)


def test_ready_made_metrics_are_their_classes():
    assert accuracy(LOGITS, TARGET) == pytest.approx(1 - error_rate(LOGITS, TARGET))
    assert top_k_accuracy == TopKAccuracy(5)
    assert rmse(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])) == pytest.approx(2**0.5)
    assert accuracy_multi(LOGITS, MARKS, thresh=0.2) == AccuracyMulti(0.2)(LOGITS, MARKS)


def test_rmse_takes_outputs_of_one_column_for_flat_targets():
    assert rmse(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 3.0])) == pytest.approx(0.5**0.5)


def test_a_function_is_averaged_weighted_by_batch_size():
    metric = as_metrics(lambda output, target: output.mean())[0]
    parts = [torch.full((1, 2), 10.0), torch.full((9, 2), 0.0)]
    sums = sum(metric.measure(p, Batch(x=p, y=None)) for p in parts)
    assert metric.compute(sums) == pytest.approx(1.0)  # (1 * 10 + 9 * 0) / 10, not (10 + 0) / 2


def test_a_function_of_means_over_batches_equals_the_whole():
    metric = Averaged(lambda output, target: (output.argmax(1) == target).float().mean(), "mine")
    parts = zip(LOGITS.split(32), TARGET.split(32), strict=True)
    sums = sum(metric.measure(o, Batch(x=o, y=y)) for o, y in parts)
    assert metric.compute(sums) == pytest.approx(accuracy(LOGITS, TARGET), abs=1e-6)


def test_metrics_are_made_of_metrics_classes_and_functions():
    def mine(output, target):
        return 0.0

    found = as_metrics([error_rate, F1Score, mine, partial(accuracy_multi, thresh=0.2)])
    assert [m.name for m in found] == ["error_rate", "f1", "mine", "accuracy_multi"]
    assert all(isinstance(m, Metric) for m in found)
    assert as_metrics(None) == ()
    assert as_metrics(accuracy) == (accuracy,)


@pytest.mark.parametrize("wrong", ["accuracy", 3, [None]])
def test_what_cannot_be_a_metric_is_refused(wrong):
    with pytest.raises(ConfigError, match="metrics must be"):
        as_metrics(wrong)


@pytest.mark.parametrize("cls", [F1Score, F1ScoreMulti])
def test_a_misspelt_average_answers_with_the_near_one(cls):
    with pytest.raises(ConfigError, match="did you mean 'macro'"):
        cls(average="makro")


@pytest.mark.parametrize(("metric", "target", "expected"), CASES, ids=IDS)
def test_nothing_is_kept_between_calls(metric, target, expected):
    first = metric(LOGITS, target)
    metric(-LOGITS, target)
    assert metric(LOGITS, target) == first
    assert np.isfinite(first)
