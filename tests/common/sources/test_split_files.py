"""Splits from columns, lists and manifests, and what every split must keep to (common/sources/splits.py)."""

import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.data import ColSplitter, FileSplitter, ManifestSplitter, RandomSplitter, Split
from common.errors import CookbookError, DataError
from common.sources.splits import apply_splitter, item_keys

PATHS = [Path(f"/data/{folder}/{i}.png") for folder in ("cat", "dog") for i in range(10)]


def parts(split):
    return [split[part].tolist() for part in ("train", "valid", "test")]


@pytest.fixture
def deadline():
    """Ends a test that would run for ever."""

    def stop(number, frame):
        raise TimeoutError("two seconds have passed")

    old = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 2)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([True, False, False], [[1, 2], [0], []]),
        (["valid", "train", "test"], [[1], [0], [2]]),
        (["Validation", " TRAIN ", "Test"], [[1], [0], [2]]),
        ([1, 0, 0], [[1, 2], [0], []]),
        ([1.0, 0.0, 0.0], [[1, 2], [0], []]),
        (["dev", "training", "val"], [[1], [0, 2], []]),
    ],
)
def test_a_column_says_the_part(column, expected):
    assert parts(ColSplitter()(pd.DataFrame({"is_valid": column}))) == expected


def test_another_word_in_the_column_is_named_with_its_row():
    with pytest.raises(DataError, match="row 1: column 'is_valid' must say train, valid or test, got 'holdout'"):
        ColSplitter()(pd.DataFrame({"is_valid": ["train", "holdout"]}))


def test_an_empty_cell_of_the_column_is_named():
    with pytest.raises(DataError, match="row 9: column 'part' must say train, valid or test"):
        ColSplitter("part")(pd.DataFrame({"part": ["train", None]}, index=[8, 9]))


def test_a_missing_column_answers_with_the_near_one():
    with pytest.raises(DataError, match="no column 'is_vaild': did you mean 'is_valid'"):
        ColSplitter("is_vaild")(pd.DataFrame({"is_valid": [True]}))
    with pytest.raises(DataError, match="needs a table, got list"):
        ColSplitter()([1, 2])


@pytest.mark.parametrize("line", ["/data/cat/3.png", "cat/3.png", "cat/3", "/data/cat/3"])
def test_a_listed_file_with_its_folder_validates_alone(tmp_path, line):
    (tmp_path / "valid.txt").write_text(f"{line}\n\n")
    assert parts(FileSplitter(tmp_path / "valid.txt")(PATHS))[1] == [3]


@pytest.mark.parametrize("line", ["13.png", "13"])
def test_a_listed_file_without_folder_validates(tmp_path, line):
    items = [Path(f"/data/{i // 10}/{i}.png") for i in range(20)]
    (tmp_path / "valid.txt").write_text(f"{line}\r\n")
    assert parts(FileSplitter(tmp_path / "valid.txt")(items))[1] == [13]


def test_a_listed_file_that_is_no_item_is_named(tmp_path):
    (tmp_path / "valid.txt").write_text("3.png\nlost.png\n")
    with pytest.raises(DataError, match=r"valid\.txt names 'lost\.png', which is not among the 20 items"):
        FileSplitter(tmp_path / "valid.txt")(PATHS)


@pytest.mark.parametrize("kind", [FileSplitter, ManifestSplitter])
def test_a_list_that_cannot_be_read_is_named(tmp_path, kind):
    with pytest.raises(DataError, match=r"nowhere\.txt: cannot read the .*No such file"):
        kind(tmp_path / "nowhere.txt")(PATHS)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match=r"binary\.txt"):
        kind(tmp_path / "binary.txt")(PATHS)


