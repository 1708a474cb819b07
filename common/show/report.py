"""The report of a run: one self-contained HTML file with embedded pictures, which needs no network."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.files import write_text

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem;border-bottom:1px solid #ddd}table{border-collapse:collapse}
td,th{padding:.25rem .8rem;border-bottom:1px solid #eee;text-align:right}td:first-child,th:first-child{text-align:left}
img{max-width:100%}figcaption{color:#666}pre{background:#f6f6f6;padding:.8rem;overflow-x:auto}"""


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else html.escape(str(value))


@dataclass
class Report:
    """A page that is built section by section.

    Args:
        title: The page's title.
        parts: The sections' HTML, in order.
    """

    title: str
    parts: list[str] = field(default_factory=list[str])

    def text(self, heading: str, text: str) -> None:
        """Adds a section of preformatted plain text."""
        self.parts.append(f"<h2>{html.escape(heading)}</h2><pre>{html.escape(text)}</pre>")

    def table(self, heading: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds a table; the columns are those of the first row."""
        if not rows:
            return
        names = list(rows[0])
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        body = "".join("<tr>" + "".join(f"<td>{_cell(row.get(n, ''))}</td>" for n in names) + "</tr>" for row in rows)
        self.parts.append(f"<h2>{html.escape(heading)}</h2><table><tr>{head}</tr>{body}</table>")

    def picture(self, heading: str, png: bytes, caption: str = "") -> None:
        """Adds a picture, its PNG bytes embedded in the page."""
        data = base64.b64encode(png).decode("ascii")
        image = f'<img alt="{html.escape(heading)}" src="data:image/png;base64,{data}">'
        self.parts.append(
            f"<h2>{html.escape(heading)}</h2><figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def write(self, path: str | Path) -> None:
        """Writes the page whole or not at all."""
        head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(self.title)}</title>'
        body = f"<style>{STYLE}</style><h1>{html.escape(self.title)}</h1>" + "\n".join(self.parts) + "</html>\n"
        write_text(Path(path), head + body)
