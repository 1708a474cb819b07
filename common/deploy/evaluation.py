"""Measuring a bundle on data: which of its items are measured, and whether the model was trained on them.

Floor: deploy; may import show and below. Used by: its own room.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from common.deploy.predictor import Predictor
from common.errors import ConfigError, DataError
from common.sources.source import Source
from common.sources.split_files import known_parts

MANIFEST = "split.csv"
"""What a run writes beside its bundle: the part of each of its items."""
NEW = "new"


def evaluate(
    predictor: Predictor,
    data: str | Path | None,
    split: str | None = None,
    on_error: str = "raise",
    *,
    notes: Callable[[str], None] | None = None,
    **reading: Any,
) -> dict[str, float]:
    """Returns the metrics of a predictor on data in any format that its domain reads.

    Where the run that made the bundle left its split beside it, items that it trained on are known again.

    Args:
        predictor: A predictor of a bundle, or of a model in memory.
        data: The data; None: the domain's embedded set.
        split: ``train``, ``valid`` or ``test``; None: the test part where there is one, else all that did not train,
            else everything.
        on_error: What happens to an item that cannot be used: ``raise`` or ``skip``.
        notes: Gets a sentence on what is measured.
        reading: Reading options, where the data is laid out differently from the bundle's training data.

    Raises:
        ConfigError: if the domain reads no files, or has no such option.
        DataError: if the data is missing, has no such part, or has classes that the bundle does not know.
    """
    domain = predictor.domain
    options = domain.options(predictor.reading, **reading)
    if domain.read is None:
        raise ConfigError(
            f"the domain {domain.name} reads no files: give the raw values to Predictor.evaluate, or a source to "
            "Predictor.evaluate_source"
        )
    source, why = with_known_parts(domain.read(data, options, predictor), predictor)
    found = predictor.evaluate_source(source, split, on_error)
    if notes is not None:
        notes(f"{what_is_measured(source, split)}{why}")
    return found


def with_known_parts(source: Source, predictor: Predictor) -> tuple[Source, str]:
    """Returns a source whose items have the parts that the bundle's run gave them, and in words how that is known.

    The source's own valid and test parts stay as they are.

    Args:
        source: The data.
        predictor: Of a bundle.
    """
    manifest = None if predictor.bundle is None else Path(predictor.bundle.path).absolute().parent / MANIFEST
    if manifest is None or not manifest.is_file():
        unknown = "; nothing tells whether it was trained on some of them (no split.csv beside the bundle)"
        return source, unknown if source.parts is None else ""
    try:
        known = known_parts(manifest, source.items)
    except DataError as error:
        return source, f"; which of them it was trained on is not known: {error}"
    own = np.full(len(source.items), NEW, dtype=object) if source.parts is None else source.parts.astype(object)
    open_to = own == (NEW if source.parts is None else "train")
    parts = np.where(open_to & (known != ""), known, own)
    if not (known != "").any():
        return source, "; the run that made the bundle had none of them" if source.parts is None else ""
    return replace(source, parts=parts), f"; the parts are those of {manifest.parent.name}/{MANIFEST}"


def what_is_measured(source: Source, split: str | None) -> str:
    """Returns in words how many items of which parts are measured.

    Args:
        source: The data, its parts known as far as they can be.
        split: As in `evaluate`.
    """
    rows = source.part(split)
    share = (
        f"{len(rows):,} items" if len(rows) == len(source.items) else f"{len(rows):,} of {len(source.items):,} items"
    )
    if source.parts is None:
        return f"measured on {share}"
    names = [name for name in ("train", "valid", "test", NEW) if (source.parts[rows] == name).any()]
    trained = ", on which the model may have been trained" if names == ["train"] else ""
    return f"measured on {share} ({' and '.join(names)}{trained})"
