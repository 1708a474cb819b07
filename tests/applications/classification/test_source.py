"""Sources in the forms people have, and a sentence for every fault of one."""

import gzip
import importlib.util
import struct

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from applications.classification import (
    CategoryBlock,
    DataBlock,
    ImageBlock,
    ImageDataLoaders,
    Resize,
    read_source,
    vision_learner,
)
from applications.classification.data import baseline, read_idx
from common.errors import ConfigError, DataError
from common.sources.items import read_field
from common.sources.splits import Split


def labels_of(source):
    return [str(v) for v in read_field(source.get_y, source.items, "get_y")]


def images_of(source):
    return list(read_field(source.get_x, source.items, "get_x"))


# ---------------------------------------------------------------- class folders


def test_class_folders_without_parts(class_folders):
    root = class_folders()
    source = read_source(root)
    assert len(source.items) == 18
    assert source.parts is None
    assert set(labels_of(source)) == {"blue", "green", "red"}
    assert all(item.parent.name == label for item, label in zip(source.items, labels_of(source), strict=True))
    assert source.part(None).tolist() == list(range(18))
    with pytest.raises(DataError, match="split 'test' is not there: the data is not divided"):
        source.part("test")


@pytest.mark.parametrize(
    "parts",
    [
        ("train", "valid", "test"),
        ("training", "val", "testing"),
        ("Train", "dev", "Test"),
        ("train", "test"),
        ("train",),
    ],
)
def test_class_folders_with_parts(class_folders, parts):
    source = read_source(str(class_folders(parts, each=4)))
    found = dict(zip(*np.unique(source.parts, return_counts=True), strict=True))
    assert sum(found.values()) == 12 * len(parts)
    assert set(found) == {"train", "valid", "test"}.intersection(
        {
            "train" if p.lower().startswith("train") else "test" if p.lower().startswith("test") else "valid"
            for p in parts
        }
    )
    assert set(labels_of(source)) == {"blue", "green", "red"}
    split = source.splitter(0.25, 0)(source.items, labels_of(source))
    assert len(split.train) + len(split.valid) + len(split.test) == len(source.items)
    assert set(source.parts[split.test].tolist()) <= {"test"}
    if "valid" not in found:  # train is divided, evenly over the classes
        assert len(split.valid) == 3
        assert set(source.parts[split.valid].tolist()) == {"train"}


def test_photos_deeper_than_the_class_folder_belong_to_it(class_folders, draw):
    root = class_folders()
    (root / "red" / "more" / "deep").mkdir(parents=True)
    draw(["red"]).save(root / "red" / "more" / "deep" / "x.png")
    assert labels_of(read_source(root)).count("red") == 7


# -------------------------------------------------------------------- tables


def frame_of(root, draw, split=None):
    rows = []
    (root / "images").mkdir()
    for i in range(8):
        label = ("blue", "red")[i % 2]
        draw([label], i).save(root / "images" / f"{i}.png")
        rows.append({"image": f"images/{i}.png", "label": label})
    frame = pd.DataFrame(rows)
    return frame if split is None else frame.assign(split=split)


WRITERS = {
    "csv": lambda f, p: f.to_csv(p, index=False),
    "tsv": lambda f, p: f.to_csv(p, index=False, sep="\t"),
    "jsonl": lambda f, p: f.to_json(p, orient="records", lines=True),
    "csv.gz": lambda f, p: f.to_csv(p, index=False),
    "tsv.gz": lambda f, p: f.to_csv(p, index=False, sep="\t"),
    "jsonl.gz": lambda f, p: f.to_json(p, orient="records", lines=True),
}


@pytest.mark.parametrize("ending", WRITERS)
def test_a_table_gives_images_and_labels(tmp_path, draw, ending):
    WRITERS[ending](frame_of(tmp_path, draw), tmp_path / f"t.{ending}")
    source = read_source(tmp_path / f"t.{ending}")
    assert labels_of(source) == ["blue", "red"] * 4
    assert [str(p) for p in images_of(source)] == [str(tmp_path / "images" / f"{i}.png") for i in range(8)]
    assert source.parts is None


def test_a_parquet_table_is_read_or_refused_with_a_sentence(tmp_path, draw):
    file = tmp_path / "t.parquet"
    if importlib.util.find_spec("pyarrow") or importlib.util.find_spec("fastparquet"):
        frame_of(tmp_path, draw).to_parquet(file)
        assert labels_of(read_source(file)) == ["blue", "red"] * 4
    else:
        file.write_bytes(b"PAR1")
        with pytest.raises(DataError, match=r"t\.parquet: cannot be read as a table: .*pyarrow"):
            read_source(file)


