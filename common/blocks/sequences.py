"""Blocks of variable-length items: text as token ids, sound as samples or spectrograms.

Floor: blocks; may import text and below. Used by: data.
"""

import re
import wave
from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from common.blocks.block import Block, Target
from common.blocks.content import words_digest
from common.blocks.form import (
    ARRAY_TYPES,
    MAX_FILE_BYTES,
    SOUND_TYPES,
    TEXT_TYPES,
    FormField,
    file_bytes,
    list_of,
    number_of,
    text_of,
)
from common.blocks.item_transforms import View
from common.blocks.values import Padded
from common.errors import ConfigError, DataError, in_range, one_of
from common.registry import register

_WORDS = re.compile(r"\w+|[^\w\s]")


@register("block", "text")
@dataclass(frozen=True)
class TextBlock(Block):
    """A text as token ids, int32 (T,); in a batch `Padded` (B, T).

    Id 0 is padding and id 1 every token that is not in the vocabulary.

    Args:
        tokens: ``word`` (lower-case words and punctuation marks) or ``char``.
        vocab: The tokens; fitted when empty: those of the training items that occur at least ``min_count`` times.
        min_count: How often a token must occur to enter the vocabulary.
        max_length: The most tokens of one text; the rest is cut off.

    Examples:
        >>> block = TextBlock(min_count=1).setup(["a rose is a rose"])
        >>> block.decode(block.encode("a rose!"))
        'a rose <unk>'
    """

    tokens: str = "word"
    vocab: tuple[str, ...] = ()
    min_count: int = 2
    max_length: int = 4096
    target: ClassVar[Target] = Target.TEXT
    ragged: ClassVar[bool] = True
    needs_fit: ClassVar[bool] = True

    def __post_init__(self) -> None:
        one_of("tokens", self.tokens, ["word", "char"])
        in_range("max_length", self.max_length, 1, float("inf"))
        object.__setattr__(self, "_ids", {token: i for i, token in enumerate(self.vocab)})

    def _split(self, raw: Any) -> list[str]:
        if not isinstance(raw, str):
            raise DataError(f"a text must be a string, got {raw!r:.40}")
        return list(raw) if self.tokens == "char" else _WORDS.findall(raw.lower())

    def setup(self, raws: Sequence[Any]) -> Self:
        if self.vocab:
            return self
        counts = Tally(token for raw in raws for token in self._split(raw))
        kept = sorted(token for token, n in counts.items() if n >= self.min_count)
        return replace(self, vocab=("<pad>", "<unk>", *kept))

    def encode(self, raw: Any, view: View | None = None) -> Tensor:
        if not self.vocab:
            raise ConfigError("this TextBlock is not fitted: it gets its vocab from DataBlock.dataloaders")
        known: dict[str, int] = self._ids  # type: ignore[attr-defined]
        ids = [known.get(token, 1) for token in self._split(raw)[: self.max_length]]
        return torch.tensor(ids, dtype=torch.int32)

    def form(self, name: str = "") -> tuple[FormField, ...]:
        return (FormField(name=name or self.registered_name, kind="text", accepts=TEXT_TYPES),)

    def parse(self, value: Any, data: bytes | None = None) -> Any:
        return text_of("a text", value, data)

    def token(self, raw: Any) -> bytes:
        return words_digest(raw) if isinstance(raw, str) else super().token(raw)

    def decode(self, value: Padded | Tensor) -> str:
        ids = value.own() if isinstance(value, Padded) else value
        return ("" if self.tokens == "char" else " ").join(self.vocab[int(i)] for i in ids)


