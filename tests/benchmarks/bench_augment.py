"""Batch augmentation on the CPU beside albumentations, torchvision, kornia and fastai, in one interleaved run.

PYTHONPATH=. ../peers/bin/python tests/benchmarks/bench_augment.py --out tests/benchmarks/results/augment.json

Everyone gets 64 photos of 224x224 as uint8 (H, W, C) and gives a float32 batch (64, 3, 224, 224), normalised by
ImageNet's mean and deviation, in any memory layout; getting there is in everyone's time. Where a side can do it in
several ways (uint8 or float pixels, its own normalisation or one multiply-add into a kept buffer, …), each is tried at
the start and the fastest runs; the JSON says which. "tv batch" and those marked "a batch" in NOTES draw one set of
numbers for the whole batch, which is less work than one for each image. Freed memory is kept for the next call, for
everyone.
"""

import os
import sys

os.environ.update(
    OMP_NUM_THREADS=sys.argv[sys.argv.index("--threads") + 1] if "--threads" in sys.argv[:-1] else "1",
    NO_ALBUMENTATIONS_UPDATE="1",
)

import argparse
import gc
import importlib.metadata
import json
import platform
import random
import resource
import statistics
import time
import types
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from common.memory import keep_freed_memory

warnings.filterwarnings("ignore")

THREADS = int(os.environ["OMP_NUM_THREADS"])
BATCH, SIZE, WIDE, CLASSES = 64, 224, 256, 10
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCALE = np.array([1 / (255 * std) for std in STD], np.float32)
OFFSET = np.array([-mean / std for mean, std in zip(MEAN, STD, strict=True)], np.float32)
OPERATIONS = (
    "flip", "symmetries", "affine", "perspective", "brightness contrast", "colour jitter", "noise", "salt pepper", "blur",
    "sharpen", "elastic", "erase", "grayscale", "resized crop", "mixup", "full",
)  # fmt: skip
SIDES = ("ours", "albumentations", "torchvision", "tv batch", "kornia", "fastai")
NOTES = {
    "symmetries": "torchvision: two mirrors (4 of the 8); kornia: mirror and quarter turns",
    "affine": "rotate 15°, scale 0.9 to 1.1, shift 10 %, black outside; fastai: no shift",
    "perspective": "ours and fastai: a tilted camera; the others: moved corners; black outside",
    "colour jitter": "ours: hue in YIQ, which is linear; the others: in HSV",
    "noise": "ours: a deviation of up to 0.05, drawn for each image; the others: always 0.05",
    "salt pepper": "ours: up to 2 %, drawn for each image; the others: always 2 %",
    "blur": "deviation up to 1.5; ours: three deviations wide, up to 11 taps; the others: 5 taps",
    "sharpen": "ours: a Gaussian of deviation 1 is taken away; the others: a 3x3 kernel",
    "elastic": "ours: a cubic B-spline of 7x7 knots; the others: smoothed noise, a number for each pixel",
    "erase": "up to a third of the area; fastai: one rectangle a batch",
    "resized crop": "from 256x256, at least 0.35 of the area, bilinear; fastai: one crop a batch",
    "mixup": "torchvision: one share a batch",
    "full": "flip, affine, perspective, brightness, contrast, erasing (half); fastai: one rectangle a batch",
}
PACKAGES = (
    "torch", "torchvision", "kornia", "fastai", "albumentations", "albucore", "opencv-python-headless", "numpy"
)  # fmt: skip
Run = Callable[[], Tensor]
Ways = dict[str, Run]


# --------------------------------------------------------------- what everyone gets, and gives


@cache
def photos(side: int) -> np.ndarray:
    """Crops of scikit-learn's two photos, uint8 (B, side, side, 3)."""
    from sklearn.datasets import load_sample_images

    numbers, whole = np.random.default_rng(0), load_sample_images().images
    cut = []
    for i in range(BATCH):
        photo = whole[i % 2]
        top, left = numbers.integers(photo.shape[0] - side), numbers.integers(photo.shape[1] - side)
        cut.append(photo[top : top + side, left : left + side])
    return np.stack(cut)


