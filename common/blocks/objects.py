"""Annotated objects of an image: boxes, labels and shapes as a source gives them, and the blocks that encode them.

Floor: blocks; may import text and below. Used by: augment, data, vision, applications.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from common.blocks.block import Block, CategoryBlock, Target, class_list
from common.blocks.content import content_digest
from common.blocks.form import FormField, choice_of, list_of, mapping_of, no_file, number_of, rows_of, text_of
from common.blocks.item_transforms import View
from common.blocks.shapes import OUTLINE, filled, outline, polygons
from common.blocks.values import Padded
from common.errors import ConfigError, DataError
from common.registry import register


@dataclass(frozen=True)
class Objects:
    """The objects in one image, in source pixels; every sequence has one entry per object.

    Attributes:
        boxes: Corners (x0, y0, x1, y1) of each.
        labels: The class of each.
        shapes: The outline of each, or None: a polygon ((x, y), …), several of them, a mask (height, width), or COCO's
            run lengths (``{"size", "counts"}``).
        crowd: Whether each is a region of many objects that are not annotated individually (COCO's ``iscrowd``), or an
            object that the source calls difficult; it is not trained on, and detections in it are ignored in
            evaluation. None: none is.
        areas: The area of each in square pixels as the source states it, or None: the areas of the boxes.
        size: (height, width) of the image in pixels, where the source states it.
        notes: One sentence for each correction that was made when reading it.
    """

    boxes: Sequence[Sequence[float]] = ()
    labels: Sequence[str] = ()
    shapes: Sequence[Any] | None = None
    crowd: Sequence[bool] | None = None
    areas: Sequence[float] | None = None
    size: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, raw: Any) -> "Objects":
        """Returns Objects as they are, and a pair (boxes, labels) or a triple (boxes, labels, shapes) as Objects.

        Raises:
            DataError: if the parts differ in length, or there are fewer than two or more than three.
        """
        if not isinstance(raw, Objects):
            if not isinstance(raw, (tuple, list)) or len(raw) not in (2, 3):
                raise DataError(f"an item must have boxes and labels (and shapes), got {raw!r:.60}")
            raw = cls(*raw)
        for name in ("labels", "shapes", "crowd", "areas"):
            part = getattr(raw, name)
            if part is not None and len(part) != len(raw.boxes):
                raise DataError(f"{len(raw.boxes)} boxes but {len(part)} {name}")
        return raw

    def corners(self, view: View | None = None) -> np.ndarray:
        """Returns the boxes' corners, float64 (N, 2, 2), in the pixels of a view and clipped to it."""
        corners = np.asarray(self.boxes, dtype=np.float64).reshape(-1, 2, 2)
        return corners if view is None else np.clip(view.points(corners), 0, np.array(view.size[::-1], np.float64))

    def rows(self, keep: np.ndarray) -> "Objects":
        """Returns some of the objects, by a mask (N,) or indices."""
        chosen = np.flatnonzero(keep) if keep.dtype == np.bool_ else keep
        parts = {name: getattr(self, name) for name in ("boxes", "labels", "shapes", "crowd", "areas")}
        taken = {name: None if part is None else [part[i] for i in chosen] for name, part in parts.items()}
        return replace(self, **taken)

    def learnt(self, view: View | None = None) -> "Objects":
        """Returns the objects to train on: without crowds, and without those outside the view."""
        corners = self.corners(view)
        seen = np.asarray((corners[:, 1] > corners[:, 0]).all(axis=1))
        return self.rows(seen if self.crowd is None else seen & ~np.asarray(self.crowd, dtype=bool))


@register("block", "boxes")
@dataclass(frozen=True)
class BBoxBlock(Block):
    """Boxes with their labels: ``boxes`` float32 (N, 4) as (x0, y0, x1, y1) in pixels, ``labels`` int64 (N,).

    The raw value is `Objects`, or a pair (boxes in source pixels, label names). In a batch `Padded`: boxes (B, N, 4),
    labels (B, N). With ``outlined`` each object has a shape, of which ``outlines`` float32 (N, 32, 2) are stored:
    augmented boxes are then computed around the transformed shape, not around the transformed old box.

    Args:
        vocab: The classes; fitted from the training items when empty.
        outlined: Whether each box comes with a shape (a polygon or a mask); see `Objects`.

    Examples:
        >>> block = BBoxBlock(vocab=("cat",))
        >>> block.encode(([[0, 0, 4, 2]], ["cat"]), View((0, 0, 8, 8), (4, 4)))["boxes"].tolist()
        [[0.0, 0.0, 2.0, 1.0]]
    """

    vocab: tuple[str, ...] = ()
    outlined: bool = False
    target: ClassVar[Target] = Target.BOXES
    ragged: ClassVar[bool] = True
    needs_fit: ClassVar[bool] = True
    eager: ClassVar[bool] = False

    def setup(self, raws: Sequence[Any]) -> Self:
        labels = [name for raw in raws for name in Objects.of(raw).labels]
        return self if self.vocab else replace(self, vocab=CategoryBlock().setup(labels).vocab)

    def about(self) -> str:
        return f"boxes of {class_list(self.vocab)}"

    def labels(self, raw: Any) -> list[str]:
        return [str(name) for name in Objects.of(raw).labels]

    def notes(self, raw: Any) -> Sequence[str]:
        return Objects.of(raw).notes

    def encode(self, raw: Any, view: View | None = None) -> dict[str, Tensor]:
        things = Objects.of(raw)
        if self.outlined and things.shapes is None:
            raise DataError("an item must have boxes, labels and polygons or masks, got no shapes")
        things = things.learnt(view)
        boxes = torch.from_numpy(things.corners(view).reshape(-1, 4).astype(np.float32))
        found = {"boxes": boxes, "labels": CategoryBlock(self.vocab).encode_many(list(things.labels))}
        if self.outlined:
            around = np.array([outline(shape) for shape in things.shapes or ()]).reshape(-1, OUTLINE, 2)
            around = around if view is None else view.points(around)
            found["outlines"] = torch.from_numpy(around.astype(np.float32))
        return found

    def form(self, name: str = "") -> tuple[FormField, ...]:
        kind = "shapes" if self.outlined else "boxes"
        return (FormField(name=name or self.registered_name, kind=kind, choices=self.vocab),)

    def parse(self, value: Any, data: bytes | None = None) -> Objects:
        no_file("things", data)
        if not self.vocab:
            raise ConfigError("this BBoxBlock is not fitted: it gets its vocab from DataBlock.dataloaders")
        return entered(value, self.vocab, shaped=self.outlined)

    def token(self, raw: Any) -> bytes:
        return things_digest(raw)

    def decode(self, value: Any) -> tuple[list[list[float]], list[str]]:
        fields: dict[str, Tensor] = value.own() if isinstance(value, Padded) else value
        return fields["boxes"].tolist(), [self.vocab[int(i)] for i in fields["labels"]]

    def draw(self, axes: Any, value: Any) -> None:
        from matplotlib.patches import Rectangle

        for (x0, y0, x1, y1), name in zip(*self.decode(value), strict=True):
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="yellow"))
            axes.text(x0, y0, name, color="yellow", fontsize=8, parse_math=False, clip_on=True)


