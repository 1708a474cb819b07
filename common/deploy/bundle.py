"""The bundle: a folder of data (JSON, safetensors) that holds a trained model and everything fitted with it.

Nothing in a bundle is code and nothing in it is unpickled. `load` checks names, types, sizes, hashes and tensor shapes
before any tensor is read, and reports in one sentence which of them is wrong.

Floor: deploy; may import show and below. Used by: train, applications.
"""

import hashlib
import json
import math
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from common.augment.pipeline import BatchPipeline
from common.blocks.block import Block
from common.blocks.sample import SampleEncoder
from common.deploy.card import model_card
from common.deploy.domain import domain_of, find_domain
from common.deploy.part import BundlePart, check_name, part_from_spec
from common.deploy.schema import SCHEMA, fields_of, upgraded
from common.errors import BundleError, ConfigError, CookbookError
from common.files import dump_json, sha256, staged_directory
from common.spec import coerce, from_spec, to_spec
from common.task.fitted import fitted_parts, part_file
from common.task.task import Task
from common.tensors import save_tensors

MAIN = "bundle.json"
ENDINGS = (".json", ".safetensors", ".ubj", ".md")
MAX_JSON_BYTES = 64 << 20
_BLOCK_FILE = re.compile(r"block\d+\.")


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        path: Its folder.
        domain: The name of its domain.
        model: The model, in evaluation mode.
        task: The task, with its fitted fields.
        encoder: The fitted blocks and item transforms.
        pipeline: The batch transforms.
        metrics: Measured results by their standard names.
        versions: The versions of the packages it was made with.
        reading: The options with which the training data was read, of its domain's ``reading`` class.
        parts: Its additional parts, by name.
    """

    path: Path
    domain: str
    model: nn.Module
    task: Task
    encoder: SampleEncoder
    pipeline: BatchPipeline
    metrics: dict[str, float]
    versions: dict[str, str]
    reading: Any
    parts: dict[str, BundlePart]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in (
        "torch",
        "torchvision",
        "transformers",
        "xgboost",
        "numpy",
        "pillow",
        "safetensors",
        "applications-cookbook",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _digest(content: dict[str, Any]) -> str:
    plain = {name: value for name, value in content.items() if name != "sha256"}
    return hashlib.sha256(dump_json(plain).encode("utf-8")).hexdigest()


def seal(content: dict[str, Any]) -> str:
    """Returns the text of ``bundle.json``: the content with its own hash."""
    return dump_json({**content, "sha256": _digest(content)})


def export(
    path: Path,
    model: nn.Module,
    task: Task,
    encoder: SampleEncoder,
    pipeline: BatchPipeline,
    metrics: dict[str, float],
    *,
    reading: Any = None,
    parts: Mapping[str, BundlePart] | None = None,
) -> Path:
    """Writes a bundle whole or not at all, and returns its folder.

    Args:
        path: The folder; an older bundle there is replaced once the new one is complete.
        model: A registered model with ``spec()``.
        task: The task.
        encoder: The fitted blocks and item transforms.
        pipeline: The batch transforms.
        metrics: Measured results for the model card, by their standard names.
        reading: The options with which the data was read, of the domain's ``reading`` class; its defaults when None.
        parts: Additional parts of the bundle, by name.

    Raises:
        ConfigError: if a bundle cannot describe the model (not registered, or without ``spec``), the options are
            another domain's, or a part has an invalid name or file.
        OSError: if it cannot be written; an older bundle there stays as it is.
    """
    spec = getattr(model, "spec", None)
    if not callable(spec) or not hasattr(type(model), "registered_name"):
        raise ConfigError(
            f"a bundle holds no code: a model must be registered and have spec(), {type(model).__name__} is not"
        )
    domain = domain_of(model, task)
    stored = {} if reading is None else _reading_spec(domain, reading)
    with staged_directory(path) as aside:
        save_tensors(model.state_dict(), aside / "model.safetensors")
        for place, part in fitted_parts(model).items():
            for name, data in part.files().items():
                (aside / part_file(place, name)).write_bytes(data)
        _write_block_files(aside, encoder)
        for name, part in (parts or {}).items():
            _write_part(aside, name, part)
        content: dict[str, Any] = {
            "schema": SCHEMA,
            "domain": domain,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "encoder": encoder.spec(),
            "batch_tfms": [to_spec(transform) for transform in pipeline.transforms],
            "model": spec(),
            "task": task.spec(),
            "reading": stored,
            "parts": {name: part.spec() for name, part in (parts or {}).items()},
            "metrics": {name: float(value) for name, value in metrics.items() if math.isfinite(value)},
            "versions": _versions(),
        }
        (aside / "README.md").write_text(model_card(content), "utf-8")
        content["files"] = {
            file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in sorted(aside.iterdir())
        }
        (aside / MAIN).write_text(seal(content), "utf-8")
    return path


def _reading_spec(domain: str, reading: Any) -> dict[str, Any]:
    wanted = find_domain(domain).reading
    if not isinstance(reading, wanted):
        raise ConfigError(f"reading of the domain {domain} must be {wanted.__name__}, got {type(reading).__name__}")
    return to_spec(reading)


def _write_part(aside: Path, name: str, part: BundlePart) -> None:
    check_name(name)
    for file, data in part.files().items():
        place = aside / part_file(name, file)
        if place.suffix not in ENDINGS or place.exists() or place.name in (MAIN, "README.md"):
            raise ConfigError(
                f"parts: {name} cannot have a file {file!r}: {place.name} is taken, or ends in none of "
                f"{', '.join(ENDINGS)}"
            )
        place.write_bytes(data)


def load(path: str | Path, device: str | torch.device = "cpu") -> Bundle:
    """Reads and verifies a bundle.

    Args:
        path: Its folder.
        device: The device to move the model to.

    Raises:
        BundleError: naming the file, field or tensor that is wrong.
    """
    folder = Path(path)
    content, written, text = _read_main(folder)
    _check_files(folder, content["files"])
    try:
        domain = find_domain(content["domain"])
        reading = domain.options(content["reading"])
        encoder = _read_block_files(folder, SampleEncoder.from_spec(content["encoder"]), set(content["files"]))
        transforms = [from_spec("batch_transform", t, f"batch_tfms[{i}]") for i, t in enumerate(content["batch_tfms"])]
        pipeline = BatchPipeline(encoder, transforms)
        task: Task = from_spec("task", content["task"], "task")
        task.verify(encoder, content["model"])
        parts = {name: part_from_spec(name, spec) for name, spec in content["parts"].items()}
        _check_seal(folder, written, text)
        model = _load_model(folder, content["model"], set(content["files"]))
        _load_parts(folder, parts, set(content["files"]))
    except BundleError:
        raise
    except RecursionError as error:
        raise BundleError(f"{folder / MAIN} is nested too deeply") from error
    except (CookbookError, ValueError, TypeError) as error:
        raise BundleError(f"{folder / MAIN}: {error}") from error
    model.to(torch.device(device)).eval()
    return Bundle(
        folder, domain.name, model, task, encoder, pipeline, content["metrics"], content["versions"], reading, parts
    )


def _read_main(folder: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Returns the content in this version's schema, the content as written, and its text."""
    main = folder / MAIN
    if folder.is_file():
        raise BundleError(f"{folder} is a file: a bundle is a folder with {MAIN} (pickled learners are never read)")
    if not main.is_file() or main.is_symlink():
        raise BundleError(f"{folder} is not a bundle: it has no {MAIN}")
    if main.stat().st_size > MAX_JSON_BYTES:
        raise BundleError(f"{main} is larger than {MAX_JSON_BYTES >> 20} MiB")
    try:
        text = main.read_bytes().decode("utf-8")
        content = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{main} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise BundleError(f"{main} must hold an object, got {type(content).__name__}")
    fields: dict[str, Any] = content
    known = fields_of(fields.get("schema"))
    for name in fields:
        if name not in known:
            raise BundleError(f"{main}: there is no field {name!r} in a bundle")
    for name, hint in known.items():
        if name not in fields:
            raise BundleError(f"{main}: the field {name!r} is missing")
        value = fields[name]
        if hint in (dict, list):
            if not isinstance(value, hint):
                raise BundleError(f"{main}: {name} must be {hint.__name__}, got {type(value).__name__} {value!r:.60}")
            continue
        try:
            fields[name] = coerce(value, hint, name)
        except ConfigError as error:
            raise BundleError(f"{main}: {error}") from error
    if fields["schema"] not in (1, SCHEMA):
        raise BundleError(f"{main}: schema {fields['schema']} is neither 1 nor {SCHEMA}, those this version reads")
    return upgraded(fields), fields, text


