"""The classification task, its report and the confusion matrix, against torch and scikit-learn."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics as sk

from applications.classification import ClassificationTask
from common.blocks.batch import Batch
from common.data import CategoryBlock, MultiCategoryBlock
from common.errors import ConfigError
from common.spec import from_spec
from common.task.classification import confusion
from common.task.task import Outputs

NUMBERS = torch.Generator().manual_seed(0)
VOCAB = ("ant", "bee", "cat", "dog")
LOGITS = torch.randn(50, 4, generator=NUMBERS)
TARGET = torch.randint(0, 4, (50,), generator=NUMBERS)
MARKS = (torch.rand(50, 4, generator=NUMBERS) < 0.4).float()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_of_one_label_is_torchs_cross_entropy(smoothing):
    task = ClassificationTask(VOCAB, label_smoothing=smoothing)
    batch = Batch(x=LOGITS, y=TARGET)
    assert task.loss(LOGITS, batch).item() == pytest.approx(
        F.cross_entropy(LOGITS, TARGET, label_smoothing=smoothing).item()
    )
    assert torch.allclose(task.losses(LOGITS, batch), F.cross_entropy(LOGITS, TARGET, reduction="none"))


def test_the_loss_of_mixed_labels_is_torchs_cross_entropy_of_shares():
    shares = torch.softmax(torch.randn(50, 4, generator=NUMBERS), dim=1)
    found = ClassificationTask(VOCAB).loss(LOGITS, Batch(x=LOGITS, y=shares))
    assert found.item() == pytest.approx((-(shares * LOGITS.log_softmax(1)).sum(1).mean()).item(), rel=1e-5)


def test_the_loss_of_several_labels_is_torchs_binary_cross_entropy():
    task, batch = ClassificationTask(VOCAB, multi_label=True), Batch(x=LOGITS, y=MARKS)
    assert task.loss(LOGITS, batch).item() == pytest.approx(F.binary_cross_entropy_with_logits(LOGITS, MARKS).item())
    assert task.losses(LOGITS, batch).shape == (50,)


def test_smoothing_of_several_labels_draws_towards_one_half():
    task = ClassificationTask(VOCAB, multi_label=True, label_smoothing=0.2)
    expected = F.binary_cross_entropy_with_logits(LOGITS, MARKS * 0.8 + 0.1)
    assert task.loss(LOGITS, Batch(x=LOGITS, y=MARKS)).item() == pytest.approx(expected.item())


def test_the_report_of_one_label_is_scikit_learns():
    found = ClassificationTask(VOCAB, label_smoothing=0.1).report(Outputs(LOGITS, TARGET))
    chosen, probabilities = LOGITS.argmax(1), LOGITS.double().softmax(1)
    probabilities = probabilities / probabilities.sum(1, keepdim=True)
    assert found["accuracy"] == sk.accuracy_score(TARGET, chosen)
    assert found["error_rate"] == pytest.approx(1 - sk.accuracy_score(TARGET, chosen))
    assert found["f1"] == pytest.approx(sk.f1_score(TARGET, chosen, average="macro"))
    assert found["loss"] == pytest.approx(sk.log_loss(TARGET, probabilities, labels=range(4)), rel=1e-5)
    assert found["auc"] == pytest.approx(sk.roc_auc_score(TARGET, probabilities, multi_class="ovr"), rel=1e-6)


def test_the_report_of_several_labels_is_scikit_learns():
    found = ClassificationTask(VOCAB, multi_label=True, threshold=0.4).report(Outputs(LOGITS, MARKS))
    probabilities = LOGITS.sigmoid()
    chosen = (probabilities > 0.4).numpy()
    assert found["accuracy"] == pytest.approx(1 - sk.hamming_loss(MARKS, chosen))
    assert found["f1"] == pytest.approx(sk.f1_score(MARKS, chosen, average="macro"))
    assert found["f1_micro"] == pytest.approx(sk.f1_score(MARKS, chosen, average="micro"))
    assert found["loss"] == pytest.approx(F.binary_cross_entropy_with_logits(LOGITS, MARKS).item(), rel=1e-5)
    assert found["auc"] == pytest.approx(sk.roc_auc_score(MARKS, probabilities, average="macro"), rel=1e-6)


def test_the_f1_while_training_is_the_f1_of_the_report():
    task = ClassificationTask(VOCAB, multi_label=True)
    marks, logits = MARKS.clone(), LOGITS.clone()
    marks[:, 2], logits[:, 2] = 0, -9  # a class that neither occurs nor is predicted
    for m, o in ((MARKS, LOGITS), (marks, logits)):
        assert task.metrics()[0](o, m) == pytest.approx(task.report(Outputs(o, m))["f1"], abs=1e-9)


def test_the_auc_of_two_classes_is_scikit_learns():
    logits, target = LOGITS[:, :2], TARGET % 2
    found = ClassificationTask(("no", "yes")).report(Outputs(logits, target))
    assert found["auc"] == pytest.approx(sk.roc_auc_score(target, logits.softmax(1)[:, 1]), rel=1e-6)


def test_where_a_class_is_missing_there_is_no_auc():
    found = ClassificationTask(VOCAB).report(Outputs(LOGITS, TARGET.clamp(max=2)))
    assert "auc" not in found
    json.dumps(found, allow_nan=False)


def test_every_number_of_a_report_is_a_float():
    for task, target in ((ClassificationTask(VOCAB), TARGET), (ClassificationTask(VOCAB, True), MARKS)):
        assert all(type(value) is float for value in task.report(Outputs(LOGITS, target)).values())


def test_records_are_json_and_sum_to_one():
    for row, record in zip(LOGITS, ClassificationTask(VOCAB).decode(LOGITS), strict=True):
        assert json.loads(json.dumps(record)) == record
        assert list(record["probabilities"]) == list(VOCAB)
        assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-6)
        assert record["label"] == VOCAB[int(row.argmax())]


def test_several_labels_are_those_above_the_threshold():
    task = ClassificationTask(VOCAB, multi_label=True, threshold=0.7)
    logits = torch.tensor([[2.0, 0.5, -3.0, 1.0], [-1.0, -1.0, -1.0, -1.0]])
    records = task.decode(logits)
    assert [r["labels"] for r in records] == [["ant", "dog"], []]
    assert records[0]["probabilities"]["bee"] == pytest.approx(torch.tensor(0.5).sigmoid().item())


def test_captions_say_whether_the_prediction_is_right():
    task, block = ClassificationTask(VOCAB), CategoryBlock(VOCAB)
    record = task.decode(torch.tensor([[0.0, 9.0, 0.0, 0.0]]))[0]
    assert task.caption(record, block, torch.tensor(1)) == ("bee / bee 1.00", True)
    assert task.caption(record, block, torch.tensor(0)) == ("ant / bee 1.00", False)
    many, marks = ClassificationTask(VOCAB, True), torch.tensor([1.0, 0.0, 0.0, 1.0])
    record = many.decode(torch.tensor([[5.0, -5.0, -5.0, 5.0]]))[0]
    assert many.caption(record, MultiCategoryBlock(VOCAB), marks) == ("ant; dog / ant; dog", True)


def test_confusion_by_hand():
    output = torch.eye(3)[[0, 1, 1, 2, 0, 0]]
    target = torch.tensor([0, 1, 2, 2, 1, 0])
    assert confusion(output, target, 3).tolist() == [[2, 0, 0], [1, 1, 0], [0, 1, 1]]


def test_confusion_equals_scikit_learns():
    assert (
        confusion(LOGITS, TARGET, 4).numpy() == sk.confusion_matrix(TARGET, LOGITS.argmax(1), labels=range(4))
    ).all()


def test_a_task_roundtrips_through_its_spec():
    task = ClassificationTask(VOCAB, True, 0.1, 0.3)
    assert from_spec("task", json.loads(json.dumps(task.spec())), "task") == task


@pytest.mark.parametrize(("options", "name"), [
    ({"vocab": ()}, "vocab"),
    ({"vocab": VOCAB, "label_smoothing": 1.0}, "label_smoothing"),
    ({"vocab": VOCAB, "label_smoothing": -0.1}, "label_smoothing"),
    ({"vocab": VOCAB, "threshold": 1.5}, "threshold"),
    ({"vocab": VOCAB, "threshold": float("nan")}, "threshold"),
])  # fmt: skip
def test_an_option_out_of_range_is_named(options, name):
    with pytest.raises(ConfigError, match=name):
        ClassificationTask(**options)


def test_the_report_does_not_change_with_the_order():
    order = torch.from_numpy(np.random.default_rng(0).permutation(50))
    task = ClassificationTask(VOCAB)
    assert task.report(Outputs(LOGITS[order], TARGET[order])) == pytest.approx(task.report(Outputs(LOGITS, TARGET)))
