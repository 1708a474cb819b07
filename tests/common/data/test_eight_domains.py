"""A toy of each of the eight domains through the whole way: check, fit, evaluate, bundle, predict, with a known answer."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from common.augment import SpecAugment, SpectrogramImage, Stage
from common.blocks.block import Target
from common.blocks.values import Padded, Ragged
from common.counter import uniform
from common.data import (
    BBoxBlock,
    ByLength,
    CategoryBlock,
    ColReader,
    ColumnsBlock,
    DataBlock,
    ImageBlock,
    IndexSplitter,
    MaskBlock,
    RandomSplitter,
    RegressionBlock,
    SignalBlock,
    TextBlock,
    TokenBudget,
)
from common.deploy import Predictor
from common.errors import ConfigError, DataError
from common.registry import register
from common.task.task import Task
from common.train import ClassificationTask, RegressionTask, Trainer, TrainerOptions

QUIET = TrainerOptions(device="cpu", progress=False, weight_decay=0.0)


class Toy(nn.Module):
    """Base of the toys: their spec is the numbers they were made with."""

    def __init__(self, **sizes):
        super().__init__()
        self.sizes = sizes
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.build(**sizes)

    def spec(self):
        return {"kind": self.registered_name, **self.sizes}

    @classmethod
    def from_spec(cls, fields):
        return cls(**fields)


def whole_way(block, source, model, task, folder, inputs, *, epochs, lr, **options):
    """check → fit → evaluate → bundle → predict; returns the metrics and the bundle's records of some inputs."""
    report = block.check(source)
    assert report.ok, report
    dls = block.dataloaders(source, **options)
    trainer = Trainer(model(dls), dls, task(dls), QUIET)
    trainer.fit_one_cycle(epochs, lr)
    outputs = trainer.get_preds("valid")
    metrics = trainer.task.report(outputs)
    assert outputs.ids.tolist() == dls.valid.rows.tolist()
    predictor = Predictor(trainer.export(folder / "bundle", metrics))
    assert predictor.bundle.metrics == pytest.approx(metrics)
    records = predictor.predict_many(inputs)
    assert records == trainer.predictor().predict_many(inputs)
    assert predictor(inputs[0]).keys() == records[0].keys()
    return metrics, records


@register("model", "toy_conv")
class Conv(Toy):
    def build(self, channels, classes):
        self.conv, self.head = nn.Conv2d(channels, 8, 3, padding=1), nn.Linear(8, classes)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean(dim=(2, 3)))


def labels_task(dls):
    return ClassificationTask(tuple(dls.vocab))


def test_classification(photo_folder, tmp_path, picture):
    root = photo_folder({"dark": 12, "light": 12}, size=(12, 16))
    for i, file in enumerate(sorted(root.rglob("*.png"))):
        shade = 60 if file.parent.name == "dark" else 190
        Image.fromarray((np.random.default_rng(i).random((12, 16, 3)) * 20 + shade).astype(np.uint8)).save(file)
    files = sorted(root.rglob("*.png"))
    block = DataBlock((ImageBlock, CategoryBlock), get_y=lambda path: path.parent.name, splitter=RandomSplitter(0.25))
    metrics, records = whole_way(
        block,
        files,
        lambda dls: Conv(channels=3, classes=2),
        labels_task,
        tmp_path,
        files[:3],
        epochs=20,
        lr=3e-2,
        bs=6,
    )
    assert metrics["accuracy"] == 1
    assert [record["label"] for record in records] == [file.parent.name for file in files[:3]]


@register("task", "toy_boxes")
@dataclass(frozen=True)
class BoxTask(Task):
    """One box an image, predicted as its corners; the targets are padded, and as many as each image has."""

    def losses(self, output, batch):
        return (output - batch.y.values["boxes"][:, 0]).abs().mean(dim=1)

    def decode(self, output):
        return [{"box": row} for row in output.tolist()]

    def report(self, outputs):
        return {"mae": float((outputs.output - outputs.target.values["boxes"][:, 0]).abs().mean())}


@register("model", "toy_edges")
class Edges(Toy):
    """The box of what is light, by a soft sum along rows and columns."""

    def build(self, side):
        self.head = nn.Linear(2 * side, 4)

    def forward(self, x):
        return self.head(torch.cat([x.mean(dim=(1, 2)), x.mean(dim=(1, 3))], dim=1))


