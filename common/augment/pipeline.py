"""From a batch as it is kept (uint8) to a batch as a model takes it: augmented in training, the same each time else."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from common.augment import geometry
from common.augment import operations as ops
from common.augment.mixing import mix
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

    def draw(self, batch: Batch, counter: Counter, train: bool, kept: tuple[int, int]) -> Drawn:
        """Returns the parameters of each sample, a function of its id, the seed and the epoch alone.

        Args:
            batch: The samples: ``ids``, and ``sizes`` where an item transform left a crop to the batch.
            counter: The seed and the epoch.
            train: Whether to draw; else the centre crops.
            kept: (height, width) of the presized images in pixels.
        """
        ids = cast(Tensor, batch.ids)
        matrix: Tensor | None = None
        for op in self.crops:
            if op is self.item_crop:  # cuts the whole source, in the source's own proportions
                sizes = cast(Tensor, batch.sizes)
            else:
                sizes = torch.tensor([self.item_crop.crop.size if self.item_crop else kept], device=ids.device)
                sizes = sizes.expand(len(ids), 2)
            numbers, _ = op.draw(ids, counter)
            region = op.region(numbers, sizes) if train else op.centre(sizes)
            matrix = region if matrix is None else geometry.compose(matrix, region)
        size = self.out_size(kept)
        factor = offset = None
        if train:
            eye = torch.eye(3, dtype=torch.float64, device=ids.device).expand(len(ids), 3, 3)
            for op in self.geometric:
                numbers, chosen = op.draw(ids, counter)
                step = torch.where(chosen[:, None, None], op.matrix(numbers, size), eye)
                matrix = step if matrix is None else geometry.compose(matrix, step)
            for op in self.tones:
                numbers, chosen = op.draw(ids, counter)
                f, o = op.tone(numbers)
                f, o = torch.where(chosen, f, torch.ones_like(f)), torch.where(chosen, o, torch.zeros_like(o))
                factor, offset = (f, o) if factor is None else (factor * f, cast(Tensor, offset) * f + o)
        return Drawn(matrix, factor, offset)

    def out_size(self, kept: tuple[int, int]) -> tuple[int, int]:
        """Returns the (height, width) in pixels that leave the pipeline when ``kept`` enters it."""
        return self.crops[-1].crop.size if self.crops else kept

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
            kept = (pixels.shape[1], pixels.shape[2])
            size = self.out_size(kept)
            drawn = self.draw(batch, counter, train, kept)
            moved = [
                self._apply(block, value, drawn, kept, size, train)
                for block, value in zip(self.encoder.blocks, fields, strict=False)
            ]
            inputs = self.encoder.n_inp
            batch = replace(batch, x=_as_field(moved[:inputs]), y=_as_field(moved[inputs:]))
        for op in self.mixes if train and mixing else ():
            batch = mix(batch, op, self.encoder.y_blocks, counter)
        return batch

    def _apply(
        self, block: Block, value: Any, drawn: Drawn, kept: tuple[int, int], size: tuple[int, int], train: bool
    ) -> Any:
        matrix = drawn.matrix
        if block.target == "image":
            return self._pixels(value, drawn, kept, size, train, cast(ImageBlock, block))
        if matrix is None:
            return value
        if block.target == "mask":
            return geometry.resample_mask(value, matrix, size, self.padding)
        if block.target == "points":
            return geometry.move_points(value, matrix, kept, size)
        if block.target == "boxes":
            boxes = geometry.move_boxes(value["boxes"], matrix, kept, size)
            alive = ((boxes[..., 2:] - boxes[..., :2]) > 0).all(dim=-1)
            return {**value, "boxes": boxes, "valid": value["valid"] & alive}
        return value

    def _stats(self, block: ImageBlock) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The mean and deviation of an image block: a Normalize's, else its own."""
        norms = [t for t in self.transforms if isinstance(t, Normalize)]
        return (norms[-1].mean, norms[-1].std) if norms else (block.mean, block.std)

    def _shrink(self, kept: tuple[int, int], size: tuple[int, int], train: bool) -> int:
        """How many pixels to average before the resample, so that shrinking does not alias."""
        low, high = self.crops[0].crop.scale if self.crops and train else (1.0, 1.0)
        typical = ((low + high) / 2) ** 0.5
        return max(1, int(min(kept[0] / size[0], kept[1] / size[1]) * typical))

    def _pixels(
        self, value: Tensor, drawn: Drawn, kept: tuple[int, int], size: tuple[int, int], train: bool, block: ImageBlock
    ) -> Tensor:
        count, _, _, channels = value.shape
        device = value.device
        out = torch.empty(count, channels, *size, device=device).to(memory_format=torch.channels_last)
        mean, std = (torch.tensor(v, device=device)[:, None, None] for v in self._stats(block))
        shrink = self._shrink(kept, size, train) if drawn.matrix is not None else 1
        step = geometry.chunk(size) if device.type == "cpu" else count
        for start in range(0, count, step):
            rows = slice(start, start + step)
            pixels = value[rows].permute(0, 3, 1, 2)
            if drawn.matrix is None:
                pixels = pixels.to(torch.float32)
            else:
                pixels = geometry.shrink(pixels.to(torch.float32, memory_format=torch.contiguous_format), shrink)
                matrix = drawn.matrix[rows] if shrink == 1 else geometry.shrunk(drawn.matrix[rows], kept, shrink)
                pixels = geometry.resample(pixels, matrix, size, self.padding)
            if drawn.factor is None:
                out[rows] = (pixels * (1 / 255) - mean) / std
            else:
                factor = (drawn.factor[rows] / 255).to(torch.float32)[:, None, None, None]
                offset = cast(Tensor, drawn.offset)[rows].to(torch.float32)[:, None, None, None]
                out[rows] = (pixels.mul_(factor).add_(offset).clamp_(0, 1) - mean) / std
        return out

    def replay(
        self, sample_id: int, counter: Counter, kept: tuple[int, int], source: tuple[int, int] | None = None
    ) -> Drawn:
        """Returns the parameters that one sample gets in one epoch, from its id.

        Args:
            sample_id: The sample's id.
            counter: The seed and the epoch.
            kept: (height, width) of the presized image in pixels.
            source: (height, width) of the source image in pixels; ``kept`` when None.
        """
        sizes = torch.tensor([source or kept], dtype=torch.int32)
        return self.draw(Batch(x=None, ids=torch.tensor([sample_id]), sizes=sizes), counter, True, kept)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value,)


def _as_field(values: list[Any]) -> Any:
    return None if not values else values[0] if len(values) == 1 else tuple(values)
