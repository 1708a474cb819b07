"""The parts of the ensemble: bins, target means, text scores, selection, boosters, network, tasks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from applications.tabular.booster import Booster, BoosterConfig, class_scores
from applications.tabular.linear import LinearModel
from applications.tabular.network import NetworkConfig, TabularNetwork, embedding_width
from applications.tabular.piecewise import HIGHEST, LOWEST, PiecewiseLinear, quantile_edges
from applications.tabular.selection import fit_temperature, log_loss, select_weights, squared_error
from applications.tabular.targets import SMOOTHING, TargetMeans, TextScores, level_means, out_of_fold, target_columns
from applications.tabular.task import TabularClassification, TabularRegression
from common.blocks.batch import Batch
from common.blocks.ngrams import hashed_ngrams
from common.errors import ConfigError
from common.task.task import Outputs

RNG = np.random.default_rng(0)


# ------------------------------------------------------------------ piecewise


def plain_piecewise(value, edges):
    """The definition of Gorishniy et al. 2022, equation 1, one number at a time; the ends go on, but not for ever."""
    edges = [e for i, e in enumerate(edges) if i == 0 or e != edges[i - 1]]
    found = []
    for t in range(len(edges) - 1):
        share = (value - edges[t]) / (edges[t + 1] - edges[t])
        low = LOWEST if t == 0 else 0
        high = HIGHEST if t == len(edges) - 2 else 1
        found.append(min(max(share, low), high))
    return found


@pytest.mark.parametrize("value", [-9.0, -0.1, 0.0, 0.3, 1.0, 2.2, 3.0, 3.5, 99.0])
def test_piecewise_encoding_is_the_papers(value):
    encode = PiecewiseLinear(1, 4)
    edges = np.array([[0.0, 1.0, 3.0, 3.0, 3.0]], np.float32)  # two bins, the last edge repeated
    encode.set(edges)
    found = encode(torch.tensor([[value]]))[0, 0].tolist()
    assert found[:2] == pytest.approx(plain_piecewise(value, edges[0].tolist()), abs=1e-6)
    assert found[2:] == [0, 0]


def test_edges_tell_the_few_rows_that_are_not_zero_apart():
    numbers = np.where(RNG.random(1000) < 0.95, 0, RNG.integers(1, 40, 1000)).astype(np.float32)[:, None]
    edges = quantile_edges(numbers, np.zeros_like(numbers, dtype=bool), 24)[0]
    assert len(np.unique(edges)) >= 8
    assert edges[0] == 0
    assert edges[-1] == numbers.max()


def test_edges_of_a_constant_or_an_empty_number_are_one_bin():
    numbers = np.array([[2.0, 1.0], [2.0, 5.0]], np.float32)
    edges = quantile_edges(numbers, np.array([[False, True], [False, True]]), 3)
    assert (np.diff(edges, axis=1) >= 0).all()
    assert edges[0, 0] == 2
    assert edges[0, 1] > 2
    encode = PiecewiseLinear(2, 3)
    encode.set(edges)
    assert torch.isfinite(encode(torch.from_numpy(numbers))).all()


# ------------------------------------------------------------------ targets


def test_level_means_are_smoothed_towards_the_prior():
    found = level_means(np.array([2, 2, 3]), 4, np.array([[1.0], [3.0], [8.0]]), np.array([4.0]))
    wanted = [4, 4, (1 + 3 + SMOOTHING * 4) / (2 + SMOOTHING), (8 + SMOOTHING * 4) / (1 + SMOOTHING)]
    assert found[:, 0].tolist() == pytest.approx(wanted, rel=1e-6)
    assert found[:, 1].tolist() == pytest.approx(np.log1p([0, 0, 2, 1]).tolist(), rel=1e-6)


def test_out_of_fold_features_never_see_their_own_row():
    seen = {}

    def learn(rows):
        return lambda held: seen.update({int(i): set(rows.tolist()) for i in held}) or np.zeros((len(held), 1))

    out_of_fold(23, 0, learn, 1)
    assert set(seen) == set(range(23))
    assert all(row not in learned for row, learned in seen.items())


def test_target_means_of_noise_tell_nothing_out_of_fold_and_much_in_it():
    codes = RNG.integers(2, 202, (600, 1))
    target = RNG.normal(size=(600, 1))
    means = TargetMeans((202,), 1)
    outside = means.fit(codes, target, seed=0)[:, 0]
    inside = means.features(codes)[:, 0]
    assert abs(np.corrcoef(outside, target[:, 0])[0, 1]) < 0.2
    assert np.corrcoef(inside, target[:, 0])[0, 1] > 0.4


@pytest.mark.parametrize(("classes", "wanted"), [(2, [[0], [1], [1]]), (3, [[1, 0, 0], [0, 1, 0], [0, 1, 0]])])
def test_target_columns_mark_the_classes(classes, wanted):
    assert target_columns(np.array([0, 1, 1]), classes).tolist() == wanted


def words_of(texts, width=6):
    rows = hashed_ngrams(texts, "", 1 << 10, width)
    return np.array([np.concatenate([row, np.zeros(width - len(row), np.int32)]) for row in rows], np.int32)


@pytest.mark.parametrize("classes", [True, False])
def test_text_scores_learn_which_word_matters(classes):
    good = RNG.random(200) < 0.5
    text = words_of(["good thing" if g else "bad thing" for g in good])
    target = good[:, None].astype(float)
    model = TextScores(1 << 10, 1, classes)
    outside = model.fit(text, target, seed=0)[:, 0]
    assert outside[good].min() > outside[~good].max()
    unseen = model.features(words_of(["good", "bad", "never seen", ""]))[:, 0]
    assert unseen[0] > unseen[2] > unseen[1]
    assert unseen[2] == unseen[3] == pytest.approx(float(model.bias[0]))


# ------------------------------------------------------------------ selection


def test_selection_is_never_worse_than_the_best_member_and_adds_up_to_one():
    truth = RNG.integers(0, 3, 300)
    members = [F.softmax(torch.from_numpy(RNG.normal(0, 1, (300, 3)) + noise * np.eye(3)[truth]), 1).numpy()
               for noise in (0.5, 1.5, 1.0, 0.0)]  # fmt: skip
    loss = log_loss(truth)
    weights = select_weights(members, loss)
    mean = sum(w * m for w, m in zip(weights, members, strict=True))
    assert weights.sum() == pytest.approx(1)
    assert loss(mean) <= min(loss(m) for m in members) + 1e-9


def test_selection_of_one_perfect_member_takes_it_alone():
    truth = RNG.normal(size=50)
    weights = select_weights([truth + RNG.normal(size=50), truth.copy()], squared_error(truth))
    assert weights.tolist() == [0, 1]


def test_temperature_finds_back_what_was_put_in():
    logits = RNG.normal(0, 2, (4000, 3))
    truth = np.array([RNG.choice(3, p=p) for p in F.softmax(torch.from_numpy(logits), 1).numpy()])
    sharp = F.softmax(torch.from_numpy(logits * 2), 1).numpy()
    assert fit_temperature(sharp, truth) == pytest.approx(2, rel=0.1)


# ------------------------------------------------------------------ boosters and the linear member


def test_trees_learn_a_step_and_stop_early():
    x = RNG.normal(size=(400, 2)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.float64) * 5
    model = Booster(BoosterConfig(patience=5, subsample=1.0, columns=1.0), "reg:squarederror", 2)
    rounds = model.fit(x[:300], y[:300], x[300:], y[300:])
    assert rounds < 3000
    assert np.abs(model.scores(x)[:, 0] - y).mean() < 0.2


def test_a_time_limit_ends_the_growing():
    x = RNG.normal(size=(400, 2)).astype(np.float32)
    model = Booster(BoosterConfig(rounds=100_000), "reg:squarederror", 2)
    assert model.fit(x, x[:, 0], seconds=0.2) < 100_000


def test_trees_go_through_their_file_bit_for_bit():
    x = np.c_[RNG.normal(size=300), RNG.integers(0, 5, 300)].astype(np.float32)
    y = RNG.integers(0, 3, 300)
    model = Booster(BoosterConfig(rounds=7), "multi:softprob", 2, (1,), 3)
    model.fit(x, y)
    again = Booster(BoosterConfig(rounds=7), "multi:softprob", 2, (1,), 3)
    again.load_files(model.files())
    assert np.array_equal(again.scores(x), model.scores(x))
    assert again.files() == model.files()


def test_ungrown_trees_say_so():
    with pytest.raises(ConfigError, match="not grown yet"):
        Booster(BoosterConfig(), "reg:squarederror", 1).scores(np.zeros((1, 1), np.float32))


def test_the_score_of_two_classes_is_the_margin_of_the_second():
    assert class_scores(np.array([[2.0]])).tolist() == [[0.0, 2.0]]


def columns(rows, numbers=2, sizes=(4,)):
    return {
        "numbers": torch.from_numpy(RNG.normal(size=(rows, numbers)).astype(np.float32)),
        "missing": torch.zeros(rows, numbers, dtype=torch.bool),
        "categories": torch.from_numpy(np.stack([RNG.integers(0, s, rows) for s in sizes], 1)).long(),
        "text": torch.zeros(rows, 0, dtype=torch.int32),
    }


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_the_linear_member_learns_bins_and_levels(outputs):
    x = columns(500)
    bend = x["numbers"][:, 0].abs() + 2.0 * (x["categories"][:, 0] == 1)
    y = bend.double().numpy() if outputs == 1 else np.digitize(bend, [1.0, 2.0][: outputs - 1])
    model = LinearModel(2, (4,), outputs)
    model.fit(x, y)
    said = model.scores(x)
    if outputs == 1:
        assert np.abs(said[:, 0] - y).mean() < 0.1
    else:
        assert (said.argmax(1) == y).mean() > 0.9


# ------------------------------------------------------------------ network


def small(**more):
    return NetworkConfig(numbers=2, sizes=(4,), members=3, width=8, bins=4, embedding=2, **more)


def test_in_evaluation_the_network_is_the_mean_of_its_probabilities():
    model, x = TabularNetwork(small(outputs=3)).train(), columns(5)
    model.body[2].p = model.body[5].p = 0.0
    every = model(x)
    assert every.shape == (5, 3, 3)
    wanted = every.softmax(2).mean(1)
    assert torch.allclose(model.eval()(x).softmax(1), wanted, atol=1e-6)


def test_a_number_is_told_in_its_own_units():
    model, x = TabularNetwork(small(center=100.0, scale=7.0)).eval(), columns(6)
    plain = TabularNetwork(small()).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.allclose(model(x), plain(x) * 7 + 100, atol=1e-4)


def test_the_networks_see_the_inputs_through_signs_of_their_own():
    torch.manual_seed(0)
    model = TabularNetwork(small())
    assert set(model.views.unique().tolist()) == {-1.0, 1.0}
    assert isinstance(model.views, nn.Parameter)
    assert not torch.equal(model.views[0], model.views[1])


def test_dropout_has_one_mask_for_all_networks():
    model = TabularNetwork(small(dropout=0.5))
    dropped = model.body[2].train()(torch.ones(4, 3, 8))
    assert torch.equal(dropped[:, 0], dropped[:, 1])
    assert set(dropped.unique().tolist()) == {0.0, 2.0}


def test_a_network_of_categories_alone_runs():
    x = columns(3, numbers=0, sizes=(4, 5))
    config = NetworkConfig(numbers=0, sizes=(4, 5), outputs=2, members=2, width=4)
    assert TabularNetwork(config).eval()(x).shape == (3, 2)


def test_wide_categories_become_at_most_32_units():
    assert [embedding_width(n) for n in (1, 2, 100_000)] == [2, 2, 32]


# ------------------------------------------------------------------ tasks


def test_the_loss_of_several_networks_is_the_mean_of_their_losses():
    task = TabularClassification(("a", "b"))
    out, y = torch.randn(6, 3, 2), torch.tensor([0, 1, 1, 0, 1, 0])
    wanted = torch.stack([F.cross_entropy(out[:, k], y, reduction="none") for k in range(3)]).mean(0)
    assert torch.allclose(task.losses(out, Batch(x=out, y=y)), wanted, atol=1e-6)
    number = TabularRegression(5.0, 2.0)
    values, target = torch.randn(6, 3), torch.randn(6)
    wanted = ((values - target[:, None]) / 2).square().mean(1)
    assert torch.allclose(number.losses(values, Batch(x=values, y=target)), wanted, atol=1e-6)


def test_metrics_of_numbers_are_scikit_learns():
    from sklearn import metrics as sk

    truth, said = RNG.normal(size=40), RNG.normal(size=40)
    low, high = said - 1, said + 1
    task = TabularRegression(quantiles=(0.1, 0.9))
    out = torch.from_numpy(np.stack([said, low, high], 1))
    found = task.report(Outputs(out, torch.from_numpy(truth)))
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(truth, said))
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(truth, said))
    assert found["r2"] == pytest.approx(sk.r2_score(truth, said))
    pinball = np.mean([sk.mean_pinball_loss(truth, e, alpha=a) for e, a in ((low, 0.1), (high, 0.9))])
    assert found["pinball"] == pytest.approx(pinball)
    assert found["coverage"] == pytest.approx(((truth >= low) & (truth <= high)).mean())
    record = task.decode(out)[0]
    assert record == {
        "value": pytest.approx(said[0]),
        "quantiles": {"0.1": pytest.approx(low[0]), "0.9": pytest.approx(high[0])},
    }


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: TabularRegression(scale=0.0), "scale must lie in"),
        (lambda: TabularRegression(quantiles=(0.9, 0.1)), "quantiles must rise"),
        (lambda: TabularRegression(quantiles=(1.0,)), "quantiles must lie in"),
        (lambda: NetworkConfig(numbers=1, dropout=1.0), "dropout must lie in"),
        (lambda: BoosterConfig(depth=0), "depth must lie in"),
    ],
)
def test_wrong_settings_are_one_sentence(make, match):
    with pytest.raises(ConfigError, match=match):
        make()
