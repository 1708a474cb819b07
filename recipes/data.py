"""``cookbook data``: lists the public data sets that have a card, and fetches one of them."""

import argparse
import contextlib
import json
import shlex
import sys
import time
from collections.abc import Collection
from typing import Any

from recipes.options import Parser

LIMIT_GB = 5.0


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``list`` and ``get`` with their options.

    Args:
        parser: The parser of ``cookbook data``.
    """
    actions = parser.add_subparsers(dest="action", metavar="list|get", required=True, parser_class=Parser)
    listing = actions.add_parser("list", help="list the data sets that have a card", allow_abbrev=False)
    listing.add_argument("--json", action="store_true", help="print one JSON array")
    get = actions.add_parser("get", help="fetch a data set", allow_abbrev=False)
    get.add_argument("name", metavar="NAME", help="one of those that cookbook data list names")
    get.add_argument("--to", metavar="FOLDER", help="where it shall lie, new or empty (default data/NAME)")
    get.add_argument(
        "--limit-gb", type=float, default=LIMIT_GB, metavar="X",
        help=f"the most that may come, and that it may unpack to, in 10^9 bytes (default {LIMIT_GB:g})",
    )  # fmt: skip


def run_data(arguments: Any, recipes: Collection[str]) -> None:
    """Runs ``cookbook data list`` or ``cookbook data get``.

    Args:
        arguments: The parsed arguments.
        recipes: The names of the recipes, to name the one that reads the set.
    """
    if arguments.action == "list":
        _list(arguments.json)
    else:
        _get(arguments, recipes)


def _list(as_json: bool) -> None:
    from common.catalogue.cards import read_cards

    records = [_record(card) for card in read_cards().values()]
    if as_json:
        print(json.dumps(records, indent=2, ensure_ascii=False))
        return
    columns = ("name", "domain", "size", "licence", "how")
    rows = [columns, *((r["name"], ", ".join(r["domain"]), _size(r), r["licence"], r["how"]) for r in records)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns) - 1)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]))


def _record(card: Any) -> dict[str, Any]:
    how = {
        "url": "by address, checked by sha256",
        "by hand": f"by hand: {card.files[0].address if card.files else card.source}",
    }.get(card.way, f"{card.library} {card.loader}")
    return {
        "name": card.key,
        "title": card.name,
        "domain": list(card.domain),
        "items": sum(card.counts.values()),
        "download_mb": card.megabytes,
        "licence": card.licence.name,
        "asks": card.licence.asks,
        "way": card.way,
        "how": how,
        "source": card.source,
    }


def _size(record: dict[str, Any]) -> str:
    megabytes = record["download_mb"]
    if megabytes is None:
        return f"{record['items']:,}"
    return f"{record['items']:,} ({f'{megabytes:,.3g} MB' if megabytes < 1000 else f'{megabytes / 1000:.3g} GB'})"


def _get(arguments: Any, recipes: Collection[str]) -> None:
    from pathlib import Path

    from common.catalogue.cards import find_card
    from common.catalogue.download import DownloadOptions
    from common.catalogue.fetch import fetch
    from common.errors import in_range

    in_range("limit_gb", arguments.limit_gb, 0, 1e6, open_low=True)
    card = find_card(arguments.name)
    folder = Path(arguments.to or f"data/{card.key}")
    options = DownloadOptions(limit_bytes=max(1, int(arguments.limit_gb * 1e9)))
    with _Shown() as shown:
        found = fetch(card, folder, options=options, progress=shown.update)
    licence = card.licence.name + (f" ({card.licence.spdx})" if card.licence.spdx else "")
    print(f"{card.name} {'lies' if found.fresh else 'was there already'} in {found.folder}")
    print(f"licence: {licence}: {card.licence.asks}")
    if found.data is not None and card.recipe in recipes:
        print(f"use it: cookbook run {card.recipe} --data {shlex.quote(str(found.data))}")
    elif found.data is not None:
        print(f"data: {found.data} (no recipe reads {card.domain[0]} yet)")
    else:
        print(f"no recipe reads it as it is: see {card.source}")


class _Shown(contextlib.AbstractContextManager["_Shown"]):
    """A progress bar in a terminal, one line per file in a pipe; both on standard error."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.task: Any = None
        self.name, self.received, self.started = "", 0, 0.0

    def update(self, name: str, received: int, total: int | None) -> None:
        """Shows the progress of a file; called for every received piece."""
        if name != self.name:
            self._end()
            self.name, self.started = name, time.perf_counter()
            self._begin(total)
        self.received = received
        if self.bar is not None:
            self.bar.update(self.task, completed=received, total=total)

    def __exit__(self, *_: object) -> None:
        self._end()

    def _begin(self, total: int | None) -> None:
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as Speed

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), Speed(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=Console(stderr=True))
        self.bar.start()
        self.task = self.bar.add_task(self.name, total=total)

    def _end(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
        elif self.name:
            from common.catalogue.partial import size_text

            seconds = time.perf_counter() - self.started
            print(f"{self.name}: {size_text(self.received)} in {seconds:.1f} s", file=sys.stderr)
        self.name = ""
