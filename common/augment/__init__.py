"""Augmentation of whole batches on the device: counter-based parameters per sample, one matrix and one resample."""

from common.augment.batch_transforms import Augment, CutMix, Mixup, Mosaic, Normalize, SpecAugment, aug_transforms
from common.augment.drawn import Drawn
from common.augment.pipeline import BatchPipeline
from common.augment.stages import SpectrogramImage, Stage

__all__ = [
    "Augment",
    "BatchPipeline",
    "CutMix",
    "Drawn",
    "Mixup",
    "Mosaic",
    "Normalize",
    "SpecAugment",
    "SpectrogramImage",
    "Stage",
    "aug_transforms",
]
