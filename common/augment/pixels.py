"""Augmentation of whole batches in torch, on any device: the reference for the other two paths (`render`, `kernel`).

An image is resampled once, blurred or sharpened, coloured, made noisy, erased in part, and normalised, in this order.

Floor: augment; may import sources and below. Used by: its own room.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from common.augment import geometry
from common.augment.drawn import Drawn, Look
from common.augment.textures import SHARPEN_SIGMA_PX
from common.counter import words

HALVES = 1 << 16
SALT = 0x5BD1_E995
"""XORed into a sample's word for salt and pepper, so that it is independent of the Gaussian noise."""


def develop(
    images: Tensor, drawn: Drawn, look: Look, *, extents: Tensor | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Returns images as a model takes them: (B, C, *look.size), normalised, channels last in memory.

    Args:
        images: uint8 (B, H, W, C); where their sizes differ each at the top left.
        drawn: The parameters of each.
        look: The output format.
        extents: int32 (B, 2): their own heights and widths in pixels where they differ, or None.
        dtype: The dtype of the result.
    """
    count, channels, device = len(images), images.shape[3], images.device
    mean, std = (numbers(values, device)[:, None, None] for values in (look.mean, look.std))
    if device.type != "cpu":
        return _developed(images, drawn, look, mean, std, extents).to(dtype, memory_format=torch.channels_last)
    out = torch.empty(count, channels, *look.size, dtype=dtype).to(memory_format=torch.channels_last)
    step = geometry.chunk((look.size[0] * look.taps, look.size[1] * look.taps))
    for start in range(0, count, step):
        part = slice(start, start + step)
        own = None if extents is None else extents[part]
        out[part] = _developed(images[part], drawn.rows(part), look, mean, std, own)
    return out


def numbers(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Returns a few numbers as float32, made on a device without a copy from the host."""
    return torch.stack([torch.full((), value, device=device) for value in values])


def _developed(images: Tensor, drawn: Drawn, look: Look, mean: Tensor, std: Tensor, extents: Tensor | None) -> Tensor:
    pixels = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    if drawn.moves:
        pixels = geometry.resample(pixels, drawn, look, extents=extents)
    if drawn.blur is not None or drawn.sharpen is not None:
        pixels = softened(pixels, drawn.blur, drawn.sharpen, look.reach_px)
    pixels = pixels * (1 / 255)
    if drawn.colour is not None:
        pixels = coloured(pixels, drawn.colour)
    if drawn.noise is not None:
        pixels = (pixels + drawn.noise[:, None, None, None] * normal_noise(drawn, pixels.shape)).clamp_(0, 1)
    if drawn.salt_pepper is not None:
        pixels = salted(pixels, drawn.salt_pepper, drawn)
    if drawn.erase is not None:
        pixels = torch.where(inside(drawn.erase, look.size)[:, None], mean, pixels)
    return (pixels - mean) / std


def coloured(pixels: Tensor, colour: Tensor) -> Tensor:
    """Applies matrices (B, 3, 4) to colours (B, 3, H, W) in [0, 1], or to greys (B, 1, H, W) as if R = G = B."""
    m = colour.to(torch.float32)[..., None, None]
    if pixels.shape[1] == 1:
        return (pixels * (m[:, :1, 0] + m[:, :1, 1] + m[:, :1, 2]) + m[:, :1, 3]).clamp_(0, 1)
    r, g, b = (pixels[:, None, c] for c in range(3))
    return (m[:, :, 0] * r + m[:, :, 1] * g + m[:, :, 2] * b + m[:, :, 3]).clamp_(0, 1)


def gaussian(sigma_px: Tensor, reach_px: int) -> Tensor:
    """Returns normalised Gaussian filters, float32 (B, 2 * reach + 1); a deviation of 0 gives the identity."""
    at = torch.arange(-reach_px, reach_px + 1, device=sigma_px.device).to(torch.float32)
    taps = torch.exp(-0.5 * (at / sigma_px[:, None].to(torch.float32).clamp(min=1e-3)) ** 2)
    total = taps[:, :1]
    for k in range(1, taps.shape[1]):  # written out, as in `geometry.compose`
        total = total + taps[:, k, None]
    return taps / total


def softened(pixels: Tensor, blur: Tensor | None, sharpen: Tensor | None, reach_px: int) -> Tensor:
    """Blurs and sharpens in one step: ``(1 + a) G(b) - a G(sqrt(b^2 + s^2))``, since variances of Gaussians add.

    Args:
        pixels: float32 (B, C, H, W) of levels 0 to 255; padded by their edge.
        blur: float32 (B,): b, in pixels; or None.
        sharpen: float32 (B,): a; or None.
        reach_px: The radius at which the Gaussians are truncated.
    """
    if sharpen is None:
        return pixels if blur is None else _convolved(pixels, gaussian(blur, reach_px))
    zero = torch.zeros_like(sharpen) if blur is None else blur
    wide = _convolved(pixels, gaussian(torch.sqrt(zero**2 + SHARPEN_SIGMA_PX**2), reach_px))
    near = pixels if blur is None else _convolved(pixels, gaussian(blur, reach_px))
    return (near + sharpen[:, None, None, None] * (near - wide)).clamp_(0, 255)


def _convolved(pixels: Tensor, taps: Tensor) -> Tensor:
    """Separable convolution, tap by tap, so that rounding does not depend on the batch size."""
    reach, (height, width) = taps.shape[1] // 2, pixels.shape[2:]
    for axis, side in ((3, width), (2, height)):
        wide = F.pad(pixels, (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach), mode="replicate")
        pixels = wide.narrow(axis, 0, side) * taps[:, 0, None, None, None]
        for k in range(1, taps.shape[1]):
            pixels = pixels + wide.narrow(axis, k, side) * taps[:, k, None, None, None]
    return pixels


_tables: dict[torch.device, Tensor] = {}


def normal_table(device: torch.device) -> Tensor:
    """Returns the normal quantiles of 65,536 equally likely bins, float32; made once per device.

    Looking up 16 random bits gives a normal number without transcendental functions, so all paths agree exactly.
    """
    if device not in _tables:
        share = (torch.arange(HALVES, dtype=torch.float64, device=device) + 0.5) / HALVES
        _tables[device] = (torch.erfinv(share * 2 - 1) * 2**0.5).to(torch.float32)
    return _tables[device]


def halves(word: Tensor, count: int) -> Tensor:
    """Returns ``count`` 16-bit numbers per sample, int64 (B, count): two from each random word, the low one first."""
    pairs = words(word, (count + 1) // 2)
    return torch.stack([pairs & 0xFFFF, pairs >> 16], dim=2).flatten(1)[:, :count]


def normal_noise(drawn: Drawn, shape: torch.Size) -> Tensor:
    """Returns normal numbers (B, C, H, W), a function of each sample's word and the pixel's position alone."""
    count, channels, height, width = shape
    assert drawn.word is not None
    which = halves(drawn.word, height * width * channels)
    table = normal_table(drawn.word.device)
    return table[which].reshape(count, height, width, channels).permute(0, 3, 1, 2)


def salted(pixels: Tensor, share: Tensor, drawn: Drawn) -> Tensor:
    """Makes a share (B,) of the pixels (B, C, H, W) black (0) or white (1), in all channels alike."""
    assert drawn.word is not None
    height, width = pixels.shape[2:]
    which = halves(drawn.word ^ SALT, height * width).reshape(-1, 1, height, width)
    struck = which < torch.round(share * HALVES).to(torch.int64)[:, None, None, None]
    return torch.where(struck, (which & 1).to(pixels.dtype), pixels)


def inside(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns masks of the pixels inside boxes (B, 4) as (top, left, bottom, right): bool (B, H, W)."""
    y = torch.arange(size[0], device=boxes.device)[None, :]
    x = torch.arange(size[1], device=boxes.device)[None, :]
    top, left, bottom, right = (boxes[:, k, None] for k in range(4))
    return ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None, :]
