"""The page of this folder says what every operation does to every target, and says what the operations say."""

import pytest

from common.augment import table as page
from common.augment.operations import Operation

NAMED = {
    "rotation": ["rotate"],
    "flipping": ["flip_horizontal", "flip_vertical", "symmetry"],
    "perspective warp": ["warp"],
    "brightness": ["brightness"],
    "contrast": ["contrast"],
    "cropping": ["crop"],
    "zooming": ["zoom"],
    "colour jitter": ["saturation", "hue"],
    "noise": ["noise", "salt_pepper"],
    "blur": ["blur"],
    "sharpen": ["sharpen"],
    "elastic": ["elastic"],
    "erasing": ["erase"],
    "mixing": ["mixup", "cutmix"],
    "grayscale": ["grayscale"],
    "spectrograms": ["time_mask", "frequency_mask", "time_shift", "gain"],
}


def rows():
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in page.table().splitlines()]


def below(kind):
    return {kind, *(one for child in kind.__subclasses__() for one in below(child))}


def test_the_readme_holds_the_table():
    assert page.between_marks(page.README.read_text("utf-8"))[1] == f"\n{page.table()}\n"


def test_no_cell_is_empty():
    head, _, *body = rows()
    assert head == ["operation", *page.COLUMNS]
    for row in body:
        assert len(row) == len(head)
        assert row[0]
        assert set(row[1:]) <= set(page.SAID.values())


def test_every_operation_is_in_it_once():
    labels = [row[0] for row in rows()[2:]]
    named = [kind for kind in below(Operation) if hasattr(kind, "name") and kind.__module__.startswith("common.")]
    assert sorted(labels) == sorted(kind.label for kind in named)
    assert len(set(labels)) == len(labels)


def test_every_operation_says_what_it_does_to_every_column():
    for kind in page.operations():
        assert set(page.COLUMNS) <= set(kind.support)


@pytest.mark.parametrize("what", NAMED)
def test_what_is_promised_is_there(what):
    assert set(NAMED[what]) <= {kind.name for kind in page.operations()}


def test_writing_changes_the_table_and_nothing_else(tmp_path):
    file = tmp_path / "README.md"
    file.write_text(f"before\n{page.MARKS[0]}\nold\n{page.MARKS[1]}\nafter\n")
    page.write(file)
    assert file.read_text("utf-8") == f"before\n{page.MARKS[0]}\n{page.table()}\n{page.MARKS[1]}\nafter\n"


def test_a_page_without_marks_is_refused_and_kept(tmp_path):
    file = tmp_path / "README.md"
    file.write_text("no table here\n")
    with pytest.raises(ValueError, match="marks"):
        page.write(file)
    assert file.read_text() == "no table here\n"
