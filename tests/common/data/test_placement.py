"""Where a loader augments: it measures, keeps the fastest place, and what it makes is the same anywhere on a CPU."""

import time

import numpy as np
import pytest
import torch

from common.augment import Augment
from common.data import CategoryBlock, DataBlock, ImageBlock, IndexSplitter, Resize, placement
from common.data.placement import TRIES, Placement


def test_each_place_is_tried_in_turns_and_the_fastest_is_kept():
    choice, asked = Placement(("threads", "caller")), []
    while choice.chosen is None:
        place, count = choice.turn()
        assert count == placement.TRIAL
        asked.append(place)
        choice.note(place, {"threads": 0.02, "caller": 0.01}[place])
    assert asked == ["threads", "caller"] * TRIES
    assert choice.turn() == ("caller", None)
    assert str(choice) == (
        "augmentation runs between the steps of the training loop: 10.0 ms a batch with the step, "
        "in threads beside the training loop 20.0"
    )


def test_one_place_is_not_measured():
    choice = Placement(("device",))
    assert choice.turn() == ("device", None)
    assert str(choice) == "augmentation runs on the device"
    assert Placement().chosen is None
    assert str(Placement()) == "augmentation: not yet measured"


@pytest.fixture
def loader(monkeypatch):
    monkeypatch.setattr(placement, "TRIAL", 3)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 70, 70, 3), dtype=np.uint8)
    block = DataBlock(
        (ImageBlock, CategoryBlock), get_x=lambda i: pixels[i], get_y=lambda i: "ab"[i % 2],
        splitter=IndexSplitter([0]), item_tfms=Resize(66), batch_tfms=Augment(flip=True, rotate=10),
    )  # fmt: skip
    return block.dataloaders(list(range(40)), bs=4, num_workers=2).train.with_options(drop_last=False)


def test_a_loader_decides_once_all_is_decoded_and_makes_the_same_batches_meanwhile(loader):
    first = [batch.x.clone() for batch in loader.batches(0)]
    assert loader.placement.seconds == {}  # decoding is not measured
    for epoch in (1, 2, 3):
        for batch in loader.batches(epoch):
            assert torch.isfinite(batch.x).all()
    assert loader.placement.chosen in ("threads", "caller")
    assert {len(seconds) for seconds in loader.placement.seconds.values()} == {TRIES}
    assert all(torch.equal(a, b.x) for a, b in zip(first, loader.batches(0), strict=True))
    assert loader.augments == str(loader.placement)
    assert "ms a batch with the step" in loader.augments


@pytest.mark.parametrize(
    ("cost", "wanted"), [({"threads": 0.0, "caller": 0.03}, "threads"), ({"threads": 0.03, "caller": 0.0}, "caller")]
)
def test_the_loader_keeps_the_place_that_costs_less(loader, monkeypatch, cost, wanted):
    real = type(loader)._placed

    def slowed(self, place, *args):
        for batch in real(self, place, *args):
            time.sleep(cost[place])
            yield batch

    monkeypatch.setattr(type(loader), "_placed", slowed)
    for epoch in range(6):
        list(loader.batches(epoch))
    assert loader.placement.chosen == wanted


def test_evaluation_and_small_images_are_not_measured(loader):
    still = loader.with_options(train=False)
    for epoch in range(3):
        list(still.batches(epoch))
    assert still.placement.seconds == {}
    assert still.augments is None
    block = DataBlock(
        (ImageBlock, CategoryBlock), get_x=lambda i: np.zeros((8, 8, 3), np.uint8), get_y=lambda i: "ab"[i % 2],
        batch_tfms=Augment(flip=True),
    )  # fmt: skip
    small = block.dataloaders(list(range(20)), bs=4).train
    for epoch in range(3):
        list(small.batches(epoch))
    assert small.placement.places == ("caller",)
    assert small.placement.seconds == {}
