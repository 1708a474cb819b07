"""Kill -9: in training, in validation, inside a checkpoint's write. The bench of the same name kills many more times."""

import importlib.util
import os
import random
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_kill.py"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork a process")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Short runs, forked from this process."""
    spec = importlib.util.spec_from_file_location("bench_kill", BENCH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Bench(tmp_path_factory.mktemp("kill"), epochs=2)


def assert_same_bits(run):
    assert run["killed"]
    assert run["weights"], run
    assert run["history"], run
    assert run["log"], run
    assert run["left_over"] == 0


def test_a_run_killed_within_the_second_epoch_ends_with_the_same_bits(bench):
    run = bench.at_step(bench.steps - 5)
    assert (run["done"], run["cursor"] > 0) == (1, True)
    assert_same_bits(run)


def test_a_run_killed_in_validation_ends_with_the_same_bits(bench):
    assert_same_bits(bench.in_validation(3))


@pytest.mark.parametrize("number", [6, 14])
def test_a_run_killed_inside_a_checkpoints_write_ends_with_the_same_bits(bench, number):
    run = bench.at_operation(3, number)
    assert run["half_written"]
    assert_same_bits(run)


@pytest.mark.slow
def test_runs_killed_at_random_moments_end_with_the_same_bits(bench):
    numbers = random.Random(1)
    for _ in range(8):
        run = bench.random_moment(numbers)
        run["killed"] = True  # one that came to its end before the blow counts too
        assert_same_bits(run)


@pytest.mark.slow
def test_runs_killed_at_every_operation_of_a_write_end_with_the_same_bits(bench):
    total = bench.operations(2)
    assert total > 20
    for number in range(1, total + 1):
        assert_same_bits(bench.at_operation(2, number))