def _check_files(folder: Path, files: dict[str, Any]) -> None:
    """Checks the listed names first, then the folder's files against them, then sizes and hashes."""
    for name, entry in files.items():
        if name != Path(name).name or name in ("", ".", "..", MAIN) or "\\" in name or "\0" in name:
            raise BundleError(f"{folder / MAIN}: files names {name!r}, which is not a plain name inside the bundle")
        if Path(name).suffix not in ENDINGS:
            raise BundleError(f"{folder / MAIN}: files names {name!r}: a bundle holds only {', '.join(ENDINGS)}")
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("bytes"), int)
            or not isinstance(entry.get("sha256"), str)
        ):
            raise BundleError(f"{folder / MAIN}: files[{name!r}] must have bytes (int) and sha256 (str)")
    for found in sorted(folder.iterdir()):
        if found.is_symlink() or not found.is_file():
            raise BundleError(f"{found} is a link or a folder: a bundle holds plain files only")
        if found.name != MAIN and found.name not in files:
            raise BundleError(f"{found} is not in the bundle's list of files (pickles and other code are never read)")
    if "model.safetensors" not in files:
        raise BundleError(f"{folder / MAIN}: files must name model.safetensors")
    for name, entry in files.items():
        file = folder / name
        if not file.is_file():
            raise BundleError(f"{file} is missing")
        if file.stat().st_size != entry["bytes"]:
            raise BundleError(f"{file} has {file.stat().st_size} bytes, {MAIN} says {entry['bytes']}")
        if sha256(file) != entry["sha256"]:
            raise BundleError(f"{file} was changed: its sha256 is not the one in {MAIN}")


