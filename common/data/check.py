"""The report of `DataBlock.check`, made by running the same code path as training does.

Floor: data; may import store and below. Used by: recipes.
"""

import os
from collections import Counter as Tally
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from torch import Tensor

from common.blocks.block import Block, Target
from common.blocks.content import is_file
from common.blocks.values import Padded, Ragged
from common.data.loader import Loader, LoaderOptions
from common.data.prepared import Prepared
from common.errors import CookbookError, ItemError
from common.sources.items import subset, take
from common.sources.splits import PARTS
from common.store.dirty import Failure
from common.store.store import SampleStore

MOST_TOLD = 20  # groups of equal items with different labels that are listed individually
_UNREADABLE = (CookbookError, OSError, ValueError, TypeError, KeyError)


@dataclass(frozen=True)
class DataCheck:
    """The answer of `DataBlock.check`; printing it gives a readable page.

    Attributes:
        counts: Items of each part.
        classes: Items of each class in each part (where the target is a category).
        stages: Shape and type at each stage of the first item that passes.
        failures: Every item that cannot be used, in the order of the items.
        leaks: Groups of items with identical content (equal in every input, see `Block.token`) that lie in different
            parts.
        duplicates: Groups of items with identical content within one part.
        warnings: What is unusual but not wrong.
    """

    counts: dict[str, int]
    classes: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    stages: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    failures: list[Failure] = field(default_factory=list[Failure])
    leaks: list[list[str]] = field(default_factory=list[list[str]])
    duplicates: list[list[str]] = field(default_factory=list[list[str]])
    warnings: list[str] = field(default_factory=list[str])

    @property
    def ok(self) -> bool:
        """Whether no item fails and nothing leaks between the parts."""
        return not self.failures and not self.leaks

    def __str__(self) -> str:
        lines = ["items: " + ", ".join(f"{part} {n}" for part, n in self.counts.items())]
        for part, classes in self.classes.items():
            lines.append(f"classes of {part}: " + ", ".join(f"{name} {n}" for name, n in classes.items()))
        lines += [f"  {stage:28} {what}" for stage, what in self.stages]
        lines += [f"unusable: {f.item}: {f.reason} (stage: {f.stage})" for f in self.failures]
        lines += ["same content in different parts: " + ", ".join(group) for group in self.leaks]
        lines += ["same content twice: " + ", ".join(group) for group in self.duplicates]
        lines += ["note: " + warning for warning in self.warnings]
        lines.append("ok" if self.ok else f"{len(self.failures)} unusable, {len(self.leaks)} leaks")
        return "\n".join(lines)


def describe(value: Any) -> str:
    """Returns shape and type of an encoded value in words."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, dict):
        return ", ".join(f"{k}: {describe(v)}" for k, v in value.items())
    if isinstance(value, Padded):
        return f"{describe(value.values)}, valid: {describe(value.valid)}"
    if isinstance(value, Ragged):
        return f"{describe(value.values)}, offsets: {describe(value.offsets)}"
    if isinstance(value, (tuple, list)):
        return "; ".join(describe(v) for v in value)
    size = getattr(value, "size", None)
    return f"{type(value).__name__}" + (f" {size}" if isinstance(size, tuple) else "")


def inspect(prepared: Prepared, bs: int, limit: int | None) -> DataCheck:
    """Walks every item (or ``limit``) through the loader's path and a first batch through the pipeline."""
    split = prepared.split
    rows = [int(row) for part in PARTS for row in split[part]][:limit]
    part_of = {int(row): part for part in PARTS for row in split[part]}
    report = DataCheck(counts={part: len(split[part]) for part in PARTS if len(split[part])})
    _classes(prepared, report)
    report.warnings.extend(prepared.notes(rows))
    store = prepared.store()
    rows = [row for row in rows if not store.bad[row]]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda row: _try(store, row), rows))
    report.failures.extend(store.dirty.failures)
    report.failures.extend(r for r in results if isinstance(r, Failure))
    good = [row for row, r in zip(rows, results, strict=True) if not isinstance(r, Failure)]
    _shapes(report, [r for r in results if not isinstance(r, Failure)], rows, results, store)
    _same_content(prepared, good, part_of, store, report)
    if good:
        _stages(prepared, store, good, bs, report)
    return report


def _try(store: SampleStore, row: int) -> Any:
    try:
        return [None if value is None else describe(value) for value in store.encode(row)[0]]
    except ItemError as error:
        return Failure.of(error)


def _shapes(report: DataCheck, described: list[Any], rows: list[int], results: list[Any], store: SampleStore) -> None:
    """Reports the first item whose shape differs from the first one's: they cannot be stacked into a batch."""
    for i, field_columns in enumerate(store.fields):
        if field_columns.axes or field_columns.block.eager or not described:
            continue
        wanted = described[0][i]
        for row, result in zip(rows, results, strict=True):
            if not isinstance(result, Failure) and result[i] != wanted:
                reason = f"{result[i]}, but the first item is {wanted}: give item_tfms=Resize(…)"
                report.failures.append(Failure(store.name(row), "collate", reason))
                break


def _classes(prepared: Prepared, report: DataCheck) -> None:
    inputs = prepared.encoder.n_inp
    for block, raws in zip(prepared.encoder.y_blocks, prepared.raws[inputs:], strict=True):
        vocab: tuple[str, ...] | None = getattr(block, "vocab", None)
        if not vocab or type(block).labels is Block.labels:  # the words of a text are no classes
            continue
        for part in report.counts:
            tally = Tally(name for raw in subset(raws, prepared.split[part]) for name in block.labels(raw) or ())
            report.classes[part] = {name: tally.get(name, 0) for name in vocab}
            unknown = sorted(set(tally) - set(vocab))
            missing = [name for name in vocab if not tally.get(name)]
            if unknown:
                report.warnings.append(f"{part} has classes that train has not: {', '.join(unknown)}")
            if missing:
                report.warnings.append(f"{part} lacks the classes {', '.join(missing)}")
        if len(vocab) < 2 and block.target == Target.CATEGORY:
            report.warnings.append(f"there is only one class: {', '.join(vocab)}")