def side_of(operation: str) -> int:
    return WIDE if operation == "resized crop" else SIZE


def labels() -> Tensor:
    return torch.arange(BATCH) % CLASSES


@cache
def kept_batch(last: bool) -> Tensor:
    """The buffer that a side may fill again and again, channels last or first in memory."""
    return torch.empty(BATCH, SIZE, SIZE, 3).permute(0, 3, 1, 2) if last else torch.empty(BATCH, 3, SIZE, SIZE)


def spread(makers: list[Callable[[int], None]]) -> None:
    """Gives each thread its share of the images, by a function of its own."""
    if len(makers) == 1:
        for place in range(BATCH):
            makers[0](place)
        return

    def part(first: int) -> None:
        for place in range(first, BATCH, len(makers)):
            makers[first](place)

    list(pool().map(part, range(len(makers))))


@cache
def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS)


ROWS = np.tile(SCALE, SIZE), np.tile(OFFSET, SIZE)
CHANNELS = torch.from_numpy(SCALE)[:, None, None], torch.from_numpy(OFFSET)[:, None, None]


def normalise_rows(image: np.ndarray, out: np.ndarray) -> None:
    """One multiply-add of a uint8 image (H, W, 3) into floats, row by row."""
    flat = out.reshape(SIZE, -1)
    np.multiply(image.reshape(SIZE, -1), ROWS[0], out=flat)
    np.add(flat, ROWS[1], out=flat)


def lies_last(image: Tensor) -> bool:
    """Whether an image (3, H, W) lies channels last in memory."""
    return image.permute(1, 2, 0).is_contiguous()


def normalise(image: Tensor, out: Tensor) -> None:
    """The same of a tensor (3, H, W), uint8 or float in [0, 1]."""
    if image.dtype == torch.uint8 and lies_last(image) and lies_last(out):
        normalise_rows(image.permute(1, 2, 0).numpy(), out.permute(1, 2, 0).numpy())
        return
    scale, offset = CHANNELS
    scale = scale if image.dtype == torch.uint8 else scale * 255
    if image.dtype != torch.uint8 and lies_last(image) and lies_last(out):
        image, out = image.permute(1, 2, 0).reshape(SIZE, -1), out.permute(1, 2, 0).view(SIZE, -1)
        scale, offset = scale.view(3).repeat(SIZE), offset.view(3).repeat(SIZE)
    torch.mul(image, scale, out=out)
    out += offset


def normalised(images: Tensor) -> Tensor:
    """A batch, image by image so that each stays in the cache."""
    out = kept_batch(lies_last(images[0]))
    for image, place in zip(images, out, strict=True):
        normalise(image, place)
    return out


def floats(images: Tensor) -> Tensor:
    """A uint8 batch in [0, 1]."""
    return images.to(torch.float32).mul_(1 / 255)


# --------------------------------------------------------------- ours


