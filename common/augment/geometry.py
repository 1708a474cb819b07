"""The geometry of the engine: one matrix and one field per sample, one resample per tensor, one map for all targets.

An output position p in [-1, 1] comes from ``matrix(p + field(p))``, a position in [-1, 1] of the image.

Floor: augment; may import sources and below. Used by: its own room.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from common.augment.drawn import Drawn, Look

CHUNK_PIXELS = 400_000  # pixels that are resampled together on the CPU: their grids and values stay in the CPU cache
EXACT = 16
"""Levels are rounded to 1/16 after a resample, so that pure permutations of pixels (flips) keep values exactly."""
SHRINKS = 2 - 1e-6
"""How many source pixels an output pixel must span per side before it is averaged over them."""
EDGE_POINTS = 16  # points per side of a box under an elastic field
ROUNDS = 40  # iterations of the fixed point that inverts the field; it contracts, see moves.Elastic


def chunk(size: tuple[int, int]) -> int:
    """Returns how many samples of (height, width) pixels to resample together on the CPU."""
    return max(1, CHUNK_PIXELS // (size[0] * size[1]))


def pair(first: float, second: float, like: Tensor) -> Tensor:
    """Returns two numbers as a tensor (2,) of another's dtype, made on its device without a copy from the host."""
    return torch.stack([like.new_full((), first), like.new_full((), second)])


