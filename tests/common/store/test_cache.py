"""Kept items on disk: shared, verified, rebuilt where they are stale or torn; and memory that is used again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common import Augment
from common.data import (
    CategoryBlock,
    DataBlock,
    ImageBlock,
    IndexSplitter,
    RandomResizedCrop,
    Resize,
    SignalBlock,
    get_image_files,
    parent_label,
)
from common.errors import ConfigError
from common.store.buffers import BufferPool
from common.store.cache import SLAB_BYTES, FileArena, MemoryArena, RaggedColumn
from common.store.cache_index import checksum, content_token

ROOT = Path(__file__).resolve().parents[3]
TFMS = {"dense": Resize(16), "ragged": RandomResizedCrop(16, min_scale=0.3)}


@pytest.fixture
def decoded(monkeypatch):
    """The paths that are decoded, one entry each time."""
    seen = []
    real = ImageBlock.encode

    def encode(self, raw, view=None):
        seen.append(view)
        return real(self, raw, view)

    monkeypatch.setattr(ImageBlock, "encode", encode)
    return seen


@pytest.fixture(params=list(TFMS))
def block(request):
    return DataBlock(
        (ImageBlock, CategoryBlock),
        get_image_files,
        get_y=parent_label,
        splitter=IndexSplitter([0, 7]),
        item_tfms=TFMS[request.param],
        batch_tfms=Augment(flip=True),
    )


@pytest.fixture
def photos(photo_folder):
    return photo_folder({"cat": 6, "dog": 5}, size=(40, 50))


def epoch(block, photos, cache_dir, number=0, **options):
    dls = block.dataloaders(photos, bs=4, num_workers=0, cache_dir=cache_dir, **options)
    train = dls.train.with_options(drop_last=False, shuffle=False)
    return [batch for loader in (train, dls.valid) for batch in loader.batches(number)]


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a.x, b.x) and torch.equal(a.y, b.y) and torch.equal(a.sizes, b.sizes)
        for a, b in zip(first, second, strict=True)
    )


def test_a_later_run_decodes_one_item_to_see_its_size(block, photos, tmp_path, decoded):
    first = epoch(block, photos, tmp_path / "cache")
    assert len(decoded) == 11
    decoded.clear()
    assert same(epoch(block, photos, tmp_path / "cache"), first)
    assert len(decoded) == 1
    assert same(epoch(block, photos, None), first)


def test_a_changed_photo_alone_is_decoded_again(block, photos, tmp_path, decoded):
    epoch(block, photos, tmp_path / "cache")
    changed = get_image_files(photos)[4]
    before = changed.stat()
    pixels = np.full((40, 50, 3), 7, np.uint8)
    Image.fromarray(pixels).save(changed)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))  # its time alone does not tell
    decoded.clear()
    again = epoch(block, photos, tmp_path / "cache")
    assert len(decoded) == 2
    assert same(again, epoch(block, photos, None))


@pytest.mark.parametrize("hurt", ["zeros", "flip", "index", "cut"])
def test_torn_bytes_are_noticed_and_made_again(block, photos, tmp_path, hurt):
    first = epoch(block, photos, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    (data,) = (f for f in folder.iterdir() if f.suffix in (".dense", ".bytes"))
    if hurt == "zeros":
        data.write_bytes(bytes(data.stat().st_size))
    elif hurt == "flip":
        content = bytearray(data.read_bytes())
        content[300] ^= 16
        data.write_bytes(content)
    elif hurt == "index":
        (folder / "index").write_bytes(b"\xff" * (folder / "index").stat().st_size)
    else:
        data.write_bytes(data.read_bytes()[:500])
    assert same(epoch(block, photos, tmp_path / "cache"), first)
    assert same(epoch(block, photos, tmp_path / "cache"), first)


def test_other_transforms_have_a_cache_of_their_own(block, photos, tmp_path):
    epoch(block, photos, tmp_path / "cache")
    epoch(block.new(item_tfms=Resize(20)), photos, tmp_path / "cache")
    epoch(block.new(batch_tfms=None), photos, tmp_path / "cache")  # what is random is not kept
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_other_library_versions_have_a_cache_of_their_own(block, photos, tmp_path, monkeypatch):
    epoch(block, photos, tmp_path / "cache")
    monkeypatch.setattr("common.store.cache_index.version", lambda name: "0")
    epoch(block, photos, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_folder_that_cannot_be_made_is_named(block, photos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cache_dir="):
        epoch(block, photos, tmp_path / "file")


def test_a_cache_of_another_kind_is_refused(block, photos, tmp_path):
    epoch(block, photos, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    (folder / "cache.json").write_text(json.dumps({"schema": 0}))
    with pytest.raises(ConfigError, match="delete the folder"):
        epoch(block, photos, tmp_path / "cache")


SHARING = """
import sys
import torch
torch.set_num_threads(1)
from common.data import *
block = DataBlock((ImageBlock, CategoryBlock), get_image_files, get_y=parent_label, splitter=IndexSplitter([0]),
                  item_tfms=RandomResizedCrop(16, min_scale=0.3))
dls = block.dataloaders(sys.argv[1], bs=8, num_workers=2, cache_dir=sys.argv[2])
for epoch in range(3):
    total = sum(float(b.x.double().sum()) for b in dls.train.with_options(drop_last=False).batches(epoch))
    print(repr(total))