def ours(operation: str) -> Ways:
    from common.augment import Augment, BatchPipeline, Mixup
    from common.blocks.batch import Batch
    from common.blocks.sample import SampleEncoder
    from common.data import CategoryBlock, EpochSeed, ImageBlock

    affine = {"rotate": 15, "zoom_least": 0.9, "zoom": 1.1, "translate": 0.1}
    light = {"brightness": 0.2, "contrast": 0.2}
    given = {
        "flip": {"flip": True},
        "symmetries": {"symmetries": True},
        "affine": affine,
        "perspective": {"warp": 0.2},
        "brightness contrast": light,
        "colour jitter": {**light, "saturation": 0.2, "hue": 0.1},
        "noise": {"noise": 0.05},
        "salt pepper": {"salt_pepper": 0.02},
        "blur": {"blur": 1.5},
        "sharpen": {"sharpen": 0.5},
        "elastic": {"elastic": 0.03},
        "erase": {"erase": 0.33, "p_erase": 1},
        "grayscale": {"grayscale": 1},
        "resized crop": {"size": SIZE, "min_scale": 0.35},
        "full": {"flip": True, **affine, "warp": 0.2, **light, "erase": 0.33},
    }
    always = {"p_affine": 1, "p_lighting": 1, "p_texture": 1, "padding": "zeros"}
    transform = Mixup(0.4) if operation == "mixup" else Augment(**{**always, **given[operation]})
    blocks = ImageBlock(), CategoryBlock(tuple(str(i) for i in range(CLASSES)))
    pipeline = BatchPipeline(SampleEncoder(blocks), (transform,))
    whole = Batch(x=torch.from_numpy(photos(side_of(operation))), y=labels(), ids=torch.arange(BATCH))
    count = THREADS
    parts = [whole.map(lambda t, k=k: t.chunk(count)[k].contiguous()) for k in range(count)]
    epoch = [0]

    def run() -> Tensor:
        epoch[0] += 1
        return pipeline(whole, EpochSeed(0, epoch[0]), True).x

    def threads() -> Tensor:  # as a loader's threads do, each with a part of the batch
        epoch[0] += 1
        epoch_seed = EpochSeed(0, epoch[0])
        return torch.cat(list(pool().map(lambda part: pipeline(part, epoch_seed, True).x, parts)))

    return {"one call": run} if count == 1 or operation == "mixup" else {"one call": run, "threads": threads}


# --------------------------------------------------------------- peers


def albumentations(operation: str) -> Ways:
    import albumentations as A

    def moved():
        return A.Affine(scale=(0.9, 1.1), translate_percent=(-0.1, 0.1), rotate=(-15, 15), p=1)

    def lit():
        return A.RandomBrightnessContrast(0.2, 0.2, p=1)

    made = {
        "flip": {"": lambda: [A.HorizontalFlip(p=0.5)]},
        "symmetries": {"": lambda: [A.D4(p=1)]},
        "affine": {"": lambda: [moved()]},
        "perspective": {"": lambda: [A.Perspective((0.05, 0.1), p=1)]},
        "brightness contrast": {"": lambda: [lit()]},
        "colour jitter": {"": lambda: [A.ColorJitter((0.8, 1.2), (0.8, 1.2), (0.8, 1.2), (-0.1, 0.1), p=1)]},
        "noise": {"": lambda: [A.GaussNoise((0.05, 0.05), p=1)]},
        "salt pepper": {"": lambda: [A.SaltAndPepper((0.02, 0.02), p=1)]},
        "blur": {"": lambda: [A.GaussianBlur((5, 5), (0.5, 1.5), p=1)]},
        "sharpen": {"": lambda: [A.Sharpen(p=1)]},
        "elastic": {
            "": lambda: [A.ElasticTransform(50, 5, p=1)],
            "approximate": lambda: [A.ElasticTransform(50, 5, approximate=True, p=1)],
        },
        "erase": {"": lambda: [A.Erasing((0.02, 0.33), p=1)]},
        "grayscale": {"": lambda: [A.ToGray(p=1)]},
        "resized crop": {"": lambda: [A.RandomResizedCrop((SIZE, SIZE), scale=(0.35, 1))]},
        "full": {
            "": lambda: [
                A.HorizontalFlip(p=0.5), moved(), A.Perspective((0.05, 0.1), p=1), lit(), A.Erasing((0.02, 0.33), p=0.5)
            ]
        },
    }  # fmt: skip
    if operation not in made:
        return {}
    images = list(photos(side_of(operation)))
    out = kept_batch(True).permute(0, 2, 3, 1).numpy()
    count = THREADS

    def with_own(steps) -> Run:
        chains = [A.Compose([*steps(), A.Normalize(MEAN, STD)]) for _ in range(count)]

        def maker(chain):
            def make(place: int) -> None:
                out[place] = chain(image=images[place])["image"]

            return make

        makers = [maker(chain) for chain in chains]
        return lambda: (spread(makers), kept_batch(True))[1]

    def with_rows(steps) -> Run:
        chains = [A.Compose(steps()) for _ in range(count)]

        def maker(chain):
            return lambda place: normalise_rows(chain(image=images[place])["image"], out[place])

        makers = [maker(chain) for chain in chains]
        return lambda: (spread(makers), kept_batch(True))[1]

    found: Ways = {}
    for kind, steps in made[operation].items():
        found[f"{kind} its Normalize".strip()] = with_own(steps)
        found[f"{kind} multiply-add".strip()] = with_rows(steps)
    return found


