"""Reading data for image classification: class folders, tables, idx files; embedded digits."""

import gzip
import math
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from common.blocks.block import CategoryBlock, MultiCategoryBlock
from common.blocks.spatial import IMAGE_ENDINGS, ImageBlock, open_image
from common.data.datablock import DataBlock
from common.data.dataloaders import DataLoaders
from common.errors import ConfigError, DataError, nearest
from common.sources.items import ColReader, RegexLabeller, get_image_files, parent_label, take, using_attr
from common.sources.listing import list_files
from common.sources.source import PART_NAMES, Source
from common.sources.splits import (
    ColSplitter,
    GrandparentSplitter,
    RandomSplitter,
    Split,
    StratifiedSplitter,
)
from common.sources.tables import parts_of, read_table


class Pixels(NamedTuple):
    """An image in memory.

    Attributes:
        name: Its name for people.
        pixels: uint8 (H, W) or (H, W, C).
        label: Its class.
    """

    name: str
    pixels: np.ndarray
    label: str


@dataclass(frozen=True)
class ImageSource(Source):
    """Images with labels, as a DataBlock takes them.

    Attributes:
        items: The items.
        get_x: Returns an item's image.
        get_y: Returns an item's label, or labels.
        parts: ``train``, ``valid`` or ``test`` of each item, or None where the source has no split.
        kind: The recognised format, in words.
        notes: What a person should know of how the data was read: what was guessed, and what was passed over.
        grey: Whether the images are known to have one channel.
        mirrored: Whether mirroring an image preserves its class (not so for digits).
    """

    grey: bool = False
    mirrored: bool = True


def read_source(
    path: str | Path | None,
    *,
    image_column: str = "image",
    label_column: str = "label",
    split_column: str = "split",
    label_delim: str | None = None,
) -> ImageSource:
    """Returns the images and labels of a source, with its format inferred.

    Args:
        path: A folder of class folders (with or without train/valid/test above), a table (CSV, TSV, JSONL, parquet)
            with an image and a label column, a folder of idx files (MNIST's format); None: the embedded digits.
        image_column: The table's column of image paths, relative to the table.
        label_column: The table's column of labels.
        split_column: The table's column of parts, which may be absent.
        label_delim: The delimiter between several labels of one image.

    Raises:
        DataError: if the path does not exist, or holds no images with labels; the message lists what was looked for.
    """
    if path is None:
        return embedded_digits()
    root = Path(path)
    if not root.exists():
        raise DataError(f"{root} does not exist")
    if root.is_file():
        return _table(root, image_column, label_column, split_column, label_delim)
    if any(root.glob("*-images-idx3-ubyte*")):
        return _idx_folder(root)
    return _class_folders(root)


def _class_folders(root: Path) -> ImageSource:
    listing = list_files(root, IMAGE_ENDINGS)
    files = listing.files or get_image_files(root)  # which says what it looked for
    relative = [file.relative_to(root).parts for file in files]
    divided = any(parts[0].lower() in PART_NAMES for parts in relative if len(parts) > 2)
    depth = 1 if divided else 0
    for file, parts in zip(files, relative, strict=True):
        if divided and parts[0].lower() not in PART_NAMES:
            raise DataError(f"{file} lies in none of the folders train, valid, test, which {root} has")
        if len(parts) < depth + 2:
            raise DataError(f"{file} lies in no class folder: {root} must hold one folder a class")
    labels = {file: parts[depth] for file, parts in zip(files, relative, strict=True)}
    found = None if not divided else np.array([PART_NAMES[parts[0].lower()] for parts in relative])
    kind = f"{root}, folder of class folders with {len(files):,} images"
    return ImageSource(files, _identity, labels.__getitem__, found, kind, notes=listing.notes())


def _identity(item: Any) -> Any:
    return item


def _table(path: Path, image: str, label: str, split: str, delim: str | None) -> ImageSource:
    frame = read_table(path)
    for option, column in (("image_column", image), ("label_column", label)):
        if column not in frame.columns:
            known = list(map(str, frame.columns))
            raise DataError(f"{path} has no column {column!r} ({option}): {nearest(column, known)}")
    parts = None
    if split in frame.columns:
        parts = parts_of(frame, split)
    get_y = ColReader(label, label_delim=delim)
    return ImageSource(frame, ColReader(image, pref=path.parent), get_y, parts, f"{path}, table of {len(frame):,} rows")


