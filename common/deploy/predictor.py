"""The predictor: from a raw input to a plain record, by the same code path as in training.

Floor: deploy; may import show and below. Used by: train, vision, applications.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from common.augment.pipeline import BatchPipeline
from common.blocks.block import Target
from common.blocks.sample import SampleEncoder
from common.data.loader import Loader, LoaderOptions
from common.deploy.bundle import Bundle, load
from common.deploy.domain import Domain, domain_of, find_domain
from common.errors import ConfigError, DataError, ItemError, one_of
from common.sources.items import Items, item_name
from common.sources.source import Source
from common.store.dirty import DirtyPolicy, Failure
from common.store.store import SampleStore
from common.task.evaluate import collect
from common.task.task import Outputs, Record, Task

SAMPLES, PIXELS, ROWS = 64, 64 * 224 * 224, 4096
"""The default batch size: at most so many samples or pixels in a batch of images, so many rows of a table."""


class Predictor:
    """Predicts from raw inputs (a path, bytes, a PIL image; a row) with a bundle or a trained model.

    Args:
        bundle: A bundle's folder, or a loaded `Bundle`.
        device: The device that the model runs on.

    Raises:
        BundleError: if the bundle is damaged.

    Examples:
        ``Predictor("runs/flowers/bundle")("photo.jpg")`` returns ``{"label": …, "probabilities": {…}}``.
    """

    def __init__(self, bundle: str | Path | Bundle, device: str | torch.device = "cpu") -> None:
        loaded = bundle if isinstance(bundle, Bundle) else load(bundle, device)
        self.bundle: Bundle | None = loaded
        self._set(loaded.model, loaded.task, loaded.encoder, loaded.pipeline, torch.device(device))
        self._reading = loaded.reading

    def _set(
        self, model: nn.Module, task: Task, encoder: SampleEncoder, pipeline: BatchPipeline, device: torch.device
    ) -> None:
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[reportCallIssue]
        self.task, self.encoder, self.pipeline, self.device = task, encoder, pipeline, device
        self._reading: Any = None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        task: Task,
        encoder: SampleEncoder,
        pipeline: BatchPipeline,
        device: torch.device,
        reading: Any = None,
    ) -> "Predictor":
        """Returns a predictor of a model in memory."""
        predictor = cls.__new__(cls)
        predictor.bundle = None
        predictor._set(model, task, encoder, pipeline, device)
        predictor._reading = reading
        return predictor

    @property
    def domain(self) -> Domain:
        """The domain of the model and the task."""
        return find_domain(domain_of(self.model, self.task) if self.bundle is None else self.bundle.domain)

    @property
    def reading(self) -> Any:
        """The options with which the training data was read; the domain's defaults where none were stored."""
        return self.domain.options() if self._reading is None else self._reading

    @property
    def vocab(self) -> list[str]:
        """The categories, in order; empty where the target has none."""
        for block in self.encoder.y_blocks:
            vocab: tuple[str, ...] = getattr(block, "vocab", ())
            if vocab:
                return list(vocab)
        return []

    def loader(
        self,
        raws: Sequence[Sequence[Any]],
        names: Sequence[Any] | pd.DataFrame,
        *,
        batch_size: int | None = None,
        on_error: str = "raise",
    ) -> Loader:
        """Returns a loader over raw values: one sequence per field, inputs alone or inputs and targets.

        Args:
            raws: One sequence of raw values per field.
            names: The items, for errors; a frame's rows are named by its index.
            batch_size: Samples per batch; None: 64, fewer where images are larger than 224 x 224 (the same number of
                pixels), 4096 rows of columns.
            on_error: ``raise``, or ``skip`` to leave out items that cannot be read.
        """
        rows = range(len(names))
        listed = [item_name(names, row) for row in rows] if isinstance(names, pd.DataFrame) else list(names)
        policy = DirtyPolicy(on_error=on_error)
        return self.loader_of(
            SampleStore(self.encoder, raws, listed, rows, cache_bytes=0, policy=policy), rows, batch_size=batch_size
        )

    def loader_of(self, store: SampleStore, rows: Any, *, batch_size: int | None = None) -> Loader:
        """Returns a loader over already encoded items, in their order.

        Args:
            store: A store with this predictor's blocks and item transforms.
            rows: The positions of the items.
            batch_size: Samples per batch; see `loader`.

        Raises:
            ConfigError: if the store encodes in another way than this predictor.
        """
        if store.encoder != self.encoder:
            raise ConfigError("the store's blocks and item transforms are not those of this predictor")
        if batch_size is None:
            store.probe()
            height, width = (1, 1) if store.image_size is None else self.pipeline.evaluation.out_size(store.image_size)
            most = ROWS if all(block.target == Target.COLUMNS for block in self.encoder.x_blocks) else SAMPLES
            batch_size = max(1, min(most, PIXELS // (height * width)))
        return Loader(store, rows, self.pipeline, LoaderOptions(batch_size=batch_size), self.device)

    def outputs(self, raws: Items, *, batch_size: int | None = None) -> Outputs:
        """Returns the model's outputs for raw inputs, in order.

        Args:
            raws: One entry per input; for several input fields a mapping by their names, or a tuple.
            batch_size: Samples per batch; see `loader`.
        """
        fields = self.encoder.inputs_of(raws)
        return collect(self.model, self.loader(fields, raws, batch_size=batch_size), self.task, self.device)

    def predict_many(self, raws: Items, *, batch_size: int | None = None) -> list[Record]:
        """Returns one record for each raw input, in order.

        Args:
            raws: One entry per input: a path, an image, a row; for several input fields (user and item, image and
                question) a mapping by the fields' names, or a tuple in their order.
            batch_size: Samples per batch; see `loader`.

        Raises:
            ItemError: if an input cannot be read, naming it and why.
        """
        return self.outputs(raws, batch_size=batch_size).records(self.task) if len(raws) else []

    def stream(
        self, raws: Items, *, on_error: str = "raise", batch_size: int | None = None
    ) -> Iterator[Record | Failure]:
        """Yields the record of each raw input in order, some dozens at a time, however many there are.

        Args:
            raws: See `predict_many`.
            on_error: ``raise``, or ``skip`` to yield a `Failure` in the place of an input that cannot be read.
            batch_size: Samples per batch; see `loader`.

        Raises:
            ItemError: if an input cannot be read, naming it and why; those before it have been yielded then.
        """
        one_of("on_error", on_error, ("raise", "skip"))
        rows = isinstance(raws, pd.DataFrame)
        for start in range(0, len(raws), ROWS if rows else SAMPLES):
            chosen: Any = raws.iloc[start : start + ROWS] if rows else raws[start : start + SAMPLES]
            loader = self.loader(self.encoder.inputs_of(chosen), chosen, batch_size=batch_size, on_error="skip")
            records: dict[int, Record] = {}
            try:
                outputs = collect(self.model, loader, self.task, self.device)
                ids: Any = outputs.ids
                records = dict(zip(ids.tolist(), outputs.records(self.task), strict=True))
            except DataError:  # no input of these can be read
                if len(loader.store.dirty.by_row) < len(chosen):
                    raise
            failed = loader.store.dirty.by_row
            for row in range(len(chosen)):
                if row not in failed:
                    yield records[row]
                elif on_error == "skip":
                    yield failed[row]
                else:
                    raise ItemError(failed[row].item, failed[row].stage, failed[row].reason)

    def predict(self, raw: Any) -> Record:
        """Returns the record of one raw input.

        Raises:
            DataError: if it is a whole table.
        """
        if isinstance(raw, pd.DataFrame):
            raise DataError(f"predict takes one row, this is a table of {len(raw)}: give it to predict_many")
        return self.predict_many([raw])[0]

    __call__ = predict

    def evaluate(
        self,
        raws: Sequence[Sequence[Any]],
        names: Sequence[Any],
        *,
        batch_size: int | None = None,
        on_error: str = "raise",
    ) -> dict[str, float]:
        """Returns the metrics over raw values (one sequence per field, targets last) by their standard names.

        Args:
            raws: One sequence of raw values per field.
            names: The items, for errors.
            batch_size: Samples per batch; see `loader`.
            on_error: ``raise``, or ``skip`` to leave out items that cannot be read (counted in ``items_left_out``).

        Raises:
            ItemError: if an item or its label cannot be encoded, naming it.
        """
        loader = self.loader(raws, names, batch_size=batch_size, on_error=on_error)
        outputs = collect(self.model, loader, self.task, self.device)
        metrics = self.task.report(outputs)
        left_out = len(loader.store.dirty.failures)
        return {**metrics, "items_left_out": float(left_out)} if left_out else metrics

    def evaluate_source(self, source: Source, part: str | None = None, on_error: str = "raise") -> dict[str, float]:
        """Returns the metrics on one part of a source.

        Args:
            source: The result of a domain's ``read_source``.
            part: ``train``, ``valid`` or ``test``; None: the test part where there is one, else everything.
            on_error: ``raise``, or ``skip`` to leave out items that cannot be read.

        Raises:
            DataError: if the source has no such part, or an item cannot be used.
        """
        raws, names = source.raws(part, on_error)
        return self.evaluate(raws, names, on_error=on_error)


def load_learner(path: str | Path, device: str | torch.device = "cpu") -> Predictor:
    """Returns a predictor from a bundle (the book's name; a bundle is a folder of data, never a pickle).

    Args:
        path: The bundle's folder.
        device: Where the model runs.

    Raises:
        BundleError: if it is not a bundle, or damaged.
    """
    return Predictor(path, device)
