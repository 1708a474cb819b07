"""Words and pairs of words as positions in a hashed table: text without a vocabulary to fit or to carry."""

import re
import zlib
from collections.abc import Sequence

import numpy as np

_WORD = re.compile(r"\w+|[^\w\s]")
_MIX = np.uint64(0x9E3779B97F4A7C15)  # the golden ratio's multiplier (Knuth, TAOCP 3, 6.4): spreads sums of pairs


def words(text: str) -> list[str]:
    """Returns the words of a text in small letters; signs and emoji are words of their own.

    Examples:
        >>> words("It's 5 o'clock!")
        ['it', "'", 's', '5', 'o', "'", 'clock', '!']
    """
    return _WORD.findall(text.lower())


def hashed_ngrams(texts: Sequence[str], salt: str, buckets: int, most: int) -> list[np.ndarray]:
    """Returns the hashed words, then the hashed pairs of neighbours, of each text: int32 positions in [1, buckets).

    The same for the same text in every process (CRC-32, not Python's hash).

    Args:
        texts: The texts.
        salt: Mixed into every hash, so that a word in one column is not the same word in another.
        buckets: Positions there are, 0 being free for padding.
        most: The most positions kept per text; pairs are left out before words.

    Examples:
        >>> found = hashed_ngrams(["red dress", "dress"], "", 1 << 18, 10)
        >>> [len(f) for f in found], bool(found[0][1] == found[1][0])
        ([3, 1], True)
    """
    start = zlib.crc32(salt.encode("utf-8", "surrogatepass"))
    known: dict[str, int] = {}
    found: list[np.ndarray] = []
    for text in texts:
        codes = np.empty(0, np.uint64)
        if text:
            listed: list[int] = []
            for word in words(text):
                code = known.get(word)
                if code is None:
                    code = known[word] = zlib.crc32(word.encode("utf-8", "surrogatepass"), start)
                listed.append(code)
            codes = np.array(listed, np.uint64)
        pairs = (codes[:-1] * _MIX + codes[1:]) * _MIX >> np.uint64(32)
        both = np.concatenate([codes, pairs])[:most]
        found.append((both % np.uint64(buckets - 1)).astype(np.int32) + np.int32(1))
    return found
