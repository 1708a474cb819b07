"""What every test runs under."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """A flush to a real disk takes most of these tests' time; what fails when it fails is tested by itself."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


@pytest.fixture(scope="session")
def tiny_transformer(tmp_path_factory):
    """A folder with a tokenizer and a transformer of random weights, as Hugging Face's transformers saves them."""
    pytest.importorskip(
        "transformers", reason="transformers is not installed: pip install 'applications-cookbook[nlp]'"
    )
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("tiny_transformer")
    words = ["a", "sunny", "dark", "house", "with", "garden", "number", "the", "and", "not"]
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", known.index("[CLS]")), ("[SEP]", known.index("[SEP]"))]
    )
    made.save(str(folder / "tokenizer.json"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(
            BertConfig(
                vocab_size=len(known), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                intermediate_size=32, max_position_embeddings=32, initializer_range=0.5,
            )
        ).save_pretrained(folder)  # fmt: skip
    return folder
