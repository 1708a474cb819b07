"""The domain as a value: how its data is read and with which options, how inputs are parsed, how learners are made.

Each application registers one, `DOMAIN` in its ``domain.py``, as an entry point of the group ``cookbook.domains``. The
command line, evaluation, server and page are made from it; nothing else dispatches on a domain.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from torch import nn

from common.errors import ConfigError
from common.registry import domain_holding, domains, load_domain
from common.sources.items import Items
from common.sources.source import Source
from common.spec import build, to_spec
from common.task.task import Record, Task

if TYPE_CHECKING:
    from common.deploy.predictor import Predictor

PLAIN = "core"  # the domain of tasks and models that belong to no other


class Inputs(NamedTuple):
    """The inputs in a file to predict.

    Attributes:
        names: The name of each input for people.
        raws: The inputs, as a predictor takes them.
    """

    names: list[str]
    raws: Items


def one_input(path: str | Path) -> Inputs:
    """Returns a file as a single input, its path.

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
    """A domain: everything that the command line, evaluation, server and page need of it.

    Attributes:
        name: Its name, the same as its entry point's.
        recipes: The recipes that make its bundles.
        reading: A frozen dataclass of the options with which data is read, each field made by `option`; a bundle stores
            those used in training.
        read: Called with data (None: the embedded set), these options and the predictor to evaluate (None: the data is
            for training); returns a source. Where they disagree, the predictor's classes and targets win. None: the
            domain reads no files.
        inputs: Parses a file to predict.
        windows: Predicts one large image through overlapping windows of the given size in pixels, or None.
        learner: Makes a learner from loaders, or None.
    """

    name: str
    recipes: tuple[str, ...] = ()
    reading: type[Any] = NoReading
    read: "Callable[[str | Path | None, Any, Predictor | None], Source] | None" = None
    inputs: Callable[[str | Path], Inputs] = one_input
    windows: "Callable[[Predictor, Any, int], Record] | None" = None
    learner: Callable[..., Any] | None = None

    def options(self, stored: Any = None, **given: Any) -> Any:
        """Returns the reading options: the stored ones, overridden by those that are given.

        Args:
            stored: An instance of ``reading``, or its fields as plain data; None: the defaults.
            given: Fields of ``reading``.

        Raises:
            ConfigError: for an option that the domain does not have, or a value of the wrong type.
        """
        base: dict[str, Any] = {} if stored is None else to_spec(stored)
        return build(self.reading, {**base, **given}, f"reading of {self.name}")


CORE = Domain(name=PLAIN)
REGRESSION = Domain(name="regression")


def find_domain(name: object) -> Domain:
    """Returns an installed domain; importing it registers its classes, so that its bundles can be loaded.

    Raises:
        ConfigError: if no installed package declares that domain, or its entry point is not a Domain.
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

    That is the installed domain whose package contains the model's class, else the task's; else the one named like the
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
    """Returns the metrics of a predictor on data in any format that its domain reads.

    Args:
        predictor: A predictor of a bundle, or of a model in memory.
        data: The data; None: the domain's embedded set.
        split: ``train``, ``valid`` or ``test``; None: the test part where there is one, else everything.
        on_error: What happens to an item that cannot be used: ``raise`` or ``skip``.
        reading: Reading options, where the data is laid out differently from the bundle's training data.

    Raises:
        ConfigError: if the domain reads no files, or has no such option.
        DataError: if the data is missing, has no such part, or has classes that the bundle does not know.
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
        predictor: A predictor of a bundle, or of a model in memory.
        paths: The files.
        window_px: Predict large images through overlapping windows of this size in pixels.

    Raises:
        ConfigError: if windows are requested of a domain that has none.
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
        yield from zip(file.names, predictor.predict_many(cast("Sequence[Any]", file.raws)), strict=True)


def owners(option: str) -> list[str]:
    """Returns the installed domains that have a reading option of this name, or that have windows for ``window``.

    Args:
        option: The option's name.
    """
    found: list[str] = []
    for name in domains():
        domain = find_domain(name)
        if option in {f.name for f in fields(domain.reading)} or (option == "window" and domain.windows is not None):
            found.append(name)
    return found