def torchvision_steps(operation: str) -> dict[str, Callable]:
    from torchvision.transforms import v2

    def moved():
        linear = v2.InterpolationMode.BILINEAR
        return v2.RandomAffine(15, translate=(0.1, 0.1), scale=(0.9, 1.1), interpolation=linear)

    made = {
        "flip": {"": lambda: v2.RandomHorizontalFlip(0.5)},
        "symmetries": {"": lambda: v2.Compose([v2.RandomHorizontalFlip(0.5), v2.RandomVerticalFlip(0.5)])},
        "affine": {"": moved},
        "perspective": {"": lambda: v2.RandomPerspective(0.2, p=1)},
        "brightness contrast": {"": lambda: v2.ColorJitter(0.2, 0.2)},
        "colour jitter": {"": lambda: v2.ColorJitter(0.2, 0.2, 0.2, 0.1)},
        "noise": {"": lambda: v2.GaussianNoise(0, 0.05)},
        "blur": {"": lambda: v2.GaussianBlur(5, (0.5, 1.5))},
        "sharpen": {"": lambda: v2.RandomAdjustSharpness(1.5, p=1)},
        "elastic": {"": lambda: v2.ElasticTransform(50.0, 5.0)},
        "erase": {"": lambda: v2.RandomErasing(p=1)},
        "grayscale": {"": lambda: v2.RandomGrayscale(p=1)},
        "resized crop": {
            f"antialias={smooth}": lambda smooth=smooth: v2.RandomResizedCrop(SIZE, (0.35, 1), antialias=smooth)
            for smooth in (False, True)
        },
        "full": {
            "": lambda: v2.Compose(
                [
                    v2.RandomHorizontalFlip(0.5),
                    moved(),
                    v2.RandomPerspective(0.2, p=1),
                    v2.ColorJitter(0.2, 0.2),
                    v2.RandomErasing(p=0.5),
                ]
            )
        },
    }
    return made.get(operation, {})


def forms(operation: str) -> dict[str, Callable[[], Tensor]]:
    """What a library of tensors may start from: the photos as they lie, copied to channels first, or as floats."""
    lies = torch.from_numpy(photos(side_of(operation))).permute(0, 3, 1, 2)
    return {
        "uint8": lambda: lies,
        "uint8 channels first": lambda: lies.contiguous(),
        "float": lambda: floats(lies),
        "float channels first": lambda: floats(lies.contiguous()),
    }


def torchvision(operation: str) -> Ways:
    found: Ways = {}
    for kind, make in torchvision_steps(operation).items():
        step = make()

        def run(start: Callable[[], Tensor], step: Callable, last: dict[str, bool]) -> Tensor:
            images = start()
            if not last:  # the layout in which its images come
                last["last"] = lies_last(step(images[0]))
            out = kept_batch(last["last"])

            def change(place: int) -> None:
                normalise(step(images[place]), out[place])

            spread([change] * THREADS)
            return out

        for form, start in forms(operation).items():
            found[f"{kind} {form}".strip()] = partial(run, start, step, {})
    return found


