"""Fetches a public data set by its card into a folder, completely or not at all, with a note of origin and licence.

Floor: catalogue; may import train and below. Used by: recipes.
"""

import contextlib
import errno
import inspect
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from common.catalogue.arrange import arrange_images, write_tables
from common.catalogue.cards import Card
from common.catalogue.download import DownloadOptions, download
from common.catalogue.partial import size_text
from common.catalogue.unpack import UnpackLimits, unpack_into
from common.errors import ConfigError, CookbookError, DataError, nearest
from common.files import dump_json, staged_directory, write_text

NOTE = "data-card.json"
_MODULES = {"torchvision": "torchvision.datasets", "torchaudio": "torchaudio.datasets", "sklearn": "sklearn.datasets"}
_EXTRAS = {"torchvision": "classification", "torchaudio": "audio"}
_OURS = {  # arguments that a card may not set
    *("root", "download", "url", "transform", "transforms", "target_transform", "loader"),
    *("data_home", "download_if_missing", "as_frame", "return_X_y", "cache"),
}


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A data set on this machine.

    Attributes:
        folder: Its folder.
        data: The path for a recipe's ``--data``, or None where no recipe reads it as it is.
        fresh: Whether it was fetched now; False: it was there already.
    """

    folder: Path
    data: Path | None
    fresh: bool


def fetch(
    card: Card,
    folder: Path,
    *,
    options: DownloadOptions | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Fetched:
    """Fetches a data set; one that is there already is not fetched again.

    Args:
        card: Its card.
        folder: The target folder; new or empty.
        options: Timeouts, retries and limits; the byte limit applies to the download and to its unpacked size.
        progress: Called with a file's name, its received bytes and its total (or None) as they come.

    Raises:
        ConfigError: if the folder cannot be used, the limit is lower than the download, or a library is not installed.
        DataError: if the set must be fetched by hand, or the download is refused; the folder is then not created.
        OSError: if it cannot be written.
    """
    options = options or DownloadOptions()
    if folder.name in ("", ".."):
        raise ConfigError(f"to={folder} must name a new folder")
    if (present := _present(card, folder)) is not None:
        return present
    if card.way == "by hand":
        raise DataError(by_hand(card))
    if card.megabytes is not None and card.megabytes * 1e6 > options.limit_bytes:
        size = size_text(card.megabytes * 1e6)
        raise ConfigError(f"{card.key} is a download of {size}, limit_gb allows {options.limit_bytes / 1e9:g}")
    missing = [parent for parent in folder.parents if not parent.exists()]
    try:
        if card.library is None:
            data = _from_the_web(card, folder, options, progress or (lambda name, received, total: None))
        else:
            data = _from_a_library(card, folder)
    except BaseException:
        for parent in missing:  # deepest first; stops at one that is not empty, which the next call can resume from
            try:
                parent.rmdir()
            except OSError:
                break
        raise
    return Fetched(folder=folder, data=data, fresh=True)


def by_hand(card: Card) -> str:
    """Returns a sentence on where to find a set that must be fetched by hand.

    Args:
        card: Its card.
    """
    where = " and ".join(file.address for file in card.files) or card.source
    package = f", or install Debian's {card.debian}" if card.debian else ""
    return f"{card.key} is fetched by hand, for its card has no sha256 to check it with: see {where}{package}"


def _origin(card: Card) -> dict[str, Any]:
    if card.library is not None:
        return {"loader": f"{_MODULES[card.library]}.{card.loader}"}
    return {"files": [{"address": file.address, "sha256": file.sha256} for file in card.files]}


def _present(card: Card, folder: Path) -> Fetched | None:
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        note: Any = json.loads((folder / NOTE).read_text("utf-8"))
        same = note["key"] == card.key and note["origin"] == _origin(card)
        data = None if note["data"] is None else folder / note["data"]
        same = same and (data is None or (".." not in data.parts and data.is_relative_to(folder)))
    except (OSError, ValueError, KeyError, TypeError):
        same, data = False, None
    if not same:
        raise ConfigError(f"{folder} exists and does not hold {card.key} as its card has it: name another with --to")
    return Fetched(folder=folder, data=data, fresh=False)


def _write_note(card: Card, folder: Path, data: str | None) -> None:
    licence = {"name": card.licence.name, "spdx": card.licence.spdx, "asks": card.licence.asks}
    about = {"key": card.key, "name": card.name, "source": card.source, "citation": card.citation, "licence": licence}
    write_text(folder / NOTE, dump_json({**about, "origin": _origin(card), "data": data}))


def _from_the_web(
    card: Card, folder: Path, options: DownloadOptions, progress: Callable[[str, int, int | None], None]
) -> Path | None:
    """Downloads into ``FOLDER.download``, which is deleted at the end, or when its content is refused."""
    store = folder.with_name(f"{folder.name}.download")
    limits = UnpackLimits(size_bytes=options.limit_bytes)
    try:
        for file in card.files:
            name = file.file_name
            assert file.sha256 is not None
            download(
                file.address, store / name, sha256=file.sha256, size_bytes=file.size_bytes, options=options,
                progress=lambda received, total, name=name: progress(name, received, total),
            )  # fmt: skip
    except BaseException:
        with contextlib.suppress(OSError):
            store.rmdir()  # only where nothing is kept in it
        raise
    try:
        with staged_directory(folder) as aside:
            for file in card.files:
                kept, target = store / file.file_name, aside
                if not file.unpack:
                    shutil.copyfile(kept, aside / file.file_name)
                    continue
                if len(card.files) > 1:
                    target = aside / file.file_name.split(".")[0]
                    target.mkdir()
                unpack_into(kept, target, limits=limits)
            if card.data is not None and not (aside / card.data).exists():
                raise DataError(f"{card.key}: {card.data}, which its card names, is not among what came")
            _write_note(card, aside, card.data)
    except DataError:
        shutil.rmtree(store, ignore_errors=True)
        raise
    shutil.rmtree(store, ignore_errors=True)
    return None if card.data is None else folder / card.data


def _from_a_library(card: Card, folder: Path) -> Path | None:
    loader = find_loader(card)
    with staged_directory(folder) as aside:
        loaded = {part: _load(card, loader, aside, card.parts[part]) for part in card.parts or ()}
        loaded = loaded or {"": _load(card, loader, aside, {})}
        if card.library == "sklearn":
            data: str | None = write_tables(aside, card.key, loaded)
        elif card.data is not None:
            data = card.data
            for packed in [*aside.rglob("*.gz")]:  # a file and its packed copy would both be read
                if packed.with_suffix("").is_file():
                    packed.unlink()
        else:
            data = arrange_images(aside, loaded)
        if data is not None and not (aside / data).exists():
            raise DataError(f"{card.key}: {data}, which its card names, is not among what {card.library} fetched")
        _write_note(card, aside, data)
    return None if data is None else folder / data


def find_loader(card: Card) -> Callable[..., Any]:
    """Returns the public loader of torchvision, torchaudio or scikit-learn that a card names.

    Args:
        card: A card that names a library.

    Raises:
        ConfigError: if the library is not installed.
        DataError: if it has no such loader, or the loader takes no such arguments.
    """
    assert card.library is not None
    assert card.loader is not None
    try:
        module = import_module(_MODULES[card.library])
    except ImportError as error:
        extra = _EXTRAS.get(card.library)
        remedy = f": pip install 'applications-cookbook[{extra}]'" if extra else ""
        raise ConfigError(f"{card.key} is fetched by {card.library}, which cannot be imported{remedy}") from error
    public: list[str] = [name for name in module.__all__ if not name.startswith("_")]
    if card.library == "sklearn":
        known = [name for name in public if name.startswith(("fetch_", "load_")) and callable(getattr(module, name))]
    else:
        known = [name for name in public if inspect.isclass(getattr(module, name))]
    if card.loader not in known:
        raise DataError(f"{card.key}: {module.__name__} has no loader {card.loader!r}: {nearest(card.loader, known)}")
    loader: Callable[..., Any] = getattr(module, card.loader)
    taken = set(inspect.signature(loader).parameters) - _OURS
    for part, arguments in card.parts.items():
        for name in arguments:
            if name not in taken:
                raise DataError(f"{card.key}: parts.{part}: {card.loader} takes no {name!r}: {nearest(name, taken)}")
    return loader


def _load(card: Card, loader: Callable[..., Any], folder: Path, arguments: Any) -> Any:
    ours: dict[str, Any] = {"root": str(folder), "download": True}
    if card.library == "sklearn":
        ours = {"as_frame": True} if "as_frame" in inspect.signature(loader).parameters else {}
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return loader(**ours, **arguments)
    except CookbookError:
        raise
    except Exception as error:  # each library and server has faults of its own; all are one sentence here
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        text = str(error).strip().splitlines()
        package = f"; Debian's {card.debian} has it too" if card.debian else ""
        raise DataError(
            f"{card.key}: {card.library}'s {card.loader} failed: {text[0] if text else type(error).__name__} "
            f"(its page: {card.source}{package})"
        ) from error
