"""Every recipe that trains a network, in every precision, on every device that is at hand."""

import json
from pathlib import Path

import pytest
import torch

IMAGES = ("classification", "detection", "segmentation")
ARCHS = {
    "classification": ("small_resnet", "resnet18"),
    "detection": ("small_resnet",),
    "segmentation": ("small_resnet",),
}
MODELS = [(domain, arch) for domain in IMAGES for arch in ARCHS[domain]]


def learned(here, make_data, short, domain, arch, precision, device):
    for part, rows in (("train", range(12)), ("test", range(24, 30))):
        make_data(domain, "data", rows, part)
    given = ("--data", "data", "--out", "run", *short[domain], "--arch", arch)
    code, _, err = here("run", domain, *given, "--precision", precision, "--device", device)
    assert code == 0, err
    epochs = [json.loads(line) for line in Path("run/events.jsonl").read_text().splitlines()]
    losses = [event["train_loss"] for event in epochs if event["event"] == "epoch"]
    assert losses
    assert all(torch.isfinite(torch.tensor(loss)) for loss in losses)
    code, out, err = here("evaluate", "run/bundle", "--data", "data", "--json")
    assert code == 0, err
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert all(metrics[name] == pytest.approx(value, abs=1e-5) for name, value in json.loads(out).items())


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize(("domain", "arch"), MODELS)
def test_a_recipe_learns_in_this_precision(domain, arch, precision, here, make_data, short):
    learned(here, make_data, short, domain, arch, precision, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
@pytest.mark.parametrize(("domain", "arch"), MODELS)
def test_a_recipe_learns_in_this_precision_on_a_gpu(domain, arch, precision, here, make_data, short):
    learned(here, make_data, short, domain, arch, precision, "cuda")
