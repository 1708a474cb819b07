"""The detection task: the objects in an image with their classes, boxes and scores."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from applications.detection.evaluation import average_precision
from applications.detection.matching import match
from common.blocks.batch import Batch
from common.blocks.block import Block
from common.blocks.objects import BBoxBlock, Objects
from common.blocks.sample import SampleEncoder
from common.blocks.shapes import run_lengths
from common.blocks.spatial import class_colors
from common.errors import ConfigError, in_range
from common.registry import register
from common.task.record_view import RecordView, ViewBox, hex_colors
from common.task.task import Outputs, Record, Task

HIT, MISS, FALSE = "limegreen", "orange", "crimson"
HIT_OVERLAP = 0.5


@register("task", "detection")
@dataclass(frozen=True)
class DetectionTask(Task):
    """Boxes with labels and scores, reported in pixels of the source image.

    The model computes its own loss: called with images and targets it returns ``losses`` (B,), and in evaluation
    ``detections``, one dictionary per image.

    Args:
        vocab: The classes, in order.
        thresholds: The least score of each class for an object to be in a record; empty: all detections.
        category_ids: The number of each class in a COCO file; 1, 2, … when empty.
        masks: Whether the model predicts a mask of each object (Mask R-CNN).

    Examples:
        >>> found = {"boxes": torch.tensor([[1.0, 2, 4, 6]]), "scores": torch.tensor([0.75]),
        ...          "labels": torch.tensor([0]), "size": torch.tensor([9, 8])}
        >>> DetectionTask(("cat",)).decode([found])[0]["objects"]
        [{'label': 'cat', 'category_id': 1, 'bbox': [1.0, 2.0, 3.0, 4.0], 'score': 0.75}]
    """

    vocab: tuple[str, ...]
    thresholds: tuple[float, ...] = ()
    category_ids: tuple[int, ...] = ()
    masks: bool = False
    raw_targets: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.vocab:
            raise ConfigError("vocab must name at least one class")
        for name in ("thresholds", "category_ids"):
            given: tuple[Any, ...] = getattr(self, name)
            if given and len(given) != len(self.vocab):
                raise ConfigError(f"{name} must have one entry a class ({len(self.vocab)}), got {len(given)}")
        for value in self.thresholds:
            in_range("thresholds", value, 0, 1)

    def forward(self, model: Callable[..., Any], batch: Batch) -> Any:
        return model(batch.x) if batch.y is None else model(batch.x, _targets(batch.y))

    def losses(self, output: Any, batch: Batch) -> Tensor:
        return output["losses"]

    def condense(self, output: Any, batch: Batch) -> list[dict[str, Any]]:
        """Returns the detections of each image: boxes in source pixels, scores, labels and the source's size."""
        found: list[dict[str, Any]] = []
        sizes = batch.sizes if batch.sizes is not None else _own_sizes(batch)
        for i, one in enumerate(output["detections"]):
            size = sizes[i].to(torch.int64)
            back = torch.eye(3, dtype=torch.float64) if batch.source is None else batch.source[i].cpu()
            entry: dict[str, Any] = {"scores": one["scores"], "labels": one["labels"], "size": size}
            entry["boxes"] = _in_source(one["boxes"], back, size)
            if self.masks:
                entry["masks"] = _masks_in_source(one["masks"], back, (int(size[0]), int(size[1])))
            found.append(entry)
        return found

    def activation(self, output: Any) -> Any:
        raise ConfigError("test-time augmentation averages probabilities of one shape: boxes have none")

    def decode(self, output: Any) -> list[Record]:
        return self.records(output, self.thresholds)

    def records(self, output: Any, thresholds: tuple[float, ...] = ()) -> list[Record]:
        """Returns one record per image: ``height``, ``width`` and ``objects`` by descending score, as COCO's results.

        Args:
            output: The result of `condense`.
            thresholds: The least score of each class; empty: all detections.
        """
        made: list[Record] = []
        numbers = self.category_ids or tuple(range(1, len(self.vocab) + 1))
        for one in output:
            boxes, scores, labels = (one[name].tolist() for name in ("boxes", "scores", "labels"))
            objects: list[Record] = []
            for i, ((x0, y0, x1, y1), score, label) in enumerate(zip(boxes, scores, labels, strict=True)):
                if thresholds and score < thresholds[label]:
                    continue
                thing: Record = {"label": self.vocab[label], "category_id": numbers[label]}
                thing |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "score": score}
                if "masks" in one:
                    thing["segmentation"] = one["masks"][i]
                objects.append(thing)
            height, width = one["size"].tolist()
            made.append({"height": height, "width": width, "objects": objects})
        return made

    def report(self, outputs: Outputs) -> dict[str, float]:
        """Returns COCO's average precisions over all detections, regardless of thresholds (Lin et al. 2014)."""
        truth = [Objects.of(one) for one in outputs.target]
        records = self.records(outputs.output)
        table = average_precision(records, truth, self.vocab)
        found = {name: value for name in APS if (value := getattr(table, name)) is not None}
        if self.masks:
            table = average_precision(records, truth, self.vocab, "segm")
            found |= {f"mask_{name}": v for name in APS[:3] if (v := getattr(table, name)) is not None}
        return found

    def brief(self, record: Record) -> str:
        named = [f"{thing['label']} {thing['score']:.2f}" for thing in record["objects"]]
        return f"{len(named)} found: {', '.join(named)}" if named else "nothing found"

    def with_threshold(self, threshold: float) -> "DetectionTask":
        return replace(self, thresholds=(threshold,) * len(self.vocab))

    def rows(self, record: Record) -> list[dict[str, Any]]:
        """Returns one row a thing that was found: its label, score and box in pixels; one without them for none."""
        names = ("x", "y", "width", "height")
        found = [
            {"label": thing["label"], "score": thing["score"], **dict(zip(names, thing["bbox"], strict=True))}
            for thing in record["objects"]
        ]
        return found or [dict.fromkeys(("label", "score", *names), "")]

    def view(self, record: Record) -> dict[str, Any]:
        """Returns the detections as boxes in pixels of the image, each in the colour of its class."""
        colors = dict(zip(self.vocab, hex_colors(class_colors(len(self.vocab))), strict=True))
        boxes = [
            ViewBox(
                label=thing["label"],
                score=thing["score"],
                bbox=(thing["bbox"][0], thing["bbox"][1], thing["bbox"][2], thing["bbox"][3]),
                color=colors[thing["label"]],
                runs=tuple(run_lengths(thing["segmentation"]).tolist()) if "segmentation" in thing else (),
            )
            for thing in record["objects"]
        ]
        size = record["height"], record["width"]
        return RecordView(title=self.brief(record), size=size, boxes=tuple(boxes)).plain()

    def verify(self, encoder: SampleEncoder, model: dict[str, Any]) -> None:
        vocab = getattr(encoder.y_blocks[0], "vocab", None) if encoder.y_blocks else None
        if vocab != self.vocab or not isinstance(encoder.y_blocks[0], BBoxBlock):
            raise ConfigError("the classes of the task and those of the target block disagree")
        if isinstance(classes := model.get("classes"), int) and classes != len(self.vocab):
            raise ConfigError(f"the model has {classes} classes, the task {len(self.vocab)}")
        if self.masks != (len(encoder.y_blocks) == 2):
            raise ConfigError("masks need an InstanceBlock among the targets, and only then")

    def draw(self, axes: Any, record: Record, block: Block, target: Any) -> None:
        """Draws hits in green, missed objects in orange, and false alarms in red."""
        truth = Objects.of(target)
        found = match(record, truth, iou=HIT_OVERLAP)
        for i, thing in enumerate(record["objects"]):
            if i in found.ignored:
                continue
            x, y, width, height = thing["bbox"]
            color = HIT if i in found.hits else FALSE
            _box(axes, (x, y, width, height), color, f"{thing['label']} {thing['score']:.2f}")
            if "segmentation" in thing:
                _paint(axes, thing["segmentation"], color)
        for row in found.misses:
            x0, y0, x1, y1 = truth.boxes[int(row)]
            _box(axes, (x0, y0, x1 - x0, y1 - y0), MISS, str(truth.labels[row]))
        counts = len(found.hits), len(found.misses), len(found.false_alarms)
        right = not (counts[1] or counts[2])
        axes.set_title(
            "{} found, {} missed, {} false".format(*counts), fontsize=8, color="black" if right else "crimson"
        )


