"""Which prediction is which object: by hand, and against a slow plain version."""

import numpy as np
import pytest

from applications.detection.matching import choose_thresholds, match
from common.blocks.objects import Objects
from common.errors import ConfigError, DataError


def record(*found, size=(40, 60)):
    """A record of (label, x, y, width, height, score)."""
    objects = [{"label": f[0], "category_id": 1, "bbox": list(f[1:5]), "score": f[5]} for f in found]
    return {"height": size[0], "width": size[1], "objects": objects}


def listed(matches):
    return {name: getattr(matches, name).tolist() for name in ("hits", "found", "misses", "false_alarms", "ignored")}


def test_each_is_what_it_is():
    target = Objects([(0, 0, 10, 10), (20, 0, 30, 10), (40, 20, 50, 30)], ["cat", "cat", "dog"])
    found = match(record(("cat", 20, 0, 10, 9, 0.6), ("cat", 0, 0, 10, 10, 0.9), ("cat", 40, 20, 10, 10, 0.8)), target)
    assert listed(found) == {"hits": [0, 1], "found": [1, 0], "misses": [2], "false_alarms": [2], "ignored": []}
    assert all(getattr(found, name).dtype == np.int64 for name in listed(found))


def test_the_surer_one_takes_the_object_and_the_other_is_a_false_alarm():
    target = Objects([(0, 0, 10, 10)], ["cat"])
    found = match(record(("cat", 0, 0, 10, 10, 0.5), ("cat", 0, 1, 10, 10, 0.7)), target)
    assert listed(found) == {"hits": [1], "found": [0], "misses": [], "false_alarms": [0], "ignored": []}


def test_of_equal_scores_the_first_is_asked_first():
    target = Objects([(0, 0, 10, 10)], ["cat"])
    found = match(record(("cat", 0, 1, 10, 10, 0.5), ("cat", 0, 0, 10, 10, 0.5)), target)
    assert found.hits.tolist() == [0]


def test_a_taken_object_leaves_the_next_best():
    target = Objects([(0, 0, 10, 10), (0, 2, 10, 12)], ["cat", "cat"])
    found = match(record(("cat", 0, 0, 10, 10, 0.9), ("cat", 0, 0, 10, 10, 0.8)), target)
    assert (found.hits.tolist(), found.found.tolist()) == ([0, 1], [0, 1])


@pytest.mark.parametrize(("height", "hit"), [(5.0, True), (4.99, False)])
def test_the_overlap_decides(height, hit):
    found = match(record(("cat", 0, 0, 10, height, 0.9)), Objects([(0, 0, 10, 10)], ["cat"]))
    assert bool(len(found.hits)) is hit
    assert len(match(record(("cat", 0, 0, 10, 10, 0.9)), Objects([(0, 0, 10, 10)], ["cat"]), iou=1.0).hits) == 1


def test_crowds_are_neither_found_nor_missed():
    target = Objects([(0, 0, 40, 40), (0, 0, 10, 10)], ["cat", "cat"], crowd=[True, False])
    found = match(
        record(
            ("cat", 0, 0, 10, 10, 0.9),
            ("cat", 20, 20, 9, 9, 0.8),
            ("cat", 35, 35, 10, 10, 0.7),
            ("dog", 5, 5, 9, 9, 0.6),
        ),
        target,
    )
    assert listed(found) == {"hits": [0], "found": [1], "misses": [], "false_alarms": [2, 3], "ignored": [1]}


def test_what_is_below_the_threshold_is_not_there():
    target = Objects([(0, 0, 10, 10)], ["cat"])
    found = match(record(("cat", 0, 0, 10, 10, 0.5), ("cat", 30, 0, 10, 10, 0.4)), target, threshold=0.5)
    assert listed(found) == {"hits": [0], "found": [0], "misses": [], "false_alarms": [], "ignored": []}


@pytest.mark.parametrize("objects", [(), (("cat", 1, 1, 5, 5, 0.5),)])
def test_nothing_may_be_there_or_found(objects):
    assert listed(match(record(*objects), Objects()))["false_alarms"] == list(range(len(objects)))
    assert match(record(), Objects([(0, 0, 1, 1)], ["a"])).misses.tolist() == [0]


def test_an_overlap_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="iou must lie in"):
        match(record(), Objects(), iou=0)


# ------------------------------------------------------------------ thresholds


def scenes(seed, images=12, labels=("cat", "dog", "cow"), ties=True):
    """Random records and targets with crowds; many predictions lie near an object, and scores repeat."""
    rng = np.random.default_rng(seed)
    records, targets = [], []
    for _ in range(images):
        corner, extent = rng.uniform(0, 40, (6, 2)), rng.uniform(4, 15, (6, 2))
        n = int(rng.integers(0, 6))
        boxes = np.concatenate([corner, corner + extent], axis=1)[:n]
        names = rng.choice(labels[:2], n).tolist()
        targets.append(Objects(boxes.tolist(), names, crowd=(rng.random(n) < 0.2).tolist()))
        found = []
        for i in range(int(rng.integers(0, 12))):
            at = i % n if n and rng.random() < 0.7 else None
            x, y, w, h = (*corner[at], *extent[at]) if at is not None else (*rng.uniform(0, 40, 2), 9.0, 9.0)
            score = rng.random()
            score = round(score, 1) if ties else score
            x, y = x + rng.normal(0, 1.5), y + rng.normal(0, 1.5)
            label = names[at] if at is not None and rng.random() < 0.8 else rng.choice(labels)
            found.append((str(label), float(x), float(y), float(w), float(h), float(score)))
        records.append(record(*found))
    return records, targets


