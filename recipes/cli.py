"""The command line: ``cookbook``. Only what a verb needs is imported, so that help answers at once."""

import errno
import json
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from recipes.data import add_data_arguments, run_data
from recipes.options import CommonOptions, Parser, add_arguments, near

RECIPES: dict[str, tuple[str, str]] = {
    "classification": ("recipes.classification", "photos in class folders, a table or idx files to a classifier"),
    "detection": ("recipes.detection", "photos with boxes (Pascal VOC, COCO) to a detector"),
    "segmentation": ("recipes.segmentation", "images with masks to what each pixel is"),
    "tabular": ("recipes.tabular", "rows of numbers, categories, dates and texts to a class or a number"),
}
EVALUATE_OPTIONS = {
    **dict.fromkeys(("image_column", "label_column", "split_column", "label_delim"), "classification"),
    "annotations": "detection",
    "target": "tabular",
}
"""Options of ``cookbook evaluate`` beyond those of every domain, and whose each is."""


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
    run = verb("run", "train: data to metrics, pictures, report and bundle")
    run.add_argument("recipe", metavar="RECIPE", help=", ".join(RECIPES))
    run.add_argument("rest", nargs="...", metavar="OPTION", help="cookbook run RECIPE --help lists them")
    evaluate = verb("evaluate", "measure a bundle on data")
    evaluate.add_argument("bundle", metavar="BUNDLE", help="the bundle's folder")
    evaluate.add_argument("--data", default=None, help="the data, in any form that the recipe takes")
    evaluate.add_argument(
        "--split", default=None, metavar="PART", help="train, valid or test (default: test, else all)"
    )
    for name, domain in EVALUATE_OPTIONS.items():
        flag = "--" + name.replace("_", "-")
        evaluate.add_argument(flag, default=None, metavar="NAME", help=f"as in cookbook run {domain}")
    evaluate.add_argument(
        "--on-error", default="raise", choices=("raise", "skip"), help="for items that cannot be used"
    )
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")
    predict = verb("predict", "predict with a bundle")
    predict.add_argument("bundle", metavar="BUNDLE", help="the bundle's folder")
    predict.add_argument("inputs", nargs="+", metavar="INPUT", help="files")
    predict.add_argument("--json", action="store_true", help="print one JSON object a line")
    predict.add_argument(
        "--window", type=int, default=None, metavar="PX",
        help="look at large images through overlapping windows of PX pixels (detection, segmentation)",
    )  # fmt: skip
    add_data_arguments(verb("data", "list the public data sets that have a card, and fetch one"))
    return parser


def _recipe(name: str) -> Any:
    from common.errors import ConfigError

    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}{near(name, list(RECIPES))} (cookbook list names them)")
    return import_module(RECIPES[name][0])


def _list(_: Any) -> None:
    for name, (_home, text) in RECIPES.items():
        print(f"{name:20} {text}")


def _run(arguments: Any) -> None:
    module = _recipe(arguments.recipe)
    parser = Parser(
        prog=f"cookbook run {arguments.recipe}", description=module.__doc__.splitlines()[0], allow_abbrev=False
    )
    add_arguments(parser, module.Options)
    options = module.Options(**vars(parser.parse_args(arguments.rest)))
    metrics = module.run(options)
    from recipes.run import print_metrics

    print_metrics({arguments.recipe: metrics})


def _demo(arguments: Any) -> None:
    from pathlib import Path

    from recipes.run import print_metrics, write_index

    out = Path(arguments.out)
    results: dict[str, dict[str, float]] = {}
    for name in RECIPES:
        module = _recipe(name)
        results[name] = module.run(module.Options(quick=True, out=str(out / name)))
    write_index(out / "index.html", results)
    print_metrics(results)
    print(f"report: {out / 'index.html'}")


def _evaluate(arguments: Any) -> None:
    from common.deploy import Predictor
    from common.errors import ConfigError
    from common.registry import load_domain
    from recipes.run import print_metrics

    predictor = Predictor(arguments.bundle)
    assert predictor.bundle is not None
    name = predictor.bundle.domain
    given = {option: value for option in EVALUATE_OPTIONS if (value := getattr(arguments, option)) is not None}
    for option in given:
        if EVALUATE_OPTIONS[option] != name:
            flag = "--" + option.replace("_", "-")
            raise ConfigError(f"{flag} is an option of {EVALUATE_OPTIONS[option]}, this is a bundle of {name}")
    domain = load_domain(name)
    metrics = domain.evaluate(predictor, arguments.data, arguments.split, arguments.on_error, **given)
    if arguments.json:
        print(json.dumps(metrics, sort_keys=True))
    else:
        print_metrics({arguments.bundle: metrics})


def _predict(arguments: Any) -> None:
    from common.deploy import Predictor

    predictor = Predictor(arguments.bundle)
    names = arguments.inputs
    read_inputs = getattr(_domain(predictor), "read_inputs", None)
    if arguments.window is not None:
        records = (_through_windows(predictor, name, arguments.window) for name in names)
    elif read_inputs is not None:  # a file holds many inputs
        tables = {name: read_inputs(name) for name in names}
        names = [f"{name}, row {row}" for name, table in tables.items() for row in range(len(table))]
        records = (record for table in tables.values() for record in predictor.predict_many(table))
    else:
        records = predictor.predict_many(names)
    for name, record in zip(names, records, strict=True):
        words = predictor.task.brief(record)
        print(json.dumps({"input": name, **record}, ensure_ascii=False) if arguments.json else f"{name}: {words}")


def _domain(predictor: Any) -> Any:
    from common.registry import load_domain

    return load_domain(predictor.bundle.domain)


def _through_windows(predictor: Any, name: str, window_px: int) -> dict[str, Any]:
    from common.errors import ConfigError

    predict = getattr(_domain(predictor), "predict_sliding", None)
    if predict is None:
        raise ConfigError(f"--window is for detection and segmentation, this is a bundle of {predictor.bundle.domain}")
    return predict(predictor, name, window_px)


VERBS: dict[str, Callable[[Any], None]] = {
    "list": _list,
    "demo": _demo,
    "run": _run,
    "evaluate": _evaluate,
    "predict": _predict,
    "data": lambda arguments: run_data(arguments, RECIPES),
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
    """Says how to go on after Ctrl-C or SIGTERM, and returns the exit code that a shell gives for the signal."""
    epoch: int | None = getattr(stop, "epoch", None)  # of a fit: see common.train.Interrupted
    said = "cookbook: stopped"
    if epoch is not None:
        said += f" in epoch {epoch} of {getattr(stop, 'epochs', epoch)}"
        again = shlex.join(["cookbook", *given, *([] if "--resume" in given else ["--resume"])])
        kept = getattr(stop, "folder", None) is not None and given[0] == "run"
        said += f"; go on with: {again}" if kept else "; no checkpoint is kept"
    print(said, file=sys.stderr)
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


__all__ = ["RECIPES", "CommonOptions", "main"]
