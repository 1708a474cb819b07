"""A part of a bundle beside the model: something fitted or measured that a prediction or a check asks for later."""

import re
from typing import Any, ClassVar, Self

from common.errors import ConfigError
from common.registry import resolve
from common.spec import build, to_spec
from common.task.fitted import KeepsFiles

_NAME = re.compile(r"[a-z][a-z0-9_]*")


class BundlePart(KeepsFiles):
    """Base of the parts of a bundle: registered under ``part``; by default a frozen dataclass of plain fields.

    What is too large for the spec is in files, which lie in the bundle as ``<name of the part>.<file>``, hashed like
    any other.
    """

    registered_name: ClassVar[str]

    def spec(self) -> dict[str, Any]:
        """Returns the part as JSON-ready data, without what is in its files."""
        return to_spec(self)

    @classmethod
    def from_spec(cls, fields: dict[str, Any]) -> Self:
        """Makes the part of a spec (without ``kind``), every field checked.

        Args:
            fields: What `spec` gave.

        Raises:
            ConfigError: for a field of the wrong type or range.
        """
        return build(cls, fields, cls.registered_name)


def check_name(name: str) -> None:
    """Checks what a part is called in a bundle.

    Raises:
        ConfigError: unless it is a small word: its files begin with it.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"parts: a name must be small letters, digits and _ (such as in_domain), got {name!r}")


def part_from_spec(name: str, spec: object) -> BundlePart:
    """Makes the part that a bundle calls by a name from its spec.

    Raises:
        ConfigError: for an unknown kind, or a field of the wrong type.
    """
    check_name(name)
    if not isinstance(spec, dict):
        raise ConfigError(f"parts.{name} must be an object, got {type(spec).__name__}")
    fields = dict(spec)
    return resolve("part", fields.pop("kind", None)).from_spec(fields)
