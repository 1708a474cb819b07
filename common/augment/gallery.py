"""The page of pictures, PICTURES.md, drawn by the pipeline itself: ``python -m common.augment.gallery``.

Every operation is shown at chosen strengths: instead of numbers drawn for a sample, chosen ones go through the
operation and the pipeline, and a mask, a box and points go with the photo.

Floor: augment; may import sources and below. Used by: scripts.
"""

import inspect
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from common.augment import mixing, mosaic, moves, spectral, textures
from common.augment.batch_transforms import Augment, BatchTransform, CutMix, Mixup, Mosaic, SpecAugment
from common.augment.drawn import Drawn
from common.augment.operations import Operation
from common.augment.pipeline import BatchPipeline, with_operation
from common.blocks.batch import Batch
from common.blocks.objects import BBoxBlock
from common.blocks.sample import SampleEncoder
from common.blocks.spatial import ImageBlock, MaskBlock, PointBlock
from common.blocks.values import Padded
from common.files import write_bytes, write_text

PAGE = Path(__file__).with_name("PICTURES.md")
FOLDER = Path(__file__).with_name("pictures")
SIDE, GAP, CAPTION = 192, 10, 20
"""Pixels of a panel, between panels, and of the line below each."""
FRAMES, BANDS = 192, 96
VEIL = 0.22
"""How much of a mask's colour lies over the photo."""
MOST_BYTES = 90_000
LAST = 1 - 1e-9  # a uniform number lies below 1
CODES = ("background", "pagoda", "flower")
COLOURS = ((0, 0, 0), (255, 0, 220), (0, 230, 90))
YELLOW, CYAN, GREY = (255, 230, 0), (0, 240, 255), (90, 90, 90)
PAGODA = (
    (196, 30), (214, 30), (217, 62), (240, 84), (265, 98), (318, 118), (316, 128), (294, 137), (294, 160), (329, 172),
    (319, 187), (327, 230), (320, 240), (352, 252), (341, 270), (342, 300), (349, 312), (376, 332), (368, 350),
    (330, 374), (302, 362), (300, 388), (215, 388), (205, 363), (160, 358), (76, 340), (80, 284), (62, 272), (92, 246),
    (97, 230), (98, 188), (83, 172), (118, 160), (120, 142), (95, 130), (96, 108), (150, 90), (185, 68), (193, 58),
)  # fmt: skip
POINTS = ((205, 30), (96, 118), (318, 120), (63, 272), (351, 252))
FLOWER = tuple((308 + 137 * np.cos(a), 222 + 136 * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 48, endpoint=False))
HEAD = """# Every operation in pictures

Drawn by `python -m common.augment.gallery`, which sends the photo, a mask (purple), its box (yellow) and five points
(blue) through the pipeline with chosen numbers instead of drawn ones. A box follows the outline of what it holds. What
lies beyond the photo is its mirror image, in the mask, too. Mixup and CutMix refuse points and take a flower (green).

![the photo as it is](pictures/original.jpg)

Photos: "china.jpg" by [danielbuechele](https://www.flickr.com/photos/danielbuechele/6061409035/sizes/z/in/photostream/)
and "flower.jpg" (attributed to danielbuechele, from
[vultilion](https://www.flickr.com/photos/vultilion/6056698931/sizes/z/in/photostream/)), both under
[CC BY 2.0](https://creativecommons.org/licenses/by/2.0/), as scikit-learn ships them; cut, made smaller and changed by
the operations. The spectrogram is made of sweeping tones.
"""

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Strip:
    """The panels of one operation.

    Attributes:
        transform: The transform as a user writes it, with this operation alone.
        captions: The caption below each panel.
        numbers: The operation's uniform numbers for each panel, None where it changes nothing; for `Mixup` and `CutMix`
            the sample's own share.
    """

    transform: BatchTransform
    captions: tuple[str, ...]
    numbers: tuple[Numbers | None, ...]

    @property
    def written(self) -> str:
        """The transform as code."""
        given = ((f.name, getattr(self.transform, f.name), f.default) for f in fields(cast(Any, self.transform)))
        return f"{type(self.transform).__name__}({', '.join(f'{n}={v!r}' for n, v, usual in given if v != usual)})"


