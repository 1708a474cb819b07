"""Eight domains, one core: tables and ratings, through to a model that learns a known answer."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from common.data import CategoryBlock, ColReader, ColumnsBlock, DataBlock, RandomSplitter, RegressionBlock
from common.train import RegressionTask, Trainer, TrainerOptions

QUIET = TrainerOptions(device="cpu", progress=False, weight_decay=0.0)


def batches(dls):
    """A training batch of two epochs and a validation batch."""
    return dls.train.one_batch(), dls.train.one_batch(1), dls.valid.one_batch()


def shape(value):
    if isinstance(value, dict):
        return {k: shape(v) for k, v in value.items()}
    return tuple(shape(v) for v in value) if isinstance(value, tuple) else tuple(value.shape)


@pytest.fixture
def houses():
    """A table in which price = 2 rooms - age + 3 in town A (no noise)."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"rooms": rng.integers(1, 9, 200), "age": rng.normal(0, 2, 200), "town": rng.choice(list("AB"), 200)}
    )
    return frame.assign(price=2.0 * frame["rooms"] - frame["age"] + 3.0 * (frame["town"] == "A"))


class Additive(nn.Module):
    def __init__(self, numbers, levels):
        super().__init__()
        self.numbers, self.levels = nn.Linear(numbers, 1), nn.Embedding(levels, 1)

    def forward(self, x):
        return self.numbers(x["numbers"])[:, 0] + self.levels(x["categories"][:, 0])[:, 0]


def test_tabular_rows_are_a_dictionary_of_matrices_and_a_known_answer_is_learned(houses):
    columns = ColumnsBlock(numbers=("rooms", "age"), categories=("town",))
    dls = DataBlock((columns, RegressionBlock), get_y=ColReader("price"), splitter=RandomSplitter(0.25)).dataloaders(
        houses, bs=50
    )
    for batch in batches(dls):
        assert shape(batch.x) == {"numbers": (50, 2), "missing": (50, 2), "categories": (50, 1), "text": (50, 0)}
        assert (batch.x["numbers"].dtype, batch.x["categories"].dtype) == (torch.float32, torch.int64)
        assert not batch.x["missing"].any()
        assert shape(batch.y) == (50,)
    arrays = dls.train.arrays()
    design = np.c_[arrays.x["numbers"], arrays.x["categories"] == 2, np.ones(150)]
    answer, *_ = np.linalg.lstsq(design, arrays.y.numpy(), rcond=None)
    rooms, age, _ = dls.blocks[0].columns
    np.testing.assert_allclose(answer[:3] / [*rooms.scale, *age.scale, 1], [2, -1, 3], rtol=1e-4)
    trainer = Trainer(Additive(2, dls.blocks[0].sizes[0]), dls, RegressionTask(), QUIET)
    trainer.fit_one_cycle(60, 0.5)
    assert trainer.validate()["rmse"] < 0.1


class Biases(nn.Module):
    def __init__(self, users, items):
        super().__init__()
        self.users, self.items = nn.Embedding(users, 1), nn.Embedding(items, 1)

    def forward(self, x):
        return (self.users(x[0]) + self.items(x[1]))[:, 0]


def test_collab_two_categories_and_a_number_and_a_known_answer_is_learned(ratings):
    dls = DataBlock(
        (CategoryBlock, CategoryBlock, RegressionBlock),
        get_x=[ColReader("user"), ColReader("item")],
        get_y=ColReader("rating"),
        n_inp=2,
        splitter=RandomSplitter(0.2, seed=1),
    ).dataloaders(ratings, bs=29)
    for batch in batches(dls)[:2]:
        assert shape(batch.x) == ((29,), (29,))
        assert shape(batch.y) == (29,)
        assert batch.x[0].dtype == batch.x[1].dtype == torch.int64
    arrays = dls.valid.arrays()
    rows = ratings.iloc[arrays.ids.tolist()]
    assert [dls.blocks[0].vocab[i] for i in arrays.x[0]] == rows["user"].tolist()
    assert [dls.blocks[1].vocab[i] for i in arrays.x[1]] == rows["item"].tolist()
    np.testing.assert_allclose(arrays.y, rows["rating"], rtol=1e-6)
    torch.manual_seed(0)
    trainer = Trainer(Biases(12, 9), dls, RegressionTask(), QUIET)
    trainer.fit_one_cycle(100, 0.2)
    assert trainer.validate()["rmse"] < 0.05
