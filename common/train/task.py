"""The task: what a domain is to the trainer, the evaluation and the predictor."""

from typing import Any, ClassVar

from torch import Tensor

from common.data.batch import Batch
from common.data.blocks import Block
from common.data.sample import SampleEncoder
from common.spec import to_spec
from common.train.metrics import Metric, as_metrics

Record = dict[str, Any]
"""A prediction as plain data that JSON can hold."""


class Task:
    """Base of the tasks: frozen dataclasses whose fields are all JSON, so that they travel in a bundle."""

    registered_name: ClassVar[str]
    domain: ClassVar[str]

    def losses(self, output: Any, batch: Batch) -> Tensor:
        """Returns one loss a sample, (B,)."""
        raise NotImplementedError

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Returns the loss to minimise, a scalar."""
        return self.losses(output, batch).mean()

    def metrics(self) -> tuple[Metric, ...]:
        """Returns the metrics that are shown when the user names none."""
        return as_metrics(None)

    def activation(self, output: Any) -> Any:
        """Returns outputs as what is averaged and reported (probabilities)."""
        return output

    def decode(self, output: Any) -> list[Record]:
        """Returns one plain record a sample from the model's outputs."""
        raise NotImplementedError

    def report(self, output: Any, target: Any) -> dict[str, float]:
        """Returns the metrics of a whole part by their standard names, from all outputs and targets."""
        raise NotImplementedError

    def verify(self, encoder: SampleEncoder, model: dict[str, Any]) -> None:
        """Checks that the task fits the blocks and the model's spec, before the model of a bundle is built.

        Raises:
            ConfigError: naming what disagrees.
        """

    def caption(self, record: Record, block: Block, target: Any) -> tuple[str, bool]:
        """Returns what a picture of a result says, and whether the prediction is right."""
        truth = str(block.decode(target))
        return f"{truth} / {record}", False

    def spec(self) -> dict[str, Any]:
        """Returns the task as JSON-ready data."""
        return to_spec(self)