@register("block", "instances")
@dataclass(frozen=True)
class InstanceBlock(Block):
    """Instance masks: int16 (H, W), 0 for background, else 1 + the object's row in a `BBoxBlock` of the same item.

    The raw value is `Objects` with shapes and a size. Where objects overlap, the smaller one is on top.

    Examples:
        >>> thing = Objects([[0, 0, 2, 1]], ["a"], [[(0, 0), (2, 0), (2, 1), (0, 1)]], size=(2, 3))
        >>> InstanceBlock().encode(thing).tolist()
        [[1, 1, 0], [0, 0, 0]]
    """

    target: ClassVar[Target] = Target.MASK
    eager: ClassVar[bool] = False

    @property
    def void(self) -> None:
        """No id is ignored."""
        return

    def extent(self, opened: Any) -> tuple[int, int] | None:
        return Objects.of(opened).size

    def encode(self, raw: Any, view: View | None = None) -> Tensor:
        things = Objects.of(raw)
        size = things.size
        if size is None or (things.shapes is None and things.boxes):
            raise DataError("instance masks need Objects with shapes and the size of the image")
        things = things.learnt(view)
        out = np.zeros(size if view is None else view.size, np.int16)
        masks = [filled(shape, size, view) for shape in things.shapes or ()]
        for row in sorted(range(len(masks)), key=lambda i: -int(masks[i].sum())):
            out[masks[row]] = row + 1
        return torch.from_numpy(out)

    def form(self, name: str = "") -> tuple[FormField, ...]:
        return (FormField(name=name or self.registered_name, kind="shapes"),)

    def parse(self, value: Any, data: bytes | None = None) -> Objects:
        no_file("things", data)
        return entered(value, shaped=True, sized=True)

    def token(self, raw: Any) -> bytes:
        return things_digest(raw)

    def decode(self, value: Any) -> np.ndarray:
        return value.detach().cpu().numpy()

    def draw(self, axes: Any, value: Any) -> None:
        from common.blocks.spatial import overlay

        ids = self.decode(value)
        axes.imshow(overlay(np.where(ids == 0, 255, (ids - 1) % 255), 20, (255,)), interpolation="nearest")


