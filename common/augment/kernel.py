"""The whole chain in one Triton kernel on CUDA: one launch reads uint8 pixels once and writes normalised ones once.

It does what `pixels.develop` does, except blur and sharpen, in the same order and from the same numbers. The parameters
of a sample are tensors on the device: the host never waits, and new parameters need no recompilation.

Against the reference: float32 positions differ by about 1e-6 of the image's side, levels by that share of the step
between neighbours, or by one step of 1 / `geometry.EXACT` where a half is rounded (to even here, up there). Whole
pixels (flips, turns) and noise are bit-identical in float32; in 16 bits a result may be the neighbouring number.

Floor: augment; may import sources and below. Used by: its own room.
"""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false
from __future__ import annotations  # the kernel's annotations name Triton, which is imported lazily

import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from common.augment import geometry, pixels
from common.augment.drawn import Drawn, Look

if TYPE_CHECKING:
    import triton.language as tl

PIXELS = 512
"""Output pixels of a tile of one sample: a compact tile reads neighbouring source pixels, also when rotated."""
WIDTHS = (32, 64, 16, 128)
"""The possible widths of a tile: the first one that needs the fewest tiles is taken."""
STEPS = 4  # tiles per program: per-sample parameters are read and prepared once for all of them
ROUND = 1.5 * 2**23
"""Added to a float32, it rounds to an integer, which is then in the low bits of the sum."""
BYTE = 2.0**23
"""A float32 with a low byte of 0: a byte written there adds its value (a conversion to float by bits)."""
PARTS = """_word _normal _noisy _salted _axis _spline _bent _homography _mapped _level _byte _pair _blend
    _bilinear _moved _colours _coloured _row _unit _pixels _both _four"""
"""The functions that the kernel calls."""


def serves(images: Tensor, drawn: Drawn) -> bool:
    """Whether the kernel can be used: uint8 images on a CUDA device for which Triton compiles, no blur, no sharpen.

    Args:
        images: (B, H, W, C).
        drawn: The parameters of each.
    """
    wide, channels = images.shape[2:]
    if not images.is_cuda or images.dtype != torch.uint8 or not (channels == 1 or (channels == 3 and wide > 1)):
        return False  # a pixel of three channels is read together with a neighbour
    return drawn.blur is None and drawn.sharpen is None and _compiles(images.device)


def develop(
    images: Tensor,
    drawn: Drawn,
    look: Look,
    *,
    extents: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
) -> Tensor:
    """Returns images as a model takes them: (B, C, *look.size), normalised; see `pixels.develop`.

    Args:
        images: uint8 (B, H, W, C), C of 1 or 3; where their sizes differ each at the top left.
        drawn: The parameters of each; neither blur nor sharpen.
        look: The output format.
        extents: int32 (B, 2): their own heights and widths in pixels where they differ, or None.
        dtype: The dtype of the result: float32, bfloat16 or float16.
        channels_last: Whether the result is channels last in memory.
    """
    count, high, wide, channels = images.shape
    layout = torch.channels_last if channels_last else torch.contiguous_format
    out = torch.empty(count, channels, *look.size, dtype=dtype, device=images.device, memory_format=layout)
    together, precise = channels_last and channels == 3, dtype == torch.float32
    pairs = together and dtype in (torch.bfloat16, torch.float16) and look.size[1] % 2 == 0
    rows, columns, steps, tiles = _tiles(look.size, 2 if pairs else 1)
    matrix = drawn.matrix
    if matrix is None and drawn.field is not None:
        matrix = torch.eye(3, dtype=torch.float64, device=images.device).expand(count, 3, 3)
    stats = [(float(mean), float(std)) for mean, std in zip(look.mean, look.std, strict=True)]
    stats += [(0.0, 1.0)] * (3 - channels)
    tensors = [images, matrix, drawn.field, drawn.colour, drawn.noise, drawn.salt_pepper, drawn.erase, drawn.word]
    tensors += [None if drawn.noise is None else pixels.normal_table(images.device), extents if drawn.moves else None]
    same = {
        "channels": channels, "height": look.size[0], "width": look.size[1], "padding": look.padding,
        "knots": 0 if drawn.field is None else drawn.field.shape[-1], "taps": 1 if drawn.matrix is None else look.taps,
        "exact": geometry.EXACT, "shrinks": geometry.SHRINKS, "salt_word": pixels.SALT, "ptx": _ptx(images.device),
        "pairs": pairs, "together": together, "precise": precise, "rows": rows, "columns": columns, "steps": steps,
        "num_warps": 4, "enable_fp_fusion": False,  # for the reference's bits: `tl.fma` is where they do not matter
    }  # fmt: skip
    with torch.cuda.device_of(images):
        _kernel()[(count * tiles,)](
            *(out, *(None if tensor is None else tensor.contiguous() for tensor in tensors), high, wide),
            *(mean if precise else -mean / std for mean, std in stats),
            *(std if precise else 1 / std for _, std in stats),
            **same,
        )
    return out


