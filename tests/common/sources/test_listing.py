"""Listing a folder: what is kept, and what was passed over for what reason."""

import os

import pytest

from common.errors import DataError
from common.sources.listing import list_files


@pytest.fixture()
def folder(tmp_path):
    for name in ("a/1.png", "a/2.PNG", "a/3.txt", "b/4.png", "b/.5.png", ".c/6.png", "b/README"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_every_file_is_kept_or_counted(folder):
    found = list_files(folder, {".png"})
    assert [file.name for file in found.files] == ["1.png", "2.PNG", "4.png"]
    assert {reason: [p.name for p in files] for reason, files in found.passed_over.items()} == {
        ".txt files": ["3.txt"], "hidden files": [".5.png"], "hidden folders": [".c"], "files without an ending": ["README"],
    }  # fmt: skip
    assert found.words().startswith("passed over: 1 .txt files (such as 3.txt), 1 files without an ending")
    assert found.notes() == (found.words(),)


def test_nothing_passed_over_says_nothing(folder):
    assert list_files(folder / "a").notes() == ()


def test_endings_of_two_parts_are_endings(tmp_path):
    (tmp_path / "rows.csv.gz").write_bytes(b"")
    (tmp_path / "rows.gz").write_bytes(b"")
    assert [file.name for file in list_files(tmp_path, (".csv.gz",)).files] == ["rows.csv.gz"]


def test_a_link_to_a_folder_that_is_listed_anyway_is_counted(folder):
    os.symlink(folder / "a", folder / "b" / "again")
    found = list_files(folder, {".png"})
    assert len(found.files) == 3
    assert "1 links to folders that are listed anyway (such as again)" in found.words()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_a_folder_that_cannot_be_read_is_counted(folder):
    (folder / "b").chmod(0)
    try:
        assert "1 folders that cannot be read (such as b)" in list_files(folder, {".png"}).words()
    finally:
        (folder / "b").chmod(0o755)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere is not there"):
        list_files(tmp_path / "nowhere")
