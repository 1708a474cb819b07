"""Errors that teach: each names the parameter or file, the rule, the value found and the remedy.

Floor: ground; imports only from the ground. Used by: ground, text, blocks, sources, augment, store, data, task,
show, deploy, train, vision, catalogue, applications, recipes.
"""

import difflib
from collections.abc import Iterable


class CookbookError(Exception):
    """Base of every error this project raises on purpose. Its text is one readable sentence."""


class ConfigError(CookbookError, ValueError):
    """A parameter, name or option has a value it must not have."""


class DataError(CookbookError, ValueError):
    """A data source (folder, table, file, label) is not what was asked for."""


class ItemError(DataError):
    """One item failed at a named stage of the data path.

    Attributes:
        item: The item as a person knows it (a path or a row).
        stage: Where it failed: ``get_x``, ``get_y``, ``encode`` of a block, or ``collate``.
    """

    def __init__(self, item: object, stage: str, reason: str) -> None:
        super().__init__(f"{item}: {reason} (stage: {stage})")
        self.item = item
        self.stage = stage
        self.reason = reason


class BundleError(CookbookError, ValueError):
    """A bundle on disk is damaged, incomplete, or holds what it must not hold."""


class CheckpointError(CookbookError, ValueError):
    """A checkpoint is damaged or belongs to another run."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a hint for a wrong name: the near ones, else every known one.

    Examples:
        >>> nearest("resnet81", ["resnet18", "vgg11"])
        "did you mean 'resnet18'?"
        >>> nearest("x", ["csv", "folder"])
        'known: csv, folder'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    shown = ", ".join(names[:20])
    return f"known: {shown}" + (", …" if len(names) > 20 else "")


def one_of(parameter: str, value: str, known: Iterable[str]) -> str:
    """Returns ``value`` if it is among ``known``.

    Raises:
        ConfigError: if it is not; the message names the parameter and the near values.
    """
    options = list(known)
    if value not in options:
        raise ConfigError(f"{parameter} has no option {value!r}: {nearest(value, options)}")
    return value


def in_range(
    parameter: str, value: float, low: float, high: float, *, open_low: bool = False, open_high: bool = False
) -> None:
    """Checks ``low <= value <= high`` (an end is excluded where it is open).

    Raises:
        ConfigError: naming the parameter, the interval and the value found.
    """
    ok_low = value > low if open_low else value >= low
    ok_high = value < high if open_high else value <= high
    if not (ok_low and ok_high):
        left, right = "(" if open_low else "[", ")" if open_high else "]"
        raise ConfigError(f"{parameter} must lie in {left}{low}, {high}{right}, got {value}")
