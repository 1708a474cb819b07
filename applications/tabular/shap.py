"""SHAP values of an ensemble's trees: each feature's contribution to their scores."""

from typing import Any, cast

import numpy as np
import pandas as pd
from torch import Tensor

from applications.tabular.booster import Booster
from applications.tabular.ensemble import TabularEnsemble
from applications.tabular.explain import block_of, drawn_rows
from applications.tabular.fold import Fold
from applications.tabular.network import embedding_width
from common.blocks.columns import ColumnsBlock
from common.deploy.predictor import Predictor
from common.errors import ConfigError


def feature_names(fold: Fold, block: ColumnsBlock, member: str = "") -> list[tuple[str, str]]:
    """Returns the name of each feature of the trees, and the column that it is made from.

    A name may occur several times: a mean target for each of many classes, each dimension of an embedding.

    Args:
        fold: A fold of an ensemble.
        block: The block that encoded its columns.
        member: The trees' name; ``xgboost_embedded`` has additional features.
    """
    every, shape = block.category_names, fold.shape
    found = list(zip(block.number_names, (c.name for c in block.columns for _ in c.parts), strict=True))
    for i in shape.many:
        found += [(f"{every[i]}: mean target", every[i])] * fold.means.outputs + [(f"{every[i]}: rows", every[i])]
    texts = " + ".join(column.name for column in block.columns if column.kind == "text")
    found += [(f"{texts}: text", texts)] * fold.text_width
    for place in shape.places:
        where = " + ".join(block.number_names[i] for i in (place.latitude, place.longitude))
        found += [(f"{where}: place", where)] * fold.place_width
    found += [(every[i], every[i]) for i in shape.native]
    if member == "xgboost_embedded":
        for name, size in zip(every, shape.sizes, strict=True):
            found += [(f"{name}: embedding", name)] * embedding_width(size)
    return found


def shap_values(
    model: TabularEnsemble, x: dict[str, Tensor], block: ColumnsBlock
) -> tuple[tuple[tuple[str, str], ...], np.ndarray]:
    """Returns the SHAP values of an ensemble's trees (Lundberg et al. 2020).

    They are the weighted mean over the boosted trees and forests in the ensemble and over all folds. Linear model and
    network are left out, since TreeSHAP does not apply to them. For a number the unit is the target's, for classes the
    trees' score before softmax (one output for two classes, that of the second).

    Args:
        model: A fitted ensemble.
        x: The dictionary of its `ColumnsBlock`.
        block: That block.

    Returns:
        For each feature its name and its column; and the values, float64 (N, outputs, features + 1), the last one the
        bias. Their sum over the last axis is the weighted mean of the trees' scores.

    Raises:
        ConfigError: if the ensemble is not fitted, or has no trees in its mean.
    """
    folds = cast("list[Fold]", list(model.folds))
    if not folds:
        raise ConfigError("this ensemble is not fitted yet: call fit, or load a bundle")
    weights = dict(zip(model.chosen.names, model.chosen.weights, strict=True))
    trees = [name for name in weights if isinstance(folds[0].members[name], Booster)]
    if not trees:
        raise ConfigError(f"the mean holds no trees ({', '.join(weights)}): use permutation_importance")
    total, shape = sum(weights[name] for name in trees), folds[0].shape
    found: dict[tuple[str, str], Any] = {}
    bias: Any = 0.0
    x = model.seen(x)
    for fold in folds:
        rows = fold.rows(x)
        for member in trees:
            booster = cast(Booster, fold.members[member])
            seen = fold.seen(member, rows)
            values = booster.contributions(seen).astype(np.float64) * (weights[member] / total / len(folds))
            for place, name in enumerate(feature_names(fold, block, member)):
                found[name] = found.get(name, 0.0) + values[:, :, place]
            bias = bias + values[:, :, -1]
    out = np.stack([*found.values(), bias], axis=2)
    if shape.classes == 1:
        out = out * shape.scale
        out[:, :, -1] += shape.center
    return tuple(found), out


def shap_importance(
    predictor: Predictor, frame: pd.DataFrame, *, most_rows: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Returns the mean absolute SHAP value of each column, the largest first.

    Args:
        predictor: A predictor of an ensemble with trees in its mean.
        frame: Raw rows.
        most_rows: The most rows; more are sampled.
        seed: Seed of the sampling.

    Returns:
        One record per column: ``column``, ``importance``; over classes it is the mean.
    """
    block, model = block_of(predictor), predictor.model
    if not isinstance(model, TabularEnsemble):
        raise ConfigError(f"SHAP values need an ensemble with trees, got {type(model).__name__}")
    names, values = shap_values(model, block.encode_many(drawn_rows(frame, most_rows, seed)), block)
    by_column: dict[str, Any] = {}
    for place, (_, column) in enumerate(names):
        by_column[column] = by_column.get(column, 0.0) + values[:, :, place]
    found = [{"column": name, "importance": float(np.abs(added).mean())} for name, added in by_column.items()]
    return sorted(found, key=lambda record: -float(record["importance"]))
