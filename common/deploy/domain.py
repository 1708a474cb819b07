"""The domain as a value: how its data is read and with which options, how inputs are parsed, what makes its models.

Each application registers one, `DOMAIN` in its ``domain.py``, as an entry point of the group ``cookbook.domains``. The
command line, evaluation, server and page are made from it; nothing else dispatches on a domain.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from common.errors import ConfigError, CookbookError, DataError
from common.registry import domain_holding, domains, load_domain
from common.sources.items import Items
from common.sources.listing import list_files
from common.sources.source import Source
from common.spec import build, to_spec
from common.store.dirty import Failure
from common.task.task import Record, Task

if TYPE_CHECKING:
    from PIL import Image

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
        endings: Of the files to predict, in small letters: those that are taken from a folder.
        windows: Predicts one large image through overlapping windows of so many pixels, or None.
        opens: Gives the image that an input is, turned upright, to draw its prediction on; None: it is none.
        learner: What makes a learner from loaders, or None.
    """

    name: str
    recipes: tuple[str, ...] = ()
    reading: type[Any] = NoReading
    read: "Callable[[str | Path | None, Any, Predictor | None], Source] | None" = None
    inputs: Callable[[str | Path], Inputs] = one_input
    endings: frozenset[str] = frozenset()
    windows: "Callable[[Predictor, Any, int], Record] | None" = None
    opens: "Callable[[Any], Image.Image] | None" = None
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


def predict_files(
    predictor: "Predictor", paths: Sequence[str | Path], window_px: int | None = None, on_error: str = "raise"
) -> "Iterator[tuple[str, Record | Failure]]":
    """Yields the name and the record of each input in some files, in order, as they come.

    Args:
        predictor: Of a bundle, or of a model in memory.
        paths: The files; see `files_of` for folders.
        window_px: Look at large images through overlapping windows of so many pixels.
        on_error: ``raise``, or ``skip`` to yield a `Failure` in the place of an input that cannot be used.

    Raises:
        ConfigError: if windows are asked for where the domain has none.
        ItemError: if an input cannot be read, naming it and why; those before it have been yielded then.
    """
    domain = predictor.domain
    if window_px is not None and domain.windows is None:
        raise ConfigError(f"window_px is for domains that look through windows, this is one of {domain.name}")
    if window_px is not None or domain.inputs is not one_input:
        for path in paths:
            try:
                if window_px is not None and domain.windows is not None:
                    yield str(path), domain.windows(predictor, path, window_px)
                    continue
                file = domain.inputs(path)
            except (CookbookError, OSError) as error:
                if on_error == "raise":
                    raise
                yield str(path), Failure(str(path), "read", str(error))
                continue
            yield from zip(file.names, predictor.stream(file.raws, on_error=on_error), strict=True)
        return
    names = [str(path) for path in paths]  # many go through the model together
    yield from zip(names, predictor.stream(names, on_error=on_error), strict=True)


def files_of(domain: Domain, paths: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    """Returns the files to predict: those that are named, and of a folder all that the domain reads.

    Args:
        domain: The domain.
        paths: Files and folders.

    Returns:
        The files, and a sentence for each folder in which others were passed over.

    Raises:
        DataError: if one is not there, or a folder holds none.
    """
    found, notes = list[Path](), list[str]()
    for path in map(Path, paths):
        if not path.is_dir():
            if not path.exists():
                raise DataError(f"{path}: the file does not exist")
            found.append(path)
            continue
        listing = list_files(path, domain.endings)
        if not listing.files:
            raise DataError(f"{path} holds no file that {domain.name} reads ({', '.join(sorted(domain.endings))})")
        found += listing.files
        if listing.passed_over:
            notes.append(f"{path}: {listing.words()}")
    return found, notes


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
