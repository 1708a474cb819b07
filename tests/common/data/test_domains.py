"""Eight domains, one core: each row of the design's table to its batch (tables are in test_domains_tables.py)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from PIL import Image

from common.augment import Augment
from common.blocks.values import Padded, Ragged, map_tensors
from common.counter import uniform
from common.data import (
    BBoxBlock,
    CategoryBlock,
    ColReader,
    DataBlock,
    ImageBlock,
    IndexSplitter,
    MaskBlock,
    MultiCategoryBlock,
    Resize,
    SignalBlock,
    TextBlock,
    get_image_files,
    parent_label,
)

B = 3
FLIP = Augment(flip=True, rotate=10)


def shape(value):
    if isinstance(value, dict):
        return {k: shape(v) for k, v in value.items()}
    if isinstance(value, Padded):
        return shape(value.values), shape(value.valid)
    return tuple(shape(v) for v in value) if isinstance(value, tuple) else tuple(value.shape)


def batches(dls):
    """A first-pass batch, one after the first pass, and a validation batch."""
    first = dls.train.one_batch()
    list(dls.train)
    list(dls.valid)
    return first, dls.train.one_batch(1), dls.valid.one_batch()


def test_classification_one_label_a_photo(photo_folder):
    root = photo_folder({"cat": 5, "dog": 5})
    dls = DataBlock(
        (ImageBlock, CategoryBlock), get_image_files, get_y=parent_label, item_tfms=Resize((16, 20)), batch_tfms=FLIP
    ).dataloaders(root, bs=B)
    for batch in batches(dls)[:2]:
        assert shape(batch.x) == (B, 3, 16, 20)
        assert (batch.x.dtype, batch.y.dtype, shape(batch.y)) == (torch.float32, torch.int64, (B,))
    arrays = dls.train.arrays()
    assert (arrays.x.dtype, shape(arrays.x)) == (torch.uint8, (8, 16, 20, 3))
    assert [dls.vocab[i] for i in arrays.y] == [parent_label(item) for item in dls.train.items]


def test_classification_several_labels_from_a_table(photo_folder):
    root = photo_folder({"all": 6}, size=(8, 8))
    frame = pd.DataFrame({"file": [f"all_{i}" for i in range(6)], "tags": ["a b", "b", "", "a", "c a", "b c"]})
    dls = DataBlock(
        (ImageBlock("L"), MultiCategoryBlock),
        get_x=ColReader("file", pref=root / "all", suff=".png"),
        get_y=ColReader("tags", label_delim=" "),
        splitter=IndexSplitter([3, 5]),
    ).dataloaders(frame, bs=B)
    for batch in batches(dls)[:2]:
        assert (shape(batch.x), shape(batch.y)) == ((B, 1, 8, 8), (B, 3))
    assert dls.valid.arrays().y.tolist() == [[1, 0, 0], [0, 1, 1]]


def test_detection_ragged_boxes_with_labels(photo_folder):
    files = get_image_files(photo_folder({"scene": 8}, size=(20, 30)))
    items = [(f, [[1, 2, 9, 8], [3, 3, 30, 20]][: i % 3], ["cup", "pen"][: i % 3]) for i, f in enumerate(files)]
    dls = DataBlock(
        (ImageBlock, BBoxBlock),
        get_x=lambda item: item[0],
        get_y=lambda item: item[1:],
        splitter=IndexSplitter([4, 5]),
        item_tfms=Resize((40, 60)),
        batch_tfms=FLIP,
    ).dataloaders(items, bs=B)
    for batch in batches(dls):
        size, longest = len(batch), batch.y.valid.sum(dim=1).max()
        assert shape(batch.x) == (size, 3, 40, 60)
        assert shape(batch.y) == ({"boxes": (size, longest, 4), "labels": (size, longest)}, (size, longest))
        assert batch.y.valid.sum(dim=1).tolist() == [len(items[i][1]) for i in batch.ids]
    assert dls.train.store.fields[1].columns["boxes"].table[:, 2].sum() == 7  # flat, with offsets and lengths
    valid = dls.valid.arrays()
    assert valid.y.values["boxes"].tolist() == [[2, 4, 18, 16], [2, 4, 18, 16], [6, 6, 60, 40]]  # flat, with offsets
    assert valid.y.values["labels"].tolist() == [0, 0, 1]
    assert valid.y.offsets.tolist() == [0, 1, 3]
    padded = valid.y.padded()
    assert padded.values["labels"].tolist() == [[0, 0], [0, 1]]
    assert padded.valid.tolist() == [[True, False], [True, True]]


def test_a_box_that_the_presize_cuts_away_is_not_valid(picture):
    boxes = [[0, 0, 5, 5], [20, 5, 30, 15]]  # of 20 x 60 pixels, the centre 20 x 20 is kept
    block = DataBlock(
        (ImageBlock, BBoxBlock(("a",))),
        get_x=lambda i: picture(20, 60),
        get_y=lambda i: (boxes, ["a", "a"]),
        item_tfms=Resize(20),
    )
    batch = block.dataloaders(range(5), bs=4, num_workers=0).train.one_batch()
    kept = batch.y.values["boxes"][batch.y.valid]
    assert kept.tolist() == [[0, 5, 10, 15]] * 4


def test_segmentation_masks_follow_their_photos(tmp_path, picture):
    for i in range(6):
        pixels = picture(20, 30, i)
        Image.fromarray(pixels).save(tmp_path / f"{i}.jpg")
        Image.fromarray((pixels[..., 0] > 127).astype(np.uint8)).save(tmp_path / f"{i}_mask.png")
    dls = DataBlock(
        (ImageBlock, MaskBlock(("dark", "light"))),
        get_y=lambda path: path.with_name(f"{path.stem}_mask.png"),
        item_tfms=Resize(16),
        batch_tfms=FLIP,
    ).dataloaders([tmp_path / f"{i}.jpg" for i in range(6)], bs=B)
    for batch in batches(dls):
        assert (shape(batch.x), shape(batch.y)) == ((len(batch), 3, 16, 16), (len(batch), 16, 16))
        light = dls.blocks[0].decode(batch.x[0])[..., 0] > 127
        assert (light == (batch.y[0].numpy() == 1)).mean() > 0.9
    assert shape(dls.train.arrays().y) == (5, 16, 16)


@dataclass(frozen=True)
class SpectrumBlock(SignalBlock):
    """A sound as log power over frequency and time, kept (T, F), in a batch (B, 1, F, T): a toy of the audio domain."""

    window: int = 64

    def encode(self, raw, view=None):
        frames = super().encode(raw).unfold(0, self.window, self.window)
        return torch.log1p(torch.fft.rfft(frames).abs().square())

    def collate(self, value, ids, epoch_seed):
        frames = value.padded()
        return Padded(frames.values.transpose(1, 2)[:, None], frames.valid)


def test_audio_sounds_of_any_length(wav_file):
    time = np.arange(8000) / 8000
    files = [
        wav_file(f"{name}_{i}.wav", 9000 * np.sin(2 * np.pi * hz * time[: 640 + 64 * i]))
        for name, hz in (("low", 500), ("high", 2000))
        for i in range(4)
    ]
    template = DataBlock((SignalBlock(8000), CategoryBlock), get_y=lambda p: p.stem.split("_")[0])
    for batch in batches(template.dataloaders(files, bs=B)):
        longest = int(batch.x.valid.sum(dim=1).max())
        assert shape(batch.x) == ((len(batch), longest), (len(batch), longest))
    dls = template.new(blocks=(SpectrumBlock(8000), CategoryBlock)).dataloaders(files, bs=B)
    for batch in batches(dls):
        frames = int(batch.x.valid.sum(dim=1).max())
        assert shape(batch.x.values) == (len(batch), 1, 33, frames)
        loudest = batch.x.values[:, 0, :, 0].argmax(dim=1)  # of 33 bins up to 4000 Hz
        assert loudest.tolist() == [{"low": 4, "high": 16}[dls.vocab[i]] for i in batch.y]


def test_nlp_texts_padded_with_a_mask():
    frame = pd.DataFrame(
        {"text": ["good film", "bad bad film", "a good one", "bad", "good good", "so bad"], "label": list("gbgbgb")}
    )
    block = DataBlock(
        (TextBlock(min_count=1), CategoryBlock),
        get_x=ColReader("text"),
        get_y=ColReader("label"),
        splitter=IndexSplitter([4]),
    )
    dls = block.dataloaders(frame, bs=5)
    for batch in batches(dls)[:2]:
        assert shape(batch.x) == ((5, 3), (5, 3))
        for i, row in enumerate(batch.ids.tolist()):
            one = map_tensors(batch.x, lambda tensor, i=i: tensor[i])
            assert dls.blocks[0].decode(one) == frame["text"][row]
    assert dls.blocks[0].vocab == ("<pad>", "<unk>", "a", "bad", "film", "good", "one", "so")
    pairs = block.new(blocks=(TextBlock(min_count=1), TextBlock(min_count=1)), get_y=ColReader("label"))
    assert shape(pairs.dataloaders(frame, bs=5).train.one_batch().y) == ((5, 1), (5, 1))


@dataclass(frozen=True)
class CaptionsBlock(TextBlock):
    """Several captions of one image, each of its own length; a batch has one each, counted from (seed, epoch, id)."""

    eager: ClassVar[bool] = True

    def setup(self, raws):
        return super().setup([caption for raw in raws for caption in raw])

    def encode(self, raw, view=None):
        return Ragged.of([super(CaptionsBlock, self).encode(caption) for caption in raw])

    def collate(self, value, ids, epoch_seed):
        count = value.lengths
        which = (uniform(epoch_seed.seed, epoch_seed.epoch, ids, 7, 1)[:, 0] * count).long()
        return value.values.rows(value.offsets[:-1] + which)


def test_captioning_one_of_several_captions_counted_from_the_epoch(photo_folder, by_id, same):
    files = get_image_files(photo_folder({"scene": 9}, size=(8, 8)))
    captions = [[f"photo {i} {word}" for word in ["one", "two", "three"][: 1 + i % 3]] for i in range(9)]
    block = DataBlock(
        (ImageBlock, CaptionsBlock(min_count=1)),
        get_x=lambda item: item[0],
        get_y=lambda item: item[1],
        splitter=IndexSplitter([8]),
        batch_tfms=FLIP,
    )
    items = list(zip(files, captions, strict=True))
    dls = block.dataloaders(items, bs=4)
    for batch in batches(dls)[:2]:
        assert shape(batch.x) == (4, 3, 8, 8)
        assert shape(batch.y) == ((4, 3), (4, 3))
    whole = block.dataloaders(items, bs=8)
    seen = [set() for _ in items]
    for epoch in range(20):
        found, other = (by_id(loaders.train.batches(epoch)) for loaders in (dls, whole))
        for sample, fields in found.items():
            assert same(fields, other[sample])
            seen[sample].add(dls.blocks[1].decode(fields[1]))
    assert seen[:8] == [set(texts) for texts in captions[:8]]
