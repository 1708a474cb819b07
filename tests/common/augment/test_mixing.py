"""Mixup: the distribution of the shares, and what is blended."""

import pytest
import torch
from scipy import stats

from common.augment import Mixup
from common.augment import operations as ops
from common.augment.mixing import beta
from common.counter import uniform
from common.data import CategoryBlock, Counter, MultiCategoryBlock, RegressionBlock
from common.data.batch import Batch
from common.errors import ConfigError

COUNT = 20_000


def shares(alpha):
    mix = ops.Mix(alpha=alpha)
    return beta(uniform(0, 0, torch.arange(COUNT), 5, mix.numbers), alpha, mix.tries).numpy()


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
    return pipeline(Mixup(alpha), blocks=(RegressionBlock(), block))(batch, Counter(0, epoch), train)


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
