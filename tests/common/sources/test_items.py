"""Getting items and reading raw values from them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from common.errors import DataError
from common.sources.items import (
    ColReader,
    RegexLabeller,
    get_files,
    get_image_files,
    item_name,
    parent_label,
    read_field,
    read_fields,
    subset,
    take,
    using_attr,
)


@pytest.fixture
def tree(tmp_path):
    for name in ("b/2.JPG", "b/1.png", "a/x/3.jpeg", "a/notes.txt", ".hidden/4.jpg", "a/.5.jpg", "6.gif", "c/7.wav"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def below(root, paths):
    return [p.relative_to(root).as_posix() for p in paths]


def test_files_are_sorted_and_hidden_ones_left_out(tree):
    assert below(tree, get_files(tree)) == ["6.gif", "a/notes.txt", "a/x/3.jpeg", "b/1.png", "b/2.JPG", "c/7.wav"]


def test_endings_are_matched_in_any_case(tree):
    assert below(tree, get_files(str(tree), [".jpg", ".PNG"])) == ["b/1.png", "b/2.JPG"]


def test_without_recursion_only_the_folder_itself_is_read(tree):
    assert below(tree, get_files(tree, recurse=False)) == ["6.gif"]


def test_named_folders_alone_are_gone_into(tree):
    assert below(tree, get_image_files(tree, folders=["a"])) == ["a/x/3.jpeg"]
    assert below(tree, get_files(tree, folders=["a", "c"])) == ["a/notes.txt", "a/x/3.jpeg", "c/7.wav"]


def test_links_to_folders_elsewhere_are_followed_once(tree, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "deep").mkdir()
    (other / "deep" / "8.jpg").touch()
    (tree / "b" / "linked").symlink_to(other)
    (tree / "a" / "again").symlink_to(other)
    (tree / "a" / "up").symlink_to(tree)  # met anyway: not followed, and no endless way
    (other / "deep" / "round").symlink_to(other)
    found = below(tree, get_image_files(tree))
    assert found == ["6.gif", "a/again/deep/8.jpg", "a/x/3.jpeg", "b/1.png", "b/2.JPG"]


def test_image_files_are_those_with_an_image_ending(tree):
    assert below(tree, get_image_files(tree)) == ["6.gif", "a/x/3.jpeg", "b/1.png", "b/2.JPG"]


def test_a_getter_that_serves_several_fields_is_asked_once_an_item():
    asked = []

    def getter(item):
        asked.append(item)
        return item * 2

    first, second, own = read_fields([(getter, "get_y"), (getter, "get_y"), (None, "get_x")], [1, 2])
    assert first == second == [2, 4]
    assert own == [1, 2]
    assert asked == [1, 2]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere is not there"):
        get_files(tmp_path / "nowhere")


def test_a_file_in_place_of_a_folder_is_named(tree):
    with pytest.raises(DataError, match=r"6\.gif is a file, not a folder"):
        get_image_files(tree / "6.gif")


def test_a_folder_without_images_is_refused(tree):
    with pytest.raises(DataError, match=r"c holds no images"):
        get_image_files(tree / "c")


@pytest.mark.parametrize("item", ["photos/rose/1.jpg", Path("/photos/rose/1.jpg")])
def test_parent_label_is_the_folders_name(item):
    assert parent_label(item) == "rose"


def test_regex_label_is_the_first_group():
    label = RegexLabeller(r"(.+)_(\d+)\.jpg$")
    assert label("great_pyrenees_173.jpg") == "great_pyrenees"
    assert using_attr(label, "name")(Path("dogs/Beagle_7.jpg")) == "Beagle"


def test_regex_match_must_begin_at_the_start():
    assert RegexLabeller(r"(\d+)")("a12") == "12"
    with pytest.raises(DataError, match="finds no label"):
        RegexLabeller(r"(\d+)", match=True)("a12")


@pytest.mark.parametrize(("pattern", "text"), [(r"(\d+)", "no digits"), (r"\d+", "12")])
def test_a_regex_without_a_label_names_expression_and_text(pattern, text):
    with pytest.raises(DataError) as caught:
        RegexLabeller(pattern)(text)
    assert repr(pattern) in str(caught.value)
    assert repr(text) in str(caught.value)


FRAME = pd.DataFrame({"name": ["7", "8"], "labels": ["car person", ""], "size": [1.5, 2.5]}, index=[10, 20])


def test_a_column_read_at_once_equals_it_read_row_by_row():
    readers = [
        ColReader("name"),
        ColReader(2),
        ColReader(("name", "size")),
        ColReader("name", pref="train/", suff=".jpg"),
        ColReader("name", pref=Path("train"), suff=".jpg"),
        ColReader("labels", label_delim=" "),
    ]
    for reader in readers:
        rows = [reader(row) for row in FRAME.to_dict("records")]
        assert list(reader.column(FRAME)) == rows
        assert [reader(row) for _, row in FRAME.iterrows()] == rows
        assert [reader(row) for row in FRAME.itertuples(index=False)] == rows


def test_prefix_and_suffix_stand_around_the_value():
    assert ColReader("name", pref="train/", suff=".jpg").column(FRAME) == ["train/7.jpg", "train/8.jpg"]
    assert ColReader("name", pref=Path("train"), suff=".jpg").column(FRAME) == [
        str(Path("train", f"{n}.jpg")) for n in "78"
    ]


def test_labels_are_split_at_the_mark_and_none_means_no_label():
    assert ColReader("labels", label_delim=" ").column(FRAME) == [["car", "person"], []]


@pytest.mark.parametrize("empty", [None, np.nan, pd.NA])
def test_an_empty_cell_of_several_labels_means_no_label(empty):
    frame = pd.DataFrame({"labels": pd.Series(["a;b", empty], dtype=object)})
    assert ColReader("labels", label_delim=";").column(frame) == [["a", "b"], []]


def test_a_missing_column_answers_with_the_near_one():
    for read in (lambda r: r.column(FRAME), lambda r: r(FRAME.iloc[0]), lambda r: read_field(r, FRAME, "get_y")):
        with pytest.raises(DataError, match=r"no column 'label': did you mean 'labels'"):
            read(ColReader("label"))
        with pytest.raises(DataError, match=r"no column 9"):
            read(ColReader(9))


def test_a_column_named_by_a_number_goes_before_its_position():
    frame = pd.DataFrame({1: ["one"], 0: ["zero"]})
    assert list(ColReader(0).column(frame)) == ["zero"]


def test_read_field_gives_rows_of_a_frame_to_a_function():
    assert read_field(lambda row: row["name"] + "!", FRAME, "get_x") == ["7!", "8!"]


def test_read_field_without_a_getter_gives_the_items():
    items = ["a", "b"]
    assert read_field(None, items, "get_x") is items
    assert read_field(None, FRAME, "get_x") is FRAME


@pytest.mark.parametrize(
    "error",
    [DataError("bad"), AttributeError("bad"), KeyError("bad"), IndexError("bad"), TypeError("bad"), ValueError("bad")],
)
def test_a_getter_that_fails_names_item_stage_and_reason(error):
    def getter(item):
        if item == Path("x/2.jpg"):
            raise error
        return item

    with pytest.raises(DataError, match=r"x/2\.jpg: get_y failed: .*bad"):
        read_field(getter, [Path("x/1.jpg"), Path("x/2.jpg")], "get_y")


def test_a_frames_row_is_named_by_its_index():
    def fail(row):
        raise ValueError("bad")

    with pytest.raises(DataError, match="row 10: get_y failed: bad"):
        read_field(fail, FRAME, "get_y")


def test_items_are_named_as_a_person_knows_them():
    assert item_name([Path("a/b.jpg")], 0) == str(Path("a/b.jpg"))
    assert item_name(["text"], 0) == "text"
    assert item_name([SimpleNamespace(name="digit 3")], 0) == "digit 3"
    assert item_name([(1, 2)], 0) == "item 0"
    assert item_name(FRAME, 1) == "row 20"


def test_take_and_subset_keep_the_form():
    assert take([5, 6], 1) == 6
    assert take(FRAME, 1)["name"] == "8"
    assert subset([5, 6, 7], [2, 0]) == [7, 5]
    assert subset(FRAME, [1]).index.tolist() == [20]
