"""The catalogue: cards of public data sets (TOML), read and checked.

Floor: catalogue; may import train and below. Used by: recipes.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

from common.errors import ConfigError, DataError, nearest

DOMAINS = ("classification", "detection", "segmentation", "audio", "nlp", "captioning", "tabular", "collab")
Library = Literal["torchvision", "torchaudio", "sklearn"]
LIBRARIES: tuple[Library, ...] = ("torchvision", "torchaudio", "sklearn")
PARTS = ("train", "valid", "test")
ARCHIVE_ENDINGS = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

Way = Library | Literal["url", "by hand"]


@dataclass(frozen=True, kw_only=True)
class Licence:
    """A data set's licence.

    Attributes:
        name: Its name, or ``none stated``.
        asks: Its conditions, in words.
        spdx: Its SPDX identifier, where there is one.
    """

    name: str
    asks: str
    spdx: str | None = None


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file of a set on the web.

    Attributes:
        address: Its http or https address.
        form: Its format, in words.
        sha256: Its hash, 64 hexadecimal digits; without it the file is not fetched.
        size_bytes: Its exact size, where known.
        unpack: Whether to unpack it.
    """

    address: str
    form: str = ""
    sha256: str | None = None
    size_bytes: int | None = None
    unpack: bool = False

    @property
    def file_name(self) -> str:
        """The name that the file gets on disk: the last part of the address's path."""
        return PurePosixPath(urlsplit(self.address).path).name


@dataclass(frozen=True, kw_only=True)
class Card:
    """A public data set's description, and how to fetch it.

    Attributes:
        key: The name that users type: the card's file name without its ending.
        name: Its title.
        domain: The domains that it is for, the main one first.
        summary: One sentence.
        source: Its page on the web.
        licence: Its licence.
        input: A description of one item.
        counts: The number of items in each of its parts.
        citation: The publication to cite.
        notes: Known pitfalls.
        files: Its files on the web.
        library: ``torchvision``, ``torchaudio`` or ``sklearn`` where one of them can fetch it.
        loader: The class or function of that library.
        parts: The loader's arguments for each of train, valid and test.
        download_mb: The size of the download in 10^6 bytes, where known; 0: the library ships it.
        debian: A Debian package that contains it.
        data: The path for a recipe's ``--data``, relative to the set's folder, where the files need no conversion.
        recipe: The recipe that reads it; by default its first domain.
    """

    key: str
    name: str
    domain: tuple[str, ...]
    summary: str
    source: str
    licence: Licence
    input: str = ""
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    citation: str = ""
    notes: str = ""
    files: tuple[RemoteFile, ...] = ()
    library: Library | None = None
    loader: str | None = None
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    download_mb: float | None = None
    debian: str | None = None
    data: str | None = None
    recipe: str = ""

    @property
    def way(self) -> Way:
        """How it is fetched: by a library's own loader, from its address, or by hand."""
        if self.library is not None:
            return self.library
        return "url" if self.files and all(file.sha256 for file in self.files) else "by hand"

    @property
    def megabytes(self) -> float | None:
        """The size of the download in 10^6 bytes, where the card states it."""
        if self.download_mb is None and self.files and all(file.size_bytes for file in self.files):
            return sum(file.size_bytes or 0 for file in self.files) / 1e6
        return self.download_mb


_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("name", "summary", "source", "input", "notes", "target", "debian", "data", "recipe"), str),
    **dict.fromkeys(LIBRARIES, str),
    **dict.fromkeys(("counts", "licence", "citation", "reference", "parts"), dict),
    **dict.fromkeys(("domain", "files"), list),
    "classes": (int, list),
    "download_mb": (int, float),
}
_FILE_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("address", "form", "sha256", "sha256_from"), str),
    "size_bytes": int,
    "unpack": bool,
}
_LICENCE_KINDS: dict[str, type | tuple[type, ...]] = dict.fromkeys(("name", "spdx", "asks"), str)
_NEEDED = ("name", "domain", "summary", "source", "licence")


def cards_folder() -> Path:
    """Returns the folder of the cards: ``datasets`` in the source tree, else in the installed package.

    Raises:
        DataError: if there is neither.
    """
    root = Path(__file__).resolve().parents[2]
    if (root / "pyproject.toml").is_file() and (root / "datasets").is_dir():
        return root / "datasets"
    try:
        installed = metadata.files("applications-cookbook") or []
    except metadata.PackageNotFoundError:
        installed = []
    for entry in installed:
        if entry.suffix == ".toml" and entry.parts[-3:-1] == ("applications-cookbook", "datasets"):
            folder = Path(str(entry.locate())).resolve().parent
            if folder.is_dir():
                return folder
    raise DataError(
        "the cards of the data sets are not installed: no folder datasets lies beside the code, and the package "
        "brought none (install it again)"
    )


