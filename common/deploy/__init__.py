"""Deployment: the bundle and the predictor."""

from common.deploy.bundle import Bundle, export, load
from common.deploy.predictor import Predictor, load_learner

__all__ = ["Bundle", "Predictor", "export", "load", "load_learner"]
