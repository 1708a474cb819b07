"""Augmentation of whole batches on the device: counted per-sample parameters, one composed matrix, one resample."""

import common.data  # noqa: F401  # pyright: ignore[reportUnusedImport]  (first: DataBlock and the pipeline need each other)
from common.augment.drawn import Drawn
from common.augment.pipeline import BatchPipeline
from common.augment.transforms import Augment, CutMix, Mixup, Mosaic, Normalize, SpecAugment, aug_transforms

__all__ = [
    "Augment",
    "BatchPipeline",
    "CutMix",
    "Drawn",
    "Mixup",
    "Mosaic",
    "Normalize",
    "SpecAugment",
    "aug_transforms",
]
