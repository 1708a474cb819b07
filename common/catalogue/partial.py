"""A partly downloaded file, from which the next call resumes.

Floor: catalogue; may import train and below. Used by: recipes.
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

from common.errors import DataError
from common.files import dump_json, sync, write_text


def size_text(size_bytes: float) -> str:
    """Returns a size as text, in decimal units.

    Args:
        size_bytes: The size in bytes.

    Examples:
        >>> size_text(228_813_984), size_text(512)
        ('229 MB', '512 bytes')
    """
    if size_bytes < 1000:
        return f"{size_bytes:.0f} bytes"
    for unit, factor in (("kB", 1e3), ("MB", 1e6)):
        if size_bytes < 999.5 * factor:
            return f"{size_bytes / factor:.3g} {unit}"
    return f"{size_bytes / 1e9:,.3g} GB"


class PartialFile:
    """The bytes of a file received so far, with their running hash.

    It is stored in two files next to the target: ``NAME.partial`` (the bytes) and ``NAME.partial.json`` (the address,
    the expected hash, and the server's mark of this version of the file).

    Args:
        target: The path of the complete file.
        url: Its address.
        expected: Its SHA-256.

    Attributes:
        size: The number of bytes received.
        mark: The ETag or date for ``If-Range``, or None.
        ranges: Whether to ask the server for the rest only.
    """

    def __init__(self, target: Path, url: str, expected: str) -> None:
        self.path = target.with_name(f"{target.name}.partial")
        self.note = target.with_name(f"{target.name}.partial.json")
        self.url, self.expected = url, expected
        self.stream = open(self.path, "a+b")  # noqa: SIM115 - closed by partial_file
        self.size, self.hash = 0, hashlib.sha256()
        self.mark: str | None = None
        self.ranges = True

    @property
    def right(self) -> bool:
        """Whether the bytes so far are the complete file."""
        return self.hash.hexdigest() == self.expected

    def go_on(self) -> None:
        """Resumes from the bytes of an earlier call, if it had the same address and hash."""
        try:
            note: Any = json.loads(self.note.read_text("utf-8"))
            same = (note["url"], note["sha256"]) == (self.url, self.expected)
            self.mark = note["mark"] if same and isinstance(note["mark"], str) else None
        except (OSError, ValueError, KeyError, TypeError):
            same = False
        if not same:
            self.restart()
            return
        self.stream.seek(0)
        while data := self.stream.read(1 << 20):
            self.hash.update(data)
            self.size += len(data)

    def restart(self, ranges: bool = True) -> None:
        """Drops the bytes so far; with ``ranges`` False the whole file is requested from now on."""
        self.stream.truncate(0)
        self.size, self.hash, self.mark = 0, hashlib.sha256(), None
        self.ranges = self.ranges and ranges

    def begin(self, headers: Message) -> None:
        """Restarts with the version of the file that these headers describe."""
        self.restart()
        tag = headers.get("ETag", "")
        self.mark = tag if tag.startswith('"') else headers.get("Last-Modified")  # If-Range takes no weak tag (W/)
        write_text(self.note, dump_json({"url": self.url, "sha256": self.expected, "mark": self.mark}))

    def append(self, data: bytes) -> None:
        """Writes received bytes."""
        self.stream.write(data)
        self.hash.update(data)
        self.size += len(data)

    def finish(self, target: Path) -> None:
        """Renames the complete file to its name."""
        self.stream.flush()
        os.fsync(self.stream.fileno())
        self.stream.close()
        os.chmod(self.path, 0o644)
        os.replace(self.path, target)
        self.note.unlink(missing_ok=True)
        sync(target.parent)

    def discard(self) -> None:
        """Removes both files."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


@contextlib.contextmanager
def partial_file(target: Path, url: str, expected: str) -> Iterator[PartialFile]:
    """Yields the partial file of a target, with the bytes of an earlier call; an empty one is deleted afterwards.

    Args:
        target: The path of the complete file.
        url: Its address.
        expected: Its SHA-256.

    Raises:
        DataError: if another process is downloading it, or the disk is full (the received bytes are kept).
        OSError: if it cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = PartialFile(target, url, expected)
    try:
        _lock(part)
        part.go_on()
        try:
            yield part
        finally:
            if part.size == 0:
                part.discard()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            kept = f"; about {size_text(part.size)} have come and are kept in {part.path}" if part.size else ""
            raise DataError(f"{target}: the disk is full: free some space and run again{kept}") from error
        raise
    finally:
        with contextlib.suppress(OSError):  # closing flushes the buffer, which fails again on a full disk
            part.stream.close()


def _lock(part: PartialFile) -> None:
    """Locks the file against other processes; where the system has no such lock, the hash still protects it."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(part.stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        own = os.path.samestat(os.fstat(part.stream.fileno()), os.stat(part.path))
    except (BlockingIOError, FileNotFoundError):
        own = False
    except OSError:  # a file system without locks
        return
    if not own:  # locked by another process, or renamed between our opening and locking it
        raise DataError(f"{part.path}: another process is downloading it")
