"""From a batch as it is kept (uint8) to a batch as a model takes it: augmented in training, the same each time else."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from common.augment import geometry
from common.augment import operations as ops
from common.augment.mixing import mix
from common.augment.render import SMALL, Look, render
from common.augment.transforms import Augment, BatchTransform, Mixup, Normalize
from common.data.batch import Batch
from common.data.blocks import Block, Counter
from common.data.sample import SampleEncoder
from common.data.spatial import ImageBlock
from common.errors import ConfigError


@dataclass(frozen=True)
class Drawn:
    """The parameters of a batch: what `replay` returns and what every target of a sample follows.

    Attributes:
        matrix: float64 (B, 3, 3), output to input positions, or None where nothing moves.
        factor: float64 (B,), what pixels in [0, 1] are multiplied by, or None.
        offset: float64 (B,), what is added then, or None.
    """

    matrix: Tensor | None
    factor: Tensor | None = None
    offset: Tensor | None = None

    def only(self, chosen: Tensor) -> "Drawn":
        """Returns the parameters of some samples."""
        return Drawn(*(None if t is None else t[chosen] for t in (self.matrix, self.factor, self.offset)))

    @classmethod
    def joined(cls, parts: "Sequence[Drawn]") -> "Drawn":
        """Returns the parameters of several groups of samples, one after another."""
        columns = zip(*((part.matrix, part.factor, part.offset) for part in parts), strict=True)
        return cls(*(None if column[0] is None else torch.cat(cast("list[Tensor]", column)) for column in columns))


@dataclass(frozen=True)
class Counted:
    """What a batch's parameters are made of before the sizes of its images are known.

    Attributes:
        ids: int64 (B,): the samples.
        train: Whether anything is drawn.
        crops: The numbers of each crop, (B, k).
        motion: float64 (B, 3, 3): all other geometric operations, or None.
        factor: float64 (B,), or None; see `Drawn`.
        offset: float64 (B,), or None.
    """

    ids: Tensor
    train: bool
    crops: tuple[Tensor, ...]
    motion: Tensor | None
    factor: Tensor | None
    offset: Tensor | None

    def part(self, chosen: slice) -> "Counted":
        """Returns those of some samples."""
        motion, factor, offset = (None if t is None else t[chosen] for t in (self.motion, self.factor, self.offset))
        return Counted(self.ids[chosen], self.train, tuple(c[chosen] for c in self.crops), motion, factor, offset)


class BatchPipeline:
    """The batch transforms of a DataBlock, checked against its blocks when it is built.

    Args:
        encoder: The fitted blocks, whose targets the operations must support.
        transforms: The batch transforms in order.

    Raises:
        ConfigError: if an operation does not support one of the blocks, naming both.
    """

    def __init__(self, encoder: SampleEncoder, transforms: Sequence[BatchTransform] = ()) -> None:
        self.encoder = encoder
        self.transforms = tuple(transforms)
        found = [op for transform in self.transforms for op in transform.operations()]
        self.geometric = [op for op in found if isinstance(op, ops.Geometric)]
        self.tones = [op for op in found if isinstance(op, ops.Tone)]
        self.mixes = [op for op in found if isinstance(op, ops.Mix)]
        augments = [t for t in self.transforms if isinstance(t, Augment)]
        if len(augments) > 1:
            raise ConfigError("batch_tfms holds two Augments, which would draw the same numbers: put all into one")
        self.padding = augments[-1].padding if augments else "reflection"
        item_crop, cuts = encoder.batch_crop(), [c for c in (t.crop() for t in augments) if c is not None]
        self.item_crop = None if item_crop is None else ops.Crop(crop=item_crop)
        self.cut = ops.Crop(crop=cuts[-1], second=True) if cuts else None
        self.crops = [op for op in (self.item_crop, self.cut) if op is not None]
        self._check(found)
        image = encoder.image_block
        self.mean: tuple[float, ...] = ()
        self._stats_on: dict[tuple[ImageBlock, torch.device], tuple[Tensor, Tensor]] = {}
        if isinstance(image, ImageBlock):
            self.mean, std = self._stats(image)
            if len(self.mean) != image.channels or len(std) != image.channels:
                raise ConfigError(f"Normalize has {len(self.mean)} channels, the images have {image.channels}")

    def _check(self, found: list[ops.Operation]) -> None:
        for op in [*found, *self.crops]:
            for block in self.encoder.blocks:
                if op.support[block.target] == "unsupported":
                    raise ConfigError(
                        f"{op.name} does not support {block.target} ({type(block).__name__}): leave it out"
                    )
        y_blocks, x_blocks = self.encoder.y_blocks, self.encoder.x_blocks
        if self.mixes and not (
            len(x_blocks) == len(y_blocks) == 1
            and x_blocks[0].target in ("image", "number")
            and y_blocks[0].target in ("category", "number")
        ):
            raise ConfigError("mixup blends one image or number with one category or number target")
        named = (*self.encoder.item_tfms, *self.transforms)
        others = [type(t).__name__ for t in named if not isinstance(t, (Augment, Mixup))]
        if (self.geometric or self.tones or self.crops or others) and self.encoder.image_block is None:
            name = [*(op.name for op in self.geometric + self.tones + self.crops), *others][0]
            raise ConfigError(f"{name} needs an image, and no block of this DataBlock is one")

    @property
    def has_image(self) -> bool:
        """Whether one of the blocks is an image."""
        return self.encoder.image_block is not None

    def count(self, ids: Tensor, counter: Counter, train: bool, size: tuple[int, int]) -> Counted:
        """Returns what is known of each sample's parameters before its image is: all but where a crop lies.

        Args:
            ids: int64 (B,): the samples.
            counter: The seed and the epoch.
            train: Whether to draw; else the centre crops.
            size: (height, width) in pixels that leave the pipeline.
        """
        crops = tuple(op.draw(ids, counter)[0] for op in self.crops) if train else ()
        motion = factor = offset = None
        if train:
            eye = torch.eye(3, dtype=torch.float64, device=ids.device).expand(len(ids), 3, 3)
            for op in self.geometric:
                numbers, chosen = op.draw(ids, counter)
                step = torch.where(chosen[:, None, None], op.matrix(numbers, size), eye)
                motion = step if motion is None else geometry.compose(motion, step)
            for op in self.tones:
                numbers, chosen = op.draw(ids, counter)
                f, o = op.tone(numbers)
                f, o = torch.where(chosen, f, torch.ones_like(f)), torch.where(chosen, o, torch.zeros_like(o))
                factor, offset = (f, o) if factor is None else (factor * f, cast(Tensor, offset) * f + o)
        return Counted(ids, train, crops, motion, factor, offset)

    def settle(self, counted: Counted, kept: Tensor | tuple[int, int]) -> Drawn:
        """Returns the parameters of each sample, once it is known how large its image is.

        Args:
            counted: What `count` gave.
            kept: (height, width) of the images as they are kept, in pixels; (B, 2) where they differ.
        """
        matrix: Tensor | None = None
        for i, op in enumerate(self.crops):  # the second cuts what the first leaves
            sizes = kept if isinstance(kept, Tensor) else _rows(kept, counted.ids)
            region = op.region(counted.crops[i], sizes) if counted.train else op.centre(sizes)
            matrix = region if matrix is None else geometry.compose(matrix, region)
            kept = op.crop.size
        if counted.motion is not None:
            matrix = counted.motion if matrix is None else geometry.compose(matrix, counted.motion)
        return Drawn(matrix, counted.factor, counted.offset)

    def draw(self, ids: Tensor, kept: Tensor | tuple[int, int], counter: Counter, train: bool) -> Drawn:
        """Returns the parameters of each sample, a function of its id, the seed and the epoch alone.

        Args:
            ids: int64 (B,): the samples.
            kept: (height, width) of the images as they are kept, in pixels; (B, 2) where they differ.
            counter: The seed and the epoch.
            train: Whether to draw; else the centre crops.
        """
        size = self.out_size(kept if isinstance(kept, tuple) else (1, 1))
        return self.settle(self.count(ids, counter, train, size), kept)

    def out_size(self, kept: tuple[int, int]) -> tuple[int, int]:
        """Returns the (height, width) in pixels that leave the pipeline when ``kept`` enters it."""
        return self.crops[-1].crop.size if self.crops else kept

    def look(self, kept: tuple[int, int], block: ImageBlock) -> Look:
        """Returns size, normalisation and padding of a block's images, ``kept`` pixels high and wide before."""
        return Look(self.out_size(kept), *self._stats(block), self.padding)

    def __call__(self, batch: Batch, counter: Counter, train: bool, mixing: bool = True) -> Batch:
        """Returns the batch as the model takes it, on the device it is on.

        Args:
            batch: As a loader gathers it: images uint8 (B, H, W, C).
            counter: The seed and the epoch.
            train: Whether to draw random changes; else centre crops and no change.
            mixing: Whether samples may be blended with each other (not at test time).

        Returns:
            Images float32 (B, C, H, W), normalised, channels last in memory; masks, boxes and points moved alike.
        """
        image = self.encoder.image_block
        if image is not None:
            fields = _as_tuple(batch.x) + _as_tuple(batch.y)
            pixels = cast(Tensor, fields[self.encoder.blocks.index(image)])
            common = (pixels.shape[1], pixels.shape[2])
            drawn = self.draw(cast(Tensor, batch.ids), common if batch.kept is None else batch.kept, counter, train)
            made = self.pixels(pixels, drawn, batch.kept, train, cast(ImageBlock, image))
            batch = self.place(batch, made, drawn, common, train)
        return self.mixed(batch, counter, train, mixing)

    def place(self, batch: Batch, image: Tensor, drawn: Drawn, kept: tuple[int, int], train: bool) -> Batch:
        """Returns a batch with its (first) image replaced and everything else moved as that was.

        Args:
            batch: As a loader gathers it.
            image: float32 (B, C, H, W).
            drawn: The parameters that the image was made with.
            kept: (height, width) of the tensor that it was made from, in pixels.
            train: Whether the crops are random ones.
        """
        fields = _as_tuple(batch.x) + _as_tuple(batch.y)
        first = self.encoder.blocks.index(cast(Block, self.encoder.image_block))
        moved = [
            image if i == first else self._moved(block, value, drawn, kept, batch.kept, train)
            for i, (block, value) in enumerate(zip(self.encoder.blocks, fields, strict=False))
        ]
        inputs = self.encoder.n_inp
        return replace(batch, x=_as_field(moved[:inputs]), y=_as_field(moved[inputs:]), kept=None)

    def mixed(self, batch: Batch, counter: Counter, train: bool, mixing: bool) -> Batch:
        """Returns the batch with samples blended, where there is mixup and it is wanted."""
        for op in self.mixes if train and mixing else ():
            batch = mix(batch, op, self.encoder.y_blocks, counter)
        return batch

    def _moved(
        self, block: Block, value: Any, drawn: Drawn, kept: tuple[int, int], own: Tensor | None, train: bool
    ) -> Any:
        matrix, size = drawn.matrix, self.out_size(kept)
        if block.target == "image":
            return self.pixels(value, drawn, own, train, cast(ImageBlock, block))
        if matrix is None:
            return value
        if block.target == "mask":
            return geometry.resample_mask(value, matrix, size, self.padding, kept=own)
        if block.target == "points":
            return geometry.move_points(value, matrix, kept if own is None else own, size)
        if block.target == "boxes":
            boxes = geometry.move_boxes(value["boxes"], matrix, kept if own is None else own, size)
            alive = ((boxes[..., 2:] - boxes[..., :2]) > 0).all(dim=-1)
            return {**value, "boxes": boxes, "valid": value["valid"] & alive}
        return value

    def _stats(self, block: ImageBlock) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The mean and deviation of an image block: a Normalize's, else its own."""
        norms = [t for t in self.transforms if isinstance(t, Normalize)]
        return (norms[-1].mean, norms[-1].std) if norms else (block.mean, block.std)

    def _on(self, block: ImageBlock, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and deviation (C, 1, 1) on a device, made once."""
        if (block, device) not in self._stats_on:
            found = (torch.tensor(v, device=device)[:, None, None] for v in self._stats(block))
            self._stats_on[block, device] = cast("tuple[Tensor, Tensor]", tuple(found))
        return self._stats_on[block, device]

    def per_image(self, device: torch.device, kept: tuple[int, int]) -> bool:
        """Whether images are rendered one by one (`render`): photos on a CPU do, the rest goes by batch."""
        size = self.out_size(kept)
        return self.has_image and device.type == "cpu" and size[0] * size[1] >= SMALL

    def pixels(self, value: Tensor, drawn: Drawn, kept: Tensor | None, train: bool, block: ImageBlock) -> Tensor:
        """Returns images as the model takes them, float32 (B, C, H, W), from uint8 (B, H, W, C).

        Args:
            value: The images; where their sizes differ each at the top left.
            drawn: The parameters.
            kept: int32 (B, 2): their own heights and widths where they differ, or None.
            train: Whether the crops are random ones.
            block: Whose normalisation to use.
        """
        count, *shape, channels = value.shape
        common, device = (shape[0], shape[1]), value.device
        size = self.out_size(common)
        if self.per_image(device, common):
            out = torch.empty(count, *size, channels)
            sides = kept.tolist() if kept is not None else [common] * count
            images = [value[i, :h, :w].numpy() for i, (h, w) in enumerate(sides)]
            self.render(images, drawn, common, out, block)
            return out.permute(0, 3, 1, 2)
        out = torch.empty(count, channels, *size, device=device).to(memory_format=torch.channels_last)
        mean, std = self._on(block, device)
        shrink = self._shrink(common, size, train) if drawn.matrix is not None else 1
        step = geometry.chunk(size) if device.type == "cpu" else count
        for start in range(0, count, step):
            rows = slice(start, start + step)
            pixels = value[rows].permute(0, 3, 1, 2)
            if drawn.matrix is None:
                pixels = pixels.to(torch.float32)
            else:
                own = None if kept is None else kept[rows]
                pixels = geometry.shrink(pixels.to(torch.float32, memory_format=torch.contiguous_format), shrink)
                matrix = drawn.matrix[rows]
                if shrink > 1:
                    matrix = geometry.shrunk(matrix, common if own is None else own, shrink)
                    own = None if own is None else -(-own // shrink)
                pixels = geometry.resample(pixels, matrix, size, self.padding, kept=own)
            if drawn.factor is None:
                out[rows] = (pixels * (1 / 255) - mean) / std
            else:
                factor = (drawn.factor[rows] / 255).to(torch.float32)[:, None, None, None]
                offset = cast(Tensor, drawn.offset)[rows].to(torch.float32)[:, None, None, None]
                out[rows] = (pixels.mul_(factor).add_(offset).clamp_(0, 1) - mean) / std
        return out

    def render(
        self, images: Sequence[np.ndarray], drawn: Drawn, kept: tuple[int, int], out: Tensor, block: ImageBlock
    ) -> None:
        """Renders images one by one on the CPU, from where they lie, into a batch of floats.

        Args:
            images: uint8 (H, W, C) each.
            drawn: Their parameters.
            kept: (height, width) of the images in pixels, where no crop gives the size.
            out: float32 (B, H, W, C), written whole.
            block: Whose normalisation to use.
        """
        matrix, factor, offset = (None if t is None else t.numpy() for t in (drawn.matrix, drawn.factor, drawn.offset))
        render(images, matrix, factor, offset, self.look(kept, block), out.numpy())

    def _shrink(self, kept: tuple[int, int], size: tuple[int, int], train: bool) -> int:
        """How many pixels to average before the resample, so that shrinking does not alias."""
        low, high = self.crops[0].crop.scale if self.crops and train else (1.0, 1.0)
        typical = ((low + high) / 2) ** 0.5
        return max(1, int(min(kept[0] / size[0], kept[1] / size[1]) * typical))

    def replay(self, sample_id: int, counter: Counter, kept: tuple[int, int]) -> Drawn:
        """Returns the parameters that one sample gets in one epoch, from its id.

        Args:
            sample_id: The sample's id.
            counter: The seed and the epoch.
            kept: (height, width) of the image as it is kept, in pixels.
        """
        return self.draw(torch.tensor([sample_id]), kept, counter, True)


def _rows(size: tuple[int, int], ids: Tensor) -> Tensor:
    """One (height, width) for each sample, made on its device."""
    return torch.stack([torch.full_like(ids, side) for side in size], dim=1)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value,)


def _as_field(values: list[Any]) -> Any:
    return None if not values else values[0] if len(values) == 1 else tuple(values)
