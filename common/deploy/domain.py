"""The domain as a value: how its data is read and with which options, how inputs are parsed, what makes its models.

Each application registers one, `DOMAIN` in its ``domain.py``, as an entry point of the group ``cookbook.domains``. The
command line, evaluation, server and page are made from it; nothing else dispatches on a domain.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from common.errors import ConfigError
from common.registry import domain_holding, domains, load_domain
from common.sources.items import Items
from common.sources.source import Source
from common.spec import build, to_spec
from common.task.task import Record, Task

if TYPE_CHECKING:
    from common.deploy.predictor import Predictor

PLAIN = "core"  # the domain of tasks and models that no domain holds


class Inputs(NamedTuple):
    """What a file to predict holds.

    Attributes:
        names: What a person calls each input.
        raws: The inputs, as a predictor takes them.
    """

    names: list[str]
    raws: Items


def one_input(path: str | Path) -> Inputs:
    """Returns a file as one input: itself.

    Args:
        path: The file.

    Examples:
        >>> one_input("photo.jpg")
        Inputs(names=['photo.jpg'], raws=['photo.jpg'])
    """
    return Inputs([str(path)], [str(path)])


@dataclass(frozen=True, kw_only=True)
class NoReading:
    """No options: nothing is read from files."""


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A domain: all that the command line, evaluation, server and page know of it.

    Attributes:
        name: Its name, that of its entry point.
        recipes: The recipes that make its bundles.
        reading: A frozen dataclass of the options with which data is read, each field made by `option`; a bundle keeps
            those of its training.
        read: From data (None: the embedded set), these options and the predictor that is to be judged (None: the data
            is to be learned from) to a source; where they disagree, what a predictor knows decides (classes, targets).
            None: the domain reads no files.
        inputs: How a file to predict is parsed.
        windows: Predicts one large image through overlapping windows of so many pixels, or None.
        learner: What makes a learner from loaders, or None.
    """

    name: str
    recipes: tuple[str, ...] = ()
    reading: type[Any] = NoReading
    read: "Callable[[str | Path | None, Any, Predictor | None], Source] | None" = None
    inputs: Callable[[str | Path], Inputs] = one_input
    windows: "Callable[[Predictor, Any, int], Record] | None" = None
    learner: Callable[..., Any] | None = None

    def options(self, stored: Any = None, **given: Any) -> Any:
        """Returns the options with which data is read: the stored ones, and over them those that are given.

        Args:
            stored: An instance of ``reading``, or its fields as plain data; None: the defaults.
            given: Fields of ``reading``.

        Raises:
            ConfigError: for an option that the domain has not, or a value of the wrong type.
        """
        kept: dict[str, Any] = {} if stored is None else to_spec(stored)
        return build(self.reading, {**kept, **given}, f"reading of {self.name}")


CORE = Domain(name=PLAIN)
REGRESSION = Domain(name="regression")


def find_domain(name: object) -> Domain:
    """Returns an installed domain; what it registers can be loaded from bundles then.

    Raises:
        ConfigError: if no installed package declares that domain, or what it declares is none.
    """
    found = load_domain(name)
    if not isinstance(found, Domain):
        raise ConfigError(
            f"the entry point {name!r} of cookbook.domains gives a {type(found).__name__}, not a Domain: "
            "install its package anew"
        )
    return found


def domain_of(model: nn.Module, task: Task) -> str:
    """Returns the name of the domain that a model and a task belong to.

    That is the installed domain whose package holds the model's class, else the task's; else the one that has the
    task's registered name; else ``core``.

    Args:
        model: The model.
        task: Its task.

    Examples:
        >>> from common.task.regression import RegressionTask
        >>> domain_of(nn.Linear(1, 1), RegressionTask())
        'regression'
    """
    held = domain_holding(type(model)) or domain_holding(type(task))
    if held is not None:
        return held
    named = getattr(type(task), "registered_name", PLAIN)
    return named if named in domains() else PLAIN


def evaluate(
    predictor: "Predictor", data: str | Path | None, split: str | None = None, on_error: str = "raise", **reading: Any
) -> dict[str, float]:
    """Returns the metrics of a predictor on data in any form that its domain reads.

    Args:
        predictor: Of a bundle, or of a model in memory.
        data: The data; None: the domain's embedded set.
        split: ``train``, ``valid`` or ``test``; None: the test part where there is one, else everything.
        on_error: What happens to an item that cannot be used: ``raise`` or ``skip``.
        reading: Options with which the data is read, where it is not laid out as what the bundle was made from.

    Raises:
        ConfigError: if the domain reads no files, or has no such option.
        DataError: if the data is not there, has no such part, or has classes that the bundle has not.
    """
    domain = predictor.domain
    options = domain.options(predictor.reading, **reading)
    if domain.read is None:
        raise ConfigError(
            f"the domain {domain.name} reads no files: give the raw values to Predictor.evaluate, or a source to "
            "Predictor.evaluate_source"
        )
    return predictor.evaluate_source(domain.read(data, options, predictor), split, on_error)


def predict_files(
    predictor: "Predictor", paths: Sequence[str | Path], window_px: int | None = None
) -> Iterator[tuple[str, Record]]:
    """Yields the name and the record of each input in some files, in order.

    Args:
        predictor: Of a bundle, or of a model in memory.
        paths: The files.
        window_px: Look at large images through overlapping windows of so many pixels.

    Raises:
        ConfigError: if windows are asked for where the domain has none.
        ItemError: if an input cannot be read, naming it and why.
    """
    domain = predictor.domain
    if window_px is not None:
        if domain.windows is None:
            raise ConfigError(f"window_px is for domains that look through windows, this is one of {domain.name}")
        for path in paths:
            yield str(path), domain.windows(predictor, path, window_px)
        return
    files = [domain.inputs(path) for path in paths]
    if all(isinstance(file.raws, list) for file in files):  # images go through the model together
        files = [Inputs([n for file in files for n in file.names], [raw for file in files for raw in file.raws])]
    for file in files:
        yield from zip(file.names, predictor.predict_many(file.raws), strict=True)


def owners(option: str) -> list[str]:
    """Returns the installed domains that have an option of this name: to read data with, or ``window``.

    Args:
        option: The option's name.
    """
    found: list[str] = []
    for name in domains():
        domain = find_domain(name)
        if option in {f.name for f in fields(domain.reading)} or (option == "window" and domain.windows is not None):
            found.append(name)
    return found
