"""The command line: ``cookbook``. Each verb imports only what it needs, so that help is fast."""

import errno
import json
import os
import shlex
import signal
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from recipes.data import add_data_arguments, run_data
from recipes.discovery import find_recipe, recipe_names, summary
from recipes.options import CommonOptions, Parser, add_arguments

if TYPE_CHECKING:
    from common.deploy import Domain


def _parser() -> Parser:
    parser = Parser(prog="cookbook", description="From raw files to a model in production, one way in every domain.")
    parser.allow_abbrev = False
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)

    def verb(name: str, text: str) -> Parser:
        made = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
        assert isinstance(made, Parser)
        return made

    verb("list", "list the recipes")
    demo = verb("demo", "run every recipe, quick, on embedded data; one HTML page of results")
    demo.add_argument("--out", default="runs/demo", help="the folder of the results (default runs/demo)")
    check = verb("check", "look at data before training: what cannot be used, leaks, classes, shapes")
    check.add_argument("what", metavar="RECIPE|DATA", help="a recipe, or data of which one recipe only can make sense")
    check.add_argument("rest", nargs="...", metavar="OPTION", help="the options of cookbook run RECIPE")
    run = verb("run", "train: data to metrics, pictures, report and bundle")
    run.add_argument("recipe", metavar="RECIPE", help="one of those that cookbook list names")
    run.add_argument("rest", nargs="...", metavar="OPTION", help="cookbook run RECIPE --help lists them")
    evaluate = verb("evaluate", "measure a bundle on data")
    evaluate.add_argument("bundle", metavar="BUNDLE", help="the bundle's folder")
    _add_evaluation(evaluate)
    evaluate.add_argument("rest", nargs="...", metavar="OPTION", help="cookbook evaluate BUNDLE --help lists its own")
    predict = verb("predict", "predict with a bundle")
    predict.add_argument("bundle", metavar="BUNDLE", help="the bundle's folder")
    predict.add_argument("--json", action="store_true", help="print one JSON object a line")
    predict.add_argument(
        "rest",
        nargs="...",
        metavar="INPUT",
        help="files; cookbook predict BUNDLE --help lists its own options",
    )
    add_data_arguments(verb("data", "list the public data sets that have a card, and fetch one"))
    return parser


def _add_evaluation(parser: Parser, domain: "Domain | None" = None) -> None:
    parser.add_argument("--data", default=None, help="the data, in any form that the recipe takes")
    parser.add_argument("--split", default=None, metavar="PART", help="train, valid or test (default: test, else all)")
    parser.add_argument("--on-error", default="raise", choices=("raise", "skip"), help="for items that cannot be used")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    if domain is not None and domain.read is not None:
        group = parser.add_argument_group(f"how {domain.name} data is read (default: as the bundle's was)")
        add_arguments(group, domain.reading, unset=True)


def _parse_rest(parser: Parser, arguments: Namespace, domain: "Domain") -> Namespace:
    """Parses the arguments after the bundle; an option of another domain is an error that names that domain."""
    from common.deploy.domain import owners
    from common.errors import ConfigError

    found, unknown = parser.parse_known_args(arguments.rest, arguments)
    for word in unknown:
        flag = word.split("=")[0]
        whose = owners(flag[2:].replace("-", "_")) if flag.startswith("--") else []
        if whose:
            raise ConfigError(f"{flag} is an option of {' and '.join(whose)}, this is a bundle of {domain.name}")
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return found


def _list(_: Namespace) -> None:
    for name in recipe_names():
        print(f"{name:20} {summary(find_recipe(name))}")


def _run(arguments: Namespace) -> None:
    recipe = find_recipe(arguments.recipe)
    parser = Parser(prog=f"cookbook run {arguments.recipe}", description=summary(recipe), allow_abbrev=False)
    add_arguments(parser, recipe.Options)
    options = recipe.Options(**vars(parser.parse_args(arguments.rest)))
    metrics = recipe.run(options)
    from recipes.run import print_metrics

    print_metrics({arguments.recipe: metrics})


