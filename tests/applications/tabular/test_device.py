"""Tables on a GPU: what is trained and read there says the same on the CPU."""

import numpy as np
import pytest
import torch

from applications.tabular import EnsembleConfig, TabularRegressor, table_source, tabular_learner
from common.data import RandomSplitter
from common.deploy import Predictor
from common.text import TextEncoder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


@pytest.fixture(scope="module")
def on_gpu(frames):
    source = table_source(frames["regression"](), "price")
    dls = source.block(RandomSplitter(0.25, seed=1)).dataloaders(source.items)
    config = EnsembleConfig(members=("xgboost", "linear", "network"), folds=3, device="cuda", epochs=10)
    learner = tabular_learner(dls, target="price", quantiles=(0.1, 0.9), config=config, progress=False)
    learner.fit()
    return learner


def test_a_network_learns_on_a_gpu_what_it_learns_on_the_cpu(on_gpu, frames, fit):
    members = ("xgboost", "linear", "network")
    here = fit(frames["regression"](), members, folds=3, quantiles=(0.1, 0.9), epochs=10)
    there, alone = (
        next(record["loss"] for record in learner.model.chosen.table if record["member"] == "network")
        for learner in (on_gpu, here)
    )
    assert there == pytest.approx(alone, rel=0.15)
    assert on_gpu.validate()["rmse"] == pytest.approx(here.validate()["rmse"], rel=0.1)


def test_the_bundle_predicts_the_same_bits_on_the_cpu(on_gpu, frames, tmp_path):
    rows = frames["regression"](40, seed=6)
    path = on_gpu.export(tmp_path / "bundle")
    assert torch.equal(Predictor(path).outputs(rows).output, on_gpu.predictor().outputs(rows).output)


def test_a_predictor_on_a_gpu_says_what_one_on_the_cpu_says(on_gpu, frames, tmp_path):
    rows = frames["regression"](40, seed=6)
    path = on_gpu.export(tmp_path / "bundle")
    there, here = (Predictor(path, device).outputs(rows).output.cpu() for device in ("cuda", "cpu"))
    np.testing.assert_allclose(there, here, rtol=1e-5)


def test_vectors_of_a_gpu_are_those_of_the_cpu(tiny_transformer):
    rng = np.random.default_rng(0)
    tokens = torch.from_numpy(rng.integers(1, 14, (50, 12)).astype(np.int32))
    there, here = (TextEncoder.read(tiny_transformer).embed(tokens, torch.device(d)) for d in ("cuda", "cpu"))
    np.testing.assert_allclose(there, here, atol=1e-5)


def test_a_table_whose_texts_a_gpu_has_read_is_predicted_on_the_cpu(tiny_transformer, frames, varied, tmp_path):
    frame = varied(frames["regression"](300))
    model = TabularRegressor(members=("xgboost",), folds=2, text_encoder=str(tiny_transformer))
    model.fit(frame.drop(columns="price"), frame["price"])
    path = model.export(tmp_path / "bundle")
    there, here = (Predictor(path, device).outputs(frame).output.cpu() for device in ("cuda", "cpu"))
    assert float((there - here).abs().mean()) < 0.01 * float(here.std())
