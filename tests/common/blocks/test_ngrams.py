"""Hashed words and pairs of words."""

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from common.blocks.ngrams import hashed_ngrams, words

ROOT = Path(__file__).resolve().parents[3]
BUCKETS = 1 << 18
TEXTS = [
    "a red dress",
    "",
    "It's 5 o'clock!",
    "schön 😍😍 über",
    "日本語 の テキスト",
    "e\u0301",
    "half \ud800 a pair",
    " \t\n",
    "x",
]


def by_hand(text, salt, buckets, most):
    """The same, word by word with Python's numbers."""
    start = zlib.crc32(salt.encode("utf-8", "surrogatepass"))
    codes = [zlib.crc32(word.encode("utf-8", "surrogatepass"), start) for word in words(text)]
    mix, whole = 0x9E3779B97F4A7C15, 1 << 64
    pairs = [((a * mix + b) % whole * mix % whole) >> 32 for a, b in zip(codes, codes[1:], strict=False)]
    return [code % (buckets - 1) + 1 for code in [*codes, *pairs][:most]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A red  Dress.", ["a", "red", "dress", "."]),
        ("Größe_1 É", ["größe_1", "é"]),
        ("so 😍👍!", ["so", "😍", "👍", "!"]),
        ("", []),
        (" \n\t", []),
        ("日本語 の", ["日本語", "の"]),
    ],
)
def test_words_are_small_and_signs_stand_alone(text, found):
    assert words(text) == found


@pytest.mark.parametrize("salt", ["", "review", "Größe 😍"])
@pytest.mark.parametrize(("buckets", "most"), [(BUCKETS, 100), (7, 100), (2, 100), (BUCKETS, 3), (1 << 31, 1)])
def test_positions_equal_those_of_plain_python(salt, buckets, most):
    found = hashed_ngrams(TEXTS, salt, buckets, most)
    assert [row.tolist() for row in found] == [by_hand(text, salt, buckets, most) for text in TEXTS]
    assert all(row.dtype == np.int32 for row in found)


def test_positions_leave_0_free_and_stay_below_the_buckets():
    (found,) = hashed_ngrams([" ".join(map(str, range(500)))], "", 11, 999)
    assert set(found.tolist()) == set(range(1, 11))


def test_a_text_has_its_words_then_its_pairs():
    (both,) = hashed_ngrams(["red dress red"], "", BUCKETS, 10)
    (red,), (dress,) = hashed_ngrams(["red", "dress"], "", BUCKETS, 10)
    assert both[:3].tolist() == [red, dress, red]
    assert len(both) == 5
    assert both[3] != both[4]  # red dress is not dress red


def test_where_room_ends_pairs_are_left_out_before_words():
    (both,) = hashed_ngrams(["a b c d"], "", BUCKETS, 99)
    for most in range(1, 8):
        (cut,) = hashed_ngrams(["a b c d"], "", BUCKETS, most)
        assert cut.tolist() == both[:most].tolist()
    assert hashed_ngrams(["a b c d"], "", BUCKETS, 4)[0].tolist() == [
        row[0] for row in hashed_ngrams(list("abcd"), "", BUCKETS, 9)
    ]


def test_a_text_without_a_word_is_empty():
    assert [len(row) for row in hashed_ngrams(["", "  ", "a"], "", BUCKETS, 9)] == [0, 0, 1]
    assert hashed_ngrams([], "", BUCKETS, 9) == []


def test_small_and_large_letters_are_one_word():
    first, second = hashed_ngrams(["Red DRESS", "red dress"], "", BUCKETS, 9)
    assert first.tolist() == second.tolist()


def test_a_word_under_another_salt_is_another_word():
    ours, theirs = (hashed_ngrams(["red dress"], salt, BUCKETS, 9)[0].tolist() for salt in ("title", "text"))
    assert not set(ours) & set(theirs)


def test_a_text_does_not_depend_on_those_around_it():
    together = hashed_ngrams(TEXTS, "s", BUCKETS, 99)
    for text, row in zip(TEXTS, together, strict=True):
        assert hashed_ngrams([text], "s", BUCKETS, 99)[0].tolist() == row.tolist()


def test_five_thousand_words_have_few_positions_in_common():
    (found,) = hashed_ngrams([" ".join(f"w{i}" for i in range(5000))], "", BUCKETS, 5000)
    # among B positions n words fall on n - n²/2B different ones
    assert len(set(found.tolist())) == pytest.approx(5000 - 5000**2 / 2 / BUCKETS, abs=40)


def test_a_fresh_process_gives_the_same_positions():
    code = (
        "import json, sys; from common.blocks.ngrams import hashed_ngrams;"
        "print([row.tolist() for row in hashed_ngrams(json.loads(sys.argv[1]), 'salt', 1 << 18, 9)])"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "77"}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(TEXTS)], env=env, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [row.tolist() for row in hashed_ngrams(TEXTS, "salt", BUCKETS, 9)]
