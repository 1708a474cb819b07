"""The report of a run: one self-contained HTML file with embedded pictures, which needs no network.

Floor: show; may import task and below. Used by: recipes.
"""

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.files import write_text

STYLE = """:root{color-scheme:light dark;--ink:#222;--soft:#666;--line:#ddd;--ground:#fff;--box:#f4f6f8}
@media (prefers-color-scheme:dark){:root{--ink:#ddd;--soft:#999;--line:#444;--ground:#17191c;--box:#22262b}}
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:var(--ink);
background:var(--ground)}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem;border-bottom:1px solid var(--line)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.25rem .8rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
td:first-child,th:first-child{text-align:left}
dl{background:var(--box);padding:.8rem 1rem;border-radius:.4rem;margin:0;
display:grid;grid-template-columns:auto 1fr;gap:.3rem 1rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
img{max-width:100%;background:#fff}figure{margin:1rem 0}figcaption,summary{color:var(--soft)}
pre{background:var(--box);padding:.8rem;overflow-x:auto;white-space:pre-wrap}
@media (max-width:40rem){body{margin:1rem auto}dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5rem}}"""
LOOK_FIRST = ("To look at", "Set right", "Items left out", "Largest losses", "Where it errs")
"""How the headings begin of what a person should look at first."""
MOST_ROWS = 12
"""Rows of a table that are shown at once; a longer one is folded behind them."""


def digits(value: float) -> str:
    """Returns a number with the digits that mean something.

    Examples:
        >>> [digits(v) for v in (0.92204, 0.00001234, 177.7912, 40789.3, 3.0)]
        ['0.9220', '1.23e-05', '177.79', '40,789', '3.0000']
    """
    if not math.isfinite(value) or value == 0:
        return f"{value:.4f}"
    formats = ((1000, ",.0f"), (10, ".2f"), (1e-3, ".4f"), (0, ".3g"))
    return format(value, next(form for least, form in formats if abs(value) >= least))


def _cell(value: Any) -> str:
    return digits(value) if isinstance(value, float) else html.escape(str(value))


def _anchor(heading: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in heading.lower())


@dataclass
class Report:
    """A page that is built section by section.

    Args:
        title: The page's title.
        parts: The sections' HTML, in order.
        lead: What stands on the first screen: a question and its answer each.
        headings: Of the sections so far.
    """

    title: str
    parts: list[str] = field(default_factory=list[str])
    lead: dict[str, str] = field(default_factory=dict[str, str])
    headings: list[str] = field(default_factory=list[str])

    def _add(self, heading: str, body: str) -> None:
        self.headings.append(heading)
        self.parts.append(f'<h2 id="{_anchor(heading)}">{html.escape(heading)}</h2>{body}')

    def text(self, heading: str, text: str) -> None:
        """Adds a section of preformatted plain text."""
        self._add(heading, f"<pre>{html.escape(text)}</pre>")

    def table(self, heading: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds a table; the columns are those of the first row."""
        if not rows:
            return
        names = list(rows[0])
        head = "<tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in names) + "</tr>"
        lines = ["<tr>" + "".join(f"<td>{_cell(row.get(n, ''))}</td>" for n in names) + "</tr>" for row in rows]
        body = f'<div class="wide"><table>{head}{"".join(lines[:MOST_ROWS])}</table></div>'
        if len(lines) > MOST_ROWS:
            more = f"<table>{head}{''.join(lines[MOST_ROWS:])}</table>"
            body += f'<details><summary>{len(lines) - MOST_ROWS} more</summary><div class="wide">{more}</div></details>'
        self._add(heading, body)

    def picture(self, heading: str, png: bytes, caption: str = "") -> None:
        """Adds a picture, its PNG bytes embedded in the page."""
        data = base64.b64encode(png).decode("ascii")
        image = f'<img alt="{html.escape(heading)}" src="data:image/png;base64,{data}">'
        self._add(heading, f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>")

    def write(self, path: str | Path) -> None:
        """Writes the page whole or not at all."""
        meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        head = f'<!doctype html><html lang="en">{meta}<title>{html.escape(self.title)}</title><style>{STYLE}</style>'
        lead = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in self.lead.items())
        first = [heading for heading in self.headings if heading.startswith(LOOK_FIRST)]
        if lead and first:
            links = " · ".join(f'<a href="#{_anchor(heading)}">{html.escape(heading)}</a>' for heading in first)
            lead += f"<dt>look at first</dt><dd>{links}</dd>"
        body = f"<h1>{html.escape(self.title)}</h1>" + (f"<dl>{lead}</dl>" if lead else "") + "\n".join(self.parts)
        write_text(Path(path), f"{head}{body}</html>\n")
