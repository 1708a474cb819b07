"""Figures: grids of axes, lines, matrices and curves, without pyplot's global state; a notebook shows the result.

Floor: ground; imports only from the ground. Used by: data, show, train, applications, recipes.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from common.files import write_bytes


class Picture(Figure):
    """A matplotlib figure that a notebook displays as the value of a cell and that `save` writes atomically."""

    def png(self) -> bytes:
        """Returns the figure as PNG bytes."""
        out = io.BytesIO()
        FigureCanvasAgg(self).print_png(out)
        return out.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png()

    def save(self, path: str | Path) -> None:
        """Writes the figure as PNG."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(Path(path), self.png())


def picture(width: float, height: float) -> Picture:
    """Returns an empty picture of width x height inches."""
    return Picture(figsize=(width, height), layout="constrained", dpi=100)


def finish(figure: Picture, path: Any) -> Picture:
    """Writes the picture where a path is given, and returns it."""
    if path is not None:
        figure.save(path)
    return figure


def resize(figure: Picture, size: tuple[float, float] | None, path: Any) -> Picture:
    """Sets a picture's width and height in inches where given, and finishes it."""
    if size is not None:
        figure.set_size_inches(*size)
    return finish(figure, path)


def axes_grid(count: int, nrows: int | None, cell: float = 2.0) -> tuple[Picture, list[Any]]:
    """Returns a picture with ``count`` axes in a grid, about square unless the rows are given."""
    rows = nrows or max(1, round(math.sqrt(count)))
    columns = math.ceil(count / rows)
    figure = picture(columns * cell, rows * (cell + 0.3))
    figure.set_layout_engine("compressed")  # for images; the plain constrained layout shifts a little at every drawing
    every = list(np.asarray(figure.subplots(rows, columns, squeeze=False)).ravel())
    for spare in every[count:]:
        spare.set_axis_off()
    return figure, every[:count]


def fit_rows(figure: Picture, every: Sequence[Any], title: float = 0.3) -> None:
    """Sets the height of a grid's rows to the aspect ratio of the images in them, at the given width.

    Args:
        figure: A picture made by `axes_grid`.
        every: Its axes.
        title: Inches of each row for titles.
    """
    limits = [(axes.get_xlim(), axes.get_ylim()) for axes in every if axes.images]
    if limits:
        shape = max(abs(top - bottom) / abs(right - left) for (left, right), (bottom, top) in limits)
        rows, columns = every[0].get_gridspec().get_geometry()
        width = figure.get_figwidth()
        figure.set_figheight(rows * (width / columns * min(shape, 1.5) + title))


def matrix_figure(matrix: Any, labels: Sequence[str], *, normalize: bool = False, path: Any = None) -> Picture:
    """Draws a confusion matrix: rows are true classes, columns predictions.

    Args:
        matrix: Counts, (classes, classes).
        labels: The classes.
        normalize: Whether to show each row's shares instead of counts.
        path: A file to write the picture to.
    """
    counts = np.asarray(matrix, dtype=float)
    shown = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(3.5, 0.5 * len(labels) + 1.5)
    figure = picture(side, side)
    axes = figure.subplots()
    axes.imshow(shown, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(range(len(labels)), labels, fontsize=8, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(labels) <= 30:
        for i in range(len(labels)):
            for j in range(len(labels)):
                text = f"{shown[i, j]:.2f}" if normalize else f"{counts[i, j]:.0f}"
                axes.text(
                    j, i, text, ha="center", va="center", fontsize=8, color="white" if shown[i, j] > 0.5 else "black"
                )
    return finish(figure, path)


def line_figure(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_name: str,
    y_name: str,
    *,
    log_x: bool = False,
    marks: Mapping[str, float] | None = None,
    path: Any = None,
) -> Picture:
    """Draws named lines, with named vertical marks.

    Args:
        lines: The x and y values of each line, by its name.
        x_name: The label of the x axis.
        y_name: The label of the y axis.
        log_x: Whether the x axis is logarithmic.
        marks: Places on the x axis to mark, by their names.
        path: A file to write the picture to.
    """
    figure = picture(5, 3.2)
    axes = figure.subplots()
    for name, (x, y) in lines.items():
        axes.plot(list(x), list(y), label=name, marker="o" if len(list(x)) < 30 else None, markersize=3)
    for name, place in (marks or {}).items():
        axes.axvline(place, linestyle="--", color="grey", label=f"{name} {place:.2e}")
    if log_x:
        axes.set_xscale("log")
    axes.set_xlabel(x_name)
    axes.set_ylabel(y_name)
    axes.grid(alpha=0.3)
    if lines or marks:
        axes.legend(fontsize=8)
    return finish(figure, path)


def learning_curves(history: Sequence[Mapping[str, Any]], names: Sequence[str], *, path: Any = None) -> Picture:
    """Draws metrics over the epochs.

    Args:
        history: A Trainer's history.
        names: The metrics to draw; those that the records lack are left out.
        path: A file to write the picture to.
    """
    epochs = [float(record["epoch"]) for record in history]
    lines = {name: (epochs, [float(r[name]) for r in history]) for name in names if history and name in history[0]}
    return line_figure(lines, "epoch", ", ".join(lines), path=path)
