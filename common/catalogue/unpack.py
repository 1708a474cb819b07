"""Safe unpacking of untrusted archives (zip, tar, gz, bz2, xz): completely into a new folder, or not at all.

Only plain files and folders are written, below the folder, with plain permissions. The archive's own statements of
sizes are not trusted: bytes and entries are counted while they are written. Nested archives are not unpacked.

Floor: catalogue; may import train and below. Used by: its own room.
"""

import bz2
import gzip
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.catalogue.partial import size_text
from common.errors import DataError, in_range
from common.files import staged_directory

CHUNK = 1 << 18
HEADER_LIMIT = 1 << 20  # the most bytes of one read by tarfile: a larger header is an attack
BLOCK = 512
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_TAR_NAME = re.compile(r"\.(tar(\.(gz|bz2|xz))?|tgz|tbz2?|txz)$", re.IGNORECASE)
_DAMAGE = (  # what the readers of the standard library raise for damaged bytes
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, LookupError, OverflowError, RecursionError),
)


@dataclass(frozen=True, kw_only=True)
class UnpackLimits:
    """Limits on the content of an archive.

    Attributes:
        size_bytes: The most bytes of all its files.
        ratio: The largest ratio of the unpacked size to the archive's size ...
        ratio_from_bytes: ... which is checked only above this unpacked size.
        entries: The most files and folders.
        depth: The most components of one path within the archive.
        name_bytes: The most bytes of one file's path within the archive.
    """

    size_bytes: int = 20_000_000_000
    ratio: float = 200.0
    ratio_from_bytes: int = 50_000_000
    entries: int = 1_000_000
    depth: int = 32
    name_bytes: int = 1024

    def __post_init__(self) -> None:
        for name in ("size_bytes", "ratio", "entries", "depth", "name_bytes"):
            in_range(name, getattr(self, name), 1, float("inf"))
        in_range("ratio_from_bytes", self.ratio_from_bytes, 0, float("inf"))


def unpack(archive: Path, target: Path, *, limits: UnpackLimits | None = None) -> Path:
    """Unpacks an archive into a new folder, which appears once it is complete.

    Args:
        archive: A zip, a tar (plain, gz, bz2 or xz), or one file packed with gz, bz2 or xz.
        target: The folder, which must not exist.
        limits: The limits on its content.

    Returns:
        The target.

    Raises:
        DataError: if the target exists, or `unpack_into` refuses the archive; nothing is left.
        OSError: if the disk is full or the folder cannot be written; nothing is left.
    """
    if os.path.lexists(target):
        raise DataError(f"{target} exists: {archive} is unpacked into a new folder only")
    with staged_directory(target) as folder:
        unpack_into(archive, folder, limits=limits)
    return target


def unpack_into(archive: Path, folder: Path, *, limits: UnpackLimits | None = None) -> None:
    """Unpacks an archive into an existing folder, which the caller must remove if this fails.

    Args:
        archive: A zip, a tar (plain, gz, bz2 or xz), or one file packed with gz, bz2 or xz.
        folder: The folder, empty.
        limits: The limits on its content.

    Raises:
        DataError: if the archive is damaged, encrypted or of another format; has a path outside the folder, a duplicate
            name, a link or a device; or exceeds the limits. The message names the archive and the entry.
        OSError: if the disk is full or the folder cannot be written.
    """
    writer = _Writer(archive, folder, limits or UnpackLimits())
    with open(archive, "rb") as stream:
        start = stream.read(8)
    try:
        if start.startswith(b"PK"):
            _zip(archive, writer)
        elif opener := next((made for magic, made in _OPENERS.items() if start.startswith(magic)), None):
            _compressed(archive, opener, writer)
        elif _is_tar(archive, open):
            with open(archive, "rb") as stream:
                _tar(stream, writer)
        else:
            raise DataError(f"{archive} is no archive that is read here (zip, tar, gz, bz2, xz)")
    except _DAMAGE as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{archive} is damaged: {error or type(error).__name__}") from error
    except NotImplementedError as error:
        raise DataError(f"{archive} is packed in a way that is not read here: {error}") from error
    except OSError as error:
        if error.errno is None:  # gzip and bz2 report damage as an OSError without a number
            raise DataError(f"{archive} is damaged: {error}") from error
        raise
    if not writer.files:
        raise DataError(f"{archive} holds no files")


