"""A pretrained tokenizer as a value."""

import numpy as np
import pytest

from common.errors import ConfigError, DataError
from common.spec import build, to_spec
from common.text import Tokenizer

pytest.importorskip("tokenizers", reason="transformers is not installed: pip install 'applications-cookbook[nlp]'")


@pytest.fixture
def tokenizer(tiny_transformer):
    return Tokenizer.read(tiny_transformer, most=8)


def test_tokens_are_one_more_than_their_position_and_0_after_the_last(tokenizer):
    found = tokenizer.encode_many(["A sunny house", "xyz"])
    assert found.dtype == np.int32
    assert found.tolist() == [[3, 5, 6, 8, 4, 0, 0, 0], [3, 2, 4, 0, 0, 0, 0, 0]]  # [CLS] a sunny house [SEP]; [UNK]


def test_a_long_text_keeps_its_beginning_and_its_end_sign(tokenizer):
    assert tokenizer.encode_many(["a " * 50])[0].tolist() == [3, *[5] * 6, 4]


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_an_empty_text_has_no_tokens(tokenizer, text):
    assert not tokenizer.encode_many([text]).any()


def test_emoji_and_lone_surrogates_are_texts(tokenizer):
    assert tokenizer.encode_many(["😀 house", "\ud800 house"])[:, 0].tolist() == [3, 3]


def test_the_same_tokens_after_its_way_through_json(tokenizer):
    again = build(Tokenizer, to_spec(tokenizer), "tokenizer")
    assert again == tokenizer
    assert np.array_equal(again.encode_many(["a dark house"]), tokenizer.encode_many(["a dark house"]))


def test_two_lengths_of_one_tokenizer_do_not_disturb_each_other(tiny_transformer):
    short, long = (Tokenizer.read(tiny_transformer, most=most) for most in (4, 20))
    text = ["a sunny house with a garden"]
    before = long.encode_many(text)
    assert short.encode_many(text).tolist() == [[3, 5, 6, 4]]
    assert np.array_equal(long.encode_many(text), before)


def test_no_more_tokens_are_kept_than_the_model_beside_has_positions_for(tiny_transformer):
    assert Tokenizer.read(tiny_transformer, most=500).most == 32


def test_what_is_no_tokenizer_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"has no tokenizer\.json"):
        Tokenizer.read(tmp_path)
    with pytest.raises(ConfigError, match=r"tokenizer\.json is no tokenizer"):
        Tokenizer("{}")
    with pytest.raises(ConfigError, match="most must lie in"):
        Tokenizer("{}", most=1)