def sides(size: tuple[int, int] | Tensor, like: Tensor) -> Tensor:
    """Returns (height, width) of each sample, (B, 2) in the type of ``like`` (B, …)."""
    if isinstance(size, Tensor):
        return size.to(like.dtype)
    return pair(*size, like).expand(len(like), 2)


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Returns ``first @ second`` of (B, 3, 3) float64.

    Written out, since a batched matrix product may round differently with the batch size.
    """
    columns = [
        first[:, :, 0] * second[:, 0, j, None]
        + first[:, :, 1] * second[:, 1, j, None]
        + first[:, :, 2] * second[:, 2, j, None]
        for j in range(3)
    ]
    return torch.stack(columns, dim=2)


def inverse(matrix: Tensor) -> Tensor:
    """Returns the adjugate of (B, 3, 3): the inverse up to a factor, which a homography does not see."""
    m = matrix
    a, b, c, d, e, f, g, h, i = (m[:, r, k] for r in range(3) for k in range(3))
    cells = [
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
    return torch.stack(cells, dim=1).reshape(-1, 3, 3)


def apply(matrix: Tensor, xy: Tensor) -> Tensor:
    """Maps positions (B, N, 2) by homographies (B, 3, 3)."""
    m = matrix.to(xy.dtype)
    x, y = xy[..., 0], xy[..., 1]
    w = m[:, 2, 0, None] * x + m[:, 2, 1, None] * y + m[:, 2, 2, None]
    out_x = (m[:, 0, 0, None] * x + m[:, 0, 1, None] * y + m[:, 0, 2, None]) / w
    out_y = (m[:, 1, 0, None] * x + m[:, 1, 1, None] * y + m[:, 1, 2, None]) / w
    return torch.stack([out_x, out_y], dim=-1)


def knot_weights(side: int, knots: int, device: torch.device) -> Tensor:
    """Returns the uniform cubic B-spline weight of each knot at ``side`` pixel centres: float32 (side, knots)."""
    at = (torch.arange(side, dtype=torch.float64, device=device) + 0.5) * ((knots - 3) / side)
    first = torch.floor(at).clamp(max=knots - 4)
    place = torch.arange(knots, device=device) - first[:, None]
    shares = [share[:, None] * (place == k) for k, share in enumerate(_cubic(at - first))]
    return (shares[0] + shares[1] + shares[2] + shares[3]).to(torch.float32)


def _cubic(t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four uniform cubic B-spline basis functions at ``t`` in [0, 1]; they sum to 1."""
    return (1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6


def displaced(field: Tensor, xy: Tensor) -> Tensor:
    """Returns the field's displacement at positions (B, N, 2) in [-1, 1], clamped to the edge outside; (B, N, 2)."""
    knots = field.shape[-1]
    at = ((xy + 1) * ((knots - 3) / 2)).clamp(0, knots - 3)
    first = torch.floor(at).clamp(max=knots - 4)
    (x, y), (left, top) = (at - first).unbind(-1), first.to(torch.int64).unbind(-1)
    flat = field.to(xy.dtype).reshape(len(field), 2, -1)
    total = torch.zeros_like(xy)
    for row, down in enumerate(_cubic(y)):
        for column, across in enumerate(_cubic(x)):
            place = ((top + row) * knots + left + column)[:, None].expand(-1, 2, -1)
            total = total + (down * across)[..., None] * flat.gather(2, place).transpose(1, 2)
    return total


def _axis(side: int, taps: int, spread: Tensor | None, device: torch.device) -> Tensor:
    """Positions of pixel centres in [-1, 1], (1, side); with several taps those of the taps, (B, side * taps)."""
    centre = (torch.arange(side * taps, device=device) // taps).to(torch.float32).add_(0.5).mul_(2 / side).sub_(1)
    if taps == 1 or spread is None:
        return centre[None]
    part = (torch.arange(side * taps, device=device) % taps + 0.5) / taps - 0.5
    return centre + spread[:, None] * (part * (2 / side))


def grid(drawn: Drawn, size: tuple[int, int], taps: int = 1, spread: Tensor | None = None) -> Tensor:
    """Returns the source position of each output pixel: float32 (B, H * taps, W * taps, 2) in [-1, 1].

    Args:
        drawn: The parameters; matrix or field.
        size: (height, width) of the output in pixels.
        taps: The number of samples per side of each pixel.
        spread: float32 (B,): 1 where the taps spread over the pixel, 0 where all are at its centre.
    """
    device = cast(Tensor, drawn.field if drawn.matrix is None else drawn.matrix).device
    x = _axis(size[1], taps, spread, device)[:, None, :]
    y = _axis(size[0], taps, spread, device)[:, :, None]
    if drawn.field is not None:
        dx, dy = spread_out(drawn.field, size).repeat_interleave(taps, 2).repeat_interleave(taps, 3).unbind(1)
        x, y = x + dx, y + dy
    if drawn.matrix is None:
        return torch.stack([x, y], dim=-1)
    m = drawn.matrix.to(torch.float32)

    def entry(r: int, k: int) -> Tensor:
        return m[:, r, k, None, None]

    w = entry(2, 0) * x + (entry(2, 1) * y + entry(2, 2))
    out_x = (entry(0, 0) * x + (entry(0, 1) * y + entry(0, 2))) / w
    return torch.stack([out_x, (entry(1, 0) * x + (entry(1, 1) * y + entry(1, 2))) / w], dim=-1)


def spread_out(field: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns the displacement of each output pixel, float32 (B, 2, H, W), from knots (B, 2, K, K)."""
    knots = field.shape[-1]
    down, across = (knot_weights(side, knots, field.device) for side in size)
    rows = field[:, :, :, 0, None] * across[None, None, None, :, 0]
    for k in range(1, knots):
        rows = rows + field[:, :, :, k, None] * across[None, None, None, :, k]
    out = rows[:, :, 0, None, :] * down[None, None, :, 0, None]
    for k in range(1, knots):
        out = out + rows[:, :, k, None, :] * down[None, None, :, k, None]
    return out


def spread(matrix: Tensor | None, source: tuple[int, int] | Tensor, size: tuple[int, int]) -> Tensor | None:
    """Returns float32 (B,): 1 where an output pixel at the centre spans `SHRINKS` source pixels per side, else 0."""
    if matrix is None:
        return None
    m = matrix
    minor = m[:, 0, 0] * (m[:, 1, 1] * m[:, 2, 2] - m[:, 1, 2] * m[:, 2, 1])
    minor = minor - m[:, 0, 1] * (m[:, 1, 0] * m[:, 2, 2] - m[:, 1, 2] * m[:, 2, 0])
    minor = minor + m[:, 0, 2] * (m[:, 1, 0] * m[:, 2, 1] - m[:, 1, 1] * m[:, 2, 0])
    # The Jacobian of a homography has the determinant det(m) / w^3; at the centre w is m22.
    area = (minor / m[:, 2, 2] ** 3).abs() * sides(source, m).prod(dim=1) / (size[0] * size[1])
    return (area >= SHRINKS**2).to(torch.float32)


def _sampled(image: Tensor, places: Tensor, padding: str, extents: Tensor | None, mode: str) -> Tensor:
    """The one resample: images (B, C, H, W) at positions (B, h, w, 2) in [-1, 1], float32 (B, C, h, w)."""
    if extents is None:
        return F.grid_sample(image, places, mode=mode, padding_mode=padding, align_corners=False)
    return _gathered(image, places, padding, extents, mode)


def _gathered(image: Tensor, places: Tensor, padding: str, extents: Tensor, mode: str) -> Tensor:
    """Does what grid_sample does for padded images of different sizes (B, 2), each bit-identical to itself alone."""
    ends = extents.flip(-1).to(torch.float32)[:, None, None, :]
    pixel = (places + 1) * (ends / 2) - 0.5
    if padding == "reflection":
        pixel = torch.remainder(pixel + 0.5, 2 * ends)
        pixel = torch.minimum(pixel, 2 * ends - pixel) - 0.5
    if padding != "zeros":
        pixel = pixel.clamp(min=0).minimum(ends - 1)
    first = torch.round(pixel) if mode == "nearest" else torch.floor(pixel)
    part, flat, out = pixel - first, image.flatten(2), None
    for down in (0, 1) if mode == "bilinear" else (0,):
        for right in (0, 1) if mode == "bilinear" else (0,):
            x, y = first[..., 0] + right, first[..., 1] + down
            weight = (part[..., 0] if right else 1 - part[..., 0]) * (part[..., 1] if down else 1 - part[..., 1])
            weight = torch.ones_like(weight) if mode == "nearest" else weight
            if padding == "zeros":
                weight = weight * ((x >= 0) & (y >= 0) & (x < ends[..., 0]) & (y < ends[..., 1]))
            x, y = x.clamp(min=0).minimum(ends[..., 0] - 1), y.clamp(min=0).minimum(ends[..., 1] - 1)
            place = (y.to(torch.int64) * image.shape[3] + x.to(torch.int64)).flatten(1)[:, None]
            level = flat.gather(2, place.expand(-1, image.shape[1], -1)).unflatten(2, weight.shape[1:])
            out = level * weight[:, None] if out is None else out + level * weight[:, None]
    return cast(Tensor, out)


def resample(image: Tensor, drawn: Drawn, look: Look, *, extents: Tensor | None = None) -> Tensor:
    """Resamples images once, bilinearly: float32 (B, C, H, W) of levels 0 to 255 to (B, C, *look.size).

    Args:
        image: The images; where their sizes differ, each at the top left, padded by its own edge.
        drawn: The parameters; matrix or field.
        look: Size and padding of the output, and how it is averaged where it shrinks.
        extents: (B, 2): the images' own heights and widths where they differ.
    """
    source = (image.shape[2], image.shape[3]) if extents is None else extents
    apart = None if look.taps == 1 else spread(drawn.matrix, source, look.size)
    found = _sampled(image, grid(drawn, look.size, look.taps, apart), look.padding, extents, "bilinear")
    if look.taps > 1:
        found = F.avg_pool2d(found, look.taps)
    return found.mul_(EXACT).add_(0.5).floor_().mul_(1 / EXACT)


def resample_mask(mask: Tensor, drawn: Drawn, look: Look, *, extents: Tensor | None = None, fill: int = 0) -> Tensor:
    """Resamples class ids by the nearest pixel: integer (B, H, W) to (B, *look.size); see `resample`.

    Args:
        mask: The ids.
        drawn: The parameters; matrix or field.
        look: Size and padding.
        extents: (B, 2): the masks' own heights and widths where they differ.
        fill: The id outside the image where the padding is ``zeros``.
    """
    pixels = mask[:, None].to(torch.float32) - fill
    found = _sampled(pixels, grid(drawn, look.size), look.padding, extents, "nearest")
    return (found[:, 0] + fill).to(mask.dtype)


def move_points(points: Tensor, drawn: Drawn, source: tuple[int, int] | Tensor, size: tuple[int, int]) -> Tensor:
    """Maps points (B, N, 2) as (x, y) in pixels of the source (one size, or (B, 2) of each) to pixels of the output.

    Points move by the inverse of the map of pixels. The field is inverted by the fixed point iteration
    p = q - field(p), which contracts.
    """
    there = points.to(torch.float64)
    there = there / sides(source, there).flip(-1)[:, None] * 2 - 1
    if drawn.matrix is not None:
        there = apply(inverse(drawn.matrix), there)
    if drawn.field is not None:
        goal = there
        for _ in range(ROUNDS):
            there = goal - displaced(drawn.field, there)
    return ((there + 1) / 2 * pair(size[1], size[0], there)).to(points.dtype)


def corners(boxes: Tensor) -> Tensor:
    """Returns the corners of boxes (B, N, 4) in their order, (B, N, 4, 2)."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack([x0, y0, x1, y0, x1, y1, x0, y1], dim=-1).unflatten(-1, (4, 2))


def between(around: Tensor, points: int) -> Tensor:
    """Returns outlines (B, N, K, 2) with ``points`` interpolated points per side: (B, N, K * points, 2)."""
    step = torch.arange(points, device=around.device, dtype=around.dtype)[:, None] / points
    return (around[..., None, :] + (around.roll(-1, 2) - around)[..., None, :] * step).flatten(2, 3)


def move_boxes(
    boxes: Tensor,
    drawn: Drawn,
    source: tuple[int, int] | Tensor,
    size: tuple[int, int],
    outlines: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Maps boxes (B, N, 4) as (x0, y0, x1, y1) in pixels of the source to the boxes around them in the output.

    Args:
        boxes: The boxes.
        drawn: The parameters; matrix or field.
        source: (height, width) of the sources in pixels, or (B, 2) of each.
        size: (height, width) of the output in pixels.
        outlines: (B, N, K, 2): each object's outline in source pixels, for a box around the object itself instead of
            its old box.

    Returns:
        The boxes clipped to the output, the remaining share of each (B, N), and the moved outlines.
    """
    around = corners(boxes) if outlines is None else outlines
    if drawn.field is not None:
        around = between(around, EDGE_POINTS if outlines is None else EDGE_POINTS // 4)
    moved = move_points(around.flatten(1, 2), drawn, source, size).unflatten(1, around.shape[1:3])
    low, high = moved.amin(dim=2), moved.amax(dim=2)
    limit = pair(size[1], size[0], boxes)
    cut = [v.clamp(min=0).minimum(limit) for v in (low, high)]
    whole = (high - low).prod(dim=-1)
    share = (cut[1] - cut[0]).prod(dim=-1) / whole.clamp(min=1e-12)
    around = None if outlines is None else moved[:, :, :: moved.shape[2] // outlines.shape[2]]
    return torch.cat(cut, dim=-1), share, around
