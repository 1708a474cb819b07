"""Augmentation of whole batches on a GPU: our kernel beside the time of copying, torchvision and kornia.

python tests/benchmarks/bench_augment_device.py    (on a machine with a CUDA GPU; writes results/augment_device.json)

256 images of 224x224x3 bytes, channels last, become normalised bfloat16, channels last: flip, rotate, zoom, translate,
perspective warp, brightness, contrast and erase, drawn anew for every batch. The floor is the time in which the device
copies as many bytes as must be read and written once. Ours is the kernel with its parameters drawn anew and the kernel
alone, each launched from Python and recorded as a CUDA graph, and the torch reference. torchvision.transforms.v2 has one set of parameters for a whole batch; kornia, where it is
installed, draws one for every image, eager and under torch.compile. Each contender is timed in turn with the others, by
CUDA events around a few batches and with the device at rest before and after; the median over rounds and their range.

``--dry`` goes through everything that can run on a CPU with tiny images, and writes nothing.
"""

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from common.augment import Augment, BatchPipeline, kernel, pixels
from common.blocks.sample import SampleEncoder
from common.data import EpochSeed, ImageBlock

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHAIN = Augment(
    flip=True, rotate=15, zoom=1.2, translate=0.1, warp=0.2, brightness=0.2, contrast=0.2, erase=0.2, p_affine=1.0,
    p_lighting=1.0, p_erase=0.5,
)  # fmt: skip
Step = Callable[[], object]


def copied(batch: torch.Tensor) -> Step:
    """A copy that moves as many bytes as must be read (uint8) and written (bfloat16) once."""
    half = torch.empty(batch.numel() * 3 // 2, dtype=torch.uint8, device=batch.device)
    other = torch.empty_like(half)
    return lambda: other.copy_(half)


def ours(batch: torch.Tensor, device: torch.device) -> dict[str, Step]:
    """This project's, with parameters drawn anew for every batch, and by themselves."""
    block = ImageBlock("RGB", MEAN, STD)
    pipe = BatchPipeline(SampleEncoder((block,), 1, ()), (CHAIN,))
    size, ids = (batch.shape[1], batch.shape[2]), torch.arange(len(batch), device=device)
    look, epoch_seed = pipe.look(size, block), EpochSeed(0, 0)
    drawn, place = pipe.draw(ids, size, epoch_seed, True), [0]

    def draw():
        place[0] += len(ids)
        return pipe.draw(ids + place[0], size, epoch_seed, True)

    found: dict[str, Step] = {
        "our parameters": draw,
        "our torch reference": lambda: pixels.develop(batch, draw(), look, dtype=torch.bfloat16),
    }
    if not kernel.serves(batch, drawn):
        return found
    alone = found["our kernel"] = lambda: kernel.develop(batch, drawn, look, dtype=torch.bfloat16)
    found["our kernel, parameters drawn"] = lambda: kernel.develop(batch, draw(), look, dtype=torch.bfloat16)

    def whole():  # the samples are those in a tensor of their own, as a recorded step has them
        ids.add_(len(ids))
        return kernel.develop(batch, pipe.draw(ids, size, epoch_seed, True), look, dtype=torch.bfloat16)

    found["our kernel, recorded"] = recorded(alone)
    found["our kernel, parameters drawn, recorded"] = recorded(whole)
    return found


def recorded(step: Step) -> Step:
    """A step as a CUDA graph: the time of the device, without that of the host that launches."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def torchvisions(batch: torch.Tensor) -> dict[str, Step]:
    """torchvision's transforms of a whole batch at once: every image gets the same parameters."""
    from torchvision.transforms import v2

    bilinear = v2.InterpolationMode.BILINEAR
    chain = v2.Compose([
        v2.ToDtype(torch.float32, scale=True),
        v2.RandomHorizontalFlip(),
        v2.RandomAffine(15, translate=(0.1, 0.1), scale=(1.0, 1.2), interpolation=bilinear),
        v2.RandomPerspective(0.2, p=1.0, interpolation=bilinear),
        v2.ColorJitter(brightness=0.2, contrast=0.2),
        v2.RandomErasing(0.5, scale=(0.02, 0.2)),
        v2.Normalize(MEAN, STD),
    ])  # fmt: skip

    def run() -> torch.Tensor:
        found = chain(batch.permute(0, 3, 1, 2))
        return found.to(torch.bfloat16, memory_format=torch.channels_last)

    return {"torchvision v2 (one set of parameters a batch)": run}


def kornias(batch: torch.Tensor) -> dict[str, Step]:
    """kornia's augmentations, a set of parameters for every image; nothing where it is not installed."""
    try:
        import kornia.augmentation as K
        from kornia.constants import Resample
    except ImportError:
        return {}
    chain = K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomAffine(15.0, translate=(0.1, 0.1), scale=(1.0, 1.2), resample=Resample.BILINEAR, p=1.0),
        K.RandomPerspective(0.2, p=1.0),
        K.ColorJitter(brightness=0.2, contrast=0.2, p=1.0),
        K.RandomErasing(scale=(0.02, 0.2), p=0.5),
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
        data_keys=["input"],
    ).to(batch.device)

    def run() -> torch.Tensor:
        unit = batch.permute(0, 3, 1, 2).to(torch.float32) / 255
        return chain(unit).to(torch.bfloat16, memory_format=torch.channels_last)

    return {"kornia": run, "kornia, compiled": torch.compile(run)}


