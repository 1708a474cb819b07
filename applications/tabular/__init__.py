"""Tables: rows of numbers, categories, dates and texts to a class or a number.

An ensemble of boosted trees, a forest, a linear model and a network is fitted in folds; `TabularClassifier` and
`TabularRegressor` are the same as scikit-learn estimators.
"""

from applications.tabular.audit import adversarial_validation, leakage
from applications.tabular.baseline import baseline
from applications.tabular.config import EnsembleConfig
from applications.tabular.data import TableSource, TabularDataLoaders, read_inputs, read_source, table_source
from applications.tabular.ensemble import TabularEnsemble, member_metrics
from applications.tabular.estimators import TabularClassifier, TabularRegressor
from applications.tabular.explain import (
    dependence_figure,
    importance_figure,
    partial_dependence,
    permutation_importance,
    slices,
)
from applications.tabular.learner import make_task, tabular_learner
from applications.tabular.network import TabularNetwork
from applications.tabular.shap import shap_importance, shap_values
from applications.tabular.task import TabularClassification, TabularRegression
from common.deploy import evaluate

__all__ = [
    "EnsembleConfig",
    "TableSource",
    "TabularClassification",
    "TabularClassifier",
    "TabularDataLoaders",
    "TabularEnsemble",
    "TabularNetwork",
    "TabularRegression",
    "TabularRegressor",
    "adversarial_validation",
    "baseline",
    "dependence_figure",
    "evaluate",
    "importance_figure",
    "leakage",
    "make_task",
    "member_metrics",
    "partial_dependence",
    "permutation_importance",
    "read_inputs",
    "read_source",
    "shap_importance",
    "shap_values",
    "slices",
    "table_source",
    "tabular_learner",
]