def _check_seal(folder: Path, content: dict[str, Any], text: str) -> None:
    if content["sha256"] != _digest(content) or text != seal(content):
        raise BundleError(f"{folder / MAIN} was changed: its content does not match its sha256")


def skeleton(cls: Any, fields: dict[str, Any]) -> nn.Module:
    """Builds a model on the meta device, without memory; on the CPU if it reads values when built (RegNets)."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return cls.from_spec(fields)
        except NotImplementedError:
            return cls.from_spec(fields)


def _block_file(place: int, name: str) -> str:
    """The name in a bundle of a file of the block at a position (``block0.tokenizer.json``)."""
    return part_file(f"block{place}", name)


def _write_block_files(folder: Path, encoder: SampleEncoder) -> None:
    for i, block in enumerate(encoder.blocks):
        for name, data in block.files().items():
            (folder / _block_file(i, name)).write_bytes(data)


def _read_block_files(folder: Path, encoder: SampleEncoder, listed: set[str]) -> SampleEncoder:
    """Returns the encoder with its blocks' files loaded; a block that its spec describes completely has none."""
    blocks: list[Block] = []
    asked: set[str] = set()
    for i, block in enumerate(encoder.blocks):
        named = {_block_file(i, name): name for name in block.missing_files()}
        asked |= set(named)
        for file in named:
            if file not in listed:
                raise BundleError(f"{folder / MAIN}: files must name {file}, which {type(block).__name__} needs")
        try:
            blocks.append(block.load_files({name: (folder / file).read_bytes() for file, name in named.items()}))
        except (OSError, CookbookError) as error:
            raise BundleError(f"{folder}: {', '.join(named)}: {error}") from error
    for name in sorted(name for name in listed - asked if _BLOCK_FILE.match(name)):
        raise BundleError(f"{folder / name} belongs to no block of the encoder")
    return replace(encoder, blocks=tuple(blocks))


def _load_model(folder: Path, spec: dict[str, Any], listed: set[str]) -> nn.Module:
    """Builds the model on the meta device, compares names and shapes with the file, and only then reads tensors."""
    from common.registry import resolve

    fields = dict(spec)
    cls = resolve("model", fields.pop("kind", None))
    empty = skeleton(cls, fields)
    _check_parts(folder, empty, listed)
    wanted = empty.state_dict()
    file = folder / "model.safetensors"
    try:
        with safe_open(file, framework="pt") as tensors:
            names = set(tensors.keys())
            for name in [*sorted(set(wanted) - names), *sorted(names - set(wanted))]:
                verb = "lacks" if name in wanted else "has the unknown tensor"
                raise BundleError(f"{file} {verb} {name}")
            for name, tensor in wanted.items():
                shape = tuple(tensors.get_slice(name).get_shape())
                if shape != tuple(tensor.shape):
                    raise BundleError(f"{file}: {name} has shape {shape}, the model needs {tuple(tensor.shape)}")
            state = {name: tensors.get_tensor(name) for name in wanted}
    except SafetensorError as error:
        raise BundleError(f"{file} is not a safetensors file: {error}") from error
    for name, tensor in state.items():
        if tensor.dtype != wanted[name].dtype:
            raise BundleError(f"{file}: {name} is {tensor.dtype}, the model needs {wanted[name].dtype}")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"{file}: {name} holds numbers that are not finite")
    with torch.random.fork_rng(devices=[]):
        model: nn.Module = cls.from_spec(fields)
    model.load_state_dict(state)
    for place, part in fitted_parts(model).items():
        if names := part.file_names():
            part.load_files({name: (folder / part_file(place, name)).read_bytes() for name in names})
    return model


def _check_parts(folder: Path, model: nn.Module, listed: set[str]) -> None:
    """Checks that the files of fitted parts are listed, and that no file of trees is listed without a part."""
    wanted = {part_file(place, name) for place, part in fitted_parts(model).items() for name in part.file_names()}
    for name in sorted(wanted - listed):
        raise BundleError(f"{folder / MAIN}: files must name {name}, which the model needs")
    for name in sorted(name for name in listed - wanted if name.endswith(".ubj")):
        raise BundleError(f"{folder / name} belongs to no part of the model")


def _load_parts(folder: Path, parts: dict[str, BundlePart], listed: set[str]) -> None:
    for name, part in parts.items():
        files = {file: part_file(name, file) for file in part.file_names()}
        for place in sorted(set(files.values()) - listed):
            raise BundleError(f"{folder / MAIN}: files must name {place}, which the part {name} needs")
        if files:
            part.load_files({file: (folder / place).read_bytes() for file, place in files.items()})
