"""Dirty items: each that cannot be used is named with its stage and reason, the rest goes on, in every epoch alike."""

import builtins
import json
import os
import subprocess
import sys
import tarfile
import zlib
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from common import Augment
from common.data import (
    CategoryBlock,
    ColReader,
    DataBlock,
    ImageBlock,
    IndexSplitter,
    RandomResizedCrop,
    RandomSplitter,
    RegexLabeller,
    RegressionBlock,
    Resize,
    get_image_files,
    parent_label,
    using_attr,
)
from common.errors import ConfigError, DataError, ItemError
from common.store.dirty import DirtyPolicy

GOOD = ("good0", "good1", "good2", "good3", "wide", "palette", "deep", "cmyk", "turned", "moving")
BAD = {
    "truncated.jpg": "truncated",
    "text.jpg": "not an image",
    "empty.jpg": "the file is empty",
    "locked.jpg": "Permission denied",
    "bomb.png": "decompression bomb",
}


def bomb():
    """A PNG of a few bytes that promises 30,000 x 30,000 pixels."""
    header = b"IHDR" + (30_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [header, data, b"IEND"]
    parts = [(len(c) - 4).to_bytes(4, "big") + c + zlib.crc32(c).to_bytes(4, "big") for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.fixture
def dirty(tmp_path, picture):
    """A folder with what people's folders hold."""
    root = tmp_path / "photos"
    for name in ("cat", "dog", "nothing"):
        (root / name).mkdir(parents=True)
    for i in range(4):
        Image.fromarray(picture(60, 80, i)).save(root / ("cat" if i % 2 else "dog") / f"good{i}.jpg")
    whole = (root / "dog" / "good0.jpg").read_bytes()
    (root / "cat" / "truncated.jpg").write_bytes(whole[: len(whole) * 9 // 10])
    (root / "cat" / "text.jpg").write_text("this is no picture\n" * 40)
    (root / "dog" / "empty.jpg").write_bytes(b"")
    (root / "dog" / "locked.jpg").write_bytes(whole)
    (root / "dog" / "locked.jpg").chmod(0)
    (root / "cat" / "bomb.png").write_bytes(bomb())
    Image.fromarray((np.arange(60 * 80).reshape(60, 80) * 13).astype(np.uint16)).save(root / "cat" / "deep.png")
    palette = Image.fromarray(picture(60, 80, 9)).quantize(16)
    palette.info["transparency"] = 3
    palette.save(root / "dog" / "palette.png", transparency=3)
    Image.fromarray(picture(60, 80, 5)).convert("CMYK").save(root / "cat" / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(60, 80, 6)).save(root / "dog" / "turned.jpg", exif=exif)
    frames = [Image.fromarray(picture(60, 80, seed)) for seed in (7, 8)]
    frames[0].save(root / "cat" / "moving.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(picture(30, 200, 4)).save(root / "dog" / "wide.jpg")
    return root


@pytest.fixture
def denied(monkeypatch):
    """Reading ``locked.jpg`` is refused (permissions do not bind root, under whom tests may run)."""
    real = builtins.open

    def read(path, *arguments, **options):
        if Path(str(path)).name == "locked.jpg":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(builtins, "open", read)


@pytest.fixture(params=["dense", "ragged"])
def block(request):
    return DataBlock(
        (ImageBlock, CategoryBlock),
        get_image_files,
        get_y=parent_label,
        splitter=RandomSplitter(0.2, seed=1),
        item_tfms=Resize(72) if request.param == "dense" else RandomResizedCrop(72, min_scale=0.5),
        batch_tfms=Augment(flip=True),
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_check_names_each_file_that_cannot_be_used_and_why(block, dirty, denied, workers):
    found = {Path(f.item).name: f.reason for f in block.check(dirty).failures}
    assert set(found) == set(BAD)
    for name, reason in BAD.items():
        assert reason in found[name]


def test_training_stops_with_the_name_under_raise(block, dirty, denied):
    dls = block.dataloaders(dirty, bs=4)
    with pytest.raises(ItemError, match="|".join(BAD)):
        seen(dls, 0)


def seen(dls, number):
    loaders = [dls.train.with_options(drop_last=False), dls.valid]
    batches = [batch for loader in loaders for batch in loader.batches(number)]
    names = [Path(dls.train.store.items[int(i)]).stem for batch in batches for i in batch.ids]
    assert all(len(b.x) == len(b.y) == len(b.ids) == len(b.sizes) for b in batches)
    assert all(torch.isfinite(b.x).all() for b in batches)
    return sorted(names)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_training_goes_on_under_skip_alike_in_every_epoch(block, dirty, denied, tmp_path, workers, cache):
    options = {"memory": {}, "disk": {"cache_dir": tmp_path / "cache"}, "none": {"cache_bytes": 0}}[cache]
    dls = block.dataloaders(dirty, bs=4, num_workers=workers, on_error="skip", **options)
    assert [seen(dls, number) for number in range(3)] == [sorted(GOOD)] * 3
    failures = dls.train.store.dirty.failures
    assert {Path(f.item).name: f.stage for f in failures} == {
        "truncated.jpg": "encode of ImageBlock",
        "text.jpg": "open of ImageBlock",
        "empty.jpg": "open of ImageBlock",
        "locked.jpg": "open of ImageBlock",
        "bomb.png": "open of ImageBlock",
    }


def test_items_left_out_do_not_change_the_others(block, dirty, denied):
    """A sample is the same whatever else is in the folder's batch: augmentation goes by its own id."""
    dls = block.dataloaders(dirty, bs=4, num_workers=2, on_error="skip")
    one = block.dataloaders(dirty, bs=1, num_workers=0, on_error="skip")
    for number in range(2):
        together = {int(i): x for b in dls.train.batches(number) for i, x in zip(b.ids, b.x, strict=True)}
        alone = {int(b.ids[0]): b.x[0] for b in one.train.batches(number)}
        for i, x in together.items():
            assert torch.equal(x, alone[i])


def test_a_batch_of_bad_items_alone_leaves_its_number_out(block, dirty, denied):
    dls = block.dataloaders(dirty, bs=1, num_workers=0, on_error="skip")
    first, again = ([b.number for b in dls.train.batches(0)] for _ in range(2))
    assert first == again
    assert len(first) < len(dls.train) == first[-1] + 1 or first[-1] < len(dls.train) - 1
    later = [b.number for b in dls.train.batches(0, 3)]
    assert later == [number for number in first if number >= 3]


def test_quarantine_is_not_tried_again_until_the_file_has_changed(dirty, denied, tmp_path, monkeypatch):
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_image_files,
        get_y=parent_label,
        splitter=IndexSplitter([0]),
        item_tfms=Resize(8),
    )
    options = {"on_error": "quarantine", "quarantine": tmp_path / "q" / "bad.jsonl", "num_workers": 0, "bs": 4}
    dls = block.dataloaders(dirty, **options)
    assert seen(dls, 0) == sorted(GOOD)
    lines = [json.loads(line) for line in (tmp_path / "q" / "bad.jsonl").read_text().splitlines()]
    assert {Path(line["item"]).name for line in lines} == set(BAD)
    assert all(line["stage"] and line["reason"] for line in lines)

    tried = []
    real = ImageBlock.open
    monkeypatch.setattr(ImageBlock, "open", lambda self, raw: (tried.append(Path(raw).name), real(self, raw))[1])
    dls = block.dataloaders(dirty, **options)
    assert seen(dls, 0) == sorted(GOOD)
    assert not set(tried) & set(BAD)
    assert len(dls.train.store.dirty.failures) == len(BAD)
    assert len((tmp_path / "q" / "bad.jsonl").read_text().splitlines()) == len(BAD)

    (dirty / "cat" / "text.jpg").write_bytes((dirty / "cat" / "good1.jpg").read_bytes())
    dls = block.dataloaders(dirty, **options)
    assert seen(dls, 0) == sorted([*GOOD, "text"])


def test_quarantine_knows_the_rows_of_a_table_by_the_files_they_name(dirty, tmp_path):
    frame = pd.DataFrame({"image": [str(f) for f in get_image_files(dirty)]})
    frame["label"] = [Path(f).parent.name for f in frame["image"]]
    frame.loc[len(frame)] = [str(dirty / "cat" / "good1.jpg"), None]
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_x=ColReader("image"),
        get_y=ColReader("label"),
        splitter=RandomSplitter(0.3),
        item_tfms=Resize(8),
    )
    options = {"on_error": "quarantine", "quarantine": tmp_path / "bad.jsonl", "num_workers": 0, "bs": 4}

    def left_out():
        dls = block.dataloaders(frame, **options)
        for loader in dls:
            list(loader.with_options(drop_last=False).batches(0))
        return sorted(failure.item for failure in dls.train.store.dirty.failures)

    first = left_out()
    lines = (tmp_path / "bad.jsonl").read_text().splitlines()
    assert len(first) == len(lines)
    assert any("text.jpg" in item for item in first)
    assert first[-1].startswith("row")
    assert left_out() == first
    assert (tmp_path / "bad.jsonl").read_text().splitlines() == lines
    (dirty / "cat" / "text.jpg").write_bytes((dirty / "cat" / "good1.jpg").read_bytes())
    assert left_out() == [item for item in first if "text.jpg" not in item]


def test_a_damaged_quarantine_is_named_with_its_line(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"item": "a", "stage": "s", "reason": "r", "state": ""}\nrubbish\n')
    with pytest.raises(ConfigError, match=r"q\.jsonl, line 2"):
        DirtyPolicy(on_error="quarantine", quarantine=tmp_path / "q.jsonl").remembered()


def test_a_wrong_policy_answers_with_the_near_one():
    with pytest.raises(ConfigError, match="skip"):
        DirtyPolicy(on_error="skipp")


def test_a_label_that_cannot_be_read_is_left_out_with_its_stage(photo_folder):
    root = photo_folder({"cat": 6, "dog": 6}, size=(10, 10))
    (root / "cat" / "cat_0.png").rename(root / "cat" / "zero.png")
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_image_files,
        get_y=using_attr(RegexLabeller(r"(.+)_\d+.png$"), "name"),
        splitter=IndexSplitter([0, 1]),
    )
    with pytest.raises(DataError, match="zero.png"):
        block.dataloaders(root)
    dls = block.dataloaders(root, on_error="skip", num_workers=0)
    assert dls.train.n + dls.valid.n == 11
    (failure,) = dls.train.store.dirty.failures
    assert (Path(failure.item).name, failure.stage) == ("zero.png", "get_y")
    (found,) = block.check(root).failures
    assert found == failure


def test_a_missing_label_or_number_is_left_out():
    frame = pd.DataFrame({"x": [*range(9), float("nan")], "y": [*"ab" * 4, None, "a"]})
    block = DataBlock((RegressionBlock, CategoryBlock), get_x=ColReader("x"), get_y=ColReader("y"))
    with pytest.raises(DataError):
        block.dataloaders(frame)
    dls = block.dataloaders(frame, on_error="skip", bs=2)
    ids = sorted(int(i) for loader in dls for b in loader.with_options(drop_last=False).batches(0) for i in b.ids)
    assert len(ids) == 8
    assert [f.item for f in dls.train.store.dirty.failures] == ["row 8", "row 9"]


def test_a_folder_without_one_usable_item_says_so(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    for i in range(4):
        (folder / f"{i}.jpg").write_text("no picture")
    block = DataBlock((ImageBlock, CategoryBlock), get_image_files, get_y=parent_label, item_tfms=Resize(8))
    dls = block.dataloaders(folder, on_error="skip", bs=2)
    assert list(dls.train.batches(0)) == []
    with pytest.raises(DataError, match="no items"):
        dls.train.one_batch()


SCRIPT = """
import json, sys, warnings
from pathlib import Path
from common.data import *
warnings.simplefilter("ignore")
files = sorted(path for path in Path(sys.argv[1]).rglob("*") if path.is_file())
block = DataBlock((ImageBlock, CategoryBlock), get_y=lambda path: "x", splitter=IndexSplitter([0]), item_tfms=Resize(32))
bad = sorted(failure.item for failure in block.check(files).failures)
dls = block.dataloaders(files, bs=64, on_error="skip")
good = [sum(len(b) for loader in dls for b in loader.with_options(drop_last=False).batches(e)) for e in range(2)]
left_out = sorted(failure.item for failure in dls.train.store.dirty.failures)
print(json.dumps({"files": len(files), "bad": bad, "left_out": left_out, "good": good}))
"""


@pytest.mark.slow
def test_pillows_own_broken_images_neither_crash_nor_hang(tmp_path):
    """The test images of Pillow's source distribution, which are fetched from the package index."""
    fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
    got = subprocess.run(
        [*fetch, f"pillow=={version('pillow')}", "-d", str(tmp_path)], capture_output=True, timeout=600
    )
    archives = list(tmp_path.glob("pillow-*.tar.gz"))
    if got.returncode or not archives:
        pytest.skip("Pillow's source distribution cannot be fetched here")
    with tarfile.open(archives[0]) as archive:
        members = [m for m in archive if "/Tests/images/" in m.name and m.isfile()]
        archive.extractall(tmp_path, members, filter="data")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        cwd=Path(__file__).resolve().parents[3],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["files"] > 500
    assert found["bad"] == found["left_out"]
    assert len(found["bad"]) > 100
    assert found["good"] == [found["files"] - len(found["bad"])] * 2


def test_a_process_whose_share_is_all_left_out_says_so_instead_of_waiting(tmp_path, picture):
    for i in range(8):
        if i % 2:
            Image.fromarray(picture(8, 8, i)).save(tmp_path / f"{i}.png")
        else:
            (tmp_path / f"{i}.png").write_text("no picture")
    block = DataBlock((ImageBlock, CategoryBlock), get_image_files, get_y=lambda path: "x", splitter=IndexSplitter([7]))
    dls = block.dataloaders(tmp_path, bs=2, on_error="skip", num_workers=0)
    share = dls.train.with_options(shuffle=False, world=2, rank=0)
    with pytest.raises(DataError, match=r"process 0 of 2 has of batch 0 was left out"):
        list(share.batches(0))
    assert len(list(share.with_options(rank=1).batches(0))) == 3
