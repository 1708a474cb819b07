"""The task: what a domain is to the trainer, the evaluation and the predictor."""

import json
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from common.blocks.batch import Batch
from common.blocks.block import Block
from common.blocks.sample import SampleEncoder
from common.spec import to_spec
from common.task.metrics import Metric, as_metrics

Record = dict[str, Any]
"""A prediction as plain data that JSON can hold."""


class Task:
    """Base of the tasks: frozen dataclasses whose fields are all JSON, so that they travel in a bundle."""

    registered_name: ClassVar[str]
    domain: ClassVar[str]
    raw_targets: ClassVar[bool] = False
    """Whether `report` compares with the targets as the source gives them (a list), not as they were encoded."""

    def losses(self, output: Any, batch: Batch) -> Tensor:
        """Returns one loss a sample, (B,)."""
        raise NotImplementedError

    def forward(self, model: Callable[..., Any], batch: Batch) -> Any:
        """Returns the model's output for a batch: it is called with the inputs.

        A task whose model must see the targets too (a decoder that is shown the text so far, a detector that matches
        its own proposals) calls it with both where there are any.
        """
        return model(batch.x)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Returns the loss to minimise, a scalar."""
        return self.losses(output, batch).mean()

    def condense(self, output: Any, batch: Batch) -> Any:
        """Returns a batch's output as it is kept when a whole part is evaluated, and as `decode` takes it.

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

    def report(self, output: Any, target: Any) -> dict[str, float]:
        """Returns the metrics of a whole part by their standard names, from all condensed outputs and targets."""
        raise NotImplementedError

    def verify(self, encoder: SampleEncoder, model: dict[str, Any]) -> None:
        """Checks that the task fits the blocks and the model's spec, before the model of a bundle is built.

        Raises:
            ConfigError: naming what disagrees.
        """

    def brief(self, record: Record) -> str:
        """Returns a record in a few words."""
        return json.dumps(record, ensure_ascii=False)

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
