"""Files are whole or absent."""

import errno
import hashlib
import os

import pytest

from common.files import dump_json, sha256, staged_directory, write_bytes, write_text


@pytest.fixture
def full_disk(monkeypatch):
    """Makes every flush to the disk fail as it does when the disk is full."""

    def fail(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)


def names(folder):
    return sorted(p.name for p in folder.rglob("*"))


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_json_is_sorted_and_indented_with_a_final_newline():
    assert dump_json({"b": [1, "ü"], "a": None}) == '{\n  "a": null,\n  "b": [\n    1,\n    "ü"\n  ]\n}\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_numbers_that_json_does_not_have(value):
    with pytest.raises(ValueError, match="JSON"):
        dump_json({"loss": value})


def test_write_replaces_the_content_and_leaves_nothing_beside(tmp_path):
    write_bytes(tmp_path / "a", b"old")
    write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_text_is_written_as_utf8(tmp_path):
    write_text(tmp_path / "a", "Größe 蔷薇\n")
    assert (tmp_path / "a").read_bytes() == "Größe 蔷薇\n".encode()


def test_a_written_file_can_be_read_by_others(tmp_path):
    write_bytes(tmp_path / "a", b"x")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


@pytest.mark.usefixtures("full_disk")
def test_a_write_on_a_full_disk_keeps_the_old_content_and_leaves_no_stray_file(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"):
        write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.usefixtures("full_disk")
def test_a_first_write_on_a_full_disk_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "a", "new")
    assert names(tmp_path) == []


def test_a_failed_rename_keeps_the_old_content_and_leaves_no_stray_file(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")

    def fail(source, target):
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(PermissionError):
        write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_an_interrupt_while_writing_leaves_no_stray_file(tmp_path, monkeypatch):
    def interrupt(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a", b"new")
    assert names(tmp_path) == []


def test_staged_directory_appears_whole_at_the_end(tmp_path):
    target = tmp_path / "deep" / "out"
    with staged_directory(target) as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "a").write_text("1")
        assert not target.exists()
    assert names(tmp_path) == ["a", "deep", "inner", "out"]
    assert (target / "inner" / "a").read_text() == "1"


def test_staged_directory_replaces_all_of_an_old_one(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")
    with staged_directory(target) as aside:
        (aside / "new").write_text("new")
        assert names(target) == ["old"]
    assert names(tmp_path) == ["new", "out"]


def test_an_error_inside_leaves_the_old_directory_as_it_was(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(ZeroDivisionError), staged_directory(target) as aside:
        (aside / "new").write_text(str(1 // len(names(aside))))
    assert names(tmp_path) == ["old", "out"]


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_at_the_end_leaves_the_old_directory_as_it_was(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(OSError, match="No space left"), staged_directory(target) as aside:
        (aside / "new").write_text("new")
    assert names(tmp_path) == ["old", "out"]
    assert (target / "old").read_text() == "old"


def test_a_rename_that_fails_brings_the_old_directory_back(tmp_path, monkeypatch):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")
    real = os.rename

    def fail_into_place(source, to):
        if str(source).endswith(".partial"):
            raise PermissionError(errno.EPERM, "not permitted")
        real(source, to)

    monkeypatch.setattr(os, "rename", fail_into_place)
    with pytest.raises(PermissionError), staged_directory(target) as aside:
        (aside / "new").write_text("new")
    assert names(tmp_path) == ["old", "out"]


def test_staging_over_a_file_leaves_no_stray_file(tmp_path):
    (tmp_path / "out").write_text("a file is here")
    try:
        with staged_directory(tmp_path / "out") as aside:
            (aside / "new").write_text("new")
    except OSError:
        assert names(tmp_path) == ["out"]
    else:
        assert names(tmp_path) == ["new", "out"]
