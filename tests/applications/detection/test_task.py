"""The detection task: records in source pixels, thresholds, metrics, and what it refuses."""

import json

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from applications.detection import DetectionTask, detection_learner, make_task
from common.blocks.batch import Batch
from common.blocks.sample import SampleEncoder
from common.data import BBoxBlock, CategoryBlock, DataBlock, ImageBlock, IndexSplitter, Objects, Resize
from common.errors import ConfigError
from common.spec import from_spec
from common.task.task import Outputs
from common.train import TrainerOptions

matplotlib.use("Agg")
TASK = DetectionTask(("cat", "dog"))


def found(boxes, scores, labels, size=(60, 80)):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "scores": torch.tensor(scores, dtype=torch.float32),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "size": torch.tensor(size),
    }


def test_records_are_cocos_and_json():
    one = found([[1, 2, 11, 22], [5, 5, 9, 9]], [0.75, 0.25], [1, 0])
    (record,) = DetectionTask(("cat", "dog"), category_ids=(17, 18)).decode([one])
    assert json.loads(json.dumps(record)) == record
    assert record == {
        "height": 60,
        "width": 80,
        "objects": [
            {"label": "dog", "category_id": 18, "bbox": [1.0, 2.0, 10.0, 20.0], "score": 0.75},
            {"label": "cat", "category_id": 17, "bbox": [5.0, 5.0, 4.0, 4.0], "score": 0.25},
        ],
    }
    assert TASK.brief(record) == "2 found: dog 0.75, cat 0.25"
    assert TASK.brief(TASK.decode([found([], [], [])])[0]) == "nothing found"


def test_thresholds_hold_for_records_but_not_for_average_precision():
    one = found([[0, 0, 10, 10], [20, 20, 30, 30]], [0.6, 0.3], [0, 1])
    strict = DetectionTask(("cat", "dog"), thresholds=(0.5, 0.5))
    assert [thing["label"] for thing in strict.decode([one])[0]["objects"]] == ["cat"]
    truth = [Objects([[0, 0, 10, 10], [20, 20, 30, 30]], ["cat", "dog"])]
    assert strict.report(Outputs([one], truth))["ap50"] == pytest.approx(1)
    assert strict.report(Outputs([one], truth)) == TASK.report(Outputs([one], truth))


@pytest.mark.parametrize("method", ["squish", "pad", "crop"])
def test_what_is_found_is_told_in_the_pixels_of_the_source(method):
    sizes = [(60, 80), (90, 45)]
    boxes = [[[24, 21, 50, 40]], [[10, 30, 35, 61]]]
    block = DataBlock(
        (ImageBlock, BBoxBlock(("a",))), get_x=lambda i: np.zeros((*sizes[i % 2], 3), np.uint8),
        get_y=lambda i: (boxes[i % 2], ["a"]), splitter=IndexSplitter([2, 3]), item_tfms=Resize((40, 48), method),
    )  # fmt: skip
    batch = block.dataloaders(range(4), bs=2, num_workers=0).valid.one_batch()
    seen = [
        {"boxes": b, "scores": torch.ones(1), "labels": torch.zeros(1, dtype=torch.int64)}
        for b in batch.y.values["boxes"]
    ]
    condensed = DetectionTask(("a",)).condense({"detections": seen}, batch)
    for i, one in enumerate(condensed):
        assert one["size"].tolist() == list(sizes[i])
        np.testing.assert_allclose(one["boxes"].numpy(), boxes[i], atol=1e-4)


def test_what_lies_outside_the_source_is_cut_off():
    batch = Batch(x=torch.zeros(1, 3, 40, 40), sizes=torch.tensor([[40, 30]]), source=torch.eye(3)[None].double())
    seen = {"boxes": torch.tensor([[-5.0, 3, 36, 50]]), "scores": torch.ones(1), "labels": torch.zeros(1).long()}
    (one,) = TASK.condense({"detections": [seen]}, batch)
    assert one["boxes"].tolist() == [[0, 3, 30, 40]]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"vocab": ()}, "vocab must name at least one class"),
        ({"vocab": ("a", "b"), "thresholds": (0.5,)}, r"thresholds must have one entry a class \(2\), got 1"),
        ({"vocab": ("a",), "thresholds": (1.5,)}, "thresholds must lie in"),
        ({"vocab": ("a",), "category_ids": (1, 2)}, "category_ids must have one entry a class"),
    ],
)
def test_a_task_that_cannot_be_is_refused(options, reason):
    with pytest.raises(ConfigError, match=reason):
        DetectionTask(**options)


