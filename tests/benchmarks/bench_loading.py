"""Loading of JPEG photos: decode, random resized crop to 224, flip, normalise, float batches of 64, on two workers.

Ours (two threads, no processes) beside torchvision (ImageFolder, transforms v2, DataLoader), OpenCV with
albumentations (in torch's DataLoader) and fastai, each with two worker processes at its fastest settings that
keep the work the same (the loaders' workers persist over epochs where they can). Each side lives in a process of its
own, and an epoch over every photo is asked of each in turn, wall seconds, after a warm-up round whose figures are
"fresh": those of a new process. Ours is timed twice: a first epoch with the building of the loaders (the decoder runs),
and later epochs (it does not). Peak memory is the process's with its workers'.

    PYTHONPATH=. PEERS/bin/python tests/benchmarks/bench_loading.py --dir PHOTOS --out result.json
"""

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
warnings.filterwarnings("ignore")

import torch  # noqa: E402 - the threads are set before
from torch.utils.data import DataLoader, Dataset  # noqa: E402

torch.set_num_threads(1)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE, BATCH, WORKERS, LEAST = 224, 64, 2, 0.08
Epoch = Callable[[], int]


def drain(loader) -> int:
    """Takes every batch and returns the number of images."""
    count = 0
    for batch in loader:
        x = batch.x if hasattr(batch, "x") else batch[0]
        assert tuple(x.shape[1:]) == (3, SIZE, SIZE)
        assert x.dtype == torch.float32
        count += len(x)
    return count


def torch_loader(dataset) -> DataLoader:
    return DataLoader(
        dataset, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True, prefetch_factor=4,
        worker_init_fn=one_thread,
    )  # fmt: skip


def one_thread(_: int) -> None:
    torch.set_num_threads(1)
    try:
        import cv2

        cv2.setNumThreads(1)
    except ImportError:
        pass


def ours(files: list[Path]) -> dict[str, Epoch]:
    from common import Augment
    from common.data import CategoryBlock, DataBlock, ImageBlock, IndexSplitter, RandomResizedCrop, parent_label

    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_y=parent_label,
        splitter=IndexSplitter([0]),
        item_tfms=RandomResizedCrop(SIZE, min_scale=LEAST),
        batch_tfms=Augment(flip=True),
    )
    kept: dict[str, object] = {"epoch": 0}

    def first() -> int:
        kept["train"] = None  # the photos of the round before are let go
        dls = block.dataloaders(files, bs=BATCH, num_workers=WORKERS)
        kept["train"] = dls.train.with_options(drop_last=False)
        return drain(kept["train"].batches(0))

    def later() -> int:
        kept["epoch"] += 1
        return drain(kept["train"].batches(kept["epoch"]))

    return {"ours, first epoch": first, "ours, later epochs": later}


def torchvision_side(files: list[Path], root: Path) -> dict[str, Epoch]:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    steps = v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, scale=(LEAST, 1), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    loader = torch_loader(ImageFolder(str(root), steps))
    return {"torchvision": lambda: drain(loader)}


class Files(Dataset):
    """Files through a function."""

    def __init__(self, files: list[Path], function: Callable[[str], object]) -> None:
        self.files, self.function = [str(file) for file in files], function
        names = sorted({file.parent.name for file in files})
        self.labels = [names.index(file.parent.name) for file in files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int):
        return self.function(self.files[place]), self.labels[place]


def albumentations_side(files: list[Path], root: Path) -> dict[str, Epoch]:
    import albumentations as A
    import cv2
    from albumentations.pytorch import ToTensorV2

    cv2.setNumThreads(1)
    steps = A.Compose(
        [
            A.RandomResizedCrop((SIZE, SIZE), scale=(LEAST, 1)),
            A.HorizontalFlip(),
            A.Normalize(MEAN, STD),
            ToTensorV2(),
        ]
    )

    def read(path: str):
        return steps(image=cv2.cvtColor(cv2.imread(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))["image"]

    loader = torch_loader(Files(files, read))
    return {"OpenCV + albumentations": lambda: drain(loader)}


def fastai_side(files: list[Path], root: Path) -> dict[str, Epoch]:
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        Flip,
        ImageBlock,
        IndexSplitter,
        Normalize,
        RandomResizedCrop,
        imagenet_stats,
        parent_label,
    )

    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_items=lambda _: files,
        get_y=parent_label,
        splitter=IndexSplitter([0]),
        item_tfms=RandomResizedCrop(SIZE, min_scale=LEAST),
        batch_tfms=[Flip(p=0.5), Normalize.from_stats(*imagenet_stats)],
    )
    dls = block.dataloaders(root, bs=BATCH, num_workers=WORKERS, device=torch.device("cpu"))
    dls.train.drop_last = False
    return {"fastai": lambda: drain(dls.train)}


