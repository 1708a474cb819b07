"""The splitters: what is in which part."""

import subprocess
import sys
from collections import Counter as Tally
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.data import DataBlock, RegressionBlock
from common.errors import ConfigError, CookbookError, DataError
from common.sources.splits import (
    PARTS,
    ColSplitter,
    FuncSplitter,
    GrandparentSplitter,
    GroupSplitter,
    HoldOutFolder,
    IndexSplitter,
    KFoldSplitter,
    NoSplitter,
    RandomSplitter,
    Split,
    StratifiedGroupSplitter,
    StratifiedSplitter,
    TimeSplitter,
    apply_splitter,
)

COUNT = 200
FRAME = pd.DataFrame(
    {
        "group": [f"g{i % 23}" for i in range(COUNT)],
        "label": ["rare" if i % 10 == 0 else "often" if i % 2 else "some" for i in range(COUNT)],
        "when": [float((i * 37) % COUNT) for i in range(COUNT)],
        "is_valid": [i % 4 == 0 for i in range(COUNT)],
    }
)
LABELS = FRAME["label"].tolist()


def group(row):
    return row["group"]


SEEDED = {
    "random": lambda seed: RandomSplitter(0.2, seed),
    "stratified": lambda seed: StratifiedSplitter(0.2, seed),
    "group": lambda seed: GroupSplitter(group, 0.2, seed),
    "stratified group": lambda seed: StratifiedGroupSplitter(group, 0.2, seed),
    "k-fold": lambda seed: KFoldSplitter(1, 5, seed=seed),
    "k-fold by group": lambda seed: KFoldSplitter(1, 5, group, seed=seed),
}
EVERY = {
    **{name: make(3) for name, make in SEEDED.items()},
    "time": TimeSplitter(lambda row: row["when"]),
    "column": ColSplitter(),
    "index": IndexSplitter(range(0, COUNT, 3)),
    "function": FuncSplitter(lambda row: row["group"] == "g1"),
    "none": NoSplitter(),
}


def parts(split):
    return [split[part].tolist() for part in PARTS]


@pytest.mark.parametrize("name", EVERY)
def test_every_item_is_in_exactly_one_part(name):
    split = apply_splitter(EVERY[name], FRAME, LABELS)
    assert sorted(i for part in parts(split) for i in part) == list(range(COUNT))
    assert all(split[part].dtype == np.int64 for part in PARTS)


@pytest.mark.parametrize("name", EVERY)
def test_the_same_splitter_gives_the_same_split(name):
    assert parts(EVERY[name](FRAME, LABELS)) == parts(EVERY[name](FRAME, LABELS))


@pytest.mark.parametrize("name", SEEDED)
def test_another_seed_gives_another_split(name):
    assert parts(SEEDED[name](0)(FRAME, LABELS)) != parts(SEEDED[name](1)(FRAME, LABELS))