APS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar_100")


def _targets(y: Any) -> dict[str, Tensor]:
    """The targets for a model: boxes, labels and their ``valid`` mask, and with two blocks the instances too."""
    boxes, *more = y if isinstance(y, tuple) else (y,)
    return {**boxes.values, "valid": boxes.valid, **({"instances": more[0]} if more else {})}


def _own_sizes(batch: Batch) -> Tensor:
    height, width = batch.x.shape[2:]
    return torch.tensor([[height, width]] * len(batch), dtype=torch.int32)


def _in_source(boxes: Tensor, back: Tensor, size: Tensor) -> Tensor:
    """Maps boxes (N, 4) from the network's image to the source image and clips them; the map only scales and shifts."""
    corners = boxes.cpu().to(torch.float64).reshape(-1, 2, 2)
    corners = corners * back.diagonal()[:2] / back[2, 2] + back[:2, 2] / back[2, 2]
    limit = size.cpu().flip(0).to(torch.float64)
    return corners.clamp(min=0).minimum(limit).reshape(-1, 4)


def _masks_in_source(masks: Tensor, back: Tensor, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Maps mask probabilities (N, H, W) to the source image; returns run lengths of the pixels of one half and more."""
    import cv2

    from common.blocks.shapes import encode_rle

    shift = torch.tensor([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]], dtype=torch.float64)
    centred = torch.linalg.inv(shift) @ back @ shift  # OpenCV counts from the first pixel's centre
    matrix = np.ascontiguousarray((centred / centred[2, 2])[:2].numpy())
    found: list[dict[str, Any]] = []
    for mask in masks.float().cpu().numpy():
        moved = cv2.warpAffine(mask, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR)
        found.append(encode_rle(moved >= 0.5))
    return found


def _box(axes: Any, box: tuple[float, float, float, float], color: str, text: str) -> None:
    from matplotlib.patches import Rectangle

    x, y, width, height = box
    axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=color, linewidth=1.2))
    axes.text(x, y, text, color=color, fontsize=6, parse_math=False, clip_on=True, va="bottom")


def _paint(axes: Any, rle: dict[str, Any], color: str) -> None:
    from matplotlib.colors import to_rgb

    from common.blocks.shapes import decode_rle

    mask = decode_rle(rle)
    axes.imshow(np.concatenate([np.broadcast_to(to_rgb(color), (*mask.shape, 3)), 0.4 * mask[..., None]], axis=2))
