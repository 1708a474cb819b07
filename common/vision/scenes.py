"""Synthetic scenes of handwritten digits on photos, with classes, boxes, masks and captions; needs no network.

The digits are scikit-learn's (UCI, CC BY 4.0), the photos its sample images china.jpg and flower.jpg (CC BY 2.0).

Floor: vision; may import train and below. Used by: applications.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from common.blocks.objects import Objects
from common.errors import ConfigError, in_range, one_of

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PARTS = ("train", "valid", "test")
SHARES = (0.6, 0.75)  # quantiles of each digit's samples at which train ends and test begins
STRIPS = ((0.0, 0.5), (0.5, 0.75), (0.75, 1.0))  # shares of the photos' width for each part: no shared backgrounds
SIDES = (28 / 128, 56 / 128)  # least and greatest side of a digit, as shares of the scene's shorter side
RIM = 3  # width in pixels of the dark rim around a digit
SHADE = 0.75  # how much the rim darkens, from 0 to 1
GAP = 2  # pixels between the boxes of two digits
TRIES = 30


class Scene(NamedTuple):
    """Digits on a photo, with their annotations.

    Attributes:
        name: Its name for people.
        pixels: uint8 (H, W, 3).
        objects: Boxes (x0, y0, x1, y1) in pixels, labels ``"0"`` to ``"9"``, and shapes as run lengths; see `Objects`.
        mask: uint8 (H, W): 0 background, else 1 + the digit.
        caption: A caption, such as ``a three above a seven``.
    """

    name: str
    pixels: np.ndarray
    objects: Objects
    mask: np.ndarray
    caption: str


@cache
def _digits(part: str) -> tuple[list[np.ndarray], list[int]]:
    """The digits of a part, float32 (8, 8) in [0, 1] each, and their labels; parts share no digit."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    images, labels = data.images, data.target
    chosen: list[int] = []
    for digit in range(10):
        rows = np.random.default_rng(digit).permutation(np.flatnonzero(labels == digit))
        first, second = (round(share * len(rows)) for share in SHARES)
        chosen += {"train": rows[:first], "valid": rows[first:second], "test": rows[second:]}[part].tolist()
    return [(images[row] / 16).astype(np.float32) for row in chosen], [int(labels[row]) for row in chosen]


