"""From an image file to pixels: JPEG by libjpeg-turbo at a reduced scale, everything else by Pillow.

Floor: blocks; may import text and below. Used by: applications.
"""

from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from common.errors import DataError

MAX_PIXELS = 100_000_000
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA", "ICO", "DIB")
"""The formats that are opened: common ones that need no external program (EPS would start Ghostscript)."""
_ORIENTATION = 0x0112  # the EXIF tag
_TURNS: dict[int, Any] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


class Jpeg:
    """A JPEG file with its header read and its pixels not yet decoded.

    Attributes:
        data: The file's bytes.
        height: In pixels, after the EXIF orientation is applied.
        width: In pixels, after the EXIF orientation is applied.
        orientation: The EXIF orientation, 1 to 8.
    """

    def __init__(self, data: bytes, height: int, width: int, orientation: int) -> None:
        self.data = data
        self.orientation = orientation
        self.height, self.width = (width, height) if orientation >= 5 else (height, width)

    def pixels(self, channels: int, least: tuple[int, int]) -> np.ndarray:
        """Decodes to uint8 (H, W, channels), at 1/2, 1/4 or 1/8 scale where that is not below ``least``.

        Uses the fast inverse DCT: it differs from the exact one by one grey level on average, five at most.

        Args:
            channels: 3 (RGB) or 1 (grey).
            least: The smallest (height, width) in pixels that will do.

        Raises:
            ValueError: if the data is damaged in any way; Pillow may still read it.
        """
        import simplejpeg

        height, width = least[::-1] if self.orientation >= 5 else least
        array: np.ndarray = simplejpeg.decode_jpeg(
            self.data,
            "RGB" if channels == 3 else "GRAY",
            fastdct=True,
            min_height=height,
            min_width=width,
            min_factor=2,
        )
        turn = _TURNS.get(self.orientation)
        return array if turn is None else np.ascontiguousarray(turn(array))


def open_jpeg(data: bytes) -> Jpeg | None:
    """Reads a JPEG's header; None for other formats, and for JPEGs that Pillow must read (CMYK, a damaged header)."""
    import simplejpeg

    if data[:3] != b"\xff\xd8\xff":
        return None
    try:
        found = simplejpeg.decode_jpeg_header(data)
        height, width, space = int(found[0]), int(found[1]), str(found[2])
    except ValueError:
        return None
    if space not in ("YCbCr", "Gray", "RGB"):
        return None
    check_size(width, height)
    orientation = 1
    if _has_exif(data):
        try:
            with Image.open(BytesIO(data), formats=("JPEG",)) as image:
                orientation = int(image.getexif().get(_ORIENTATION, 1))
        except Exception:  # whatever Pillow stumbles over in the tags
            return None
    return Jpeg(data, height, width, orientation if 1 <= orientation <= 8 else 1)


def _has_exif(data: bytes) -> bool:
    """Whether one of the segments before the pixels holds EXIF data."""
    at = 2
    while at + 10 < len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] == 0xE1 and data[at + 4 : at + 10] == b"Exif\x00\x00":
            return True
        at += 2 + (data[at + 2] << 8) + data[at + 3]
    return False


def check_size(width: int, height: int) -> None:
    """Checks the number of pixels that a header states, before any is decoded.

    Raises:
        DataError: above 100 million.
    """
    if width * height > MAX_PIXELS:
        raise DataError(f"refused as a decompression bomb: {width} x {height} pixels, the limit is {MAX_PIXELS:,}")


def open_image(raw: Any) -> Image.Image:
    """Opens a path, bytes, PIL image or uint8 array as a PIL image, with its EXIF orientation applied.

    Raises:
        DataError: if it is missing, not an image, or has more than 100 million pixels (a decompression bomb).
    """
    try:
        if isinstance(raw, np.ndarray):
            return _from_array(raw)
        if isinstance(raw, (bytes, bytearray)):
            raw = BytesIO(raw)
        if isinstance(raw, Image.Image):
            return _turned(raw)
        with Image.open(raw, formats=_formats()) as image:
            return _turned(image)
    except UnidentifiedImageError as error:
        raise DataError(_unknown(raw)) from error
    except FileNotFoundError as error:
        raise DataError("the file does not exist") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"refused as a decompression bomb: {error}") from error
    except DataError:
        raise
    except MemoryError as error:
        raise DataError("cannot be read as an image: it asks for more memory than there is") from error
    except Exception as error:  # Pillow's readers answer damaged files with all kinds of errors
        raise DataError(f"cannot be read as an image: {error or type(error).__name__}") from error


def check_image(data: bytes) -> bytes:
    """Returns the bytes of an image file after checking its header; its pixels are not decoded.

    Args:
        data: The file's bytes.

    Raises:
        DataError: if it is not an image, or has more than 100 million pixels.
    """
    try:
        with Image.open(BytesIO(data), formats=_formats()) as image:
            check_size(image.width, image.height)
    except UnidentifiedImageError as error:
        raise DataError(_unknown(BytesIO(data))) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"refused as a decompression bomb: {error}") from error
    except DataError:
        raise
    except Exception as error:  # Pillow's readers answer damaged files with all kinds of errors
        raise DataError(f"cannot be read as an image: {error or type(error).__name__}") from error
    return data


@cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _unknown(raw: Any) -> str:
    size = raw.getbuffer().nbytes if isinstance(raw, BytesIO) else Path(raw).stat().st_size
    if not size:
        return "the file is empty"
    return "not an image in a format that is read here (JPEG, PNG, GIF, BMP, WEBP, TIFF, PPM, AVIF, …)"


def _turned(image: Image.Image) -> Image.Image:
    check_size(image.width, image.height)
    return ImageOps.exif_transpose(image)


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise DataError(f"an image array must be uint8 (H, W) or (H, W, C), got {array.dtype} {array.shape}")
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def converted(image: Image.Image, mode: str) -> Image.Image:
    """Returns a PIL image in mode ``RGB`` or ``L``: 16-bit greys scaled, transparent parts as they are stored."""
    if image.mode == mode:
        return image
    if image.mode.startswith("I"):  # 16-bit greys: Pillow would clip them to 255
        wide = np.asarray(image).astype(np.int64)
        image = Image.fromarray((np.clip(wide, 0, 65535) >> 8).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert(mode)
