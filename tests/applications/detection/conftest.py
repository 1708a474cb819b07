"""Small images with boxes in the forms people have, for the tests of detection."""

import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

matplotlib.use("Agg")
torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT.parent / "shared"

OBJECT = """  <object>
    <name>{name}</name>
    <difficult>{difficult}</difficult>
    <bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>
  </object>
"""
SIZE = "  <size><width>{1}</width><height>{0}</height><depth>3</depth></size>\n"
CATEGORIES = {"cat": 3, "dog": 7}


def voc_text(objects=(("cat", (2, 3, 20, 30)),), size=(40, 60), filename=None, difficult=()):
    """A Pascal VOC file: a line for each of the head's parts, five for each object."""
    head = "" if filename is None else f"  <filename>{filename}</filename>\n"
    head += "" if size is None else SIZE.format(*size)
    body = [OBJECT.format(name=n, box=b, difficult=int(i in difficult)) for i, (n, b) in enumerate(objects)]
    return f"<annotation>\n{head}{''.join(body)}</annotation>\n"


def picture(path, size=(40, 60), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def coco_content(names=("a.png", "b.png"), size=(40, 60), boxes=((2, 3, 18, 27),), **changes):
    """A COCO file of images with the same boxes each, of the two categories by turns."""
    images = [{"id": 10 + i, "file_name": n, "height": size[0], "width": size[1]} for i, n in enumerate(names)]
    annotations = []
    for image in images:
        for box in boxes:
            x, y, w, h = box
            number = list(CATEGORIES.values())[len(annotations) % 2]
            polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            annotations.append(
                {"id": 100 + len(annotations), "image_id": image["id"], "category_id": number, "bbox": list(box)}
                | {"segmentation": polygon, "area": w * h, "iscrowd": 0}
            )
    categories = [{"id": number, "name": name} for name, number in CATEGORIES.items()]
    return {"images": images, "annotations": annotations, "categories": categories} | changes


@pytest.fixture()
def voc(tmp_path):
    """Makes a Pascal VOC folder: images by name, each with its objects."""

    def make(root="voc", names=("a", "b", "c", "d"), lists=None, images="JPEGImages", xmls="Annotations", **options):
        for seed, name in enumerate(names):
            picture(tmp_path / root / images / f"{name}.jpg", seed=seed)
            (tmp_path / root / xmls).mkdir(parents=True, exist_ok=True)
            (tmp_path / root / xmls / f"{name}.xml").write_text(voc_text(**options))
        for part, text in (lists or {}).items():
            (tmp_path / root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
            (tmp_path / root / "ImageSets" / "Main" / f"{part}.txt").write_text(text)
        return tmp_path / root

    return make


@pytest.fixture()
def coco(tmp_path):
    """Makes a COCO file with the images below a folder."""

    def make(file="coco/annotations/instances_train2017.json", images="coco/train2017", content=None, **options):
        content = coco_content(**options) if content is None else content
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content if isinstance(content, str) else json.dumps(content))
        for seed, image in enumerate(content["images"] if isinstance(content, dict) else ()):
            picture(tmp_path / images / image["file_name"], seed=hash(file) % 1000 + seed)
        return tmp_path / file

    return make


@pytest.fixture(scope="session")
def shared():
    return SHARED
