"""Texts as vectors by a pretrained transformer."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import ConfigError, DataError
from common.text import TextEncoder, Tokenizer
from common.text.encoder import KINDS

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'applications-cookbook[nlp]'")
CPU = torch.device("cpu")
TEXTS = ["a sunny house", "", "a dark house with a garden", "number", "a sunny house"]
REAL = Path(__file__).resolve().parents[4] / "shared/weights/paraphrase-MiniLM-L3-v2"


@pytest.fixture
def encoder(tiny_transformer):
    return TextEncoder.read(tiny_transformer)


@pytest.fixture
def tokens(tiny_transformer):
    return torch.from_numpy(Tokenizer.read(tiny_transformer, most=12).encode_many(TEXTS))


def test_vectors_are_the_mean_of_the_last_states_that_transformers_gives(encoder, tokens, tiny_transformer):
    from transformers import BertModel

    model = BertModel.from_pretrained(tiny_transformer, add_pooling_layer=False).eval()
    found = encoder.embed(tokens, CPU)
    assert found.shape == (5, 16)
    for i in (0, 2, 3):
        ids = (tokens[i][tokens[i] > 0] - 1).long()[None]
        with torch.no_grad():
            mean = model(input_ids=ids).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(found[i], mean / mean.norm(), atol=1e-5)


def test_an_empty_text_is_zeros_and_equal_texts_have_equal_vectors(encoder, tokens):
    found = encoder.embed(tokens, CPU)
    assert not found[1].any()
    assert torch.equal(found[0], found[4])


def test_a_vector_does_not_depend_on_the_other_texts(tiny_transformer):
    rng = np.random.default_rng(0)
    tokens = torch.from_numpy(np.where(np.arange(12) < rng.integers(1, 13, (50, 1)), rng.integers(1, 14, (50, 12)), 0))
    tokens = tokens.int()
    whole = TextEncoder.read(tiny_transformer).embed(tokens, CPU)
    for start in (0, 7, 49):
        alone = TextEncoder.read(tiny_transformer)
        assert torch.equal(alone.embed(tokens[start : start + 1], CPU)[0], whole[start])
    some = TextEncoder.read(tiny_transformer)
    assert torch.equal(torch.cat([some.embed(tokens[i : i + 9], CPU) for i in range(0, 50, 9)]), whole)


def test_what_was_read_once_is_remembered(encoder, tokens, monkeypatch):
    before = encoder.embed(tokens, CPU)
    monkeypatch.setattr(encoder, "forward", lambda tokens: pytest.fail("read again"))
    assert torch.equal(encoder.embed(tokens.flip(0), CPU), before.flip(0))


def test_more_texts_than_are_remembered_have_their_vectors_too(encoder, tokens, monkeypatch):
    monkeypatch.setattr("common.text.encoder.KEPT", 3)
    before = encoder.embed(tokens[:3], CPU)
    whole = encoder.embed(tokens, CPU)
    assert torch.equal(whole[:3], before)
    assert all(whole[i].any() for i in (0, 2, 3, 4))
    assert len(encoder._known) <= 3


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_what_transformers_says(kind, tmp_path):
    from transformers import AutoConfig, AutoModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    if kind == "distilbert":
        sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    config = AutoConfig.for_model(kind, vocab_size=40, max_position_embeddings=24, initializer_range=0.4, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModel.from_config(config).eval()
    model.save_pretrained(tmp_path)
    rng = np.random.default_rng(0)
    tokens = torch.zeros(5, 21, dtype=torch.int32)
    for row, length in enumerate((3, 7, 17, 19, 21)):
        tokens[row, :length] = torch.from_numpy(rng.integers(6, 40, length).astype(np.int32))
    found = TextEncoder.read(tmp_path).embed(tokens, CPU)
    for row in range(5):
        with torch.no_grad():
            mean = model(input_ids=(tokens[row][tokens[row] > 0] - 1).long()[None]).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(found[row], mean / mean.norm(), atol=1e-5)


def test_without_time_there_are_no_vectors(encoder, tokens, tiny_transformer):
    rng = np.random.default_rng(0)
    many = torch.from_numpy(rng.integers(1, 14, (400, 12)).astype(np.int32))
    assert encoder.embed(many, CPU, end=time.perf_counter()) is None
    assert encoder.embed(tokens, CPU, end=time.perf_counter() + 60) is not None


def test_reading_one_leaves_the_global_generator_alone(tiny_transformer):
    torch.manual_seed(3)
    TextEncoder.read(tiny_transformer)
    after = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(2), after)


def test_an_encoder_of_its_spec_has_the_same_shape(encoder, tokens):
    again = TextEncoder.from_spec(json.loads(json.dumps(encoder.spec())))
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again.embed(tokens, CPU), encoder.embed(tokens, CPU))


def copied(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def config_with(folder, **fields):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **fields}))


def test_pickled_weights_are_not_read(tiny_transformer, tmp_path):
    folder = copied(tiny_transformer, tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"has no model\.safetensors \(weights in other formats"):
        TextEncoder.read(folder)


def test_weights_of_another_shape_or_name_are_named(tiny_transformer, tmp_path):
    folder = copied(tiny_transformer, tmp_path)
    state = load_file(folder / "model.safetensors")
    config_with(folder, vocab_size=99)
    with pytest.raises(DataError, match=r"word_embeddings\.weight has shape \(14, 16\), its config\.json asks for"):
        TextEncoder.read(folder)
    config_with(folder, vocab_size=14, num_hidden_layers=3)
    with pytest.raises(DataError, match=r"lacks encoder\.layer\.2\."):
        TextEncoder.read(folder)
    config_with(folder, num_hidden_layers=2)
    save_file({f"bert.{name}": tensor for name, tensor in state.items()}, folder / "model.safetensors")
    TextEncoder.read(folder)  # a model with a head has its body's weights below a name
    (folder / "model.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(DataError, match="is not a safetensors file"):
        TextEncoder.read(folder)


def test_a_config_that_names_code_of_its_own_brings_none(tiny_transformer, tmp_path):
    folder = copied(tiny_transformer, tmp_path)
    config_with(folder, auto_map={"AutoModel": "evil.Model"}, quantization_config={"x": 1})
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    assert "auto_map" not in TextEncoder.read(folder).fields


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ({"kind": "gpt9", "fields": {}}, "text encoder has no option 'gpt9'"),
        ({"kind": "bert", "fields": {"auto_map": "x"}}, "auto_map"),
        ({"kind": "bert", "fields": {"hidden_size": "16"}}, "hidden_size must be int"),
        ({"kind": "bert", "fields": {"hidden_size": 1 << 30}}, "hidden_size must lie in"),
        ({"kind": "bert", "fields": {"num_hidden_layers": 1000}}, "num_hidden_layers must lie in"),
        ({"kind": "bert", "fields": {"hidden_act": "os.system"}}, "hidden_act has no option"),
        ({"kind": "bert", "fields": {"hidden_size": 10, "num_attention_heads": 3}}, "text encoder: .*multiple"),
        ({"kind": "bert"}, "described by kind and fields"),
        ("bert", "described by kind and fields"),
    ],
)
def test_a_wrong_description_is_one_sentence(spec, match):
    with pytest.raises(ConfigError, match=match):
        TextEncoder.from_spec(spec)


def test_tokens_of_another_vocabulary_and_too_many_are_refused(encoder):
    with pytest.raises(ConfigError, match="knows 14 tokens, the tokenizer gave number 99"):
        encoder.embed(torch.full((1, 4), 99, dtype=torch.int32), CPU)
    with pytest.raises(ConfigError, match="has positions for 32 tokens, a text has 40"):
        encoder.embed(torch.ones(1, 40, dtype=torch.int32), CPU)


@pytest.mark.data
@pytest.mark.skipif(not REAL.exists(), reason="the shared weights are not beside the project")
def test_a_real_encoder_finds_paraphrases_alike_and_others_not():
    texts = ["A cat sleeps on the sofa.", "The kitten is napping on the couch.", "The stock market fell sharply today."]
    vectors = TextEncoder.read(REAL).embed(torch.from_numpy(Tokenizer.read(REAL).encode_many(texts)), CPU)
    alike = vectors @ vectors.T
    assert alike[0, 1] == pytest.approx(0.84, abs=0.01)  # as the weights' own page states
    assert abs(alike[0, 2]) < 0.1
