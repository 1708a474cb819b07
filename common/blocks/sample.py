"""From an item to tensors: the one path that the loader, `check()` and the predictor all walk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from common.blocks.batch import Value
from common.blocks.block import Block
from common.blocks.content import is_file
from common.blocks.item_transforms import ItemTransform, RandomCrop, View
from common.errors import ConfigError, CookbookError, DataError, ItemError


@dataclass(frozen=True)
class SampleEncoder:
    """The fitted blocks and item transforms of a DataBlock.

    Attributes:
        blocks: One fitted block a field, inputs first.
        n_inp: How many of them are inputs.
        item_tfms: The deterministic transforms; the last one that gives a view decides.
    """

    blocks: tuple[Block, ...]
    n_inp: int = 1
    item_tfms: tuple[ItemTransform, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.n_inp <= len(self.blocks):
            raise ConfigError(f"n_inp must lie in [1, {len(self.blocks)}], got {self.n_inp}")

    @property
    def x_blocks(self) -> tuple[Block, ...]:
        """The blocks of the inputs."""
        return self.blocks[: self.n_inp]

    @property
    def y_blocks(self) -> tuple[Block, ...]:
        """The blocks of the targets."""
        return self.blocks[self.n_inp :]

    @property
    def image_block(self) -> Block | None:
        """The first block that is an image, or None."""
        return next((b for b in self.blocks if b.target == "image"), None)

    def axes(self, block: Block) -> int:
        """Returns how many leading axes of a block's values differ in length from item to item."""
        if block.target in ("image", "mask"):
            return 2 if self.item_tfms and self.item_tfms[-1].ragged else 0
        return 1 if block.ragged else 0

    def batch_crop(self) -> RandomCrop | None:
        """Returns the random crop that an item transform leaves to the batch, or None."""
        found = [crop for crop in (t.batch_crop() for t in self.item_tfms) if crop is not None]
        return found[-1] if found else None

    def view(self, size: tuple[int, int]) -> View:
        """Returns what is kept of a source image of (height, width) pixels; all of it without item transforms."""
        return _view(self.item_tfms[-1], *size) if self.item_tfms else View((0, 0, size[1], size[0]), size)

    def encode(
        self, raws: Sequence[Any], name: str | Callable[[], str], *, lazy_only: bool = False
    ) -> tuple[list[Value | None], tuple[int, int] | None]:
        """Encodes the raw values of one item's fields (inputs alone are enough for prediction).

        Args:
            raws: One raw value a block, in order; fewer encode only the first fields.
            name: The item as a person knows it, for errors (or what tells it).
            lazy_only: Skip the eager blocks (their values were encoded at once); those entries are None.

        Returns:
            One encoded value a field, and the source image's (height, width) in pixels, or None without an image.

        Raises:
            ItemError: naming the item, the stage and the reason.
        """
        opened: list[Any] = []
        size: tuple[int, int] | None = None
        stage, at, raw, from_file = "open", "", None, False
        try:
            for block, raw in zip(self.blocks, raws, strict=False):
                at, from_file = type(block).__name__, block.from_file
                skip = lazy_only and block.eager
                opened.append(None if skip else block.open(raw))
                if size is None and not skip:
                    size = block.extent(opened[-1])
                if size is not None and not skip and block.target in ("image", "mask"):
                    own = block.extent(opened[-1]) or (opened[-1].height, opened[-1].width)
                    if own != size:
                        raise DataError(f"it has {own[0]} x {own[1]} pixels, the image {size[0]} x {size[1]}")
            view = None
            if size is not None and self.item_tfms:
                stage, at = "view", type(self.item_tfms[-1]).__name__
                view = self.view(size)
            values: list[Value | None] = []
            for block, value, given in zip(self.blocks, opened, raws, strict=False):
                stage, at, raw, from_file = "encode", type(block).__name__, given, block.from_file
                values.append(None if lazy_only and block.eager else block.encode(value, view))
        except (CookbookError, OSError, ValueError, TypeError, KeyError, IndexError) as error:
            if isinstance(error, ItemError):
                raise
            item, reason = name if isinstance(name, str) else name(), str(error) or type(error).__name__
            if raw is not raws[0] and is_file(raw, from_file):  # another file of the item, such as its mask
                reason = f"{raw}: {reason}"
            raise ItemError(item, f"{stage} of {at}", reason) from error
        return values, size

    def spec(self) -> dict[str, Any]:
        """Returns blocks and item transforms as JSON-ready data."""
        from common.spec import to_spec

        return {
            "blocks": [block.spec() for block in self.blocks],
            "n_inp": self.n_inp,
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
        return cls(tuple(blocks), coerce(spec.get("n_inp"), int, "n_inp"), tuple(tfms))


@lru_cache(4096)
def _view(transform: ItemTransform, height: int, width: int) -> View:
    """The view that a transform gives of a source of a size; photos of a set often have the same few sizes."""
    return transform.view(height, width)


def _list(spec: dict[str, Any], name: str) -> list[Any]:
    value = spec.get(name)
    if not isinstance(value, list):
        raise ConfigError(f"{name} must be a list, got {type(value).__name__}")
    return cast("list[Any]", value)
