"""A transformer that reads the texts of a table: its features, and their way through a bundle."""

import hashlib
import json
import time

import numpy as np
import pandas as pd
import pytest
import torch

from applications.tabular import TabularClassifier, TabularRegressor, shap_values, table_source, tabular_learner
from applications.tabular.embeddings import EmbeddingScores
from common.data import NoSplitter
from common.deploy import Predictor, load
from common.deploy.bundle import seal
from common.errors import BundleError, ConfigError, DataError
from common.text import TextEncoder, Tokenizer

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'applications-cookbook[nlp]'")


@pytest.fixture(scope="module")
def reading(tiny_transformer, frames):
    frame = frames["regression"](160)
    model = TabularRegressor(members=("linear", "xgboost"), folds=2, text_encoder=str(tiny_transformer))
    return model.fit(frame.drop(columns="price"), frame["price"])


def test_every_text_gives_a_vector_and_what_is_made_of_them(reading):
    ensemble = reading.predictor_.model
    fold = ensemble.folds[0]
    assert ensemble.shape.vector == 16
    assert fold.text_width == fold.texts.width + fold.vectors.width == 1 + (1 + 16)


def test_predictions_of_the_bundle_are_the_same_bits(reading, frames, tmp_path):
    rows = frames["regression"](30, seed=3).drop(columns="price")
    path = reading.export(tmp_path / "bundle")
    assert torch.equal(Predictor(path).outputs(rows).output, reading.predictor_.outputs(rows).output)
    parts = [Predictor(path).outputs(rows.iloc[i : i + 7]).output for i in range(0, 30, 7)]
    np.testing.assert_allclose(torch.cat(parts), reading.predictor_.outputs(rows).output, rtol=1e-5)


def test_shap_values_with_vectors_add_up_to_what_the_trees_say(tiny_transformer, frames):
    frame = frames["regression"](160)
    model = TabularRegressor(members=("xgboost",), folds=2, text_encoder=str(tiny_transformer))
    model.fit(frame.drop(columns="price"), frame["price"])
    block = model.predictor_.encoder.blocks[0]
    x = block.encode_many(frame)
    _, values = shap_values(model.predictor_.model, x, block)
    np.testing.assert_allclose(values.sum(axis=2)[:, 0], model.predictor_.model(x), rtol=1e-4)


def test_scores_of_the_rows_that_were_learned_from_are_out_of_fold():
    rng = np.random.default_rng(0)
    vectors, noise = rng.normal(size=(60, 40)).astype(np.float32), rng.normal(size=(60, 1))
    made = EmbeddingScores(40, 1, classes=False)
    learned = made.fit(vectors, noise, seed=0)
    known = made.features(vectors)
    assert abs(np.corrcoef(learned[:, 0], noise[:, 0])[0, 1]) < 0.4  # noise cannot be foretold
    assert np.corrcoef(known[:, 0], noise[:, 0])[0, 1] > 0.7
    np.testing.assert_array_equal(learned[:, 1:], known[:, 1:])


def test_directions_are_the_principal_components():
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(80, 20)) * np.linspace(5, 0.1, 20)).astype(np.float32)
    made = EmbeddingScores(20, 1, classes=False)
    found = made.fit(vectors, rng.normal(size=(80, 1)), seed=0)[:, 1:]
    wanted = PCA(16).fit_transform(vectors)
    np.testing.assert_allclose(np.abs(found), np.abs(wanted), atol=1e-3)


@pytest.mark.parametrize("truth", [0.0, 1.0])
def test_a_class_that_is_always_or_never_there_has_a_score_without_weights(truth):
    made = EmbeddingScores(4, 1, classes=True)
    made.fit(np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32), np.full((12, 1), truth), seed=0)
    assert not made.weights.any()
    assert float(made.bias[0]) == (6.0 if truth else -6.0)


def test_a_transformer_that_would_take_too_long_is_left_out(tiny_transformer, frames, varied, monkeypatch, capsys):
    slow = TextEncoder.forward

    def waiting(self, tokens):
        time.sleep(0.2)
        return slow(self, tokens)

    monkeypatch.setattr(TextEncoder, "forward", waiting)
    frame = varied(frames["classification"](600))
    model = TabularClassifier(
        members=("linear",), folds=2, budget_s=2.0, verbose=True, text_encoder=str(tiny_transformer)
    )
    model.fit(frame.drop(columns="price"), frame["price"])
    assert "text encoder: left out, it would take over half of budget_s=2" in capsys.readouterr().out
    assert model.predictor_.model.text_encoder is None
    assert model.predict(frame.drop(columns="price")).shape == (600,)


def test_a_table_without_text_and_a_block_without_tokenizer_are_named(tiny_transformer, frames):
    frame = frames["regression"](60)
    with pytest.raises(DataError, match="no column is a text: name one in texts"):
        TabularRegressor(members=("linear",), text_encoder=str(tiny_transformer)).fit(frame[["age"]], frame["price"])
    source = table_source(frame, "price")
    dls = source.block(NoSplitter()).dataloaders(source.items)
    learner = tabular_learner(dls, ("linear",), text_encoder=TextEncoder.read(tiny_transformer), progress=False)
    with pytest.raises(ConfigError, match=r"ColumnsBlock\(tokenizer=…\)"):
        learner.fit()


