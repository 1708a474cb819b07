"""`DataLoaders` holds the loaders of the parts of a split.

Floor: data; may import store and below. Used by: task, show, train, vision, applications.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from common.blocks.batch import Batch
from common.blocks.spatial import ImageBlock
from common.data.loader import Loader
from common.errors import ConfigError
from common.sources.splits import PARTS


class DataLoaders:
    """Holds the loaders of the parts: ``train``, ``valid`` and, where there is one, ``test``.

    Any torch DataLoader is taken as it is; ours add ``show_batch``, blocks and a seed.

    Args:
        loaders: The loaders of train, valid and test, in this order; one at least.

    Examples:
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> data = DataLoader(TensorDataset(torch.zeros(4, 2), torch.zeros(4)), batch_size=2)
        >>> len(DataLoaders(data, data).valid)
        2
    """

    def __init__(self, *loaders: Any) -> None:
        if not loaders:
            raise ConfigError("DataLoaders needs at least a training loader")
        self.loaders = list(loaders)

    def _part(self, index: int, name: str) -> Any:
        if len(self.loaders) <= index or self.loaders[index] is None:
            raise ConfigError(f"these DataLoaders have no {name} part")
        return self.loaders[index]

    def part(self, name: str) -> Any:
        """Returns the loader of a part: ``train``, ``valid`` or ``test``.

        Raises:
            ConfigError: if there is no such part.
        """
        if name not in PARTS:
            raise ConfigError(f"part must be train, valid or test, got {name!r}")
        return self._part(PARTS.index(name), name)

    @property
    def train(self) -> Any:
        """The training loader."""
        return self._part(0, "train")

    @property
    def valid(self) -> Any:
        """The validation loader, for model selection."""
        return self._part(1, "valid")

    @property
    def test(self) -> Any:
        """The loader that is only evaluated, once, at the end."""
        return self._part(2, "test")

    def has(self, part: str) -> bool:
        """Whether there is a ``train``, ``valid`` or ``test`` loader."""
        index = PARTS.index(part)
        return len(self.loaders) > index and self.loaders[index] is not None

    def __getitem__(self, index: int) -> Any:
        return self.loaders[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loaders)

    @property
    def blocks(self) -> tuple[Any, ...]:
        """The fitted blocks.

        Raises:
            ConfigError: if the training loader is not one of ours.
        """
        if not isinstance(self.train, Loader):
            raise ConfigError("blocks are known only to loaders that a DataBlock made")
        return self.train.store.encoder.blocks

    @property
    def channels(self) -> int:
        """The channels of the images.

        Raises:
            ConfigError: if none of the inputs is an image.
        """
        image = next((block for block in self.blocks if isinstance(block, ImageBlock)), None)
        if image is None:
            raise ConfigError("these DataLoaders have no images: an ImageBlock must be among the inputs")
        return image.channels

    @property
    def vocab(self) -> list[str]:
        """The categories of the first target that has some, in order."""
        blocks = self.blocks  # raises a clear error for loaders that a DataBlock did not make
        inputs = int(self.train.store.encoder.n_inp)
        for block in (*blocks[inputs:], *blocks[:inputs]):
            if getattr(block, "vocab", None):
                return list(block.vocab)
        raise ConfigError("no block of these DataLoaders has a vocab")

    @property
    def c(self) -> int:
        """The number of categories."""
        return len(self.vocab)

    def to(self, device: torch.device | str) -> "DataLoaders":
        """Sets the device that our loaders deliver to, and returns self."""
        for loader in self.loaders:
            if isinstance(loader, Loader):
                loader.device = torch.device(device)
        return self

    def share(self, rank: int, world: int) -> None:
        """Sets the process rank on our loaders; each process takes its share of every batch."""
        for loader in self.loaders:
            if isinstance(loader, Loader):
                loader.options = replace(loader.options, rank=rank, world=world)

    def one_batch(self) -> Batch:
        """Returns the first training batch."""
        return Batch.of(next(iter(self.train))) if not isinstance(self.train, Loader) else self.train.one_batch()

    def show_batch(self, max_n: int = 9, nrows: int | None = None, **options: Any) -> Any:
        """Draws training samples as the model gets them; see `Loader.show_batch`."""
        return self.train.show_batch(max_n, nrows, **options)
