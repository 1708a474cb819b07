"""Augmentation of whole batches on the device: counted per-sample parameters, one composed matrix, one resample."""

import common.data  # noqa: F401  # pyright: ignore[reportUnusedImport]  (first: DataBlock and the pipeline need each other)
from common.augment.pipeline import BatchPipeline
from common.augment.transforms import Augment, Mixup, Normalize, aug_transforms

__all__ = ["Augment", "BatchPipeline", "Mixup", "Normalize", "aug_transforms"]
