"""A pretrained tokenizer as a value: its tokenizer.json, and texts as token ids.

Floor: text; may import the ground. Used by: blocks, applications.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np

from common.errors import ConfigError, DataError, in_range

FILE = "tokenizer.json"
MAX_BYTES = 32 << 20
MOST_POSITIONS = 1 << 16
OFFSET = ("roberta", "xlm-roberta", "mpnet")  # kinds whose first positions are reserved for padding
RESERVED = 2


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer as Hugging Face's ``tokenizers`` writes it; JSON, no code.

    Args:
        content: The text of its tokenizer.json; empty while that file of a bundle is not read yet.
        most: The most tokens of a text; the rest is cut off.
        sha256: The file's hash, 64 hexadecimal digits; computed from the content when empty.

    Raises:
        ConfigError: if it is not a tokenizer, has another hash, or ``tokenizers`` is not installed.
    """

    content: str = field(default="", repr=False)
    most: int = 128
    sha256: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        in_range("most", self.most, 2, 1 << 16)
        if self.sha256 and not self.content:
            return
        found = hashlib.sha256(self.content.encode("utf-8", "surrogatepass")).hexdigest()
        if self.sha256 and self.sha256 != found:
            raise ConfigError(f"{FILE} was changed: its sha256 is {found[:12]}…, not {self.sha256[:12]}…")
        _made(self.content, self.most)
        object.__setattr__(self, "sha256", found)

    def spec(self) -> dict[str, Any]:
        """Returns its configuration without the file: ``most`` and ``sha256``."""
        return {"most": self.most, "sha256": self.sha256}

    def load(self, data: bytes) -> Self:
        """Returns a copy with the content of its file.

        Args:
            data: The bytes of a tokenizer.json.

        Raises:
            ConfigError: if it is not a tokenizer, or has another hash.
        """
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{FILE} is larger than {MAX_BYTES >> 20} MiB")
        try:
            return replace(self, content=data.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ConfigError(f"{FILE} is not UTF-8: {error.reason} at byte {error.start}") from error

    @classmethod
    def read(cls, folder: str | Path, most: int = 128) -> Self:
        """Reads the tokenizer.json of a folder.

        Args:
            folder: The folder of a pretrained model.
            most: The most tokens of a text; fewer where the model in the folder has fewer positions.

        Raises:
            DataError: if there is none.
        """
        file = Path(folder) / FILE
        if not file.is_file():
            raise DataError(
                f"{folder} has no {FILE}: a folder of a pretrained model, as transformers saves one, is needed"
            )
        if file.stat().st_size > MAX_BYTES:
            raise DataError(f"{file} is larger than {MAX_BYTES >> 20} MiB")
        return cls(file.read_text("utf-8"), min(most, _room_in(Path(folder))))

    def encode_many(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the tokens of texts, int32 (N, most): token ids plus 1, padded with 0.

        A blank text has no tokens.

        Raises:
            ConfigError: if the content was not read yet.
        """
        if not self.content:
            raise ConfigError(f"this tokenizer has no content yet: its block needs the file {FILE}, see load_files")
        tokens = np.zeros((len(texts), self.most), np.int32)
        rows = [i for i, text in enumerate(texts) if text.strip()]
        clean = [texts[i].encode("utf-8", "replace").decode("utf-8") for i in rows]  # it refuses lone surrogates
        for row, encoding in zip(rows, _made(self.content, self.most).encode_batch_fast(clean), strict=True):
            tokens[row, : len(encoding.ids)] = np.asarray(encoding.ids, np.int64) + 1
        return tokens


def room(kind: object, positions: int) -> int:
    """Returns the most tokens that a model of a kind with some position embeddings takes."""
    return positions - RESERVED if kind in OFFSET else positions


def _room_in(folder: Path) -> int:
    """The most tokens that the pretrained model in a folder takes; `MOST_POSITIONS` where its config is silent."""
    try:
        found = json.loads((folder / "config.json").read_text("utf-8"))
        return room(found.get("model_type"), int(found.get("max_position_embeddings", MOST_POSITIONS)))
    except (OSError, ValueError, AttributeError, TypeError):
        return MOST_POSITIONS


@lru_cache(maxsize=8)
def _made(content: str, most: int) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ConfigError("a tokenizer needs transformers: pip install 'applications-cookbook[nlp]'") from error
    try:
        made: Any = tokenizers.Tokenizer.from_str(content)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a Rust panic is raised as a BaseException
        raise ConfigError(f"{FILE} is no tokenizer: {str(error).splitlines()[0]}") from error
    made.no_padding()
    made.enable_truncation(most)
    return made
