"""Image classification: one label per image, or several.

``from applications.classification import *`` gives the names of the fast.ai book's chapter 2, so that its lines run
after changing the import. What differs on purpose: a learner is exported as a bundle (a folder of data, never a
pickle), and a prediction is a plain record with a label and its probabilities.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from applications.classification.data import ImageDataLoaders, ImageSource, read_source
from applications.classification.head import fine_tune_upper, fit_head
from applications.classification.interpretation import ClassificationInterpretation, Interpretation
from applications.classification.learner import cnn_learner, make_task, vision_learner
from applications.classification.model import create_model
from common.augment import Augment, Mixup, Normalize, aug_transforms
from common.data import (
    CategoryBlock,
    ColReader,
    ColSplitter,
    DataBlock,
    DataLoaders,
    GrandparentSplitter,
    ImageBlock,
    MultiCategoryBlock,
    RandomResizedCrop,
    RandomSplitter,
    RegexLabeller,
    Resize,
    ResizeMethod,
    get_image_files,
    imagenet_stats,
    parent_label,
    using_attr,
)
from common.deploy import Predictor, evaluate, load_learner
from common.train import (
    ClassificationTask,
    F1Score,
    F1ScoreMulti,
    Trainer,
    TrainerOptions,
    accuracy,
    accuracy_multi,
    error_rate,
)
from common.vision.architectures import arch_names

if TYPE_CHECKING:
    from torchvision.models import convnext_tiny, efficientnet_b0, mobilenet_v2, resnet18, resnet34, resnet50, resnet101

_TORCHVISION = ("resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2", "efficientnet_b0", "convnext_tiny")

__all__ = [
    "Augment",
    "CategoryBlock",
    "ClassificationInterpretation",
    "ClassificationTask",
    "ColReader",
    "ColSplitter",
    "DataBlock",
    "DataLoaders",
    "F1Score",
    "F1ScoreMulti",
    "GrandparentSplitter",
    "ImageBlock",
    "ImageDataLoaders",
    "ImageSource",
    "Interpretation",
    "Mixup",
    "MultiCategoryBlock",
    "Normalize",
    "Path",
    "Predictor",
    "RandomResizedCrop",
    "RandomSplitter",
    "RegexLabeller",
    "Resize",
    "ResizeMethod",
    "Trainer",
    "TrainerOptions",
    "accuracy",
    "accuracy_multi",
    "arch_names",
    "aug_transforms",
    "cnn_learner",
    "convnext_tiny",
    "create_model",
    "efficientnet_b0",
    "error_rate",
    "evaluate",
    "fine_tune_upper",
    "fit_head",
    "get_image_files",
    "imagenet_stats",
    "load_learner",
    "make_task",
    "mobilenet_v2",
    "parent_label",
    "partial",
    "pd",
    "read_source",
    "resnet101",
    "resnet18",
    "resnet34",
    "resnet50",
    "using_attr",
    "vision_learner",
]


def __getattr__(name: str) -> Any:
    if name in _TORCHVISION:
        from torchvision import models

        return getattr(models, name)
    raise AttributeError(f"module 'applications.classification' has no attribute {name!r}")