MOST_THINGS = 10_000
MAX_SIDE_PX = 100_000


def entered(value: Any, vocab: Sequence[str] = (), *, shaped: bool = False, sized: bool = False) -> Objects:
    """Returns the validated objects of JSON ``{"boxes": …, "labels": …, "shapes": …, "size": [height, width]}``.

    Args:
        value: Plain JSON data.
        vocab: The allowed classes; empty: any.
        shaped: Whether each object must have a shape.
        sized: Whether the size of the image is required.

    Raises:
        DataError: naming what is wrong.
    """
    cells = mapping_of("an object of things", value, ("boxes", "labels", "shapes", "size"))
    for name in ("boxes", "labels", *(("shapes",) if shaped else ()), *(("size",) if sized else ())):
        if cells.get(name) is None:
            raise DataError(f"things must have {name}, got {', '.join(cells) or 'nothing'}")
    boxes = rows_of("boxes", cells["boxes"], 4)
    if len(boxes) > MOST_THINGS:
        raise DataError(f"boxes must be at most {MOST_THINGS:,}, got {len(boxes):,}")
    given = list_of("labels", cells["labels"])
    labels = [_named(f"labels[{i}]", name, vocab) for i, name in enumerate(given)]
    shapes = None if cells.get("shapes") is None else list_of("shapes", cells["shapes"])
    size = None
    if cells.get("size") is not None:
        sides = [number_of("size", side, largest=MAX_SIDE_PX) for side in list_of("size", cells["size"])]
        if len(sides) != 2 or any(side < 1 or side != int(side) for side in sides):
            raise DataError(f"size must be [height, width] in whole pixels from 1 on, got {cells['size']!r:.60}")
        size = int(sides[0]), int(sides[1])
    for i, shape in enumerate(shapes or ()):
        _check_shape(f"shapes[{i}]", shape, size)
    return Objects.of(Objects(boxes, labels, shapes, size=size))


def _named(what: str, name: Any, vocab: Sequence[str]) -> str:
    return choice_of(what, name, vocab) if vocab else text_of(what, name)


def _check_shape(what: str, shape: Any, size: tuple[int, int] | None) -> None:
    if isinstance(shape, dict):  # the size is checked here, so that decoding cannot exhaust memory; counts when decoded
        found = mapping_of(what, shape, ("size", "counts"))
        if not isinstance(found.get("counts"), (str, list)) or (size and found.get("size") != list(size)):
            raise DataError(f"{what} must have counts and the size of the image, got {shape!r:.60}")
        return
    try:
        corners = polygons(list_of(what, shape))
    except (ValueError, TypeError, IndexError) as error:
        raise DataError(f"{what} must be polygons, lists of numbers x, y, …: {error}") from error
    for polygon in corners or ():
        if not np.isfinite(polygon).all() or np.abs(polygon).max(initial=0) > MAX_SIDE_PX:
            raise DataError(f"{what} has a corner beyond {MAX_SIDE_PX:,} pixels")


def things_digest(raw: Any) -> bytes:
    """Returns a digest that is equal for the same objects, whether their boxes are lists or arrays.

    Args:
        raw: See `Objects.of`.
    """
    things = Objects.of(raw)
    boxes = np.asarray(things.boxes, dtype=np.float64).reshape(-1, 4) + 0.0
    crowd = None if things.crowd is None else [bool(one) for one in things.crowd]
    return content_digest([boxes, [str(name) for name in things.labels], things.shapes, crowd, things.size])