def test_detection(tmp_path):
    rng, items = np.random.default_rng(0), []
    for _ in range(80):
        x0, y0 = rng.integers(0, 8, 2)
        x1, y1 = np.array([x0, y0]) + rng.integers(4, 8, 2)
        pixels = np.zeros((16, 16), np.uint8)
        pixels[y0:y1, x0:x1] = 255 - len(items)  # no two alike
        count = 1 + len(items) % 2  # every second image has the box twice: the batches' padding differs
        items.append((pixels, [[x0, y0, x1, y1]] * count, ["thing"] * count))
    block = DataBlock(
        (ImageBlock("L"), BBoxBlock),
        get_x=lambda item: item[0],
        get_y=lambda item: item[1:],
        splitter=IndexSplitter([0, 2, 4, 1, 3]),
    )
    metrics, records = whole_way(
        block, items, lambda dls: Edges(side=16), lambda dls: BoxTask(), tmp_path, [items[0][0]], epochs=150, lr=3e-2,
        bs=15, val_bs=3,
    )  # fmt: skip
    assert metrics["mae"] < 1.5
    assert records[0]["box"] == pytest.approx(items[0][1][0], abs=3)


@register("task", "toy_pixels")
@dataclass(frozen=True)
class PixelTask(Task):
    def losses(self, output, batch):
        return F.cross_entropy(output, batch.y.long(), reduction="none").mean(dim=(1, 2))

    def condense(self, output, batch):
        return list(output.argmax(dim=1).to(torch.uint8))

    def decode(self, output):
        return [{"light": float((ids == 1).float().mean())} for ids in output]

    def report(self, outputs):
        right = [(ids == truth).float().mean() for ids, truth in zip(outputs.output, outputs.target, strict=True)]
        return {"pixel_accuracy": float(torch.stack(right).mean())}


@register("model", "toy_pixelwise")
class Pixelwise(Toy):
    def build(self, classes):
        self.conv = nn.Conv2d(3, classes, 1)

    def forward(self, x):
        return self.conv(x)


def test_segmentation(tmp_path, picture):
    items = [picture(10, 14, seed) for seed in range(20)]
    block = DataBlock(
        (ImageBlock, MaskBlock(("dark", "light"))),
        get_x=lambda item: item,
        get_y=lambda item: (item[..., 0] > 127).astype(np.uint8),
        splitter=IndexSplitter(range(4)),
    )
    metrics, records = whole_way(
        block, items, lambda dls: Pixelwise(classes=2), lambda dls: PixelTask(), tmp_path, items[:2], epochs=30, lr=0.3,
        bs=4,
    )  # fmt: skip
    assert metrics["pixel_accuracy"] > 0.95
    assert records[0]["light"] == pytest.approx((items[0][..., 0] > 127).mean(), abs=0.1)


@register("batch_transform", "toy_power")
@dataclass(frozen=True)
class Power(Stage):
    """A sound (B, T) as log power of windows (B, frames, bands): a toy of the audio domain's first stage."""

    window: int = 64
    takes: ClassVar[Target] = Target.SIGNAL
    gives: ClassVar[Target] = Target.SPECTROGRAM

    def apply(self, value):
        frames = value.values.unfold(1, self.window, self.window)
        valid = value.valid[:, self.window - 1 :: self.window]
        return Padded(torch.log1p(torch.fft.rfft(frames).abs().square()), valid), None


@register("model", "toy_bands")
class Bands(Toy):
    def build(self, bands, classes):
        self.head = nn.Linear(bands, classes)

    def forward(self, x):
        return self.head(x.mean(dim=(1, 3)))


def sounds(wav_file):
    time = np.arange(8000) / 8000
    return [
        wav_file(f"{name}_{i}.wav", 9000 * np.sin(2 * np.pi * hz * time[: 640 + 64 * i] + i))
        for name, hz in (("low", 500), ("high", 2000))
        for i in range(8)
    ]


def test_audio(wav_file, tmp_path):
    files = sounds(wav_file)
    block = DataBlock(
        (SignalBlock(8000), CategoryBlock),
        get_y=lambda path: path.stem.split("_")[0],
        splitter=IndexSplitter([0, 9]),
        batch_tfms=[Power(), SpecAugment(time_mask=0.2), SpectrogramImage(std=2.0)],
    )
    batch = block.dataloaders(files, bs=4, batching=ByLength()).train.one_batch()
    assert batch.x.shape[:3] == (4, 1, 33)
    assert batch.extents[:, 0].tolist() == [33] * 4
    assert batch.extents[:, 1].max() == batch.x.shape[3]
    metrics, records = whole_way(
        block, files, lambda dls: Bands(bands=33, classes=2), labels_task, tmp_path, files[:2], epochs=30, lr=0.1, bs=4,
        batching=ByLength(),
    )  # fmt: skip
    assert metrics["accuracy"] == 1
    assert records[0]["label"] == "low"


