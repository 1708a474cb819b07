"""``cookbook predict``: inputs to records on the screen, in a table or JSON lines, and drawn on the images."""

import csv
import io
import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.options import Parser

if TYPE_CHECKING:
    from common.deploy import Domain, Predictor
    from common.task.task import Record, Task

ENDINGS = (".csv", ".jsonl")


def predict_parser(bundle: str, domain: "Domain") -> Parser:
    """Returns the parser of what stands behind the bundle: inputs, and options as far as the domain has them."""
    parser = Parser(prog=f"cookbook predict {bundle}", allow_abbrev=False)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="files, or folders of them")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument("--out", metavar="FILE", default=None, help="write to FILE.csv (a table) or FILE.jsonl instead")
    parser.add_argument(
        "--on-error", default="raise", choices=("raise", "skip"), help="for inputs that cannot be used (default raise)"
    )
    parser.add_argument(
        "--threshold", type=float, default=None, metavar="X", help="least confidence, 0 to 1 (default: the bundle's)"
    )
    parser.set_defaults(window=None, draw=None)
    if domain.opens is not None:
        parser.add_argument("--draw", metavar="DIR", default=None, help="draw each prediction on its image, into DIR")
    if domain.windows is not None:
        parser.add_argument(
            "--window", type=int, default=None, metavar="PX",
            help="look at large images through overlapping windows of PX pixels",
        )  # fmt: skip
    return parser


def check_predict(found: Namespace) -> None:
    """Checks what can be checked before the first prediction.

    Raises:
        ConfigError: naming the option.
    """
    from common.errors import ConfigError, in_range

    if found.out is not None and not found.out.lower().endswith(ENDINGS):
        raise ConfigError(f"out must end in {' or '.join(ENDINGS)}, got {found.out}")
    if found.threshold is not None:
        in_range("threshold", found.threshold, 0, 1)
    for name in ("out", "draw"):
        path = getattr(found, name)
        if path is not None and (Path(path).is_dir() if name == "out" else Path(path).is_file()):
            raise ConfigError(f"{name}={path} is a {'folder: name a file' if name == 'out' else 'file: name a folder'}")


class Lines:
    """What is written to ``--out``: put together in memory a record at a time, written whole at the end."""

    def __init__(self, path: str | None, task: "Task") -> None:
        self.path, self.task = None if path is None else Path(path), task
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, record: "Record | None", error: str = "") -> None:
        """Takes in a record, or why there is none."""
        if self.path is None:
            return
        if self.path.suffix.lower() == ".jsonl":
            self.rows.append({"input": name, **({"error": error} if record is None else record)})
        elif record is None:
            self.rows.append({"input": name, "error": error})
        else:
            self.rows += [{"input": name, **row} for row in self.task.rows(record)]

    def write(self) -> None:
        """Writes the file."""
        from common.files import write_text

        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.suffix.lower() == ".jsonl":
            write_text(self.path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows))
            return
        text = io.StringIO()
        names = dict.fromkeys(name for row in self.rows for name in row)
        writer = csv.DictWriter(text, list(names) or ["input"], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


def predict(predictor: "Predictor", found: Namespace, note: Any) -> None:
    """Predicts for all inputs, and prints or writes what was found.

    Args:
        predictor: Of the bundle.
        found: The parsed options.
        note: Gets sentences for the person who waits.
    """
    from common.deploy import files_of, predict_files
    from common.show.overlay import save_overlay
    from common.store.dirty import Failure

    domain = predictor.domain
    if found.threshold is not None:
        predictor.task = predictor.task.with_threshold(found.threshold)
    files, notes = files_of(domain, found.inputs)
    for text in notes:
        note(text)
    task, lines, drawn = predictor.task, Lines(found.out, predictor.task), set[str]()
    for name, record in predict_files(predictor, files, found.window, found.on_error):
        if isinstance(record, Failure):
            note(f"passed over: {record.item}: {record.reason}")
            lines.add(name, None, record.reason)
            continue
        lines.add(name, record)
        if found.draw is not None and domain.opens is not None:
            save_overlay(_place(Path(found.draw), Path(name), drawn), domain.opens(name), task.view(record))
        if found.out is None:
            words = json.dumps({"input": name, **record}, ensure_ascii=False) if found.json else None
            print(words or f"{name}: {task.brief(record)}", flush=True)
    lines.write()
    if found.out is not None:
        note(f"{len(lines.rows):,} rows in {found.out}")
    if drawn:
        note(f"{len(drawn):,} pictures in {found.draw}")


def _place(folder: Path, name: Path, drawn: set[str]) -> Path:
    """The picture's file: the input's name, with a number behind it where two inputs have one name."""
    stem, number = name.stem, 1
    while stem in drawn:
        number += 1
        stem = f"{name.stem}-{number}"
    drawn.add(stem)
    return folder / f"{stem}.png"
