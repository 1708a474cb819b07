"""Columns stay columns: a table that is mapped into memory goes through a DataBlock without lists of its values."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch

from common.blocks.block import CategoryBlock, RegressionBlock
from common.blocks.distinct import distinct
from common.data import ColReader, DataBlock, RandomSplitter, StratifiedSplitter
from common.errors import DataError, ItemError
from common.sources.items import subset, take
from common.sources.splits import KFoldSplitter
from common.sources.tables import read_table

pa = pytest.importorskip("pyarrow", reason="Arrow files need pyarrow")

ROWS = 2_000_000
RATINGS = DataBlock(
    blocks=(CategoryBlock, CategoryBlock, RegressionBlock),
    n_inp=2,
    get_x=[ColReader("user"), ColReader("item")],
    get_y=ColReader("rating"),
    splitter=RandomSplitter(0.1, seed=1),
)


def ratings(count, seed=0):
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user": random.integers(0, 5000, count).astype(np.int32),
            "item": random.integers(0, 3000, count).astype(np.int32),
            "rating": (random.integers(1, 11, count) / 2).astype(np.float32),
        }
    )


def write_arrow(frame, path, rows_a_chunk=100_000, *, stream=False):
    table = pa.Table.from_pandas(frame, preserve_index=False)
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=rows_a_chunk)
    return path


def same_batches(one, two, most=3):
    assert len(one) == len(two)
    for number, (a, b) in enumerate(zip(one.batches(), two.batches(), strict=True)):
        assert all(torch.equal(x, y) for x, y in zip(a.tensors(), b.tensors(), strict=True))
        if number == most:
            return


def test_two_million_mapped_ratings_take_no_lists_and_give_the_batches_of_the_plain_frame(tmp_path):
    frame = ratings(ROWS)
    path = write_arrow(frame, tmp_path / "ratings.arrow")
    tracemalloc.start()
    try:
        dls = RATINGS.dataloaders(read_table(path), bs=4096)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # What is kept takes 8 + 8 + 4 bytes a row, the split 8 and its shuffle as much again; a list of one column of whole
    # numbers takes 8 bytes and an object of 28 a row, three of them with their codes above 250 MB.
    assert peak < 72 * ROWS, f"{peak / 2**20:.0f} MiB"
    same_batches(dls.train, RATINGS.dataloaders(frame, bs=4096).train)
    batch = dls.valid.one_batch()
    found = frame.iloc[batch.ids.numpy()]
    users, items = (np.array(block.vocab) for block in dls.blocks[:2])
    assert (users[batch.x[0]].astype(int) == found["user"]).all()
    assert (items[batch.x[1]].astype(int) == found["item"]).all()
    assert np.array_equal(batch.y.numpy(), found["rating"].to_numpy())


COLUMNS = {
    "int32": pd.Series([3, 1, 3, 20], dtype="int32"),
    "uint64": pd.Series([2**63 + 1, 1, 2**63 + 1, 2], dtype="uint64"),
    "bool": pd.Series([True, False, True, True]),
    "float32": pd.Series([0.1, 2.0, -0.0, 0.0], dtype="float32"),
    "float64": pd.Series([0.1, 2.0, -0.0, 0.0]),
    "text": pd.Series(["b", "a", "b", "10"]),
    "object text": pd.Series(["b", "a", "b", "10"], dtype=object),
    "mixed": pd.Series([1, True, 1.0, "1"], dtype=object),
    "category": pd.Series(pd.Categorical(["b", "a", "b", "c"])),
    "date": pd.to_datetime(pd.Series(["2024-01-02", "2023-01-02", "2024-01-02", "2020-02-02"])),
    "nullable": pd.Series([3, 1, 3, 20], dtype="Int64"),
    "arrow int": pd.Series([3, 1, 3, 20], dtype=pd.ArrowDtype(pa.int16())),
    "arrow float": pd.Series([0.1, 2.0, -0.0, 0.0], dtype=pd.ArrowDtype(pa.float32())),
    "arrow text": pd.Series(["b", "a", "b", "10"], dtype=pd.ArrowDtype(pa.string())),
    "arrow date": pd.Series(pd.to_datetime(["2024-01-02", "2023-01-02"] * 2), dtype=pd.ArrowDtype(pa.timestamp("us"))),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_gives_what_the_list_of_its_values_gives(name):
    column = COLUMNS[name].set_axis([5, 5, 0, 1])  # its labels are not its positions
    listed = column.tolist()
    block = CategoryBlock().setup(column)
    assert block == CategoryBlock().setup(listed)
    assert torch.equal(block.encode_many(column), block.encode_many(listed))
    assert [repr(take(column, row)) for row in range(4)] == [repr(value) for value in listed]
    assert list(map(repr, subset(column, np.array([3, 0])).tolist())) == [repr(listed[3]), repr(listed[0])]
    codes, values = distinct(column)
    assert [str(values[code]) for code in codes] == [str(value) for value in listed]
    for splitter in (KFoldSplitter(0, 2), StratifiedSplitter(0.5)):
        try:
            wanted = splitter(listed * 8, listed * 8)
        except DataError:
            continue
        got = splitter(listed * 8, pd.concat([column] * 8))
        assert all(np.array_equal(got[part], wanted[part]) for part in ("train", "valid"))


@pytest.mark.parametrize(
    "name", ["int32", "uint64", "bool", "float32", "float64", "nullable", "arrow int", "arrow float"]
)
def test_numbers_of_a_column_are_those_of_the_list_to_the_bit(name):
    column = COLUMNS[name]
    one, two = RegressionBlock().encode_many(column), RegressionBlock().encode_many(column.tolist())
    assert one.dtype == two.dtype
    assert one.numpy().tobytes() == two.numpy().tobytes()


def test_an_array_gives_what_the_list_of_its_entries_gives():
    for array in (np.array([3, 1, 3]), np.array([0.1, -0.0, 0.0], np.float32), np.array(["b", "a", "b"])):
        block = CategoryBlock().setup(array)
        assert block == CategoryBlock().setup(list(array))
        assert torch.equal(block.encode_many(array), block.encode_many(list(array)))


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1.0, np.nan]),
        pd.Series(["a", None]),
        pd.Series(["a", None], dtype=object),
        pd.Series([1, None], dtype="Int64"),
        pd.Series([1, None], dtype=pd.ArrowDtype(pa.int32())),
        pd.Series([1, None], dtype=pd.ArrowDtype(pa.float32())),
        pd.Series(pd.to_datetime(["2024-01-02", None])),
        pd.Series(pd.Categorical(["a", None])),
    ],
    ids=lambda column: str(column.dtype),
)
def test_a_missing_label_is_an_error_in_a_column_too(column):
    with pytest.raises(DataError, match="the label is missing"):
        CategoryBlock().setup(column)
    with pytest.raises(DataError, match="the label is missing"):
        CategoryBlock(vocab=("1", "1.0", "a", "2024-01-02 00:00:00")).encode_many(column)


def test_the_wrong_value_of_a_mapped_column_is_named_and_left_out_on_request(tmp_path):
    frame = ratings(9000).assign(user=1, item=2).astype({"rating": "float64"})
    frame.loc[[4, 7000], "rating"] = None
    path = write_arrow(frame, tmp_path / "r.arrow", 1000)
    with pytest.raises(ItemError, match=r"row 4\b.*not a"):
        RATINGS.dataloaders(read_table(path))
    dls = RATINGS.dataloaders(read_table(path), on_error="skip")
    assert torch.nonzero(dls.train.store.bad).flatten().tolist() == [4, 7000]
    assert RATINGS.check(read_table(path).head(50)).failures[0].item == "row 4"
    frame = ratings(100).assign(user=1, item=2).astype({"user": "Int32"})
    frame.loc[7, "user"] = pd.NA
    dls = RATINGS.dataloaders(read_table(write_arrow(frame, tmp_path / "u.arrow")), on_error="skip")
    assert dls.train.n + dls.valid.n == 99


def test_streams_and_compressed_files_are_read_too(tmp_path):
    frame = ratings(1000)
    compressed = tmp_path / "c.feather"
    frame.to_feather(compressed)
    for path in (write_arrow(frame, tmp_path / "s.arrow", stream=True), compressed):
        pd.testing.assert_frame_equal(read_table(path).astype(dict(frame.dtypes)), frame)


def test_what_is_no_arrow_file_is_refused(tmp_path):
    path = tmp_path / "t.arrow"
    path.write_bytes(b"user,item\n1,2\n" * 20)
    with pytest.raises(DataError, match=r"t\.arrow: cannot be read as a table"):
        read_table(path)


def test_of_two_columns_of_one_name_none_is_chosen():
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(DataError, match="2 columns called 'a'"):
        ColReader("a").column(frame)
