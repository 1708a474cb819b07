"""Photo-like JPEGs of about 500 x 375 pixels for `bench_loading.py`, from the two photos that scikit-learn carries.

Each is a crop of one of them, at times turned, mirrored or blended with another, with light and sensor noise of its
own, saved at a quality between 75 and 95.

    .venv/bin/python tests/benchmarks/photos.py --dir FOLDER
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

SIZES = ((500, 375), (500, 333), (375, 500), (500, 400), (480, 360))


def part(rng: np.random.Generator, sources: list[Image.Image], size: tuple[int, int]) -> Image.Image:
    """A random part of a random source, at a size."""
    source = sources[rng.integers(len(sources))]
    if rng.random() < 0.3:
        source = source.rotate(rng.uniform(-10, 10), Image.Resampling.BILINEAR)
    share = rng.uniform(0.5, 1.0) * min(source.width / size[0], source.height / size[1])
    width, height = int(size[0] * share), int(size[1] * share)
    left, top = rng.integers(source.width - width + 1), rng.integers(source.height - height + 1)
    box = (left, top, left + width, top + height)
    made = source.resize(size, Image.Resampling.BICUBIC, box=box)
    return made.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else made


def write(folder: Path, count: int, classes: int = 10, seed: int = 0) -> int:
    """Writes the photos into class folders and returns their bytes."""
    rng = np.random.default_rng(seed)
    sources = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    total = 0
    for i in range(count):
        size = SIZES[rng.integers(len(SIZES))]
        pixels = np.asarray(part(rng, sources, size), np.float32)
        if rng.random() < 0.3:
            pixels = pixels * 0.65 + 0.35 * np.asarray(part(rng, sources, size), np.float32)
        pixels = (
            pixels * rng.uniform(0.8, 1.2, 3) + rng.uniform(-15, 15) + rng.normal(0, rng.uniform(1, 4), pixels.shape)
        )
        path = folder / f"class_{i % classes:02d}" / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=int(rng.integers(75, 96)))
        total += path.stat().st_size
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", required=True, type=Path)
    parser.add_argument("--count", type=int, default=2000)
    given = parser.parse_args()
    print(f"{given.count} photos, {write(given.dir, given.count) / given.count / 1024:.0f} KiB each")
