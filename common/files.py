"""Atomic writes: a file or folder is written under a temporary name, flushed to the disk, then renamed.

Floor: ground; imports only from the ground. Used by: ground, sources, augment, store, show, deploy, train,
catalogue, recipes.
"""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def dump_json(value: Any) -> str:
    """Returns JSON data in the project's canonical form: sorted keys, two spaces, a final newline.

    Raises:
        ValueError: for NaN or infinity, which JSON does not have.
    """
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """Returns plain data with NaN and infinity, which JSON does not have, replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return value


def sync(path: Path) -> None:
    """Flushes a file's or directory's data to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file so that ``path`` holds either its old bytes or all of the new ones.

    Raises:
        OSError: if the disk is full or the folder not writable; ``path`` is then unchanged, nothing is left beside it.
    """
    path = Path(path)
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(aside, 0o644)  # mkstemp makes files that only their owner may read
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    sync(path.parent)  # the rename itself lives in the directory


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text whole or not at all; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


@contextmanager
def staged_directory(target: Path) -> Iterator[Path]:
    """Yields a new folder next to ``target`` that replaces it when the ``with`` block ends without an error.

    On an error the new folder is removed and ``target`` is unchanged.

    Raises:
        OSError: if the folder cannot be made, written or renamed.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        os.chmod(aside, 0o755)
        yield aside
        for file in aside.rglob("*"):  # before the rename, so that a crash never leaves a renamed but empty file
            sync(file)
        sync(aside)
        old = aside.with_name(aside.name + ".old")
        if target.exists():  # a folder cannot be renamed onto one that is not empty: the old one steps aside first
            os.rename(target, old)
        try:
            os.rename(aside, target)
        except OSError:
            if old.exists():
                os.rename(old, target)
            raise
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink(missing_ok=True)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync(target.parent)