class _Writer:
    """Writes entries below a folder, checks their names and counts their bytes."""

    def __init__(self, archive: Path, folder: Path, limits: UnpackLimits) -> None:
        self.archive, self.folder, self.limits = archive, folder, limits
        self.packed = archive.stat().st_size
        self.size = self.entries = self.files = 0

    def refuse(self, name: str, reason: str) -> DataError:
        shown = name if len(name) <= 100 else f"{name[:100]}…"
        return DataError(f"{self.archive}: entry {shown!r} {reason}: the archive is refused")

    def count(self, size: int) -> None:
        """Counts bytes before they are written."""
        self.size += size
        if self.size > self.limits.size_bytes:
            raise DataError(f"{self.archive} unpacks to more than {size_text(self.limits.size_bytes)}, the limit")
        if self.size > max(self.limits.ratio_from_bytes, self.limits.ratio * self.packed):
            raise DataError(
                f"{self.archive} unpacks to more than {self.limits.ratio:g} times its {size_text(self.packed)}: "
                "such an archive is made to fill a disk"
            )

    def entry(self, name: str) -> Path | None:
        """Counts an entry and returns its path, or None for the folder itself."""
        self.entries += 1
        if self.entries > self.limits.entries:
            raise DataError(f"{self.archive} holds more than {self.limits.entries:,} entries, the limit")
        return self.place(name)

    def place(self, name: str) -> Path | None:
        """Returns the path of a name, after checking that it is below the folder."""
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in name) or not name:
            raise self.refuse(name, "has no name, or control characters in it")
        if name.startswith(("/", "\\")) or re.search("(^|/)[A-Za-z]:", name):
            raise self.refuse(name, "has an absolute path")
        if "\\" in name:
            raise self.refuse(name, "has a backslash in its name")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self.refuse(name, "leads out of the folder")
        sizes = [len(part.encode("utf-8", "surrogateescape")) for part in parts]
        if (
            len(parts) > self.limits.depth
            or sum(sizes) + len(sizes) > self.limits.name_bytes
            or max(sizes, default=0) > 255
        ):
            raise self.refuse(name, "lies too deep, or its name is too long")
        return self.folder.joinpath(*parts) if parts else None

    def make_folder(self, name: str, path: Path) -> None:
        missing = [path]
        while not missing[-1].is_dir():
            missing.append(missing[-1].parent)
        for each in reversed(missing[:-1]):
            try:
                each.mkdir()
            except FileExistsError:
                raise self.refuse(name, "is a folder where another entry is a file") from None
            os.chmod(each, 0o755)

    def add_folder(self, name: str) -> None:
        if (path := self.entry(name)) is not None:
            self.make_folder(name, path)

    def add_file(self, name: str, stream: Any, *, counted: bool = False) -> int:
        """Writes a file and returns its size; ``counted``: the stream counts its bytes itself."""
        path = self.entry(name)
        if path is None or name.endswith("/"):
            raise self.refuse(name, "is a file with the name of a folder")
        self.make_folder(name, path.parent)
        try:
            out = open(path, "xb")  # noqa: SIM115
        except FileExistsError:
            raise self.refuse(name, "is there twice") from None
        size = 0
        with out:
            while data := stream.read(CHUNK):
                if not counted:
                    self.count(len(data))
                out.write(data)
                size += len(data)
        os.chmod(path, 0o644)
        self.files += 1
        return size


def _zip(archive: Path, writer: _Writer) -> None:
    _check_entry_count(archive, writer.limits.entries)
    with zipfile.ZipFile(archive) as zipped:
        for info in zipped.infolist():
            name = info.filename
            writer.place(info.orig_filename)  # the raw name: zipfile truncates it at a NUL, and converts separators
            if info.flag_bits & 1:
                raise writer.refuse(name, "is encrypted")
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise writer.refuse(name, "is a link or a device")
            if info.is_dir():
                writer.add_folder(name)
                continue
            with zipped.open(info) as stream:
                size = writer.add_file(name, stream)
            if size != info.file_size:
                raise zipfile.BadZipFile(f"{name!r} says {info.file_size} bytes and has {size}")


def _check_entry_count(archive: Path, limit: int) -> None:
    """Checks the count in a zip's end record before zipfile reads its directory into memory."""
    with open(archive, "rb") as stream:
        stream.seek(max(0, archive.stat().st_size - 66_000))
        tail = stream.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + 22 > len(tail):
        return  # zipfile says that it is damaged
    (count,) = struct.unpack_from("<H", tail, at + 10)
    wide = tail.rfind(b"PK\6\6", 0, at)
    if wide >= 0 and wide + 40 <= len(tail):
        (count,) = struct.unpack_from("<Q", tail, wide + 32)
    if count > limit:
        raise DataError(f"{archive} holds {count:,} entries, the limit is {limit:,}")


def _compressed(archive: Path, opener: Any, writer: _Writer) -> None:
    tar = bool(_TAR_NAME.search(archive.name)) or _is_tar(archive, opener)
    with opener(archive, "rb") as stream:
        if tar:
            _tar(stream, writer)
        else:
            stem = re.sub(r"\.(gz|bz2|xz)$", "", archive.name, flags=re.IGNORECASE)
            writer.add_file(stem, stream)


def _is_tar(archive: Path, opener: Any) -> bool:
    with opener(archive, "rb") as stream:
        block = stream.read(BLOCK)
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


class _Source:
    """The stream that tarfile reads from: forward only, with counted bytes and limited reads."""

    def __init__(self, stream: Any, writer: _Writer) -> None:
        self.stream, self.writer = stream, writer
        self.position = 0
        self.last = b""

    def tell(self) -> int:
        return self.position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= HEADER_LIMIT:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        data: bytes = self.stream.read(size)
        self.writer.count(len(data))
        self.position += len(data)
        self.last = data
        return data

    def seek(self, position: int) -> None:
        if position < self.position:
            raise tarfile.ReadError("it leads back into itself")
        while self.position < position and self.read(min(CHUNK, position - self.position)):
            pass


def _tar(stream: Any, writer: _Writer) -> None:
    source: Any = _Source(stream, writer)
    opened: Any = tarfile.open(fileobj=source, mode="r:")  # noqa: SIM115
    with opened as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # the list of all entries is not needed, and may be long
            if member.isdir():
                writer.add_folder(member.name)
                continue
            if not member.isreg() or member.issparse():
                kind = "link" if member.issym() or member.islnk() else "sparse file" if member.isreg() else "device"
                raise writer.refuse(member.name, f"is a {kind}")
            content = tar.extractfile(member)
            with content:
                if (size := writer.add_file(member.name, content, counted=True)) != member.size:
                    raise tarfile.ReadError(f"{member.name!r} says {member.size} bytes and has {size}")
    if source.last != bytes(BLOCK):  # tarfile treats a damaged header as the end
        raise tarfile.ReadError("it ends in the middle, or a header in it is damaged")
    while source.read(CHUNK):  # to the end, where gz, bz2 and xz verify their checksums
        pass