SIDES = {
    "torchvision": torchvision_side,
    "albumentations": albumentations_side,
    "fastai": fastai_side,
    "ours": lambda files, root: ours(files),
}


def timed(epoch: Epoch) -> tuple[float, int]:
    start = time.perf_counter()
    count = epoch()
    return time.perf_counter() - start, count


def tree_mib(children: bool) -> float:
    """Peak resident memory of this process, and its largest worker once for each, in MiB."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (own + (WORKERS * worker if children else 0)) / 1024


def serve(side: str, files: list[Path], root: Path) -> None:
    """One side in this process: runs the epochs that are asked for on standard input, one a line."""
    sides = SIDES[side](files, root)
    print(json.dumps(list(sides)), flush=True)
    for line in sys.stdin:
        seconds, count = timed(sides[line.strip()])
        print(json.dumps({"seconds": seconds, "count": count}), flush=True)
    sides.clear()
    gc.collect()  # ends the workers, so that they are counted
    time.sleep(0.5)
    print(json.dumps({"peak_mib": tree_mib(side != "ours")}), flush=True)


class Side:
    """A side in a process of its own, which waits while the others run."""

    def __init__(self, name: str, root: Path) -> None:
        command = [sys.executable, __file__, "--dir", str(root), "--serve", name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.epochs: list[str] = self.answer()

    def answer(self):
        return json.loads(self.process.stdout.readline())

    def rate(self, epoch: str) -> float:
        """Runs an epoch and returns its images a second."""
        self.process.stdin.write(epoch + "\n")
        self.process.stdin.flush()
        found = self.answer()
        return found["count"] / found["seconds"]

    def end(self) -> dict[str, float]:
        """Ends the process and returns what it says of its memory."""
        self.process.stdin.close()
        found = self.answer()
        self.process.wait()
        return found


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    names = (
        "torch",
        "torchvision",
        "fastai",
        "albumentations",
        "opencv-python-headless",
        "simplejpeg",
        "pillow",
        "numpy",
    )
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", required=True, type=Path, help="a folder of class folders of JPEGs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--skip", default="", help="sides to leave out, separated by commas")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    files = sorted(given.dir.glob("*/*.jpg"))
    if given.serve:
        serve(given.serve, files, given.dir)
        return
    sides = [Side(name, given.dir) for name in SIDES if name not in given.skip.split(",")]
    rates: dict[str, list[float]] = {name: [] for side in sides for name in side.epochs}
    fresh: dict[str, float] = {}
    for number in range(given.rounds + 1):
        for side in sides:
            for name in side.epochs:
                rate = side.rate(name)
                if number:
                    rates[name].append(rate)
                else:  # the first round warms up
                    fresh[name] = rate
        print(f"round {number} of {given.rounds}", file=sys.stderr, flush=True)
    own = {}
    for side in sides:
        found = side.end()
        own |= {name: {"images_per_s": fresh[name], **found} for name in side.epochs}
    report(given, files, rates, own)


def report(given, files: list[Path], rates: dict[str, list[float]], own: dict[str, dict]) -> None:
    """Prints the table and writes the JSON."""
    first = "ours, first epoch"
    result = {
        "what": __doc__.splitlines()[0],
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cores": os.cpu_count(), "cpu": platform.processor() or platform.machine()},
        "versions": versions(),
        "photos": len(files),
        "rounds": given.rounds,
        "images_per_s": {name: {"median": statistics.median(r), "all": r} for name, r in rates.items()},
        "fresh_and_memory": own,
        "ratios": {},
    }
    rows = []
    for name, found in rates.items():
        ratio = statistics.median(a / b for a, b in zip(rates[first], found, strict=True)) if first in rates else 0
        later = rates.get("ours, later epochs")
        ratio_later = statistics.median(a / b for a, b in zip(later, found, strict=True)) if later else 0
        result["ratios"][name] = {"our_first_epoch": ratio, "our_later_epochs": ratio_later}
        rows.append(
            f"{name:26} {statistics.median(found):8.0f} {min(found):6.0f}-{max(found):<6.0f} {ratio:10.2f} "
            f"{ratio_later:10.2f} {own[name]['images_per_s']:10.0f} {own[name]['peak_mib']:9.0f}"
        )
    head = f"{'':26} {'images/s':>8} {'range':>13} {'1st epoch x':>10} {'later x':>10} {'fresh':>10} {'peak MiB':>9}"
    print("\n".join([head, *rows]))
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
