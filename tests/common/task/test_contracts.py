"""What every registered task promises: its records as data that a page draws."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from applications.classification import ClassificationTask
from applications.detection import DetectionTask
from applications.segmentation import SegmentationTask
from applications.tabular import TabularRegression
from common.blocks.shapes import decode_rle, encode_rle
from common.files import dump_json
from common.registry import names, resolve
from common.task.record_view import RecordView
from common.task.task import Task
from common.train import RegressionTask

MASK = np.zeros((6, 8), bool)
MASK[2:4, 1:7] = True
FOUND = {
    "boxes": torch.tensor([[1.0, 2, 7, 4]]), "scores": torch.tensor([0.75]), "labels": torch.tensor([1]),
    "size": torch.tensor([6, 8]), "masks": [encode_rle(MASK)],
}  # fmt: skip
CASES = {
    "classification": [
        (ClassificationTask(("cat", "dog")), torch.tensor([[0.0, 2.0]])),
        (ClassificationTask(("cat", "dog"), multi_label=True), torch.tensor([[3.0, 2.0]])),
        (ClassificationTask(("cat", "dog"), multi_label=True), torch.tensor([[-3.0, -2.0]])),
    ],
    "regression": [(RegressionTask(), torch.tensor([2.5])), (RegressionTask(), torch.tensor([[1.0, 2.0]]))],
    "detection": [
        (DetectionTask(("cat", "dog"), masks=True), [FOUND]),
        (DetectionTask(("cat", "dog")), [{name: FOUND[name] for name in ("boxes", "scores", "labels", "size")}]),
        (DetectionTask(("cat", "dog"), thresholds=(0.9, 0.9)), [FOUND]),
    ],
    "segmentation": [(SegmentationTask(("off", "on")), [torch.tensor([[0, 1], [1, 1]], dtype=torch.uint8)])],
    "tabular_regression": [
        (TabularRegression(), torch.tensor([2.5])),
        (TabularRegression(quantiles=(0.1, 0.9)), torch.tensor([[2.5, 1.0, 4.0]])),
    ],
}
EVERY = pytest.mark.parametrize(
    ("task", "output"), [pytest.param(*case, id=f"{name}{i}") for name in CASES for i, case in enumerate(CASES[name])]
)


def labels(record):
    """Every label that a record gives, wherever it stands."""
    found = [record["label"]] if "label" in record else list(record.get("labels", ()))
    return found + [one["label"] for name in ("objects", "classes") for one in record.get(name, ())]


def test_every_registered_task_is_tested_here():
    ours = {
        name for name in names("task") if resolve("task", name).__module__.split(".")[0] in ("common", "applications")
    }
    assert set(CASES) == ours


@EVERY
def test_a_view_is_json_of_one_shape_that_names_every_label(task, output):
    record = task.decode(output)[0]
    view = task.view(record)
    assert json.loads(dump_json(view)) == view
    assert list(view) == list(RecordView(title="").plain())
    assert view["title"] == task.brief(record)
    given = [name for name, _ in view["bars"]]
    given += [one["label"] for part in ("boxes", "legend") for one in view[part]]
    assert set(labels(record)) <= set(given)
    assert all(0 <= share <= 1 for _, share in view["bars"])
    if "value" in record:
        assert view["value"] == record["value"]


def test_bars_are_the_likeliest_classes_first():
    task = ClassificationTask(tuple(f"c{i}" for i in range(30)))
    view = task.view(task.decode(torch.arange(30.0)[None])[0])
    assert [name for name, _ in view["bars"]] == [f"c{i}" for i in range(29, 19, -1)]


def test_the_runs_of_a_things_mask_are_its_mask():
    task = DetectionTask(("cat", "dog"), masks=True)
    view = task.view(task.decode([FOUND])[0])
    box = view["boxes"][0]
    assert (box["label"], box["bbox"], view["size"]) == ("dog", [1.0, 2.0, 6.0, 2.0], [6, 8])
    assert (decode_rle({"size": view["size"], "counts": box["runs"]}) == MASK).all()


def test_the_legend_has_the_colours_of_the_png():
    task, output = CASES["segmentation"][0]
    view = task.view(task.decode(output)[0])
    with Image.open(io.BytesIO(base64.b64decode(view["png"]))) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert view["size"] == [2, 2]
    assert [(one["label"], one["share"]) for one in view["legend"]] == [("off", 0.25), ("on", 0.75)]
    assert ["#{:02x}{:02x}{:02x}".format(*pixels[0, i]) for i in (0, 1)] == [one["color"] for one in view["legend"]]


def test_an_interval_is_that_of_the_outermost_quantiles():
    views = [task.view(task.decode(output)[0]) for task, output in CASES["tabular_regression"]]
    assert [view["interval"] for view in views] == [None, [1.0, 4.0]]


def test_a_task_without_a_view_of_its_own_gives_its_title():
    class Own(Task):
        pass

    assert Own().view({"text": "a rose"}) == RecordView(title='{"text": "a rose"}').plain()
