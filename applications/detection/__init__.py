"""Object detection: classes and boxes of the objects in an image and, with Mask R-CNN, their masks."""

from applications.detection.anchor_free import AnchorFreeConfig, AnchorFreeDetector
from applications.detection.data import DetectionSource, read_source, scene_source
from applications.detection.evaluation import APTable, average_precision, coco_results, ground_truth
from applications.detection.learner import detection_learner, make_task
from applications.detection.matching import Matches, Thresholds, choose_thresholds, match
from applications.detection.model import arch_names, check_arch, create_model
from applications.detection.sliding import predict_sliding
from applications.detection.task import DetectionTask
from applications.detection.torchvision_detector import TorchvisionDetector
from common.augment import Augment, Mosaic
from common.data import BBoxBlock, DataBlock, DataLoaders, ImageBlock, InstanceBlock, Objects, RandomSplitter, Resize
from common.deploy import Predictor, evaluate, load_learner
from common.train import Trainer, TrainerOptions

__all__ = [
    "APTable",
    "AnchorFreeConfig",
    "AnchorFreeDetector",
    "Augment",
    "BBoxBlock",
    "DataBlock",
    "DataLoaders",
    "DetectionSource",
    "DetectionTask",
    "ImageBlock",
    "InstanceBlock",
    "Matches",
    "Mosaic",
    "Objects",
    "Predictor",
    "RandomSplitter",
    "Resize",
    "Thresholds",
    "TorchvisionDetector",
    "Trainer",
    "TrainerOptions",
    "arch_names",
    "average_precision",
    "check_arch",
    "choose_thresholds",
    "coco_results",
    "create_model",
    "detection_learner",
    "evaluate",
    "ground_truth",
    "load_learner",
    "make_task",
    "match",
    "predict_sliding",
    "read_source",
    "scene_source",
]
