"""From an item to tensors: the one code path that the loader, `check()` and the predictor share.

Floor: blocks; may import text and below. Used by: augment, store, data, task, deploy, applications.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import pandas as pd

from common.blocks.batch import Value
from common.blocks.block import PLANAR, Block, Target
from common.blocks.content import is_file
from common.blocks.item_transforms import ItemTransform, RandomCrop, View
from common.blocks.spatial import ImageBlock
from common.errors import ConfigError, CookbookError, DataError, ItemError, nearest


@dataclass(frozen=True)
class SampleEncoder:
    """The fitted blocks and item transforms of a DataBlock.

    Attributes:
        blocks: One fitted block per field, inputs first.
        n_inp: How many of them are inputs.
        item_tfms: The deterministic transforms; the last one decides the view.
        names: The name of each field; after its block's kind when empty.
    """

    blocks: tuple[Block, ...]
    n_inp: int = 1
    item_tfms: tuple[ItemTransform, ...] = ()
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.n_inp <= len(self.blocks):
            raise ConfigError(f"n_inp must lie in [1, {len(self.blocks)}], got {self.n_inp}")
        object.__setattr__(self, "names", tuple(self.names) or default_names(self.blocks))
        if len(self.names) != len(self.blocks) or len(set(self.names)) < len(self.names):
            raise ConfigError(f"names must give each of the {len(self.blocks)} blocks one of its own, got {self.names}")

    def inputs_of(self, raws: Sequence[Any] | pd.DataFrame) -> list[Sequence[Any]]:
        """Returns one sequence of raw values per input field, from inputs as people give them.

        Args:
            raws: One entry per input: its raw value; where there are several input fields (user and item, image and
                question) a mapping by the fields' names, or a tuple in their order. A frame gives them by its columns.

        Raises:
            DataError: naming the input and the field that it lacks.
        """
        names = self.names[: self.n_inp]
        if isinstance(raws, pd.DataFrame) and self.x_blocks[0].target != Target.COLUMNS:
            frame: Any = raws
            for name in names:
                if name not in frame.columns:
                    raise DataError(f"the table has no column {name!r}: {nearest(name, map(str, frame.columns))}")
            return [frame[name].tolist() for name in names]
        if self.n_inp == 1 and (self.x_blocks[0].target == Target.COLUMNS or not _all_name(raws, names[0])):
            return [cast("Sequence[Any]", raws)]
        found = [_by_name(raw, names, i) for i, raw in enumerate(raws)]
        return [[values[field] for values in found] for field in range(self.n_inp)]

    @property
    def x_blocks(self) -> tuple[Block, ...]:
        """The blocks of the inputs."""
        return self.blocks[: self.n_inp]

    @property
    def y_blocks(self) -> tuple[Block, ...]:
        """The blocks of the targets."""
        return self.blocks[self.n_inp :]

    @property
    def image_block(self) -> ImageBlock | None:
        """The first block that is an image, or None."""
        return cast("ImageBlock | None", next((b for b in self.blocks if b.target == Target.IMAGE), None))

    def axes(self, block: Block) -> int:
        """Returns how many leading axes of a block's values differ in length from item to item."""
        if block.target in PLANAR:
            return 2 if self.item_tfms and self.item_tfms[-1].ragged else 0
        return 1 if block.ragged else 0

    def batch_crop(self) -> RandomCrop | None:
        """Returns the random crop that an item transform leaves to the batch, or None."""
        found = [crop for crop in (t.batch_crop() for t in self.item_tfms) if crop is not None]
        return found[-1] if found else None

    def view(self, size: tuple[int, int]) -> View:
        """Returns the view that is stored of a source image of (height, width) pixels; all without item transforms."""
        return _view(self.item_tfms[-1], *size) if self.item_tfms else View((0, 0, size[1], size[0]), size)

    def encode(
        self, raws: Sequence[Any], name: str | Callable[[], str], *, skip: Sequence[bool] = ()
    ) -> tuple[list[Value | None], tuple[int, int] | None]:
        """Encodes the raw values of one item's fields (inputs alone are enough for prediction).

        Args:
            raws: One raw value per block, in order; fewer encode only the first fields.
            name: The item's name for errors, or a function that returns it.
            skip: Which fields are already encoded; their entries in the result are None.

        Returns:
            One encoded value per field, and the source image's (height, width) in pixels, or None without an image.

        Raises:
            ItemError: naming the item, the stage and the reason.
        """
        opened: list[Any] = []
        size: tuple[int, int] | None = None
        stage, at, raw, from_file = "open", "", None, False
        try:
            there = skip or [False] * len(raws)
            for block, raw, known in zip(self.blocks, raws, there, strict=False):
                at, from_file = type(block).__name__, block.from_file
                opened.append(None if known else block.open(raw))
                if size is None and not known:
                    size = block.extent(opened[-1])
                if size is not None and not known and block.target in PLANAR:
                    own = block.extent(opened[-1]) or (opened[-1].height, opened[-1].width)
                    if own != size:
                        raise DataError(f"it has {own[0]} x {own[1]} pixels, the image {size[0]} x {size[1]}")
            view = None
            if size is not None and self.item_tfms:
                stage, at = "view", type(self.item_tfms[-1]).__name__
                view = self.view(size)
            values: list[Value | None] = []
            for block, value, given, known in zip(self.blocks, opened, raws, there, strict=False):
                stage, at, raw, from_file = "encode", type(block).__name__, given, block.from_file
                values.append(None if known else block.encode(value, view))
        except (CookbookError, OSError, ValueError, TypeError, KeyError, IndexError) as error:
            if isinstance(error, ItemError):
                raise
            item, reason = name if isinstance(name, str) else name(), str(error) or type(error).__name__
            if raw is not raws[0] and is_file(raw, from_file):  # a second file of the item, such as its mask
                reason = f"{raw}: {reason}"
            raise ItemError(item, f"{stage} of {at}", reason) from error
        return values, size

    def spec(self) -> dict[str, Any]:
        """Returns blocks and item transforms as JSON-ready data."""
        from common.spec import to_spec

        return {
            "blocks": [block.spec() for block in self.blocks],
            "n_inp": self.n_inp,
            "names": list(self.names),
            "item_tfms": [to_spec(transform) for transform in self.item_tfms],
        }

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> "SampleEncoder":
        """Rebuilds it from `spec`, every field checked.

        Raises:
            ConfigError: for an unknown kind or a field of the wrong type, naming which.
        """
        from common.spec import coerce, from_spec

        blocks = [from_spec("block", b, f"blocks[{i}]") for i, b in enumerate(_list(spec, "blocks"))]
        tfms = [from_spec("item_transform", t, f"item_tfms[{i}]") for i, t in enumerate(_list(spec, "item_tfms"))]
        names = coerce(spec.get("names", []), tuple[str, ...], "names")  # bundles of schema 1 have none
        return cls(tuple(blocks), coerce(spec.get("n_inp"), int, "n_inp"), tuple(tfms), names)


