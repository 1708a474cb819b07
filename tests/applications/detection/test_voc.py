"""Pascal VOC files as people have them, and a sentence with file and line for every fault of one."""

import time

import pytest

from applications.detection.voc import MAX_BYTES, read_annotation
from common.errors import DataError

from .conftest import voc_text


@pytest.fixture()
def write(tmp_path):
    def make(text):
        path = tmp_path / "x.xml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return make


def test_boxes_labels_and_size_are_as_stated(write):
    found = read_annotation(write(voc_text([("cat", (1, 2, 30.5, 40)), ("dog", (0, 0, 60, 40))])))
    assert list(found.boxes) == [(1, 2, 30.5, 40), (0, 0, 60, 40)]
    assert found.labels == ["cat", "dog"]
    assert (found.size, found.shapes, found.crowd, found.areas, found.notes) == ((40, 60), None, None, None, ())


def test_difficult_objects_are_crowds(write):
    text = voc_text([("cat", (1, 2, 3, 4)), ("cat", (5, 6, 7, 8))], difficult=(1,))
    assert read_annotation(write(text)).crowd == [False, True]


def test_parts_of_an_object_are_no_objects(write):
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    text = voc_text([("person", (1, 2, 30, 40))]).replace("<difficult>", f"{part}<difficult>")
    found = read_annotation(write(text))
    assert (found.labels, list(found.boxes)) == (["person"], [(1, 2, 30, 40)])


def test_an_image_may_have_no_objects(write):
    found = read_annotation(write(voc_text([])))
    assert (list(found.boxes), found.labels, found.size) == ([], [], (40, 60))


@pytest.mark.parametrize("size", [None, (0, 0)])
def test_without_a_size_nothing_is_cut(write, size):
    found = read_annotation(write(voc_text([("cat", (-5, 0, 4000, 30))], size=size)))
    assert (found.size, list(found.boxes), found.notes) == (None, [(-5, 0, 4000, 30)], ())


def test_the_size_of_the_image_itself_stands_in(write):
    found = read_annotation(write(voc_text([("cat", (-5, 0, 4000, 30))], size=None)), (40, 60))
    assert (found.size, list(found.boxes)) == ((40, 60), [(0, 0, 60, 30)])


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (5, 9, 7, 9), (5, 5, 5, 5)])
def test_a_box_without_extent_is_left_out_with_its_line(write, box):
    found = read_annotation(write(voc_text([("dog", (1, 1, 9, 9)), ("cat", box)])))
    assert found.labels == ["dog"]
    (note,) = found.notes
    assert "x.xml, line 8: the box of 'cat'" in note
    assert note.endswith("has no extent: left out")


def test_a_box_outside_the_image_is_left_out(write):
    found = read_annotation(write(voc_text([("cat", (70, 5, 90, 20))])))
    assert not found.boxes
    assert "(70, 5, 90, 20) lies outside its image of 60 x 40 pixels: left out" in found.notes[0]


def test_a_box_partly_outside_is_cut(write):
    found = read_annotation(write(voc_text([("cat", (-3, 5, 90, 20))])))
    assert list(found.boxes) == [(0, 5, 60, 20)]
    assert "x.xml, line 3: the box of 'cat' (-3, 5, 90, 20) is cut to its image" in found.notes[0]


def test_what_rounding_adds_is_left_alone(write):
    found = read_annotation(write(voc_text([("cat", (-0.4, 5, 60.9, 20))])))
    assert (list(found.boxes), found.notes) == ([(-0.4, 5, 60.9, 20)], ())


