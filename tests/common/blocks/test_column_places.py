"""Pairs of columns that are a latitude and a longitude."""

import json

import pandas as pd
import pytest

from common.data import ColumnsBlock
from common.errors import ConfigError
from common.files import dump_json
from common.spec import from_spec

MAP = pd.DataFrame({"lat": [52.5, 48.1, 50.1], "lon": [13.4, 11.6, 8.7], "y": [1.0, 2.0, 3.0], "x": [4.0, 5.0, 6.0]})


def test_columns_called_latitude_and_longitude_are_a_place_and_say_so():
    block = ColumnsBlock(infer=True).setup(MAP)
    assert block.located == (("lat", "lon"),)
    assert [column.why for column in block.columns][:2] == [
        "3 different numbers; with lon a place", "3 different numbers; with lat a place",
    ]  # fmt: skip


def test_the_user_names_places_and_overrules_those_that_are_found():
    assert ColumnsBlock(infer=True, places=(("y", "x"),)).setup(MAP).located == (("y", "x"), ("lat", "lon"))
    assert ColumnsBlock(infer=True, numbers=("lat",)).setup(MAP).located == ()
    assert ColumnsBlock(numbers=("lat", "lon")).setup(MAP).located == ()


def test_a_place_of_a_column_that_is_no_number_is_refused():
    with pytest.raises(ConfigError, match="places: 'lati' is no number of the table: did you mean 'lat'"):
        ColumnsBlock(infer=True, places=(("lati", "lon"),)).setup(MAP)


def test_places_go_to_json_and_back():
    block = ColumnsBlock(infer=True, places=(("y", "x"),)).setup(MAP)
    assert from_spec("block", json.loads(dump_json(block.spec())), "block") == block