def test_the_last_bits_of_a_vector_do_not_move_a_prediction(tiny_transformer, frames, varied, monkeypatch):
    """Those of a GPU are not those of the CPU, and the trees were split at values of the rows they have seen."""
    frame = varied(frames["regression"](200))
    model = TabularRegressor(members=("xgboost",), folds=2, text_encoder=str(tiny_transformer))
    before = model.fit(frame.drop(columns="price"), frame["price"]).predict(frame.drop(columns="price"))
    plain, noise = TextEncoder.forward, torch.Generator().manual_seed(0)

    def other(self, tokens):
        out = plain(self, tokens)
        return out + 2e-7 * torch.randn(out.shape, generator=noise)

    monkeypatch.setattr(TextEncoder, "forward", other)
    model.predictor_.model.text_encoder._known.clear()
    after = model.predict(frame.drop(columns="price"))
    assert np.abs(after - before).mean() < 0.01 * before.std()


def test_a_fit_reads_each_text_once_however_many_there_are(tiny_transformer, frames, varied, monkeypatch):
    monkeypatch.setattr("common.text.encoder.KEPT", 1)
    blocks, plain = [], TextEncoder.forward
    monkeypatch.setattr(TextEncoder, "forward", lambda self, tokens: blocks.append(len(tokens)) or plain(self, tokens))
    frame = varied(frames["regression"](160))
    model = TabularRegressor(members=("linear",), folds=2, text_encoder=str(tiny_transformer))
    model.fit(frame.drop(columns="price"), frame["price"])
    assert sum(blocks) == 160


def test_two_texts_are_two_vectors_and_a_missing_one_is_zeros(tiny_transformer):
    source = table_source(
        pd.DataFrame(
            {"one": ["a sunny house"] * 4, "two": ["a dark house", None, "", "a garden"], "y": [0.5, 1, 2, 3]}
        ),
        "y",
    )
    block = source.block(NoSplitter(), texts=("one", "two"), tokenizer=Tokenizer.read(tiny_transformer, most=8))
    x = block.dataloaders(source.items).train.arrays().x
    assert x["tokens"].shape == (4, 2, 8)
    assert x["tokens"][:, 1].any(dim=1).tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda m: m.update(text_encoder=None), "shape.vector must be above 0 where there is a text encoder"),
        (lambda m: m["shape"].update(vector=0), "shape.vector must be above 0 where there is a text encoder"),
        (lambda m: m["text_encoder"].update(kind="gpt9"), "gpt9"),
        (lambda m: m["text_encoder"]["fields"].update(hidden_size=32), "has shape"),
    ],
)
def test_a_bundle_with_an_edited_encoder_is_refused(reading, edit, match, tmp_path):
    bundle = reading.export(tmp_path / "bundle")
    content = json.loads((bundle / "bundle.json").read_text())
    edit(content["model"])
    (bundle / "bundle.json").write_text(seal(content))
    with pytest.raises(BundleError, match=match):
        load(bundle)


# ------------------------------------------------------- the block's tokenizer, a file of the bundle


def test_the_tokenizer_is_a_file_of_the_bundle_and_no_string_in_its_json(reading, tiny_transformer, tmp_path):
    bundle = reading.export(tmp_path / "bundle")
    content = json.loads((bundle / "bundle.json").read_text())
    assert "block0.tokenizer.json" in content["files"]
    assert set(content["encoder"]["blocks"][0]["tokenizer"]) == {"most", "sha256"}
    text = (tiny_transformer / "tokenizer.json").read_text()
    assert (bundle / "block0.tokenizer.json").read_text() == text
    assert load(bundle).encoder == reading.predictor_.encoder


def forged(bundle, edit):
    """Changes a bundle's content and seals it again."""
    content = json.loads((bundle / "bundle.json").read_text())
    edit(content, bundle / "block0.tokenizer.json")
    (bundle / "bundle.json").write_text(seal(content))


def without_file(content, file):
    del content["files"][file.name]
    file.unlink()


def another_file(content, file):
    data = file.read_bytes().replace(b"sunny", b"rainy")
    file.write_bytes(data)
    content["files"][file.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def a_file_too_many(content, file):
    (file.parent / "block7.tokenizer.json").write_bytes(file.read_bytes())
    content["files"]["block7.tokenizer.json"] = content["files"][file.name]


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda content, file: file.unlink(), "block0.tokenizer.json is missing"),
        (without_file, "files must name block0.tokenizer.json, which ColumnsBlock needs"),
        (another_file, "block0.tokenizer.json: tokenizer.json was changed: its sha256"),
        (a_file_too_many, "block7.tokenizer.json belongs to no block"),
    ],
)
def test_a_bundle_whose_tokenizer_is_missing_or_another_is_refused(reading, edit, match, tmp_path):
    bundle = reading.export(tmp_path / "bundle")
    forged(bundle, edit)
    with pytest.raises(BundleError, match=match):
        load(bundle)


def test_a_bundle_with_the_tokenizer_in_its_json_is_still_read(reading, frames, tmp_path):
    bundle = reading.export(tmp_path / "bundle")

    def as_before(content, file):
        text = file.read_text("utf-8")
        without_file(content, file)
        old = content["encoder"]["blocks"][0]["tokenizer"]
        content["encoder"]["blocks"][0]["tokenizer"] = {"content": text, "most": old["most"]}

    forged(bundle, as_before)
    rows = frames["regression"](30, seed=3).drop(columns="price")
    assert torch.equal(Predictor(bundle).outputs(rows).output, reading.predictor_.outputs(rows).output)