def test_a_table_may_divide_itself_and_name_its_columns(tmp_path, draw):
    words = ["train", "valid", "test", "training", "val", "dev", "train", "test"]
    frame = frame_of(tmp_path, draw, words).rename(columns={"image": "file", "label": "species", "split": "part"})
    frame.to_csv(tmp_path / "t.csv", index=False)
    source = read_source(tmp_path / "t.csv", image_column="file", label_column="species", split_column="part")
    assert source.parts.tolist() == ["train", "valid", "test", "train", "valid", "valid", "train", "test"]
    assert source.part("test").tolist() == source.part(None).tolist() == [2, 7]


def test_a_table_may_give_several_labels(tmp_path, draw):
    frame = frame_of(tmp_path, draw).assign(label=["a b", "b", "", "c a", "a", "b", "c", "a b c"])
    frame.to_csv(tmp_path / "t.csv", index=False)
    source = read_source(tmp_path / "t.csv", label_delim=" ")
    found = read_field(source.get_y, source.items, "get_y")
    assert found[:4] == [["a", "b"], ["b"], [], ["c", "a"]]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"image_column": "picture"}, r"t\.csv has no column 'picture' \(image_column\)"),
        ({"label_column": "labels"}, r"t\.csv has no column 'labels' \(label_column\): did you mean 'label'\?"),
    ],
)
def test_a_table_without_the_named_column_names_the_near_one(tmp_path, draw, columns, says):
    frame_of(tmp_path, draw).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=says):
        read_source(tmp_path / "t.csv", **columns)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("t.csv", b"", r"t\.csv: cannot be read as a table"),
        ("t.csv", b"image,label\n", r"t\.csv has no rows"),
        ("t.csv", b'image,label\n"a,b\nc', r"t\.csv: cannot be read as a table"),
        ("t.csv", b"\xff\xfe\x00\x01image", r"t\.csv: cannot be read as a table"),
        (
            "t.csv",
            b"image,label,split\na.png,x,train\nb.png,y,later\n",
            r"'split' must say train, valid or test, got 'later'",
        ),
        ("t.csv.gz", b"not gzip", r"t\.csv\.gz: cannot be read as a table"),
        ("t.csv.gz", gzip.compress(b"image,label\na.png,x\n" * 99)[:-20], r"t\.csv\.gz: cannot be read as a table"),
        ("t.jsonl", b"{'a': 1}", r"t\.jsonl: cannot be read as a table"),
        ("t.jsonl", b"", r"t\.jsonl"),
        ("t.parquet", b"PAR1 no", r"t\.parquet: cannot be read as a table"),
        ("t.xlsx", b"PK", r"t\.xlsx is not a table this reads \(\.csv"),
        ("photo.jpg", b"\xff\xd8", r"photo\.jpg is not a table this reads"),
    ],
    ids=[
        "empty", "no rows", "open quote", "no text", "odd split", "no gzip", "cut gzip", "odd json",
        "empty json", "odd parquet", "spreadsheet", "photo",
    ],
)  # fmt: skip
def test_a_table_that_is_not_one_is_named(tmp_path, name, data, says):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=says) as caught:
        read_source(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1


# ------------------------------------------------------------------------ idx


def idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(root, name, count, seed=0, zipped=False):
    numbers = np.random.default_rng(seed)
    images = numbers.integers(0, 256, (count, 6, 5), dtype=np.uint8)
    labels = (np.arange(count) % 3).astype(np.uint8)
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        data = idx(array)
        path = root / f"{name}-{kind}-ubyte{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(data) if zipped else data)
    return images, labels


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_are_train_and_test(tmp_path, zipped):
    images, labels = write_idx(tmp_path, "train", 12, 0, zipped)
    held, held_labels = write_idx(tmp_path, "t10k", 6, 1, zipped)
    source = read_source(tmp_path)
    assert source.grey
    assert source.parts.tolist() == ["train"] * 12 + ["test"] * 6
    assert np.array_equal(np.stack(images_of(source)), np.concatenate([images, held]))
    assert labels_of(source) == [str(v) for v in [*labels, *held_labels]]


def damaged(root, kind, edit, zipped=False):
    path = root / f"train-{kind}-ubyte{'.gz' if zipped else ''}"
    path.write_bytes(edit(path.read_bytes()))
    return path


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda d: d[:-1], r"holds 359 values, its header says \(12, 6, 5\)"),
        (lambda d: d + b"\0", r"holds 361 values"),
        (lambda d: b"", r"is not an idx file"),
        (lambda d: d[:3], r"is not an idx file"),
        (lambda d: d[:7], r"images-idx3-ubyte"),
        (lambda d: d[:4], r"images-idx3-ubyte"),
        (lambda d: b"GIF8" + d[4:], r"is not an idx file of bytes"),
        (lambda d: d[:4] + struct.pack(">3I", 2**31, 2**31, 4), r"images-idx3-ubyte"),
        (lambda d: d[:3] + b"\xff" + d[4:], r"images-idx3-ubyte"),
    ],
    ids=["short", "long", "empty", "three bytes", "cut header", "no header", "another file", "huge", "too many axes"],
)
def test_an_idx_file_that_is_damaged_is_named(tmp_path, edit, says):
    write_idx(tmp_path, "train", 12)
    path = damaged(tmp_path, "images-idx3", edit)
    with pytest.raises(DataError, match=says) as caught:
        read_source(tmp_path)
    assert path.name in str(caught.value)