FAULTS = {
    "truncated": (voc_text()[:-30], r"x\.xml, line \d+: is not whole XML \("),
    "empty": ("", r"x\.xml, line 1: is not whole XML \(no element found\)"),
    "no xml": ("\x89PNG", r"x\.xml, line 1: is not whole XML"),
    "odd encoding": (b'<?xml version="1.0" encoding="klingon"?><annotation/>', r"x\.xml"),
    "not utf-8": (voc_text([("caf\xe9", (1, 1, 2, 2))]).encode("latin-1"), r"x\.xml, line 4: is not whole XML"),
    "another root": ("<svg></svg>", r"x\.xml, line 1: a Pascal VOC file begins with <annotation>, got <svg>"),
    "no name": (voc_text().replace("name>", "nome>"), r"x\.xml, line 3: the <object> has no <name>"),
    "empty name": (voc_text([(" ", (1, 1, 2, 2))]), r"x\.xml, line 4: the <name> of an object is empty"),
    "no box": (voc_text().replace("bndbox>", "box>"), r"x\.xml, line 3: the <object> has no <bndbox>"),
    "no corner": (voc_text().replace("ymax>", "y2>"), r"x\.xml, line 6: the <bndbox> has no <ymax>"),
    "a word": (voc_text([("cat", (1, "two", 3, 4))]), r"line 6: <ymin> must be a finite number, got 'two'"),
    "a comma": (voc_text([("cat", ("1,5", 2, 3, 4))]), r"line 6: <xmin> must be a finite number, got '1,5'"),
    "not a number": (voc_text([("cat", (1, 2, "nan", 4))]), r"line 6: <xmax> must be a finite number, got 'nan'"),
    "infinite": (voc_text([("cat", (1, 2, 3, "1e999"))]), r"line 6: <ymax> must be a finite number, got '1e999'"),
    "nothing": (voc_text([("cat", (1, "", 3, 4))]), r"line 6: <ymin> must be a finite number, got ''"),
    "swapped": (voc_text([("cat", (9, 1, 3, 4))]), r"line 6: xmin=9 lies above xmax=3: are the corners in the wrong"),
    "odd flag": (voc_text().replace("<difficult>0", "<difficult>?"), r"line 5: <difficult> must be 0 or 1, got '\?'"),
    "odd size": (voc_text(size=("x", 60)), r"line 2: <height> must be a finite number, got 'x'"),
    "size below zero": (voc_text(size=(-4, 60)), r"line 2: <size> says 60 x -4 pixels"),
    "deep": ("<annotation>" + "<a>" * 200, r"line 1: elements lie more than 100 deep"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "says"), FAULTS.values(), ids=list(FAULTS))
def test_a_fault_is_named_with_file_and_line(write, text, says):
    with pytest.raises(DataError, match=says) as caught:
        read_annotation(write(text))
    assert len(str(caught.value).splitlines()) == 1


def test_an_xml_bomb_is_refused_before_it_grows(write):
    entities = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(10))
    bomb = f'<!DOCTYPE annotation [<!ENTITY e0 "ha">{entities}]>\n<annotation>&e10;</annotation>'
    start = time.perf_counter()
    with pytest.raises(DataError, match=r"x\.xml, line 1: a document type .* is refused"):
        read_annotation(write(bomb))
    assert time.perf_counter() - start < 1


def test_other_files_are_not_read(write, tmp_path):
    (tmp_path / "secret").write_text("cat")
    text = f'<!DOCTYPE a [<!ENTITY e SYSTEM "file://{tmp_path}/secret">]>\n{voc_text([("&e;", (1, 1, 2, 2))])}'
    with pytest.raises(DataError, match="a document type"):
        read_annotation(write(text))


def test_a_huge_file_is_refused(write):
    with pytest.raises(DataError, match=r"x\.xml: is larger than 10 MB"):
        read_annotation(write(b" " * (MAX_BYTES + 1)))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no\.xml: cannot be read: No such file"):
        read_annotation(tmp_path / "no.xml")


@pytest.mark.parametrize(("size", "hint"), [((20, 30), "pixels: its"), ((60, 40), "turned by a quarter")])
def test_a_size_that_is_not_the_images_is_refused(write, size, hint):
    says = rf"x\.xml: <size> says 60 x 40 pixels, the image has {size[1]} x {size[0]}"
    with pytest.raises(DataError, match=says) as caught:
        read_annotation(write(voc_text()), size)
    assert "its boxes would lie elsewhere" in str(caught.value)
    assert (hint in str(caught.value)) or hint == "pixels: its"
