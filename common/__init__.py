"""What every domain shares. The names below are loaded when they are first used, so importing this costs nothing."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.augment import Augment, CutMix, Mixup, Normalize, aug_transforms
    from common.data import DataBlock, DataLoaders
    from common.deploy import Bundle, Predictor, load_learner
    from common.train import Trainer, TrainerOptions

_HOME = {
    "Augment": "common.augment",
    "Bundle": "common.deploy",
    "CutMix": "common.augment",
    "DataBlock": "common.data",
    "DataLoaders": "common.data",
    "Mixup": "common.augment",
    "Normalize": "common.augment",
    "Predictor": "common.deploy",
    "Trainer": "common.train",
    "TrainerOptions": "common.train",
    "aug_transforms": "common.augment",
    "load_learner": "common.deploy",
}

__all__ = [
    "Augment",
    "Bundle",
    "CutMix",
    "DataBlock",
    "DataLoaders",
    "Mixup",
    "Normalize",
    "Predictor",
    "Trainer",
    "TrainerOptions",
    "aug_transforms",
    "load_learner",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'common' has no attribute {name!r}")
