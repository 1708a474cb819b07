"""Specs: frozen dataclasses to JSON and back, every field checked against its declared type.

Floor: ground; imports only from the ground. Used by: text, blocks, task, deploy, train, applications, recipes.
"""

import dataclasses
import types
import typing
from typing import Any, ClassVar, Self, TypeVar, Union, cast, get_args, get_origin

from common.errors import ConfigError, nearest
from common.registry import resolve

_T = TypeVar("_T")


def option(default: Any, help: str, **more: Any) -> Any:
    """Returns a field of a dataclass of options, with the help text that the command line shows.

    Args:
        default: Its default value.
        help: What it means, in a few words.
        more: Other metadata, such as ``metavar``.
    """
    return dataclasses.field(default=default, metadata={"help": help, **more})


def to_spec(value: object) -> Any:
    """Returns JSON-ready data for a registered frozen dataclass (or a plain value inside one).

    A registered class becomes ``{"kind": its name, field: value, …}``; tuples become lists.

    Raises:
        ConfigError: for a value that JSON cannot hold, such as a function.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_spec(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        name = getattr(type(value), "registered_name", None)
        return fields if name is None else {"kind": name, **fields}
    if isinstance(value, (list, tuple)):
        return [to_spec(v) for v in value]
    if isinstance(value, dict):
        return {str(k): to_spec(v) for k, v in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ConfigError(f"a spec holds plain data only, not {type(value).__name__}: {value!r}")


def from_spec(group: str, spec: object, where: str) -> Any:
    """Builds the registered class that ``spec`` names, every field checked.

    Args:
        group: The registry group to look in, e.g. ``"block"``.
        spec: A dictionary as ``to_spec`` makes it.
        where: How to name the place in an error, e.g. ``"blocks[0]"``.

    Raises:
        ConfigError: for an unknown kind, a missing or unknown field, or a value of the wrong type.
    """
    if not isinstance(spec, dict):
        raise ConfigError(f"{where} must be an object, got {type(spec).__name__}")
    fields: dict[str, Any] = dict(spec)
    cls = resolve(group, fields.pop("kind", None))
    return build(cls, fields, where)


def build(cls: type[_T], fields: dict[str, Any], where: str) -> _T:
    """Builds a dataclass from plain fields, with strict types.

    Raises:
        ConfigError: for a missing or unknown field, or a value of the wrong type.
    """
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cast(Any, cls)) if f.init}
    for name in fields:
        if name not in known:
            raise ConfigError(f"{where} has no field {name!r}: {nearest(name, known)}")
    for name, field in known.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in fields:
            raise ConfigError(f"{where} lacks the field {name!r}")
    return cls(**{name: coerce(value, hints[name], f"{where}.{name}") for name, value in fields.items()})


class Configured:
    """Base of the models that are built from a frozen config dataclass: their spec is that config and nothing else."""

    registered_name: ClassVar[str]
    config_type: ClassVar[type[Any]]
    config: Any

    def spec(self) -> dict[str, Any]:
        """Returns the model as JSON-ready data."""
        return {"kind": self.registered_name, **to_spec(self.config)}

    @classmethod
    def from_spec(cls, fields: dict[str, Any]) -> Self:
        """Builds the untrained model from `spec`; never loads or downloads weights.

        Args:
            fields: The output of `spec`, without ``kind``.

        Raises:
            ConfigError: for a field of the wrong type or range.
        """
        return cls(build(cls.config_type, fields, "model"))  # type: ignore[reportCallIssue]


def coerce(value: Any, hint: Any, where: str) -> Any:
    """Returns ``value`` as the type ``hint`` says (lists become tuples, integers floats), or raises.

    Raises:
        ConfigError: ``"<where> must be <type>, got <value>"``.
    """
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _coerce_union(value, hint, where)
    if origin is typing.Literal:
        if value in get_args(hint):
            return value
    elif origin is tuple:
        return _coerce_tuple(value, hint, where)
    elif origin is dict and isinstance(value, dict):
        item = get_args(hint)[1]
        return {str(k): coerce(v, item, f"{where}.{k}") for k, v in value.items()}
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif (hint is int and isinstance(value, int) and not isinstance(value, bool)) or (
        hint in (str, bool, type(None)) and isinstance(value, hint)
    ):
        return value
    elif dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return build(hint, value, where)
    elif isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, hint):
        return value
    name = getattr(hint, "__name__", str(hint))
    raise ConfigError(f"{where} must be {name}, got {type(value).__name__} {value!r:.60}")


def _coerce_union(value: Any, hint: Any, where: str) -> Any:
    for option in get_args(hint):
        try:
            return coerce(value, option, where)
        except ConfigError:
            continue
    wanted = " or ".join(getattr(o, "__name__", str(o)) for o in get_args(hint))
    raise ConfigError(f"{where} must be {wanted}, got {type(value).__name__} {value!r:.60}")


def _coerce_tuple(value: Any, hint: Any, where: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where} must be a list, got {type(value).__name__} {value!r:.60}")
    wanted = get_args(hint)
    if len(wanted) == 2 and wanted[1] is Ellipsis:
        return tuple(coerce(v, wanted[0], f"{where}[{i}]") for i, v in enumerate(value))
    if len(value) != len(wanted):
        raise ConfigError(f"{where} must have {len(wanted)} entries, got {len(value)}")
    return tuple(coerce(v, w, f"{where}[{i}]") for i, (v, w) in enumerate(zip(value, wanted, strict=True)))