def timed(step: Step, batches: int, device: torch.device) -> float:
    """Milliseconds a batch, of a few in a row."""
    if device.type == "cpu":
        started = time.perf_counter()
        for _ in range(batches):
            step()
        return 1e3 * (time.perf_counter() - started) / batches
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    first.record()
    for _ in range(batches):
        step()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / batches


def measured(steps: dict[str, Step], rounds: int, batches: int, device: torch.device) -> tuple[dict, dict]:
    """Milliseconds of every contender, in turn, after a round that compiles; and why some could not run."""
    failed: dict[str, str] = {}
    for name, step in list(steps.items()):
        try:
            for _ in range(3):
                step()
        except Exception as error:  # another library's: noted, the others go on
            if name.startswith("our"):
                raise
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            del steps[name]
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(timed(step, batches, device))
    return times, failed


def installed(name: str) -> str:
    """The version of a package, or that it is absent."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def report(times: dict[str, list[float]], batch: torch.Tensor) -> dict[str, dict]:
    """Median and range of each contender, and how many times the floor it takes."""
    floor = statistics.median(times["copy"])
    found = {}
    for name, values in times.items():
        middle = statistics.median(values)
        found[name] = {
            "ms": round(middle, 4), "spread_ms": [round(min(values), 4), round(max(values), 4)],
            "times_copy": round(middle / floor, 2), "images_per_second": round(1e3 * len(batch) / middle),
        }  # fmt: skip
        print(f"{name:50} {found[name]}", flush=True)
    return found


def main() -> None:
    """Measures everything in one call."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "augment_device.json"))
    given = parser.parse_args()
    if given.dry:
        given.batch, given.side, given.rounds, given.batches = 2, 32, 2, 1
    elif not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a CUDA GPU; --dry goes through it on a CPU with tiny images")
    warnings.filterwarnings("ignore")
    device = torch.device("cpu" if given.dry else "cuda")
    shape = (given.batch, given.side, given.side, 3)
    batch = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(device)
    steps = {"copy": copied(batch), **ours(batch, device), **torchvisions(batch), **kornias(batch)}
    if given.dry:
        steps.pop("kornia, compiled", None)
    times, failed = measured(steps, given.rounds, given.batches, device)
    result = {
        "what": "flip, rotate, zoom, translate, warp, brightness, contrast, erase, normalise: uint8 to bfloat16",
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"gpu": None if given.dry else torch.cuda.get_device_name(), "python": platform.python_version()},
        "versions": {name: installed(name) for name in ("torch", "triton", "torchvision", "kornia")},
        "shape": shape, "rounds": given.rounds, "batches_a_round": given.batches,
        "bytes_a_batch": 3 * batch.numel(), "contenders": report(times, batch), "could_not_run": failed,
    }  # fmt: skip
    if not given.dry:
        Path(given.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
