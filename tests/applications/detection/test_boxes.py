"""Boxes as tensors, against torchvision and by hand."""

import pytest
import torch
from torchvision import ops

from applications.detection.boxes import areas, around_points, overlaps, suppressed


def boxes(count, seed=0, side=100):
    low = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) * side
    size = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed + 1)) * side / 2 + 1
    return torch.cat([low, low + size], dim=1)


def test_overlaps_are_torchvisions():
    first, second = boxes(20), boxes(30, 5)
    torch.testing.assert_close(overlaps(first[:, None], second[None]), ops.box_iou(first, second))
    found = overlaps(first[:, None], second[None], generalized=True)
    torch.testing.assert_close(found, ops.generalized_box_iou(first, second), atol=1e-5, rtol=1e-5)


def test_a_box_without_extent_overlaps_nothing():
    flat = torch.tensor([[5.0, 5.0, 5.0, 9.0]])
    assert areas(flat).item() == 0
    assert overlaps(flat, flat).item() == 0
    assert overlaps(torch.tensor([8.0, 8, 2, 2]), torch.tensor([0.0, 0, 9, 9])).item() == 0  # turned inside out


def test_a_box_lies_at_its_distances_from_its_place():
    assert around_points(torch.tensor([10.0, 20.0]), torch.tensor([1.0, 2, 3, 4])).tolist() == [9, 18, 13, 24]


def one_by_one(boxes, scores, least_score, most_overlap, most):
    """Suppression of one image, a class at a time, in plain Python."""
    kept = []
    for label in range(scores.shape[1]):
        order = sorted(range(len(boxes)), key=lambda i: -scores[i, label].item())
        chosen = []
        for i in order:
            if scores[i, label] <= least_score:
                break
            if all(ops.box_iou(boxes[i : i + 1], boxes[j : j + 1]).item() <= most_overlap for j in chosen):
                chosen.append(i)
        kept += [(scores[i, label].item(), label, i) for i in chosen]
    return sorted(kept, reverse=True)[:most]


@pytest.mark.parametrize("most", [5, 100])
def test_suppression_of_a_batch_is_that_of_each_image_and_class(most):
    where = torch.stack([boxes(40, 0, 40), boxes(40, 7, 40), boxes(40, 9, 40)])
    scores = torch.rand(3, 40, 4, generator=torch.Generator().manual_seed(3))
    scores[2] = 0.0  # an image in which nothing is found
    found = suppressed(where, scores, least_score=0.3, most_overlap=0.4, most=most)
    for i, one in enumerate(found):
        wanted = one_by_one(where[i], scores[i], 0.3, 0.4, most)
        assert one["scores"].tolist() == [score for score, _, _ in wanted]
        assert one["labels"].tolist() == [label for _, label, _ in wanted]
        assert one["boxes"].tolist() == [where[i, place].tolist() for _, _, place in wanted]
    assert len(found[2]["boxes"]) == 0
    assert found[2]["boxes"].shape == (0, 4)
