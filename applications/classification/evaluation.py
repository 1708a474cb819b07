"""Evaluating a bundle on a source: the same path as training's, with the bundle's own blocks."""

from pathlib import Path
from typing import Any

from applications.classification.data import read_source
from common.deploy.predictor import Predictor


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
    return predictor.evaluate_source(read_source(data, **columns), split, on_error)
