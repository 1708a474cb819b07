"""Reading data for segmentation: images and masks of the same name, in common layouts; embedded scenes of digits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from applications.segmentation.classes import Classes, find_classes, named_classes
from common.blocks.spatial import IMAGE_ENDINGS, MaskBlock
from common.errors import DataError, nearest
from common.sources.items import get_files
from common.sources.source import PART_NAMES, Source
from common.vision.scenes import NAMES, Scene, embedded_scenes

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "photos", "frames")
MASK_FOLDERS = ("masks", "mask", "segmentationclass", "labels", "label", "segmentation", "annotations", "gt")
LIST_FOLDERS = ("", "ImageSets/Segmentation", "splits")
MASK_SUFFIXES = ("_mask", "-mask", "_label", "_labels", "_gt", "_seg", "_l", "_p")
"""Common lower-case suffixes of mask names after the image's name."""
SCENES = (1000, 150, 150)
SCENE_SIZE = (96, 96)
MOST_DIGITS = 6  # per scene: with more of them an epoch has more training signal


class Pair(NamedTuple):
    """An image and its mask.

    Attributes:
        name: Its name for people: the image's path.
        image: The image's file.
        mask: The mask's file, or None where there is none.
        looked: The folder in which the mask was searched.
    """

    name: str
    image: Path
    mask: Path | None
    looked: Path


@dataclass(frozen=True)
class SegmentationSource(Source):
    """Images with masks, as a DataBlock takes them.

    Attributes:
        items: The items.
        get_x: Returns an item's image.
        get_y: Returns an item's mask.
        parts: ``train``, ``valid`` or ``test`` of each item, or None where the source has no split.
        kind: The recognised format, in words.
        notes: What a person should know of how the data was read: what was guessed, and what was passed over.
        codes: The names of the classes, in the order of their ids.
        ignore: The value in the masks that losses and metrics ignore, or None.
        values: The pixel value of each class, where that is not its position.
        colors: The colour of each class, for masks that are colour images.
        mirrored: Whether mirroring an image preserves its classes (not so for digits).
    """

    codes: tuple[str, ...] = ()
    ignore: int | None = None
    values: tuple[int, ...] = ()
    colors: tuple[tuple[int, int, int], ...] = ()
    mirrored: bool = True

    def block(self) -> MaskBlock:
        """Returns the block that encodes the masks."""
        return MaskBlock(self.codes, self.ignore, self.values, self.colors)


def read_source(
    path: str | Path | None, *, classes: str | Sequence[str] | None = None, ignore: int | None = None
) -> SegmentationSource:
    """Returns the images, masks and classes of a source, with its layout inferred.

    Args:
        path: A folder with ``images/`` and ``masks/`` (or ``labels/``, ``annotations/``; Pascal VOC's ``JPEGImages/``
            and ``SegmentationClass/``), or with train, valid and test folders above or below these; split lists
            (``train.txt``, ``val.txt``, ``test.txt``) where there are some. None: the embedded scenes.
        classes: The names of the classes in the order of their ids, separated by commas or as a list. Without it they
            come from ``codes.txt`` or ``classes.txt``, a colour table, or the values of the training masks.
        ignore: The ignored value in the masks (with a colour table: the row of that class, from 0).

    Raises:
        DataError: if the path does not exist or holds no such pairs; the message lists what was looked for.
    """
    if path is None:
        return scene_source()
    root, found = Path(path), read_pairs(path)
    training = [pair.mask for i, pair in enumerate(found.items) if found.parts is None or found.parts[i] == "train"]
    if not training:
        raise DataError(f"{root} has no training images, whose masks tell the classes: found {found.kind}")
    masks = [mask for mask in training if mask is not None]
    voc = bool(masks) and any(part.lower() == "segmentationclass" for part in masks[0].relative_to(root).parts)
    if classes is not None:
        names = classes.split(",") if isinstance(classes, str) else list(classes)
        known = named_classes([name.strip() for name in names], masks, ignore, voc)
    else:
        known = find_classes(root, masks, ignore, voc)
    return _with(found, known)


def _with(found: Source, known: Classes) -> SegmentationSource:
    kind = f"{found.kind}; {len(known.codes)} classes from {known.origin}"
    return SegmentationSource(
        found.items, found.get_x, found.get_y, found.parts, kind, known.codes, known.ignore, known.values, known.colors,
        notes=found.notes,
    )  # fmt: skip


def read_pairs(path: str | Path) -> Source:
    """Returns the images and masks of a folder with their parts, without inferring classes; see `read_source`.

    Args:
        path: The folder.

    Raises:
        DataError: if it holds no images with masks, or a split list names a missing image.
    """
    root = Path(path)
    if not root.exists():
        raise DataError(f"{root} does not exist")
    if not root.is_dir():
        raise DataError(f"{root} is a file: name the folder that holds images/ and masks/")
    divided = [place for place in sorted(root.iterdir()) if place.is_dir() and place.name.lower() in PART_NAMES]
    divided = [place for place in divided if _folder(place, IMAGE_FOLDERS) is not None]
    pairs: list[Pair] = []
    parts: list[str] = []
    for place in divided or [root]:
        found, below = _pairs_of(place)
        pairs += found
        parts += [PART_NAMES[place.name.lower()]] * len(found) if divided else below
    if not any(pair.mask is not None for pair in pairs):
        raise DataError(f"{pairs[0].image} has no mask in {pairs[0].looked}, nor has any other image: {_NAMING}")
    known = np.array(parts) if all(parts) else None
    kind = "folders of parts" if known is not None else "images and masks"
    if known is None:
        pairs, known = _listed(root, pairs)
        kind = kind if known is None else f"{kind} with split lists"
    return Source(pairs, _image, _mask, known, f"{kind}: {len(pairs)} images")


