"""The recipes that are installed: entry points of the group ``cookbook.recipes``. Imports nothing heavy."""

from typing import TYPE_CHECKING, Any, Protocol

from common.registry import installed
from recipes.options import CommonOptions, near

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from common.data.datablock import DataBlock
    from common.sources.source import Source


class Recipe(Protocol):
    """The interface of a recipe's module: a docstring that describes it, a dataclass of options, and ``run``."""

    __doc__: str | None
    Options: type[CommonOptions]

    def find_source(self, options: Any) -> "Source":
        """Returns the data that the options name, or the embedded set."""
        ...

    def make_block(self, options: Any, source: Any) -> "DataBlock":
        """Returns the DataBlock with which the recipe reads a source."""
        ...

    def run(self, options: CommonOptions) -> dict[str, float]:
        """Runs the recipe and returns its metrics."""
        ...


def _points() -> "dict[str, EntryPoint]":
    return {point.name: point for point in sorted(installed("cookbook.recipes"), key=lambda p: p.name)}


def recipe_names() -> list[str]:
    """Returns the names of the installed recipes, sorted."""
    return list(_points())


def find_recipe(name: str) -> Recipe:
    """Returns an installed recipe.

    Raises:
        ConfigError: if there is none of that name; the message lists the near names.
    """
    from common.errors import ConfigError

    points = _points()
    if name not in points:
        raise ConfigError(f"there is no recipe {name!r}{near(name, list(points))} (cookbook list names them)")
    return points[name].load()


def summary(recipe: Recipe) -> str:
    """Returns what a recipe does, in one line: the first of its docstring."""
    return (recipe.__doc__ or "").strip().split("\n")[0]