def strips() -> dict[str, Strip]:
    """Returns the panels of every operation, by its name."""
    fifths = (0.2, 0.4, 0.6, 0.8, 1.0)
    ends = (0.0, 0.25, 0.5, 0.75, 1.0)

    def rising(transform: BatchTransform, most: float, unit: str, rest: Numbers = (), digits: int = 0) -> Strip:
        captions = tuple(f"{most * part:.{digits}f}{unit}" for part in fifths)
        return Strip(transform, captions, tuple((part, *rest) for part in fifths))

    def about(transform: BatchTransform, captions: str) -> Strip:
        return Strip(transform, tuple(captions.split("; ")), tuple((part,) for part in ends))

    def away(transform: BatchTransform, most: float, unit: str, count: int = 1) -> Strip:
        captions = tuple(f"{most * part:g}{unit}" for part in fifths)
        return Strip(transform, captions, tuple((0.5 + part / 2,) * count for part in fifths))

    def two(transform: BatchTransform, after: str) -> Strip:
        return Strip(transform, ("as it was", after), (None, ()))

    symmetries = (
        "as it was; mirrored; upside down; half a turn; on the diagonal; a quarter left; a quarter right; "
        "on the other diagonal"
    )
    places = np.random.default_rng(2).choice([-1, 1], moves.Elastic().numbers)  # as far as it may bend
    shares, kept = (1.0, 0.85, 0.7, 0.5, 0.35), (0.9, 0.8, 0.7, 0.6, 0.5)
    tries = moves.Crop.tries
    one_band = {"time_masks": 1, "frequency_masks": 1}
    return {
        "flip_horizontal": two(Augment(flip=True), "mirrored"),
        "flip_vertical": two(Augment(flip_vertical=True), "upside down"),
        "symmetry": Strip(
            Augment(symmetries=True), tuple(symmetries.split("; ")), tuple(((i + 0.5) / 8,) for i in range(8))
        ),
        "rotate": away(Augment(rotate=30), 30, "°"),
        "zoom": Strip(
            Augment(zoom=2), tuple(f"x {1 + part:.1f}" for part in fifths), tuple((part, 0.5, 0.3) for part in fifths)
        ),
        "translate": away(Augment(translate=0.25), 25, " %", 2),
        "warp": away(Augment(warp=0.5), 0.5, "", 2),
        "crop": Strip(
            Augment(size=SIDE, min_scale=0.35),
            tuple(f"{share:.0%} of the area".replace("%", " %") for share in shares),
            tuple(((share - 0.35) / 0.65,) * tries + (0.5,) * tries + (0.4, 0.3) for share in shares),
        ),
        "elastic": Strip(
            Augment(elastic=0.06),
            tuple(f"{6 * part:.1f} %" for part in fifths),
            tuple(tuple(float(at) for at in 0.5 + places * part / 2) for part in fifths),
        ),
        "brightness": about(Augment(brightness=0.5), "x 0.5; x 0.75; x 1; x 1.25; x 1.5"),
        "contrast": about(Augment(contrast=0.5), "x 0.5; x 0.71; x 1; x 1.41; x 2"),
        "saturation": about(Augment(saturation=0.75), "x 0.25; x 0.5; x 1; x 2; x 4"),
        "hue": about(Augment(hue=0.25), "-90°; -45°; 0°; 45°; 90°"),
        "grayscale": two(Augment(grayscale=0.1), "grey"),
        "blur": rising(Augment(blur=3), 3, " pixels", digits=1),
        "sharpen": rising(Augment(sharpen=3), 3, "", digits=1),
        "noise": rising(Augment(noise=0.2), 0.2, "", digits=2),
        "salt_pepper": rising(Augment(salt_pepper=0.2), 20, " %"),
        "erase": Strip(
            Augment(erase=0.3),
            tuple(f"{30 * part:.0f} % of the area" for part in fifths),
            tuple(((0.3 * part - 0.02) / 0.28, 0.4, 0.6, 0.45) for part in fifths),
        ),
        "mixup": Strip(Mixup(), tuple(f"{share:.0%} its own".replace("%", " %") for share in kept), _single(kept)),
        "cutmix": Strip(CutMix(), tuple(f"{share:.0%} its own".replace("%", " %") for share in kept), _single(kept)),
        "mosaic": Strip(
            Mosaic(),
            (
                "as it was",
                *(f"corner {place}" for place in ("left above", "in the middle", "right above", "right below")),
            ),
            (None, *((*at, 0.26 * i, *_STARTS) for i, at in enumerate(_CORNERS.values()))),
        ),
        "time_mask": rising(SpecAugment(time_mask=0.3, **one_band, frequency_mask=0), 30, " %", (0.4,)),
        "frequency_mask": rising(SpecAugment(frequency_mask=0.3, **one_band, time_mask=0), 30, " %", (0.4,)),
        "time_shift": away(SpecAugment(shift=0.5, time_mask=0, frequency_mask=0), 50, " %"),
        "gain": about(SpecAugment(gain=12, time_mask=0, frequency_mask=0), "-12 dB; -6 dB; 0 dB; 6 dB; 12 dB"),
    }