def _same_content(
    prepared: Prepared, rows: list[int], part_of: dict[int, str], store: SampleStore, report: DataCheck
) -> None:
    """Groups the items that are equal in every input, and warns of groups whose targets differ."""
    found = same_content(prepared, rows)
    for same in found.groups:
        parts = {part_of[row] for row in same}
        (report.leaks if len(parts) > 1 else report.duplicates).append([store.name(row) for row in same])
    for first, other in found.disagreeing[:MOST_TOLD]:
        report.warnings.append(
            f"same content, different labels: {store.name(first)} is {label_of(prepared, first)}, "
            f"{store.name(other)} is {label_of(prepared, other)}"
        )
    if len(found.disagreeing) > MOST_TOLD:
        more = len(found.disagreeing) - MOST_TOLD
        report.warnings.append(f"same content, different labels: {more:,} more groups of items")


class SameContent(NamedTuple):
    """Items that are equal in every input.

    Attributes:
        groups: The positions of the items of each group, two or more.
        disagreeing: Of each group whose targets differ two items that do.
    """

    groups: list[list[int]]
    disagreeing: list[tuple[int, int]]


def same_content(prepared: Prepared, rows: Sequence[int]) -> SameContent:
    """Returns the items that are equal in every input, by `Block.token`; of files only those of one size are read.

    Args:
        prepared: The items.
        rows: The positions to look at.
    """
    inputs = prepared.encoder.n_inp
    looked = _of_one_size(prepared, rows)
    groups: dict[tuple[bytes, ...], list[int]] = {}
    for row, key in zip(looked, _tokens(prepared, looked, slice(0, inputs)), strict=True):
        if key is not None:
            groups.setdefault(key, []).append(row)
    many = [same for same in groups.values() if len(same) > 1]
    grouped = [row for same in many for row in same]
    targets = dict(zip(grouped, _tokens(prepared, grouped, slice(inputs, None)), strict=True))
    return SameContent(many, [pair for same in many if (pair := _disagreeing(same, targets)) is not None])


def _of_one_size(prepared: Prepared, rows: Sequence[int]) -> list[int]:
    """Those of some items whose first input, where it is a file, has the size of another item's."""
    block, raws = prepared.encoder.blocks[0], prepared.raws[0]
    sizes: dict[int, int] = {}
    for row in rows:
        raw = take(raws, row) if block.from_file else None
        try:
            sizes[row] = os.stat(str(raw)).st_size if is_file(raw, block.from_file) else -1
        except OSError:
            continue  # it fails when it is opened, with its reason
    count = Tally(sizes.values())
    return [row for row, size in sizes.items() if size < 0 or count[size] > 1]


def _tokens(prepared: Prepared, rows: list[int], fields: slice) -> list[tuple[bytes, ...] | None]:
    """The content digests of some fields of items, encoded in bulk; None for an item that cannot be read."""
    columns: list[list[bytes | None]] = []
    for block, raws in list(zip(prepared.encoder.blocks, prepared.raws, strict=True))[fields]:
        chosen = subset(raws, rows)
        try:
            columns.append(list(block.token_many(chosen)))
        except _UNREADABLE:
            columns.append([_token(block, take(raws, row)) for row in rows])
    keys = zip(*columns, strict=True) if columns else [()] * len(rows)
    return [None if None in key else cast("tuple[bytes, ...]", key) for key in keys]


def _token(block: Block, raw: Any) -> bytes | None:
    try:
        return block.token(raw)
    except _UNREADABLE:
        return None


def _disagreeing(same: list[int], targets: dict[int, tuple[bytes, ...] | None]) -> tuple[int, int] | None:
    """Two items of a group whose targets differ, or None."""
    known = [row for row in same if targets[row] is not None]
    return next(((known[0], row) for row in known[1:] if targets[row] != targets[known[0]]), None)


def label_of(prepared: Prepared, row: int) -> str:
    """Returns an item's targets in a few words."""
    inputs, described = prepared.encoder.n_inp, list[str]()
    for block, raws in zip(prepared.encoder.y_blocks, prepared.raws[inputs:], strict=True):
        raw = take(raws, row)
        names = block.labels(raw)
        described.append(f"{raw!s:.60}" if names is None else repr(", ".join(names)))
    return "; ".join(described)


def _stages(prepared: Prepared, store: SampleStore, good: list[int], bs: int, report: DataCheck) -> None:
    row = good[0]
    report.stages.append(("item", store.name(row)))
    for block, raws in zip(prepared.encoder.blocks, prepared.raws, strict=True):
        raw = take(raws, row)
        report.stages.append((f"raw of {type(block).__name__}", f"{type(raw).__name__} {raw!s:.60}"))
        if not block.eager:
            report.stages.append((f"opened by {type(block).__name__}", describe(block.open(raw))))
    loader = Loader(store, good[:bs], prepared.pipeline, LoaderOptions(batch_size=bs, train=True))
    try:
        raw_batch = next(loader.raw_batches())
        report.stages.append(("batch as kept, x", describe(raw_batch.x)))
        report.stages.append(("batch as kept, y", describe(raw_batch.y)))
        batch = loader.one_batch()
        report.stages.append(("batch to the model, x", describe(batch.x)))
        report.stages.append(("batch to the model, y", describe(batch.y)))
    except CookbookError as error:
        report.failures.append(Failure(store.name(row), "batch", str(error)))
