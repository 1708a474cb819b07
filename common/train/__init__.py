"""Training: the Trainer, its options, schedules, metrics, hooks and tasks."""

from common.task.classification import ClassificationTask
from common.task.fitted import FittedModel
from common.task.metrics import (
    Accuracy,
    AccuracyMulti,
    ErrorRate,
    F1Score,
    F1ScoreMulti,
    Metric,
    RootMeanSquaredError,
    TopKAccuracy,
    accuracy,
    accuracy_multi,
    error_rate,
    rmse,
    top_k_accuracy,
)
from common.task.regression import RegressionTask
from common.task.task import Task
from common.train.at_once import AtOnce
from common.train.hooks import EarlyStop, EventLog, Hook, ProgressBar, TensorBoardLog
from common.train.learner import Learner
from common.train.options import TrainerOptions
from common.train.schedule import Constant, OneCycle
from common.train.signals import Interrupted
from common.train.trainer import Trainer

__all__ = [
    "Accuracy",
    "AccuracyMulti",
    "AtOnce",
    "ClassificationTask",
    "Constant",
    "EarlyStop",
    "ErrorRate",
    "EventLog",
    "F1Score",
    "F1ScoreMulti",
    "FittedModel",
    "Hook",
    "Interrupted",
    "Learner",
    "Metric",
    "OneCycle",
    "ProgressBar",
    "RegressionTask",
    "RootMeanSquaredError",
    "Task",
    "TensorBoardLog",
    "TopKAccuracy",
    "Trainer",
    "TrainerOptions",
    "accuracy",
    "accuracy_multi",
    "error_rate",
    "rmse",
    "top_k_accuracy",
]
