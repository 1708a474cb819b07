"""Semantic segmentation: the class of each pixel.

``from applications.segmentation import *`` gives what a notebook needs, under the fast.ai book's names where it has one
(``unet_learner``). It differs on purpose in two ways: a prediction is a plain record with the areas and masks of its
classes, at the resolution of the given image; a bundle is a folder of data, never a pickle.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from applications.segmentation.baseline import baseline, class_weights, ignored_share, pixel_counts
from applications.segmentation.data import SegmentationSource, read_source, scene_source
from applications.segmentation.interpretation import show_maps
from applications.segmentation.learner import make_task, segmentation_learner, unet_learner
from applications.segmentation.metrics import MeanIoU, PixelAccuracy
from applications.segmentation.model import arch_names, check_arch, create_model
from applications.segmentation.sliding import predict_sliding
from applications.segmentation.task import SegmentationTask, ids_of
from common.augment import Augment, Mixup, Normalize, aug_transforms
from common.data import (
    DataBlock,
    DataLoaders,
    ImageBlock,
    MaskBlock,
    RandomResizedCrop,
    RandomSplitter,
    Resize,
    ResizeMethod,
    get_image_files,
    imagenet_stats,
)
from common.deploy import Predictor, evaluate, load_learner
from common.train import Trainer, TrainerOptions

if TYPE_CHECKING:
    from torchvision.models import mobilenet_v2, resnet18, resnet34, resnet50

_TORCHVISION = ("mobilenet_v2", "resnet18", "resnet34", "resnet50")

__all__ = [
    "Augment",
    "DataBlock",
    "DataLoaders",
    "ImageBlock",
    "MaskBlock",
    "MeanIoU",
    "Mixup",
    "Normalize",
    "Path",
    "PixelAccuracy",
    "Predictor",
    "RandomResizedCrop",
    "RandomSplitter",
    "Resize",
    "ResizeMethod",
    "SegmentationSource",
    "SegmentationTask",
    "Trainer",
    "TrainerOptions",
    "arch_names",
    "aug_transforms",
    "baseline",
    "check_arch",
    "class_weights",
    "create_model",
    "evaluate",
    "get_image_files",
    "ids_of",
    "imagenet_stats",
    "load_learner",
    "ignored_share",
    "make_task",
    "mobilenet_v2",
    "pixel_counts",
    "predict_sliding",
    "read_source",
    "resnet18",
    "resnet34",
    "resnet50",
    "scene_source",
    "segmentation_learner",
    "show_maps",
    "unet_learner",
]


def __getattr__(name: str) -> Any:
    if name in _TORCHVISION:
        from torchvision import models

        return getattr(models, name)
    raise AttributeError(f"module 'applications.segmentation' has no attribute {name!r}")
