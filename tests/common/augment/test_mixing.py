"""Mixup and CutMix: the distribution of the shares, and what is blended or pasted, for every target."""

import pytest
import torch
from scipy import stats

from common.augment import CutMix, Mixup
from common.augment.mixing import Blend, beta
from common.blocks.batch import Batch
from common.blocks.values import Padded
from common.counter import uniform
from common.data import (
    BBoxBlock,
    CategoryBlock,
    EpochSeed,
    ImageBlock,
    MaskBlock,
    MultiCategoryBlock,
    PointBlock,
    RegressionBlock,
)
from common.errors import ConfigError

COUNT = 20_000


def shares(alpha):
    return beta(uniform(0, 0, torch.arange(COUNT), 5, Blend().numbers), alpha).numpy()


@pytest.mark.parametrize("alpha", [0.2, 0.4, 1.0, 2.0, 8.0])
def test_shares_follow_the_beta_distribution(alpha):
    found, wanted = shares(alpha), stats.beta(alpha, alpha)
    assert found.mean() == pytest.approx(wanted.mean(), abs=4 * wanted.std() / COUNT**0.5)
    assert found.var() == pytest.approx(wanted.var(), rel=0.05)
    assert stats.kstest(found, wanted.cdf).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.01, 0.4, 8.0])
def test_shares_are_numbers_between_0_and_1(alpha):
    found = shares(alpha)
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.fixture
def numbers_batch():
    x = torch.rand(64, generator=torch.Generator().manual_seed(0))
    return Batch(x=x, y=torch.arange(64) % 3, ids=torch.arange(64))


def run(pipeline, batch, block, train=True, epoch=0, alpha=0.4):
    return pipeline(Mixup(alpha), blocks=(RegressionBlock(), block))(batch, EpochSeed(0, epoch), train)


def test_soft_labels_sum_to_one_and_the_own_share_is_at_least_half(pipeline, numbers_batch):
    y = run(pipeline, numbers_batch, CategoryBlock(("a", "b", "c"))).y
    assert (y.dtype, tuple(y.shape)) == (torch.float32, (64, 3))
    torch.testing.assert_close(y.sum(dim=1), torch.ones(64))
    own = y[torch.arange(64), numbers_batch.y]
    assert (own >= 0.5).all()
    assert own.min() < 0.6
    assert own.unique().numel() > 50


def test_input_and_target_are_blended_alike(pipeline, numbers_batch):
    found = run(pipeline, numbers_batch, CategoryBlock(("a", "b", "c")))
    share = found.y[torch.arange(64), numbers_batch.y]  # neighbours have other classes but for the first and last
    x = numbers_batch.x
    wanted = x * share + x.roll(1) * (1 - share)
    torch.testing.assert_close(found.x[1:], wanted[1:])
    assert torch.equal(found.ids, numbers_batch.ids)


def test_numbers_and_several_labels_are_blended_too(pipeline, numbers_batch):
    batch = Batch(x=numbers_batch.x, y=numbers_batch.x * 2 + 1, ids=numbers_batch.ids)
    found = run(pipeline, batch, RegressionBlock())
    torch.testing.assert_close(found.y, found.x * 2 + 1)
    many = Batch(x=numbers_batch.x, y=torch.stack([numbers_batch.x, 1 - numbers_batch.x], 1), ids=numbers_batch.ids)
    found = run(pipeline, many, MultiCategoryBlock(("a", "b")))
    torch.testing.assert_close(found.y[:, 0], found.x)


def test_evaluation_is_not_blended(pipeline, numbers_batch):
    found = run(pipeline, numbers_batch, CategoryBlock(("a", "b", "c")), train=False)
    assert torch.equal(found.x, numbers_batch.x)
    assert torch.equal(found.y, numbers_batch.y)


def test_the_share_is_a_function_of_the_id_and_the_epoch(pipeline, numbers_batch):
    block = CategoryBlock(("a", "b", "c"))
    whole = run(pipeline, numbers_batch, block).y
    half = run(pipeline, Batch(x=numbers_batch.x[30:], y=numbers_batch.y[30:], ids=numbers_batch.ids[30:]), block).y
    assert torch.equal(whole[31:], half[1:])
    assert not torch.equal(whole, run(pipeline, numbers_batch, block, epoch=1).y)


def test_a_batch_of_one_is_blended_with_itself(pipeline):
    batch = Batch(x=torch.tensor([0.25]), y=torch.tensor([1]), ids=torch.tensor([3]))
    found = run(pipeline, batch, CategoryBlock(("a", "b")))
    torch.testing.assert_close(found.x, batch.x)
    torch.testing.assert_close(found.y, torch.tensor([[0.0, 1.0]]))


@pytest.mark.parametrize("alpha", [0, -1, 9, float("nan")])
def test_alpha_out_of_range_is_named(alpha):
    with pytest.raises(ConfigError, match=r"alpha must lie in"):
        Mixup(alpha)