def _tiles(size: tuple[int, int], each: int) -> tuple[int, int, int, int]:
    """Returns a tile's rows and columns (of ``each`` pixels), tiles per program, and programs per sample."""
    width = min(WIDTHS, key=lambda width: -(-size[1] // width) * -(-size[0] // (PIXELS // width)))
    rows = PIXELS // width
    steps = min(STEPS, -(-size[0] // rows))
    return rows, width // each, steps, -(-size[1] // width) * -(-size[0] // (rows * steps))


@cache
def _ptx(device: torch.device) -> bool:
    """Whether the kernel may use inline PTX (NVIDIA GPUs from Ampere on)."""
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


@cache
def _compiles(device: torch.device) -> bool:
    """Whether Triton is installed and compiles a working kernel; it needs a C compiler on the machine."""
    try:
        one = torch.zeros(1, 1, 1, 1, dtype=torch.uint8, device=device)
        develop(one, Drawn(), Look((1, 1), (0.0,), (1.0,)))
    except ImportError:
        return False
    except Exception as error:  # any failure of the compiler: the torch reference is the fallback
        warnings.warn(f"augmentation runs without its kernel, which Triton could not make: {error}", stacklevel=2)
        return False
    return True


@cache
def _kernel() -> Any:
    """Returns the kernel, and imports Triton for it, which `import common` must not."""
    import triton
    import triton.language

    scope = globals()
    scope["tl"] = triton.language  # Triton resolves a kernel's names in the globals of its module
    scope["ROUND"], scope["BYTE"] = triton.language.constexpr(ROUND), triton.language.constexpr(BYTE)
    for name in PARTS.split():
        scope[name] = triton.jit(getattr(scope[name], "fn", scope[name]))  # another thread may be here, too
    # Padded batches vary in size, slices of batches in alignment: do not compile a kernel for each.
    sizes = ["source_high", "source_wide"]
    read = ["images", "matrix", "field", "colour", "noise", "salt", "erase", "word", "table", "extents"]
    return triton.jit(do_not_specialize=sizes, do_not_specialize_on_alignment=read)(_developed)


# ---------------------------------------------------------------- the kernel, in Triton's part of Python


def _word(place, start):
    """`counter.words`: 32 random bits (uint32) of a place, for the 32 bits of a sample."""
    value = place.to(tl.uint32) ^ start
    value = (value ^ (value >> 16)) * 0x7FEB352D
    value = (value ^ (value >> 15)) * 0x846CA68B
    return value ^ (value >> 16)


def _normal(table, word, odd):
    """The normal number of the high half of a word where it is odd, else of the low."""
    return tl.load(table + tl.where(odd, word >> 16, word & 0xFFFF))


def _noisy(table, deviation, start, place, r, g, b, channels):
    """`pixels.normal_noise`, added: of each pixel's channels one after another, two to a word."""
    element = place * channels
    odd = (element & 1) == 1
    word = _word(element >> 1, start)
    r = _unit(tl.fma(deviation, _normal(table, word, odd), r))
    if channels == 3:
        after = _word((element >> 1) + 1, start)
        g = _unit(tl.fma(deviation, tl.load(table + tl.where(odd, after & 0xFFFF, word >> 16)), g))
        b = _unit(tl.fma(deviation, _normal(table, after, odd), b))
    return r, g, b


def _salted(struck, start, place, r, g, b):
    """`pixels.salted`: red, green and blue, of which some pixels are struck."""
    word = _word(place >> 1, start)
    half = tl.where((place & 1) == 1, word >> 16, word & 0xFFFF).to(tl.int32)
    new, hit = (half & 1).to(tl.float32), half.to(tl.float32) < struck
    return tl.where(hit, new, r), tl.where(hit, new, g), tl.where(hit, new, b)


def _axis(at, side, padding):
    """Between which pixels of an axis of ``side`` pixels places ``at`` lie, that are counted from its edge.

    Returns the first of two neighbours, and what each of both counts. Numbers are rounded by adding `ROUND`, and the
    first neighbour is not quite the floor (a whole place may be all of the second one): a third of what floor costs.
    """
    size = side.to(tl.float32)
    if padding == "reflection":
        at = tl.abs(tl.fma(tl.fma(at, 0.5 / size, ROUND) - ROUND, -2.0 * size, at))
    low = tl.minimum(tl.maximum(at + (ROUND - 1.0), ROUND), ROUND + tl.maximum(size - 2.0, 0.0))
    number = low.to(tl.int32, bitcast=True) & 0x3FFFFF
    low -= ROUND
    if padding == "zeros":
        beyond = tl.minimum(tl.maximum(at - 0.5, -1.0), size) - low
        first = tl.maximum(1.0 - tl.abs(beyond), 0.0)
        second = tl.where(side > 1, tl.maximum(1.0 - tl.abs(beyond - 1.0), 0.0), 0.0)
    else:
        second = _unit((at - tl.where(side > 1, 0.5, ROUND)) - low)  # of one pixel there is no second
        first = 1.0 - second
    return number, first, second


def _spline(at, knots):
    """The first of the four knots around places of an axis, counted in knots, and what each of the four adds."""
    first = tl.minimum(tl.floor(at), knots - 4.0)
    t = at - first
    a = (1.0 - t) * (1.0 - t) * (1.0 - t) * (1 / 6)
    b = (4.0 + t * t * (3.0 * t - 6.0)) * (1 / 6)
    c = (1.0 + t * (3.0 + t * (3.0 - 3.0 * t))) * (1 / 6)
    return first.to(tl.int32), (a, b, c, t * t * t * (1 / 6))


def _bent(field, sample, x, y, height, width, knots):
    """`geometry.spread_out`: the displacement of output pixels, in output pixels."""
    left, across = _spline((x.to(tl.float32) + 0.5) * ((knots - 3) / width), knots)
    top, down = _spline((y.to(tl.float32) + 0.5) * ((knots - 3) / height), knots)
    knot = field + sample * (2 * knots * knots) + (top * knots + left)
    dx, dy = 0.0, 0.0
    for k in tl.static_range(16):  # pyright: ignore[reportGeneralTypeIssues]
        share, at = down[k // 4] * across[k % 4], knot + (k // 4 * knots + k % 4)
        dx = tl.fma(share, tl.load(at).to(tl.float32), dx)
        dy = tl.fma(share, tl.load(at + knots * knots).to(tl.float32), dy)
    return dx * (width / 2), dy * (height / 2)


def _homography(m, source, height, width, shrinks):
    """The matrix from output to source pixels, centre to centre, and whether it shrinks (`geometry.spread`)."""
    down, across = source[2].to(tl.float64) * 0.5, source[3].to(tl.float64) * 0.5
    x, y = tl.full((), 2.0 / width, tl.float64), tl.full((), 2.0 / height, tl.float64)
    a, b, c = tl.load(m).to(tl.float64), tl.load(m + 1).to(tl.float64), tl.load(m + 2).to(tl.float64)
    d, e, f = tl.load(m + 3).to(tl.float64), tl.load(m + 4).to(tl.float64), tl.load(m + 5).to(tl.float64)
    g, h, i = tl.load(m + 6).to(tl.float64), tl.load(m + 7).to(tl.float64), tl.load(m + 8).to(tl.float64)
    minor = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    apart = tl.abs(minor) * (across * down * 4.0) >= tl.abs(i * i * i) * (height * width * shrinks * shrinks)
    return (
        ((a * x * across).to(tl.float32), (b * y * across).to(tl.float32), (c * across).to(tl.float32)),
        ((d * x * down).to(tl.float32), (e * y * down).to(tl.float32), (f * down).to(tl.float32)),
        ((g * x).to(tl.float32), (h * y).to(tl.float32), i.to(tl.float32)),
        apart,
    )


def _mapped(moves, source, x, y, ptx):
    """Places in the source, from its corner, of output pixels (x, y) from the centre."""
    across, down, below, _ = moves
    depth = below[0] * x + tl.fma(below[1], y, below[2])
    if ptx:  # to 1 ulp, in a third of the instructions
        share = tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [depth], tl.float32, True, 1)
    else:
        share = 1.0 / depth
    at_x = across[0] * x + tl.fma(across[1], y, across[2])
    at_y = down[0] * x + tl.fma(down[1], y, down[2])
    return tl.fma(at_x, share, source[3] * 0.5), tl.fma(at_y, share, source[2] * 0.5)


def _level(word, number, ptx):
    """One of four bytes as float32, and `BYTE` too much: for one that is subtracted, no conversion is as fast."""
    if ptx:
        which = [word, 0x7650 + number]
        bits = tl.inline_asm_elementwise("prmt.b32 $0, $1, 0x4B000000, $2;", "=r,r,r", which, tl.uint32, True, 1)
    else:
        bits = ((word >> (8 * number)) & 255) | 0x4B000000
    return bits.to(tl.float32, bitcast=True)


def _byte(place):
    """The byte at a place, as `_level` makes it."""
    return (tl.load(place).to(tl.uint32) | 0x4B000000).to(tl.float32, bitcast=True)


def _pair(words, at, ptx):
    """Red, green and blue of a pixel that begins ``at`` a byte, and of the next, from the words they lie in.

    Six loads of bytes would take twice the time: it is their number that counts, not what they bring.
    """
    place = words + (at >> 2)
    shift = ((at & 3) * 8).to(tl.uint32)
    first = tl.load(place)
    second = tl.load(place + 1)
    third = tl.load(place + 2, mask=(at & 3) == 3, other=0)
    low = (first >> shift) | ((second << 1) << (31 - shift))
    high = (second >> shift) | ((third << 1) << (31 - shift))
    left = (_level(low, 0, ptx), _level(low, 1, ptx), _level(low, 2, ptx))
    return left, (_level(low, 3, ptx), _level(high, 0, ptx), _level(high, 1, ptx))


def _blend(nw, ne, sw, se, x, y, padding):
    """Levels between four neighbours, of which each is `BYTE` too much; ``x`` and ``y`` are what `_axis` found."""
    if padding == "zeros":
        top = tl.fma(ne - BYTE, x[2], (nw - BYTE) * x[1])
        bottom = tl.fma(se - BYTE, x[2], (sw - BYTE) * x[1])
        found = tl.fma(bottom, y[2], top * y[1])
    else:
        top = tl.fma(ne - nw, x[2], nw - BYTE)
        bottom = tl.fma(se - sw, x[2], sw - BYTE)
        found = tl.fma(bottom - top, y[2], top)
    return found


def _bilinear(source, at_x, at_y, padding, channels, ptx):
    """Levels of each channel at places of a source: its address, skew, height, width and pixels in a row of memory."""
    image, skew, high, wide, row = source
    x = _axis(at_x, wide, padding)
    y = _axis(at_y, high, padding)
    top = (y[0] * row + x[0]) * channels
    down = tl.where(high > 1, row * channels, 0)
    if channels == 3:
        words = (image - skew).to(tl.pointer_type(tl.uint32))
        nw, ne = _pair(words, top + skew, ptx)
        sw, se = _pair(words, top + (down + skew), ptx)
        red = _blend(nw[0], ne[0], sw[0], se[0], x, y, padding)
        green = _blend(nw[1], ne[1], sw[1], se[1], x, y, padding)
        blue = _blend(nw[2], ne[2], sw[2], se[2], x, y, padding)
    else:
        first, last = image + top, image + (top + down)
        step = tl.where(wide > 1, 1, 0)
        red = _blend(_byte(first), _byte(first + step), _byte(last), _byte(last + step), x, y, padding)
        green, blue = red, red
    return red, green, blue


def _moved(source, moves, field, sample, x, y, channels, height, width, knots, taps, padding, exact, ptx):
    """`geometry.resample`: the levels of output pixels; ``moves`` is what `_homography` found."""
    across = x.to(tl.float32) + (0.5 - width / 2)
    down = y.to(tl.float32) + (0.5 - height / 2)
    if knots > 0:
        dx, dy = _bent(field, sample, x, y, height, width, knots)
        across += dx
        down += dy
    if taps == 1:
        at_x, at_y = _mapped(moves, source, across, down, ptx)
        r, g, b = _bilinear(source, at_x, at_y, padding, channels, ptx)
    else:
        side = tl.where(moves[3], taps, 1)
        step = 1.0 / side.to(tl.float32)
        r = tl.zeros_like(across + down)
        g, b = r, r
        tap = side * 0
        while tap < side * side:
            row = tap // side
            tap_x = across + ((tap - row * side + 0.5) * step - 0.5)
            at_x, at_y = _mapped(moves, source, tap_x, down + ((row + 0.5) * step - 0.5), ptx)
            one, two, three = _bilinear(source, at_x, at_y, padding, channels, ptx)
            r, g, b = r + one, g + two, b + three
            tap += 1
        r, g, b = r * (step * step), g * (step * step), b * (step * step)
    return (r + ROUND / exact) - ROUND / exact, (g + ROUND / exact) - ROUND / exact, (b + ROUND / exact) - ROUND / exact


def _colours(m):
    """The matrix of a sample's colours, for levels instead of pixels in [0, 1]: its rows."""
    a, b, c = (tl.load(m).to(tl.float32), tl.load(m + 1).to(tl.float32), tl.load(m + 2).to(tl.float32))
    return a * (1 / 255), b * (1 / 255), c * (1 / 255), tl.load(m + 3).to(tl.float32)


def _row(m, r, g, b):
    """One new colour, from one row of the matrix."""
    return _unit(tl.fma(b, m[2], tl.fma(g, m[1], tl.fma(r, m[0], m[3]))))


def _coloured(colours, r, g, b, channels):
    """`pixels.coloured` of levels: red, green and blue in [0, 1]."""
    one, two, three = colours
    if channels == 1:
        red = _unit(tl.fma(r, one[0] + one[1] + one[2], one[3]))
        green, blue = red, red
    else:
        red, green, blue = _row(one, r, g, b), _row(two, r, g, b), _row(three, r, g, b)
    return red, green, blue


def _unit(value):
    """Cut to [0, 1]."""
    return tl.minimum(tl.maximum(value, 0.0), 1.0)


def _pixels(
    x, y, sample, source, moves, colours, noises, box, stats, field, table, moved, coloured, noisy, salted, erased,
    precise, salt, channels, height, width, knots, taps, padding, exact, ptx,
):  # fmt: skip
    """Red, green and blue of output pixels, normalised."""
    place = y * width + x
    if moved:
        at = (source, moves, field, sample, x, y)
        r, g, b = _moved(*at, channels, height, width, knots, taps, padding, exact, ptx)
    else:
        first = source[0] + tl.minimum(place, height * width - 1) * channels
        r = _byte(first) - BYTE
        g, b = r, r
        if channels == 3:
            g, b = _byte(first + 1) - BYTE, _byte(first + 2) - BYTE
    if coloured:
        r, g, b = _coloured(colours, r, g, b, channels)
    else:
        r, g, b = r * (1 / 255), g * (1 / 255), b * (1 / 255)
    if noisy:
        r, g, b = _noisy(table, noises[0], noises[2], place, r, g, b, channels)
    if salted:
        r, g, b = _salted(noises[1], noises[2] ^ salt, place, r, g, b)
    if precise:
        r, g = tl.div_rn(r - stats[0], stats[3]), tl.div_rn(g - stats[1], stats[4])
        b = tl.div_rn(b - stats[2], stats[5])
    else:
        r, g, b = tl.fma(r, stats[3], stats[0]), tl.fma(g, stats[4], stats[1]), tl.fma(b, stats[5], stats[2])
    if erased:  # the mean colour, normalised
        inside = ((y >= box[0]) & (y < box[2])) & ((x >= box[1]) & (x < box[3]))
        r, g, b = tl.where(inside, 0.0, r), tl.where(inside, 0.0, g), tl.where(inside, 0.0, b)
    return r, g, b


def _both(low, high, kind, ptx):
    """Two numbers, rounded to 16 bits each, in one word."""
    if ptx and kind == tl.bfloat16:
        word = tl.inline_asm_elementwise("cvt.rn.bf16x2.f32 $0, $2, $1;", "=r,f,f", [low, high], tl.uint32, True, 1)
    elif ptx:
        word = tl.inline_asm_elementwise("cvt.rn.f16x2.f32 $0, $2, $1;", "=r,f,f", [low, high], tl.uint32, True, 1)
    else:
        first = low.to(kind).to(tl.uint16, bitcast=True).to(tl.uint32)
        word = first | (high.to(kind).to(tl.uint16, bitcast=True).to(tl.uint32) << 16)
    return word


def _four(a, b, c, rows, columns):
    """Three tensors side by side, and a fourth that nobody reads: neighbouring lanes then write neighbouring values.

    Three stores one after another would touch each sector of memory three times.
    """
    return tl.reshape(tl.join(tl.join(a, c), tl.join(b, b)), (rows, columns, 4))


def _developed(
    out, images, matrix, field, colour, noise, salt, erase, word, table, extents, source_high, source_wide,
    m0, m1, m2, s0, s1, s2, channels: tl.constexpr, height: tl.constexpr, width: tl.constexpr, knots: tl.constexpr,
    taps: tl.constexpr, padding: tl.constexpr, exact: tl.constexpr, ptx: tl.constexpr, shrinks: tl.constexpr,
    salt_word: tl.constexpr, pairs: tl.constexpr, together: tl.constexpr, precise: tl.constexpr,
    steps: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """A few tiles of one sample, one below the other, from what is read to what is written; None is left out."""
    each = tl.where(pairs, 2, 1)
    across = (width + columns * each - 1) // (columns * each)
    tiles = across * ((height + rows * steps - 1) // (rows * steps))
    sample = tl.program_id(0) // tiles
    tile = tl.program_id(0) - sample * tiles
    image = images + sample.to(tl.int64) * source_high * source_wide * channels
    high = source_high if extents is None else tl.load(extents + sample * 2).to(tl.int32)
    wide = source_wide if extents is None else tl.load(extents + sample * 2 + 1).to(tl.int32)
    source = (image, (image.to(tl.int64) & 3).to(tl.int32), high, wide, source_wide)
    moves = 0 if matrix is None else _homography(matrix + sample * 9, source, height, width, shrinks)
    m = 0 if colour is None else colour + sample * 12
    colours = 0 if colour is None else (_colours(m), _colours(m + 4), _colours(m + 8))
    deviation = 0.0 if noise is None else tl.load(noise + sample).to(tl.float32)
    share = 0.0 if salt is None else tl.load(salt + sample).to(tl.float32)
    struck = (share * 65536.0 + ROUND) - ROUND  # half a number goes to the even one, as torch rounds
    start = 0 if word is None else (tl.load(word + sample) & 0xFFFFFFFF).to(tl.uint32)
    m = 0 if erase is None else erase + sample * 4
    box = 0 if erase is None else (tl.load(m), tl.load(m + 1), tl.load(m + 2), tl.load(m + 3))
    kind = out.dtype.element_ty
    target = out + sample.to(tl.int64) * (height * width * channels)
    if pairs:
        target = target.to(tl.pointer_type(tl.uint32))
    column = (tile % across * columns + tl.arange(0, columns))[None, :]
    row = tile // across * (rows * steps)
    end = tl.minimum(row + rows * steps, height)
    while row < end:
        y = (row + tl.arange(0, rows))[:, None]
        there = (y < height) & (column * each < width)
        r, g, b = _pixels(
            *(column * each, y, sample, source, moves, colours, (deviation, struck, start), box),
            *((m0, m1, m2, s0, s1, s2), field, table, matrix is not None, colour is not None, noise is not None),
            *(salt is not None, erase is not None, precise, salt_word),
            *(channels, height, width, knots, taps, padding, exact, ptx),
        )
        if together:
            if pairs:
                r1, g1, b1 = _pixels(
                    *(column * 2 + 1, y, sample, source, moves, colours, (deviation, struck, start), box),
                    *((m0, m1, m2, s0, s1, s2), field, table, matrix is not None, colour is not None),
                    *(noise is not None, salt is not None, erase is not None, precise, salt_word),
                    *(channels, height, width, knots, taps, padding, exact, ptx),
                )
                first, second = _both(r, g, kind, ptx), _both(b, r1, kind, ptx)
                four = _four(first, second, _both(g1, b1, kind, ptx), rows, columns)
            else:
                four = _four(r.to(kind), g.to(kind), b.to(kind), rows, columns)
            channel = tl.arange(0, 4)[None, None, :]
            place = (y * (width // each) + column)[:, :, None] * 3 + channel
            tl.store(target + place, four, mask=there[:, :, None] & (channel < 3))
        else:
            place = y * width + column
            tl.store(target + place, r.to(kind), mask=there)
            if channels == 3:
                tl.store(target + (height * width + place), g.to(kind), mask=there)
                tl.store(target + (2 * height * width + place), b.to(kind), mask=there)
        row += rows
