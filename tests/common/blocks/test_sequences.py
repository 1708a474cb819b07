"""Text and sound."""

import numpy as np
import pytest

from common.data import SignalBlock, TextBlock
from common.errors import ConfigError, DataError


def test_words_are_lower_case_and_marks_stand_alone():
    block = TextBlock(min_count=1).setup(["Roses, red; ROSES!"])
    assert block.vocab == ("<pad>", "<unk>", "!", ",", ";", "red", "roses")
    assert block.encode("red roses, roses?").tolist() == [5, 6, 3, 6, 1]


def test_rare_tokens_are_unknown():
    block = TextBlock(min_count=2).setup(["a b", "a c"])
    assert block.vocab == ("<pad>", "<unk>", "a")
    assert block.decode(block.encode("a b")) == "a <unk>"


def test_characters_are_kept_as_they_are():
    block = TextBlock(tokens="char", min_count=1).setup(["Aé 🌹"])
    assert block.decode(block.encode("🌹 éA")) == "🌹 éA"


def test_long_texts_are_cut():
    assert TextBlock(vocab=("<pad>", "<unk>", "a"), max_length=3).encode("a a a a a").tolist() == [2, 2, 2]


def test_an_empty_text_has_no_tokens():
    assert TextBlock(vocab=("<pad>", "<unk>")).encode("").shape == (0,)


@pytest.mark.parametrize("wrong", [None, 3, float("nan"), ["a"]])
def test_what_is_no_text_is_refused(wrong):
    with pytest.raises(DataError, match="a text must be a string"):
        TextBlock(vocab=("<pad>", "<unk>")).encode(wrong)


def test_wrong_options_are_named():
    with pytest.raises(ConfigError, match="tokens has no option 'words': did you mean 'word'"):
        TextBlock(tokens="words")
    with pytest.raises(ConfigError, match="max_length must lie in"):
        TextBlock(max_length=0)


def test_a_wav_file_is_read_as_samples_between_minus_one_and_one(wav_file):
    path = wav_file("a.wav", [0, 16384, -32768, 32767])
    assert SignalBlock().encode(path).tolist() == [0.0, 0.5, -1.0, 32767 / 32768]
    assert SignalBlock(8000).encode(str(path)).shape == (4,)


def test_channels_are_averaged(wav_file):
    path = wav_file("stereo.wav", [[16384, -16384], [16384, 0]])
    assert SignalBlock().encode(path).tolist() == [0.0, 0.25]


def test_another_rate_is_refused(wav_file):
    with pytest.raises(DataError, match="rate_hz must be 16000, the file has 8000"):
        SignalBlock(16000).encode(wav_file("a.wav", [0, 1]))


def test_an_array_is_copied():
    samples = np.zeros(3, dtype=np.float32)
    encoded = SignalBlock().encode(samples)
    samples[0] = 1
    assert encoded.tolist() == [0, 0, 0]


def test_an_array_of_more_than_one_row_is_refused():
    with pytest.raises(DataError, match=r"must be one row of samples, got shape \(2, 3\)"):
        SignalBlock().encode(np.zeros((2, 3)))


@pytest.mark.parametrize("content", [b"", b"not a sound", b"RIFF\x00\x00\x00\x00WAVE"])
def test_a_damaged_wav_file_is_refused(tmp_path, content):
    (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as a WAV file"):
        SignalBlock().encode(tmp_path / "bad.wav")


def test_a_wav_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read as a WAV file"):
        SignalBlock().encode(tmp_path / "none.wav")


def test_a_cut_wav_file_is_refused(wav_file):
    path = wav_file("cut.wav", np.arange(1000))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError):
        SignalBlock().encode(path)
