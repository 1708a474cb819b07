"""Counted randomness, against a slow version in Python's own integers."""

import numpy as np
import pytest
import torch
from scipy import stats

from common.counter import AUGMENT_STREAM, MODEL_STREAM, ORDER_STREAM, key, permuted, uniform

WORD = 1 << 64
GOLDEN = 0x9E3779B97F4A7C15


def permutation(count, seed, epoch):
    """A whole order, laid out."""
    return permuted(torch.arange(count), count, seed, epoch)


def split_mix(value):
    """One output of SplitMix64 for the state ``value`` (Steele, Lea and Flood 2014), with Python's long integers."""
    z = (value + GOLDEN) % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def slow_key(*parts):
    state = 0
    for part in parts:
        state = split_mix(state ^ split_mix(part % WORD))
    return state


def slow_uniform(seed, epoch, sample, stream, count):
    state = split_mix((sample % WORD) ^ slow_key(seed, epoch, stream))
    return [(split_mix((state + i * GOLDEN) % WORD) >> 11) / 2**53 for i in range(count)]


def test_slow_version_gives_the_published_sequence():
    # The first outputs of Vigna's splitmix64.c (prng.di.unimi.it) from state 0.
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [split_mix(i * GOLDEN) for i in range(3)] == published


@pytest.mark.parametrize("parts", [(), (0,), (1, 2, 3), (-1,), (2**63, 2**64 + 5), (42, 0, 10**30)])
def test_key_equals_the_slow_version(parts):
    assert key(*parts) == slow_key(*parts)


def test_key_depends_on_every_part_and_their_order():
    keys = {key(a, b, c) for a in range(6) for b in range(6) for c in range(6)}
    assert len(keys) == 6**3


@pytest.mark.parametrize(("seed", "epoch", "stream"), [(0, 0, 0), (42, 7, 1000), (-3, 2**40, 5), (2**63 + 1, 1, 1)])
def test_uniform_equals_the_slow_version(seed, epoch, stream):
    ids = [0, 1, 2, 17, 2**31, 2**62 + 9, -5]
    numbers = uniform(seed, epoch, torch.tensor(ids), stream, 4)
    assert numbers.tolist() == [slow_uniform(seed, epoch, i, stream, 4) for i in ids]


def test_uniform_is_the_same_for_any_batch_composition():
    whole = uniform(3, 5, torch.arange(100), 9, 3)
    shuffled = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    for size in (1, 7, 100):
        parts = torch.cat([uniform(3, 5, ids, 9, 3) for ids in shuffled.split(size)])
        assert torch.equal(parts, whole[shuffled])


def test_fewer_numbers_are_the_first_of_more():
    ids = torch.arange(10)
    assert torch.equal(uniform(0, 0, ids, 1, 2), uniform(0, 0, ids, 1, 5)[:, :2])


def test_ids_of_any_integer_type_give_the_same_numbers():
    ids = torch.arange(20)
    for dtype in (torch.int32, torch.uint8):
        assert torch.equal(uniform(1, 2, ids.to(dtype), 3, 2), uniform(1, 2, ids, 3, 2))


@pytest.mark.parametrize("stream", [ORDER_STREAM, MODEL_STREAM, AUGMENT_STREAM])
def test_uniform_passes_a_chi_square_test_over_100_000_ids(stream):
    numbers = uniform(0, 0, torch.arange(100_000), stream, 2).numpy()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    for column in numbers.T:
        counts = np.bincount((column * 100).astype(int), minlength=100)
        assert 1e-3 < stats.chisquare(counts).pvalue < 1 - 1e-3


def test_neighbouring_ids_epochs_streams_seeds_and_columns_are_uncorrelated():
    ids = torch.arange(100_000)
    base = uniform(0, 0, ids, 1000, 2)
    others = [
        base[:, 1],
        uniform(0, 0, ids + 1, 1000, 1)[:, 0],
        uniform(0, 1, ids, 1000, 1)[:, 0],
        uniform(0, 0, ids, 1001, 1)[:, 0],
        uniform(1, 0, ids, 1000, 1)[:, 0],
    ]
    for other in others:  # the deviation of the correlation of 100,000 independent pairs is 0.0032
        assert abs(np.corrcoef(base[:, 0].numpy(), other.numpy())[0, 1]) < 4 * 0.0032


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_permutation_holds_each_position_once(count):
    order = permutation(count, 0, 0)
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(count))


def test_permutation_is_a_function_of_seed_and_epoch():
    assert torch.equal(permutation(50, 1, 2), permutation(50, 1, 2))
    orders = {tuple(permutation(50, seed, epoch).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_permutation_does_not_touch_the_global_generator():
    before = torch.random.get_rng_state()
    permutation(100, 0, 0)
    uniform(0, 0, torch.arange(9), 0, 2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_permutation_of_four_is_equally_likely():
    tally = {}
    for epoch in range(4800):
        order = tuple(permutation(4, 7, epoch).tolist())
        tally[order] = tally.get(order, 0) + 1
    assert len(tally) == 24
    assert 1e-3 < stats.chisquare(list(tally.values())).pvalue < 1 - 1e-3


@pytest.mark.parametrize("count", [1, 2, 7, 4096, 4097, 5000, 65536, 65537, 100_003])
def test_an_order_holds_every_position_once(count):
    found = permutation(count, 3, 4)
    assert torch.equal(found.sort().values, torch.arange(count))


@pytest.mark.parametrize("count", [10, 4096, 4097, 50_000])
def test_any_place_of_an_order_is_known_without_the_others(count):
    whole = permutation(count, 1, 2)
    places = torch.tensor([count - 1, 0, count // 2, 3])
    assert torch.equal(permuted(places, count, 1, 2), whole[places])


def test_a_place_far_into_a_huge_order_costs_what_the_first_costs():
    """A million million items: laying the order out would take terabytes."""
    count = 10**12
    places = torch.tensor([0, 1, count // 2, count - 1])
    found = permuted(places, count, 0, 0)
    assert len(set(found.tolist())) == 4
    assert ((found >= 0) & (found < count)).all()


@pytest.mark.parametrize("count", [4097, 6000, 9000])
def test_every_position_is_as_likely_at_any_place(count):
    """Chi squared of where an item lands, over 3,000 orders in 40 bins, and of how far two neighbours part."""
    orders = np.stack([permuted(torch.tensor([0, 1, count - 1]), count, seed, 5).numpy() for seed in range(3000)])
    for landed in (orders[:, 0], orders[:, 2], (orders[:, 1] - orders[:, 0]) % count):
        counts = np.bincount(landed * 40 // count, minlength=40)
        statistic = ((counts - 75) ** 2 / 75).sum()
        assert statistic < 39 + 5 * (2 * 39) ** 0.5


def test_neighbours_in_an_order_are_unrelated():
    order = permutation(50_000, 0, 0).numpy().astype(float)
    for lag in (1, 2, 64):
        assert abs(np.corrcoef(order[:-lag], order[lag:])[0, 1]) < 0.02
    assert abs(np.corrcoef(order, np.arange(50_000))[0, 1]) < 0.02


def test_another_seed_or_epoch_gives_another_order():
    first = permutation(5000, 0, 0)
    for other in (permutation(5000, 1, 0), permutation(5000, 0, 1)):
        assert (first == other).float().mean() < 0.01
