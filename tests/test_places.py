"""Each file of common says its floor and who uses it, and that is true."""

import importlib.util
from pathlib import Path


def test_the_last_line_of_each_docstring_of_common_is_true():
    spec = importlib.util.spec_from_file_location("places", Path(__file__).with_name("places.py"))
    places = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(places)
    wrong = [file.relative_to(places.ROOT).as_posix() for file, _ in places.wrong()]
    assert wrong == [], "mend them with: python tests/places.py --write"
