"""The geometry of the engine: one matrix a sample, one resample a tensor, and the same map for boxes and points."""

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_PIXELS = 400_000  # resampled together on the CPU: their grids and values stay in the cache


def chunk(size: tuple[int, int]) -> int:
    """Returns how many samples of (height, width) pixels to resample together on the CPU."""
    return max(1, CHUNK_PIXELS // (size[0] * size[1]))


def pair(first: float, second: float, like: Tensor) -> Tensor:
    """Returns two numbers as a tensor (2,) of another's type, made on its device: nothing is copied there."""
    return torch.stack([like.new_full((), first), like.new_full((), second)])


def _sides(size: tuple[int, int] | Tensor, like: Tensor) -> Tensor:
    """(height, width) of each sample, (B, 2) in the type of ``like`` (B, …)."""
    if isinstance(size, Tensor):
        return size.to(like.dtype)
    return pair(*size, like).expand(len(like), 2)


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Returns ``first @ second`` of (B, 3, 3) float64, written out so that it does not depend on the batch size."""
    columns = [
        first[:, :, 0] * second[:, 0, j, None]
        + first[:, :, 1] * second[:, 1, j, None]
        + first[:, :, 2] * second[:, 2, j, None]
        for j in range(3)
    ]
    return torch.stack(columns, dim=2)


def inverse(matrix: Tensor) -> Tensor:
    """Returns the inverse of (B, 3, 3) up to a factor (the adjugate), which is all that a homography needs."""
    m = matrix
    a, b, c, d, e, f, g, h, i = (m[:, r, k] for r in range(3) for k in range(3))
    entries = [
        e * i - f * h,
        c * h - b * i,
        b * f - c * e,
        f * g - d * i,
        a * i - c * g,
        c * d - a * f,
        d * h - e * g,
        b * g - a * h,
        a * e - b * d,
    ]
    return torch.stack(entries, dim=1).reshape(-1, 3, 3)


def apply(matrix: Tensor, xy: Tensor) -> Tensor:
    """Maps positions (B, N, 2) by homographies (B, 3, 3)."""
    m = matrix.to(xy.dtype)
    x, y = xy[..., 0], xy[..., 1]
    w = m[:, 2, 0, None] * x + m[:, 2, 1, None] * y + m[:, 2, 2, None]
    out_x = (m[:, 0, 0, None] * x + m[:, 0, 1, None] * y + m[:, 0, 2, None]) / w
    out_y = (m[:, 1, 0, None] * x + m[:, 1, 1, None] * y + m[:, 1, 2, None]) / w
    return torch.stack([out_x, out_y], dim=-1)


def grid(matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns where each output pixel comes from: float32 (B, H, W, 2), positions in [-1, 1]."""
    height, width = size
    m = matrix.to(torch.float32)
    device = matrix.device
    x = ((torch.arange(width, device=device, dtype=torch.float32) + 0.5) * (2 / width) - 1)[None, None, :]
    y = ((torch.arange(height, device=device, dtype=torch.float32) + 0.5) * (2 / height) - 1)[None, :, None]

    def entry(r: int, k: int) -> Tensor:
        return m[:, r, k, None, None]

    out = torch.empty(len(m), height, width, 2, device=device)
    w = entry(2, 0) * x + (entry(2, 1) * y + entry(2, 2))
    torch.div(entry(0, 0) * x + (entry(0, 1) * y + entry(0, 2)), w, out=out[..., 0])
    torch.div(entry(1, 0) * x + (entry(1, 1) * y + entry(1, 2)), w, out=out[..., 1])
    return out


def within(places: Tensor, kept: Tensor, padded: tuple[int, int], padding: str) -> tuple[Tensor, Tensor | None]:
    """Turns positions in images into positions in the tensor they lie in, each at its top left.

    Args:
        places: float32 (B, H, W, 2), positions in [-1, 1] of each image.
        kept: (B, 2): height and width of each image in pixels.
        padded: (height, width) of the tensor in pixels.
        padding: What lies outside an image: ``reflection``, ``border`` or ``zeros``.

    Returns:
        The positions, and with ``zeros`` how much of each output pixel lies in the image, (B, H, W).
    """
    sides = kept.flip(-1).to(torch.float32)[:, None, None, :]
    pixel = (places + 1) * (sides / 2) - 0.5
    weight = None
    if padding == "reflection":
        pixel = torch.remainder(pixel + 0.5, 2 * sides)
        pixel = torch.minimum(pixel, 2 * sides - pixel) - 0.5
    elif padding == "zeros":
        weight = (pixel + 1).minimum(sides - pixel).clamp(0, 1).prod(dim=-1)
    pixel = pixel.clamp(min=0).minimum(sides - 1)
    size = pair(padded[1], padded[0], pixel)
    return (pixel + 0.5) * (2 / size) - 1, weight


def resample(
    image: Tensor,
    matrix: Tensor,
    size: tuple[int, int],
    padding: str = "reflection",
    *,
    kept: Tensor | None = None,
    mode: str = "bilinear",
) -> Tensor:
    """Resamples images once: float32 (B, C, H, W) to (B, C, *size); the only call of grid_sample here.

    Args:
        image: The images; where their sizes differ, each at the top left, continued by its own edge.
        matrix: (B, 3, 3), from output to input positions, each in [-1, 1] of its own image.
        size: (height, width) of the output in pixels.
        padding: What lies outside an image: ``reflection``, ``border`` or ``zeros``.
        kept: (B, 2): the images' own heights and widths where they differ.
        mode: ``bilinear`` or ``nearest``.
    """
    places = grid(matrix, size)
    if kept is None:
        return F.grid_sample(image, places, mode=mode, padding_mode=padding, align_corners=False)
    places, weight = within(places, kept, (image.shape[2], image.shape[3]), padding)
    found = F.grid_sample(image, places, mode=mode, padding_mode="border", align_corners=False)
    if weight is None:
        return found
    return found * (weight if mode == "bilinear" else (weight > 0.5).to(found.dtype))[:, None]


def resample_mask(
    mask: Tensor, matrix: Tensor, size: tuple[int, int], padding: str = "reflection", *, kept: Tensor | None = None
) -> Tensor:
    """Resamples class ids by the nearest pixel: integer (B, H, W) to (B, *size); see `resample`."""
    pixels = mask[:, None].to(torch.float32)
    return resample(pixels, matrix, size, padding, kept=kept, mode="nearest")[:, 0].to(mask.dtype)


def shrink(image: Tensor, factor: int) -> Tensor:
    """Averages squares of ``factor`` pixels: the low pass before a resample that shrinks, (B, C, H, W)."""
    if factor < 2:
        return image
    rest_h, rest_w = -image.shape[2] % factor, -image.shape[3] % factor
    return F.avg_pool2d(F.pad(image, (0, rest_w, 0, rest_h), mode="replicate"), factor)


def shrunk(matrix: Tensor, size: tuple[int, int] | Tensor, factor: int) -> Tensor:
    """Returns the map to positions of `shrink`'s output, which reaches beyond a source that factor does not divide.

    Args:
        matrix: (B, 3, 3).
        size: (height, width) of the source in pixels, or (B, 2) of each.
        factor: The sides of the squares that were averaged.
    """
    sides = _sides(size, matrix)
    share = sides / (torch.ceil(sides / factor) * factor)
    out = matrix.clone()
    for axis, along in ((0, share[:, 1]), (1, share[:, 0])):
        out[:, axis] = along[:, None] * matrix[:, axis] + (along - 1)[:, None] * matrix[:, 2]
    return out


def move_points(points: Tensor, matrix: Tensor, source: tuple[int, int] | Tensor, size: tuple[int, int]) -> Tensor:
    """Maps points (B, N, 2) as (x, y) in pixels of the source (one size, or (B, 2) of each) to pixels of the output."""
    there = points.to(torch.float64)
    there = there / _sides(source, there).flip(-1)[:, None] * 2 - 1
    back = apply(inverse(matrix), there)
    return ((back + 1) / 2 * pair(size[1], size[0], back)).to(points.dtype)


def move_boxes(boxes: Tensor, matrix: Tensor, source: tuple[int, int] | Tensor, size: tuple[int, int]) -> Tensor:
    """Maps boxes (B, N, 4) as (x0, y0, x1, y1) in pixels: the box around the four moved corners, cut to the output."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    corners = torch.stack([x0, y0, x1, y0, x1, y1, x0, y1], dim=-1).reshape(len(boxes), -1, 2)
    moved = move_points(corners, matrix, source, size).reshape(*boxes.shape[:2], 4, 2)
    limit = pair(size[1], size[0], boxes)
    low, high = moved.amin(dim=2), moved.amax(dim=2)
    return torch.cat([low.clamp(min=0).minimum(limit), high.clamp(min=0).minimum(limit)], dim=-1)