def read_card(path: Path) -> Card:
    """Returns a card.

    Args:
        path: Its TOML file.

    Raises:
        DataError: if it is not TOML, lacks a field, or has an unknown field or an invalid value; the message names the
            file and the field.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is not TOML: {error}") from error
    where = str(path)
    _check_kinds(where, content, _KINDS, _NEEDED)
    _check_kinds(f"{where}: licence", content["licence"], _LICENCE_KINDS, ("name", "asks"))
    if wrong := [d for d in content["domain"] if d not in DOMAINS] or not content["domain"]:
        raise DataError(f"{where}: domain must name some of {', '.join(DOMAINS)}, got {wrong or 'none'}")
    if bad := [n for n, v in content.get("counts", {}).items() if not isinstance(v, int) or v <= 0]:
        raise DataError(f"{where}: counts.{bad[0]} must be a whole number above 0, got {content['counts'][bad[0]]!r}")
    named: list[Library] = [library for library in LIBRARIES if library in content]
    if len(named) > 1:
        raise DataError(f"{where}: {' and '.join(named)} both fetch it: keep one")
    data = content.get("data")
    if data is not None and (PurePosixPath(data).is_absolute() or ".." in PurePosixPath(data).parts):
        raise DataError(f"{where}: data must lie below the set's folder, got {data!r}")
    files = tuple(_read_file(where, i, entry) for i, entry in enumerate(content.get("files", [])))
    if len({file.file_name for file in files}) < len(files):
        raise DataError(f"{where}: two of its files have one name")
    return Card(
        key=path.stem,
        licence=Licence(**content["licence"]),
        domain=tuple(content["domain"]),
        citation=content.get("citation", {}).get("text", ""),
        files=files,
        library=named[0] if named else None,
        loader=content[named[0]] if named else None,
        parts=_read_parts(where, content.get("parts", {}), bool(named)),
        recipe=content.get("recipe", content["domain"][0]),
        **{name: content[name] for name in _PLAIN if name in content},
    )


_PLAIN = ("name", "summary", "source", "input", "counts", "notes", "download_mb", "debian", "data")


def _check_kinds(
    where: str, content: Any, kinds: Mapping[str, type | tuple[type, ...]], needed: tuple[str, ...]
) -> None:
    if not isinstance(content, dict):
        raise DataError(f"{where} must be a table, got {content!r}")
    for name, value in content.items():
        if name not in kinds:
            raise DataError(f"{where}: there is no field {name!r}: {nearest(name, kinds)}")
        if not isinstance(value, kinds[name]) or (isinstance(value, bool) and kinds[name] is not bool):
            raise DataError(f"{where}: {name} has a value of the wrong kind: {value!r}")
    for name in needed:
        if not content.get(name):
            raise DataError(f"{where}: the field {name!r} is missing")


def _read_file(where: str, i: int, entry: Any) -> RemoteFile:
    where = f"{where}: files[{i}]"
    _check_kinds(where, entry, _FILE_KINDS, ("address",))
    address = urlsplit(entry["address"])
    if address.scheme not in ("http", "https") or not address.netloc:
        raise DataError(f"{where}: address must begin with http:// or https://, got {entry['address']!r}")
    if "sha256" in entry and not re.fullmatch("[0-9a-f]{64}", entry["sha256"]):
        raise DataError(f"{where}: sha256 must be 64 digits of 0-9a-f, got {entry['sha256']!r}")
    known = {name: value for name, value in entry.items() if name != "sha256_from"}
    file = RemoteFile(**{"unpack": address.path.lower().endswith(ARCHIVE_ENDINGS), **known})
    if not re.fullmatch(r"[\w.+-]*\w[\w.+-]*", file.file_name):
        raise DataError(f"{where}: address must end in a file name, got {entry['address']!r}")
    return file


def _read_parts(where: str, parts: Mapping[str, Any], library: bool) -> dict[str, dict[str, Any]]:
    if parts and not library:
        raise DataError(f"{where}: parts are what a library's loader is called with, and no library is named")
    for part, arguments in parts.items():
        plain = isinstance(arguments, dict) and all(isinstance(value, (str, int)) for value in arguments.values())
        if part not in PARTS or not plain:
            raise DataError(f"{where}: parts.{part} must be one of {', '.join(PARTS)} and hold plain arguments")
    return {part: dict(parts[part]) for part in parts}


def read_cards(folder: Path | None = None) -> dict[str, Card]:
    """Returns every card by its key, in alphabetical order.

    Args:
        folder: The folder of the cards (default: `cards_folder`).

    Raises:
        DataError: if there are none, or one of them is invalid.
    """
    home = cards_folder() if folder is None else folder
    cards = {path.stem: read_card(path) for path in sorted(home.glob("*.toml"))}
    if not cards:
        raise DataError(f"{home} holds no cards (*.toml)")
    return cards


def find_card(key: str, folder: Path | None = None) -> Card:
    """Returns one card.

    Args:
        key: Its file name without the ending, such as ``flowers``.
        folder: The folder of the cards (default: `cards_folder`).

    Raises:
        ConfigError: if there is none of that name; the message lists similar ones.
    """
    cards = read_cards(folder)
    if key not in cards:
        raise ConfigError(
            f"there is no data set {key!r}: {nearest(key, cards)} (cookbook data list tells of each of them)"
        )
    return cards[key]
