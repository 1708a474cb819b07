"""CamVid as it lies in the shared folder: its pairs, parts and ids."""

import numpy as np
import pytest

from applications.segmentation import read_source

NAMES = "sky,building,pole,road,pavement,tree,sign,fence,car,pedestrian,bicyclist"


@pytest.fixture()
def camvid(shared):
    if not (shared / "data" / "camvid").exists():
        pytest.skip("needs ../shared/data/camvid")
    return shared / "data" / "camvid"


@pytest.mark.data
def test_camvid_is_read_with_two_options(camvid):
    source = read_source(camvid, classes=NAMES, ignore=11)
    assert dict(zip(*np.unique(source.parts, return_counts=True), strict=True)) == {
        "train": 367,
        "valid": 101,
        "test": 117,
    }
    assert source.codes == tuple(NAMES.split(","))
    ids = source.block().encode(source.get_y(source.items[0])).numpy()
    assert ids.shape == (360, 480)
    assert set(np.unique(ids).tolist()) <= set(range(12))


@pytest.mark.data
def test_without_options_camvids_classes_are_its_values(camvid):
    source = read_source(camvid)
    assert source.codes == tuple(map(str, range(12)))
    assert "(0 to 11)" in source.kind