def torchvision_batch(operation: str) -> Ways:
    from torchvision.transforms import v2

    if operation == "mixup":
        mix = v2.MixUp(alpha=0.4, num_classes=CLASSES)
        found = forms(operation)
        return {
            form: lambda start=start: normalised(mix(start(), labels())[0])
            for form, start in found.items()
            if form.startswith("float")
        }
    return {
        f"{kind} {form}".strip(): lambda start=start, step=step: normalised(step(start()))
        for kind, step in ((kind, make()) for kind, make in torchvision_steps(operation).items())
        for form, start in forms(operation).items()
    }


def kornia(operation: str) -> Ways:
    import kornia.augmentation as K

    def lit():
        return [K.RandomBrightness((0.8, 1.2), p=1), K.RandomContrast((0.8, 1.2), p=1)]

    def moved():
        return K.RandomAffine(15.0, translate=(0.1, 0.1), scale=(0.9, 1.1), p=1)

    def crop(mode: str):
        return lambda: [K.RandomResizedCrop((SIZE, SIZE), (0.35, 1), p=1, cropping_mode=mode)]

    made = {
        "flip": {"": lambda: [K.RandomHorizontalFlip(p=0.5)]},
        "symmetries": {"": lambda: [K.RandomHorizontalFlip(p=0.5), K.RandomRotation90((0, 3), p=1)]},
        "affine": {"": lambda: [moved()]},
        "perspective": {"": lambda: [K.RandomPerspective(0.2, p=1)]},
        "brightness contrast": {"": lit},
        "colour jitter": {"": lambda: [K.ColorJitter(0.2, 0.2, 0.2, 0.1, p=1)]},
        "noise": {"": lambda: [K.RandomGaussianNoise(0.0, 0.05, p=1)]},
        "salt pepper": {"": lambda: [K.RandomSaltAndPepperNoise(amount=(0.02, 0.02), p=1)]},
        "blur": {"": lambda: [K.RandomGaussianBlur((5, 5), (0.5, 1.5), p=1)]},
        "sharpen": {"": lambda: [K.RandomSharpness(1.5, p=1)]},
        "elastic": {"": lambda: [K.RandomElasticTransform((63, 63), (5.0, 5.0), (1.0, 1.0), p=1)]},
        "erase": {"": lambda: [K.RandomErasing((0.02, 0.33), p=1)]},
        "grayscale": {"": lambda: [K.RandomGrayscale(p=1)]},
        "resized crop": {mode: crop(mode) for mode in ("slice", "resample")},
        "mixup": {"": lambda: [K.RandomMixUpV2(p=1, data_keys=["input", "class"])]},
        "full": {
            "": lambda: [
                K.RandomHorizontalFlip(p=0.5), moved(), K.RandomPerspective(0.2, p=1), *lit(),
                K.RandomErasing((0.02, 0.33), p=0.5),
            ]
        },
    }  # fmt: skip
    found: Ways = {}
    for kind, make in made.get(operation, {}).items():
        steps = make()
        chain = steps[0] if len(steps) == 1 else K.AugmentationSequential(*steps, data_keys=["input"])

        def run(start: Callable[[], Tensor], chain=chain) -> Tensor:
            out = chain(start(), labels())[0] if operation == "mixup" else chain(start())
            return normalised(out)

        for form, start in forms(operation).items():
            if "float" in form:
                found[f"{kind} {form}".strip()] = lambda start=start, run=run: run(start)
    return found


