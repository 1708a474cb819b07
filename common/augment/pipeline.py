"""From a stored batch (uint8) to a batch as a model takes it: normalised, and augmented in training.

Floor: augment; may import sources and below. Used by: data, deploy.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from common.augment import colours, geometry, kernel, mixing, mosaic, moves, pixels, spectral, textures
from common.augment.batch_transforms import Augment, BatchTransform, Normalize, SpecAugment
from common.augment.drawn import Drawn, Look
from common.augment.operations import Colour, Move, Operation, stream
from common.augment.render import SMALL, render, render_masks
from common.augment.stages import Stage
from common.blocks.batch import Batch
from common.blocks.block import Block, EpochSeed, Target
from common.blocks.objects import InstanceBlock
from common.blocks.sample import SampleEncoder
from common.blocks.spatial import ImageBlock, MaskBlock
from common.blocks.values import Padded
from common.counter import stream_keys, uniform_of
from common.errors import ConfigError

MOST_TAPS = 4
WORD = "word"
"""The random stream of the per-pixel noise."""


class BatchPipeline:
    """The batch transforms of a DataBlock, checked against its blocks when it is built.

    Args:
        encoder: The fitted blocks, whose targets the operations must support.
        transforms: The batch transforms in order.

    Attributes:
        evaluation: The pipeline for evaluation: the same, but without the crop where ``Augment.whole`` is set.
        dtype: The dtype of images made on an accelerator: float32, or bfloat16 or float16 for a model that takes
            those, which halves the memory traffic. On a CPU they are float32.

    Raises:
        ConfigError: if an operation does not support one of the blocks, naming both.
    """

    dtype: torch.dtype = torch.float32

    def __init__(self, encoder: SampleEncoder, transforms: Sequence[BatchTransform] = ()) -> None:
        self.encoder = encoder
        self.transforms = tuple(transforms)
        made = {id(transform): transform.operations() for transform in self.transforms}
        found = [op for transform in self.transforms for op in made[id(transform)]]
        augments = [t for t in self.transforms if isinstance(t, Augment)]
        if len(augments) > 1:
            raise ConfigError("batch_tfms holds two Augments, which would draw the same numbers: put all into one")
        augment = augments[0] if augments else Augment()
        self.padding, self.min_visibility = augment.padding, augment.min_visibility
        self.zoom_least = augment.zoom_least
        crops = ((encoder.batch_crop(), False), (augment.crop(), True))
        self.crops = [moves.Crop(crop=crop, second=second) for crop, second in crops if crop is not None]
        self.mixes = [op for op in found if isinstance(op, mixing.Mix)]
        self.mosaics = [op for op in found if isinstance(op, mosaic.Mosaic)]
        self.spectral = [op for op in found if isinstance(op, spectral.Spectral)]
        self.line: list[Stage | spectral.Spectral] = []  # steps that change fields in sequence, after the images
        for transform in self.transforms:
            operations = [transform] if isinstance(transform, Stage) else made[id(transform)]
            self.line += [step for step in operations if isinstance(step, (Stage, spectral.Spectral))]
        self.changes = [op for op in found if not isinstance(op, (mixing.Mix, mosaic.Mosaic, spectral.Spectral))]
        self.targets = self._targets(made)
        self._check(found)
        noisy = any(isinstance(op, (textures.Noise, textures.SaltPepper)) for op in self.changes)
        self._spans: list[tuple[Operation, slice]] = []
        self._streams: list[tuple[int, int]] = []
        place = 0
        for op in (*self.crops, *self.changes, *self.spectral, *self.mixes, *self.mosaics):
            self._streams.append((stream(op.stream), op.numbers + 1))
            self._spans.append((op, slice(place, place + op.numbers + 1)))
            place += op.numbers + 1
        self._word = place if noisy else None
        self._streams += [(stream(WORD), 1)] if noisy else []
        self._keys: tuple[EpochSeed, Tensor] | None = None
        self._looks: dict[tuple[tuple[int, int], bool, ImageBlock], Look] = {}
        image = encoder.image_block
        self.mean = self._stats(image)[0] if isinstance(image, ImageBlock) else ()
        self.evaluation = self
        if augment.whole:
            uncut = replace(augment, size=None, min_scale=1.0, max_scale=1.0, whole=False)
            self.evaluation = BatchPipeline(encoder, [uncut if t is augment else t for t in self.transforms])

    def _targets(self, operations: dict[int, list[Operation]]) -> list[Target]:
        """The kind of each field after all stages; checks each stage and operation against the kinds at its place."""
        targets = [block.target for block in self.encoder.blocks]
        for transform in self.transforms:
            if isinstance(transform, Stage):
                if transform.takes not in targets:
                    there = ", ".join(targets)
                    name = type(transform).__name__
                    raise ConfigError(f"{name} takes a {transform.takes}, and no field is one at its place: {there}")
                targets = [transform.gives if target == transform.takes else target for target in targets]
            for op in operations[id(transform)]:
                self._supported(op, targets)
                if isinstance(op, spectral.Spectral) and Target.SPECTROGRAM not in targets:
                    raise ConfigError(f"{op.name} needs a spectrogram, and no block of this DataBlock is one")
        return targets

    def _supported(self, op: Operation, targets: list[Target]) -> None:
        for block, target in zip(self.encoder.blocks, targets, strict=True):
            if op.support[target] == "unsupported":
                raise ConfigError(f"{op.name} does not support {target} ({type(block).__name__}): leave it out")

    def _check(self, found: list[Operation]) -> None:
        encoder = self.encoder
        for op in self.crops:
            self._supported(op, [block.target for block in encoder.blocks])
        if self.mixes or self.mosaics:
            self._check_mixes()
        plain = [t for t in self.transforms if not isinstance(t, (Augment, SpecAugment, Stage)) and not t.operations()]
        names = [op.name for op in (*self.changes, *self.crops)]
        names += [type(transform).__name__ for transform in (*encoder.item_tfms, *plain)]
        if names and encoder.image_block is None:
            raise ConfigError(f"{names[0]} needs an image, and no block of this DataBlock is one")

    def _check_mixes(self) -> None:
        every = [*self.mixes, *self.mosaics]
        name, x_blocks, y_blocks = every[0].name, self.encoder.x_blocks, self.encoder.y_blocks
        if self.mosaics and len(every) > 1:
            raise ConfigError("mosaic goes with no other mixing, mixup or CutMix: leave one of them out")
        if any(isinstance(block, InstanceBlock) for block in y_blocks):
            raise ConfigError(
                f"{name} does not support instances (InstanceBlock): their numbers would meet: leave it out"
            )
        if len(x_blocks) != 1 or self.targets[0] not in (Target.IMAGE, Target.NUMBER) or not y_blocks:
            raise ConfigError(f"{name} blends one image or number and its targets with those of another sample")
        if any(not isinstance(op, mixing.Blend) for op in every) and self.targets[0] != Target.IMAGE:
            raise ConfigError(f"{name} needs an image, and no block of this DataBlock is one")
        for block in y_blocks:
            if isinstance(block, MaskBlock) and not block.codes and self.blends:
                raise ConfigError("mixup of masks needs the names of their classes: give MaskBlock its codes")

    @property
    def blends(self) -> bool:
        """Whether whole samples are blended with each other."""
        return any(isinstance(op, mixing.Blend) for op in self.mixes)

    @property
    def mates(self) -> int:
        """With how many others a sample may be mixed."""
        return mosaic.PIECES - 1 if self.mosaics else int(bool(self.mixes))

    @property
    def has_image(self) -> bool:
        """Whether one of the blocks is an image."""
        return self.encoder.image_block is not None

    # What happens to each sample

    def keys(self, epoch_seed: EpochSeed, device: torch.device) -> Tensor:
        """Returns the random keys of an epoch (`stream_keys`), int64 (2, total), sent to the device once per epoch."""
        if self._keys is None or self._keys[0] != epoch_seed or self._keys[1].device != device:
            self._keys = epoch_seed, stream_keys(epoch_seed.seed, epoch_seed.epoch, self._streams).to(device)
            if self._word is not None:
                pixels.normal_table(device)  # built now, not inside a compiled or captured graph
        return self._keys[1]

    def count(self, ids: Tensor, keys: Tensor, size: tuple[int, int]) -> Drawn:
        """Returns the parameters that do not depend on a sample's image size: all but the position of a crop.

        Args:
            ids: int64 (B,): the samples.
            keys: The `keys` of the seed and the epoch.
            size: (height, width) of the pipeline's output in pixels.
        """
        uniform = uniform_of(keys, ids)
        own = {id(op): uniform[:, span] for op, span in self._spans}
        crops = [own[id(op)][:, 1:] for op in self.crops]
        drawn = Drawn(crop=torch.cat(crops, dim=1) if crops else None)
        for op in self.changes:
            drawn = with_operation(drawn, op, own[id(op)][:, 1:], own[id(op)][:, 0] < op.p, size)
        if self._word is not None:
            drawn = replace(drawn, word=torch.floor(uniform[:, self._word] * 2.0**32).to(torch.int64))
        return drawn

    def numbers(self, op: Operation, ids: Tensor, epoch_seed: EpochSeed) -> tuple[Tensor, Tensor]:
        """Returns the same as `Operation.draw`, from keys that are sent to the device once per epoch."""
        span = next(span for other, span in self._spans if other is op)
        drawn = uniform_of(self.keys(epoch_seed, ids.device)[:, span], ids)
        return drawn[:, 1:], drawn[:, 0] < op.p

    def complete(self, drawn: Drawn, stored: Tensor | tuple[int, int], train: bool) -> Drawn:
        """Returns the complete parameters of each sample, now that the size of its image is known.

        Args:
            drawn: The result of `counted`.
            stored: (height, width) of the images as they are stored, in pixels; (B, 2) where they differ.
            train: Whether the crops are random; else centre crops.
        """
        matrix, crop = None, cast(Tensor, drawn.crop)
        for i, op in enumerate(self.crops):  # the second crops the output of the first
            sizes = stored if isinstance(stored, Tensor) else geometry.sides(stored, crop[:, 0])
            first = i * op.numbers
            region = op.region(crop[:, first : first + op.numbers], sizes) if train else op.centre(sizes)
            matrix = region if matrix is None else geometry.compose(matrix, region)
            stored = op.crop.size
        if drawn.matrix is not None:
            matrix = drawn.matrix if matrix is None else geometry.compose(matrix, drawn.matrix)
        return replace(drawn, crop=None, matrix=matrix)

    def counted(self, ids: Tensor, epoch_seed: EpochSeed, train: bool, stored: tuple[int, int]) -> Drawn:
        """Returns the parameters of `count` in training; in evaluation none, but a placeholder for centre crops."""
        if not train:
            return (
                Drawn(crop=torch.empty(len(ids), 1, dtype=torch.float64, device=ids.device)) if self.crops else Drawn()
            )
        return self.count(ids, self.keys(epoch_seed, ids.device), self.out_size(stored))

    def draw(self, ids: Tensor, stored: Tensor | tuple[int, int], epoch_seed: EpochSeed, train: bool) -> Drawn:
        """Returns the parameters of each sample, a function of its id, the seed and the epoch alone.

        Args:
            ids: int64 (B,): the samples.
            stored: (height, width) of the images as they are stored, in pixels; (B, 2) where they differ.
            epoch_seed: The seed and the epoch.
            train: Whether to augment; else centre crops only.
        """
        return self.complete(
            self.counted(ids, epoch_seed, train, stored if isinstance(stored, tuple) else (1, 1)), stored, train
        )

    def replay(self, sample_id: int, epoch_seed: EpochSeed, stored: tuple[int, int]) -> Drawn:
        """Returns the parameters that one sample gets in one epoch, from its id.

        Args:
            sample_id: The sample's id.
            epoch_seed: The seed and the epoch.
            stored: (height, width) of the image as it is stored, in pixels.
        """
        return self.draw(torch.tensor([sample_id]), stored, epoch_seed, True)

    def to_source(self, sizes: Tensor) -> Tensor:
        """Returns the maps from pixels of the evaluation output to pixels of the source images.

        Args:
            sizes: (B, 2): heights and widths of the sources in pixels.

        Returns:
            float64 (B, 3, 3), of (x, y, 1).
        """
        views = [self.encoder.view((int(height), int(width))) for height, width in sizes.tolist()]
        stored = torch.tensor([view.size for view in views], dtype=torch.float64)
        box = torch.tensor([view.box for view in views], dtype=torch.float64)
        drawn = Drawn(crop=torch.empty(len(views), 1, dtype=torch.float64)) if self.crops else Drawn()
        matrix = self.complete(drawn, stored, False).matrix
        out = torch.tensor([self.out_size((h, w)) for h, w in stored.to(torch.int64).tolist()], dtype=torch.float64)
        from_pixels = _scaled(2 / out.flip(1), -torch.ones_like(out))
        to_pixels = _scaled(stored.flip(1) / 2, stored.flip(1) / 2)
        scale = (box[:, 2:] - box[:, :2]) / stored.flip(1)
        steps = [_scaled(scale, box[:, :2]), to_pixels, from_pixels]
        if matrix is not None:
            steps.insert(2, matrix)
        while len(steps) > 1:
            second = steps.pop()
            steps[-1] = geometry.compose(steps[-1], second)
        return steps[0]

    # The output format

    def out_size(self, stored: tuple[int, int]) -> tuple[int, int]:
        """Returns the (height, width) of the output in pixels, for images stored in a size."""
        return self.crops[-1].crop.size if self.crops else stored

    def look(self, stored: tuple[int, int], block: ImageBlock, *, ragged: bool = False) -> Look:
        """Returns the output format of a block's images.

        Args:
            stored: (height, width) in pixels of the batch tensor.
            block: The block whose normalisation to use.
            ragged: Whether the images differ in size and are padded to it.
        """
        found = self._looks.get((stored, ragged, block))
        if found is None:
            size = self.out_size(stored)
            if ragged:  # a property of the transforms, not of the other images in the batch
                large = max(size) * 16
                view = self.encoder.item_tfms[-1].view(large, large).size
                most = (view[0] * view[1] / (size[0] * size[1])) ** 0.5
            else:
                most = min(stored[0] / size[0], stored[1] / size[1])
            taps = min(max(int(most / self.zoom_least + 1e-6), 1), MOST_TAPS) if self.crops or self.changes else 1
            found = Look(size, *self._stats(block), self.padding, taps, self._reach())
            self._looks[stored, ragged, block] = found
        return found

    def _reach(self) -> int:
        blur = max((op.sigma_px for op in self.changes if isinstance(op, textures.Blur)), default=0.0)
        sharp = any(isinstance(op, textures.Sharpen) for op in self.changes)
        return int(np.ceil(3 * np.hypot(blur, textures.SHARPEN_SIGMA_PX if sharp else 0)))

    def _stats(self, block: ImageBlock) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The mean and standard deviation for an image block: a Normalize's, else its own."""
        norms = [t for t in self.transforms if isinstance(t, Normalize)]
        mean, std = (norms[-1].mean, norms[-1].std) if norms else (block.mean, block.std)
        if len(mean) != block.channels or len(std) != block.channels:
            raise ConfigError(f"Normalize has {len(mean)} channels, the images have {block.channels}")
        return mean, std

    def per_image(self, device: torch.device, stored: tuple[int, int]) -> bool:
        """Whether images are rendered one by one (`render`): photos on a CPU are, all else is processed by batch."""
        size = self.out_size(stored)
        return self.has_image and device.type == "cpu" and size[0] * size[1] >= SMALL

    def pixels(self, value: Tensor, drawn: Drawn, extents: Tensor | None, block: ImageBlock) -> Tensor:
        """Returns images as the model takes them, float32 (B, C, H, W), from uint8 (B, H, W, C).

        Args:
            value: The images; where their sizes differ each at the top left.
            drawn: The parameters.
            extents: int32 (B, 2): their own heights and widths where they differ, or None.
            block: The block whose normalisation to use.
        """
        common, device = (value.shape[1], value.shape[2]), value.device
        look = self.look(common, block, ragged=extents is not None)
        if self.per_image(device, common):
            out = torch.empty(len(value), *look.size, value.shape[3])
            sides = extents.tolist() if extents is not None else [common] * len(value)
            render([value[i, :h, :w].numpy() for i, (h, w) in enumerate(sides)], drawn, look, out.numpy())
            return out.permute(0, 3, 1, 2)
        if kernel.serves(value, drawn):
            return kernel.develop(value, drawn, look, extents=extents, dtype=self.dtype)
        dtype = torch.float32 if device.type == "cpu" else self.dtype
        return pixels.develop(value, drawn, look, extents=extents, dtype=dtype)

    def render(self, images: Sequence[np.ndarray], drawn: Drawn, stored: tuple[int, int], out: Tensor) -> None:
        """Renders images one by one on the CPU, directly from the cache, into a float batch.

        Args:
            images: uint8 (H, W, C) each.
            drawn: Their parameters.
            stored: (height, width) of the images in pixels, the output size where there is no crop.
            out: float32 (B, H, W, C), overwritten completely.
        """
        render(images, drawn, self.look(stored, cast(ImageBlock, self.encoder.image_block)), out.numpy())

    # Whole batches

    def __call__(self, batch: Batch, epoch_seed: EpochSeed, train: bool, mixing: bool = True) -> Batch:
        """Returns the batch as the model takes it, on its present device.

        Args:
            batch: A batch as a loader gathers it: images uint8 (B, H, W, C).
            epoch_seed: The seed and the epoch.
            train: Whether to augment; else centre crops only.
            mixing: Whether samples may be mixed with each other (not in test-time augmentation).

        Returns:
            Images float32 (B, C, H, W), normalised, channels last in memory; masks, boxes and points moved alike.
        """
        image = self.encoder.image_block
        if image is not None:
            fields = _as_tuple(batch.x) + _as_tuple(batch.y)
            value: Tensor = fields[self.encoder.blocks.index(image)]
            common = (value.shape[1], value.shape[2])
            ids, sizes = cast(Tensor, batch.ids), common if batch.extents is None else batch.extents
            drawn = self.draw(ids, sizes, epoch_seed, train)
            made = self.pixels(value, drawn, batch.extents, image)
            batch = self.place(batch, made, drawn, common)
        return self.finished(batch, epoch_seed, train, mixing)

    def place(self, batch: Batch, image: Tensor, drawn: Drawn, stored: tuple[int, int]) -> Batch:
        """Returns a batch with its (first) image replaced and all other spatial fields moved alike.

        Args:
            batch: A batch as a loader gathers it.
            image: The rendered images, float32 (B, C, H, W).
            drawn: The parameters that the images were rendered with.
            stored: (height, width) of the stored images in pixels.
        """
        fields = _as_tuple(batch.x) + _as_tuple(batch.y)
        first = self.encoder.blocks.index(self.encoder.image_block)
        moved = [
            image if i == first else self._moved(block, value, drawn, stored, batch.extents)
            for i, (block, value) in enumerate(zip(self.encoder.blocks, fields, strict=False))
        ]
        return self._batch(batch, moved)

    def _batch(self, batch: Batch, fields: list[Any]) -> Batch:
        inputs = self.encoder.n_inp
        return replace(batch, x=_as_field(fields[:inputs]), y=_as_field(fields[inputs:]), extents=None)

    def finished(self, batch: Batch, epoch_seed: EpochSeed, train: bool, mixing_too: bool) -> Batch:
        """Returns the batch after the stages and spectral operations, and after mixing where that is requested."""
        if self.line:
            batch = self._staged(batch, epoch_seed, train)
        if train and self.mosaics and mixing_too:
            size, draws = (batch.x.shape[2], batch.x.shape[3]), self.mosaics[0]
            pieces = mosaic.draw(batch, draws, lambda op, ids: self.numbers(op, ids, epoch_seed), size)
            batch = mosaic.composed(batch, pieces, self.encoder.y_blocks, self.min_visibility)
        elif train and self.mixes and mixing_too:
            image = self.targets[0] == Target.IMAGE
            size = (batch.x.shape[2], batch.x.shape[3]) if image else None
            how = mixing.draw(batch, self.mixes, lambda op, ids: self.numbers(op, ids, epoch_seed), size)
            least = self.min_visibility
            batch = mixing.mixed(batch, how, self.encoder.y_blocks, blends=self.blends, min_visibility=least)
        return batch

    def _staged(self, batch: Batch, epoch_seed: EpochSeed, train: bool) -> Batch:
        """The batch after each stage and, in training, each spectral operation, in their order."""
        fields = list(_as_tuple(batch.x) + _as_tuple(batch.y))
        targets = [block.target for block in self.encoder.blocks[: len(fields)]]
        extents: Tensor | None = None
        for step in self.line:
            for i, target in enumerate(targets):
                if isinstance(step, Stage) and target == step.takes:
                    targets[i] = step.gives
                    fields[i], own = step.apply(fields[i])
                    extents = own if extents is None else extents
                elif train and isinstance(step, spectral.Spectral) and target == Target.SPECTROGRAM:
                    numbers = self.numbers(step, cast(Tensor, batch.ids), epoch_seed)
                    fields[i] = spectral.change(fields[i], step, *numbers)
        return replace(self._batch(batch, fields), extents=extents)

    def _moved(self, block: Block, value: Any, drawn: Drawn, stored: tuple[int, int], own: Tensor | None) -> Any:
        if block.target == Target.IMAGE:
            return self.pixels(value, drawn, own, cast(ImageBlock, block))
        if not drawn.moves:
            return value
        size = self.out_size(stored)
        if block.target == Target.MASK:
            fill = cast("MaskBlock | InstanceBlock", block).void or 0
            look = Look(size, (), (), self.padding)
            if self.per_image(value.device, stored):
                return render_masks(value, drawn, look, own, fill)
            return geometry.resample_mask(value, drawn, look, extents=own, fill=fill)
        source = stored if own is None else own
        if block.target == Target.POINTS:
            return geometry.move_points(value, drawn, source, size)
        if block.target == Target.BOXES:
            things: dict[str, Tensor] = value.values
            boxes, share, around = geometry.move_boxes(things["boxes"], drawn, source, size, things.get("outlines"))
            moved = {**things, "boxes": boxes, **({} if around is None else {"outlines": around})}
            return Padded(moved, value.valid & (share >= max(self.min_visibility, 1e-6)))
        return value


