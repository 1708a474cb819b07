"""The segmentation task: one class per pixel."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from applications.segmentation.losses import Pixelwise, dice_loss, pixel_loss
from applications.segmentation.metrics import (
    MeanIoU,
    PixelAccuracy,
    intersection_over_union,
    main_output,
    mean_iou,
    pixel_accuracy,
    pixel_confusion,
)
from applications.segmentation.source_resolution import source_ids
from common.blocks.batch import Batch
from common.blocks.block import Block
from common.blocks.sample import SampleEncoder
from common.blocks.shapes import encode_rle
from common.blocks.spatial import MaskBlock, class_colors
from common.errors import ConfigError, in_range
from common.registry import register
from common.task.metrics import Metric
from common.task.record_view import LegendEntry, RecordView, hex_colors
from common.task.task import Outputs, Record, Task

MOST_CLASSES = 255
GOOD = 0.5  # from this mean IoU of an image on, the title of its picture is black, else red


@register("task", "segmentation")
@dataclass(frozen=True)
class SegmentationTask(Task):
    """Outputs (B, classes, H, W) before the softmax, or torchvision's dictionary with ``out`` and ``aux``.

    The loss is a sum: ``cross_entropy``, ``focal`` and ``dice`` are the weights of its parts.

    Args:
        codes: The names of the classes, in the order of their ids.
        ignore: The ignored value in the masks, or None; see `MaskBlock`.
        values: The pixel value of each class in the masks, where that is not its position.
        colors: The colour of each class, for masks that are colour images.
        cross_entropy: Weight of cross-entropy, the mean over all pixels that are not ignored.
        focal: Weight of the focal loss, which reduces the loss of well classified pixels.
        dice: Weight of one minus the mean Dice coefficient of the classes in each image.
        class_weights: The weight of each class's pixels in cross-entropy and focal loss; empty: all equal.
        gamma: The focusing parameter of the focal loss.
        auxiliary: Weight of the loss of an auxiliary head, where a model has one (0.5 in torchvision's reference).

    Examples:
        >>> task = SegmentationTask(("off", "on"))
        >>> task.decode([torch.tensor([[0, 1], [1, 1]], dtype=torch.uint8)])[0]["classes"][1]["share"]
        0.75
    """

    codes: tuple[str, ...]
    ignore: int | None = None
    values: tuple[int, ...] = ()
    colors: tuple[tuple[int, int, int], ...] = ()
    cross_entropy: float = 1.0
    focal: float = 0.0
    dice: float = 0.0
    class_weights: tuple[float, ...] = ()
    gamma: float = 2.0
    auxiliary: float = 0.5
    raw_targets: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("codes", "values", "class_weights"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "colors", tuple((r, g, b) for r, g, b in self.colors))
        in_range("codes (their number)", len(self.codes), 2, MOST_CLASSES)
        parts = (self.cross_entropy, self.focal, self.dice)
        for name, value in zip(("cross_entropy", "focal", "dice"), parts, strict=True):
            in_range(name, value, 0, 1e6)
        if not any(parts):
            raise ConfigError("the loss has no part: give cross_entropy, focal or dice a weight above 0")
        in_range("gamma", self.gamma, 0, 10)
        in_range("auxiliary", self.auxiliary, 0, 10)
        if self.class_weights and len(self.class_weights) != len(self.codes):
            raise ConfigError(f"class_weights has {len(self.class_weights)} entries for {len(self.codes)} classes")
        for weight in self.class_weights:
            in_range("class_weights", weight, 0, 1e6)
        self.block  # noqa: B018  checks the rest

    @property
    def block(self) -> MaskBlock:
        """The block that encodes masks of these classes."""
        return MaskBlock(self.codes, self.ignore, self.values, self.colors)

    # Training

    def _pixels(self, logits: Tensor, target: Tensor, gamma: float) -> Pixelwise:
        weights = logits.new_tensor(self.class_weights, dtype=torch.float32) if self.class_weights else None
        return pixel_loss(logits, target, void=self.block.void, class_weights=weights, gamma=gamma)

    def _sum(self, logits: Tensor, batch: Batch, each: bool) -> Tensor:
        """The weighted sum of the parts, (B,) or over the whole batch."""
        target: Tensor = batch.y
        total = logits.new_zeros((), dtype=torch.float32)
        for part, gamma in ((self.cross_entropy, 0.0), (self.focal, self.gamma)):
            if part:
                pixels = self._pixels(logits, target, gamma)
                total = total + part * (pixels.by_sample() if each else pixels.mean())
        if self.dice:
            dice = dice_loss(logits, target, void=self.block.void)
            total = total + self.dice * (dice if each else dice.mean())
        return total

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Returns the loss over the batch's pixels that are not ignored, a scalar; an auxiliary head's is added."""
        total = self._sum(main_output(output), batch, False)
        if isinstance(output, dict) and "aux" in output and self.auxiliary:
            total = total + self.auxiliary * self._sum(output["aux"], batch, False)
        return total

    def losses(self, output: Any, batch: Batch) -> Tensor:
        return self._sum(main_output(output), batch, True)

    def metrics(self) -> tuple[Metric, ...]:
        return MeanIoU(self.block.void), PixelAccuracy(self.block.void)

    def activation(self, output: Any) -> Tensor:
        if isinstance(output, list):
            raise ConfigError("class maps hold no probabilities to average: tta is not there for segmentation")
        return main_output(output).softmax(dim=1)

    # Predictions

    def condense(self, output: Any, batch: Batch) -> list[Tensor]:
        """Returns each sample's class ids at the resolution of its source image: uint8 (H, W) each."""
        return source_ids(main_output(output), batch)

    def decode(self, output: Any) -> list[Record]:
        return [self._record(ids.cpu().numpy()) for ids in output]

    def _record(self, ids: np.ndarray) -> Record:
        """A plain record: area, share and mask of each predicted class, and the whole map as a palette PNG."""
        counts = np.bincount(ids.reshape(-1), minlength=len(self.codes))
        classes = [
            {
                "label": self.codes[i],
                "area_px": int(counts[i]),
                "share": float(counts[i] / ids.size),
                "rle": encode_rle(ids == i),
            }
            for i in np.flatnonzero(counts).tolist()
        ]
        return {"height": ids.shape[0], "width": ids.shape[1], "classes": classes, "png": self._png(ids)}

    def _png(self, ids: np.ndarray) -> str:
        image = Image.fromarray(np.ascontiguousarray(ids, dtype=np.uint8)).convert("P")
        image.putdata(ids.reshape(-1).tolist())
        palette = np.rint(class_colors(len(self.codes)) * 255).astype(np.uint8)
        image.putpalette(palette.reshape(-1).tolist())
        out = io.BytesIO()
        image.save(out, format="PNG", optimize=True)
        return base64.b64encode(out.getvalue()).decode("ascii")

    def rows(self, record: Record) -> list[dict[str, Any]]:
        """Returns one row a class that was found: its label, its area in pixels and its share of the image."""
        return [{name: one[name] for name in ("label", "area_px", "share")} for one in record["classes"]]

    # Evaluation

    def confusion(self, output: Sequence[Tensor], target: Any) -> Tensor:
        """Returns counts of pixels, int64 (classes, classes): rows are true classes, columns predictions.

        Args:
            output: Each sample's class ids, (H, W).
            target: Each sample's raw mask, or the encoded one: ids (H, W).
        """
        block, total = self.block, torch.zeros(len(self.codes), len(self.codes), dtype=torch.int64)
        for ids, raw in zip(output, target, strict=True):
            truth = raw if isinstance(raw, Tensor) else block.encode(raw)
            if truth.shape != ids.shape:
                raise ConfigError(f"a mask has {tuple(truth.shape)} pixels, its prediction {tuple(ids.shape)}")
            total += pixel_confusion(ids, truth, len(self.codes), block.void)
        return total

    def report(self, outputs: Outputs) -> dict[str, float]:
        """Returns miou, pixel_accuracy and mean_class_accuracy over the pixels of all masks together.

        Classes that are in no mask and no prediction of the part are left out of miou, those that are in no mask out of
        mean_class_accuracy. A metric that is undefined (no pixel counts) is not returned.

        Args:
            outputs: Each sample's class ids at its mask's size, uint8 (H, W); and the raw masks.
        """
        matrix = self.confusion(outputs.output, outputs.target)
        recall = matrix.diagonal().double() / matrix.sum(dim=1)
        found = {
            "miou": mean_iou(matrix),
            "pixel_accuracy": pixel_accuracy(matrix),
            "mean_class_accuracy": float(recall.nanmean()),
        }
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def per_class(self, output: Any, target: Any) -> list[Record]:
        """Returns one row per class: IoU, recall, precision (None where undefined) and share of the pixels.

        Args:
            output: Each sample's class ids at its mask's size, uint8 (H, W).
            target: The raw masks.
        """
        matrix = self.confusion(output, target).double()
        right, true, called = matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0)
        columns = (intersection_over_union(matrix), right / true, right / called, true / matrix.sum())
        names = ("iou", "recall", "precision", "share")
        rows: list[Record] = []
        for i, code in enumerate(self.codes):
            numbers = [float(column[i]) for column in columns]
            rows.append({"class": code, **{n: None if v != v else v for n, v in zip(names, numbers, strict=True)}})
        return rows

    def brief(self, record: Record) -> str:
        largest = sorted(record["classes"], key=lambda one: -one["share"])
        return ", ".join(f"{one['label']} {one['share']:.1%}" for one in largest)

    def view(self, record: Record) -> dict[str, Any]:
        """Returns the class map as the record's palette PNG, with each class that is in it, its share and colour."""
        colors = dict(zip(self.codes, hex_colors(class_colors(len(self.codes))), strict=True))
        legend = [
            LegendEntry(label=one["label"], share=one["share"], color=colors[one["label"]]) for one in record["classes"]
        ]
        size = record["height"], record["width"]
        return RecordView(title=self.brief(record), size=size, png=record["png"], legend=tuple(legend)).plain()

    def verify(self, encoder: SampleEncoder, model: dict[str, Any]) -> None:
        block = encoder.y_blocks[0] if encoder.y_blocks else None
        if not isinstance(block, MaskBlock) or block != self.block:
            raise ConfigError("the classes of the task and those of the mask block disagree")
        classes = model.get("classes")
        if isinstance(classes, int) and classes > 0 and classes != len(self.codes):
            raise ConfigError(f"the model has {classes} classes, the task {len(self.codes)}")

    def draw(self, axes: Any, record: Record, block: Block, target: Any) -> None:
        """Draws the image with its true mask over it on the left, with the predicted one on the right.

        Args:
            axes: Matplotlib axes with the image drawn.
            record: The prediction.
            block: The target's block.
            target: The raw mask.
        """
        void = self.block.void
        truth = (target if isinstance(target, Tensor) else self.block.encode(target)).cpu().numpy()
        found = ids_of(record)
        shown = np.asarray(axes.images[0].get_array())
        gap = max(1, shown.shape[1] // 40)
        axes.clear()
        axes.set_axis_off()
        width = shown.shape[1]
        for left, ids in ((0, truth), (width + gap, found)):
            place = (left - 0.5, left + width - 0.5, shown.shape[0] - 0.5, -0.5)
            axes.imshow(shown, extent=place, cmap="gray", vmin=0, vmax=255)
            axes.imshow(self.block.overlay(ids), extent=place, interpolation="nearest")
        axes.set_xlim(-0.5, 2 * width + gap - 0.5)
        matrix = pixel_confusion(torch.from_numpy(found), torch.from_numpy(truth), len(self.codes), void)
        value = mean_iou(matrix)
        axes.set_title(f"mean IoU {value:.2f}", fontsize=8, color="black" if value >= GOOD else "crimson")


def ids_of(record: Record) -> np.ndarray:
    """Returns the class map of a record, uint8 (H, W).

    Args:
        record: A prediction.
    """
    with Image.open(io.BytesIO(base64.b64decode(record["png"]))) as image:
        return np.array(image, dtype=np.uint8)