def test_splits_are_the_same_in_another_process():
    code = "from common.data import *; print(RandomSplitter(seed=42)(range(50)).valid.tolist())"
    env = {"PYTHONHASHSEED": "77", "PATH": "/usr/bin:/bin"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout
    assert out.strip() == str(RandomSplitter(seed=42)(range(50)).valid.tolist())


@pytest.mark.parametrize(
    ("count", "share", "valid"), [(10, 0.2, 2), (11, 0.25, 3), (3, 0.01, 1), (3, 0.99, 2), (2, 0.5, 1)]
)
def test_random_share_is_rounded_and_never_empty(count, share, valid):
    split = RandomSplitter(share)(range(count))
    assert (len(split.train), len(split.valid), len(split.test)) == (count - valid, valid, 0)


def test_no_seed_is_seed_zero():
    assert parts(RandomSplitter()(range(30))) == parts(RandomSplitter(seed=0)(range(30)))


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_a_share_out_of_range_is_named(share):
    for splitter in (RandomSplitter(share), GroupSplitter(group, share), TimeSplitter(lambda r: r["when"], share)):
        with pytest.raises(ConfigError, match=r"valid_pct must lie in \(0, 1\)"):
            splitter(FRAME, LABELS)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_items_cannot_be_split(count):
    with pytest.raises(DataError, match=f"at least 2 items, got {count}"):
        RandomSplitter()(["x"] * count)


@pytest.mark.parametrize(
    "splitter", [StratifiedSplitter(0.2), StratifiedGroupSplitter(group, 0.2), KFoldSplitter(0, 5)]
)
def test_stratified_parts_keep_the_proportions(splitter):
    split = splitter(FRAME, LABELS)
    slack = 5 if isinstance(splitter, StratifiedGroupSplitter) else 1
    for name, total in Tally(LABELS).items():
        found = sum(LABELS[i] == name for i in split.valid)
        assert abs(found - total * 0.2) <= slack


def test_stratified_splitters_need_labels():
    for splitter in (StratifiedSplitter(), StratifiedGroupSplitter(group)):
        with pytest.raises(ConfigError, match=rf"{type(splitter).__name__} needs the labels"):
            splitter(FRAME)


def test_a_class_with_one_item_cannot_be_stratified():
    with pytest.raises(DataError, match=r"cannot stratify 5 items with valid_pct=0\.4"):
        StratifiedSplitter(0.4)(range(5), list("aabbc"))


@pytest.mark.parametrize("given", [group, FRAME["group"].tolist()], ids=["getter", "list"])
@pytest.mark.parametrize("kind", [GroupSplitter, StratifiedGroupSplitter])
def test_no_group_is_on_both_sides(kind, given):
    for seed in range(5):
        split = kind(given, 0.3, seed)(FRAME, LABELS)
        train, valid = (set(FRAME["group"].iloc[split[part]]) for part in ("train", "valid"))
        assert train
        assert valid
        assert not train & valid


def test_group_share_counts_groups():
    split = GroupSplitter(group, 0.5)(FRAME)
    assert FRAME["group"].iloc[split.valid].nunique() == round(23 * 0.5)


def test_groups_of_a_wrong_length_are_refused():
    with pytest.raises(ConfigError, match=r"group must have one entry an item \(200\), got 3"):
        GroupSplitter([1, 2, 3])(FRAME)


def test_one_group_cannot_be_split():
    with pytest.raises(DataError, match="at least 2 groups, got 1"):
        GroupSplitter(["a"] * 4)(range(4))


def test_every_training_item_is_earlier_than_every_validation_item():
    split = TimeSplitter(lambda row: row["when"], 0.25)(FRAME)
    assert len(split.valid) == 50
    assert FRAME["when"].iloc[split.train].max() < FRAME["when"].iloc[split.valid].min()


def test_the_time_gap_is_kept_free():
    split = TimeSplitter(lambda row: row["when"], 0.25, gap=10)(FRAME)
    times = FRAME["when"]
    assert times.iloc[split.valid].min() - times.iloc[split.train].max() == 10
    assert len(split.train) + len(split.valid) == COUNT - 9


def test_the_gap_of_dates_is_in_seconds():
    days = [f"2024-01-{day:02d}" for day in range(1, 11)]
    split = TimeSplitter(lambda day: day, 0.2, gap=2 * 86400)(days)
    assert [days[i] for i in split.valid] == ["2024-01-09", "2024-01-10"]
    assert days[split.train[-1]] == "2024-01-07"


def test_items_of_one_time_are_on_one_side():
    split = TimeSplitter(lambda t: t, 0.3)([1, 1, 2, 3, 3, 3, 3, 3, 0, 0])
    assert split.valid.tolist() == [3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("times", "options", "message"),
    [
        ([1.0, float("nan"), 2.0], {}, "b: the time is missing"),
        (["2024-01-01", None, "2024-01-03"], {}, "b: the time is missing"),
        (["2024-01-01", "yesterday-ish", "2024-01-03"], {}, "a time cannot be read"),
        ([1.0, 2.0, 3.0], {"gap": 100}, "gap=100 leaves no training item"),
        ([1.0, 1.0, 1.0], {}, "leaves no training item"),
        ([1.0, 2.0, 3.0], {"gap": -1}, r"gap must lie in \[0, inf\], got -1"),
    ],
)
def test_times_that_cannot_be_split_are_explained(times, options, message):
    table = dict(zip("abc", times, strict=True))
    with pytest.raises(CookbookError, match=message):
        TimeSplitter(table.__getitem__, **options)(list("abc"))


@pytest.mark.parametrize("options", [{}, {"group": group}])
@pytest.mark.parametrize("labels", [None, LABELS])
def test_the_folds_cover_each_item_exactly_once(options, labels):
    folds = [KFoldSplitter(fold, 5, **options)(FRAME, labels) for fold in range(5)]
    assert sorted(np.concatenate([f.valid for f in folds]).tolist()) == list(range(COUNT))
    for fold in folds:
        assert sorted([*fold.train, *fold.valid]) == list(range(COUNT))
        if options:
            assert not set(FRAME["group"].iloc[fold.train]) & set(FRAME["group"].iloc[fold.valid])


@pytest.mark.parametrize(
    ("fold", "folds", "name"), [(5, 5, "fold"), (-1, 5, "fold"), (0, 1, "folds"), (0, 201, "folds")]
)
def test_a_fold_out_of_range_is_named(fold, folds, name):
    with pytest.raises(ConfigError, match=f"^{name} must lie in"):
        KFoldSplitter(fold, folds)(FRAME)


def test_the_folders_name_the_parts():
    items = [
        Path(p) for p in ("d/train/a/1.png", "d/valid/a/2.png", "d/test/b/3.png", "d/train/b/4.png", "d/other/b/5.png")
    ]
    assert parts(GrandparentSplitter()(items)) == [[0, 3], [1], [2]]
    assert parts(GrandparentSplitter("train", "other")(items)) == [[0, 3], [4], [2]]
    with pytest.raises(DataError, match=r"no item lies in a folder 'val' two levels up; the folders there: .*valid"):
        GrandparentSplitter("train", "val")(items)


def test_a_held_out_folder_is_the_test_part_and_the_rest_is_divided():
    items = [f"d/{'test' if i % 5 == 0 else 'all'}/x/{i}.png" for i in range(50)]
    split = HoldOutFolder(RandomSplitter(0.25))(items)
    assert split.test.tolist() == list(range(0, 50, 5))
    assert len(split.valid) == 10
    assert sorted(i for part in parts(split) for i in part) == list(range(50))


def test_a_held_out_folder_passes_the_right_labels_on():
    items = [f"d/{'test' if i < 10 else 'all'}/{i}.png" for i in range(50)]
    labels = ["t"] * 10 + list("abcd") * 10
    split = HoldOutFolder(StratifiedSplitter(0.2))(items, labels)
    assert Tally(labels[i] for i in split.valid) == {"a": 2, "b": 2, "c": 2, "d": 2}
    assert split.test.tolist() == list(range(10))


@pytest.mark.parametrize("splitter", [HoldOutFolder(RandomSplitter()), GrandparentSplitter()])
def test_splitters_by_folder_refuse_a_table(splitter):
    with pytest.raises(CookbookError):
        splitter(FRAME)


@pytest.mark.parametrize("items", [FRAME, [Path("a.png")], range(1)])
def test_without_a_split_every_item_trains(items):
    split = apply_splitter(NoSplitter(), items, None)
    assert parts(split) == [list(range(len(items))), [], []]
    assert all(split[part].dtype == np.int64 for part in PARTS)


def test_without_a_split_there_must_be_an_item_still():
    with pytest.raises(DataError, match="left the train part empty"):
        apply_splitter(NoSplitter(), [], None)


def test_any_other_splitter_may_not_leave_the_validation_empty():
    with pytest.raises(DataError, match="left the valid part empty"):
        apply_splitter(IndexSplitter([]), range(4), None)


def test_loaders_without_a_split_have_no_validation_part():
    block = DataBlock((RegressionBlock, RegressionBlock), get_x=float, get_y=float, splitter=NoSplitter())
    dls = block.dataloaders(list(range(6)), bs=2, num_workers=0)
    assert dls.train.n == 6
    assert not dls.has("valid")
    with pytest.raises(ConfigError, match="have no valid part"):
        _ = dls.valid


def test_index_out_of_range_is_named():
    assert parts(IndexSplitter([3, 1])(range(4))) == [[0, 2], [1, 3], []]
    for wrong in (4, -1):
        with pytest.raises(ConfigError, match=rf"valid_idx must lie in \[0, 4\), got {wrong}"):
            IndexSplitter([0, wrong])(range(4))


def test_a_function_says_what_validates():
    assert parts(FuncSplitter(lambda p: p.suffix == ".png")([Path("a.png"), Path("b.jpg")])) == [[1], [0], []]


def test_split_names_its_parts():
    with pytest.raises(ConfigError, match="no part 'validation'"):
        Split(*(np.arange(1) for _ in PARTS))["validation"]