def with_operation(drawn: Drawn, op: Operation, numbers: Tensor, chosen: Tensor, size: tuple[int, int]) -> Drawn:
    """Returns the parameters with one more operation, for the samples where it is chosen.

    Args:
        drawn: The parameters without it.
        op: The operation; not a crop.
        numbers: Its uniform numbers, float64 (B, k).
        chosen: bool (B,).
        size: (height, width) of the output in pixels.
    """
    if isinstance(op, Move):
        step = torch.where(chosen[:, None, None], op.matrix(numbers, size), _eye(3, numbers))
        return replace(drawn, matrix=step if drawn.matrix is None else geometry.compose(drawn.matrix, step))
    if isinstance(op, Colour):
        step = torch.where(chosen[:, None, None], op.colour(numbers), _eye(4, numbers)[:, :3])
        before = None if drawn.colour is None else drawn.colour
        return replace(drawn, colour=step if before is None else colours.chain(before, step))
    if isinstance(op, moves.Elastic):
        return replace(drawn, field=(op.field(numbers) * chosen[:, None, None, None]).to(torch.float32))
    if isinstance(op, textures.Erase):
        return replace(drawn, erase=op.box(numbers, chosen, size))
    strength = (cast(textures.Texture, op).strength(numbers) * chosen).to(torch.float32)
    return replace(drawn, **{op.name: strength})


def _scaled(scale: Tensor, shift: Tensor) -> Tensor:
    """Matrices (B, 3, 3) that multiply (x, y) by (B, 2) and add (B, 2)."""
    matrix = torch.zeros(len(scale), 3, 3, dtype=scale.dtype)
    matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, 2, 2] = scale[:, 0], scale[:, 1], 1
    matrix[:, :2, 2] = shift
    return matrix


def _eye(side: int, like: Tensor) -> Tensor:
    """One identity (1, side, side) in the type of another tensor, made on its device."""
    return torch.eye(side, dtype=like.dtype, device=like.device)[None]


def _as_tuple(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def _as_field(values: list[Any]) -> Any:
    return None if not values else values[0] if len(values) == 1 else tuple(values)
