"""Predictions drawn on their images, at the images' own size: what a task's `view` says, over the pixels.

Floor: show; may import task and below. Used by: recipes.
"""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from common.blocks.shapes import decode_rle
from common.files import write_bytes

MASK_SHARE = 0.45  # of a mask's colour in the picture
LINE = 18  # height of a line of text, in pixels of a picture of 600


def overlay(image: Image.Image, view: Mapping[str, Any]) -> Image.Image:
    """Returns an image with a prediction over it: masks and boxes in the colours of their classes, and its title.

    Args:
        image: As it was shown to the predictor.
        view: What `Task.view` gives for its record.
    """
    made = image.convert("RGB")
    if view["png"]:
        made = Image.blend(made, Image.open(io.BytesIO(base64.b64decode(view["png"]))).convert("RGB"), MASK_SHARE)
    for box in view["boxes"]:
        if box["runs"]:
            _paint(made, box["runs"], box["color"])
    draw, unit = ImageDraw.Draw(made), max(1.0, max(made.size) / 600)
    font = ImageFont.load_default(12 * unit)
    for box in view["boxes"]:
        x, y, width, height = box["bbox"]
        draw.rectangle((x, y, x + width, y + height), outline=box["color"], width=max(1, round(2 * unit)))
        _words(draw, (x, y - LINE * unit if y > LINE * unit else y), f"{box['label']} {box['score']:.2f}", box, font)
    if view["legend"]:
        shown = [one for one in view["legend"] if one["share"] > 0]
        for line, one in enumerate(shown):
            _words(draw, (0, line * LINE * unit), f"{one['label']} {one['share']:.1%}", one, font)
    elif not view["boxes"]:
        _words(draw, (0, 0), view["title"], {"color": "#222222"}, font)
    return made


def _paint(image: Image.Image, runs: Any, color: str) -> None:
    width, height = image.size
    inside = decode_rle({"size": (height, width), "counts": list(runs)})
    image.paste(color, mask=Image.fromarray((inside * 255 * MASK_SHARE).astype(np.uint8)))


def _words(draw: Any, place: tuple[float, float], text: str, one: Mapping[str, Any], font: Any) -> None:
    """Writes on a ground of the class's colour, in black or white, whichever is easier to read on it."""
    left, top, right, bottom = draw.textbbox(place, text, font=font)
    draw.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill=one["color"])
    light = float(np.dot(ImageColor.getrgb(one["color"])[:3], (0.299, 0.587, 0.114)))
    draw.text(place, text, fill="black" if light > 128 else "white", font=font)


def save_overlay(path: Path, image: Image.Image, view: Mapping[str, Any]) -> None:
    """Writes the picture of a prediction as PNG, whole or not at all.

    Args:
        path: The file.
        image: As it was shown to the predictor.
        view: What `Task.view` gives for its record.
    """
    out = io.BytesIO()
    overlay(image, view).save(out, format="PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, out.getvalue())
