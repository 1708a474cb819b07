"""What every test runs under."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """A flush to a real disk takes most of these tests' time; what fails when it fails is tested by itself."""
    monkeypatch.setattr("os.fsync", lambda handle: None)