@register("block", "signal")
@dataclass(frozen=True)
class SignalBlock(Block):
    """A sound as samples, float32 (T,) in [-1, 1]; in a batch `Padded` (B, T).

    Reads 16-bit WAV files with the standard library, and arrays as they are.

    Args:
        rate_hz: The sampling rate every item must have; 0: any.
    """

    rate_hz: int = 0
    target: ClassVar[Target] = Target.SIGNAL
    ragged: ClassVar[bool] = True
    eager: ClassVar[bool] = False
    from_file: ClassVar[bool] = True

    def encode(self, raw: Any, view: View | None = None) -> Tensor:
        if isinstance(raw, (str, Path)):
            return torch.from_numpy(self._read(Path(raw)))
        samples = np.asarray(raw, dtype=np.float32)
        if samples.ndim != 1:
            raise DataError(f"a signal must be one row of samples, got shape {samples.shape}")
        return torch.from_numpy(samples.copy())

    def _read(self, path: Path | BytesIO) -> np.ndarray:
        try:
            with wave.open(str(path) if isinstance(path, Path) else path, "rb") as sound:
                if sound.getsampwidth() != 2:
                    raise DataError(f"WAV must have 16-bit samples, got {8 * sound.getsampwidth()}-bit")
                if self.rate_hz and sound.getframerate() != self.rate_hz:
                    raise DataError(f"rate_hz must be {self.rate_hz}, the file has {sound.getframerate()}")
                frames = sound.readframes(sound.getnframes())
                channels = sound.getnchannels()
                if len(frames) != 2 * channels * sound.getnframes():
                    raise DataError(f"the WAV file is cut: {len(frames)} of {2 * channels * sound.getnframes()} bytes")
        except (OSError, EOFError, wave.Error) as error:
            raise DataError(f"cannot be read as a WAV file: {error}") from error
        samples = np.frombuffer(frames, dtype="<i2").astype(np.float32) / 32768
        return samples.reshape(-1, channels).mean(axis=1)

    def form(self, name: str = "") -> tuple[FormField, ...]:
        return (FormField(name=name or self.registered_name, kind="file", accepts=SOUND_TYPES),)

    def parse(self, value: Any, data: bytes | None = None) -> Any:
        """Returns the samples of a WAV file (uploaded, or its bytes in base64), or those of a JSON list of numbers."""
        if data is None and isinstance(value, list):
            cells = list_of("a sound", value)
            return np.array([number_of(f"sample {i} of a sound", cell) for i, cell in enumerate(cells)], np.float32)
        return self._read(BytesIO(file_bytes("a sound", value, data)))

    def decode(self, value: Padded | Tensor) -> np.ndarray:
        samples = value.own() if isinstance(value, Padded) else value
        return samples.detach().cpu().numpy()

    def draw(self, axes: Any, value: Padded | Tensor) -> None:
        axes.plot(self.decode(value), linewidth=0.5)


@register("block", "spectrogram")
@dataclass(frozen=True)
class SpectrogramBlock(Block):
    """A spectrogram in decibels, float32 (T, F); in a batch `Padded` (B, T, F).

    The raw value is an array (F, T), frequencies first, as signal libraries return it. All items have the same F.

    Args:
        bands: The number of frequencies F that every item must have; 0: any.

    Examples:
        >>> SpectrogramBlock().encode(np.zeros((4, 7))).shape
        torch.Size([7, 4])
    """

    bands: int = 0
    target: ClassVar[Target] = Target.SPECTROGRAM
    ragged: ClassVar[bool] = True
    eager: ClassVar[bool] = False

    def encode(self, raw: Any, view: View | None = None) -> Tensor:
        values = np.asarray(raw, dtype=np.float32)
        if values.ndim != 2 or 0 in values.shape:
            raise DataError(f"a spectrogram must be an array (frequencies, times), got shape {values.shape}")
        if self.bands and len(values) != self.bands:
            raise DataError(f"bands must be {self.bands}, the spectrogram has {len(values)} frequencies")
        if not np.isfinite(values).all():
            raise DataError("the spectrogram has a value that is not finite (the logarithm of silence?)")
        return torch.from_numpy(np.ascontiguousarray(values.T))

    def form(self, name: str = "") -> tuple[FormField, ...]:
        return (FormField(name=name or self.registered_name, kind="file", accepts=ARRAY_TYPES),)

    def parse(self, value: Any, data: bytes | None = None) -> Any:
        """Returns the numbers (frequencies, times) of a NumPy file, or those of JSON lists, one per frequency."""
        if data is None and isinstance(value, list):
            rows = [list_of(f"frequency {i} of a spectrogram", row) for i, row in enumerate(list_of("", value))]
            if len({len(row) for row in rows}) > 1:
                raise DataError("a spectrogram must have as many times in each frequency: its rows differ in length")
            cells = [[number_of(f"frequency {i} of a spectrogram", cell) for cell in row] for i, row in enumerate(rows)]
            return np.array(cells, np.float32)
        return _array(file_bytes("a spectrogram", value, data))

    def decode(self, value: Padded | Tensor) -> np.ndarray:
        """Returns float32 (F, T)."""
        frames = value.own() if isinstance(value, Padded) else value
        return frames.detach().cpu().numpy().T

    def draw(self, axes: Any, value: Padded | Tensor) -> None:
        axes.imshow(self.decode(value), origin="lower", aspect="auto", cmap="magma")
        axes.set_axis_off()


def _array(data: bytes) -> np.ndarray:
    """The array of numbers in a NumPy file (.npy); nothing in it is unpickled."""
    try:
        if not data.startswith(b"\x93NUMPY"):
            raise ValueError("it does not begin as one")
        found: Any = np.lib.format.read_array(BytesIO(data), allow_pickle=False, max_header_size=10_000)
    except (ValueError, EOFError, OSError, MemoryError, SyntaxError, TypeError) as error:
        raise DataError(f"cannot be read as a NumPy file (.npy) of numbers: {error}") from error
    if found.dtype.kind not in "fiu" or found.nbytes > MAX_FILE_BYTES:
        raise DataError(f"a NumPy file must hold real numbers, got {found.dtype} {found.shape}")
    return found
