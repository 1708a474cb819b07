"""The task: what a domain is to the trainer, the evaluation and the predictor."""

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
        output: What `Task.predict` gave, all batches joined: (N, …) on the CPU, or a list.
        target: The targets, (N, …) on the CPU, or None; with ``Task.raw_targets`` a list of those of the source.
        ids: int64 (N,): the samples' ids, or None for loaders that know none.
        losses: float32 (N,): each sample's loss, or None without targets or for a task without losses.
        inputs: The inputs of all batches, joined, on the CPU, where ``Task.keeps_inputs``; else None.
        weights: float64 (N,): how much each loss counts (see `Task.weights`), or None: all the same.
    """

    output: Any
    target: Any = None
    ids: Tensor | None = None
    losses: Tensor | None = None
    inputs: Any = None
    weights: Tensor | None = None

    def of(self, ids: Sequence[int]) -> "Outputs":
        """Returns those of some samples, in the order of their ids.

        Args:
            ids: Of the samples.

        Raises:
            ConfigError: if the samples have no ids, or there is none with such an id.
        """
        if self.ids is None:
            raise ConfigError("these outputs have no ids: they come from a loader that knows none")
        place = {int(own): row for row, own in enumerate(self.ids.tolist())}
        missing = [own for own in ids if int(own) not in place]
        if missing:
            raise ConfigError(f"these outputs have no sample with the id {missing[0]}")
        rows = [place[int(own)] for own in ids]

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
        """Returns the mean of the losses, each with its weight; None where there are none."""
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
    """Base of the tasks: frozen dataclasses whose fields are all JSON, so that they travel in a bundle."""

    registered_name: ClassVar[str]
    raw_targets: ClassVar[bool] = False
    """Whether `report` compares with the targets as the source gives them (a list), not as they were encoded."""
    keeps_inputs: ClassVar[bool] = False
    """Whether `report` asks for the inputs too (the user of each rating): they are kept for a whole part."""

    def losses(self, output: Any, batch: Batch) -> Tensor | None:
        """Returns one loss a sample, (B,); None where a task has none (a ranking, neighbours)."""
        return None

    def weights(self, batch: Batch) -> Tensor | None:
        """Returns how much each sample's loss counts, (B,); None: all the same.

        A language model counts tokens, not texts: its losses are means over a sample's tokens, its weights their
        number.
        The mean loss is then that over tokens, whatever the batches, the accumulation and the number of processes.
        """
        return None

    def forward(self, model: Callable[..., Any], batch: Batch) -> Any:
        """Returns the model's output for a batch: it is called with the inputs.

        A task whose model must see the targets too (a decoder that is shown the text so far, a detector that matches
        its own proposals) calls it with both where there are any.
        """
        return model(batch.x)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Returns the loss to minimise, a scalar: the mean of `losses`, by `weights` where there are some.

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
        """Returns the mean of losses (B,), by `weights` where there are some, a scalar."""
        weights = self.weights(batch)
        return losses.mean() if weights is None else (losses * weights).sum() / weights.sum()

    def predict(self, model: Callable[..., Any], batch: Batch) -> Any:
        """Returns what is kept of a batch's predictions: by default the `condense`d output of `forward`.

        Evaluation, pictures, the predictor and test-time augmentation all ask here. A task whose model generates (a
        text token by token), or must not see the targets, does so here; its losses still come from `forward`.
        """
        return self.condense(self.forward(model, batch), batch)

    def condense(self, output: Any, batch: Batch) -> Any:
        """Returns of a batch's output what is kept when a whole part is evaluated, as `decode` takes it.

        The output itself, unless what a domain needs of it is far smaller (boxes that are left after suppression, one
        class a pixel) or must be told in the pixels of the source image (``batch.source``). A list has one entry a
        sample.
        """
        return output

    def metrics(self) -> tuple[Metric, ...]:
        """Returns the metrics that are shown when the user names none."""
        return as_metrics(None)

    def activation(self, output: Any) -> Any:
        """Returns outputs as what is averaged and reported (probabilities)."""
        return output

    def decode(self, output: Any) -> list[Record]:
        """Returns one plain record a sample from what `condense` gives."""
        raise NotImplementedError

    def report(self, outputs: Outputs) -> dict[str, float]:
        """Returns the metrics of a whole part by their standard names.

        Args:
            outputs: All that was predicted of it, with targets, ids and, where they are asked for, inputs.
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
        """Returns a record as plain data that a page draws, of the one shape that `RecordView` documents.

        Args:
            record: A prediction.
        """
        return RecordView(title=self.brief(record)).plain()

    def caption(self, record: Record, block: Block, target: Any) -> tuple[str, bool]:
        """Returns what a picture of a result says, and whether the prediction is right."""
        truth = str(block.decode(target))
        return f"{truth} / {record}", False

    def draw(self, axes: Any, record: Record, block: Block, target: Any) -> None:
        """Draws a prediction over its input, beside what is true; by default a title, in red where they differ.

        Args:
            axes: Matplotlib axes with the input drawn.
            record: The prediction.
            block: The target's block.
            target: One encoded target; with ``raw_targets`` as the source gives it.
        """
        text, right = self.caption(record, block, target)
        axes.set_title(text, fontsize=8, color="black" if right else "crimson", parse_math=False)

    def spec(self) -> dict[str, Any]:
        """Returns the task as JSON-ready data."""
        return to_spec(self)
