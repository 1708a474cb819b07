"""The table of `DataBlock.plan`: what runs where, how much memory it takes, and why.

Floor: data; may import store and below. Used by: its own room.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.data.loader import AHEAD, Loader, LoaderOptions
from common.data.prepared import Prepared
from common.data.work import CHUNK
from common.store.fields import entries, value_bytes
from common.store.store import SampleStore


@dataclass(frozen=True)
class Plan:
    """What runs where; printing it gives a table.

    Attributes:
        steps: (what, where, why) in the order of the data.
        bytes_kept: The memory or disk that the cached items take, in bytes, if all are as large as the first.
        bytes_working: The most memory in addition: batches being prepared, and what threads are decoding.
    """

    steps: list[tuple[str, str, str]]
    bytes_kept: int
    bytes_working: int = 0

    def __str__(self) -> str:
        return "\n".join(f"{what:44} {where:26} {why}" for what, where, why in self.steps)


def _mib(count: float) -> str:
    return f"{count / 2**20:,.0f} MiB" if count >= 2**20 else f"{count / 2**10:,.0f} KiB"


def plan(prepared: Prepared, bs: int, device: str, workers: int, cache_bytes: int | None, cache_dir: Any) -> Plan:
    """Returns where each step runs and why, judging by one encoded item.

    Args:
        prepared: The DataBlock applied to its source.
        bs: Samples per batch.
        device: Where the batches go.
        workers: Threads that decode.
        cache_bytes: The most memory to cache decoded items in; None: half of what is free.
        cache_dir: A folder to cache them in instead, or None.
    """
    store = prepared.store(workers, cache_bytes)
    row = int(prepared.split.train[0])
    values, _ = store.encode(row)
    total = value_bytes(values) * len(store.wanted)
    loader = Loader(store, [row], prepared.pipeline, LoaderOptions(batch_size=1, train=True), "cpu")
    batch_bytes = bs * sum(t.numel() * t.element_size() for t in loader.one_batch().tensors())
    working = (AHEAD + 2) * batch_bytes + max(workers, 1) * CHUNK * value_bytes(values)
    steps = _item_steps(prepared, store, values)
    if total:
        steps.append(_kept(total, store, cache_dir))
    steps += _batch_steps(prepared, values, device, workers, total)
    steps.append(
        ("memory beside what is kept", _mib(working), f"{AHEAD + 2} batches, and the items that threads decode")
    )
    steps.append((f"batches of {bs}", device, f"{max(len(prepared.split.train) // bs, 1)} a training epoch"))
    return Plan(steps, total, working)


def _item_steps(prepared: Prepared, store: SampleStore, values: Any) -> list[tuple[str, str, str]]:
    steps: list[tuple[str, str, str]] = []
    for block, value in zip(prepared.encoder.blocks, values, strict=True):
        where, why = "at once, when built", "small"
        if not block.eager:
            where = f"{store.workers} threads, first pass" if store.workers else "the caller, first pass"
            shapes = ", ".join(str(tuple(t.shape)) for t in entries(value).values())
            why = f"decoding releases the interpreter lock; the first item gives {shapes}"
        steps.append((f"{type(block).__name__}: encode", where, why))
    for transform in prepared.encoder.item_tfms:
        why = "a JPEG is decoded no larger than this needs; deterministic: kept afterwards"
        steps.append((f"{type(transform).__name__}", "with the decoding", why))
    return steps


def _kept(total: int, store: SampleStore, cache_dir: Any) -> tuple[str, str, str]:
    if cache_dir is not None:
        return "keep decoded items", f"files in {cache_dir}", f"{_mib(total)}; later runs and other processes use them"
    share = min(1.0, store.cache_bytes / total)
    why = f"{_mib(total)}, and {_mib(store.cache_bytes)} may be used"
    if share == 1:
        return "keep decoded items", "memory", f"{why}: later epochs touch no decoder"
    return (
        "keep decoded items",
        f"memory, {share:.0%} of them",
        f"{why}: the rest is decoded in every epoch (or cache_dir)",
    )


def _batch_steps(prepared: Prepared, values: Any, device: str, workers: int, total: int) -> list[tuple[str, str, str]]:
    pipeline = prepared.pipeline
    steps: list[tuple[str, str, str]] = []
    place = prepared.encoder.blocks.index(prepared.encoder.image_block) if prepared.encoder.image_block else None
    where, how = f"{device}, whole batch", "one matrix a sample, one resample"
    if place is not None:
        image: Tensor = values[place]
        if pipeline.per_image(torch.device(device), (image.shape[0], image.shape[1])):
            where = f"{workers} threads, each image" if workers else "the caller, each image"
            how = "one matrix a sample, one resample from where the image lies in the cache"
    if device.startswith("cuda"):
        why = "while the batch before it is in use; once all is kept and fits, the whole set lies on the device"
        steps.append(("copy to the device", "pinned, a stream of its own", f"{why} ({_mib(total)})"))
    moving = [op.name for op in (*pipeline.crops, *pipeline.changes) if op.support["mask"] == "transforms"]
    if moving:
        steps.append((" + ".join(moving), where, how))
    others = [op.name for op in pipeline.changes if op.name not in moving]
    if others or pipeline.mean:
        steps.append((" + ".join([*others, "normalise"]), where, "one pass over the pixels"))
    for op in pipeline.spectral:
        steps.append((op.name, f"{device}, whole batch", "each spectrogram within its own length"))
    for op in pipeline.mixes:
        steps.append((op.name, f"{device}, whole batch", "each sample with the one before it in the epoch"))
    return steps
