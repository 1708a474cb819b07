"""Options of a recipe as a dataclass, and the command-line arguments made from it. Imports nothing heavy."""

import argparse
import dataclasses
import difflib
import types
import typing
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin

from common.spec import option

_T = TypeVar("_T")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence with similar options."""

    def knows(self, word: str) -> bool:
        """Whether a word such as ``--size`` or ``--size=96`` is one of its options."""
        return word.split("=")[0] in self._option_string_actions

    def error(self, message: str) -> NoReturn:
        """Prints the sentence and ends with exit code 2."""
        marker = "unrecognized arguments: "
        if message.startswith(marker):
            wrong = next((w for w in message[len(marker) :].split() if w.startswith("-")), message[len(marker) :])
            message = f"{wrong} is not an option here{near(wrong.split('=')[0], list(self._option_string_actions))}"
        self.exit(2, f"cookbook: error: {message} (see {self.prog} --help)\n")


Arguments = argparse.ArgumentParser | argparse._ArgumentGroup  # pyright: ignore[reportPrivateUsage]


def near(name: str, known: list[str]) -> str:
    """Returns ``: did you mean …?`` for the nearest known names, or nothing."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return ": did you mean " + " or ".join(close) + "?" if close else ""


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionOptions(CommonOptions):
    """Options of the recipes that train a network on images; a recipe may override defaults and help texts."""

    arch: str = option("small_resnet", "small_resnet or one of torchvision's models, such as mobilenet_v2")
    pretrained: bool = option(False, "start from ImageNet weights and fine-tune")
    weights: str | None = option(None, "which of torchvision's weights, such as IMAGENET1K_V1")
    epochs: int | None = option(None, "epochs (default: by the data and the weights)")
    lr: float | None = option(None, "peak learning rate (default: found for each way of training)")
    batch_size: int | None = option(None, "images a step (default: by the data)")
    augment: bool = option(True, "random flips, crops, turns and light in training")
    flip: bool = option(True, "mirror images left and right in training; --no-flip where left and right differ")
    valid_pct: float | None = option(None, "share of train that validates, where the data has no such part")
    precision: str = option("no", "no, bf16 or fp16")
    resume: bool = option(False, "go on from the newest sound checkpoint in OUT")

    def __post_init__(self) -> None:
        from common.errors import ConfigError, in_range

        for name in ("epochs", "batch_size"):
            if (value := getattr(self, name)) is not None:
                in_range(name, value, 1, 1_000_000)
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise ConfigError(f"lr must be above 0 and finite, got {self.lr}")
        if self.valid_pct is not None:
            in_range("valid_pct", self.valid_pct, 0, 1, open_low=True, open_high=True)
        if self.pretrained and self.arch == "small_resnet":
            raise ConfigError("pretrained needs an arch that has weights, such as --arch mobilenet_v2")
        if self.weights and not self.pretrained:
            raise ConfigError("weights needs --pretrained")


def chosen(given: _T | None, default: _T) -> _T:
    """Returns the given value, or the default if it is None."""
    return default if given is None else given


def add_arguments(parser: Arguments, options: type[Any], *, unset: bool = False) -> None:
    """Adds one ``--name`` for each field of an options dataclass; a boolean gets ``--no-name`` too.

    Args:
        parser: The parser, or a group of one.
        options: The dataclass.
        unset: Whether options that are not given are left out of the result; else they have the field's default.
    """
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        hint = hints[field.name]
        flag = "--" + field.name.replace("_", "-")
        kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        kind = next(k for k in kinds if k is not type(None))
        text, default = field.metadata["help"], argparse.SUPPRESS if unset else field.default
        if kind is bool:
            parser.add_argument(
                flag, dest=field.name, action=argparse.BooleanOptionalAction, default=default, help=text
            )
            continue
        shown = "" if unset or field.default is None else f" (default {field.default})"
        name = field.metadata.get("metavar", {int: "N", float: "X"}.get(kind, field.name.upper()))
        parser.add_argument(flag, dest=field.name, type=kind, default=default, metavar=name, help=text + shown)


__all__ = ["CommonOptions", "Parser", "VisionOptions", "add_arguments", "chosen", "near", "option"]