_CORNERS = {"above left": (0.1, 0.1), "in the middle": (0.5, 0.5), "above right": (0.1, 0.9), "below": (0.9, 0.6)}
_STARTS = (0.2, 0.6, 0.8, 0.3, 0.5, 0.5, 0.3, 0.2)


def _single(values: Sequence[float]) -> tuple[Numbers, ...]:
    return tuple((value,) for value in values)


# What goes through the pipeline


@dataclass(frozen=True)
class Scene:
    """A photo with its mask, box and points, as a batch of one."""

    blocks: tuple[Any, ...]
    x: Tensor
    y: tuple[Any, ...]

    def times(self, count: int) -> Batch:
        """Returns a batch of the scene, so many times."""
        batch = Batch(x=self.x, y=self.y, ids=torch.zeros(1, dtype=torch.int64))
        return replace(batch.map(lambda t: t.repeat(count, *[1] * (t.dim() - 1))), ids=torch.arange(count))


@cache
def scene(name: str, wide: bool = False, pointed: bool = True) -> Scene:
    """Returns a photo of scikit-learn with its mask, box and points.

    Args:
        name: ``pagoda`` or ``flower``.
        wide: Whether to keep the whole photo; else a square around the object.
        pointed: Whether to add points.
    """
    from sklearn.datasets import load_sample_image

    file, polygon, left = ("china.jpg", PAGODA, 0) if name == "pagoda" else ("flower.jpg", FLOWER, 95)
    photo = Image.fromarray(load_sample_image(file))
    high = photo.height
    around = (0, 0, photo.width, high) if wide else (left, 0, left + high, high)
    size = round(SIDE * (around[2] - around[0]) / high), SIDE
    pixels = np.asarray(photo.resize(size, Image.Resampling.LANCZOS, box=around))

    def placed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [((x - around[0]) * SIDE / high, y * SIDE / high) for x, y in points]

    outline = placed(polygon)
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).polygon(outline, fill=CODES.index(name))
    corners = np.array(outline)
    box = [*corners.min(axis=0), *corners.max(axis=0)]
    boxes = BBoxBlock(CODES[1:], outlined=True)
    blocks = ImageBlock(), MaskBlock(CODES), boxes, PointBlock()
    thing = {k: v[None] for k, v in boxes.encode(([box], [name], [outline])).items()}
    found = Padded(thing, torch.ones(1, 1, dtype=torch.bool))
    y = blocks[1].encode(mask)[None], found, blocks[3].encode(placed(POINTS))[None]
    count = len(blocks) if pointed else len(blocks) - 1
    return Scene(blocks[:count], torch.from_numpy(pixels.copy())[None], y[: count - 1])


@cache
def sound() -> Tensor:
    """Returns a spectrogram of sweeping tones in decibels, float32 (1, frames, bands): lower bands first."""
    time = np.arange(FRAMES)[:, None] / FRAMES
    band = np.arange(BANDS)[None] / BANDS
    power = np.random.default_rng(0).uniform(0.5, 1.5, (FRAMES, BANDS)) * 1e-7
    sweeps = ((0.05, 0.45, 0.1, 0.7), (0.3, 0.9, 0.8, 0.35), (0.55, 0.95, 0.15, 0.25))
    for start, end, low, high in sweeps:
        part = (time - start) / (end - start)
        loud = np.where((part >= 0) & (part <= 1), np.sin(np.pi * part.clip(0, 1)), 0)
        for tone, level in ((0, 1.0), (0.16, 0.1), (0.27, 0.02)):
            power = power + level * loud * np.exp(-(((band - low - (high - low) * part - tone) / 0.012) ** 2))
    return torch.from_numpy(10 * np.log10(power)).to(torch.float32)[None]


# How it goes through


def pipeline_of(strip: Strip) -> tuple[BatchPipeline, Operation]:
    """Returns the pipeline of a strip's transform, and its one operation."""
    given = scene("pagoda", pointed=not isinstance(strip.transform, (Mixup, CutMix, Mosaic)))
    if isinstance(strip.transform, SpecAugment):
        (operation,) = strip.transform.operations()
        return BatchPipeline(SampleEncoder(given.blocks)), operation
    pipeline = BatchPipeline(SampleEncoder(given.blocks), (strip.transform,))
    (operation,) = (*pipeline.crops, *pipeline.changes, *pipeline.mixes, *pipeline.mosaics)
    return pipeline, operation


