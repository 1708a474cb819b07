"""Spectrograms: masks, shift and gain within each one's own length."""

import numpy as np
import pytest
import torch

from common.augment import Augment, BatchPipeline, SpecAugment
from common.augment.spectral import FrequencyMask, Gain, TimeMask, TimeShift
from common.blocks.batch import Batch
from common.blocks.sample import SampleEncoder
from common.blocks.values import Padded, map_tensors
from common.data import CategoryBlock, DataBlock, EpochSeed, IndexSplitter, SpectrogramBlock
from common.errors import ConfigError

LENGTHS = [40, 25, 33, 7]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    values, valid = torch.zeros(4, 40, 16), torch.zeros(4, 40, dtype=torch.bool)
    for i, length in enumerate(LENGTHS):
        values[i, :length] = torch.randn(length, 16, generator=generator) * 10 - 30
        valid[i, :length] = True
    return Batch(x=Padded(values, valid), y=torch.arange(4), ids=torch.arange(4) * 7)


def run(batch, epoch=0, train=True, **options):
    names = {"time_mask": 0.0, "frequency_mask": 0.0, **options}
    blocks = (SpectrogramBlock(), CategoryBlock(("a", "b", "c", "d")))
    return BatchPipeline(SampleEncoder(blocks), [SpecAugment(**names)])(batch, EpochSeed(0, epoch), train)


def test_gain_adds_decibels_to_the_sound_and_nothing_to_the_padding(batch):
    change = run(batch, gain=6).x.values - batch.x.values
    for i, length in enumerate(LENGTHS):
        assert change[i, :length].std() < 1e-5
        assert 0 < change[i, 0, 0].abs() <= 6
        assert (change[i, length:] == 0).all()


def test_a_shift_moves_each_sound_round_within_its_own_length(batch):
    kinds = set()
    for epoch in range(12):
        found = run(batch, epoch, shift=0.3).x.values
        for i, length in enumerate(LENGTHS):
            moves = [k for k in range(length) if torch.equal(found[i, :length], batch.x.values[i, :length].roll(k, 0))]
            assert len(moves) == 1
            move = min(moves[0], length - moves[0])
            assert move <= 0.3 * length
            kinds.add((i, moves[0]))
            assert (found[i, length:] == 0).all()
    assert len(kinds) > 20


@pytest.mark.parametrize(("option", "axis"), [("time_mask", 1), ("frequency_mask", 2)])
def test_masks_cover_bands_with_the_mean(batch, option, axis):
    covered_somewhere = 0
    for epoch in range(10):
        found = run(batch, epoch, **{option: 0.25}).x.values
        for i, length in enumerate(LENGTHS):
            own, was = found[i, :length], batch.x.values[i, :length]
            mean = was.mean()
            covered = (own != was).all(dim=2 - axis) if axis == 1 else (own != was).all(dim=0)
            torch.testing.assert_close(
                own[covered] if axis == 1 else own[:, covered],
                torch.full_like(own[covered] if axis == 1 else own[:, covered], mean.item()),
                atol=1e-4,
                rtol=0,
            )
            kept = own[~covered] if axis == 1 else own[:, ~covered]
            assert torch.equal(kept, was[~covered] if axis == 1 else was[:, ~covered])
            assert covered.sum() <= 2 * 0.25 * len(covered) + 1e-9
            covered_somewhere += int(covered.sum())
            runs = int((covered.int().diff() == 1).sum()) + int(covered[0])
            assert runs <= 2
    assert covered_somewhere > 40


def test_a_sample_is_changed_alike_in_any_batch_and_with_any_padding(batch):
    options = {"gain": 3, "shift": 0.2, "time_mask": 0.2, "frequency_mask": 0.2}
    whole = run(batch, 3, **options).x.values
    for i, length in enumerate(LENGTHS):
        x = map_tensors(batch.x, lambda t, i=i, length=length: t[i : i + 1, :length])
        alone = run(Batch(x=x, y=batch.y[i : i + 1], ids=batch.ids[i : i + 1]), 3, **options).x.values
        torch.testing.assert_close(alone[0], whole[i, :length], atol=1e-5, rtol=0)


def test_evaluation_changes_nothing(batch):
    assert torch.equal(run(batch, train=False, gain=6, shift=0.5).x.values, batch.x.values)


@pytest.mark.parametrize("operation", [Gain(), TimeShift(), TimeMask(), FrequencyMask()])
def test_an_operation_that_is_not_chosen_changes_nothing(batch, operation):
    numbers = torch.rand(4, operation.numbers, dtype=torch.float64)
    from common.augment.spectral import change

    none = torch.zeros(4, dtype=torch.bool)
    assert torch.equal(change(batch.x, operation, numbers, none).values, batch.x.values)
    assert not torch.equal(change(batch.x, operation, numbers, ~none).values, batch.x.values)


def test_spectrograms_refuse_what_is_for_images_and_the_other_way_round():
    with pytest.raises(ConfigError, match=r"rotate does not support spectrogram \(SpectrogramBlock\)"):
        BatchPipeline(SampleEncoder((SpectrogramBlock(),)), [Augment(rotate=10)])
    with pytest.raises(ConfigError, match="time_mask needs a spectrogram"):
        BatchPipeline(SampleEncoder((CategoryBlock(("a",)),)), [SpecAugment()])


def test_a_datablock_of_spectrograms_trains_on_changed_ones():
    arrays = [np.random.default_rng(i).normal(-30, 10, (8, 12 + i)).astype(np.float32) for i in range(10)]
    block = DataBlock(
        (SpectrogramBlock, CategoryBlock), get_x=lambda i: arrays[i], get_y=lambda i: str(i % 2),
        splitter=IndexSplitter([8, 9]), batch_tfms=SpecAugment(gain=5, shift=0.2),
    )  # fmt: skip
    dls = block.dataloaders(list(range(10)), bs=4)
    batch = dls.train.one_batch()
    assert batch.x.values.shape[2] == 8
    row = int(batch.ids[0])
    length = 12 + row
    assert not np.allclose(batch.x.values[0, :length].T, arrays[row])
    valid = dls.valid.one_batch()
    np.testing.assert_array_equal(valid.x.values[0, : 12 + int(valid.ids[0])].T, arrays[int(valid.ids[0])])


@pytest.mark.parametrize(
    ("name", "value"), [("time_mask", 1.5), ("shift", -0.1), ("gain", -1), ("time_masks", 65), ("p", 2)]
)
def test_an_option_out_of_range_is_named(name, value):
    with pytest.raises(ConfigError, match=rf"^{name} must"):
        SpecAugment(**{name: value})
