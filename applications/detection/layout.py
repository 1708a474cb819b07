"""Folder layouts of boxes and images: the image and the part of an annotation, and which JSON files hold boxes."""

import re
from collections.abc import Iterable, Sequence
from html import unescape
from pathlib import Path, PurePosixPath

from PIL import Image

from common.blocks.decode import FORMATS
from common.blocks.spatial import IMAGE_ENDINGS
from common.errors import DataError, nearest
from common.sources.items import get_files
from common.sources.source import PART_NAMES

ANNOTATION_FOLDERS = ("annotations", "annotation", "labels", "xml", "xmls")
IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img", "photos", "")
"""Lower-case names of image folders next to a folder of annotations; empty: their parent folder itself."""
INSTANCES, ROBOFLOW = "instances", "_annotations.coco.json"
OTHER_TASKS = ("captions", "person_keypoints", "panoptic", "stuff", "image_info")
"""Prefixes of COCO's files for other tasks, which hold no boxes or not all."""
JSON_DEPTH = 3  # the most path components of a JSON file below the data set's folder
TRIED = 20  # the number of images that are looked for to find the image folder
_ORIENTATION, _QUARTER_TURNS = 0x0112, (5, 6, 7, 8)
_FILENAME = re.compile(rb"<filename>\s*(.*?)\s*</filename>", re.DOTALL)
_PART_WORD = re.compile(r"([a-z]+)\d*")