def drawn_of(operation: Operation, rows: Sequence[Numbers | None], size: tuple[int, int]) -> Drawn:
    """Returns the parameters of a batch from chosen numbers.

    Args:
        operation: The operation.
        rows: Its uniform numbers, one row per sample; None: the sample is unchanged.
        size: (height, width) in pixels: for a crop the source's, else the output's.
    """
    chosen = torch.tensor([row is not None for row in rows])
    width = max(len(row or ()) for row in rows)
    numbers = torch.tensor([list(row or (0.0,) * width) for row in rows], dtype=torch.float64).clamp(0, LAST)
    numbers = numbers.reshape(len(rows), width)
    if isinstance(operation, moves.Crop):
        return Drawn(matrix=operation.region(numbers, torch.tensor([size] * len(rows))))
    words = torch.arange(1, len(rows) + 1) * 0x9E3779B1 % 2**32
    return replace(with_operation(Drawn(), operation, numbers, chosen, size), word=words)


def changed(strip: Strip) -> tuple[Batch, tuple[Any, ...]]:
    """Returns the pagoda after each panel's numbers, and the blocks of its fields."""
    pipeline, operation = pipeline_of(strip)
    count = len(strip.numbers)
    if isinstance(operation, (mixing.Mix, mosaic.Mosaic)):
        if isinstance(operation, mosaic.Mosaic):
            return _composed(pipeline, strip)
        return _mixed(pipeline, operation, [cast(Numbers, row)[0] for row in strip.numbers])
    given = scene("pagoda")
    batch = given.times(count)
    size = given.x.shape[1], given.x.shape[2]
    drawn = drawn_of(operation, strip.numbers, size)
    made = pipeline.pixels(batch.x, drawn, None, given.blocks[0])
    return pipeline.place(batch, made, drawn, size), given.blocks


def _mixed(pipeline: BatchPipeline, operation: Operation, shares: list[float]) -> tuple[Batch, tuple[Any, ...]]:
    """The pagoda with a share of the flower."""
    first, mate, count = scene("pagoda", pointed=False), scene("flower", pointed=False), len(shares)
    batch = _both(first.times(count), mate.times(1), count)
    image = first.blocks[0]
    batch = replace(batch, x=pipeline.pixels(batch.x, Drawn(), None, image))
    own = torch.tensor(shares)
    mates = torch.full((count,), count)
    if isinstance(operation, mixing.Blend):
        how = mixing.Mixing(mates, own, None, own)
    else:
        side = torch.sqrt(1 - own.to(torch.float64)) * SIDE
        place = torch.tensor([[0.5, 0.85]], dtype=torch.float64).expand(count, 2)
        how = mixing.Mixing(mates, torch.ones(count), textures.rectangle(side, side, place, (SIDE, SIDE)), own)
    return mixing.mixed(batch, how, first.blocks[1:], blends=pipeline.blends), first.blocks


def _composed(pipeline: BatchPipeline, strip: Strip) -> tuple[Batch, tuple[Any, ...]]:
    """The pagoda and the flower around a corner."""
    first, mate, count = scene("pagoda", pointed=False), scene("flower", pointed=False), len(strip.numbers)
    batch = _both(first.times(count), mate.times(1), count)
    batch = replace(batch, x=pipeline.pixels(batch.x, Drawn(), None, first.blocks[0]))
    batch = replace(batch, mates=torch.tensor([[count, i, count] for i in range(count)]))
    given = torch.tensor([row or (0.0,) * mosaic.Mosaic.draws for row in strip.numbers], dtype=torch.float64)
    chosen = torch.tensor([row is not None for row in strip.numbers])
    pieces = mosaic.draw(batch, mosaic.Mosaic(), lambda op, ids: (given.clamp(0, LAST), chosen), (SIDE, SIDE))
    return mosaic.composed(batch, pieces, first.blocks[1:], 0.1), first.blocks


def _both(one: Batch, other: Batch, count: int) -> Batch:
    y = tuple(
        {k: torch.cat([a[k], b[k]]) for k in a} if isinstance(a, dict) else torch.cat([a, b])
        for a, b in zip(one.y, other.y, strict=True)
    )
    return Batch(x=torch.cat([one.x, other.x]), y=y, ids=torch.arange(count + 1))