def fastai(operation: str) -> Ways:
    from fastai.callback.mixup import MixUp
    from fastai.data.transforms import IntToFloatTensor, Normalize
    from fastai.vision import augment as F
    from fastai.vision.core import TensorImage
    from fasttransform import Pipeline

    black = {"pad_mode": "zeros"}

    def lit():
        return [F.Brightness(p=1), F.Contrast(p=1)]

    def moved():
        return [F.Rotate(15, p=1, **black), F.Zoom(0.9, 1.1, p=1, **black)]

    made = {
        "flip": lambda: [F.Flip(p=0.5)],
        "symmetries": lambda: [F.Dihedral(p=1)],
        "affine": moved,
        "perspective": lambda: [F.Warp(0.2, p=1, **black)],
        "brightness contrast": lit,
        "colour jitter": lambda: [*lit(), F.Saturation(p=1), F.Hue(p=1)],
        "erase": lambda: [F.RandomErasing(p=1, sh=0.33)],
        "resized crop": lambda: [F.RandomResizedCropGPU(SIZE, min_scale=0.35)],
        "mixup": lambda: [],
        "full": lambda: [
            F.Flip(p=0.5), *moved(), F.Warp(0.2, p=1, **black), *lit(), F.RandomErasing(p=0.5, sh=0.33)
        ],
    }  # fmt: skip
    if operation not in made:
        return {}
    ends = [IntToFloatTensor(), Normalize.from_stats(MEAN, STD, cuda=False)]
    steps = Pipeline([*F.setup_aug_tfms(made[operation]()), *ends], split_idx=0)
    mix = MixUp(0.4)

    def mixed(images: Tensor) -> Tensor:
        mix.learn = types.SimpleNamespace(
            x=images, y=labels(), xb=(images,), yb=(labels(),), loss_func=types.SimpleNamespace(y_int=True)
        )
        mix.stack_y = True
        mix.before_batch()
        return mix.learn.xb[0]

    def run(start: Callable[[], Tensor]) -> Tensor:
        out = steps(TensorImage(start()))
        return mixed(out) if operation == "mixup" else out

    return {form: lambda start=start: run(start) for form, start in forms(operation).items() if "uint8" in form}


MAKERS = dict(zip(SIDES, (ours, albumentations, torchvision, torchvision_batch, kornia, fastai), strict=True))


# --------------------------------------------------------------- measurement