def default_names(blocks: Sequence[Block]) -> tuple[str, ...]:
    """Returns a name for each block after its kind, numbered where there are several of one.

    Examples:
        >>> from common.blocks.block import CategoryBlock, RegressionBlock
        >>> default_names([CategoryBlock(), CategoryBlock(), RegressionBlock()])
        ('category', 'category_2', 'number')
    """
    kinds = [str(getattr(block, "registered_name", type(block).__name__)) for block in blocks]
    return tuple(k if kinds[:i].count(k) == 0 else f"{k}_{kinds[:i].count(k) + 1}" for i, k in enumerate(kinds))


def _all_name(raws: Sequence[Any] | pd.DataFrame, name: str) -> bool:
    """Whether every input is a mapping with the name of the one input field."""
    return len(raws) > 0 and all(isinstance(raw, Mapping) and name in raw for raw in raws)


def _by_name(raw: Any, names: Sequence[str], place: int) -> list[Any]:
    if isinstance(raw, Mapping):
        given: Mapping[str, Any] = raw
        for name in names:
            if name not in given:
                raise DataError(f"input {place} has no {name!r}: {nearest(name, map(str, given))}")
        return [given[name] for name in names]
    if not isinstance(raw, (tuple, list)) or len(raw) != len(names):
        raise DataError(f"input {place} must be a mapping with {', '.join(names)}, or as many values, got {raw!r:.60}")
    return list(raw)


@lru_cache(4096)
def _view(transform: ItemTransform, height: int, width: int) -> View:
    """A transform's view of a source size, cached: the photos of a data set often share a few sizes."""
    return transform.view(height, width)


def _list(spec: dict[str, Any], name: str) -> list[Any]:
    value = spec.get(name)
    if not isinstance(value, list):
        raise ConfigError(f"{name} must be a list, got {type(value).__name__}")
    return value