SIDES = [(20, 20), (80, 70)]  # whole batches in torch, and photos one by one on the CPU


def flat(count, size):
    """Images of one colour each, so that a mixed pixel says its share."""
    levels = torch.arange(count) * 10 + 20
    return levels[:, None, None, None].expand(count, *size, 3).to(torch.uint8).contiguous()


def mixes(pipeline, raw_image, size, block, y, *transforms, count=16, epoch=0, mates=None):
    pipe = pipeline(*transforms, blocks=(raw_image, block))
    return pipe(Batch(x=flat(count, size), y=y, ids=torch.arange(count), mates=mates), EpochSeed(0, epoch), True)


@pytest.mark.parametrize("size", SIDES)
def test_mixup_of_images_is_of_the_share_that_the_target_says(pipeline, raw_image, size):
    names = tuple("abcdefghijklmnop")
    found = mixes(pipeline, raw_image, size, CategoryBlock(names), torch.arange(16), Mixup(1.0))
    level = flat(16, (1, 1))[:, 0, 0, 0] / 255
    for i in range(16):
        share = found.y[i, i]
        wanted = share * level[i] + (1 - share) * level[i - 1]
        assert found.x[i].sub(wanted).abs().max() < 1e-5
        assert found.y[i, i - 1] == pytest.approx(1 - share.item(), abs=1e-6)


@pytest.mark.parametrize("size", SIDES)
def test_cutmix_pastes_a_rectangle_and_weighs_the_target_by_its_area(pipeline, raw_image, size):
    names = tuple("abcdefghijklmnop")
    found = mixes(pipeline, raw_image, size, CategoryBlock(names), torch.arange(16), CutMix(p=0.7))
    level = flat(16, (1, 1))[:, 0, 0, 0] / 255
    changed = 0
    for i in range(16):
        theirs = (found.x[i, 0] - level[i - 1]).abs() < 1e-6
        mine = (found.x[i, 0] - level[i]).abs() < 1e-6
        assert (theirs ^ mine).all()
        assert found.y[i, i].item() == pytest.approx(mine.float().mean().item(), abs=1e-6)
        rows, cols = theirs.any(1), theirs.any(0)
        assert theirs.sum() == rows.sum() * cols.sum()  # a rectangle
        changed += bool(theirs.any())
    assert 6 < changed < 15


@pytest.mark.parametrize("size", SIDES)
def test_cutmix_moves_a_piece_of_the_mask_along_and_mixup_makes_shares_of_classes(pipeline, raw_image, size):
    ids = torch.arange(16)[:, None, None].expand(16, *size).to(torch.uint8).contiguous()
    block = MaskBlock(tuple("abcdefghijklmnop"))
    found = mixes(pipeline, raw_image, size, block, ids, CutMix(p=0.7))
    level = flat(16, (1, 1))[:, 0, 0, 0] / 255
    assert found.y.dtype == torch.uint8
    assert torch.allclose(level[found.y.long()], found.x[:, 0])
    found = mixes(pipeline, raw_image, size, block, ids, CutMix(p=0.4), Mixup(1.0))
    assert found.y.shape == (16, 16, *size)
    torch.testing.assert_close(found.y.sum(1), torch.ones(16, *size))
    torch.testing.assert_close((found.y * level[None, :, None, None]).sum(1), found.x[:, 0], atol=1e-5, rtol=0)


def test_a_pixel_that_is_not_counted_has_no_share_of_any_class(pipeline, raw_image):
    ids = torch.full((4, 20, 20), 255, dtype=torch.uint8)
    found = mixes(pipeline, raw_image, (20, 20), MaskBlock(("a", "b"), ignore=255), ids, Mixup(1.0), count=4)
    assert (found.y == 0).all()


def boxes(rows):
    labels = torch.arange(len(rows) * len(rows[0])).reshape(len(rows), -1)
    things = {"boxes": torch.tensor(rows, dtype=torch.float32), "labels": labels}
    return Padded(things, torch.ones(len(rows), len(rows[0]), dtype=torch.bool))


def test_mixup_of_boxes_keeps_those_of_both(pipeline, raw_image):
    y = boxes([[[0, 0, 5, 5]], [[10, 10, 15, 15]], [[2, 2, 9, 9]], [[3, 3, 9, 9]]])
    found = mixes(pipeline, raw_image, (20, 20), BBoxBlock(("a",)), y, Mixup(1.0, p=0.5), count=4)
    mixed = (found.x[:, 0, 0, 0] * 255 - (torch.arange(4) * 10 + 20)).abs() > 0.01
    assert found.y.values["boxes"].shape == (4, 2, 4)
    for i in range(4):
        assert found.y.valid[i].tolist() == [True, bool(mixed[i])]
        assert torch.equal(found.y.values["boxes"][i, 1], y.values["boxes"][i - 1, 0])
        assert found.y.values["labels"][i].tolist() == [i, (i - 1) % 4]
    assert 0 < mixed.sum() < 4


