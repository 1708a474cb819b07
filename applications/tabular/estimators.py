"""The ensemble as scikit-learn estimators: `TabularClassifier` and `TabularRegressor`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d, validate_data

from applications.tabular.config import EnsembleConfig
from applications.tabular.ensemble import TabularEnsemble
from applications.tabular.learner import tabular_learner
from common.blocks.block import CategoryBlock, RegressionBlock
from common.blocks.column_kinds import duplicates
from common.blocks.columns import ColumnsBlock
from common.data.datablock import DataBlock
from common.deploy.bundle import export
from common.deploy.predictor import Predictor
from common.sources.items import ColReader
from common.sources.splits import NoSplitter
from common.text import TextEncoder, Tokenizer

TARGET = "target"


class _Tabular(BaseEstimator):
    """The shared part of the classifier and the regressor."""

    def __init__(
        self,
        *,
        members: Sequence[str] | None = None,
        folds: int = 5,
        budget_s: float = 240.0,
        tune: int = 0,
        text_encoder: str | Path | None = None,
        categories: Sequence[str] = (),
        texts: Sequence[str] = (),
        dates: Sequence[str] = (),
        places: Sequence[tuple[str, str]] = (),
        ignore: Sequence[str] = (),
        random_state: int | None = 0,
        verbose: bool = False,
    ) -> None:
        self.members = members
        self.folds = folds
        self.budget_s = budget_s
        self.tune = tune
        self.text_encoder = text_encoder
        self.categories = categories
        self.texts = texts
        self.dates = dates
        self.places = places
        self.ignore = ignore
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        return tags

    def _frame(self, x: Any, reset: bool) -> pd.DataFrame:
        """Rows as a frame: from a pandas or polars frame, or an array, whose columns become x0, x1 and so on."""
        if isinstance(x, pd.DataFrame) or hasattr(x, "to_dicts"):
            frame = x if isinstance(x, pd.DataFrame) else pd.DataFrame(x.to_dict(as_series=False))
            if not len(frame):
                raise ValueError(
                    f"Found array with 0 sample(s) (shape={frame.shape}) while a minimum of 1 is required."
                )
            frame = frame.set_axis([str(name) for name in frame.columns], axis=1).reset_index(drop=True)
            if twice := next(duplicates(frame.columns), None):
                raise ValueError(f"the table has two columns called {twice!r}: rename one")
            validate_data(self, cast(Any, frame), reset=reset, skip_check_array=True)
            return frame
        array: Any = validate_data(
            self, x, reset=reset, dtype=None, ensure_all_finite=False, accept_sparse=False, ensure_min_samples=1
        )
        if array.dtype.kind not in "OUS":
            array = check_array(array, dtype="numeric", ensure_all_finite=False)
        return pd.DataFrame(array, columns=[f"x{i}" for i in range(array.shape[1])])

    def _fit(self, x: Any, target: Sequence[Any], block: CategoryBlock | RegressionBlock, quantiles: Any = ()) -> Self:
        frame = self._frame(x, reset=True)
        if len(frame) < 2:
            raise ValueError(
                "X has one row (n_samples=1): at least two are needed, some to learn from, some to judge by"
            )
        if len(frame) != len(target):
            raise ValueError(f"X has {len(frame)} rows, y {len(target)}")
        name = TARGET
        while name in frame.columns:
            name += "_"
        columns = ColumnsBlock(
            categories=tuple(self.categories), texts=tuple(self.texts), dates=tuple(self.dates),
            ignore=(name, *self.ignore), places=tuple(self.places), infer=True,
            tokenizer=None if self.text_encoder is None else Tokenizer.read(self.text_encoder),
        )  # fmt: skip
        data = DataBlock((columns, block), get_y=ColReader(name), splitter=NoSplitter())
        dls = data.dataloaders(frame.assign(**{name: target}))
        seed = (
            self.random_state if isinstance(self.random_state, int) else int(np.random.default_rng().integers(1 << 31))
        )
        given: dict[str, Any] = {} if self.members is None else {"members": tuple(self.members)}
        config = EnsembleConfig(folds=self.folds, budget_s=self.budget_s, tune=self.tune, seed=seed, **given)
        learner = tabular_learner(
            dls, target=name, quantiles=quantiles, config=config, progress=self.verbose,
            text_encoder=None if self.text_encoder is None else TextEncoder.read(self.text_encoder),
        )  # fmt: skip
        learner.fit()
        self.predictor_: Predictor = learner.predictor()
        self.table_ = pd.DataFrame(list(cast(TabularEnsemble, learner.model).chosen.table))
        return self

    def _outputs(self, x: Any) -> Any:
        check_is_fitted(self)
        return self.predictor_.outputs(self._frame(x, reset=False)).output

    def export(self, path: str | Path) -> Path:
        """Writes a bundle and returns its folder."""
        check_is_fitted(self)
        made = self.predictor_
        return export(Path(path), made.model, made.task, made.encoder, made.pipeline, {})


class TabularClassifier(ClassifierMixin, _Tabular):
    """An ensemble of linear model, boosted trees, forest and network for the classes of a table's rows.

    Args:
        members: The members, see `MEMBERS`; the default ones of `EnsembleConfig` when None.
        folds: The number of folds: each member is fitted once per fold.
        budget_s: Time limit of the fit in seconds.
        tune: The number of tree settings to try (with Optuna, in at most half the budget) for an additional member.
        text_encoder: A folder with a pretrained transformer, as Hugging Face's transformers saves one, that reads the
            texts.
        categories: Columns that are categories; the kinds of the others are inferred.
        texts: Columns that are texts.
        dates: Columns that are dates.
        places: Pairs of columns that are latitude and longitude; pairs with such names are found automatically.
        ignore: Columns that are left out.
        random_state: Random seed; a random one when None.
        verbose: Whether to print progress messages.

    Attributes:
        classes_: The classes, sorted.
        table_: One row per member: its out-of-fold loss, seconds, weight.
    """

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Fits the ensemble to rows (a frame of pandas or polars, or an array) and their classes."""
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        labels = column_or_1d(y, warn=True)
        if not len(labels):
            raise ValueError("Found array with 0 sample(s) while a minimum of 2 is required.")
        check_classification_targets(labels)
        self.classes_, places = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class only ({self.classes_[0]!r}): a classifier needs at least two classes")
        names = tuple(str(name) for name in self.classes_)
        vocab = names if len(set(names)) == len(names) else tuple(str(i) for i in range(len(names)))
        return self._fit(X, [vocab[i] for i in places], CategoryBlock(vocab))

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Returns the probability of each class, float64 (N, classes)."""
        return self._outputs(X).double().softmax(dim=1).numpy()

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Returns the likeliest class of each row."""
        likeliest = self.predict_proba(X).argmax(axis=1)
        return self.classes_[likeliest]


