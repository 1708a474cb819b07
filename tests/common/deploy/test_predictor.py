"""The predictor: every form of input gives the same record, and an error names the input."""

import gc
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from common.deploy import Predictor, load
from common.errors import ItemError


@pytest.fixture(scope="module")
def predictor(exported):
    return Predictor(exported)


@pytest.fixture(scope="module")
def files(photos):
    return sorted(photos.rglob("*.png"))


def test_path_bytes_picture_and_array_give_the_same_record(predictor, files):
    file = files[0]
    with Image.open(file) as image:
        picture = image.convert("RGB")
    forms = [file, str(file), file.read_bytes(), bytearray(file.read_bytes()), picture, np.asarray(picture)]
    records = [predictor(form) for form in forms]
    assert all(record == records[0] for record in records)


def test_a_mix_of_forms_is_predicted_in_order(predictor, files):
    with Image.open(files[0]) as image:
        forms = [files[2], files[1].read_bytes(), image.convert("RGB")]
    for i, record in zip((2, 1, 0), predictor.predict_many(forms), strict=True):
        assert record["probabilities"] == pytest.approx(predictor(files[i])["probabilities"], abs=1e-6)


def test_grey_and_transparent_pictures_are_taken(predictor):
    for mode, channels in (("L", ()), ("RGBA", (4,)), ("1", ()), ("P", ())):
        pixels = np.full((9, 9, *channels), 128, np.uint8)
        image = Image.fromarray(pixels) if mode != "1" and mode != "P" else Image.fromarray(pixels).convert(mode)
        assert set(predictor(image)) == {"label", "probabilities"}


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_records_come_in_the_order_of_the_inputs(predictor, files, batch_size):
    order = np.random.default_rng(0).permutation(len(files))
    many = predictor.predict_many([files[i] for i in order], batch_size=batch_size)
    for i, record in zip(order, many, strict=True):
        assert record["probabilities"] == pytest.approx(predictor(files[i])["probabilities"], abs=1e-6)


def test_nothing_gives_nothing(predictor):
    assert predictor.predict_many([]) == []


def test_a_record_is_json_and_its_probabilities_sum_to_one(predictor, files):
    for record in predictor.predict_many(files):
        assert json.loads(json.dumps(record, allow_nan=False)) == record
        probabilities = record["probabilities"]
        assert list(probabilities) == predictor.vocab == ["dark", "grey", "light"]
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-6)
        assert probabilities[record["label"]] == max(probabilities.values())


def test_predicting_twice_gives_the_same(predictor, files):
    assert predictor.predict_many(files) == predictor.predict_many(files)


def test_predicting_leaves_the_global_random_state(predictor, files):
    before = torch.get_rng_state()
    predictor(files[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_an_input_that_cannot_be_read_is_named(predictor, files, tmp_path):
    text, empty = tmp_path / "text.png", tmp_path / "empty.png"
    text.write_text("not a picture")
    empty.write_bytes(b"")
    for bad, why in ((text, "not an image"), (empty, "the file is empty"), (tmp_path / "no.png", "exist")):
        with pytest.raises(ItemError, match=rf"{bad.name}.*({why})"):
            predictor.predict_many([files[0], bad, files[1]])
        with pytest.raises(ItemError, match=bad.name):
            predictor(str(bad))


def test_a_damaged_file_is_named_and_closed(predictor, files, tmp_path):
    cut = tmp_path / "cut.png"
    cut.write_bytes(files[0].read_bytes()[:200])
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        try:
            predictor.predict_many([files[0], cut, files[1]])
        except ItemError as error:
            said = str(error)
        gc.collect()
    assert "cut.png" in said
    assert "damaged" in said
    assert [str(w.message) for w in found if issubclass(w.category, ResourceWarning)] == []


@pytest.mark.parametrize("bad", [b"\xff\xd8 cut", np.zeros((3, 3)), np.zeros((2, 2, 2, 2), np.uint8), 7, None, ["a"]])
def test_an_input_without_a_name_is_named_by_its_position(predictor, files, bad):
    with pytest.raises(ItemError, match="item 1"):
        predictor.predict_many([files[0], bad])


def test_evaluate_equals_the_tasks_report(predictor, files):
    labels = [file.parent.name for file in files]
    found = predictor.evaluate([files, labels], files)
    outputs = predictor.outputs(files)
    target = torch.tensor([predictor.vocab.index(label) for label in labels])
    expected = predictor.task.report(replace(outputs, target=target))
    assert found == expected
    predicted = [record["label"] for record in predictor.predict_many(files)]
    assert found["accuracy"] == np.mean([p == t for p, t in zip(predicted, labels, strict=True)])


def test_a_label_the_bundle_does_not_know_is_named(predictor, files):
    from common.errors import DataError

    with pytest.raises(DataError, match="'lihgt' is not among the 3 training classes: did you mean 'light'"):
        predictor.evaluate([files[:2], ["dark", "lihgt"]], files[:2])


def test_a_loaded_bundle_is_taken_as_it_is(exported, files):
    assert Predictor(load(exported))(files[0]) == Predictor(str(exported))(files[0])


def test_it_predicts_without_warnings(predictor, files):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor(files[0])
