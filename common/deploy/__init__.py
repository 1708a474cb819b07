"""Deployment: the bundle, the predictor and the domains."""

from common.deploy.bundle import Bundle, export, load
from common.deploy.domain import Domain, Inputs, files_of, predict_files
from common.deploy.evaluation import evaluate
from common.deploy.part import BundlePart
from common.deploy.predictor import Predictor, load_learner

__all__ = [
    "Bundle",
    "BundlePart",
    "Domain",
    "Inputs",
    "Predictor",
    "evaluate",
    "export",
    "files_of",
    "load",
    "load_learner",
    "predict_files",
]
