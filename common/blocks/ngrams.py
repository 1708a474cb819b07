"""Feature hashing of words and bigrams: text features without a vocabulary to fit or to store.

Floor: blocks; may import text and below. Used by: its own room.
"""

import re
import zlib
from collections.abc import Sequence

import numpy as np

_WORD = re.compile(r"\w+|[^\w\s]")
_MIX = np.uint64(0x9E3779B97F4A7C15)  # multiplicative hashing by the golden ratio (Knuth, TAOCP 3, 6.4), for bigrams


def words(text: str) -> list[str]:
    """Returns the lower-case words of a text; each punctuation mark or emoji is a word.

    Examples:
        >>> words("It's 5 o'clock!")
        ['it', "'", 's', '5', 'o', "'", 'clock', '!']
    """
    return _WORD.findall(text.lower())


def hashed_ngrams(texts: Sequence[str], salt: str, buckets: int, most: int) -> list[np.ndarray]:
    """Returns the hash buckets of the words, then of the bigrams, of each text: int32 in [1, buckets).

    The same for the same text in every process (CRC-32; Python's hash is salted per process).

    Args:
        texts: The texts.
        salt: Mixed into every hash, so that a word hashes differently in each column.
        buckets: The number of buckets; 0 is reserved for padding.
        most: The most entries per text; bigrams are dropped before words.

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
