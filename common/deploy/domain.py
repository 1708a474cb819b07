"""The domain as a value: how its data is read and with which options, how inputs are parsed, how learners are made.

Each application registers one, `DOMAIN` in its ``domain.py``, as an entry point of the group ``cookbook.domains``. The
command line, evaluation, server and page are made from it; nothing else dispatches on a domain.

Floor: deploy; may import show and below. Used by: train, applications, recipes.
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
        endings: Of the files to predict, in small letters: those that are taken from a folder.
        windows: Predicts one large image through overlapping windows of the given size in pixels, or None.
        opens: Gives the image that an input is, turned upright, to draw its prediction on; None: it is none.
        learner: Makes a learner from loaders, or None.
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


def predict_files(
    predictor: "Predictor", paths: Sequence[str | Path], window_px: int | None = None, on_error: str = "raise"
) -> "Iterator[tuple[str, Record | Failure]]":
    """Yields the name and the record of each input in some files, in order, as they come.

    Args:
        predictor: A predictor of a bundle, or of a model in memory.
        paths: The files; see `files_of` for folders.
        window_px: Predict large images through overlapping windows of this size in pixels.
        on_error: ``raise``, or ``skip`` to yield a `Failure` in the place of an input that cannot be used.

    Raises:
        ConfigError: if windows are requested of a domain that has none.
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
