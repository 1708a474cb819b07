"""Large images through windows: each thing once, where it is, whole where a window saw it whole."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from applications.detection import DetectionTask, predict_sliding
from applications.detection.sliding import together
from common import Predictor
from common.augment import BatchPipeline
from common.blocks.sample import SampleEncoder
from common.data import BBoxBlock, ImageBlock, Resize
from common.errors import ConfigError

BLOCK = ImageBlock("L", (0.0,), (1.0,))


class Spots(nn.Module):
    """Finds white rectangles on black: what it sees of them."""

    def forward(self, images, targets=None):
        found = []
        for image in images:
            count, _, stats, _ = cv2.connectedComponentsWithStats((image[0] > 0.5).numpy().astype(np.uint8))
            boxes = [[x, y, x + w, y + h] for x, y, w, h, _ in stats[1:count].tolist()]
            scores = torch.tensor([min(0.9, a / 2000) for *_, a in stats[1:count].tolist()])
            boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
            found.append({"boxes": boxes, "scores": scores, "labels": torch.zeros(len(boxes), dtype=torch.int64)})
        return {"detections": found}


def predictor(*item_tfms):
    encoder = SampleEncoder((BLOCK, BBoxBlock(("spot",))), 1, item_tfms)
    return Predictor.of(Spots(), DetectionTask(("spot",)), encoder, BatchPipeline(encoder), torch.device("cpu"))


def scene(size, count, seed=0):
    rng, image, boxes = np.random.default_rng(seed), np.zeros(size, np.uint8), []
    while len(boxes) < count:
        w, h = rng.integers(8, 25, 2).tolist()
        x, y = int(rng.integers(0, size[1] - w)), int(rng.integers(0, size[0] - h))
        if not image[max(0, y - 2) : y + h + 2, max(0, x - 2) : x + w + 2].any():
            image[y : y + h, x : x + w] = 255
            boxes.append([x, y, w, h])
    return image, sorted(boxes)


@pytest.mark.parametrize("window", [64, (50, 90), 100])
def test_every_thing_is_found_once_and_whole(window):
    image, wanted = scene((230, 310), 40)
    record = predict_sliding(predictor(), image, window, overlap=0.5)
    assert (record["height"], record["width"]) == (230, 310)
    assert sorted(thing["bbox"] for thing in record["objects"]) == wanted
    scores = [thing["score"] for thing in record["objects"]]
    assert scores == sorted(scores, reverse=True)


def test_an_image_no_larger_than_a_window_is_seen_as_it_is():
    image, wanted = scene((60, 80), 4)
    record = predict_sliding(predictor(), image, 100)
    whole = predictor()(image)
    assert record["objects"] == sorted(whole["objects"], key=lambda thing: -thing["score"])
    assert sorted(thing["bbox"] for thing in record["objects"]) == wanted


def test_without_a_size_the_windows_are_what_the_model_takes():
    image, wanted = scene((200, 200), 20, seed=3)
    record = predict_sliding(predictor(Resize((64, 64))), image, overlap=0.5)
    assert sorted(thing["bbox"] for thing in record["objects"]) == wanted


def test_two_things_side_by_side_stay_two():
    one = {"boxes": torch.tensor([[0.0, 0, 40, 20], [38, 0, 78, 20]]), "scores": torch.tensor([0.9, 0.8]),
           "labels": torch.zeros(2, dtype=torch.int64)}  # fmt: skip
    kept = together([one], [(0, 0)], [(100, 100)], (100, 100))
    assert len(kept["boxes"]) == 2
    other = {**one, "labels": torch.ones(2, dtype=torch.int64)}  # the same place, of another class
    assert len(together([one, other], [(0, 0), (0, 0)], [(100, 100)] * 2, (100, 100))["boxes"]) == 4


def test_what_cannot_slide_is_refused():
    masked = predictor()
    masked.task = DetectionTask(("spot",), masks=True)
    with pytest.raises(ConfigError, match="needs a predictor of boxes"):
        predict_sliding(masked, np.zeros((50, 50), np.uint8))
    with pytest.raises(ConfigError, match="overlap must lie in"):
        predict_sliding(predictor(), np.zeros((50, 50), np.uint8), 20, 1.0)