_NAMING = "a mask has its image's name (with another ending, or _mask behind it)"


def _folder(root: Path, names: Sequence[str]) -> Path | None:
    """The first of some folder names that exists, ignoring case."""
    here = {place.name.lower(): place for place in sorted(root.iterdir()) if place.is_dir()}
    return next((here[name] for name in names if name in here), None)


def _pairs_of(root: Path) -> tuple[list[Pair], list[str]]:
    """The pairs below one folder, and the part of each where there are part folders below images/ (else '')."""
    images, masks = _folder(root, IMAGE_FOLDERS), _folder(root, MASK_FOLDERS)
    if images is None or masks is None:
        wanted, names = ("images/", IMAGE_FOLDERS) if images is None else ("masks/", MASK_FOLDERS)
        here = ", ".join(sorted(place.name + "/" for place in root.iterdir() if place.is_dir())[:8])
        raise DataError(f"{root} has no folder {wanted} (also: {', '.join(names)}): found {here or 'no folder'}")
    photos, drawn = _by_key(images), _by_key(masks)
    if not photos:
        raise DataError(f"{images} holds no images")
    pairs = [Pair(str(file), file, _match(key, drawn), masks) for key, file in photos.items()]
    return pairs, [PART_NAMES.get(key.split("/")[0].lower(), "") if "/" in key else "" for key in photos]


def _by_key(folder: Path) -> dict[str, Path]:
    """Image files by their path below a folder, without the ending."""
    found: dict[str, Path] = {}
    for file in get_files(folder, IMAGE_ENDINGS):
        key = file.relative_to(folder).with_suffix("").as_posix()
        if key in found:
            raise DataError(f"{file} and {found[key].name} have one name: which of them belongs to the mask?")
        found[key] = file
    return found


def _match(key: str, drawn: dict[str, Path]) -> Path | None:
    if key in drawn:
        return drawn[key]
    for suffix in MASK_SUFFIXES:
        for written in (suffix, suffix.upper()):
            if key + written in drawn:
                return drawn[key + written]
    return None


def _listed(root: Path, pairs: list[Pair]) -> tuple[list[Pair], np.ndarray | None]:
    """The pairs that the split lists name, and their parts; all of them and None where there is no list."""
    folder = _folder(root, IMAGE_FOLDERS)
    by_key = {pair.image.relative_to(folder or root).with_suffix("").as_posix(): i for i, pair in enumerate(pairs)}
    stems = {key.rsplit("/", 1)[-1]: i for key, i in by_key.items()}
    place: dict[int, tuple[str, str]] = {}
    lists = [file for below in LIST_FOLDERS for file in sorted((root / below).glob("*.txt"))]
    lists = [file for file in lists if file.stem.lower() in PART_NAMES]
    for file in lists:
        part = PART_NAMES[file.stem.lower()]
        for number, line in enumerate(_lines(file), 1):
            if not line.strip():
                continue
            where = f"{file}, line {number}"
            at = _named(line, by_key, stems)
            if at is None:
                name = line.strip()
                raise DataError(f"{where}: {name!r} is no image of {folder}: {nearest(name, stems)}")
            if at in place and place[at][0] != part:
                raise DataError(
                    f"{where}: {pairs[at].image.name} is in {place[at][1]} too: no image may be in two parts"
                )
            place[at] = part, where
    if not place:
        return pairs, None
    if not any(part == "train" for part, _ in place.values()):  # only what is held out is listed
        place = {i: place.get(i, ("train", "")) for i in range(len(pairs))}
    rows = sorted(place)
    return [pairs[row] for row in rows], np.array([place[row][0] for row in rows])


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as a list of names: {error}") from error


def _named(line: str, by_key: dict[str, int], stems: dict[str, int]) -> int | None:
    """The image on a line of a split list: with or without folders and ending, optionally followed by its mask."""
    for text in (line.strip(), line.split()[0]):
        name = text.replace("\\", "/")
        short = name.rsplit("/", 1)[-1]
        cut = short.rsplit(".", 1)[0] if f".{short.rsplit('.', 1)[-1].lower()}" in IMAGE_ENDINGS else short
        for table, key in ((by_key, name), (stems, short), (stems, cut)):
            if key in table:
                return table[key]
    return None


def _image(item: Pair) -> Path:
    return item.image


def _mask(item: Pair) -> Path:
    if item.mask is None:
        raise DataError(f"it has no mask in {item.looked}: {_NAMING}")
    return item.mask


def scene_source(
    counts: tuple[int, int, int] = SCENES, seed: int = 0, size: tuple[int, int] = SCENE_SIZE
) -> SegmentationSource:
    """Returns scenes of handwritten digits on photos with their masks, which need no network.

    Args:
        counts: The numbers of training, validation and test scenes.
        seed: Random seed.
        size: (height, width) of each, in pixels.
    """
    items, parts = embedded_scenes(*counts, seed=seed, size=size, most=MOST_DIGITS)
    codes = ("background", *NAMES)
    return SegmentationSource(
        items, _scene_pixels, _scene_mask, parts, f"embedded scenes: {len(items)} images", codes, mirrored=False
    )


def _scene_pixels(item: Scene) -> np.ndarray:
    return item.pixels


def _scene_mask(item: Scene) -> np.ndarray:
    return item.mask
