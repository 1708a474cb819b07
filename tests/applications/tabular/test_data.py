"""Tables in the forms people have them, and the book's lines."""

import numpy as np
import pandas as pd
import pytest

from applications.tabular import TabularDataLoaders, read_source, table_source, tabular_learner
from common.errors import ConfigError, DataError

FRAME = pd.DataFrame(
    {
        "a": np.arange(40) / 7,
        "town": list("xyxy") * 10,
        "when": pd.date_range("2024-01-01", periods=40).astype(str),
        "y": np.arange(40) % 3 * 1.5,
    }
)


def test_the_last_column_is_the_target_unless_one_is_named(tmp_path):
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    assert read_source(tmp_path / "t.csv").target == "y"
    named = read_source(tmp_path / "t.csv", "town")
    assert (named.target, named.classes) == ("town", True)


@pytest.mark.parametrize(
    ("values", "classes"),
    [(["a", "b"], True), ([True, False], True), ([0, 1, 2], True), ([1, 2, 3], False), ([0.5, 1], False),
     (list(range(40)), False)],
)  # fmt: skip
def test_what_a_target_is_shows_in_its_values(values, classes):
    frame = pd.DataFrame({"x": range(len(values)), "y": values})
    assert table_source(frame).classes is classes


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz"])
def test_every_form_of_table_is_the_same_source(tmp_path, ending):
    file = tmp_path / f"t{ending}"
    if ending == ".parquet":
        FRAME.to_parquet(file)
    elif ending == ".jsonl":
        FRAME.to_json(file, orient="records", lines=True)
    else:
        FRAME.to_csv(file, index=False, sep="\t" if ending == ".tsv" else ",")
    pd.testing.assert_frame_equal(read_source(file).frame, FRAME, check_dtype=False)


def test_a_folder_of_tables_called_after_the_parts_has_those_parts(tmp_path):
    FRAME.iloc[:30].to_csv(tmp_path / "train.csv", index=False)
    FRAME.iloc[30:].to_csv(tmp_path / "test.csv.gz", index=False)
    source = read_source(tmp_path)
    assert source.parts.tolist() == ["train"] * 30 + ["test"] * 10
    split = source.dividing(0.2, 0)(source.items, None)
    assert (len(split.train), len(split.valid), len(split.test)) == (24, 6, 10)


def test_a_column_may_say_the_parts_and_is_no_feature(tmp_path):
    FRAME.assign(split=["train"] * 20 + ["valid"] * 10 + ["test"] * 10).to_csv(tmp_path / "t.csv", index=False)
    source = read_source(tmp_path / "t.csv", "y")
    dls = source.block(source.dividing(0.2, 0)).dataloaders(source.items)
    assert (dls.train.n, dls.valid.n, dls.test.n) == (20, 10, 10)
    kinds = {column.name: column.kind for column in dls.blocks[0].columns}
    assert kinds == {"a": "number", "town": "category", "when": "date", "y": "ignored", "split": "ignored"}


def test_rows_are_divided_by_group_or_by_time():
    source = table_source(FRAME, "y")
    split = source.dividing(0.25, 0, time="when")(source.items, None)
    assert split.valid.tolist() == list(range(30, 40))
    gap = source.dividing(0.25, 0, time="when", gap=3 * 86400)(source.items, None)
    assert gap.train.tolist() == list(range(28))
    town = source.dividing(0.5, 0, group="town")(source.items, None)
    assert len(set(FRAME["town"].iloc[town.valid])) == 1
    with pytest.raises(ConfigError, match="by group or by time"):
        source.dividing(0.5, 0, group="town", time="when")
    with pytest.raises(DataError, match="no column 'twon': did you mean 'town'"):
        source.dividing(0.5, 0, group="twon")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: (f, "z"), r"no column 'z' \(target\)"),
        (lambda f: (f.assign(y=f["y"].where(f.index != 7)), "y"), "1 rows have no 'y', the first is row 7"),
        (lambda f: (f.set_axis(["y", "b", "c", "y"], axis=1), "y"), "two columns called 'y'"),
    ],
)
def test_what_is_no_table_to_learn_from_is_one_sentence(change, match):
    frame, target = change(FRAME)
    with pytest.raises(DataError, match=match):
        table_source(frame, target)


def test_a_target_of_one_class_is_nothing_to_learn_from():
    source = table_source(FRAME.assign(y="same"), "y")
    dls = source.block(source.dividing(0.5, 0)).dataloaders(source.items)
    with pytest.raises(ConfigError, match=r"only one class \(same\)"):
        tabular_learner(dls)


def test_folders_without_train_or_with_other_columns_are_named(tmp_path):
    FRAME.to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(DataError, match="no part train to learn from"):
        read_source(tmp_path).dividing(0.5, 0)
    FRAME.assign(more=1).to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(DataError, match=r"test\.csv has no column 'more', which train\.csv has"):
        read_source(tmp_path)


def test_the_only_table_of_a_folder_is_read_and_of_several_one_is_asked_for(tmp_path):
    FRAME.to_csv(tmp_path / "rows.csv", index=False)
    assert len(read_source(tmp_path).items) == len(FRAME)
    FRAME.to_csv(tmp_path / "more.csv", index=False)
    with pytest.raises(DataError, match=r"no table called train .*: name the table's own file"):
        read_source(tmp_path)


def test_the_books_lines_run():
    dls = TabularDataLoaders.from_df(
        FRAME, procs=None, cat_names=["town"], cont_names=["a"], y_names="y", valid_idx=list(range(30, 40)), bs=8
    )
    assert dls.valid.n == 10
    batch = dls.one_batch()
    assert batch.x["numbers"].shape == (8, 1)
    assert batch.x["categories"].shape == (8, 1)
    dls.show_batch(4)
    learner = tabular_learner(dls, ("linear",), progress=False)
    learner.fit()
    assert "value" in learner.predict({"a": 1.0, "town": "x"})


def test_the_embedded_table_has_a_fixed_test_part():
    source = read_source(None)
    assert (source.target, source.classes, len(source.frame)) == ("diagnosis", True, 569)
    assert (source.parts == "test").sum() == 114