def read_idx(path: Path) -> np.ndarray:
    """Returns the uint8 array of an idx file (MNIST's format), gzipped or not.

    Raises:
        DataError: if the header is invalid, or the file's length does not match it.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise DataError(f"{path} is not an idx file of bytes (its first bytes are {data[:4]!r})")
    rank = data[3]
    if not 1 <= rank <= 4 or len(data) < 4 + 4 * rank:
        raise DataError(f"{path}: its header is cut, or names {rank} axes")
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    body = np.frombuffer(data, np.uint8, offset=4 + 4 * rank)
    if body.size != math.prod(shape):
        raise DataError(f"{path} holds {body.size} values, its header says {shape}")
    return body.reshape(shape)


def _idx_folder(root: Path) -> ImageSource:
    items: list[Pixels] = []
    parts: list[str] = []
    for prefix, part in (("train", "train"), ("t10k", "test"), ("test", "test")):
        for images_path in sorted(root.glob(f"{prefix}-images-idx3-ubyte*")):
            labels_path = root / images_path.name.replace("images-idx3", "labels-idx1")
            if not labels_path.exists():
                raise DataError(f"{labels_path} is missing beside {images_path.name}")
            images, labels = read_idx(images_path), read_idx(labels_path)
            if len(images) != len(labels):
                raise DataError(f"{images_path} has {len(images)} images, {labels_path.name} {len(labels)} labels")
            items += [
                Pixels(f"{images_path.name}[{i}]", image, str(label))
                for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True))
            ]
            parts += [part] * len(images)
    if not items:
        raise DataError(f"{root} holds no train-images-idx3-ubyte or t10k-images-idx3-ubyte file")
    return ImageSource(
        items, _pixels, _label, np.array(parts), f"{root}, idx files of {len(items):,} images", grey=True
    )


def _pixels(item: Pixels) -> np.ndarray:
    return item.pixels


def _label(item: Pixels) -> str:
    return item.label


def embedded_digits() -> ImageSource:
    """Returns scikit-learn's 1,797 handwritten digits (8x8 pixels, UCI, CC BY 4.0); a fixed fifth is the test part."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)
    names = [str(label) for label in data.target.tolist()]
    items = [Pixels(f"digits[{i}]", image, name) for i, (image, name) in enumerate(zip(images, names, strict=True))]
    test = StratifiedSplitter(0.2, seed=0)(items, names).valid
    parts = np.array(["train"] * len(items))
    parts[test] = "test"
    return ImageSource(
        items, _pixels, _label, parts, f"embedded digits: {len(items):,} images", grey=True, mirrored=False
    )


def baseline(
    raws: Sequence[Any], labels: Sequence[Any], split: Split, part: str, limit: int = 5000
) -> dict[str, float]:
    """Returns the accuracy of two simple baselines on a part: the most frequent class, and 5-NN on grey thumbnails.

    Args:
        raws: The images: paths or arrays.
        labels: One label per image.
        split: The parts.
        part: The part to evaluate on.
        limit: The most training images for the nearest neighbours.
    """
    from sklearn.neighbors import KNeighborsClassifier

    truth = np.array([str(label) for label in labels])
    train, evaluated = split.train, split[part]
    names, counts = np.unique(truth[train], return_counts=True)
    accuracies = {"most_frequent_class": float((truth[evaluated] == names[counts.argmax()]).mean())}
    chosen = np.random.default_rng(0).permutation(train)[:limit]

    def thumbnails(rows: np.ndarray) -> np.ndarray:
        small = [np.asarray(open_image(take(raws, int(r))).convert("L").resize((16, 16))) for r in rows]
        flat = np.stack(small).reshape(len(rows), -1).astype(np.float32)
        return (flat - flat.mean(axis=1, keepdims=True)) / (flat.std(axis=1, keepdims=True) + 1e-3)

    knn = KNeighborsClassifier(min(5, len(chosen))).fit(thumbnails(chosen), truth[chosen])
    accuracies["nearest_thumbnails"] = float((knn.predict(thumbnails(evaluated)) == truth[evaluated]).mean())
    return accuracies


