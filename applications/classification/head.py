"""A linear head fitted in closed form: linear discriminants on the frozen body's features of the training images."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import ConfigError
from common.task.evaluate import batches_of
from common.task.metrics import hard_target
from common.train import ClassificationTask, optim
from common.train.trainer import Trainer

SHRINKAGE = 0.5  # towards a multiple of the identity: with fewer images than features the covariance is singular


def discriminant(features: Tensor, target: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Returns weight (classes, D) and bias (classes,) of the linear discriminants of features (N, D).

    Linear discriminant analysis with a shrunken pooled covariance and equal priors (Friedman 1989, "Regularized
    discriminant analysis"); a class without samples gets a score below all others.

    Examples:
        >>> x = torch.tensor([[0.0, 0.0], [0.1, 0.0], [1.0, 1.0], [1.1, 1.0]])
        >>> weight, bias = discriminant(x, torch.tensor([0, 0, 1, 1]), 2)
        >>> (x @ weight.T + bias).argmax(1).tolist()
        [0, 0, 1, 1]
    """
    x = features.double()
    members = F.one_hot(target, classes).to(torch.float64)
    counts = members.sum(dim=0)
    means = (members.T @ x) / counts.clamp(min=1)[:, None]
    centre = x.mean(dim=0)
    spread = x - means[target]
    covariance = spread.T @ spread / len(x)
    level = covariance.diagonal().mean().clamp(min=1e-12)
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * level * torch.eye(x.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(covariance, (means - centre).T).T
    bias = -0.5 * (weight * (means + centre)).sum(dim=1)
    present = counts > 0
    scores = (x @ weight.T + bias)[:, present]
    weight[~present] = 0
    bias[~present] = scores.min() - (scores.max() - scores.min()) - 1  # below every other class
    return weight.float(), bias.float()


def fit_head(trainer: Trainer) -> float:
    """Fits the last linear layer in closed form from one augmented pass over the training images.

    It replaces the frozen epochs of `fine_tune`: one pass costs less than an epoch of training and gives a better head
    than a few dozen gradient steps. The outputs are scaled to minimise the training loss.

    Args:
        trainer: A trainer of a model whose ``head`` is a linear layer, with one label per image.

    Returns:
        The training loss of the fitted head.

    Raises:
        ConfigError: if the head is not one linear layer, or the task has several labels per image.
    """
    task, model = cast(ClassificationTask, trainer.task), trainer.model
    head: Any = getattr(model, "head", None)
    linear = head[-1] if isinstance(head, nn.Sequential) else head
    if not isinstance(linear, nn.Linear) or task.multi_label or trainer.world > 1:
        raise ConfigError("fit_head needs a linear head, one label an image and one process: use fine_tune")
    features, targets = _features(trainer, linear)
    weight, bias = discriminant(features, targets, len(task.vocab))
    logits = features @ weight.T + bias
    scales = torch.logspace(-3, 2, 120) / logits.std().clamp(min=1e-6)
    losses = torch.stack([F.cross_entropy(logits * s, targets, label_smoothing=task.label_smoothing) for s in scales])
    best = int(losses.argmin())
    with torch.no_grad():
        linear.weight.copy_(weight * scales[best])
        linear.bias.copy_(bias * scales[best])
    trainer.epoch += 1
    return float(losses[best])


@torch.no_grad()
def _features(trainer: Trainer, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """The last layer's inputs in one augmented epoch, (N, D) on the CPU, and the classes (N,)."""
    caught: list[Tensor] = []

    def catch(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        caught.append(inputs[0].float().cpu())

    targets: list[Tensor] = []
    handle = linear.register_forward_pre_hook(catch)
    trainer.model.eval()
    try:
        for batch in batches_of(trainer.dls.train, trainer.device, trainer.epoch):
            trainer.model(batch.x)
            targets.append(hard_target(batch.y).cpu())
    finally:
        handle.remove()
    return torch.cat(caught), torch.cat(targets)


def fine_tune_upper(trainer: Trainer, epochs: int, lr: float = 3e-3, lr_mult: float = 10.0) -> None:
    """Fine-tunes pretrained weights on few images: the head in closed form, then head and upper half of the body.

    The lower half stays frozen, which saves more than half of the time and, on few images, costs no accuracy; batch
    norms keep their statistics if the trainer's ``freeze_norm`` is set.

    Args:
        trainer: A trainer of a model with three layer groups, such as `TorchvisionClassifier`.
        epochs: Epochs after the pass that fits the head.
        lr: Peak rate of the head.
        lr_mult: The ratio of the head's rate to the upper body's.
    """
    if not trainer.resuming:
        trainer.freeze()
        fit_head(trainer)
    groups = len(optim.layer_groups(trainer.model))
    trainer.freeze_to(groups - 2)
    rates = [lr / lr_mult] * (groups - 1) + [lr]
    trainer.fit_one_cycle(epochs, rates, pct_start=0.3, div=5)
