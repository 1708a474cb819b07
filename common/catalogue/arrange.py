"""Converts what a library's data set loader returned to files that a recipe reads: class folders, or a table.

Floor: catalogue; may import train and below. Used by: its own room.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from common.errors import DataError

TABLE = "labels.csv"


def arrange_images(folder: Path, loaded: Mapping[str, Any]) -> str | None:
    """Makes torchvision's download in a folder readable for a recipe.

    Pixels in one array (CIFAR's pickles) become PNG files in class folders, and the library's own files are deleted;
    image files stay, and a table next to them lists each with its label and part.

    Args:
        folder: The folder that the library downloaded into.
        loaded: Its data set objects by part; an empty name where there is only one.

    Returns:
        The path for a recipe's ``--data``, relative to the folder; None if no labels are found, and nothing is changed.
    """
    first = next(iter(loaded.values()))
    if isinstance(getattr(first, "data", None), np.ndarray) and hasattr(first, "targets"):
        before = sorted(folder.rglob("*"), reverse=True)
        for part, found in loaded.items():
            write_class_folders(folder / part, found.data, list(found.targets), list(found.classes))
        for path in before:
            path.rmdir() if path.is_dir() else path.unlink()
        return "."
    rows: list[tuple[str, Any, str]] = []
    for part, found in loaded.items():
        files = getattr(found, "_image_files", None) or getattr(found, "_images", None)
        labels = getattr(found, "_labels", None)
        if not files or not labels or len(files) != len(labels):
            return None
        names: Sequence[Any] = getattr(found, "classes", ())
        for file, label in zip(files, labels, strict=True):
            rows.append((Path(file).relative_to(folder).as_posix(), names[label] if names else label, part))
    with open(folder / TABLE, "x", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("image", "label", "split") if len(loaded) > 1 else ("image", "label"))
        writer.writerows(row if len(loaded) > 1 else row[:2] for row in rows)
    return TABLE


def write_class_folders(folder: Path, images: np.ndarray, labels: Sequence[Any], classes: Sequence[Any]) -> None:
    """Writes pictures as PNG files into one folder per class.

    Args:
        folder: The folder above the class folders; created if missing.
        images: (N, H, W) or (N, H, W, 3); other dtypes than uint8 are scaled so that the largest value is 255.
        labels: The class number of each.
        classes: The names of the classes.
    """
    if images.dtype != np.uint8:
        images = np.round(images * (255 / max(float(images.max()), 1e-12))).astype(np.uint8)
    names = [re.sub(r"[^\w .+-]", "_", str(name)).strip(" .") or "_" for name in classes]
    if len({name.lower() for name in names}) < len(names):
        names = [f"{number}_{name}" for number, name in enumerate(names)]
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(pixels).save(folder / names[int(label)] / f"{i:05}.png")


def write_tables(folder: Path, name: str, loaded: Mapping[str, Any]) -> str:
    """Writes the results of scikit-learn's loader: images into class folders, tables and texts as one CSV file.

    Args:
        folder: The folder to write to.
        name: The name of the CSV file, without its ending.
        loaded: The loader's results by part; an empty name where there is only one.

    Returns:
        The path for a recipe's ``--data``, relative to the folder.

    Raises:
        DataError: if the result holds neither pictures, nor a frame, nor texts.
    """
    frames: list[pd.DataFrame] = []
    for part, found in loaded.items():
        if "images" in found:
            classes = found.get("target_names")
            classes = sorted(set(found["target"].tolist())) if classes is None else classes
            write_class_folders(folder / part, np.asarray(found["images"]), found["target"], list(classes))
            continue
        frame = _frame(name, found)
        frames.append(frame.assign(split=part) if len(loaded) > 1 else frame)
    if not frames:
        return "."
    pd.concat(frames, ignore_index=True).to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    return f"{name}.csv"


def _frame(name: str, found: Any) -> pd.DataFrame:
    if isinstance(found.get("frame"), pd.DataFrame):
        frame: pd.DataFrame = found["frame"].copy()
    elif isinstance(found.get("data"), list):
        frame = pd.DataFrame({"text": found["data"], "target": found["target"]})
    else:
        raise DataError(f"{name}: scikit-learn's loader gives neither pictures, nor a table, nor texts")
    names = found.get("target_names")
    if names is not None and "target" in frame.columns and pd.api.types.is_integer_dtype(frame["target"]):
        frame["target"] = [str(names[int(number)]) for number in frame["target"]]
    return frame
