"""Samples of a loader as the model gets them, drawn by their blocks.

Floor: data; may import store and below. Used by: show.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from common.blocks.values import map_tensors
from common.errors import ConfigError
from common.figures import Picture, axes_grid, finish, fit_rows

if TYPE_CHECKING:
    from common.data.loader import Loader


def sample_of(value: Any, index: int) -> Any:
    """Returns one sample of a field of a batch, on the CPU."""
    return map_tensors(value, lambda tensor: tensor[index].cpu())


def fields_of(value: Any) -> tuple[Any, ...]:
    """Returns the values of one side (x or y) of a batch, one per block."""
    return () if value is None else value if isinstance(value, tuple) else (value,)


def draw_fields(axes: Any, blocks: Sequence[Any], values: Sequence[Any]) -> None:
    """Draws each value by its block, one over the other."""
    for block, value in zip(blocks, values, strict=False):
        block.draw(axes, value)


def show_batch(
    loader: "Loader",
    *,
    max_n: int = 9,
    nrows: int | None = None,
    unique: bool = False,
    epoch: int = 0,
    path: Any = None,
) -> Picture:
    """Draws samples of a loader as the model gets them; see `Loader.show_batch`.

    Args:
        loader: A loader that a DataBlock made.
        max_n: The most samples to draw.
        nrows: Rows of the picture; about square when None.
        unique: Draw one sample as augmented in successive epochs.
        epoch: The (first) epoch to draw.
        path: A file to write the picture to.
    """
    if not hasattr(loader, "store"):
        raise ConfigError("show_batch needs a loader that a DataBlock made")
    blocks = loader.store.encoder.blocks
    small = loader.with_options(batch_size=1 if unique else max_n, drop_last=False, world=1, rank=0)
    if unique:
        small = small.with_options(shuffle=False)
        batches = [small.one_batch(epoch + i) for i in range(max_n)]
        samples = [(batch, 0) for batch in batches]
    else:
        batch = small.one_batch(epoch)
        samples = [(batch, i) for i in range(min(max_n, len(batch)))]
    figure, every = axes_grid(len(samples), nrows)
    for axes, (batch, i) in zip(every, samples, strict=True):
        draw_fields(axes, blocks, [sample_of(v, i) for v in fields_of(batch.x) + fields_of(batch.y)])
    fit_rows(figure, every)
    return finish(figure, path)