def cpu_s() -> float:
    """CPU seconds of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def timed(run: Run, least_s: float) -> tuple[float, float]:
    """Calls for at least so many seconds and returns wall and CPU seconds a call."""
    calls, wall, cpu = 0, time.perf_counter(), cpu_s()
    while True:
        run()
        calls += 1
        if time.perf_counter() - wall >= least_s:
            return (time.perf_counter() - wall) / calls, (cpu_s() - cpu) / calls


def checked(run: Run) -> float:
    """Calls once, sees that what comes is what was asked for, and returns the seconds that it took."""
    started = time.perf_counter()
    out = run()
    seconds = time.perf_counter() - started
    if tuple(out.shape) != (BATCH, 3, SIZE, SIZE) or out.dtype != torch.float32:
        raise ValueError(f"gave {out.dtype} {tuple(out.shape)}")
    mean, std = out.mean().item(), out.std().item()
    if not -2 < mean < 2 or not 0.3 < std < 3:  # noise may lie beyond white, and fastai erases with it
        raise ValueError(f"is not normalised: mean {mean:.1f}, deviation {std:.1f}")
    return seconds


def fastest(ways: Ways) -> tuple[str, Run, dict[str, float], dict[str, str]]:
    """Tries the ways and returns the fastest, the milliseconds of each, and the errors of those that cannot."""
    ms, errors = {}, {}
    for way, run in ways.items():
        try:
            ms[way] = checked(run) * 1e3
            if ms[way] < 1000:  # else the first call says enough
                ms[way] = timed(run, 0.05)[0] * 1e3
        except Exception as error:  # a way that a peer does not have is a result too
            errors[way] = f"{type(error).__name__}: {error}"[:200]
    near = [way for way in ms if ms[way] < 1.6 * min(ms.values())]
    for _ in range(2 if len(near) > 1 and min(ms.values()) < 1000 else 0):
        for way in near:
            ms[way] = min(ms[way], timed(ways[way], 0.05)[0] * 1e3)
    best = min(ms, key=lambda way: ms[way], default="")
    return best, ways[best] if ms else (lambda: torch.empty(0)), ms, errors


def measure(operation: str, rounds: int) -> dict[str, dict]:
    """Runs the sides in turn and returns what each took."""
    found: dict[str, dict] = {}
    runs: dict[str, Run] = {}
    for side, make in MAKERS.items():
        ways = make(operation)
        if not ways:
            continue
        best, run, ms, errors = fastest(ways)
        found[side] = {"tried_ms": {way: round(value, 1) for way, value in ms.items()}}
        if errors:
            found[side]["errors"] = errors
        if ms:
            runs[side] = run
            found[side] |= {"way": best, "wall_ms": [], "cpu_ms": []}
    for _ in range(rounds):
        for side, run in runs.items():
            gc.collect()
            wall, cpu = timed(run, 0.15)
            found[side]["wall_ms"].append(round(wall * 1e3, 2))
            found[side]["cpu_ms"].append(round(cpu * 1e3, 2))
    for side in runs:
        for what in ("wall", "cpu"):
            own, mine = found[side][f"{what}_ms"], found["ours"][f"{what}_ms"]
            found[side][f"{what}_ms_median"] = statistics.median(own)
            found[side][f"{what}_ratio"] = round(statistics.median(a / b for a, b in zip(own, mine, strict=True)), 2)
    return found


def table(found: dict[str, dict[str, dict]]) -> str:
    """One line an operation: our milliseconds a batch, then each peer's and how many times ours; ! marks a loss."""
    lines = [f"{'wall ms a batch of 64':22}{'ours':>8}" + "".join(f"{side:>19}" for side in SIDES[1:])]
    for operation, sides in found.items():
        line = f"{operation:22}{sides['ours']['wall_ms_median']:>8.1f}"
        for side in SIDES[1:]:
            result = sides.get(side, {})
            if "wall_ratio" not in result:
                line += f"{'failed' if result else '-':>19}"
                continue
            mark = "!" if result["wall_ratio"] < 1 else " "
            line += f"{result['wall_ms_median']:>10.1f} {result['wall_ratio']:>6.2f}x{mark}"
        lines.append(line)
    return "\n".join(lines)


def version(name: str) -> str | None:
    """Returns a package's version, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch, of OpenCV, and over the images of a batch"
    )  # read above
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ops", help="operations, separated by commas")
    parser.add_argument("--out", help="a JSON file for the result")
    given = parser.parse_args()
    torch.set_num_threads(THREADS)
    cv2.setNumThreads(THREADS)
    random.seed(0)
    np.random.seed(0)  # the peers draw from it
    torch.manual_seed(0)
    kept = keep_freed_memory()
    started, load = time.perf_counter(), os.getloadavg()[0]
    found = {}
    for operation in OPERATIONS:
        if not given.ops or operation in given.ops.split(","):
            found[operation] = measure(operation, given.rounds)
            print(f"{operation}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    print(table(found))
    losses = [
        f"{operation}: {side} {result['wall_ratio']}"
        for operation, sides in found.items()
        for side, result in sides.items()
        if side != "ours" and result.get("wall_ratio", 1) < 1
    ]
    print("losses (tv batch draws once a batch):", "; ".join(losses) or "none")
    result = {
        "what": f"milliseconds a batch of {BATCH} photos, {SIZE}x{SIZE}, from uint8 to normalised float32, on the CPU",
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version(), "load_before": round(load, 2)},
        "versions": {name: version(name) for name in PACKAGES},
        "threads": THREADS, "rounds": given.rounds, "keeps_freed_memory": kept,
        "wall_s": round(time.perf_counter() - started, 1),
        "notes": NOTES, "losses": losses, "operations": found,
    }  # fmt: skip
    if given.out:
        Path(given.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