@pytest.mark.parametrize("size", [(60, 60), (90, 100)])
def test_cutmix_of_boxes_hides_what_it_covers_and_shows_what_it_brings(pipeline, raw_image, size):
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(16, 5, 2, generator=generator) * torch.tensor([size[1], size[0]]) * 0.7
    y = boxes(torch.cat([low, low + 14], dim=2).tolist())
    found = mixes(pipeline, raw_image, size, BBoxBlock(("a",)), y, CutMix(p=1.0))
    level = flat(16, (1, 1))[:, 0, 0, 0] / 255
    kept = 0
    for i in range(16):
        theirs = (found.x[i, 0] - level[i - 1]).abs() < 1e-6
        for k in range(5):

            def seen(box, where):
                fine = where.repeat_interleave(8, 0).repeat_interleave(8, 1)
                x0, y0, x1, y1 = (box * 8).round().int().tolist()
                return fine[y0:y1, x0:x1].float().mean().item()

            visible = 1 - seen(y.values["boxes"][i, k], theirs)
            assert bool(found.y.valid[i, k]) == (visible >= 0.1) or abs(visible - 0.1) < 0.03
            brought = seen(y.values["boxes"][i - 1, k], theirs)
            assert bool(found.y.valid[i, 5 + k]) == (brought >= 0.1) or abs(brought - 0.1) < 0.03
            if found.y.valid[i, 5 + k]:
                rows, cols = torch.nonzero(theirs.any(1))[:, 0], torch.nonzero(theirs.any(0))[:, 0]
                low = torch.maximum(y.values["boxes"][i - 1, k, :2], torch.stack([cols[0], rows[0]]).float())
                high = torch.minimum(y.values["boxes"][i - 1, k, 2:], torch.stack([cols[-1], rows[-1]]).float() + 1)
                torch.testing.assert_close(found.y.values["boxes"][i, 5 + k], torch.cat([low, high]), atol=1e-4, rtol=0)
                kept += 1
    assert kept > 5


@pytest.mark.parametrize("size", SIDES)
def test_mates_may_stand_anywhere_and_leave_with_the_mixing(pipeline, raw_image, size):
    names = tuple("abcdefghijklmnop")
    found = mixes(
        pipeline, raw_image, size, CategoryBlock(names), torch.arange(8), Mixup(1.0), count=8,
        mates=torch.tensor([7, 0, 1, 5, 3])[:, None],
    )  # fmt: skip
    assert (len(found), found.ids.tolist(), found.mates) == (5, [0, 1, 2, 3, 4], None)
    level = flat(8, (1, 1))[:, 0, 0, 0] / 255
    for i, mate in enumerate([7, 0, 1, 5, 3]):
        share = found.y[i, i]
        assert found.y[i].nonzero()[:, 0].tolist() == sorted({i, mate})
        torch.testing.assert_close(found.x[i, 0, 0, 0], share * level[i] + (1 - share) * level[mate])


def test_several_targets_are_mixed_alike(pipeline, raw_image):
    y = (torch.arange(4), torch.arange(4.0))
    pipe = pipeline(Mixup(1.0), blocks=(raw_image, CategoryBlock(("a", "b", "c", "d")), RegressionBlock()))
    found = pipe(Batch(x=flat(4, (20, 20)), y=y, ids=torch.arange(4)), EpochSeed(), True)
    torch.testing.assert_close(found.y[1], (found.y[0] * torch.arange(4.0)).sum(1))


@pytest.mark.parametrize(
    ("transform", "block", "reason"),
    [
        (Mixup(), PointBlock(), "mixup does not support points"),
        (CutMix(), PointBlock(), "cutmix does not support points"),
        (Mixup(), MaskBlock(), "mixup of masks needs the names"),
    ],
)
def test_what_cannot_be_mixed_is_refused(pipeline, transform, block, reason):
    with pytest.raises(ConfigError, match=reason):
        pipeline(transform, blocks=(ImageBlock(), block))


def test_cutmix_needs_an_image(pipeline):
    with pytest.raises(ConfigError, match="cutmix needs an image"):
        pipeline(CutMix(), blocks=(RegressionBlock(), RegressionBlock()))


def test_a_picture_of_mixed_samples_names_the_shares():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    block = CategoryBlock(("daisy", "rose", "tulip"))
    block.draw(axes, torch.tensor([0.25, 0.0, 0.75]))
    assert axes.get_title() == "daisy 25% + tulip 75%"
    block.draw(axes, torch.tensor(1))
    assert axes.get_title() == "rose"
    shares = torch.tensor([[[0.6, 0.1]], [[0.4, 0.9]]])
    assert MaskBlock(("a", "b")).decode(shares).tolist() == [[0, 1]]