def _check(arguments: Namespace) -> None:
    from common.errors import DataError
    from recipes.check import check_data, recipe_of

    name, rest = arguments.what, list(arguments.rest)
    if name not in recipe_names():
        name, rest = recipe_of(name, rest), ["--data", name, *rest]
    recipe = find_recipe(name)
    parser = Parser(prog=f"cookbook check {name}", description=summary(recipe), allow_abbrev=False)
    add_arguments(parser, recipe.Options)
    report = check_data(recipe, recipe.Options(**vars(parser.parse_args(rest))))
    print(report)
    if not report.ok:
        raise DataError(f"{len(report.failures)} items cannot be used, {len(report.leaks)} leak between the parts")


def _demo(arguments: Namespace) -> None:
    from pathlib import Path

    from recipes.run import print_metrics, write_index

    out = Path(arguments.out)
    results: dict[str, dict[str, float]] = {}
    for name in recipe_names():
        recipe = find_recipe(name)
        results[name] = recipe.run(recipe.Options(quick=True, out=str(out / name)))
    write_index(out / "index.html", results)
    print_metrics(results)
    print(f"report: {out / 'index.html'}")


def _evaluate(arguments: Namespace) -> None:
    from dataclasses import fields

    from common.deploy import Predictor, evaluate
    from recipes.run import print_metrics

    predictor = Predictor(arguments.bundle)
    domain = predictor.domain
    parser = Parser(prog=f"cookbook evaluate {arguments.bundle}", allow_abbrev=False)
    _add_evaluation(parser, domain)
    found = _parse_rest(parser, arguments, domain)
    names = [field.name for field in fields(domain.reading)]
    reading = {name: getattr(found, name) for name in names if hasattr(found, name)}
    metrics = evaluate(predictor, found.data, found.split, found.on_error, notes=_note, **reading)
    if found.json:
        print(json.dumps(metrics, sort_keys=True))
    else:
        print_metrics({arguments.bundle: metrics})


def _predict(arguments: Namespace) -> None:
    from common.deploy import Predictor
    from recipes.predict import check_predict, predict, predict_parser

    if not arguments.rest:
        Parser(prog=f"cookbook predict {arguments.bundle}").error("the following arguments are required: INPUT")
    predictor = Predictor(arguments.bundle)
    domain = predictor.domain
    found = _parse_rest(predict_parser(arguments.bundle, domain), arguments, domain)
    check_predict(found)
    predict(predictor, found, _note)


VERBS: dict[str, Callable[[Namespace], None]] = {
    "list": _list,
    "demo": _demo,
    "check": _check,
    "run": _run,
    "evaluate": _evaluate,
    "predict": _predict,
    "data": lambda arguments: run_data(arguments, recipe_names()),
}


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        advice = ": free some space and run again" if error.errno == errno.ENOSPC else ""
        return f"{error.filename or 'writing'}: {error.strerror}{advice}"
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


def _note(message: Warning | str, *_: Any) -> None:
    print(f"cookbook: note: {message}", file=sys.stderr)


def _stopped(stop: KeyboardInterrupt, given: Sequence[str]) -> int:
    """Prints how to resume after Ctrl-C or SIGTERM, and returns the exit code that a shell gives for the signal."""
    epoch: int | None = getattr(stop, "epoch", None)  # of a fit: see common.train.Interrupted
    message = "cookbook: stopped"
    if epoch is not None:
        message += f" in epoch {epoch} of {getattr(stop, 'epochs', epoch)}"
        again = shlex.join(["cookbook", *given, *([] if "--resume" in given else ["--resume"])])
        resumable = getattr(stop, "folder", None) is not None and given[0] == "run"
        message += f"; go on with: {again}" if resumable else "; no checkpoint is kept"
    print(message, file=sys.stderr)
    return 128 + int(getattr(stop, "signal", signal.SIGINT))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0, 1 for an error (one sentence), 2 for wrong usage, 130 for Ctrl-C."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        parsed = _parser().parse_args(given)
        with warnings.catch_warnings():
            warnings.showwarning = _note
            VERBS[parsed.verb](parsed)
    except KeyboardInterrupt as stop:
        return _stopped(stop, given)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        from common.errors import CookbookError

        if os.environ.get("COOKBOOK_DEBUG"):
            raise
        known = isinstance(error, (CookbookError, OSError))
        detail = "" if known else f" ({type(error).__name__}; COOKBOOK_DEBUG=1 shows where)"
        print(f"cookbook: error: {_sentence(error)}{detail}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())


__all__ = ["CommonOptions", "main"]
