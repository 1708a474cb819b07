"""Detectors by name: sizes, layer groups, specs, and what goes in and comes out."""

import pytest
import torch

from applications.detection import AnchorFreeConfig, AnchorFreeDetector, arch_names, create_model
from common.deploy.bundle import skeleton
from common.errors import ConfigError
from common.registry import resolve
from common.train.optim import Grouped

OURS = ["small_resnet", "mobilenet_v2", "resnet18", "swin_t"]
THEIRS = ["fcos_resnet50_fpn", "retinanet_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn",
          "ssdlite320_mobilenet_v3_large", "ssd300_vgg16", "maskrcnn_resnet50_fpn"]  # fmt: skip


def targets(count=2, classes=3):
    boxes = torch.tensor([[[4.0, 6, 30, 40], [20, 10, 60, 50], [0, 0, 0, 0]]]).repeat(count, 1, 1)
    valid = torch.tensor([[True, True, False]]).repeat(count, 1)
    valid[-1] = False  # an image without things
    return {"boxes": boxes, "labels": torch.tensor([[0, classes - 1, 0]]).repeat(count, 1), "valid": valid}


@pytest.mark.parametrize("arch", ["small_resnet", "mobilenet_v2", "shufflenet_v2_x0_5"])
def test_ours_has_at_most_two_million_parameters(arch):
    assert sum(p.numel() for p in create_model(arch, 3).parameters()) <= 2_000_000


@pytest.mark.parametrize("arch", [*OURS[:3], *THEIRS[:1], *THEIRS[3:4]])
def test_layer_groups_are_every_parameter_once(arch):
    model = create_model(arch, 3)
    assert isinstance(model, Grouped)
    groups = model.layer_groups()
    found = [id(p) for group in groups for p in group]
    assert len(groups) == 3
    assert all(groups)
    assert len(found) == len(set(found))
    assert set(found) == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("arch", ["small_resnet", "mobilenet_v2", "regnet_y_400mf", *THEIRS[:4]])
def test_a_spec_gives_the_same_shapes_again(arch):
    model = create_model(arch, 5)
    spec = dict(model.spec())
    twin = skeleton(resolve("model", spec.pop("kind")), spec)
    assert {k: v.shape for k, v in twin.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


@pytest.mark.parametrize("arch", OURS)
def test_ours_gives_losses_in_training_and_detections_in_evaluation(arch):
    model = create_model(arch, 3)
    images = torch.rand(2, 3, 72, 104, generator=torch.Generator().manual_seed(0))  # no multiple of 32
    found = model.train()(images, targets())
    assert set(found) == {"losses"}
    assert found["losses"].shape == (2,)
    found["losses"].mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without
    evaluated = model.eval()(images, targets())
    assert evaluated["losses"].shape == (2,)
    alone = model(images)
    assert set(alone) == {"detections"}
    for one in alone["detections"]:
        assert set(one) == {"boxes", "scores", "labels"}
        assert one["labels"].dtype == torch.int64
        assert (one["scores"][:-1] >= one["scores"][1:]).all()


def test_an_image_is_found_alike_in_any_batch():
    model = create_model("small_resnet", 3).eval()
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    whole = model.predictions(images)
    for i in range(3):
        alone = model.predictions(images[i : i + 1])
        for one, every in zip(alone[:2], whole[:2], strict=True):
            torch.testing.assert_close(one[0], every[i], atol=1e-3, rtol=1e-4)


def test_the_prior_makes_a_new_model_expect_little():
    model = create_model("small_resnet", 3).eval()
    logits, boxes, points, strides = model.predictions(torch.rand(1, 3, 64, 64))
    assert logits.shape == (1, 64 + 16 + 4, 3)
    assert logits.sigmoid().mean().item() == pytest.approx(0.01, rel=0.2)
    assert strides.tolist() == [8.0] * 64 + [16.0] * 16 + [32.0] * 4
    assert points[0].tolist() == [4.0, 4.0]
    assert ((boxes[0, :, 2:] - boxes[0, :, :2]).mean(dim=1) / strides).mean().item() == pytest.approx(4, rel=0.3)


@pytest.mark.parametrize(
    ("arch", "options", "reason"),
    [
        ("mobilnet_v2", {}, "did you mean .*'mobilenet_v2'"),
        ("fcos_resnet50", {}, "did you mean .*'fcos_resnet50_fpn'"),
        ("small_resnet", {"pretrained": True}, "small_resnet has no pretrained weights"),
        ("resnet18", {"channels": 1}, "takes images of 3 channels"),
        ("fcos_resnet50_fpn", {"channels": 1}, "takes images of 3 channels"),
    ],
)
def test_what_does_not_fit_is_named(arch, options, reason):
    with pytest.raises(ConfigError, match=reason):
        create_model(arch, 2, **options)


def test_every_name_is_known_once():
    names = arch_names()
    assert len(names) == len(set(names))
    assert {"small_resnet", "mobilenet_v2", "ssd300_vgg16", "maskrcnn_resnet50_fpn_v2"} <= set(names)
    assert not {"vit_b_16", "keypointrcnn_resnet50_fpn"} & set(names)


@pytest.mark.parametrize(("name", "value"), [("classes", 0), ("width", 4), ("most_overlap", 1.5), ("most", 0)])
def test_a_config_out_of_range_is_named(name, value):
    with pytest.raises(ConfigError, match=name):
        AnchorFreeConfig(**{"arch": "small_resnet", "classes": 2, name: value})


def test_grey_images_are_taken_by_the_small_body():
    config = AnchorFreeConfig(arch="small_resnet", classes=2, channels=1)
    assert "detections" in AnchorFreeDetector(config).eval()(torch.zeros(1, 1, 32, 32))