"""


@pytest.mark.slow
def test_two_processes_fill_one_cache_at_once(photo_folder, tmp_path):
    photos = photo_folder({"cat": 60, "dog": 60}, size=(60, 70))
    code = [sys.executable, "-c", SHARING, str(photos)]
    both = [
        subprocess.Popen([*code, str(tmp_path / "cache")], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    found = [process.communicate(timeout=120)[0] for process in both]
    alone = subprocess.run([*code, str(tmp_path / "own")], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    again = subprocess.run(
        [*code, str(tmp_path / "cache")], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert found == [alone, alone]
    assert again == alone


def test_sounds_of_any_length_are_kept_on_disk(tmp_path):
    rng = np.random.default_rng(0)
    sounds = [rng.normal(size=n).astype(np.float32) for n in (5, 900, 0, 31)]
    block = DataBlock(SignalBlock, splitter=IndexSplitter([0]), n_inp=1)
    for _ in range(2):
        dls = block.dataloaders(sounds, bs=4, num_workers=0, cache_dir=tmp_path)
        (batch,) = dls.train.with_options(drop_last=False, shuffle=False).batches()
        for i, sound in enumerate(sounds[1:]):
            assert batch.x.values[i][batch.x.valid[i]].tolist() == sound.tolist()


def test_what_does_not_fit_in_memory_is_encoded_each_time_and_the_rest_is_kept(block, photos, decoded):
    reference = epoch(block, photos, None)
    decoded.clear()
    height, width = block.item_tfms[0].view(40, 50).size
    item = height * width * 3
    dls = block.dataloaders(photos, bs=4, num_workers=0, cache_bytes=4 * item + 10)
    loaders = [dls.train.with_options(drop_last=False, shuffle=False), dls.valid]
    counts = []
    for _ in range(3):
        batches = [batch for loader in loaders for batch in loader.batches(0)]
        assert same(batches, reference)
        counts.append(len(decoded))
        decoded.clear()
    assert counts[0] == 11
    assert counts[1:] == [7, 7]


def test_a_content_token_depends_on_bytes_and_not_on_names(tmp_path):
    for name, data in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).write_bytes(data)
    a, b, c = (content_token([tmp_path / name]) for name in "abc")
    assert a == b != c
    assert content_token([b"one"]) == a
    assert content_token([np.zeros(3, np.uint8)]) != content_token([np.zeros((3, 1), np.uint8)])


@pytest.mark.parametrize("value", [torch.arange(13, dtype=torch.uint8), torch.rand(3, 5), torch.zeros(0, 4)])
def test_a_checksum_notices_a_changed_value_and_another_shape(value):
    assert checksum(value) == checksum(value.clone())
    assert checksum(value[None]) != checksum(value)
    if value.numel():
        other = value.clone()
        other.view(-1)[-1] += 1
        assert checksum(other) != checksum(value)


@pytest.mark.parametrize("arena", ["memory", "file"])
def test_an_arena_hands_out_bytes_that_do_not_overlap(arena, tmp_path):
    made = MemoryArena() if arena == "memory" else FileArena(tmp_path / "bytes")
    sizes = [1, 100, SLAB_BYTES - 64, 3, SLAB_BYTES + 5, 64]
    places = [made.take(size) for size in sizes]
    for i, (place, size) in enumerate(zip(places, sizes, strict=True)):
        made.view(*place, size)[[0, -1]] = i
    for i, (place, size) in enumerate(zip(places, sizes, strict=True)):
        assert made.view(*place, size)[[0, -1]].tolist() == [i, i]


def test_slabs_of_a_store_that_is_gone_serve_the_next_one():
    column = RaggedColumn(1)
    column.put(0, torch.arange(5), str)
    place = column.piece(0).data_ptr()
    del column
    column = RaggedColumn(1)
    column.put(0, torch.arange(5), str)
    assert column.piece(0).data_ptr() == place


def test_a_slab_that_is_still_looked_into_is_not_used_again():
    column = RaggedColumn(1)
    column.put(0, torch.arange(5), str)
    held = column.piece(0)
    del column
    other = RaggedColumn(1)
    other.put(0, torch.arange(5) + 9, str)
    assert held.tolist() == [0, 1, 2, 3, 4]


def test_a_buffer_that_a_graph_holds_is_not_handed_out_again():
    pool = BufferPool()
    x = pool.take((4, 4)).fill_(2)
    weight = torch.ones(4, requires_grad=True)
    loss = (x * weight).sum()
    place = x.data_ptr()
    del x
    assert pool.take((4, 4)).data_ptr() != place
    loss.backward()
    assert weight.grad.tolist() == [8] * 4
    del loss
    assert pool.take((4, 4)).data_ptr() == place


def test_a_pool_keeps_a_bounded_number_of_free_buffers():
    pool = BufferPool(spare=3)
    held = [pool.take((10,)) for _ in range(20)]
    del held
    pool.take((10,))
    assert len(pool.arrays) <= 4


def test_batches_that_are_held_are_not_overwritten(block, photos):
    dls = block.new(item_tfms=RandomResizedCrop(80)).dataloaders(photos, bs=2, num_workers=2)
    for number in range(3):
        held = list(dls.train.batches(number))
        copies = [batch.x.clone() for batch in held]
        list(dls.train.batches(number + 1))
        assert all(torch.equal(a.x, b) for a, b in zip(held, copies, strict=True))
