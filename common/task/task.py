"""The task: what a domain is to the trainer, the evaluation and the predictor.

Floor: task; may import data and below. Used by: show, deploy, train, vision, applications, recipes.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from common.blocks.batch import Batch, map_tensors
from common.blocks.block import Block
from common.blocks.sample import SampleEncoder
from common.errors import ConfigError
from common.spec import to_spec
from common.task.metrics import Metric, as_metrics
from common.task.record_view import RecordView

Record = dict[str, Any]
"""A prediction as plain data that JSON can hold."""


@dataclass(frozen=True)
class Outputs:
    """A model's outputs over a part, as `Task.report` takes them.

    Attributes:
        output: The condensed outputs of `Task.predict`, all batches joined: (N, …) on the CPU, or a list.
        target: The targets, (N, …) on the CPU, or None; with ``Task.raw_targets`` a list of the source's raw targets.
        ids: int64 (N,): the samples' ids, or None for loaders without ids.
        losses: float32 (N,): each sample's loss, or None without targets or for a task without losses.
        inputs: The inputs of all batches, joined, on the CPU, where ``Task.keeps_inputs``; else None.
        weights: float64 (N,): the weight of each loss (see `Task.weights`), or None: all equal.
    """

    output: Any
    target: Any = None
    ids: Tensor | None = None
    losses: Tensor | None = None
    inputs: Any = None
    weights: Tensor | None = None

    def of(self, ids: Sequence[int]) -> "Outputs":
        """Returns the outputs of some samples, in the order of ``ids``.

        Args:
            ids: The ids of the samples.

        Raises:
            ConfigError: if the samples have no ids, or there is none with such an id.
        """
        if self.ids is None:
            raise ConfigError("these outputs have no ids: they come from a loader that knows none")
        place = {int(known): row for row, known in enumerate(self.ids.tolist())}
        missing = [wanted for wanted in ids if int(wanted) not in place]
        if missing:
            raise ConfigError(f"these outputs have no sample with the id {missing[0]}")
        rows = [place[int(wanted)] for wanted in ids]

        def some(value: Any) -> Any:
            if isinstance(value, list):
                return [value[row] for row in rows]
            return None if value is None else map_tensors(value, lambda tensor: tensor[rows])

        fields = (self.output, self.target, self.ids, self.losses, self.inputs, self.weights)
        return Outputs(*map(some, fields))

    def records(self, task: "Task") -> list[Record]:
        """Returns the predictions as plain records."""
        return task.decode(self.output)

    def mean_loss(self) -> float | None:
        """Returns the weighted mean of the losses; None where there are none."""
        if self.losses is None:
            return None
        if self.weights is None:
            return float(self.losses.double().mean())
        return float((self.losses.double() * self.weights).sum() / self.weights.sum())


def flat(record: Record, prefix: str = "") -> dict[str, Any]:
    """Returns a record with the fields of its mappings in one row, their names joined by a dot; lists as JSON.

    Examples:
        >>> flat({"label": "a", "probabilities": {"a": 0.75, "b": 0.25}})
        {'label': 'a', 'probabilities.a': 0.75, 'probabilities.b': 0.25}
    """
    made: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            made |= flat(value, f"{prefix}{name}.")
        else:
            made[prefix + name] = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
    return made


class Task:
    """Base of the tasks: frozen dataclasses whose fields are all JSON, so that a bundle can store them."""

    registered_name: ClassVar[str]
    raw_targets: ClassVar[bool] = False
    """Whether `report` compares with the raw targets of the source (a list), not with the encoded ones."""
    keeps_inputs: ClassVar[bool] = False
    """Whether `report` needs the inputs too (the user of each rating): evaluation then stores those of a whole part."""

    def losses(self, output: Any, batch: Batch) -> Tensor | None:
        """Returns one loss per sample, (B,); None for a task without a loss (a ranking, neighbours)."""
        return None

    def weights(self, batch: Batch) -> Tensor | None:
        """Returns the weight of each sample's loss, (B,); None: all equal.

        A language model averages over tokens, not texts: its losses are means over a sample's tokens, its weights their
        number. The mean loss is then that over tokens, whatever the batches, the accumulation and the number of
        processes.
        """
        return None

    def forward(self, model: Callable[..., Any], batch: Batch) -> Any:
        """Returns the model's output for the inputs of a batch.

        A task whose model needs the targets too (teacher forcing in a decoder, a detector that matches its own
        proposals) overrides this and passes both where there are targets.
        """
        return model(batch.x)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Returns the loss to minimise, a scalar: the mean of `losses`, weighted by `weights` where there are some.

        Raises:
            ConfigError: for a task without losses.
        """
        losses = self.losses(output, batch)
        if losses is None:
            raise ConfigError(
                f"{type(self).__name__} has no loss to minimise: give its model to AtOnce, not to a Trainer"
            )
        return self.mean(losses, batch)

    def mean(self, losses: Tensor, batch: Batch) -> Tensor:
        """Returns the mean of losses (B,), weighted by `weights` where there are some, a scalar."""
        weights = self.weights(batch)
        return losses.mean() if weights is None else (losses * weights).sum() / weights.sum()

    def predict(self, model: Callable[..., Any], batch: Batch) -> Any:
        """Returns the condensed outputs that evaluation stores: by default the `condense`d output of `forward`.

        Evaluation, pictures, the predictor and test-time augmentation all call this. A task whose model generates (a
        text, token by token), or must not see the targets, overrides it; its losses still come from `forward`.
        """
        return self.condense(self.forward(model, batch), batch)

    def condense(self, output: Any, batch: Batch) -> Any:
        """Returns the part of a batch's output that evaluation stores for a whole part, in the form `decode` takes.

        By default the output itself. A domain overrides it where what it needs is far smaller (the boxes left after
        non-maximum suppression, one class per pixel) or must be given in pixels of the source image
        (``batch.source``). A list has one entry per sample.
        """
        return output

    def metrics(self) -> tuple[Metric, ...]:
        """Returns the default metrics, shown when the user names none."""
        return as_metrics(None)

    def activation(self, output: Any) -> Any:
        """Returns outputs on the scale that is averaged and reported (probabilities)."""
        return output

    def decode(self, output: Any) -> list[Record]:
        """Returns one plain record per sample from what `condense` gives."""
        raise NotImplementedError

    def report(self, outputs: Outputs) -> dict[str, float]:
        """Returns the metrics of a whole part by their standard names.

        Args:
            outputs: All predictions for the part, with targets, ids and, with ``keeps_inputs``, inputs.
        """
        raise NotImplementedError

    def verify(self, encoder: SampleEncoder, model: dict[str, Any]) -> None:
        """Checks that the task fits the blocks and the model's spec, before the model of a bundle is built.

        Raises:
            ConfigError: naming what disagrees.
        """

    def brief(self, record: Record) -> str:
        """Returns a record in a few words."""
        return json.dumps(record, ensure_ascii=False)

    def with_threshold(self, threshold: float) -> "Task":
        """Returns the task with a least confidence for its predictions: what is less sure is left out of records.

        Args:
            threshold: In [0, 1].

        Raises:
            ConfigError: for a task whose predictions have no confidence.
        """
        raise ConfigError(f"threshold is for predictions that have a confidence: those of {type(self).__name__} do not")

    def rows(self, record: Record) -> list[dict[str, Any]]:
        """Returns a record as flat rows of a table: one, or one for each thing that was found.

        Args:
            record: A prediction.
        """
        return [flat(record)]

    def view(self, record: Record) -> dict[str, Any]:
        """Returns a record as plain data that a page draws, in the schema of `RecordView`.

        Args:
            record: A prediction.
        """
        return RecordView(title=self.brief(record)).plain()

    def caption(self, record: Record, block: Block, target: Any) -> tuple[str, bool]:
        """Returns the title of a picture of a result, and whether the prediction is correct."""
        truth = str(block.decode(target))
        return f"{truth} / {record}", False

    def draw(self, axes: Any, record: Record, block: Block, target: Any) -> None:
        """Draws a prediction over its input; by default a title of truth and prediction, red where they differ.

        Args:
            axes: Matplotlib axes with the input drawn.
            record: The prediction.
            block: The target's block.
            target: One encoded target; with ``raw_targets`` the source's raw one.
        """
        text, right = self.caption(record, block, target)
        axes.set_title(text, fontsize=8, color="black" if right else "crimson", parse_math=False)

    def spec(self) -> dict[str, Any]:
        """Returns the task as JSON-ready data."""
        return to_spec(self)