class ImageDataLoaders:
    """The book's short ways to image loaders; each is one DataBlock."""

    @staticmethod
    def from_folder(
        path: str | Path,
        train: str = "train",
        valid: str = "valid",
        valid_pct: float | None = None,
        seed: int | None = None,
        item_tfms: Any = None,
        batch_tfms: Any = None,
        bs: int = 64,
    ) -> DataLoaders:
        """Returns loaders of class folders below ``train`` and ``valid``; split at random where valid_pct is given."""
        splitter = GrandparentSplitter(train, valid) if valid_pct is None else RandomSplitter(valid_pct, seed)
        block = DataBlock(
            blocks=(ImageBlock, CategoryBlock),
            get_items=get_image_files,
            get_y=parent_label,
            splitter=splitter,
            item_tfms=item_tfms,
            batch_tfms=batch_tfms,
        )
        return block.dataloaders(path, bs=bs)

    @staticmethod
    def from_path_func(
        path: str | Path,
        fnames: Sequence[Path],
        label_func: Callable[[Any], Any],
        valid_pct: float = 0.2,
        seed: int | None = None,
        item_tfms: Any = None,
        batch_tfms: Any = None,
        bs: int = 64,
    ) -> DataLoaders:
        """Returns loaders of files, each labelled by a function of its path."""
        block = DataBlock(
            blocks=(ImageBlock, CategoryBlock),
            get_y=label_func,
            splitter=RandomSplitter(valid_pct, seed),
            item_tfms=item_tfms,
            batch_tfms=batch_tfms,
        )
        return block.dataloaders(list(fnames), bs=bs)

    @staticmethod
    def from_name_func(
        path: str | Path,
        fnames: Sequence[Path],
        label_func: Callable[[str], Any],
        valid_pct: float = 0.2,
        seed: int | None = None,
        item_tfms: Any = None,
        batch_tfms: Any = None,
        bs: int = 64,
    ) -> DataLoaders:
        """Returns loaders of files, each labelled by a function of its name."""
        getter = using_attr(label_func, "name")
        return ImageDataLoaders.from_path_func(path, fnames, getter, valid_pct, seed, item_tfms, batch_tfms, bs)

    @staticmethod
    def from_name_re(
        path: str | Path,
        fnames: Sequence[Path],
        pat: str,
        valid_pct: float = 0.2,
        seed: int | None = None,
        item_tfms: Any = None,
        batch_tfms: Any = None,
        bs: int = 64,
    ) -> DataLoaders:
        """Returns loaders of files, each labelled by the first group of a regular expression on its name."""
        labeller = RegexLabeller(pat)
        return ImageDataLoaders.from_name_func(path, fnames, labeller, valid_pct, seed, item_tfms, batch_tfms, bs)

    @staticmethod
    def from_df(
        df: pd.DataFrame,
        path: str | Path = ".",
        valid_pct: float = 0.2,
        seed: int | None = None,
        fn_col: str | int = 0,
        folder: str | None = None,
        suff: str = "",
        label_col: str | int = 1,
        label_delim: str | None = None,
        valid_col: str | None = None,
        item_tfms: Any = None,
        batch_tfms: Any = None,
        bs: int = 64,
    ) -> DataLoaders:
        """Returns loaders of a frame with a column of file names and one of labels (several with label_delim)."""
        many = label_delim is not None
        block = DataBlock(
            blocks=(ImageBlock, MultiCategoryBlock if many else CategoryBlock),
            get_x=ColReader(fn_col, pref=Path(path) / (folder or ""), suff=suff),
            get_y=ColReader(label_col, label_delim=label_delim),
            splitter=RandomSplitter(valid_pct, seed) if valid_col is None else ColSplitter(valid_col),
            item_tfms=item_tfms,
            batch_tfms=batch_tfms,
        )
        return block.dataloaders(df, bs=bs)

    @staticmethod
    def from_csv(path: str | Path, csv_fname: str = "labels.csv", **options: Any) -> DataLoaders:
        """Returns loaders of a CSV file below ``path``; the options are those of `from_df`."""
        table = Path(path) / csv_fname
        if not table.is_file():
            raise ConfigError(f"{table} does not exist")
        return ImageDataLoaders.from_df(read_table(table), path, **options)
