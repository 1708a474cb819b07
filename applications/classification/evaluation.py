"""Evaluating a bundle on a source: the same path as training's, with the bundle's own blocks."""

from pathlib import Path
from typing import Any

from applications.classification.data import ImageSource, read_source
from common.data.items import item_name, read_field
from common.deploy.predictor import Predictor


def evaluate_source(predictor: Predictor, source: ImageSource, part: str | None = None) -> dict[str, float]:
    """Returns the metrics of a predictor on one part of a source (the test part, else everything, when None)."""
    rows = [int(row) for row in source.part(part)]
    images = read_field(source.get_x, source.items, "get_x")
    labels = read_field(source.get_y, source.items, "get_y")
    names = [item_name(source.items, row) for row in rows]
    return predictor.evaluate([[images[row] for row in rows], [labels[row] for row in rows]], names)


def evaluate(
    predictor: Predictor, data: str | Path | None, split: str | None = None, **columns: Any
) -> dict[str, float]:
    """Returns the metrics of a predictor on data in any form that `read_source` takes.

    Args:
        predictor: Of a classification bundle.
        data: The source.
        split: ``train``, ``valid`` or ``test``; None: the test part where there is one, else everything.
        columns: The column names and the delimiter of `read_source`.

    Raises:
        DataError: if the data is not there, has no such part, or has classes that the bundle has not.
    """
    return evaluate_source(predictor, read_source(data, **columns), split)