def test_a_stage_without_its_input_or_behind_its_place_is_an_error(wav_file):
    files = sounds(wav_file)
    block = DataBlock((SignalBlock(8000), CategoryBlock), get_y=lambda path: path.stem[:3])
    with pytest.raises(ConfigError, match="SpectrogramImage takes a spectrogram, and no field is one at its place"):
        block.new(batch_tfms=[SpectrogramImage(), Power()]).dataloaders(files)
    with pytest.raises(ConfigError, match="time_mask does not support image"):
        block.new(batch_tfms=[Power(), SpectrogramImage(), SpecAugment()]).dataloaders(files)


@register("model", "toy_words")
class Words(Toy):
    def build(self, words, classes):
        self.table, self.head = nn.Embedding(words, 8), nn.Linear(8, classes)

    def forward(self, x):
        inside = self.table(x.values) * x.valid[..., None]
        return self.head(inside.sum(dim=1) / x.lengths.clamp(min=1)[:, None])


def test_nlp(tmp_path):
    rng = np.random.default_rng(0)
    words = {"good": ["fine", "great", "lovely"], "bad": ["poor", "dull", "awful"]}
    rows = []
    for i in range(120):
        label = ["good", "bad"][i % 2]
        rows.append(
            (" ".join(rng.choice([*words[label], "film", "the"], rng.integers(3, 20))) + " " + words[label][0], label)
        )
    frame = pd.DataFrame(rows, columns=["text", "label"])
    block = DataBlock((TextBlock, CategoryBlock), get_x=ColReader("text"), get_y=ColReader("label"))
    metrics, records = whole_way(
        block, frame, lambda dls: Words(words=len(dls.blocks[0].vocab), classes=2), labels_task, tmp_path,
        [{"text": "a great film"}, {"text": "the dull film"}], epochs=10, lr=0.1, bs=16, batching=TokenBudget(tokens=200),
    )  # fmt: skip
    assert metrics["accuracy"] == 1
    assert [record["label"] for record in records] == ["good", "bad"]


@register("block", "toy_captions")
@dataclass(frozen=True)
class CaptionsBlock(TextBlock):
    """Several captions of one image, each of its own length; a batch has one each, counted from (seed, epoch, id)."""

    def setup(self, raws):
        return super().setup([caption for raw in raws for caption in raw])

    def encode(self, raw, view=None):
        return Ragged.of([super(CaptionsBlock, self).encode(caption) for caption in raw])

    def collate(self, value, ids, epoch_seed):
        which = (uniform(epoch_seed.seed, epoch_seed.epoch, ids, 7, 1)[:, 0] * value.lengths).long()
        return value.values.rows(value.offsets[:-1] + which)


@register("task", "toy_captioning")
@dataclass(frozen=True)
class CaptionTask(Task):
    """Learns with the text so far in sight, predicts without it; its loss counts tokens, not captions."""

    vocab: tuple[str, ...]

    def forward(self, model, batch):
        return model(batch.x, batch.y.values.long())

    def losses(self, output, batch):
        each = F.cross_entropy(output.transpose(1, 2), batch.y.values.long(), reduction="none") * batch.y.valid
        return each.sum(dim=1) / batch.y.lengths

    def weights(self, batch):
        return batch.y.lengths

    def metrics(self):
        return ()

    def predict(self, model, batch):
        return model.generate(batch.x, 3)

    def decode(self, output):
        return [{"caption": " ".join(self.vocab[i] for i in row)} for row in output.tolist()]

    def report(self, outputs):
        return {"loss": outputs.mean_loss()}


@register("model", "toy_captioner")
class Captioner(Toy):
    """The next word from the one before it and the image's mean: (B, T) words to (B, T, words)."""

    def build(self, words):
        self.table, self.head = nn.Embedding(words, 16), nn.Linear(16 + 3, words)

    def step(self, image, before):
        seen = image.mean(dim=(2, 3))[:, None].expand(-1, before.shape[1], -1)
        return self.head(torch.cat([self.table(before), seen], dim=2))

    def forward(self, image, text):
        return self.step(image, F.pad(text[:, :-1], (1, 0)))

    def generate(self, image, length):
        text = torch.zeros(len(image), 1, dtype=torch.int64)
        for _ in range(length):
            text = torch.cat([text, self.step(image, text[:, -1:]).argmax(dim=2)], dim=1)
        return text[:, 1:]


