"""Checkpoints: tensors in safetensors, the rest in JSON, a manifest of hashes last, the folder renamed at once."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.errors import CheckpointError
from common.files import dump_json, sha256, staged_directory

SCHEMA = 1
KEEP = 2


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes tensors to a safetensors file; shared and strided ones are written out whole.

    Raises:
        OSError: if it cannot be written.
    """
    try:
        save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, path)
    except SafetensorError as error:
        full = "No space left" in str(error)
        raise OSError(
            errno.ENOSPC if full else errno.EIO, os.strerror(errno.ENOSPC) if full else str(error), str(path)
        ) from error


def write_checkpoint(folder: Path, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
    """Writes one checkpoint folder whole or not at all.

    Args:
        folder: Where to.
        tensors: Named groups of tensors (model, optimizer, average), each to a file of its own.
        state: Everything else, as JSON.

    Raises:
        OSError: if it cannot be written; an older checkpoint there stays as it is.
    """
    with staged_directory(folder) as aside:
        for name, group in tensors.items():
            save_tensors(group, aside / f"{name}.safetensors")
        (aside / "state.json").write_text(dump_json(state), "utf-8")
        files = {file.name: sha256(file) for file in sorted(aside.iterdir())}
        (aside / "manifest.json").write_text(dump_json({"schema": SCHEMA, "files": files}), "utf-8")


def read_checkpoint(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Reads and verifies one checkpoint folder.

    Raises:
        CheckpointError: naming the file that is missing or damaged.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        files = cast("dict[str, str]", dict(manifest["files"]))
        schema = manifest["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: the manifest is missing or damaged: {error}") from error
    if "state.json" not in files or "model.safetensors" not in files:
        raise CheckpointError(f"{folder}: the manifest names no state.json or no model.safetensors")
    if schema != SCHEMA:
        raise CheckpointError(f"{folder}: schema {schema} is not {SCHEMA}, the one this version reads")
    for name, digest in files.items():
        file = folder / Path(name).name
        if not file.is_file() or sha256(file) != digest:
            raise CheckpointError(f"{file} is missing or damaged (its hash is not the manifest's)")
    try:
        groups = {Path(n).stem: load_file(folder / n) for n in files if n.endswith(".safetensors")}
        return groups, cast("dict[str, Any]", json.loads((folder / "state.json").read_text("utf-8")))
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(f"{folder}: cannot be read: {error}") from error


def checkpoints(root: Path) -> list[Path]:
    """Returns the checkpoint folders below ``root``, newest first (their names end in a number that grows)."""
    return sorted((p for p in root.glob("checkpoint-*") if p.is_dir()), reverse=True)


def newest_sound(root: Path) -> tuple[Path, dict[str, dict[str, Tensor]], dict[str, Any], list[str]]:
    """Reads the newest checkpoint that is whole.

    Returns:
        Its folder, tensors and state, and one sentence for each newer one that was passed over.

    Raises:
        CheckpointError: if there is none.
    """
    passed: list[str] = []
    folders = [root] if (root / "manifest.json").exists() else checkpoints(root)
    for folder in folders:
        try:
            tensors, state = read_checkpoint(folder)
            return folder, tensors, state, passed
        except CheckpointError as error:
            passed.append(str(error))
    detail = f": {passed[0]}" if passed else ""
    raise CheckpointError(f"{root} holds no usable checkpoint{detail}")


def prune(root: Path, keep: int = KEEP) -> None:
    """Deletes all but the newest checkpoints."""
    for folder in checkpoints(root)[keep:]:
        shutil.rmtree(folder, ignore_errors=True)
