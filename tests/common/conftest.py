"""Makers of small data, for the tests of this folder."""

import wave

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from common.blocks.values import Padded, map_tensors

matplotlib.use("Agg")


def smooth(height, width, seed=0):
    """A smooth uint8 (H, W, 3) picture that differs by seed: any resampling keeps it nearly."""
    y, x = np.mgrid[0:height, 0:width]
    phase = np.random.default_rng(seed).uniform(0, 6.28, 3)
    waves = [np.sin(x / width * 5 + phase[0]), np.cos(y / height * 4 + phase[1]), np.sin((x + y) / 20 + phase[2])]
    return np.stack([np.round(127 + 100 * w) for w in waves], axis=2).astype(np.uint8)


@pytest.fixture(scope="session")
def picture():
    """Makes a smooth uint8 (H, W, 3) picture."""
    return smooth


@pytest.fixture
def photo_folder(tmp_path):
    """Makes a folder of class folders with PNG photos, of differing sizes unless one size is given."""

    def make(counts, size=None, root="photos"):
        seed = 0
        for name, count in counts.items():
            folder = tmp_path / root / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                seed += 1
                height, width = size or (20 + seed % 5, 24 + seed % 7)
                Image.fromarray(smooth(height, width, seed)).save(folder / f"{name}_{i}.png")
        return tmp_path / root

    return make


@pytest.fixture
def wav_file(tmp_path):
    """Makes a 16-bit WAV file of int16 samples (T,) or (T, channels)."""

    def make(name, samples, rate_hz=8000):
        samples = np.asarray(samples, dtype="<i2")
        with wave.open(str(tmp_path / name), "wb") as sound:
            sound.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
            sound.setsampwidth(2)
            sound.setframerate(rate_hz)
            sound.writeframes(samples.tobytes())
        return tmp_path / name

    return make


@pytest.fixture(scope="session")
def ratings():
    """A frame of every (user, item) pair with rating = 3 + the user's taste + the item's merit."""
    taste, merit = np.linspace(-1, 1, 12), np.linspace(-0.8, 0.8, 9)
    rows = [(f"u{u}", f"i{i}", 3 + taste[u] + merit[i]) for u in range(12) for i in range(9)]
    return pd.DataFrame(rows, columns=["user", "item", "rating"])


@pytest.fixture(scope="session")
def same():
    """Compares two fields of a batch (a tensor, a dictionary or a tuple of them) bit by bit."""

    def compare(a, b):
        if isinstance(a, Padded):
            return compare(a.values, b.values) and compare(a.valid, b.valid)
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(compare(a[k], b[k]) for k in a)
        if isinstance(a, (tuple, list)):
            return len(a) == len(b) and all(compare(u, v) for u, v in zip(a, b, strict=True))
        if a is None or b is None:
            return a is b
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())

    return compare


@pytest.fixture(scope="session")
def by_id():
    """Maps each id of some batches to its sample: its x, y and size."""

    def pick(value, i):
        return map_tensors(value, lambda tensor: tensor[i])

    def collect(batches):
        found = {}
        for batch in batches:
            for i, sample in enumerate(batch.ids.tolist()):
                assert sample not in found, f"sample {sample} came twice"
                found[sample] = [pick(f, i) for f in (batch.x, batch.y, batch.sizes)]
        return found

    return collect
