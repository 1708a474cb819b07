"""The contract of what is fitted at once, and of a part of a model that keeps what it has learned in files."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from torch import nn

from common.data.dataloaders import DataLoaders
from common.task.task import Task

Tell = Callable[[str], None]


def silent(said: str) -> None:
    """Takes what a model tells of its fit, and shows nothing."""


class KeepsFiles:
    """What keeps in files of a bundle what is no plain field and no tensor."""

    def file_names(self) -> tuple[str, ...]:
        """Returns the names of the `files` that it has once it is fitted, known from its spec alone."""
        return ()

    def files(self) -> dict[str, bytes]:
        """Returns what it keeps, by name: JSON, safetensors or UBJSON (``.ubj``)."""
        return {}

    def load_files(self, files: Mapping[str, bytes]) -> None:
        """Takes back `files`, each checked before anything trusts it.

        Args:
            files: Their bytes, by name.

        Raises:
            BundleError: naming the file and what is wrong in it.
        """


class FittedPart(KeepsFiles, nn.Module):
    """A part of a model that keeps something it has learned in files, not in tensors (trees)."""


class FittedModel(FittedPart):
    """Base of what is fitted at once: boosted trees, closed forms, neighbours, ensembles of them and of networks.

    It is a torch module, so evaluation, pictures, predictor and bundle take it as they take a network: called with the
    inputs of a batch it returns outputs as its task takes them. What it has learned is in buffers and parameters and,
    where it is no tensor (trees), in `files`. `spec` describes it as far as needed to make one with buffers of the same
    shapes, and `from_spec` makes that one, empty.
    """

    registered_name: ClassVar[str]

    def train(self, mode: bool = True) -> Self:
        """Leaves every part in evaluation mode: what is in it was trained when it was fitted."""
        return super().train(False)

    def fit(self, dls: DataLoaders, task: Task, tell: Tell = silent) -> None:
        """Learns from ``dls.train.arrays()``; ``dls.valid``, where there is one, may only be chosen by.

        Args:
            dls: Loaders that a DataBlock made.
            task: The task whose outputs are asked for.
            tell: Is told in words what goes on.
        """
        raise NotImplementedError

    def spec(self) -> dict[str, Any]:
        """Returns the model, fitted or not, as JSON-ready data without what it has learned."""
        raise NotImplementedError

    @classmethod
    def from_spec(cls, fields: dict[str, Any]) -> Self:
        """Makes the empty model of a spec (without ``kind``), every field checked.

        Raises:
            ConfigError: for a field of the wrong type or range.
        """
        raise NotImplementedError


def part_file(path: str, name: str) -> str:
    """Returns the name in a bundle of a file of the part of a model at a path (``members.0``)."""
    return f"{path}.{name}" if path else name


def fitted_parts(model: nn.Module) -> dict[str, FittedPart]:
    """Returns the parts of a model (itself too) that may have files, by their path."""
    return {path: part for path, part in model.named_modules() if isinstance(part, FittedPart)}
