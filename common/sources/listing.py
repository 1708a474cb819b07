"""Which files lie below a folder, and which were passed over for what reason.

Floor: sources; may import blocks and below. Used by: deploy, applications.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import DataError

HIDDEN = "hidden"
UNREADABLE = "folders that cannot be read"
MET = "links to folders that are listed anyway"
MOST_NAMED = 8  # reasons that are said one by one


@dataclass(frozen=True)
class Listing:
    """The files below a folder.

    Attributes:
        files: Those with the endings that were asked for, sorted.
        passed_over: The others, by the reason.
    """

    files: list[Path]
    passed_over: dict[str, list[Path]] = field(default_factory=dict[str, list[Path]])

    def notes(self) -> tuple[str, ...]:
        """Returns what was passed over as a sentence; nothing where nothing was."""
        return (self.words(),) if self.passed_over else ()

    def words(self) -> str:
        """Returns what was passed over in words; empty where nothing was."""
        kinds = sorted(self.passed_over.items(), key=lambda kind: (-len(kind[1]), kind[0]))
        named = [f"{len(files):,} {reason} (such as {min(files).name})" for reason, files in kinds[:MOST_NAMED]]
        if more := sum(len(files) for _, files in kinds[MOST_NAMED:]):
            named.append(f"{more:,} more")
        return f"passed over: {', '.join(named)}" if named else ""


def list_files(
    path: str | Path, endings: Iterable[str] | None = None, recurse: bool = True, folders: Iterable[str] = ()
) -> Listing:
    """Returns the files under a folder, sorted, without hidden ones; links to folders elsewhere are followed.

    Args:
        path: The folder.
        endings: Of the files to keep (``.jpg``, ``.csv.gz``), in any case; None keeps all.
        recurse: Whether to go into folders inside it.
        folders: Names of first-level folders to go into; empty: all.

    Raises:
        DataError: if the folder does not exist or is a file.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{root} is {'a file, not a folder' if root.exists() else 'not there'}")
    wanted = None if endings is None else tuple(ending.lower() for ending in endings)
    only, seen = set(folders), [os.path.realpath(root)]
    found, passed = list[Path](), dict[str, list[Path]]()

    def pass_over(reason: str, place: str, name: str = "") -> None:
        passed.setdefault(reason, []).append(Path(place, name))

    for place, inner, names in os.walk(
        root, followlinks=True, onerror=lambda error: pass_over(UNREADABLE, str(error.filename))
    ):
        for name in inner:
            if name.startswith(".") and recurse:
                pass_over(f"{HIDDEN} folders", place, name)
        inner[:] = sorted(name for name in inner if not name.startswith(".")) if recurse else []
        for name in [name for name in inner if os.path.islink(os.path.join(place, name))]:
            if not _leads_out(place, name, seen):
                pass_over(MET, place, name)
                inner.remove(name)
        if only and Path(place) == root:
            inner[:], names = [name for name in inner if name in only], []
        for name in names:
            if name.startswith("."):
                pass_over(f"{HIDDEN} files", place, name)
            elif wanted is None or name.lower().endswith(wanted):
                found.append(Path(place, name))
            else:
                ending = os.path.splitext(name)[1].lower()
                pass_over(f"{ending} files" if ending else "files without an ending", place, name)
    return Listing(sorted(found), passed)


def _leads_out(place: str, name: str, seen: list[str]) -> bool:
    """Whether a link leads to a folder that is not visited otherwise, so that following it makes no cycle.

    If so, the folder is added to ``seen``.
    """
    target, here = os.path.realpath(os.path.join(place, name)), os.path.realpath(place)
    met = os.path.commonpath([target, here]) == target or any(os.path.commonpath([target, s]) == s for s in seen)
    if not met:
        seen.append(target)
    return not met
