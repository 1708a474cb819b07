"""Additional parts of a bundle: fitted or measured objects that predictions or checks need later.

Floor: deploy; may import show and below. Used by: train.
"""

import re
from typing import Any, ClassVar, Self

from common.errors import ConfigError
from common.registry import resolve
from common.spec import build, to_spec
from common.task.fitted import KeepsFiles

_NAME = re.compile(r"[a-z][a-z0-9_]*")


class BundlePart(KeepsFiles):
    """Base of the parts of a bundle: registered under ``part``; by default a frozen dataclass of plain fields.

    Data too large for the spec goes into files, stored in the bundle as ``<name of the part>.<file>`` and hashed like
    all others.
    """

    registered_name: ClassVar[str]

    def spec(self) -> dict[str, Any]:
        """Returns the part as JSON-ready data, without what is in its files."""
        return to_spec(self)

    @classmethod
    def from_spec(cls, fields: dict[str, Any]) -> Self:
        """Makes the part of a spec (without ``kind``), every field checked.

        Args:
            fields: The output of `spec`.

        Raises:
            ConfigError: for a field of the wrong type or range.
        """
        return build(cls, fields, cls.registered_name)


def check_name(name: str) -> None:
    """Checks the name of a part in a bundle.

    Raises:
        ConfigError: unless it is a lower-case word, which can begin the names of the part's files.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"parts: a name must be small letters, digits and _ (such as in_domain), got {name!r}")


def part_from_spec(name: str, spec: object) -> BundlePart:
    """Makes a part from its name and spec in a bundle.

    Raises:
        ConfigError: for an unknown kind, or a field of the wrong type.
    """
    check_name(name)
    if not isinstance(spec, dict):
        raise ConfigError(f"parts.{name} must be an object, got {type(spec).__name__}")
    fields = dict(spec)
    return resolve("part", fields.pop("kind", None)).from_spec(fields)