def changed_sound(strip: Strip) -> Tensor:
    """Returns the spectrogram after each panel's numbers, float32 (B, frames, bands)."""
    _, operation = pipeline_of(strip)
    numbers = torch.tensor(strip.numbers, dtype=torch.float64).clamp(0, LAST)
    count = len(numbers)
    value = Padded(sound().repeat(count, 1, 1), torch.ones(count, FRAMES, dtype=torch.bool))
    chosen = torch.ones(count, dtype=torch.bool)
    return spectral.change(value, cast(spectral.Spectral, operation), numbers, chosen).values


# How it is drawn


def panel(batch: Batch, blocks: tuple[Any, ...], i: int) -> Image.Image:
    """Returns one sample with its mask, boxes and points drawn over it."""
    fields_of = dict(zip((block.target for block in blocks), (batch.x, *batch.y), strict=True))
    pixels = blocks[0].decode(fields_of["image"][i]).astype(np.float32)
    mask = fields_of["mask"][i]
    for code in range(1, len(CODES)):
        share = (mask[code] if mask.dim() == 3 else (mask == code).to(torch.float32)).numpy()[..., None] * VEIL
        pixels = pixels * (1 - share) + np.array(COLOURS[code], dtype=np.float32) * share
    image = Image.fromarray(pixels.round().astype(np.uint8))
    draw = ImageDraw.Draw(image)
    boxes = fields_of["boxes"]
    for x0, y0, x1, y1 in boxes.values["boxes"][i][boxes.valid[i]].tolist():
        draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=YELLOW)  # the last pixel is drawn, too
    for x, y in fields_of["points"][i].tolist() if "points" in fields_of else ():
        draw.ellipse((x - 3, y - 3, x + 2, y + 2), fill=CYAN, outline=(0, 0, 0))
    return image


def heat(values: Tensor) -> Image.Image:
    """Returns a spectrogram (frames, bands) in colours: time to the right, low bands below, -70 to 10 decibels."""
    grey = ((values.T.flip(0) + 70) * (255 / 80)).clamp(0, 255).round().to(torch.uint8).numpy()
    return Image.fromarray(cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB))


def row(panels: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    """Returns panels in rows of five (four where there are eight), each with its caption below."""
    across = 4 if len(panels) == 8 else min(len(panels), 5)
    wide, high = panels[0].width + GAP, panels[0].height + CAPTION
    page = Image.new("RGB", (across * wide - GAP, -(-len(panels) // across) * high), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=13)
    for i, (one, caption) in enumerate(zip(panels, captions, strict=True)):
        left, top = i % across * wide, i // across * high
        page.paste(one, (left, top))
        draw.text((left + one.width / 2, top + one.height + 3), caption, fill=GREY, font=font, anchor="ma")
    return page


def picture(strip: Strip) -> Image.Image:
    """Returns the panels of one operation as one picture."""
    if isinstance(strip.transform, SpecAugment):
        return row([heat(values) for values in changed_sound(strip)], strip.captions)
    batch, blocks = changed(strip)
    return row([panel(batch, blocks, i) for i in range(len(strip.numbers))], strip.captions)


def original() -> Image.Image:
    """Returns the original photo with its mask, box and points."""
    given = scene("pagoda", wide=True)
    pipeline = BatchPipeline(SampleEncoder(given.blocks))
    batch = given.times(1)
    made = pipeline.pixels(batch.x, Drawn(), None, given.blocks[0])
    return panel(replace(batch, x=made), given.blocks, 0)


def jpeg(image: Image.Image) -> bytes:
    """Returns a picture as JPEG bytes, of the highest quality that is small enough."""
    quality = 85
    while True:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality, optimize=True)
        if stream.tell() < MOST_BYTES or quality <= 40:
            return stream.getvalue()
        quality -= 5


def page() -> str:
    """Returns the page of pictures, in Markdown."""
    parts = [HEAD]
    for name, strip in strips().items():
        _, operation = pipeline_of(strip)
        fact = (inspect.getdoc(type(operation)) or "").splitlines()[0]
        parts.append(f"## {operation.label}\n\n{fact} `{strip.written}`\n\n![{operation.label}](pictures/{name}.jpg)\n")
    return "\n".join(parts)


def main() -> None:
    """Draws every picture and writes the page."""
    FOLDER.mkdir(exist_ok=True)
    write_bytes(FOLDER / "original.jpg", jpeg(original()))
    for name, strip in strips().items():
        write_bytes(FOLDER / f"{name}.jpg", jpeg(picture(strip)))
    write_text(PAGE, page())


if __name__ == "__main__":
    main()