def plain(prediction, target, iou, threshold):
    """COCO's matching, word by word: (hits, false alarms, objects)."""
    crowd = target.crowd or [False] * len(target.boxes)
    order = sorted(range(len(prediction["objects"])), key=lambda i: -prediction["objects"][i]["score"])
    taken, hits, wrong = set(), 0, 0
    for i in order:
        thing = prediction["objects"][i]
        if thing["score"] < threshold:
            continue
        x, y, w, h = thing["bbox"]
        best, best_iou, on_crowd = None, iou, False
        for j, (x0, y0, x1, y1) in enumerate(target.boxes):
            if target.labels[j] != thing["label"]:
                continue
            shared = max(0, min(x + w, x1) - max(x, x0)) * max(0, min(y + h, y1) - max(y, y0))
            overlap = shared / (w * h if crowd[j] else w * h + (x1 - x0) * (y1 - y0) - shared)
            if crowd[j]:
                on_crowd = on_crowd or overlap >= iou
            elif j not in taken and overlap >= best_iou:
                best, best_iou = j, overlap
        if best is not None:
            taken.add(best)
            hits += 1
        elif not on_crowd:
            wrong += 1
    return hits, wrong, sum(not c for c in crowd)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [0.0, 0.35, 0.7])
def test_matching_is_that_of_the_plain_version(seed, threshold):
    for prediction, target in zip(*scenes(seed), strict=True):
        found = match(prediction, target, iou=0.4, threshold=threshold)
        hits, wrong, there = plain(prediction, target, 0.4, threshold)
        assert (len(found.hits), len(found.false_alarms), len(found.misses)) == (hits, wrong, there - hits)
        kept = sum(thing["score"] >= threshold for thing in prediction["objects"])
        assert len(found.hits) + len(found.false_alarms) + len(found.ignored) == kept


def rates(records, targets, label, score):
    kept = [{**r, "objects": [o for o in r["objects"] if label in (None, o["label"])]} for r in records]
    wanted = [t if label is None else t.rows(np.array([n == label for n in t.labels], dtype=bool)) for t in targets]
    counts = np.sum([plain(r, t, 0.4, score) for r, t in zip(kept, wanted, strict=True)], axis=0)
    hits, wrong, there = counts.tolist()
    precision, recall = hits / max(hits + wrong, 1), hits / max(there, 1)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ties", [True, False])
def test_the_best_score_is_that_of_trying_every_one(seed, ties):
    records, targets = scenes(seed, ties=ties)
    chosen = choose_thresholds(records, targets, ("cat", "dog", "cow"), iou=0.4)
    for row in (chosen.overall, *chosen.classes):
        every = sorted({o["score"] for r in records for o in r["objects"] if row.label in (None, o["label"])})
        best = max(rates(records, targets, row.label, score)[2] for score in every)
        assert row.f1 == pytest.approx(best)
        assert row.objects == sum(
            row.label in (None, n) and not c for t in targets for n, c in zip(t.labels, t.crowd, strict=True)
        )
        if row.score is not None:
            assert rates(records, targets, row.label, row.score) == pytest.approx((row.precision, row.recall, row.f1))
        for i in range(0, len(row.scores), 5):
            at = rates(records, targets, row.label, row.scores[i])
            assert at == pytest.approx((row.precisions[i], row.recalls[i], row.f1s[i]))


def test_the_threshold_lies_half_way_to_the_next_score():
    target = Objects([(0, 0, 10, 10)], ["cat"])
    prediction = record(("cat", 0, 0, 10, 10, 0.9), ("cat", 30, 0, 10, 10, 0.3))
    row = choose_thresholds([prediction], [target], ("cat",)).overall
    assert (row.score, row.precision, row.recall, row.f1) == (pytest.approx(0.6), 1, 1, 1)
    assert row.scores.tolist() == [0.9, 0.3]
    assert row.precisions.tolist() == [1, 0.5]


def test_a_class_that_is_not_there_or_not_found_has_no_threshold():
    prediction = record(("dog", 0, 0, 10, 10, 0.9))
    chosen = choose_thresholds([prediction], [Objects([(0, 0, 10, 10)], ["cat"])], ("cat", "dog"))
    assert [(row.score, row.f1, row.objects) for row in chosen.classes] == [(None, 0, 1), (None, 0, 0)]
    assert chosen.overall.score is None
    assert choose_thresholds([], [], ("cat",)).overall.score is None


def test_records_and_targets_must_be_as_many():
    with pytest.raises(DataError, match="1 records, 2 targets"):
        choose_thresholds([record()], [Objects(), Objects()], ("cat",))
