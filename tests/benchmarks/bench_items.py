"""A million synthetic items: how long the loaders take to build, what they take beside the items, memory over epochs.

.venv/bin/python tests/benchmarks/bench_items.py --out result.json
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np

from common.data import (
    CategoryBlock,
    ColReader,
    DataBlock,
    DataLoaders,
    ImageBlock,
    RegressionBlock,
    Resize,
    parent_label,
)


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb() -> float:
    """Of this program alone: what getrusage tells is the parent's too, where that was larger."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def built(block: DataBlock, items: object) -> tuple[DataLoaders, dict[str, float]]:
    before, start = resident_mb(), time.perf_counter()
    dls = block.dataloaders(items, bs=256)
    seconds = time.perf_counter() - start
    return dls, {"seconds": seconds, "mb": resident_mb() - before, "peak_mb": max(peak_mb(), resident_mb()) - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    count = given.count
    values = np.random.default_rng(0).random(count, dtype=np.float32)
    result: dict[str, object] = {"what": __doc__.splitlines()[0], "items": count, "python": platform.python_version()}

    numbers = DataBlock((RegressionBlock, CategoryBlock), get_x=lambda i: float(values[i]), get_y=lambda i: i % 10)
    dls, result["numbers"] = built(numbers, range(count))
    memory = []
    for epoch in range(given.epochs):
        start = time.perf_counter()
        items = sum(len(batch) for batch in dls.train.batches(epoch))
        memory.append({"items_per_s": items / (time.perf_counter() - start), "resident_mb": resident_mb()})
    result["epochs"] = memory
    del dls

    files = [f"photos/class{i % 100:02d}/{i:07d}.jpg" for i in range(count)]
    photos = DataBlock((ImageBlock, CategoryBlock), get_y=parent_label, item_tfms=Resize(64))
    dls, result["photo paths"] = built(photos, files)
    del dls, files

    import pandas as pd

    frame = pd.DataFrame({"x": values, "y": np.arange(count) % 7})
    columns = DataBlock((RegressionBlock, CategoryBlock), get_x=ColReader("x"), get_y=ColReader("y"))
    _, result["frame"] = built(columns, frame)
    for name in ("numbers", "photo paths", "frame"):
        found = result[name]
        print(f"{name:12} {found['seconds']:5.2f} s  {found['mb']:6.0f} MB kept  {found['peak_mb']:6.0f} MB at most")
    first, last = memory[1]["resident_mb"], memory[-1]["resident_mb"]
    print(f"{given.epochs} epochs: {first:.1f} MB after the second, {last:.1f} MB after the last")
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