FORMS = {
    "paths": PATHS,
    "strings": [str(p) for p in PATHS],
    "frame": pd.DataFrame({"x": range(20)}, index=[f"row,{i}" for i in range(20)]),
    "others": [(i, i) for i in range(20)],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_manifest_written_and_read_is_the_same_split(tmp_path, form):
    items = FORMS[form]
    inner = RandomSplitter(0.3, 5)(items)
    split = Split(inner.train[2:], inner.valid, inner.train[:2])
    split.write(tmp_path / "split.csv", items)
    assert parts(ManifestSplitter(tmp_path / "split.csv")(items)) == parts(split)


def test_a_manifest_finds_the_files_in_another_place_and_order(tmp_path):
    split = RandomSplitter(0.3, 5)(PATHS)
    split.write(tmp_path / "split.csv", PATHS)
    moved = [Path("/elsewhere", *p.parts[2:]) for p in reversed(PATHS)]
    again = ManifestSplitter(tmp_path / "split.csv")(moved)
    assert {moved[i].name for i in again.valid} == {PATHS[i].name for i in split.valid}
    assert {moved[i].parts[2:] for i in again.valid} == {PATHS[i].parts[2:] for i in split.valid}


def test_a_manifest_is_a_table_that_a_person_can_read(tmp_path):
    Split(np.array([0]), np.array([1]), np.array([2])).write(
        tmp_path / "s.csv", ["d/b/1.png", "d/a/1.png", "d/c/1.png"]
    )
    assert (tmp_path / "s.csv").read_text() == ("item,split,content\na/1.png,valid,\nb/1.png,train,\nc/1.png,test,\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the columns must be item,split"),
        ("item;split\n", "line 1: the columns must be item,split"),
        ("item,split\ncat/0.png,train\ncat/1.png,dev\n", r"line 3: must be an item and one of .*'dev'"),
        ("item,split\ncat/0.png\n", "line 2: must be an item"),
        ("item,split\ncat/0.png,train\ncat/99.png,valid\n", r"line 3: 'cat/99\.png' is not among the 20 items"),
    ],
)
def test_a_fault_in_a_manifest_is_named_with_its_line(tmp_path, text, message):
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(DataError, match=rf"split\.csv, {message}"):
        ManifestSplitter(tmp_path / "split.csv")(PATHS)


def test_an_item_listed_twice_is_refused(tmp_path):
    (tmp_path / "split.csv").write_text("item,split\ncat/0.png,train\ncat/1.png,valid\ncat/0.png,valid\n")
    with pytest.raises(DataError, match=r"two parts|twice|line 4"):
        apply_splitter(ManifestSplitter(tmp_path / "split.csv"), PATHS, None)


def test_items_of_one_name_cannot_be_told_apart_in_a_manifest(tmp_path):
    frame = pd.DataFrame({"x": range(4)}, index=[0, 0, 1, 2])

    def through_a_file():
        Split(np.array([0, 2]), np.array([1, 3]), np.array([])).write(tmp_path / "s.csv", frame)
        apply_splitter(ManifestSplitter(tmp_path / "s.csv"), frame, None)

    with pytest.raises(DataError):
        through_a_file()


def test_keys_are_paths_below_the_common_folder():
    assert item_keys(["a/b/c/1.png", "a/b/2.png"]) == ["c/1.png", "2.png"]
    assert item_keys([Path("/x/1.png"), Path("/y/1.png")]) == ["x/1.png", "y/1.png"]


@pytest.mark.usefixtures("deadline")
@pytest.mark.parametrize("items", [["/s that is a joke", "fine"], ["a.png", "/data/b.png"]])
def test_keys_of_items_without_a_common_folder_are_found(items):
    assert len(set(item_keys(items))) == 2


@pytest.mark.parametrize("found", [([0, 1], [2]), (np.array([0, 1]), np.array([2])), ((0, 1), range(2, 3), [])])
def test_a_function_of_the_items_may_split(found):
    assert parts(apply_splitter(lambda items: found, list("abc"), None)) == [[0, 1], [2], []]


def test_a_function_may_give_a_test_part():
    assert parts(apply_splitter(lambda items: ([0], [1], [2]), list("abc"), None)) == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (([], [0]), r"the splitter left the train part empty \(3 items\)"),
        (([0], []), r"the splitter left the valid part empty \(3 items\)"),
        (([0, 1], [1, 2]), "the splitter put one item into two parts"),
        (([0, 0], [1]), "one item"),
        (([0], [3]), "the splitter named position 3, there are 3 items"),
        (([0, 1], [-1]), "the splitter named position -1, there are 3 items"),
    ],
)
def test_a_wrong_split_is_explained(found, message):
    with pytest.raises(DataError, match=message):
        apply_splitter(lambda items: found, list("abc"), None)


@pytest.mark.parametrize("found", [[0, 1, 2], ([0], [1], [2], []), None, ([0.5], [1])])
def test_what_is_no_split_is_refused(found):
    with pytest.raises(CookbookError):
        apply_splitter(lambda items: found, list("abc"), None)
