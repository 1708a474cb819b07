"""The classification task: one label per sample, or several; for images, sounds, texts and rows alike.

Floor: task; may import data and below. Used by: train, applications.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.blocks.batch import Batch
from common.blocks.block import Block
from common.blocks.sample import SampleEncoder
from common.errors import ConfigError, in_range
from common.registry import register
from common.task.metrics import F1ScoreMulti, Metric, accuracy, as_metrics, error_rate, hard_target
from common.task.record_view import MOST_BARS, RecordView
from common.task.task import Outputs, Record, Task

_NOTHING: Any = 0  # the score of a class that neither occurs nor is predicted


@register("task", "classification")
@dataclass(frozen=True)
class ClassificationTask(Task):
    """Classification by logits (B, classes), before softmax (one label) or sigmoid (several).

    Training also takes the logits of several networks at once, (B, k, classes): a sample's loss is the mean over them.

    Args:
        vocab: The classes, in order.
        multi_label: Whether a sample may have several labels, or none.
        label_smoothing: Share of the target that is spread over all classes in training, in [0, 1).
        threshold: With ``multi_label``: the probability above which a label is predicted.
        least: With one label: the probability that it must have; else the record's label is None.

    Examples:
        >>> task = ClassificationTask(("cat", "dog"))
        >>> task.decode(torch.tensor([[0.0, 2.0]]))[0]["label"]
        'dog'
    """

    vocab: tuple[str, ...]
    multi_label: bool = False
    label_smoothing: float = 0.0
    threshold: float = 0.5
    least: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "vocab", tuple(self.vocab))
        in_range("label_smoothing", self.label_smoothing, 0, 1, open_high=True)
        in_range("threshold", self.threshold, 0, 1)
        in_range("least", self.least, 0, 1)
        if not self.vocab:
            raise ConfigError("vocab must name at least one class")
        if len(self.vocab) < 2 and not self.multi_label:
            raise ConfigError(f"there is only one class ({''.join(self.vocab)}): a classifier needs at least two")

    def _losses(self, logits: Tensor, batch: Batch, smoothing: float) -> Tensor:
        if logits.dim() < 3:
            return self._each(logits, batch.y, smoothing)
        count, networks = logits.shape[:2]
        target: Tensor = batch.y
        target = target[:, None].expand(count, networks, *target.shape[1:]).flatten(0, 1)
        return self._each(logits.flatten(0, 1), target, smoothing).reshape(count, networks).mean(dim=1)

    def _each(self, logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
        if self.multi_label:
            target = target * (1 - smoothing) + smoothing / 2  # smoothed towards 1/2: each label has two outcomes
            return F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=1)
        return F.cross_entropy(logits, target, reduction="none", label_smoothing=smoothing)

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        return self._losses(output, batch, 0.0)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return self.mean(self._losses(output, batch, self.label_smoothing), batch)

    def metrics(self) -> tuple[Metric, ...]:
        return as_metrics(F1ScoreMulti(self.threshold)) if self.multi_label else as_metrics([accuracy, error_rate])

    def activation(self, output: Tensor) -> Tensor:
        return output.sigmoid() if self.multi_label else output.softmax(dim=1)

    def decode(self, output: Tensor) -> list[Record]:
        records: list[Record] = []
        for row in self.activation(output).double().tolist():
            probabilities = dict(zip(self.vocab, row, strict=True))
            if self.multi_label:
                labels = [name for name, p in probabilities.items() if p > self.threshold]
                records.append({"labels": labels, "probabilities": probabilities})
            else:
                label = max(probabilities, key=probabilities.__getitem__)
                sure = probabilities[label] >= self.least
                records.append({"label": label if sure else None, "probabilities": probabilities})
        return records

    def report(self, outputs: Outputs) -> dict[str, float]:
        from sklearn import metrics as sk

        output, target = outputs.output, outputs.target
        probabilities = self.activation(output).double()
        loss = float(self.losses(output, Batch(x=output, y=target)).double().mean())
        if self.multi_label:
            chosen, truth = (probabilities > self.threshold).numpy(), (target > 0.5).numpy()
            scores = {
                "accuracy": float((chosen == truth).mean()),
                "f1": float(sk.f1_score(truth, chosen, average="macro", zero_division=_NOTHING)),
                "f1_micro": float(sk.f1_score(truth, chosen, average="micro", zero_division=_NOTHING)),
                "loss": loss,
            }
        else:
            truth, chosen = hard_target(target).numpy(), probabilities.argmax(dim=1).numpy()
            right = float(sk.accuracy_score(truth, chosen))
            # Classes that neither occur nor are predicted would enter the macro mean as 0.
            classes = sorted({*truth.tolist(), *chosen.tolist()})
            f1 = float(sk.f1_score(truth, chosen, labels=classes, average="macro", zero_division=_NOTHING))
            scores = {"accuracy": right, "error_rate": 1 - right, "f1": f1, "loss": loss}
        auc = self._auc(probabilities, target)
        return scores if auc is None else {**scores, "auc": auc}

    def _auc(self, probabilities: Tensor, target: Tensor) -> float | None:
        """One-vs-rest ROC AUC, the mean over classes; None where a class has only positives or only negatives."""
        from sklearn.metrics import roc_auc_score

        truth = target > 0.5 if self.multi_label else F.one_hot(hard_target(target), len(self.vocab)).bool()
        if len(self.vocab) == 2 and not self.multi_label:
            truth, probabilities = truth[:, 1:], probabilities[:, 1:]
        if not bool((truth.any(dim=0) & (~truth).any(dim=0)).all()):
            return None
        return float(roc_auc_score(truth.numpy(), probabilities.numpy(), average="macro"))

    def verify(self, encoder: SampleEncoder, model: dict[str, Any]) -> None:
        vocab = getattr(encoder.y_blocks[0], "vocab", None) if encoder.y_blocks else None
        if vocab != self.vocab:
            raise ConfigError("the classes of the task and those of the target block disagree")
        classes = model.get("classes")
        if isinstance(classes, int) and classes > 0 and classes != len(self.vocab):
            raise ConfigError(f"the model has {classes} classes, the task {len(self.vocab)}")

    def brief(self, record: Record) -> str:
        probabilities = record["probabilities"]
        if self.multi_label:
            return ", ".join(f"{name} {probabilities[name]:.3f}" for name in record["labels"]) or "(none)"
        if record["label"] is None:
            likeliest = max(probabilities, key=probabilities.__getitem__)
            return f"(unsure: {likeliest} {probabilities[likeliest]:.3f})"
        return f"{record['label']} {probabilities[record['label']]:.3f}"

    def with_threshold(self, threshold: float) -> "ClassificationTask":
        return replace(self, threshold=threshold) if self.multi_label else replace(self, least=threshold)

    def view(self, record: Record) -> dict[str, Any]:
        """Returns the probabilities of the likeliest classes as bars; with several labels, of every predicted one."""
        ranked = sorted(record["probabilities"].items(), key=lambda pair: -pair[1])
        most = max(MOST_BARS, len(record["labels"]) if self.multi_label else 1)
        return RecordView(title=self.brief(record), bars=tuple(ranked[:most])).plain()

    def caption(self, record: Record, block: Block, target: Any) -> tuple[str, bool]:
        truth = block.decode(target)
        if self.multi_label:
            return f"{'; '.join(truth)} / {'; '.join(record['labels'])}", truth == record["labels"]
        label = record["label"]
        said = self.brief(record) if label is None else f"{label} {record['probabilities'][label]:.2f}"
        return f"{truth} / {said}", truth == label


def confusion(output: Tensor, target: Tensor, classes: int) -> Tensor:
    """Returns counts, int64 (classes, classes): rows are true classes, columns predictions.

    Examples:
        >>> confusion(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 1]), 2).tolist()
        [[0, 0], [1, 1]]
    """
    pairs = hard_target(target) * classes + output.argmax(dim=1)
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
