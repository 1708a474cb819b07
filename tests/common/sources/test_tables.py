"""Tables in the forms people have them. What is wrong with a file is told in tests/applications/classification too."""

import gzip
import importlib.util

import pandas as pd
import pytest

from common.errors import DataError
from common.sources.tables import TABLE_ENDINGS, parts_of, read_table

FRAME = pd.DataFrame(
    {
        "pay": [1.5, None, 3.0],
        "rooms": [1, 2, 3],
        "old": [True, False, True],
        "town": ["Zürich", "東京", None],
        "note": ['he said "so, so"', "two\nlines", "tab\there 😍"],
    }
)
WRITERS = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    ".jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    ".parquet": lambda frame, path: frame.to_parquet(path),
    ".arrow": lambda frame, path: frame.to_feather(path, compression="uncompressed"),
    ".feather": lambda frame, path: frame.to_feather(path),
}
needs_parquet = pytest.mark.skipif(
    not (importlib.util.find_spec("pyarrow") or importlib.util.find_spec("fastparquet")),
    reason="parquet needs pyarrow",
)
ENDINGS = [
    pytest.param(e, marks=needs_parquet if e in (".parquet", ".arrow", ".feather") else ()) for e in TABLE_ENDINGS
]


def write(folder, name, ending, frame=FRAME):
    plain = folder / f"plain{ending.removesuffix('.gz')}"
    WRITERS[plain.suffix](frame, plain)
    path = folder / name
    path.write_bytes(gzip.compress(plain.read_bytes()) if ending.endswith(".gz") else plain.read_bytes())
    return path


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", ["t{}", "T{}", "a.jsonl.of.parquet.and.tsv{}"])
def test_every_form_gives_the_same_table(tmp_path, ending, name):
    path = write(tmp_path, name.format(ending.upper() if name[0] == "T" else ending), ending)
    frame = read_table(path)
    if path.suffix.lower() in (".arrow", ".feather"):  # its columns stay Arrow's own
        assert all(isinstance(kind, pd.ArrowDtype) for kind in frame.dtypes)
        frame = frame.astype({name: FRAME[name].dtype for name in frame})
    pd.testing.assert_frame_equal(frame, FRAME)


@needs_parquet
def test_parquet_keeps_dates_and_categories(tmp_path):
    frame = pd.DataFrame({"when": pd.to_datetime(["2024-01-02", None]), "size": pd.Categorical(["s", "m"])})
    pd.testing.assert_frame_equal(read_table(write(tmp_path, "t.parquet", ".parquet", frame)), frame)


def test_text_of_json_stays_text(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"zip": "01234", "date": "2024-01-02", "rooms": 1}\n{"zip": "00501", "rooms": null}\n')
    assert read_table(path).to_dict("records")[0] == {"zip": "01234", "date": "2024-01-02", "rooms": 1.0}
    assert read_table(path)["zip"].tolist() == ["01234", "00501"]


def test_a_folder_named_like_a_table_is_refused(tmp_path):
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(DataError, match=r"t\.csv: cannot be read as a table"):
        read_table(tmp_path / "t.csv")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.tsv: cannot be read as a table: .*No such file"):
        read_table(tmp_path / "gone.tsv")


@pytest.mark.parametrize(
    "column", [["train", "Validation", " TEST ", "dev"], [False, True, "test", 1], ["training", "1.0", "test", "val"]]
)
def test_a_column_of_words_tells_the_part_of_each_row(column):
    frame = pd.DataFrame({"part": pd.Series(column, dtype=object)})
    assert parts_of(frame, "part").tolist() == ["train", "valid", "test", "valid"]


def test_a_row_of_no_part_is_named():
    frame = pd.DataFrame({"part": ["train", None]}, index=[10, 11])
    with pytest.raises(DataError, match="row 11: column 'part' must say train, valid or test, got nan"):
        parts_of(frame, "part")
    with pytest.raises(DataError, match="no column 'parts': did you mean 'part'"):
        parts_of(frame, "parts")
