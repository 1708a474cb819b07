"""Small tables with a known answer, and ensembles fitted to them once."""

import numpy as np
import pandas as pd
import pytest
import torch

from applications.tabular import EnsembleConfig, table_source, tabular_learner
from common.data import NoSplitter, RandomSplitter

torch.set_num_threads(1)


def houses(rows=240, seed=0):
    """Prices of 3 for each room less the age, 4 more in town A, 6 more where the text says sunny; one column is noise."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "rooms": rng.integers(1, 9, rows).astype(float),
            "age": rng.normal(0, 2, rows),
            "town": rng.choice(list("ABC"), rows),
            "noise": rng.normal(0, 1, rows),
        }
    )
    sunny = rng.random(rows) < 0.5
    said = np.where(sunny, "a sunny house with a garden", "a dark house with a garden")
    frame["text"] = [f"{text} number {i}" for i, text in enumerate(said)]
    frame.loc[::11, "age"] = np.nan
    age = frame["age"].fillna(0)
    frame["price"] = 3 * frame["rooms"] - age + 4 * (frame["town"] == "A") + 6 * sunny + rng.normal(0, 0.3, rows)
    return frame


def dear(rows=240, seed=0):
    """The same houses, whether they are dear."""
    frame = houses(rows, seed)
    return frame.assign(price=np.where(frame["price"] > frame["price"].median(), "dear", "cheap"))


@pytest.fixture(scope="session")
def varied():
    """Gives a frame texts that are all different in the words that the tiny transformer knows."""
    words = ["a", "sunny", "dark", "house", "with", "garden", "number", "the", "and", "not"]

    def texts(frame):
        said = [f"{i} " + " ".join(word for k, word in enumerate(words) if i >> k & 1) for i in range(len(frame))]
        return frame.assign(text=said)

    return texts


@pytest.fixture(scope="session")
def frames():
    return {"regression": houses, "classification": dear}


@pytest.fixture(scope="session")
def fit():
    """Fits an ensemble to a frame and returns its learner."""

    def fitted(frame, members=("linear", "xgboost"), folds=3, whole=False, quantiles=(), progress=False, **config):
        source = table_source(frame, "price")
        splitter = NoSplitter() if whole else RandomSplitter(0.25, seed=1)
        dls = source.block(splitter).dataloaders(source.items)
        made = EnsembleConfig(members=members, folds=folds, device="cpu", **config)
        learner = tabular_learner(dls, target="price", quantiles=quantiles, config=made, progress=progress)
        learner.fit()
        return learner

    return fitted


@pytest.fixture(scope="session")
def learners(fit):
    """One learner a kind of target, with every kind of member."""
    members = ("xgboost", "linear", "forest", "network", "xgboost_embedded")
    return {
        "regression": fit(houses(), members, quantiles=(0.1, 0.9), epochs=6),
        "classification": fit(dear(), members, epochs=6),
    }