def test_a_task_travels_as_a_spec():
    task = DetectionTask(("cat", "dog"), (0.5, 0.25), (3, 7))
    assert from_spec("task", json.loads(json.dumps(task.spec())), "task") == task


def test_a_bundle_whose_parts_disagree_is_refused():
    encoder = SampleEncoder((ImageBlock(), BBoxBlock(("cat", "dog"))))
    TASK.verify(encoder, {"classes": 2})
    with pytest.raises(ConfigError, match="the model has 3 classes, the task 2"):
        TASK.verify(encoder, {"classes": 3})
    with pytest.raises(ConfigError, match="classes of the task and those of the target block disagree"):
        TASK.verify(SampleEncoder((ImageBlock(), BBoxBlock(("cow",)))), {"classes": 2})
    with pytest.raises(ConfigError, match="masks need an InstanceBlock"):
        DetectionTask(("cat", "dog"), masks=True).verify(encoder, {"classes": 2})


def test_detection_needs_boxes():
    block = DataBlock((ImageBlock, CategoryBlock), get_x=lambda i: np.zeros((8, 8, 3), np.uint8), get_y=lambda i: "a")
    dls = block.dataloaders(range(8), bs=2, num_workers=0)
    with pytest.raises(ConfigError, match="detection needs a BBoxBlock as target"):
        make_task(dls)


def test_boxes_cannot_be_averaged_over_versions():
    with pytest.raises(ConfigError, match="test-time augmentation"):
        TASK.activation({})


def test_hits_misses_and_false_alarms_are_drawn_in_their_colours():
    truth = Objects([[0, 0, 10, 10], [40, 40, 60, 60]], ["cat", "dog"])
    (record,) = TASK.decode([found([[0, 0, 10, 11], [20, 20, 30, 30]], [0.9, 0.4], [0, 0])])
    axes = Figure().subplots()
    TASK.draw(axes, record, BBoxBlock(("cat", "dog")), truth)
    assert axes.get_title() == "1 found, 1 missed, 1 false"
    assert [text.get_text() for text in axes.texts] == ["cat 0.90", "cat 0.40", "dog"]
    assert [text.get_color() for text in axes.texts] == ["limegreen", "crimson", "orange"]


def blocks_on_grey(i, size=64):
    """One or two bright blocks, red or blue, on a grey that is not flat."""
    rng = np.random.default_rng(i)
    image = rng.normal(110, 12, (size, size, 3))
    boxes, labels = [], []
    for half in range(int(rng.integers(1, 3))):
        w, h = rng.integers(14, 26, 2)
        x, y = half * 32 + int(rng.integers(0, 32 - w + 1)) if w <= 32 else 0, int(rng.integers(0, size - h))
        red = bool(rng.integers(2))
        image[y : y + h, x : x + w] = rng.normal((220, 60, 60) if red else (60, 70, 220), 10, (h, w, 3))
        boxes.append([x, y, x + w, y + h])
        labels.append("red" if red else "blue")
    return np.clip(image, 0, 255).astype(np.uint8), Objects(boxes, labels, size=(size, size))


def test_blocks_are_learned_and_the_bundle_finds_them_too(tmp_path):
    from common import Predictor

    items = [blocks_on_grey(i) for i in range(100)]
    block = DataBlock(
        (ImageBlock, BBoxBlock), get_x=lambda item: item[0], get_y=lambda item: item[1],
        splitter=IndexSplitter(range(80, 100)),
    )  # fmt: skip
    dls = block.dataloaders(items, bs=10, num_workers=0)
    trainer = detection_learner(dls, options=TrainerOptions(device="cpu", progress=False, seed=1))
    trainer.fit_one_cycle(14, 1e-2)
    outputs = trainer.get_preds()
    metrics = trainer.task.report(outputs)
    assert metrics["ap50"] > 0.9
    predictor = Predictor(trainer.export(tmp_path / "bundle"))
    raws = [[items[i][0] for i in range(80, 100)], [items[i][1] for i in range(80, 100)]]
    assert predictor.evaluate(raws, list(range(80, 100))) == metrics
    image, truth = items[85]
    best = predictor(image)["objects"][0]
    assert best["label"] in truth.labels
    again = Predictor(tmp_path / "bundle")
    assert again(image) == predictor(image)
    assert again.predict_many([image, items[90][0]])[0]["objects"][0]["bbox"] == pytest.approx(best["bbox"], abs=1e-3)