class TabularRegressor(RegressorMixin, _Tabular):
    """An ensemble of linear model, boosted trees, forest and network for a number of a table's rows.

    Args:
        members: The members, see `MEMBERS`; the default ones of `EnsembleConfig` when None.
        folds: The number of folds: each member is fitted once per fold.
        budget_s: Time limit of the fit in seconds.
        tune: The number of tree settings to try (with Optuna, in at most half the budget) for an additional member.
        text_encoder: A folder with a pretrained transformer, as Hugging Face's transformers saves one, that reads the
            texts.
        categories: Columns that are categories; the kinds of the others are inferred.
        texts: Columns that are texts.
        dates: Columns that are dates.
        places: Pairs of columns that are latitude and longitude; pairs with such names are found automatically.
        ignore: Columns that are left out.
        random_state: Random seed; a random one when None.
        verbose: Whether to print progress messages.

    Attributes:
        table_: One row per member: its out-of-fold loss, seconds, weight.
    """

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Fits the ensemble to rows (a frame of pandas or polars, or an array) and their numbers."""
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        values = np.asarray(column_or_1d(y, warn=True), dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("Input y contains NaN or infinity: remove those rows")
        return self._fit(X, values.tolist(), RegressionBlock())

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Returns the number of each row, float64 (N,)."""
        return self._outputs(X).double().numpy()
