"""Contracts of models that are fitted in one call, and of model parts whose fitted state is stored in files.

Floor: task; may import data and below. Used by: deploy, train, applications.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from torch import nn

from common.data.dataloaders import DataLoaders
from common.task.task import Task

Tell = Callable[[str], None]


def silent(said: str) -> None:
    """Discards the progress messages of a fit."""


class KeepsFiles:
    """Mixin for objects with fitted state that is neither a JSON field nor a tensor: a bundle stores it as files."""

    def file_names(self) -> tuple[str, ...]:
        """Returns the names of the `files` that it has once fitted, as its spec alone determines them."""
        return ()

    def files(self) -> dict[str, bytes]:
        """Returns the content of its files, by name: JSON, safetensors or UBJSON (``.ubj``)."""
        return {}

    def load_files(self, files: Mapping[str, bytes]) -> None:
        """Restores the state from `files`, validating each before it is used.

        Args:
            files: Their bytes, by name.

        Raises:
            BundleError: naming the file and what is wrong in it.
        """


class FittedPart(KeepsFiles, nn.Module):
    """A submodule with fitted state that is stored in files instead of tensors (trees)."""


class FittedModel(FittedPart):
    """Base of models fitted in one call: boosted trees, closed forms, neighbours, ensembles of them and of networks.

    It is a torch module, so evaluation, pictures, predictor and bundle treat it like a network: called with the inputs
    of a batch it returns outputs in the form that its task expects. The fitted state is in buffers and parameters and,
    where it is not a tensor (trees), in `files`. `spec` holds what `from_spec` needs to build an unfitted model with
    buffers of the same shapes.
    """

    registered_name: ClassVar[str]

    def train(self, mode: bool = True) -> Self:
        """Leaves every part in evaluation mode: `fit` is the only training."""
        return super().train(False)

    def fit(self, dls: DataLoaders, task: Task, tell: Tell = silent) -> None:
        """Fits to ``dls.train.arrays()``; ``dls.valid``, where there is one, may only be used for model selection.

        Args:
            dls: Loaders that a DataBlock made.
            task: The task that defines outputs and losses.
            tell: Called with progress messages.
        """
        raise NotImplementedError

    def spec(self) -> dict[str, Any]:
        """Returns the model's configuration, fitted or not, as JSON-ready data without its fitted state."""
        raise NotImplementedError

    @classmethod
    def from_spec(cls, fields: dict[str, Any]) -> Self:
        """Makes the unfitted model of a spec (without ``kind``), every field checked.

        Raises:
            ConfigError: for a field of the wrong type or range.
        """
        raise NotImplementedError


def part_file(path: str, name: str) -> str:
    """Returns a file's name in a bundle, prefixed by the path of the submodule that owns it (``members.0``)."""
    return f"{path}.{name}" if path else name


def fitted_parts(model: nn.Module) -> dict[str, FittedPart]:
    """Returns the submodules of a model (itself included) that may have files, by their path."""
    return {path: part for path, part in model.named_modules() if isinstance(part, FittedPart)}
