"""What a training run depends on, as plain data, so that resuming it can report what has changed.

Floor: train; may import deploy and below. Used by: its own room.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from common.data.dataloaders import DataLoaders
from common.data.loader import Loader
from common.errors import ConfigError
from common.sources.items import take
from common.sources.splits import PARTS
from common.spec import to_spec
from common.train.options import TrainerOptions

NAMED = 100_000  # the most items whose names are hashed; more would cost seconds
_NO_EFFECT = (
    *("seed", "device", "progress", "out", "checkpoint", "checkpoint_every", "tensorboard", "early_stop"),
    *("compile", "cuda_graph"),  # the same training, done in another way; another seed is refused elsewhere
)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _names(loader: Loader) -> str:
    """A digest of the names of items that are files, with their parent folder only: a data set may be moved."""
    rows = loader.rows
    if not 0 < len(rows) <= NAMED or not isinstance(take(loader.store.items, int(rows[0])), (str, Path)):
        return ""
    return _digest([Path(str(item)).parts[-2:] for item in loader.items])


def _specs(loader: Loader) -> str:
    """A digest of blocks, item transforms and batch transforms; empty where one of them is arbitrary code."""
    try:
        encoder = {name: value for name, value in loader.store.encoder.spec().items() if name != "names"}
        return _digest([encoder, [to_spec(t) for t in loader.pipeline.transforms]])
    except ConfigError:
        return ""


def data_fingerprint(dls: DataLoaders) -> dict[str, Any]:
    """Returns what identifies the data: numbers of items and batch sizes as they are, the rest as digests.

    Args:
        dls: The loaders, ours or others.
    """
    facts: dict[str, Any] = {}
    for name in (part for part in PARTS if dls.has(part)):
        loader = dls.part(name)
        if isinstance(loader, Loader):
            facts[f"{name} items"] = len(loader.rows)
            facts[f"order of {name}"] = hashlib.sha256(loader.rows.contiguous().numpy().tobytes()).hexdigest()[:16]
            facts[f"names in {name}"] = _names(loader)
        else:
            data: Any = getattr(loader, "dataset", None)
            facts[f"{name} items"] = len(data) if hasattr(data, "__len__") else None
    train = dls.train
    facts["batch_size"] = train.options.batch_size if isinstance(train, Loader) else getattr(train, "batch_size", None)
    if isinstance(train, Loader):
        facts["blocks and transforms"] = _specs(train)
        if train.options.batching is not None:
            facts["batching"] = type(train.options.batching).__name__
    return facts


def option_fingerprint(options: TrainerOptions, device: torch.device) -> dict[str, Any]:
    """Returns the options that influence the result, and the kind of device.

    Args:
        options: The trainer's options.
        device: The trainer's device.
    """
    chosen = {name: value for name, value in dataclasses.asdict(options).items() if name not in _NO_EFFECT}
    return {**chosen, "device": device.type}


def fit_fingerprint(epochs: int, rates: list[float], schedule: Any) -> dict[str, Any]:
    """Returns the arguments of a fit.

    Args:
        epochs: The number of epochs.
        rates: The peak rate of each layer group.
        schedule: The schedule of the rates.
    """
    settings = {name: to_spec(value) for name, value in dataclasses.asdict(schedule).items()}
    return {"epochs": epochs, "lr": list(rates), "schedule": {"kind": type(schedule).__name__, **settings}}


def changes(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Returns a few words for each entry that differs.

    Examples:
        >>> changes({"batch_size": 8, "order of train": "0123456789abcdef"}, {"batch_size": 16, "order of train": ""})
        ['batch_size was 8 and is 16', 'order of train is another one']
    """
    found: list[str] = []
    for name in sorted(set(was) | set(now)):
        before, after = was.get(name), now.get(name)
        if before == after:
            continue
        digests = any(isinstance(v, str) and len(v) == 16 for v in (before, after))
        shown = [json.dumps(value) if isinstance(value, (dict, list)) else str(value) for value in (before, after)]
        found.append(f"{name} is another one" if digests else f"{name} was {shown[0]} and is {shown[1]}")
    return found


def known(value: Any) -> dict[str, Any]:
    """Returns a fingerprint that was read from a checkpoint, or an empty one."""
    return value if isinstance(value, dict) else {}
