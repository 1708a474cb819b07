"""torchvision's own detectors, built and fed by our loader, give the loss that they give by hand."""

import numpy as np
import pytest
import torch
from torchvision import models

from applications.detection import create_model, detection_learner
from common.data import BBoxBlock, DataBlock, ImageBlock, IndexSplitter, InstanceBlock, Objects, Resize
from common.errors import ConfigError
from common.train import TrainerOptions

SIZE = 64, 96
STATS = ImageBlock().mean, ImageBlock().std
NAMES = ("cup", "pen")


def pixels(i):
    return np.random.default_rng(i).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def things(i):
    found = [(4, 6, 40, 50), (30, 10, 90, 60), (50, 2, 80, 30)][: i % 3 + 1]
    labels = [NAMES[(i + k) % 2] for k in range(len(found))]
    shapes = [[(x0, y0), (x1, y0), (x1, y1), (x0, y1)] for x0, y0, x1, y1 in found]
    return Objects(found, labels, shapes, size=SIZE)


def loaders(masks=False, bs=3):
    blocks = (ImageBlock, BBoxBlock(NAMES), *([InstanceBlock] if masks else []))
    block = DataBlock(
        blocks, get_x=pixels, get_y=[things, things] if masks else things, n_inp=1, splitter=IndexSplitter([0, 1, 2]),
        item_tfms=Resize(SIZE),
    )  # fmt: skip
    return block.dataloaders(range(9), bs=bs, num_workers=0)


def by_hand(arch, state, ids, masks=False):
    """torchvision's model as its documentation builds it, on pixels from 0 to 1 and lists of targets."""
    network = models.get_model(arch, weights=None, weights_backbone=None, num_classes=3)
    network.load_state_dict({k.removeprefix("network."): v for k, v in state.items()})
    network.transform.image_mean, network.transform.image_std = map(list, STATS)
    network.transform.min_size, network.transform.max_size = (SIZE[0],), SIZE[1]
    network.transform.fixed_size = None
    images = [torch.from_numpy(pixels(i)).permute(2, 0, 1) / 255 for i in ids]
    targets = []
    for i in ids:
        one = things(i)
        target = {"boxes": torch.tensor(one.boxes, dtype=torch.float32)}
        target["labels"] = torch.tensor([1 + NAMES.index(name) for name in one.labels])
        if masks:
            target["masks"] = torch.zeros(len(one.boxes), *SIZE, dtype=torch.uint8)
            order = sorted(
                range(len(one.boxes)), key=lambda k: -np.prod(np.diff(np.array(one.boxes[k]).reshape(2, 2), axis=0))
            )
            ids_of = torch.zeros(SIZE, dtype=torch.int64)  # the smaller thing lies on top, as instances keep it
            for k in order:
                x0, y0, x1, y1 = one.boxes[k]
                ids_of[y0:y1, x0:x1] = k + 1
            for k in range(len(one.boxes)):
                target["masks"][k] = ids_of == k + 1
        targets.append(target)
    return network, images, targets


@pytest.mark.parametrize("arch", ["fcos_resnet50_fpn", "retinanet_resnet50_fpn", "ssdlite320_mobilenet_v3_large"])
def test_one_stage_detectors_fed_by_our_loader_give_the_loss_of_those_fed_by_hand(arch):
    model = create_model(arch, 2, seed=1)
    batch = loaders().train.one_batch()
    network, images, targets = by_hand(arch, model.state_dict(), batch.ids.tolist())
    model.train(), network.train()
    ours = model(batch.x, {**batch.y.values, "valid": batch.y.valid})["losses"]
    theirs = sum(network(images, targets).values())
    torch.testing.assert_close(ours, theirs.expand(3), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["fasterrcnn_mobilenet_v3_large_320_fpn", "maskrcnn_resnet50_fpn"])
def test_two_stage_detectors_do_too_with_the_same_draws(arch):
    masks = arch.startswith("mask")
    model = create_model(arch, 2, seed=1)
    batch = loaders(masks).train.one_batch()
    network, images, targets = by_hand(arch, model.state_dict(), batch.ids.tolist(), masks)
    model.train(), network.train()
    boxes = batch.y[0] if masks else batch.y
    y = {**boxes.values, "valid": boxes.valid, **({"instances": batch.y[1]} if masks else {})}
    found = []
    for run in (lambda: model(batch.x, y)["losses"][0], lambda: sum(network(images, targets).values())):
        torch.manual_seed(0)  # they choose some of their proposals at random
        found.append(run())
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)  # choices on the edge follow rounding


def test_validation_gives_losses_and_detections_and_leaves_the_norms_alone():
    trainer = detection_learner(
        loaders(),
        "ssdlite320_mobilenet_v3_large",
        pretrained=False,
        options=TrainerOptions(device="cpu", progress=False),
    )
    trainer.fit(1, 1e-4)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    assert trainer.validate()["valid_loss"] > 0
    assert not trainer.model.training
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    outputs = trainer.get_preds()
    assert len(outputs.output) == len(outputs.target) == 3
    assert set(trainer.task.report(outputs)) >= {"ap", "ap50", "ap75"}


@pytest.mark.slow
def test_mask_rcnn_goes_all_the_way_to_a_bundle(tmp_path):
    from common import Predictor
    from common.blocks.shapes import decode_rle

    options = TrainerOptions(device="cpu", progress=False)
    trainer = detection_learner(loaders(masks=True), "maskrcnn_resnet50_fpn", pretrained=False, options=options)
    trainer.fit(1, 1e-4)
    metrics = trainer.task.report(trainer.get_preds())
    assert {"mask_ap", "mask_ap50", "mask_ap75"} <= set(metrics)
    record = Predictor(trainer.export(tmp_path / "bundle"))(pixels(0))
    for thing in record["objects"]:
        assert decode_rle(thing["segmentation"]).shape == SIZE


@pytest.mark.parametrize(("arch", "masks"), [("maskrcnn_resnet50_fpn", False), ("small_resnet", True)])
def test_masks_are_for_mask_rcnn_and_only_for_it(arch, masks):
    with pytest.raises(ConfigError, match="Mask R-CNN, and only that, needs an InstanceBlock"):
        detection_learner(loaders(masks), arch)