class ImageFinder:
    """Finds an annotation's image: by its ``<filename>``, else by its own name; each folder is listed once.

    Args:
        root: The folder of the data set.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: dict[Path, dict[str, Path]] = {}
        self._stems: dict[Path, dict[str, list[Path]]] = {}
        self._places: dict[Path, list[Path]] = {}

    def find(self, annotation: Path) -> tuple[Path, str]:
        """Returns an annotation's image, and an error message (empty: no error).

        Args:
            annotation: The XML file.
        """
        places = self.places(annotation.parent)
        stated, stem = _stated_name(annotation), annotation.stem
        by_name = next((self._files[p][stated] for p in places if stated in self._files[p]), None)
        by_stem = next((self._stems[p][stem] for p in places if stem in self._stems[p]), [])
        if by_name is None and not by_stem:
            name = stated or f"{stem}.jpg"
            looked = " and ".join(str(place) for place in places)
            return places[0] / name, f"{annotation}: its image {name} is missing (looked in {looked})"
        if by_name is None and len(by_stem) > 1:
            return by_stem[0], f"{annotation}: which is its image, {' or '.join(p.name for p in by_stem)}?"
        if by_name is not None and by_stem and by_name not in by_stem:
            return by_stem[0], (
                f"{annotation}: its <filename> names {stated}, but {by_stem[0].name} is there too: rename the "
                "annotation, or correct <filename>"
            )
        return by_name or by_stem[0], ""

    def places(self, folder: Path) -> list[Path]:
        """Returns the folders that may hold the images of a folder of annotations, the most likely first.

        Args:
            folder: The folder of the annotations.
        """
        if folder not in self._places:
            below, found = folder.relative_to(self.root).parts, list[Path]()
            at = next((i for i, part in enumerate(below) if part.lower() in ANNOTATION_FOLDERS), None)
            if at is not None:
                above, rest = self.root.joinpath(*below[:at]), below[at + 1 :]
                beside = {place.name.lower(): place for place in above.iterdir() if place.is_dir()} | {"": above}
                named = [beside[name] for name in IMAGE_FOLDERS if name in beside]
                found = [place.joinpath(*rest) for place in named] + named
            held = [place for place in dict.fromkeys([*found, folder]) if self._list(place)]
            self._places[folder] = held or [folder]
        return self._places[folder]

    def _list(self, place: Path) -> bool:
        """Lists the images of a folder; returns whether it has any."""
        if place not in self._files:
            inside = sorted(place.iterdir()) if place.is_dir() else []
            images = [f for f in inside if f.suffix.lower() in IMAGE_ENDINGS and not f.name.startswith(".")]
            self._files[place] = {file.name: file for file in images}
            self._stems[place] = {}
            for file in images:
                self._stems[place].setdefault(file.stem, []).append(file)
        return bool(self._files[place])

    def images(self) -> dict[str, Path]:
        """Returns every image in the folders listed so far, by its name without ending."""
        return {stem: files[0] for place in self._stems.values() for stem, files in place.items()}


def _stated_name(annotation: Path) -> str:
    """The last path component of ``<filename>``, by a text search, so that invalid XML does not matter here."""
    try:
        with open(annotation, "rb") as stream:
            found = _FILENAME.search(stream.read(4096))
    except OSError:
        return ""
    return "" if found is None else re.split(r"[/\\]", unescape(found.group(1).decode("utf-8", "replace")))[-1]


def read_lists(folder: Path, known: Iterable[str]) -> dict[str, str]:
    """Returns the part of each name in the split lists of a folder; nothing where there are no lists.

    It reads ``train``, ``val`` and ``test``; ``trainval`` only where there is neither of the first two. A name may have
    its ending; a second column of 1, 0 and -1 (as in VOC's lists of one class) is ignored. Where no list names training
    items, they are those that are in no list.

    Args:
        folder: ``ImageSets/Main``.
        known: The existing names, without ending.

    Raises:
        DataError: naming list and line, for an unknown name, or one that is listed twice.
    """
    lists = {file.stem.lower(): file for file in sorted(folder.glob("*.txt"))}
    parts = {name: PART_NAMES[name] for name in lists if name in PART_NAMES}
    if "trainval" in lists and not {"train", "valid"} & set(parts.values()):
        parts["trainval"] = "train"
    names, found, origin = set(known), dict[str, str](), dict[str, str]()
    for stem, part in parts.items():
        try:
            lines = lists[stem].read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{lists[stem]}: cannot be read as a list of names: {error}") from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{lists[stem]}, line {number}"
            name = _listed(line.strip(), names)
            if name is None:
                raise DataError(f"{where}: there is no {line.strip()!r:.60}: {nearest(line.strip(), names)}")
            if name in found:
                raise DataError(f"{where}: {name!r} is in {origin[name]} too: an item is in one part, once")
            found[name], origin[name] = part, where
    if found and "train" not in found.values():
        found |= dict.fromkeys(names - found.keys(), "train")
    return found


def _listed(line: str, names: set[str]) -> str | None:
    """The name on a line: as written, without its ending, or without its second column."""
    columns = re.fullmatch(r"(.*\S)\s+(?:-1|0|1)", line)
    for text in (line, *(columns.groups() if columns else ())):
        if text in names:
            return text
        if Path(text).suffix.lower() in {*IMAGE_ENDINGS, ".xml"} and Path(text).stem in names:
            return Path(text).stem
    return None


def part_of(path: Path) -> tuple[str, str]:
    """Returns the part that a relative path names and the word that names it; both empty where there is none.

    Args:
        path: Relative to the data set's folder.

    Examples:
        >>> part_of(Path("annotations/instances_val2017.json"))
        ('valid', 'val2017')
    """
    for piece in (path.name.split(".")[0], *reversed(path.parts[:-1])):
        for word in re.split(r"[^A-Za-z0-9]+", piece):
            letters = _PART_WORD.fullmatch(word.lower())
            if letters and letters.group(1) in PART_NAMES:
                return PART_NAMES[letters.group(1)], word
    return "", ""


def find_instances(root: Path) -> list[Path]:
    """Returns the JSON files of a folder that hold COCO's boxes: ``instances_*``, else Roboflow's, else any such.

    Args:
        root: The folder; its JSON files may be up to two folders deep.
    """
    files = [file for file in get_files(root, {".json"}) if len(file.relative_to(root).parts) <= JSON_DEPTH]
    for chosen in (
        [file for file in files if file.name.lower().startswith(INSTANCES)],
        [file for file in files if file.name == ROBOFLOW],
    ):
        if chosen:
            return chosen
    return [file for file in files if not file.name.lower().startswith(OTHER_TASKS) and _has_boxes(file)]


def _has_boxes(file: Path) -> bool:
    """Whether a file contains COCO's keys; it is then read as a COCO file, so that damage in it is reported."""
    try:
        data = file.read_bytes()
    except OSError:
        return False
    return all(word in data for word in (b'"images"', b'"annotations"'))


class CocoImages:
    """Maps a ``file_name`` of a COCO file to its image, in the folder where most of them exist.

    Args:
        root: The folder of the data set.
        file: The JSON file.
        names: The names in it, of which some are looked for.
        folder: The folder of the images, if the user named it.

    Attributes:
        places: The folders that were searched, the chosen one first.
    """

    def __init__(self, root: Path, file: Path, names: Sequence[str], folder: Path | None = None) -> None:
        word = part_of(file.relative_to(root))[1]
        beside = [root / word, root / "images" / word, root / word / word, root / word / "images"] if word else []
        likely = [*beside, file.parent, file.parent / "images", root / "images", root]
        places = [folder] if folder is not None else list(dict.fromkeys(likely))
        tried = names[:: max(1, len(names) // TRIED)][:TRIED]
        ways = [(place, whole) for place in places for whole in (True, False)]
        hits = [sum((place / _relative(name, whole)).is_file() for name in tried) for place, whole in ways]
        best, self._whole = ways[hits.index(max(hits))]
        self.places = [best, *(place for place in places if place != best and place.is_dir())]

    def path(self, name: str) -> Path:
        """Returns where the image of a ``file_name`` (``name``) is, or would be.

        Args:
            name: The ``file_name`` in the JSON file.
        """
        return self.places[0] / _relative(name, self._whole)


def _relative(name: str, whole: bool) -> str:
    """A ``file_name`` relative to the images' folder: as it is if it stays inside, else its last component."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.name if not whole or path.is_absolute() or ".." in path.parts or ":" in path.parts[0] else str(path)


def image_size(path: Path) -> tuple[int, int] | None:
    """Returns (height, width) of an image in pixels as used in training, from its header alone.

    Args:
        path: The image; its EXIF orientation is applied.

    Returns:
        None where the header cannot be read; opening the image then reports why.
    """
    try:
        Image.init()
        with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) in _QUARTER_TURNS
    except Exception:  # any error of Pillow on a damaged header
        return None
    return (width, height) if turned else (height, width)
