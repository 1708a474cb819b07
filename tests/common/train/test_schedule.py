"""Schedules by hand, rates of layer groups, and the suggestion of the rate test."""

import math

import pytest

from common.errors import ConfigError
from common.train.lr_find import valley
from common.train.schedule import Constant, OneCycle, Ramp, group_rates


@pytest.mark.parametrize(
    ("share", "factor", "momentum"),
    [
        (0.0, 0.1, 0.9),
        (0.25, (0.1 + 1.0) / 2, (0.9 + 0.8) / 2),  # half of the rise: the cosine is at its middle
        (0.5, 1.0, 0.8),
        (0.75, (1.0 + 0.001) / 2, (0.8 + 0.7) / 2),
        (1.0, 0.001, 0.7),
    ],
)
def test_one_cycle_at_its_marks(share, factor, momentum):
    cycle = OneCycle(div=10, div_final=1000, pct_start=0.5, momenta=(0.9, 0.8, 0.7))
    assert cycle.factor(share) == pytest.approx(factor)
    assert cycle.momentum(share) == pytest.approx(momentum)


def test_one_cycle_equals_torchs_with_the_same_numbers():
    import torch

    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=0.1, betas=(0.95, 0.99))
    steps, peak = 40, 0.1
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak, total_steps=steps, pct_start=10 / 39, div_factor=25, final_div_factor=1e5 / 25
    )  # torch counts 40 steps as 39 intervals, and its last rate is the first over final_div_factor
    ours = OneCycle(pct_start=(40 * 10 / 39 - 1) / 39)
    for i in range(steps):
        assert ours.factor(i / (steps - 1)) * peak == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        assert ours.momentum(i / (steps - 1)) == pytest.approx(optimizer.param_groups[0]["betas"][0], rel=1e-6)
        optimizer.step()
        theirs.step()


def test_one_cycle_without_a_rise_starts_at_the_peak():
    cycle = OneCycle(pct_start=0.0)
    assert cycle.factor(0.0) == 1.0
    assert cycle.factor(1.0) == pytest.approx(1e-5)


def test_one_cycle_of_a_rise_alone_ends_at_the_peak():
    cycle = OneCycle(pct_start=1.0)
    assert cycle.factor(0.0) == pytest.approx(1 / 25)
    assert cycle.factor(0.999999) == pytest.approx(1.0, abs=1e-6)


def test_one_cycle_rises_then_falls():
    cycle = OneCycle(pct_start=0.3)
    factors = [cycle.factor(i / 100) for i in range(101)]
    assert all(a < b for a, b in zip(factors[:30], factors[1:31], strict=True))
    assert all(a > b for a, b in zip(factors[30:-1], factors[31:], strict=True))


@pytest.mark.parametrize(
    ("name", "value"), [("pct_start", 1.5), ("div", 0.5), ("div_final", 0), ("pct_start", math.nan)]
)
def test_one_cycle_refuses_what_is_out_of_range(name, value):
    with pytest.raises(ConfigError, match=f"{name} must lie in"):
        OneCycle(**{name: value})


def test_constant_is_one_everywhere_and_leaves_momentum():
    assert [Constant().factor(s) for s in (0, 0.3, 1)] == [1.0, 1.0, 1.0]
    assert Constant().momentum(0.5) is None


def test_ramp_is_even_in_the_logarithm():
    ramp = Ramp(1e-6, 1.0)
    assert [ramp.factor(s) for s in (0, 0.5, 1)] == pytest.approx([1e-6, 1e-3, 1.0])


@pytest.mark.parametrize(
    ("lr", "groups", "expected"),
    [
        (1e-3, 3, [1e-3] * 3),
        (1, 2, [1.0, 1.0]),
        (slice(1e-3), 3, [1e-4, 1e-4, 1e-3]),
        (slice(1e-5, 1e-3), 3, [1e-5, 1e-4, 1e-3]),
        (slice(1e-5, 1e-3), 1, [1e-3]),
        (slice(1e-6, 1e-2), 5, [1e-6, 1e-5, 1e-4, 1e-3, 1e-2]),
        ([0.1, 0.2], 2, [0.1, 0.2]),
        ((0.5,), 1, [0.5]),
    ],
)
def test_group_rates_by_hand(lr, groups, expected):
    assert group_rates(lr, groups) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "lr",
    [0, 0.0, -1e-3, math.nan, math.inf, [1e-3, 0.0], [1e-3, -1.0], slice(0, 1e-2), slice(-1e-3, 1e-2), slice(1e-3, 0)],
)
def test_a_rate_that_is_not_above_zero_is_refused(lr):
    with pytest.raises(ConfigError, match="lr must be above 0"):
        group_rates(lr, 2)


@pytest.mark.parametrize("lr", [slice(0, 1e-2), slice(-1e-3, 1e-2), slice(1e-3, -1e-2)])
def test_a_slice_with_an_end_that_is_not_above_zero_is_refused(lr):
    with pytest.raises(ConfigError, match="lr must be above 0"):
        group_rates(lr, 3)


@pytest.mark.parametrize("lr", [[1e-3], [1e-3] * 4])
def test_the_number_of_rates_must_be_the_number_of_groups(lr):
    with pytest.raises(ConfigError, match=f"one rate for each of 3 layer groups, got {len(lr)}"):
        group_rates(lr, 3)


@pytest.mark.parametrize(
    ("losses", "position"),
    [
        ([4, 3, 2, 9], 1),  # falls over 0..2, two thirds of the way is 1
        ([5, 6, 5, 4, 3, 2, 7], 1 + 2),  # the longest fall is 1..5, not 0..0
        ([9, 8, 10, 9, 8, 7, 6, 5, 4], 2 + 4),
        ([1, 2, 3], 0),  # never falls
        ([3, 3, 3], 0),
    ],
)
def test_valley_is_two_thirds_into_the_longest_fall(losses, position):
    rates = [10.0**-i for i in range(len(losses), 0, -1)]
    assert valley(rates, [float(v) for v in losses]) == rates[position]
