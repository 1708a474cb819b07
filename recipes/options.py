"""Options of a recipe as a dataclass, and the command-line arguments made from it. Imports nothing heavy."""

import argparse
import dataclasses
import difflib
import types
import typing
from typing import Any, NoReturn, Union, get_args, get_origin


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence with the near options."""

    def error(self, message: str) -> NoReturn:
        """Prints the sentence and ends with exit code 2."""
        marker = "unrecognized arguments: "
        if message.startswith(marker):
            wrong = next((w for w in message[len(marker) :].split() if w.startswith("-")), message[len(marker) :])
            message = f"{wrong} is not an option here{near(wrong.split('=')[0], list(self._option_string_actions))}"
        self.exit(2, f"cookbook: error: {message} (see {self.prog} --help)\n")


def near(name: str, known: list[str]) -> str:
    """Returns ``: did you mean …?`` for the nearest known names, or nothing."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return ": did you mean " + " or ".join(close) + "?" if close else ""


def option(default: Any, help: str, **more: Any) -> Any:
    """Returns a dataclass field with its help text."""
    return dataclasses.field(default=default, metadata={"help": help, **more})


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """Options that every recipe has."""

    data: str | None = option(None, "the data; without it an embedded set that needs no network")
    out: str | None = option(None, "the folder of the results (default runs/RECIPE)")
    quick: bool = option(False, "a short run that shows the way")
    seed: int = option(0, "of splits, order, augmentation and weights")
    device: str = option("auto", "auto, cpu, cuda or mps")
    on_error: str = option(
        "raise", "for an item that cannot be used: raise, skip, or quarantine (OUT/quarantine.jsonl)"
    )
    cache_dir: str | None = option(None, "a folder to keep decoded items in, for later runs; memory without it")


def add_arguments(parser: argparse.ArgumentParser, options: type[Any]) -> None:
    """Adds one ``--name`` for each field of an options dataclass; a boolean gets ``--no-name`` too."""
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        hint = hints[field.name]
        flag = "--" + field.name.replace("_", "-")
        kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        kind = next(k for k in kinds if k is not type(None))
        text = field.metadata["help"]
        if kind is bool:
            parser.add_argument(
                flag, dest=field.name, action=argparse.BooleanOptionalAction, default=field.default, help=text
            )
            continue
        shown = "" if field.default is None else f" (default {field.default})"
        name = field.metadata.get("metavar", {int: "N", float: "X"}.get(kind, field.name.upper()))
        parser.add_argument(flag, dest=field.name, type=kind, default=field.default, metavar=name, help=text + shown)
