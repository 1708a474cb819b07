"""Checkpoints: tensors in safetensors, the rest in JSON, a manifest of hashes last, the folder renamed atomically.

Floor: train; may import deploy and below. Used by: its own room.
"""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from common.errors import CheckpointError
from common.files import dump_json, sha256, staged_directory
from common.tensors import save_tensors

SCHEMA = 2
KEEP = 2


def write_checkpoint(folder: Path, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
    """Writes one checkpoint folder whole or not at all.

    Args:
        folder: The folder to write.
        tensors: Named groups of tensors (model, optimizer, average), one file each.
        state: Everything else, as JSON.

    Raises:
        OSError: if it cannot be written; an older checkpoint there stays as it is.
    """
    with staged_directory(folder) as aside:
        for name, group in tensors.items():
            save_tensors(group, aside / f"{name}.safetensors")
        (aside / "state.json").write_text(dump_json(state), "utf-8")
        # The manifest comes last: a folder without a valid one was not written to its end.
        files = {file.name: sha256(file) for file in sorted(aside.iterdir())}
        (aside / "manifest.json").write_text(dump_json({"schema": SCHEMA, "files": files}), "utf-8")


def _verified(folder: Path) -> list[str]:
    """Returns the names of a checkpoint's files, every one of them hashed."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        files: dict[str, str] = dict(manifest["files"])
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
    return list(files)


def read_checkpoint(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Reads and verifies one checkpoint folder.

    Raises:
        CheckpointError: naming the file that is missing or damaged.
    """
    try:
        names = _verified(folder)
        groups = {Path(n).stem: load_file(folder / n) for n in names if n.endswith(".safetensors")}
        return groups, json.loads((folder / "state.json").read_text("utf-8"))
    except (SafetensorError, ValueError, OSError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{folder}: cannot be read: {error}") from error


def is_sound(folder: Path) -> bool:
    """Whether a checkpoint folder is complete: every file is there, with the hash in its manifest."""
    try:
        return bool(_verified(folder))
    except (CheckpointError, OSError):
        return False


def checkpoints(root: Path) -> list[Path]:
    """Returns the checkpoint folders below ``root``, newest first (their names end in the zero-padded step)."""
    return sorted((p for p in root.glob("checkpoint-*") if p.is_dir()), reverse=True)


def newest_sound(root: Path) -> tuple[Path, dict[str, dict[str, Tensor]], dict[str, Any], list[str]]:
    """Reads the newest checkpoint that is complete.

    Returns:
        Its folder, tensors and state, and one sentence for each newer one that was skipped as damaged.

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


def add_checkpoint(root: Path, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> Path:
    """Writes the checkpoint of a step below ``root`` and keeps only it and the one before.

    A sound checkpoint is never overwritten: a second one of the same step (after training, then after validation) gets
    a suffix. Checkpoints of later steps belong to an abandoned run, from before a resume, and are deleted.

    Args:
        root: The folder of the checkpoints.
        step: The number of steps done.
        tensors: Named groups of tensors.
        state: Everything else, as JSON.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: if it cannot be written; the older ones are as they were.
    """
    folder, again = root / f"checkpoint-{step:09d}", 0
    try:
        while folder.exists():
            if not is_sound(folder):
                shutil.rmtree(folder)
            elif json.loads((folder / "state.json").read_text("utf-8")) == json.loads(dump_json(state)):
                break
            else:
                again += 1
                folder = root / f"checkpoint-{step:09d}-{again:02d}"
        else:
            write_checkpoint(folder, tensors, state)
    except OSError as error:
        older = next((f"; {f} is the newest good one" for f in checkpoints(root) if is_sound(f)), "")
        advice = ": free some space and go on with resume" if error.errno == errno.ENOSPC else ""
        raise CheckpointError(f"{folder} cannot be written: {error.strerror}{advice}{older}") from error
    prune(root, folder)
    return folder


def prune(root: Path, newest: Path, keep: int = KEEP) -> None:
    """Deletes all but the newest checkpoints, and the partial folders of interrupted writes.

    Args:
        root: The folder of the checkpoints.
        newest: The checkpoint that was written last.
        keep: How many to keep, including it.
    """
    older = [folder for folder in checkpoints(root) if folder <= newest]
    kept = set(older[:keep])
    for path in (*checkpoints(root), *root.glob(".checkpoint-*.partial*")):
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)