def flipped(data):
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 0xFF
    return bytes(changed)


@pytest.mark.parametrize(
    "edit",
    [lambda d: d[:-12], lambda d: d[:30], lambda d: b"no gzip at all", flipped, lambda d: d[:10] + b"\xff" * 50],
    ids=["cut", "short", "no gzip", "flipped", "no deflate"],
)
def test_a_gzipped_idx_file_that_is_damaged_is_named(tmp_path, edit):
    write_idx(tmp_path, "train", 12, zipped=True)
    damaged(tmp_path, "images-idx3", edit, zipped=True)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz"):
        read_source(tmp_path)


def test_missing_labels_are_named(tmp_path):
    write_idx(tmp_path, "train", 12)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte is missing beside train-images-idx3-ubyte"):
        read_source(tmp_path)


def test_a_different_number_of_labels_is_named(tmp_path):
    write_idx(tmp_path, "train", 12)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(11, np.uint8)))
    with pytest.raises(DataError, match=r"has 12 images, train-labels-idx1-ubyte 11 labels"):
        read_source(tmp_path)


def test_test_files_alone_are_to_be_measured_not_to_learn_from(tmp_path):
    write_idx(tmp_path, "t10k", 6)
    source = read_source(tmp_path)
    assert set(source.parts) == {"test"}
    with pytest.raises(DataError, match=r"no part train to learn from: found test \(6 items\)"):
        source.splitter(0.2, 0)


def test_an_idx_array_is_read_back(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "a").write_bytes(idx(array))
    assert np.array_equal(read_idx(tmp_path / "a"), array)


# --------------------------------------------------------------------- digits


def test_the_embedded_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    source, digits = read_source(None), load_digits()
    assert labels_of(source) == [str(v) for v in digits.target]
    assert np.array_equal(images_of(source)[17], np.round(digits.images[17] * 255 / 16))
    assert (source.grey, source.mirrored) == (True, False)
    test = np.flatnonzero(source.parts == "test")
    assert len(test) == pytest.approx(len(digits.target) / 5, abs=2)
    counts = np.bincount(digits.target[test])
    assert counts.min() >= 34
    assert np.array_equal(test, np.flatnonzero(read_source(None).parts == "test"))


def test_simple_rules_are_measured_by_hand():
    source = read_source(None)
    rows = np.flatnonzero(source.parts == "train")
    split = Split(rows, rows[:0], np.flatnonzero(source.parts == "test"))
    found = baseline(images_of(source), labels_of(source), split, "test")
    labels = np.array(labels_of(source))
    names, counts = np.unique(labels[split.train], return_counts=True)
    assert found["most_frequent_class"] == (labels[split.test] == names[counts.argmax()]).mean()
    assert found["nearest_thumbnails"] > 0.9


# ------------------------------------------------------------------- faults


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        read_source(tmp_path / "nowhere")


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path.name} holds no images"):
        read_source(tmp_path)


