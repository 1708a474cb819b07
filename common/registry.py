"""The closed registry: names that a person types or a bundle stores, and the classes they stand for.

A name found in a file is only ever looked up here. A domain registers its classes when its value is loaded; the
modules that may be imported are those that *installed* distributions declare under the entry point group
``cookbook.domains``, so nothing found in a file decides what is imported.

Floor: ground; imports only from the ground. Used by: ground, blocks, augment, task, deploy, applications, recipes.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from common.errors import ConfigError, nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

GROUPS = ("block", "item_transform", "batch_transform", "model", "task", "part", "optimizer")
_registry: dict[str, dict[str, type[Any]]] = {group: {} for group in GROUPS}
_T = TypeVar("_T")


def register(group: str, name: str) -> Callable[[type[_T]], type[_T]]:
    """Returns a class decorator that enters the class under ``group`` and ``name``.

    The class gets ``registered_name = name``, which ``spec()`` writes.

    Raises:
        ConfigError: if another class already has that name.
    """
    table = _registry[group]

    def enter(cls: type[_T]) -> type[_T]:
        known = table.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ConfigError(f"{group} {name!r} is already registered as {known.__qualname__}")
        table[name] = cls
        cls.registered_name = name  # type: ignore[attr-defined]
        return cls

    return enter


def resolve(group: str, name: object) -> type[Any]:
    """Returns the class registered under ``group`` and ``name``.

    Raises:
        ConfigError: if there is none; the message lists the near names.
    """
    table = _registry[group]
    if not isinstance(name, str) or name not in table:
        raise ConfigError(f"no {group} is named {name!r}: {nearest(str(name), table)}")
    return table[name]


def names(group: str) -> list[str]:
    """Returns the registered names of a group, sorted."""
    return sorted(_registry[group])


def installed(group: str) -> "EntryPoints":
    """Returns what installed distributions declare under a group of entry points."""
    from importlib.metadata import entry_points  # imported here: it costs a tenth of the time budget of --help

    return entry_points(group=group)


def domains() -> list[str]:
    """Returns the names of the installed domains (entry points of group ``cookbook.domains``)."""
    return sorted(point.name for point in installed("cookbook.domains"))


def domain_holding(cls: type[Any]) -> str | None:
    """Returns the installed domain whose package contains a class, or None."""
    for point in installed("cookbook.domains"):
        package = point.module.rpartition(".")[0] or point.module
        if f"{cls.__module__}.".startswith(f"{package}."):
            return point.name
    return None


def load_domain(name: object) -> Any:
    """Returns the value of an installed domain (a `Domain`); importing it registers the domain's classes.

    Raises:
        ConfigError: if no installed package declares that domain.
    """
    found = [point for point in installed("cookbook.domains") if point.name == name]
    if not found:
        raise ConfigError(f"no domain is named {name!r}: {nearest(str(name), domains())}")
    return found[0].load()