def test_captioning(tmp_path):
    shades = {"dark": 30, "light": 220}
    items = []
    for i in range(40):
        name = ["dark", "light"][i % 2]
        texts = [f"a {name} photo", f"a {name} photo", f"a {name} photo indeed"][: 2 + i % 2]
        items.append((np.full((6, 6, 3), shades[name] + i // 2, np.uint8), texts))
    block = DataBlock(
        (ImageBlock, CaptionsBlock(min_count=1)),
        get_x=lambda item: item[0],
        get_y=lambda item: item[1],
        splitter=IndexSplitter([38, 39]),
    )
    flat = block.dataloaders(items, bs=8).train.arrays().y
    assert flat[1][2].tolist() == [2, 6, 7, 5][:3] or len(flat[1]) == 3  # three captions of the second image
    metrics, records = whole_way(
        block, items, lambda dls: Captioner(words=len(dls.vocab)), lambda dls: CaptionTask(tuple(dls.vocab)), tmp_path,
        [items[0][0], items[1][0]], epochs=40, lr=3e-2, bs=10,
    )  # fmt: skip
    assert [record["caption"] for record in records] == ["a dark photo", "a light photo"]
    assert metrics["loss"] < 0.5


@register("model", "toy_additive")
class Additive(Toy):
    def build(self, numbers, levels):
        self.numbers, self.levels = nn.Linear(numbers, 1), nn.Embedding(levels, 1)

    def forward(self, x):
        return self.numbers(x["numbers"])[:, 0] + self.levels(x["categories"][:, 0])[:, 0]


def test_tabular(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"rooms": rng.integers(1, 9, 200), "age": rng.normal(0, 2, 200), "town": rng.choice(list("AB"), 200)}
    )
    frame = frame.assign(price=2.0 * frame["rooms"] - frame["age"] + 3.0 * (frame["town"] == "A"))
    columns = ColumnsBlock(numbers=("rooms", "age"), categories=("town",))
    block = DataBlock((columns, RegressionBlock), get_y=ColReader("price"), splitter=RandomSplitter(0.25))
    metrics, records = whole_way(
        block, frame, lambda dls: Additive(numbers=2, levels=dls.blocks[0].sizes[0]), lambda dls: RegressionTask(),
        tmp_path, [{"rooms": 4, "age": 1.0, "town": "A"}, {"rooms": 1, "age": 0.0, "town": None}], epochs=60, lr=0.5,
        bs=50,
    )  # fmt: skip
    assert metrics["rmse"] < 0.1
    assert records[0]["value"] == pytest.approx(10, abs=0.3)


@register("task", "toy_ratings")
@dataclass(frozen=True)
class RatingTask(RegressionTask):
    """Ratings, judged user by user: the report asks for the inputs."""

    keeps_inputs: ClassVar[bool] = True

    def report(self, outputs):
        users = outputs.inputs[0]
        errors = (outputs.output - outputs.target).square()
        each = [float(errors[users == user].mean() ** 0.5) for user in users.unique()]
        return {"rmse_by_user": float(np.mean(each)), "users": float(len(each))}


@register("model", "toy_biases")
class Biases(Toy):
    def build(self, users, items):
        self.users, self.items = nn.Embedding(users, 1), nn.Embedding(items, 1)

    def forward(self, x):
        return (self.users(x[0]) + self.items(x[1]))[:, 0]


def test_collaborative_filtering(tmp_path, ratings):
    block = DataBlock(
        (CategoryBlock(unseen=True), CategoryBlock(unseen=True), RegressionBlock),
        get_x=[ColReader("user"), ColReader("item")],
        get_y=ColReader("rating"),
        n_inp=2,
        splitter=RandomSplitter(0.2, seed=1),
    )
    frame = ratings.drop_duplicates(["user", "item"]).reset_index(drop=True)
    user, item = str(frame["user"][0]), str(frame["item"][0])
    inputs = [{"user": user, "item": item}, {"item": item, "user": "nobody"}, (user, item)]
    metrics, records = whole_way(
        block, frame, lambda dls: Biases(users=dls.blocks[0].size, items=dls.blocks[1].size), lambda dls: RatingTask(),
        tmp_path, inputs, epochs=100, lr=0.2, bs=29,
    )  # fmt: skip
    assert metrics["rmse_by_user"] < 0.1
    assert records[0] == records[2]
    assert records[0]["value"] == pytest.approx(frame["rating"][0], abs=0.2)
    assert records[1] != records[0]  # a user that training did not see has a place of its own
    predictor = Predictor(tmp_path / "bundle")
    assert predictor.encoder.names == ("user", "item", "rating")
    with pytest.raises(DataError, match="input 0 has no 'item'"):
        predictor({"user": user, "items": item})
    with pytest.raises(DataError, match="must be a mapping with user, item"):
        predictor([1, 2, 3])
