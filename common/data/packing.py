"""Texts packed into rows of one length for language models: padding only at the end, segment ids separate the texts.

Floor: data; may import store and below. Used by: its own room.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.blocks.block import Block
from common.blocks.values import Ragged
from common.data.order import Batching
from common.errors import ConfigError, DataError, in_range
from common.store.store import CHUNK, SampleStore


class Piece(NamedTuple):
    """A span of a text that lies in one pack.

    Attributes:
        text: The index of the text.
        start: The first token of the span.
        stop: One past its last token.
    """

    text: int
    start: int
    stop: int


def pack(lengths: Sequence[int] | np.ndarray, most: int) -> list[list[Piece]]:
    """Returns packs of texts of at most ``most`` tokens each, by best-fit decreasing bin packing; deterministic.

    Args:
        lengths: The number of tokens of each text; an empty text is in no pack.
        most: The most tokens of a pack. A longer text is cut into pieces of this length and a shorter last one.

    Raises:
        ConfigError: if ``most`` is below 1.

    Examples:
        >>> [[tuple(piece) for piece in one] for one in pack([3, 9, 2, 5], most=8)]
        [[(1, 0, 8)], [(3, 0, 5), (0, 0, 3)], [(2, 0, 2), (1, 8, 9)]]
    """
    in_range("most", most, 1, float("inf"))
    every = [
        Piece(text, start, min(start + most, length))
        for text, length in enumerate(np.asarray(lengths).tolist())
        for start in range(0, length, most)
    ]
    every.sort(key=lambda piece: piece.start - piece.stop)  # stable: equal lengths stay in the order of the texts
    packs: list[list[Piece]] = []
    with_room: list[list[int]] = [[] for _ in range(most + 1)]
    # A bit set instead of a search: bit r of `some` says whether a pack has room for exactly r more tokens. Shifted by
    # the piece's length, its lowest set bit is the tightest fit.
    some = 0
    for piece in every:
        length = piece.stop - piece.start
        fitting = some >> length
        room = length + (fitting & -fitting).bit_length() - 1 if fitting else most
        if fitting:
            place = with_room[room].pop()
            some &= ~(0 if with_room[room] else 1 << room)
        else:
            place = len(packs)
            packs.append([])
        packs[place].append(piece)
        if room > length:
            with_room[room - length].append(place)
            some |= 1 << (room - length)
    return packs


def check_pack(blocks: Sequence[Block], most: int, batching: Batching | None) -> None:
    """Checks that the samples of some blocks can be packed.

    Args:
        blocks: The blocks of a DataBlock.
        most: The tokens of a row.
        batching: The option ``batching`` of the loaders; it must be None.

    Raises:
        ConfigError: naming the rule.
    """
    in_range("pack", most, 1, float("inf"))
    block = blocks[0]
    if len(blocks) != 1 or block.target != "text" or not block.ragged or type(block).collate is not Block.collate:
        names = ", ".join(type(block).__name__ for block in blocks)
        raise ConfigError(f"pack={most} takes one field, a text (blocks=TextBlock), got {names}: leave pack out")
    if batching is not None:
        raise ConfigError(f"pack={most} makes rows of one length, so batching must be None, got {batching!r:.60}")


def packed(store: SampleStore, parts: dict[str, np.ndarray], most: int) -> tuple[SampleStore, dict[str, np.ndarray]]:
    """Returns a store whose samples are packs of the texts of a store, and the packs of each part.

    Its only field is ``tokens`` and ``segments``, both int32 (most,): segments are numbered from 1 in each pack, and 0
    is padding. The name of a pack lists the items in it.

    Args:
        store: The texts.
        parts: The positions of each part; each part is packed separately.
        most: The tokens of a pack.

    Raises:
        DataError: if no text of the first part has a token.
    """
    tokens: list[Tensor] = []
    segments: list[Tensor] = []
    names: list[str] = []
    rows: dict[str, np.ndarray] = {}
    for part, positions in parts.items():
        texts, kept = _texts(store, torch.from_numpy(positions))
        lengths = texts.lengths.tolist()
        packs = pack(lengths, most)
        rows[part] = np.arange(len(names), len(names) + len(packs))
        for one in packs:
            known = [_named(store.name(kept[piece.text]), piece, lengths[piece.text]) for piece in one]
            names.append(" + ".join(known))
        filled = _filled(packs, texts, most)
        tokens.append(filled[0])
        segments.append(filled[1])
    if not len(next(iter(rows.values()))):
        raise DataError(f"no text of the {next(iter(rows))} part has a token")
    value = {"tokens": torch.cat(tokens), "segments": torch.cat(segments)}
    return store.of_dense(names, value), rows


def _texts(store: SampleStore, rows: Tensor) -> tuple[Ragged, list[int]]:
    """The tokens of those of some rows that can be used, int32, and which rows these are."""
    samples: list[Any] = []
    kept: list[int] = []
    for part in rows.split(CHUNK):
        spare: dict[int, Any] = {} if store.ready(part) else store.load(part.tolist())
        good = part[~store.bad[part]].tolist()
        samples += [spare[row][0] if row in spare else store.fields[0].piece(row) for row in good]
        kept += good
    return Ragged.of(samples or [torch.zeros(0, dtype=torch.int32)]), kept


def _named(name: str, piece: Piece, length: int) -> str:
    return name if piece.stop - piece.start == length else f"{name}[{piece.start}:{piece.stop}]"


def _filled(packs: list[list[Piece]], texts: Ragged, most: int) -> tuple[Tensor, Tensor]:
    """The packs as tokens and segments, both int32 (packs, most)."""
    tokens, segments = (torch.zeros(len(packs) * most, dtype=torch.int32) for _ in range(2))
    pieces = [piece for one in packs for piece in one]
    if not pieces:
        return tokens.reshape(0, most), segments.reshape(0, most)
    lengths = torch.tensor([piece.stop - piece.start for piece in pieces])
    number = torch.tensor([i for one in packs for i in range(1, len(one) + 1)], dtype=torch.int32)
    pack_of = torch.repeat_interleave(torch.tensor([len(one) for one in packs]))
    before = torch.cumsum(lengths, 0) - lengths
    first = before[number == 1]  # the number of tokens in all packs before each pack
    sources = texts.offsets[[piece.text for piece in pieces]] + torch.tensor([piece.start for piece in pieces])
    steps = torch.arange(int(lengths.sum()))
    places = steps + torch.repeat_interleave(pack_of * most - first[pack_of], lengths)
    tokens[places] = texts.values[steps + torch.repeat_interleave(sources - before, lengths)].to(torch.int32)
    segments[places] = torch.repeat_interleave(number, lengths)
    return tokens.reshape(-1, most), segments.reshape(-1, most)
