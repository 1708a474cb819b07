"""Windows over a large image: they reach both ends, overlap as asked, and hold the image's own pixels."""

import numpy as np
import pytest
import torch
from torch import nn

from common.augment import Augment, BatchPipeline
from common.blocks.sample import SampleEncoder
from common.data import ImageBlock, RegressionBlock, Resize
from common.deploy import Predictor
from common.errors import ConfigError
from common.train import RegressionTask
from common.vision.windows import starts, windows_of


def predictor(*item_tfms, mode="L", batch_tfms=()):
    encoder = SampleEncoder((ImageBlock(mode),), 1, item_tfms)
    return Predictor.of(
        nn.Identity(), RegressionTask(), encoder, BatchPipeline(encoder, batch_tfms), torch.device("cpu")
    )


@pytest.mark.parametrize(("side", "window", "overlap"), [(100, 40, 0.25), (97, 33, 0.5), (41, 40, 0.0), (40, 40, 0.9)])
def test_windows_reach_both_ends_and_overlap_as_asked(side, window, overlap):
    found = starts(side, window, overlap)
    assert found[0] == 0
    assert found[-1] == side - window
    assert all(b - a <= window * (1 - overlap) + 1 for a, b in zip(found, found[1:], strict=False))


@pytest.mark.parametrize(("mode", "shape"), [("L", (70, 130)), ("RGB", (70, 130, 3))])
def test_pieces_hold_the_images_own_pixels(mode, shape):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    found = windows_of(predictor(mode=mode), image, (32, 50), 0.25)
    assert found.size == (70, 130)
    covered = np.zeros((70, 130), bool)
    for (y, x), piece in zip(found.corners, found.pieces, strict=True):
        assert piece.shape[:2] == (32, 50)
        assert (piece == image[y : y + 32, x : x + 50]).all()
        covered[y : y + 32, x : x + 50] = True
    assert covered.all()


def test_without_a_size_windows_are_what_the_model_takes_in_evaluation():
    image = np.zeros((100, 100), np.uint8)
    assert windows_of(predictor(Resize((40, 50))), image).pieces[0].shape == (40, 50)
    parts = Augment(size=16, min_scale=0.5, whole=True)  # training sees parts of what evaluation sees whole
    assert windows_of(predictor(Resize((40, 50)), batch_tfms=[parts]), image).pieces[0].shape == (40, 50)


def test_an_image_no_larger_than_a_window_is_one_piece():
    found = windows_of(predictor(), np.zeros((30, 40), np.uint8), 64)
    assert found.corners == [(0, 0)]
    assert found.pieces[0].shape == (30, 40)


def test_what_cannot_be_cut_is_refused():
    with pytest.raises(ConfigError, match="overlap must lie in"):
        windows_of(predictor(), np.zeros((50, 50), np.uint8), 20, 1.0)
    encoder = SampleEncoder((RegressionBlock(),), 1)
    numbers = Predictor.of(nn.Identity(), RegressionTask(), encoder, BatchPipeline(encoder), torch.device("cpu"))
    with pytest.raises(ConfigError, match="needs? a predictor that takes an image"):
        windows_of(numbers, np.zeros((50, 50), np.uint8))
