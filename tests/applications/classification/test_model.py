"""Architectures by name: each gets its new head, and its layer groups are every parameter once."""

import pytest
import torch
from torch import nn

from applications.classification import create_model, resnet18, vision_learner
from applications.classification.model import SmallResNet, TorchvisionClassifier, TorchvisionConfig
from common.deploy.bundle import skeleton
from common.errors import ConfigError
from common.registry import resolve
from common.train.optim import Grouped
from common.vision import arch_names, find_weights

SOME = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "squeezenet1_0", "swin_t", "swin_v2_t", "vgg11_bn", "vit_b_16", "wide_resnet50_2",
]  # fmt: skip


def on_meta(arch, classes=7, dropout=0.0):
    return skeleton(TorchvisionClassifier, {"arch": arch, "classes": classes, "dropout": dropout})


def check(arch):
    model = on_meta(arch)
    head = model.head
    assert isinstance(head, (nn.Linear, nn.Conv2d)), arch
    assert (head.out_features if isinstance(head, nn.Linear) else head.out_channels) == 7
    assert not any(
        getattr(m, "out_features", getattr(m, "out_channels", 0)) == 1000 and isinstance(m, (nn.Linear, nn.Conv2d))
        for m in [model.network.get_submodule(model.head_name)]
    )
    assert isinstance(model, Grouped)
    groups = model.layer_groups()
    found = [id(p) for group in groups for p in group]
    every = [id(p) for p in model.parameters()]
    assert len(found) == len(set(found)) == len(every)
    assert set(found) == set(every)
    assert [id(p) for p in groups[-1]] == [id(p) for p in head.parameters()]
    assert len(groups) == 3
    assert all(groups)
    again = resolve("model", "torchvision_classifier")
    spec = dict(model.spec())
    assert spec.pop("kind") == "torchvision_classifier"
    twin = skeleton(again, spec)
    assert {k: v.shape for k, v in twin.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


@pytest.mark.parametrize("arch", SOME)
def test_an_architecture_gets_seven_classes_and_groups_of_every_parameter(arch):
    check(arch)


@pytest.mark.slow
@pytest.mark.parametrize("arch", sorted(set(arch_names()) - {"small_resnet"} - set(SOME)))
def test_every_other_architecture_does_too(arch):
    check(arch)


@pytest.mark.parametrize(
    ("arch", "size"),
    [
        ("squeezenet1_0", 64),
        ("googlenet", 64),
        ("mobilenet_v3_small", 32),
        ("shufflenet_v2_x0_5", 32),
        ("inception_v3", 96),
    ],
)
def test_a_batch_becomes_scores_of_seven_classes(arch, size):
    model = create_model(arch, 7).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 3, size, size)).shape == (2, 7)
    if arch in ("googlenet", "inception_v3"):  # without the auxiliary heads training gives plain scores too
        assert isinstance(model.train()(torch.randn(2, 3, size, size)), torch.Tensor)


def test_the_lower_half_comes_before_the_upper_half():
    model = on_meta("resnet18")
    names = {id(p): name for name, p in model.named_parameters()}
    lower, upper, head = ([names[id(p)] for p in group] for group in model.layer_groups())
    assert lower[0] == "network.conv1.weight"
    assert head == ["network.fc.weight", "network.fc.bias"]
    assert not {name.rsplit(".", 2)[0] for name in lower} & {name.rsplit(".", 2)[0] for name in upper}


def test_dropout_before_the_head_is_part_of_it():
    model = on_meta("resnet18", dropout=0.3)
    assert isinstance(model.head, nn.Sequential)
    assert model.head[0].p == 0.3
    assert model.head[1].out_features == 7
    assert sum(len(g) for g in model.layer_groups()) == len(list(model.parameters()))


@pytest.mark.parametrize("size", [8, 9, 28, 33, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_small_net_takes_small_images(size, channels):
    model = create_model("small_resnet", 5, channels=channels)
    assert isinstance(model, SmallResNet)
    assert model(torch.zeros(2, channels, size, size)).shape == (2, 5)
    assert sum(p.numel() for p in model.parameters()) < 1_000_000
    found = [id(p) for group in model.layer_groups() for p in group]
    assert sorted(found) == sorted(id(p) for p in model.parameters())


def test_weights_are_a_function_of_the_seed_alone():
    torch.manual_seed(1)
    a = create_model("small_resnet", 3, seed=4)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    b, c = create_model("small_resnet", 3, seed=4), create_model("small_resnet", 3, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    weight = "body.0.weight"
    assert torch.equal(a.state_dict()[weight], b.state_dict()[weight])
    assert not torch.equal(a.state_dict()[weight], c.state_dict()[weight])


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("resnet81", {}, "arch has no option 'resnet81': did you mean 'resnet18'"),
        ("fcn_resnet50", {}, "arch has no option 'fcn_resnet50'"),
        ("resnet18", {"channels": 1}, "resnet18 takes images of 3 channels, these have 1: use ImageBlock"),
        ("small_resnet", {"pretrained": True}, "small_resnet has no pretrained weights"),
        ("small_resnet", {"dropout": 1.0}, "dropout must lie in"),
        (
            "resnet18",
            {"pretrained": True, "weights": "IMAGENET1K_V9"},
            "resnet18 has no weights 'IMAGENET1K_V9': did you mean",
        ),
    ],
)
def test_a_wrong_name_or_option_gives_a_sentence(name, options, says):
    with pytest.raises(ConfigError, match=says):
        create_model(name, 3, **options)


def test_no_class_is_refused():
    with pytest.raises(ConfigError, match="classes must lie in"):
        create_model("small_resnet", 0)


def test_weights_that_cannot_be_downloaded_give_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*args, **kwargs):
        raise OSError("network is unreachable")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(ConfigError, match="could not be loaded or downloaded: network is unreachable"):
        create_model("mobilenet_v2", 3, pretrained=True)


def test_weights_on_this_machine_come_before_the_default(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert find_weights("mobilenet_v2").name == "IMAGENET1K_V2"
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "mobilenet_v2-b0353104.pth").touch()
    assert find_weights("mobilenet_v2").name == "IMAGENET1K_V1"
    assert find_weights("mobilenet_v2", "imagenet1k_v2").name == "IMAGENET1K_V2"


def test_the_function_of_torchvision_names_its_architecture(class_folders, untrained):
    from applications.classification import ImageDataLoaders, Resize, TrainerOptions

    dls = ImageDataLoaders.from_folder(class_folders(), valid_pct=0.3, seed=0, item_tfms=Resize(32), bs=4)
    quiet = TrainerOptions(device="cpu", progress=False)
    for arch in (resnet18, "resnet18"):
        learn = vision_learner(dls, arch, options=quiet)
        assert learn.model.config == TorchvisionConfig(arch="resnet18", classes=3)