@cache
def _photos(part: str) -> list[np.ndarray]:
    """The strips of the photos that a part's backgrounds are cut from, uint8 (H, W, 3)."""
    from sklearn.datasets import load_sample_image

    low, high = STRIPS[PARTS.index(part)]
    whole = [np.asarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    return [photo[:, round(low * photo.shape[1]) : round(high * photo.shape[1])] for photo in whole]


def make_scenes(
    count: int, *, seed: int = 0, size: tuple[int, int] = (128, 128), most: int = 4, part: str = "train"
) -> list[Scene]:
    """Returns scenes of one to ``most`` digits that do not overlap; each is a function of (seed, part, its position).

    Args:
        count: The number of scenes.
        seed: Random seed.
        size: (height, width) of each, in pixels.
        most: The most digits in one.
        part: ``train``, ``valid`` or ``test``: they share no digit and no piece of a photo.

    Raises:
        ConfigError: for a part that is none of these, or a number out of its range.

    Examples:
        >>> scene = make_scenes(1, seed=3)[0]
        >>> scene.pixels.shape, scene.mask.shape, len(scene.objects.boxes) >= 1
        ((128, 128, 3), (128, 128), True)
    """
    one_of("part", part, PARTS)
    in_range("count", count, 0, 10_000_000)
    in_range("most", most, 1, 16)
    if min(size) < 32 or max(size) > 4096:
        raise ConfigError(f"size must be 32 to 4096 pixels (height, width), got {size}")
    return [_scene(part, seed, i, size, most) for i in range(count)]


def embedded_scenes(
    train: int, valid: int, test: int, *, seed: int = 0, size: tuple[int, int] = (128, 128), most: int = 4
) -> tuple[list[Scene], np.ndarray]:
    """Returns the scenes of all parts, concatenated, and the part of each, as a `Source` takes them.

    Args:
        train: The number of training scenes.
        valid: The number of validation scenes.
        test: The number of test scenes.
        seed: Random seed.
        size: (height, width) of each, in pixels.
        most: The most digits in one.
    """
    counts = dict(zip(PARTS, (train, valid, test), strict=True))
    found = [
        scene for part, n in counts.items() for scene in make_scenes(n, seed=seed, size=size, most=most, part=part)
    ]
    return found, np.repeat(np.array(PARTS), list(counts.values()))


def _scene(part: str, seed: int, index: int, size: tuple[int, int], most: int) -> Scene:
    rng = np.random.default_rng([seed, PARTS.index(part), index])
    pixels = _background(rng, part, size)
    mask = np.zeros(size, np.uint8)
    images, kinds = _digits(part)
    found: list[tuple[tuple[int, int, int, int], str, dict[str, Any]]] = []
    for _ in range(int(rng.integers(1, most + 1))):
        row = int(rng.integers(len(images)))
        cover = _enlarged(rng, images[row], min(size))
        corner = _free_place(rng, cover.shape, size, [box for box, _, _ in found])
        if corner is None:
            continue
        y, x = corner
        _paint(rng, pixels, cover, corner)
        inside = cover > 0.5
        mask[y : y + cover.shape[0], x : x + cover.shape[1]][inside] = 1 + kinds[row]
        box = (x, y, x + cover.shape[1], y + cover.shape[0])
        found.append((box, str(kinds[row]), _run_lengths(inside, corner, size)))
    found.sort(key=lambda thing: thing[0])  # from left to right, the order of the caption
    boxes, labels, shapes = [f[0] for f in found], [f[1] for f in found], [f[2] for f in found]
    areas = [float(sum(shape["counts"][1::2])) for shape in shapes]
    objects = Objects(boxes, labels, shapes, areas=areas, size=size)
    return Scene(f"scenes/{part}[{index}]", pixels, objects, mask, _caption(boxes, labels))


def _background(rng: np.random.Generator, part: str, size: tuple[int, int]) -> np.ndarray:
    """A random piece of a photo with the scene's proportions, mirrored half of the time; a new array."""
    import cv2

    photos = _photos(part)
    photo = photos[int(rng.integers(len(photos)))]
    largest = min(photo.shape[0] / size[0], photo.shape[1] / size[1])
    scale = largest * float(rng.uniform(0.5, 1.0))
    height, width = (max(1, int(side * scale)) for side in size)
    y, x = int(rng.integers(photo.shape[0] - height + 1)), int(rng.integers(photo.shape[1] - width + 1))
    piece = photo[y : y + height, x : x + width]
    found = cv2.resize(piece, (size[1], size[0]), interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR)
    return np.ascontiguousarray(found[:, ::-1] if rng.integers(2) else found)


def _enlarged(rng: np.random.Generator, digit: np.ndarray, shorter: int) -> np.ndarray:
    """The alpha mask of an enlarged digit, float32 in [0, 1], cropped to where it exceeds one half."""
    import cv2

    side = int(rng.integers(round(SIDES[0] * shorter), round(SIDES[1] * shorter) + 1))
    smooth = cv2.resize(np.pad(digit, 1), (side * 10 // 8, side * 10 // 8), interpolation=cv2.INTER_CUBIC)
    cover = np.clip((smooth - 0.4) / 0.3, 0, 1)  # the strokes' grey edges, made a few pixels wide
    inside = cover > 0.5
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return cover[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _free_place(
    rng: np.random.Generator, shape: tuple[int, ...], size: tuple[int, int], boxes: list[tuple[int, int, int, int]]
) -> tuple[int, int] | None:
    """The upper left corner (y, x) of a free place, or None where none was found in `TRIES` tries."""
    height, width = shape[0], shape[1]
    for _ in range(TRIES):
        y, x = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
        if all(
            x + width + GAP <= x0 or x1 + GAP <= x or y + height + GAP <= y0 or y1 + GAP <= y
            for x0, y0, x1, y1 in boxes
        ):
            return y, x
    return None


def _paint(rng: np.random.Generator, pixels: np.ndarray, cover: np.ndarray, corner: tuple[int, int]) -> None:
    """Paints a digit in a light colour with a dark rim, which is legible on any background."""
    import colorsys

    import cv2

    (y, x), (height, width), (rows, columns) = corner, cover.shape, pixels.shape[:2]
    top, left, bottom, right = (
        max(0, y - RIM),
        max(0, x - RIM),
        min(rows, y + height + RIM),
        min(columns, x + width + RIM),
    )
    inside = slice(top - y + RIM, bottom - y + RIM), slice(left - x + RIM, right - x + RIM)
    whole = np.pad(cover, RIM)
    rim = cv2.GaussianBlur(cv2.dilate(whole, np.ones((3, 3), np.uint8)), (0, 0), 1.2)[inside][:, :, None]
    hue, strength, value = float(rng.random()), float(rng.uniform(0.2, 0.6)), float(rng.uniform(0.9, 1.0))
    color = np.array(colorsys.hsv_to_rgb(hue, strength, value), np.float32) * 255
    share, window = whole[inside][:, :, None], pixels[top:bottom, left:right]
    window[:] = np.rint(window * (1 - SHADE * rim) * (1 - share) + color * share).astype(np.uint8)


def _run_lengths(inside: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    """A mask at its place in the scene as COCO run lengths (column-major): a hundredth of the mask's memory."""
    whole = np.zeros(size, np.bool_)
    whole[corner[0] : corner[0] + inside.shape[0], corner[1] : corner[1] + inside.shape[1]] = inside
    flat = whole.T.reshape(-1)
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return {"size": list(size), "counts": [0, *runs] if flat[0] else runs}


def _caption(boxes: list[tuple[int, int, int, int]], labels: list[str]) -> str:
    """Two digits by their relative position, more as a list from left to right."""
    words = [f"{'an' if label == '8' else 'a'} {NAMES[int(label)]}" for label in labels]
    if len(words) == 1:
        return words[0]
    if len(words) > 2:
        return f"{', '.join(words[:-1])} and {words[-1]}"
    (ax, ay), (bx, by) = (((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in boxes)
    if abs(by - ay) > abs(bx - ax):
        return f"{words[0]} above {words[1]}" if ay < by else f"{words[1]} above {words[0]}"
    return f"{words[0]} left of {words[1]}" if ax < bx else f"{words[1]} left of {words[0]}"
