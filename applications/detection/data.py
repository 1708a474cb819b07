"""Reading data for detection: Pascal VOC folders, COCO files; embedded scenes of digits."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from applications.detection.coco import CocoFile
from applications.detection.layout import (
    ANNOTATION_FOLDERS,
    CocoImages,
    ImageFinder,
    find_instances,
    image_size,
    part_of,
    read_lists,
)
from applications.detection.voc import read_annotation
from common.blocks.objects import Objects
from common.blocks.spatial import IMAGE_ENDINGS
from common.errors import ConfigError, DataError
from common.sources.items import get_files
from common.sources.source import PART_NAMES, Source
from common.vision.scenes import Scene, embedded_scenes

SCENES = (1200, 200, 200)
SCENE_SIZE = (128, 128)


@dataclass(frozen=True)
class DetectionSource(Source):
    """Images with boxes and labels, as a DataBlock takes them.

    Attributes:
        items: The items: the images' paths, or scenes.
        get_x: Returns an item's image.
        get_y: Returns an item's `Objects`; errors in an annotation are raised here, one item at a time.
        parts: ``train``, ``valid`` or ``test`` of each item, or None where the source has no split.
        kind: The recognised format, in words.
        notes: What a person should know of how the data was read: what was guessed, and what was passed over.
        vocab: The classes that the source declares, in its order; empty where it declares none, to be fitted.
        category_ids: The source's own number of each class (COCO's, with gaps); empty: it has none.
        outlined: Whether every box is known to have a shape.
        mirrored: Whether mirroring an image preserves its classes (not so for digits).
    """

    vocab: tuple[str, ...] = ()
    category_ids: Mapping[str, int] | None = None
    outlined: bool = False
    mirrored: bool = True

    def with_masks(self) -> "DetectionSource":
        """Returns the source with two targets: the objects of each image for a BBoxBlock and for an InstanceBlock.

        Raises:
            DataError: if some of the boxes have no shape.
        """
        if not self.outlined:
            raise DataError(f"masks need a shape of every object, and these have none or not all ({self.kind})")
        target = self.get_y if callable(self.get_y) else self.get_y[0]
        return replace(self, get_y=[target, target])

    def numbers(self, vocab: Sequence[str]) -> tuple[int, ...]:
        """Returns the number of each class in records: the source's own, else 1, 2, ….

        Args:
            vocab: The classes, in the order of their ids.

        Raises:
            ConfigError: for a class that the source does not declare though it declares some.
        """
        known = self.category_ids or {name: i for i, name in enumerate(vocab, 1)}
        missing = [name for name in vocab if name not in known]
        if missing:
            raise ConfigError(f"vocab holds {missing[0]!r}, which the source does not declare")
        return tuple(known[name] for name in vocab)


@dataclass(frozen=True)
class VocTarget:
    """Maps an image's path to the objects of its Pascal VOC file.

    Attributes:
        annotations: The XML file of each image.
        faults: The errors of some images' files, found when the folder was read.
        check_sizes: Whether to read the image's own size and compare it with the stated one.
    """

    annotations: Mapping[Path, Path]
    faults: Mapping[Path, str]
    check_sizes: bool = True

    def __call__(self, item: str | Path) -> Objects:
        image = Path(item)
        if image in self.faults:
            raise DataError(self.faults[image])
        if image not in self.annotations:
            raise DataError(f"{image} has no annotation in this source")
        return read_annotation(self.annotations[image], image_size(image) if self.check_sizes else None)


@dataclass(frozen=True)
class CocoTarget:
    """Maps an image's path to its objects in a COCO file.

    Attributes:
        places: For each image, the COCO file and the image's id in it.
        images: For each COCO file, by its path, the locator of its images.
        check_sizes: Whether to read the image's own size and compare it with the stated one.
    """

    places: Mapping[Path, tuple[CocoFile, Any]]
    images: Mapping[Path, CocoImages]
    check_sizes: bool = True

    def __call__(self, item: str | Path) -> Objects:
        image = Path(item)
        if image not in self.places:
            raise DataError(f"{image} has no annotations in this source")
        file, key = self.places[image]
        if not image.is_file():
            looked = " and ".join(str(place) for place in self.images[file.path].places)
            name = file.images[key].file_name
            raise DataError(f"{file.path}: image {key}: its file {name} is missing (looked in {looked})")
        return file.objects(key, image_size(image) if self.check_sizes else None)


def read_source(
    path: str | Path | None,
    *,
    annotations: str | Path | None = None,
    images: str | Path | None = None,
    check_sizes: bool = True,
) -> DetectionSource:
    """Returns the images and boxes of a source, with its format inferred.

    Args:
        path: A Pascal VOC folder (``JPEGImages/``, ``Annotations/``, ``ImageSets/Main/``), a folder of images with XML
            files next to them or in ``images/`` and ``annotations/``, with or without train/valid/test in the path; a
            COCO folder (``annotations/instances_*.json``, or ``train/_annotations.coco.json``), or one COCO file.
            None: the embedded scenes.
        annotations: The COCO file to use, below the folder, where it holds several.
        images: The folder of the COCO file's images, below the folder, where they are not found.
        check_sizes: Whether to read each image's header and compare its size with the annotation's.

    Raises:
        DataError: if the path does not exist or holds none of these (the message lists what was looked for), or a COCO
            file or a split list is invalid.
    """
    if path is None:
        return scene_source()
    root = Path(path)
    if not root.exists():
        raise DataError(f"{root} does not exist")
    if root.is_file():
        if root.suffix.lower() != ".json":
            raise DataError(f"{root} is no COCO file (.json): name that, or the folder that holds images and XML files")
        annotations, root = root.name, root.parent
    within = root
    if root.name.lower() in ANNOTATION_FOLDERS and not any(f.suffix.lower() in IMAGE_ENDINGS for f in root.iterdir()):
        root = root.resolve().parent
    if annotations is None:
        root = _voc_root(root)
        xmls = get_files(root, {".xml"})
        if xmls:
            return _voc(root, xmls, check_sizes)
        files = find_instances(root)
    else:
        files = [file if (file := within.resolve() / annotations).is_file() else root / annotations]
    if not files:
        raise DataError(
            f"{root} holds no boxes: looked for Pascal VOC (*.xml, as in Annotations/) and COCO "
            "(annotations/instances_*.json, train/_annotations.coco.json)"
        )
    return _coco(root, files, None if images is None else root / images, check_sizes)


def _voc_root(root: Path) -> Path:
    """The folder that has the split lists: ``root``, or the only one in it (``VOCdevkit/VOC2007``)."""
    years = [place.parent for place in sorted(root.glob("*/ImageSets"))]
    if (root / "ImageSets").is_dir() or not years:
        return root
    if len(years) > 1:
        raise DataError(
            f"{root} holds several sets with their own split lists: name one of {', '.join(map(str, years))}"
        )
    return years[0]


def _voc(root: Path, xmls: Sequence[Path], check_sizes: bool) -> DetectionSource:
    finder = ImageFinder(root)
    owner: dict[Path, Path] = {}
    faults: dict[Path, str] = {}
    for xml in xmls:
        image, fault = finder.find(xml)
        if image in owner:
            raise DataError(f"{owner[image]} and {xml} are both of the image {image}: an image has one annotation")
        owner[image] = xml
        if fault:
            faults[image] = fault
    bare = {stem: image for stem, image in finder.images().items() if image not in owner}
    by_name = {image.stem: image for image in owner} | {xml.stem: image for image, xml in owner.items()}
    lists = read_lists(root / "ImageSets" / "Main", {**bare, **by_name}) if (root / "ImageSets").is_dir() else {}
    if lists:
        part_by = {(bare | by_name)[name]: part for name, part in lists.items()}
        items = sorted(part_by)
        parts = np.array([part_by[image] for image in items])
        missing = [image for image in items if image not in owner]
        faults |= {image: f"{image} is in a split list and has no annotation {image.stem}.xml" for image in missing}
        rest = len(owner) + len(missing) - len(items)
        kind = f"Pascal VOC folder of {len(items)} images" + (f"; {rest} are in no split list" if rest else "")
    else:
        items, parts = sorted(owner), _parts(root, owner)
        kind = f"folder of {len(items)} images with XML files"
        kind += f"; {len(bare)} images have none and are left out" if bare else ""
    return DetectionSource(items, Path, VocTarget(owner, faults, check_sizes), parts, kind)


def _parts(root: Path, owner: Mapping[Path, Path]) -> np.ndarray | None:
    """The part of each image, in order, by the folders of their annotations; None where these name no parts."""
    found: list[str] = []
    for image in sorted(owner):
        words = [part.lower() for part in owner[image].relative_to(root).parts[:-1]]
        found.append(next((PART_NAMES[word] for word in words if word in PART_NAMES), ""))
    if not any(found):
        return None
    if "" in found:
        stray = owner[sorted(owner)[found.index("")]]
        raise DataError(f"{stray} lies in none of the folders train, valid, test, which {root} has")
    return np.array(found)


def _coco(root: Path, files: Sequence[Path], folder: Path | None, check_sizes: bool) -> DetectionSource:
    part_by = {file: part_of(file.relative_to(root))[0] for file in files}
    doubled = [part for part, count in Counter(part_by.values()).items() if count > 1]
    if doubled:
        same = " and ".join(str(file) for file in files if part_by[file] == doubled[0])
        what = f"the {doubled[0]} part" if doubled[0] else "no part (train, valid, test)"
        raise DataError(f"{same} by their names are {what}: name the one to use with annotations=")
    order = ("train", "valid", "test", "")
    read = [CocoFile.read(file) for file in sorted(files, key=lambda file: order.index(part_by[file]))]
    places: dict[Path, tuple[CocoFile, Any]] = {}
    where: dict[Path, CocoImages] = {}
    parts: list[str] = []
    for file in read:
        names = [image.file_name for image in file.images.values()]
        where[file.path] = CocoImages(root, file.path, names, folder)
        for key, image in file.images.items():
            place = where[file.path].path(image.file_name)
            if place in places:
                other, at = places[place]
                raise DataError(
                    f"{place} is image {at} of {other.path} and image {key} of {file.path}: it is there twice"
                )
            places[place] = file, key
            parts.append(part_by[file.path])
    if not places:
        raise DataError(f"{read[0].path} declares no images")
    numbers = _declared(read)
    kind = f"COCO boxes of {len(places)} images in {', '.join(file.path.name for file in read)}"
    return DetectionSource(
        list(places),
        Path,
        CocoTarget(places, where, check_sizes),
        np.array(parts) if len(read) > 1 else None,
        kind,
        tuple(sorted(numbers, key=lambda name: numbers[name])),
        numbers,
        all(file.outlined for file in read),
    )


def _declared(files: Sequence[CocoFile]) -> dict[str, int]:
    """The categories of all files, which must agree."""
    found: dict[str, int] = {}
    for file in files:
        for name, number in file.category_ids.items():
            if found.setdefault(name, number) != number:
                raise DataError(f"{file.path}: the category {name!r} has id {number}, in {files[0].path} {found[name]}")
    if len(set(found.values())) < len(found):
        raise DataError(f"{' and '.join(str(file.path) for file in files)} give one category id to different names")
    return found


def scene_source(
    counts: tuple[int, int, int] = SCENES, seed: int = 0, size: tuple[int, int] = SCENE_SIZE
) -> DetectionSource:
    """Returns scenes of handwritten digits on photos with their boxes, which need no network.

    Args:
        counts: The numbers of training, validation and test scenes.
        seed: Random seed.
        size: (height, width) of each, in pixels.
    """
    items, parts = embedded_scenes(*counts, seed=seed, size=size)
    kind, vocab = f"embedded scenes: {len(items)} images", tuple(str(digit) for digit in range(10))
    return DetectionSource(items, _pixels, _objects, parts, kind, vocab, outlined=True, mirrored=False)


def _pixels(item: Scene) -> np.ndarray:
    return item.pixels


def _objects(item: Scene) -> Objects:
    return item.objects
