"""Which place answers for which thing, against a slow plain version and by hand."""

import pytest
import torch
from torchvision import ops

from applications.detection.assignment import TOP, assign, detection_losses


def grid(side=64, strides=(8, 16)):
    points, sizes = [], []
    for stride in strides:
        at = torch.arange(side // stride) * stride + stride / 2
        points.append(torch.cartesian_prod(at, at).flip(1))
        sizes.append(torch.full((len(points[-1]),), float(stride)))
    return torch.cat(points), torch.cat(sizes)


POINTS, STRIDES = grid()


def problem(seed, things=5, classes=3, batch=2):
    g = torch.Generator().manual_seed(seed)
    low = torch.rand(batch, things, 2, generator=g) * 45
    boxes = torch.cat([low, low + 9 + torch.rand(batch, things, 2, generator=g) * 30], dim=2)
    labels = torch.randint(classes, (batch, things), generator=g)
    valid = torch.rand(batch, things, generator=g) < 0.8
    scores = torch.rand(batch, len(POINTS), classes, generator=g)
    sides = torch.rand(batch, len(POINTS), 4, generator=g) * 16 + 1
    found = torch.cat([POINTS - sides[..., :2], POINTS + sides[..., 2:]], dim=-1)
    return scores, found, boxes, labels, valid


def slow(scores, found, boxes, labels, valid):
    """One image, thing by thing, from the paper's words."""
    places, classes = scores.shape
    claims = {}
    for n in range(len(boxes)):
        if not valid[n]:
            continue
        inside = [
            a for a in range(places)
            if boxes[n][0] < POINTS[a][0] < boxes[n][2] and boxes[n][1] < POINTS[a][1] < boxes[n][3]
        ]  # fmt: skip
        iou = {a: ops.box_iou(boxes[n : n + 1], found[a : a + 1]).item() for a in inside}
        fit = {a: scores[a, labels[n]].item() ** 0.5 * iou[a] ** 6 for a in inside}
        for a in sorted(inside, key=lambda a: -fit[a])[:TOP]:
            claims.setdefault(a, []).append((iou[a], n, fit[a]))
    owner = {a: max(c) for a, c in claims.items()}
    target = torch.zeros(places, classes)
    for n in range(len(boxes)):
        own = {a: (iou, fit) for a, (iou, m, fit) in owner.items() if m == n}
        if own:
            best_fit, best_iou = max(f for _, f in own.values()), max(i for i, _ in own.values())
            for a, (_, fit) in own.items():
                target[a, labels[n]] = fit / best_fit * best_iou
    return target, {a: n for a, (_, n, _) in owner.items()}


@pytest.mark.parametrize("seed", range(6))
def test_each_place_answers_as_the_paper_says(seed):
    scores, found, boxes, labels, valid = problem(seed)
    goal = assign(scores, found, POINTS, STRIDES, boxes, labels, valid)
    for i in range(len(scores)):
        target, owner = slow(scores[i], found[i], boxes[i], labels[i], valid[i])
        torch.testing.assert_close(goal.scores[i], target, atol=1e-4, rtol=1e-3)
        for place, thing in owner.items():
            assert torch.equal(goal.boxes[i, place], boxes[i, thing])
    torch.testing.assert_close(goal.weight, goal.scores.sum(dim=2))


def test_nothing_is_asked_of_an_image_without_things():
    scores, found, boxes, labels, valid = problem(0)
    for none in (assign(scores, found, POINTS, STRIDES, boxes, labels, torch.zeros_like(valid)),
                 assign(scores, found, POINTS, STRIDES, boxes[:, :0], labels[:, :0], valid[:, :0])):  # fmt: skip
        assert not none.scores.any()
        assert not none.weight.any()
        losses = detection_losses(scores.logit(eps=1e-6), found, none, whole=True)
        assert torch.isfinite(losses).all()
        assert (losses > 0).all()  # what was said to be there is not


def test_a_thing_smaller_than_any_place_still_has_one():
    tiny = torch.tensor([[[12.5, 12.5, 14.5, 15.0]]])  # between the places 12 and 20 of the finest stride
    scores = torch.full((1, len(POINTS), 1), 0.01)
    found = torch.cat([POINTS - 8, POINTS + 8], dim=1)[None]
    goal = assign(scores, found, POINTS, STRIDES, tiny, torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1).bool())
    places = torch.nonzero(goal.weight[0])[:, 0]
    assert len(places) >= 1
    assert (POINTS[places] - torch.tensor([13.5, 13.75])).abs().max() <= 8


def test_a_thing_that_nothing_overlaps_yet_is_given_to_the_places_at_its_middle():
    box = torch.tensor([[[16.0, 16.0, 48.0, 48.0]]])
    found = torch.cat([POINTS - 0.01, POINTS + 0.01], dim=1)[None] * 0 - 5  # all boxes lie elsewhere
    scores = torch.full((1, len(POINTS), 1), 0.01)
    goal = assign(scores, found, POINTS, STRIDES, box, torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1).bool())
    assert not goal.scores.any()  # worth nothing yet
    owned = (goal.boxes[0] == box[0, 0]).all(dim=1)
    assert owned.any()


def test_the_loss_is_least_where_everything_is_said_rightly():
    scores, found, boxes, labels, valid = problem(1)
    goal = assign(scores, found, POINTS, STRIDES, boxes, labels, valid)
    right = detection_losses(goal.scores.clamp(1e-6, 1 - 1e-6).logit(), goal.boxes, goal, whole=True)
    wrong = detection_losses(scores.logit(eps=1e-6), found, goal, whole=True)
    assert (right < wrong).all()


def test_whole_sets_one_scale_for_the_batch():
    scores, found, boxes, labels, valid = problem(2)
    goal = assign(scores, found, POINTS, STRIDES, boxes, labels, valid)
    logits = scores.logit(eps=1e-6)
    whole, own = (detection_losses(logits, found, goal, whole=w) for w in (True, False))
    total = goal.weight.sum(dim=1)
    torch.testing.assert_close(whole * total.mean().clamp(min=1), own * total.clamp(min=1))
