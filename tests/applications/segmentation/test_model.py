"""The models: shapes, layer groups, specs, and torchvision's segmenters by hand."""

import pytest
import torch
import torch.nn.functional as F

from applications.segmentation import SegmentationTask, create_model
from applications.segmentation.model import Unet, segmenter_names
from common.data import Batch
from common.errors import ConfigError
from common.registry import resolve


@pytest.mark.parametrize(
    "arch", ["small_resnet", "mobilenet_v2", "resnet18", "convnext_tiny", "lraspp_mobilenet_v3_large"]
)
def test_every_pixel_gets_a_class_at_any_size(arch):
    model = create_model(arch, 5).eval()
    with torch.no_grad():
        for size in ((64, 96), (65, 47)):
            assert model(torch.zeros(1, 3, *size)).shape == (1, 5, *size)
    groups = model.layer_groups()
    assert len(groups) == 3
    assert all(groups)
    every = [id(p) for group in groups for p in group]
    assert sorted(every) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize("arch", ["small_resnet", "mobilenet_v2", "lraspp_mobilenet_v3_large", "fcn_resnet50"])
def test_a_spec_builds_the_same_model(arch):
    model = create_model(arch, 3, seed=1)
    fields = model.spec()
    kind = fields.pop("kind")
    again = resolve("model", kind).from_spec(fields)
    again.load_state_dict(model.state_dict())
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(x), model.eval()(x))


def test_the_small_one_is_small_and_takes_grey_images():
    model = create_model("small_resnet", 11, channels=1)
    assert sum(p.numel() for p in model.parameters()) <= 1_000_000
    assert model(torch.zeros(2, 1, 40, 56)).shape == (2, 11, 40, 56)


def test_weights_follow_from_the_seed():
    one, same, other = (create_model("small_resnet", 2, seed=s).state_dict() for s in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("arch", "auxiliary"), [("deeplabv3_mobilenet_v3_large", True), ("lraspp_mobilenet_v3_large", False)]
)
def test_torchvisions_reference_by_hand_gives_the_same_loss(arch, auxiliary):
    from torchvision.models import get_model

    ours = create_model(arch, 4, seed=2)
    options = {"aux_loss": True} if auxiliary else {}
    theirs = get_model(arch, weights=None, weights_backbone=None, num_classes=4, **options)
    theirs.load_state_dict(ours.network.state_dict())
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 64, 64, generator=rng)
    ids = torch.randint(0, 4, (2, 64, 64), generator=rng)
    ids[:, :9] = 255
    for module in (*ours.modules(), *theirs.modules()):
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    out = theirs(x)
    expected = F.cross_entropy(out["out"], ids, ignore_index=255)
    if auxiliary:  # as in torchvision's references/segmentation/train.py
        expected = expected + 0.5 * F.cross_entropy(out["aux"], ids, ignore_index=255)
    task = SegmentationTask(tuple("abcd"), ignore=255)
    found = task.loss(ours(x), Batch(x=x, y=ids.to(torch.uint8)))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    found.backward()
    expected.backward()
    gradients = dict(theirs.named_parameters())
    for name, parameter in ours.network.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x)["out"])


def test_every_segmenter_of_torchvision_has_a_name():
    names = segmenter_names()
    assert {"deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "deeplabv3_resnet101", "fcn_resnet50"} <= set(names)
    assert {"fcn_resnet101", "lraspp_mobilenet_v3_large"} <= set(names)


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (("mobilenet_v9", 2), {}, "arch has no option 'mobilenet_v9': did you mean"),
        (("vit_b_16", 2), {}, "arch has no option 'vit_b_16'"),
        (("small_resnet", 2), {"pretrained": True}, "small_resnet has no pretrained weights"),
        (("resnet18", 2), {"channels": 1}, "resnet18 takes images of 3 channels"),
        (("small_resnet", 0), {}, "classes must lie in"),
        (("mobilenet_v2", 2), {"pretrained": True, "weights": "X"}, "has no weights 'X'"),
    ],
)
def test_what_cannot_be_made_is_named(arguments, options, said):
    with pytest.raises(ConfigError, match=said):
        create_model(*arguments, **options)


def test_a_spec_with_other_strides_than_widths_is_refused():
    with pytest.raises(ConfigError, match="widths must have one entry a stride but the last"):
        Unet.from_spec({"classes": 2, "widths": [8]})
