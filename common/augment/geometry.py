"""The geometry of the engine: one matrix a sample, one resample a tensor, and the same map for boxes and points."""

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_PIXELS = 400_000  # resampled together on the CPU: their grids and values stay in the cache


def chunk(size: tuple[int, int]) -> int:
    """Returns how many samples of (height, width) pixels to resample together on the CPU."""
    return max(1, CHUNK_PIXELS // (size[0] * size[1]))


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


def resample(image: Tensor, matrix: Tensor, size: tuple[int, int], padding: str = "reflection") -> Tensor:
    """Resamples images once: float32 (B, C, H, W) to (B, C, *size), bilinear; the only call of grid_sample here."""
    places = grid(matrix, size)
    return F.grid_sample(image, places, mode="bilinear", padding_mode=padding, align_corners=False)


def resample_mask(mask: Tensor, matrix: Tensor, size: tuple[int, int], padding: str = "reflection") -> Tensor:
    """Resamples class ids by the nearest pixel: integer (B, H, W) to (B, *size)."""
    places = grid(matrix, size)
    picked = F.grid_sample(
        mask[:, None].to(torch.float32), places, mode="nearest", padding_mode=padding, align_corners=False
    )
    return picked[:, 0].to(mask.dtype)


def shrink(image: Tensor, factor: int) -> Tensor:
    """Averages squares of ``factor`` pixels: the low pass before a resample that shrinks, (B, C, H, W)."""
    if factor < 2:
        return image
    rest_h, rest_w = -image.shape[2] % factor, -image.shape[3] % factor
    return F.avg_pool2d(F.pad(image, (0, rest_w, 0, rest_h), mode="replicate"), factor)


def shrunk(matrix: Tensor, size: tuple[int, int], factor: int) -> Tensor:
    """Returns the map to positions of `shrink`'s output, which reaches beyond a source that factor does not divide."""
    sy, sx = (side / (-(-side // factor) * factor) for side in size)
    scale = matrix.new_tensor([[sx, 0, sx - 1], [0, sy, sy - 1], [0, 0, 1]])
    return compose(scale.expand(len(matrix), 3, 3), matrix)


def move_points(points: Tensor, matrix: Tensor, source: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Maps points (B, N, 2) as (x, y) in pixels of the source to pixels of the output."""
    there = points.to(torch.float64) / points.new_tensor([source[1], source[0]], dtype=torch.float64) * 2 - 1
    back = apply(inverse(matrix), there)
    return ((back + 1) / 2 * back.new_tensor([size[1], size[0]])).to(points.dtype)


def move_boxes(boxes: Tensor, matrix: Tensor, source: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Maps boxes (B, N, 4) as (x0, y0, x1, y1) in pixels: the box around the four moved corners, cut to the output."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    corners = torch.stack([x0, y0, x1, y0, x1, y1, x0, y1], dim=-1).reshape(len(boxes), -1, 2)
    moved = move_points(corners, matrix, source, size).reshape(*boxes.shape[:2], 4, 2)
    limit = boxes.new_tensor([size[1], size[0]])
    low, high = moved.amin(dim=2), moved.amax(dim=2)
    return torch.cat([low.clamp(min=0).minimum(limit), high.clamp(min=0).minimum(limit)], dim=-1)
