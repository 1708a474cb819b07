"""The task: losses against torch and by hand, metrics against scikit-learn, records and pictures."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import accuracy_score, jaccard_score, recall_score

from applications.segmentation import MeanIoU, PixelAccuracy, SegmentationTask, ids_of
from applications.segmentation.losses import dice_loss, pixel_loss
from applications.segmentation.metrics import intersection_over_union, pixel_confusion
from applications.segmentation.source_resolution import source_ids, source_logits
from common.augment import BatchPipeline
from common.blocks.objects import InstanceBlock
from common.blocks.sample import SampleEncoder
from common.blocks.shapes import decode_rle
from common.data import Batch, ImageBlock, MaskBlock, Resize
from common.errors import ConfigError
from common.task.task import Outputs

CODES = ("sky", "road", "tree")


def sample(seed=0, batch=3, classes=3, size=(7, 5), void=None):
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, *size, generator=rng)
    ids = torch.randint(0, classes, (batch, *size), generator=rng).to(torch.uint8)
    if void is not None:
        ids[torch.rand(ids.shape, generator=rng) < 0.3] = void
    return logits, ids


def shares(ids, classes):
    """One-hot shares; nothing where the id is no class: what mixing makes of a mask."""
    return (ids[:, None] == torch.arange(classes)[:, None, None]).float()


# ------------------------------------------------------------------- losses


def test_cross_entropy_is_torchs_over_all_pixels_that_count():
    logits, ids = sample(void=255)
    task = SegmentationTask(CODES, ignore=255)
    expected = F.cross_entropy(logits, ids.long(), ignore_index=255)
    torch.testing.assert_close(task.loss(logits, Batch(x=logits, y=ids)), expected)
    weights = (0.5, 2.0, 1.0)
    weighted = SegmentationTask(CODES, ignore=255, class_weights=weights).loss(logits, Batch(x=logits, y=ids))
    torch.testing.assert_close(
        weighted, F.cross_entropy(logits, ids.long(), weight=torch.tensor(weights), ignore_index=255)
    )


def test_a_samples_loss_is_its_own_mean():
    logits, ids = sample(void=9)
    task = SegmentationTask(CODES, ignore=9)
    found = task.losses(logits, Batch(x=logits, y=ids))
    for i in range(len(ids)):
        torch.testing.assert_close(found[i], F.cross_entropy(logits[i : i + 1], ids[i : i + 1].long(), ignore_index=9))


def test_shares_of_whole_pixels_are_hard_masks():
    logits, ids = sample(void=255)
    soft = shares(ids, 3)
    weights = torch.tensor([0.5, 2.0, 1.0])
    for gamma in (0.0, 2.0):
        hard = pixel_loss(logits, ids, void=255, class_weights=weights, gamma=gamma)
        mixed = pixel_loss(logits, soft, class_weights=weights, gamma=gamma)
        torch.testing.assert_close(hard.value, mixed.value)
        torch.testing.assert_close(hard.weight, mixed.weight)
    torch.testing.assert_close(dice_loss(logits, ids, void=255), dice_loss(logits, soft))
    torch.testing.assert_close(MeanIoU()(logits, shares(sample()[1], 3)), MeanIoU()(logits, sample()[1]))


def test_blended_masks_cost_the_blend_of_their_costs():
    logits, ids = sample()
    other = ids.flip(0)
    blend = 0.3 * shares(ids, 3) + 0.7 * shares(other, 3)
    task = SegmentationTask(CODES)
    loss = [task.loss(logits, Batch(x=logits, y=y)) for y in (ids, other, blend)]
    torch.testing.assert_close(loss[2], 0.3 * loss[0] + 0.7 * loss[1])


def test_focal_loss_by_hand():
    logits, ids = sample(size=(2, 2), batch=1)
    p = logits.softmax(dim=1)
    slow = [
        -((1 - p[0, int(k), y, x]) ** 2) * torch.log(p[0, int(k), y, x])
        for y, row in enumerate(ids[0])
        for x, k in enumerate(row)
    ]
    task = SegmentationTask(CODES, cross_entropy=0, focal=1)
    torch.testing.assert_close(task.loss(logits, Batch(x=logits, y=ids)), torch.stack(slow).mean())


def test_dice_loss_by_hand():
    logits, ids = sample(batch=1, void=255)
    ids[ids == 2] = 0  # the third class is not in the picture, so it does not count
    p, seen = logits.softmax(dim=1)[0], ids[0] != 255
    slow = []
    for k in (0, 1):
        truth = (ids[0] == k).float()
        slow.append(1 - 2 * float((p[k] * truth).sum()) / float((p[k] * seen).sum() + truth.sum()))
    task = SegmentationTask(CODES, ignore=255, cross_entropy=0, dice=1)
    assert float(task.loss(logits, Batch(x=logits, y=ids))) == pytest.approx(np.mean(slow), abs=1e-6)


def test_parts_of_the_loss_add_up():
    logits, ids = sample()
    batch = Batch(x=logits, y=ids)
    one = [
        SegmentationTask(CODES, cross_entropy=c, focal=f, dice=d).loss(logits, batch)
        for c, f, d in ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    both = SegmentationTask(CODES, cross_entropy=2, focal=0.5, dice=3).loss(logits, batch)
    torch.testing.assert_close(both, 2 * one[0] + 0.5 * one[1] + 3 * one[2])


@pytest.mark.parametrize("parts", [{}, {"cross_entropy": 0.0, "dice": 1.0}, {"focal": 1.0}])
def test_ignored_pixels_change_nothing(parts):
    logits, ids = sample(void=255)
    task = SegmentationTask(CODES, ignore=255, **parts)
    other = torch.where((ids == 255)[:, None], torch.randn_like(logits) * 9, logits).requires_grad_()
    loss = task.loss(other, Batch(x=logits, y=ids))
    torch.testing.assert_close(loss.detach(), task.loss(logits, Batch(x=logits, y=ids)))
    loss.backward()
    assert (other.grad.movedim(1, 3)[ids == 255] == 0).all()
    for metric in task.metrics():
        assert metric(other.detach(), ids) == metric(logits, ids)


def test_a_batch_of_which_nothing_counts_costs_nothing():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    batch = Batch(x=logits, y=torch.full((2, 4, 4), 255, dtype=torch.uint8))
    loss = SegmentationTask(CODES, ignore=255, dice=1.0).loss(logits, batch)
    loss.backward()
    assert float(loss.detach()) == 0
    assert bool(logits.grad.isfinite().all())


# ------------------------------------------------------------------ metrics


def test_metrics_are_scikit_learns():
    logits, ids = sample(batch=4, size=(20, 11), void=7)
    task = SegmentationTask(CODES, ignore=7)
    predicted = logits.argmax(dim=1).to(torch.uint8)
    found = task.report(Outputs(list(predicted), list(ids)))
    seen = ids != 7
    truth, chosen = ids[seen].numpy(), predicted[seen].numpy()
    assert found["miou"] == pytest.approx(jaccard_score(truth, chosen, average="macro"))
    assert found["pixel_accuracy"] == pytest.approx(accuracy_score(truth, chosen))
    assert found["mean_class_accuracy"] == pytest.approx(recall_score(truth, chosen, average="macro"))
    rows = task.per_class(list(predicted), list(ids))
    assert [row["iou"] for row in rows] == pytest.approx(jaccard_score(truth, chosen, average=None).tolist())
    assert [row["recall"] for row in rows] == pytest.approx(recall_score(truth, chosen, average=None).tolist())
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert [row["class"] for row in rows] == list(CODES)


def test_sums_over_batches_are_the_metric_of_the_whole():
    logits, ids = sample(batch=6, void=255)
    for metric in (MeanIoU(255), PixelAccuracy(255)):
        parts = [metric.measure(logits[i : i + 2], Batch(x=logits, y=ids[i : i + 2])) for i in (0, 2, 4)]
        assert metric.compute(torch.stack(parts).sum(dim=0)) == pytest.approx(metric(logits, ids))
    truth, chosen = ids[ids != 255].numpy(), logits.argmax(dim=1)[ids != 255].numpy()
    assert MeanIoU(255)(logits, ids) == pytest.approx(jaccard_score(truth, chosen, average="macro"))


def test_a_class_that_is_nowhere_does_not_count():
    matrix = pixel_confusion(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, 0]), 3)
    assert matrix.tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    iou = intersection_over_union(matrix)
    assert iou[:2].tolist() == pytest.approx([2 / 3, 1 / 2])
    assert bool(iou[2].isnan())
    task = SegmentationTask(CODES)
    ids = [torch.tensor([[0, 1], [1, 0]])]
    assert task.report(Outputs(ids, [torch.tensor([[0, 1], [0, 0]])]))["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert task.per_class(ids, ids)[2]["iou"] is None
    called = task.report(
        Outputs([torch.tensor([[0, 2]])], [torch.tensor([[0, 0]])])
    )  # predicted but not there: 0 counts
    assert called["miou"] == pytest.approx((1 / 2 + 0) / 2)


def test_masks_of_the_source_are_compared_at_their_own_size(tmp_path):
    task = SegmentationTask(("off", "on"), values=(0, 255))
    mask = np.zeros((9, 6), np.uint8)
    mask[2:5, 1:4] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    right = torch.from_numpy(mask // 255)
    assert task.report(Outputs([right, right], [tmp_path / "m.png", mask]))["miou"] == 1
    with pytest.raises(ConfigError, match="a mask has .9, 6. pixels, its prediction .4, 4."):
        task.report(Outputs([torch.zeros(4, 4)], [mask]))


# -------------------------------------------------------------- source resolution


@pytest.mark.parametrize("size", [(12, 20), (31, 17), (8, 8)])
def test_squeezed_images_are_enlarged_as_torch_does(size):
    logits = torch.randn(1, 3, 8, 10)
    pipeline = BatchPipeline(SampleEncoder((ImageBlock(),), 1, (Resize((8, 10), "squish"),)))
    source = pipeline.to_source(torch.tensor([size]))
    found = source_logits(logits[0], source[0], size, slice(0, size[0]))
    expected = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["crop", "pad", "squish"])
def test_every_way_of_resizing_is_undone(method):
    block, ids = MaskBlock(("a", "b", "c")), np.zeros((48, 80), np.uint8)
    ids[16:32, 30:50] = 1
    ids[32:, :] = 2
    encoder = SampleEncoder((ImageBlock(), block), 1, (Resize((32, 32), method),))
    small = block.encode(ids, encoder.view((48, 80)))
    pipeline = BatchPipeline(encoder)
    sizes = torch.tensor([[48, 80]])
    logits = F.one_hot(small.long(), 3).movedim(2, 0)[None].float()
    found = source_ids(logits, Batch(x=logits, sizes=sizes, source=pipeline.to_source(sizes)))[0].numpy()
    assert found.shape == ids.shape
    seen = slice(16, 64) if method == "crop" else slice(0, 80)
    assert (found[:, seen] == ids[:, seen]).mean() > 0.95
    assert (found[40:] == 2).all()


def test_large_images_are_placed_in_bands(monkeypatch):
    from applications.segmentation import source_resolution

    logits, size = torch.randn(2, 3, 6, 6), torch.tensor([[23, 11], [14, 30]])
    pipeline = BatchPipeline(SampleEncoder((ImageBlock(),), 1, (Resize(6, "squish"),)))
    batch = Batch(x=logits, sizes=size, source=pipeline.to_source(size))
    whole = source_ids(logits, batch)
    monkeypatch.setattr(source_resolution, "MOST_NUMBERS", 200)
    for one, other in zip(whole, source_ids(logits, batch), strict=True):
        assert (one == other).all()


def test_without_a_source_ids_stay_where_they_are():
    logits, _ = sample()
    assert torch.equal(torch.stack(source_ids(logits, Batch(x=logits))), logits.argmax(dim=1).to(torch.uint8))


# ---------------------------------------------------------------- records


def test_records_are_plain_data_that_give_the_map_back():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 3, (13, 9)).astype(np.uint8)
    ids[ids == 1] = 0
    record = SegmentationTask(CODES).decode([torch.from_numpy(ids)])[0]
    record = json.loads(json.dumps(record))
    assert (record["height"], record["width"]) == (13, 9)
    assert [c["label"] for c in record["classes"]] == ["sky", "tree"]
    for entry, k in zip(record["classes"], (0, 2), strict=True):
        assert entry["area_px"] == (ids == k).sum()
        assert entry["share"] == pytest.approx((ids == k).mean())
        assert (decode_rle(entry["rle"]) == (ids == k)).all()
    assert (ids_of(record) == ids).all()


def test_a_result_is_drawn_with_truth_beside_prediction():
    from matplotlib.figure import Figure

    task, ids = SegmentationTask(CODES, ignore=255), np.zeros((6, 8), np.uint8)
    ids[:3] = 1
    record = task.decode([torch.from_numpy(ids)])[0]
    for truth, color in ((ids, "black"), (2 - ids, "crimson")):
        axes = Figure().subplots()
        axes.imshow(np.zeros((6, 8, 3), np.uint8))
        task.draw(axes, record, task.block, truth)
        assert len(axes.images) == 4
        assert axes.title.get_color() == color
    assert "mean IoU 0.33" in axes.title.get_text()


# ------------------------------------------------------------ configuration


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"codes": ("a",)}, "codes"),
        ({"cross_entropy": 0.0}, "the loss has no part"),
        ({"class_weights": (1.0,)}, "class_weights has 1 entries for 3 classes"),
        ({"dice": -1.0}, "dice must lie in"),
        ({"ignore": 1}, "ignore=1 is the id of the class 'road'"),
        ({"values": (0, 1)}, "values must have one entry a class"),
    ],
)
def test_wrong_options_are_named(options, said):
    with pytest.raises(ConfigError, match=said):
        SegmentationTask(**{"codes": CODES, **options})


def test_a_bundle_whose_parts_disagree_is_refused():
    task = SegmentationTask(CODES, ignore=9)
    good = SampleEncoder((ImageBlock(), MaskBlock(CODES, 9)))
    task.verify(good, {"classes": 3})
    with pytest.raises(ConfigError, match="the model has 4 classes, the task 3"):
        task.verify(good, {"classes": 4})
    for block in (MaskBlock(CODES), MaskBlock(CODES[::-1], 9), InstanceBlock()):
        with pytest.raises(ConfigError, match="disagree"):
            task.verify(SampleEncoder((ImageBlock(), block)), {"classes": 3})
