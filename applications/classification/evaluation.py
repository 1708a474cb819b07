"""Evaluating a bundle on a source: the same path as training's, with the bundle's own blocks."""

from pathlib import Path
from typing import Any

from applications.classification.data import ImageSource, read_source
from common.data.items import item_name, read_field
from common.deploy.predictor import Predictor
from common.errors import ItemError


def evaluate_source(
    predictor: Predictor, source: ImageSource, part: str | None = None, on_error: str = "raise"
) -> dict[str, float]:
    """Returns the metrics of a predictor on one part of a source (the test part, else everything, when None)."""
    rows = [int(row) for row in source.part(part)]
    failed: dict[int, ItemError] | None = None if on_error == "raise" else {}  # their None is left out as no label
    images = read_field(source.get_x, source.items, "get_x", failed)
    labels = read_field(source.get_y, source.items, "get_y", failed)
    names = [item_name(source.items, row) for row in rows]
    raws = [[images[row] for row in rows], [labels[row] for row in rows]]
    return predictor.evaluate(raws, names, on_error=on_error)


def evaluate(
    predictor: Predictor, data: str | Path | None, split: str | None = None, on_error: str = "raise", **columns: Any
) -> dict[str, float]:
    """Returns the metrics of a predictor on data in any form that `read_source` takes.

    Args:
        predictor: Of a classification bundle.
        data: The source.
        split: ``train``, ``valid`` or ``test``; None: the test part where there is one, else everything.
        on_error: What happens to an item that cannot be used: ``raise`` or ``skip``.
        columns: The column names and the delimiter of `read_source`.

    Raises:
        DataError: if the data is not there, has no such part, or has classes that the bundle has not.
    """
    return evaluate_source(predictor, read_source(data, **columns), split, on_error)
