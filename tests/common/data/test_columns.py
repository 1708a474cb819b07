"""Columns of a table as one field."""

import numpy as np
import pandas as pd
import pytest

from common.data import ColReader, ColumnsBlock, DataBlock, IndexSplitter, RegressionBlock
from common.errors import ConfigError, DataError

FRAME = pd.DataFrame(
    {
        "age": [1.0, 3.0, np.nan, np.inf, 100.0],
        "pay": [5, 5, 5, 5, 5],
        "town": ["B", "A", None, "A", "C"],
        "y": [0.0, 1.0, 2.0, 3.0, 4.0],
    }
)
BLOCK = ColumnsBlock(numbers=("age", "pay"), categories=("town",))


def test_numbers_are_standardised_by_the_training_rows():
    block = BLOCK.setup(FRAME.iloc[:4])
    assert block.mean == (2.0, 5.0)
    assert block.std == (1.0, 1.0)  # of 1 and 3; a constant column is divided by 1
    assert block.encode_many(FRAME)["numbers"].tolist() == [[-1, 0], [1, 0], [0, 0], [0, 0], [98, 0]]


def test_missing_and_unseen_categories_are_position_0():
    block = BLOCK.setup(FRAME.iloc[:4])
    assert block.levels == (("A", "B"),)
    assert block.encode_many(FRAME)["categories"].tolist() == [[2], [1], [0], [1], [0]]


def test_text_that_is_no_number_counts_as_missing():
    block = ColumnsBlock(numbers=("a",)).setup([{"a": "1"}, {"a": "3"}])
    assert block.encode({"a": "lots"})["numbers"].tolist() == [0.0]


def test_mean_and_deviation_equal_numpys():
    values = np.random.default_rng(0).normal(3, 7, (50, 2))
    block = ColumnsBlock(numbers=("a", "b")).setup(pd.DataFrame(values, columns=["a", "b"]))
    np.testing.assert_allclose(block.mean, values.mean(axis=0))
    np.testing.assert_allclose(block.std, values.std(axis=0))


def test_only_training_rows_are_fitted():
    dls = DataBlock((BLOCK, RegressionBlock), get_y=ColReader("y"), splitter=IndexSplitter([4])).dataloaders(
        FRAME, bs=4
    )
    assert dls.blocks[0] == BLOCK.setup(FRAME.iloc[:4])
    assert dls.valid.arrays().x["categories"].tolist() == [[0]]


def test_whole_numbers_are_the_same_category_in_a_table_with_gaps_and_in_a_request():
    # A column of whole numbers with a gap is float in pandas; the same row as JSON has an int.
    block = ColumnsBlock(categories=("rooms",)).setup(pd.DataFrame({"rooms": [1, 2, None]}))
    assert block.encode({"rooms": 2})["categories"].tolist() == [2]
    whole = ColumnsBlock(categories=("rooms",)).setup(pd.DataFrame({"rooms": [1, 2, 2]}))
    assert whole.encode({"rooms": 2.0})["categories"].tolist() == [2]


def test_a_missing_column_answers_with_the_near_one():
    with pytest.raises(DataError, match="no column 'pay': did you mean 'pays'"):
        BLOCK.setup(FRAME.rename(columns={"pay": "pays"}))


def test_several_rows_need_a_fitted_block():
    with pytest.raises(ConfigError, match="not fitted"):
        ColumnsBlock(numbers=("age",)).encode_many(FRAME)
