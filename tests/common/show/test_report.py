"""The HTML report: one file, whole or absent, and nothing in it comes from elsewhere."""

import base64
import os
from html.parser import HTMLParser

import pytest

from common.show import Report

NASTY = '<script>alert("x")</script> & "quotes" \'single\''


class Reader(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture()
def page(tmp_path):
    report = Report(f"title {NASTY}")
    report.text(f"heading {NASTY}", f"line one\n{NASTY}")
    report.table(f"table {NASTY}", [{f"name {NASTY}": NASTY, "value": 0.123456}, {"value": 7}])
    report.picture(f"picture {NASTY}", b"\x89PNG...", f"caption {NASTY}")
    report.write(tmp_path / "report.html")
    return (tmp_path / "report.html").read_text("utf-8")


def test_what_is_written_is_text_and_never_code(page):
    found = Reader(page)
    assert "script" not in found.tags
    assert "".join(found.text).count(NASTY) == 9  # title twice, three headings, text, a column, a cell, a caption


def test_pictures_lie_inside_the_page(page):
    assert Reader(page).sources == ["data:image/png;base64," + base64.b64encode(b"\x89PNG...").decode()]
    assert "http" not in page


def test_numbers_have_four_digits_and_missing_cells_are_empty(page):
    assert "<td>0.1235</td>" in page
    assert "<td></td><td>7</td>" in page


def test_a_table_without_rows_is_left_out(tmp_path):
    report = Report("x")
    report.table("nothing", [])
    assert report.parts == []


def test_a_failing_write_leaves_the_older_page(tmp_path, monkeypatch):
    report = Report("x")
    report.write(tmp_path / "r.html")
    before = (tmp_path / "r.html").read_bytes()
    report.text("more", "text")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        report.write(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