def test_a_folder_of_other_files_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds no images \(looked for"):
        read_source(tmp_path)


@pytest.mark.parametrize("form", ["folders", "table"])
def test_one_class_is_nothing_to_learn_from(class_folders, form, tmp_path):
    source = read_source(root := class_folders(classes=("red",)))
    if form == "table":
        names = [file.relative_to(root).as_posix() for file in source.items]
        pd.DataFrame({"image": names, "label": "red"}).to_csv(root / "t.csv", index=False)
        source = read_source(root / "t.csv")
    block = DataBlock((ImageBlock, CategoryBlock), get_x=source.get_x, get_y=source.get_y)
    dls = block.dataloaders(source.items, bs=2)
    with pytest.raises(ConfigError, match=r"there is only one class \(red\): a classifier needs at least two"):
        vision_learner(dls, "small_resnet")
    assert "only one class: red" in str(block.check(source.items))


@pytest.mark.parametrize("parts", [("",), ("train", "test")])
def test_an_image_in_no_class_folder_is_named(class_folders, draw, parts):
    root = class_folders(parts)
    draw(["red"]).save(root / parts[0] / "loose.png")
    with pytest.raises(DataError, match=r"loose\.png lies in no class folder"):
        read_source(root)


def test_an_image_outside_the_parts_is_named(class_folders, draw):
    root = class_folders(("train", "test"))
    (root / "more" / "red").mkdir(parents=True)
    draw(["red"]).save(root / "more" / "red" / "x.png")
    with pytest.raises(DataError, match=r"x\.png lies in none of the folders train, valid, test"):
        read_source(root)


def test_a_test_folder_alone_is_to_be_measured_not_to_learn_from(class_folders):
    source = read_source(class_folders(("test",)))
    assert set(source.parts) == {"test"}
    with pytest.raises(DataError, match="no part train to learn from: found test"):
        source.splitter(0.2, 0)


def test_what_is_passed_over_is_counted(class_folders):
    root = class_folders()
    (root / "red" / "notes.txt").write_text("hello")
    (root / "red" / "a.heic").write_bytes(b"")
    (root / "red" / ".hidden").mkdir()
    (root / "blue" / "b.heic").write_bytes(b"")
    assert read_source(root).notes == (
        "passed over: 2 .heic files (such as b.heic), 1 .txt files (such as notes.txt), "
        "1 hidden folders (such as .hidden)",
    )


def test_a_class_of_the_test_folder_that_is_not_trained_is_named(class_folders, draw):
    from applications.classification import CategoryBlock, DataBlock, ImageBlock

    root = class_folders(("train", "test"))
    (root / "test" / "violet").mkdir()
    draw(["red"]).save(root / "test" / "violet" / "x.png")
    source = read_source(root)
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock), get_x=source.get_x, get_y=source.get_y, splitter=source.splitter(0.2, 0),
        item_tfms=Resize(16),
    )  # fmt: skip
    with pytest.raises(DataError, match="'violet' is not among the 3 training classes"):
        block.dataloaders(source.items, bs=4)


# ------------------------------------------------------- the book's short ways


def test_short_ways_of_the_book_give_the_same_loaders(class_folders):
    root = class_folders()
    files = sorted(root.rglob("*.jpg"))
    options = {"valid_pct": 0.25, "seed": 3, "item_tfms": Resize(16), "bs": 4}
    frame = pd.DataFrame({"name": [str(f.relative_to(root)) for f in files], "label": [f.parent.name for f in files]})
    frame.to_csv(root / "labels.csv", index=False)
    made = [
        ImageDataLoaders.from_folder(root, **options),
        ImageDataLoaders.from_path_func(root, files, lambda f: f.parent.name, **options),
        ImageDataLoaders.from_name_func(root, files, lambda name: name.split("_")[0], **options),
        ImageDataLoaders.from_name_re(root, files, r"^(.*)_\d+.jpg", **options),
        ImageDataLoaders.from_df(frame, root, **options),
        ImageDataLoaders.from_csv(root, **options),
    ]
    first = made[0]
    for dls in made:
        assert dls.vocab == ["blue", "green", "red"]
        assert dls.train.rows.tolist() == first.train.rows.tolist()
        for ours, theirs in zip(dls.valid, first.valid, strict=True):
            assert (ours.x == theirs.x).all()
            assert (ours.y == theirs.y).all()


def test_a_csv_that_is_not_there_is_named(tmp_path):
    with pytest.raises((ConfigError, DataError), match=r"labels\.csv does not exist"):
        ImageDataLoaders.from_csv(tmp_path)


def test_a_column_of_the_frame_says_what_validates(tmp_path, draw):
    frame = frame_of(tmp_path, draw).assign(is_valid=[False] * 6 + [True] * 2)
    dls = ImageDataLoaders.from_df(frame, tmp_path, valid_col="is_valid", item_tfms=Resize(16), bs=2)
    assert dls.valid.rows.tolist() == [6, 7]


def test_pictures_of_any_kind_lie_in_class_folders(tmp_path):
    for i, (name, mode) in enumerate([("a", "L"), ("a", "RGBA"), ("b", "P"), ("b", "CMYK")]):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.new(mode, (20, 24)).save(tmp_path / name / f"{i}.{'jpg' if mode == 'CMYK' else 'png'}")
    dls = ImageDataLoaders.from_folder(tmp_path, valid_pct=0.5, seed=0, item_tfms=Resize(16), bs=2)
    assert dls.one_batch().x.shape == (2, 3, 16, 16)
