"""The book's lines: chapter 2 and fastai's beginner examples, after one import, and what their pictures show."""

import os

import pytest
import torch

from applications.classification import *
from common.deploy import load

BEFORE = {"device": "cpu", "progress": False}


@pytest.fixture(autouse=True)
def quick(untrained, monkeypatch, tmp_path):
    """Runs in a folder of its own, without downloads; Trainers write no progress."""
    from common.train import options

    monkeypatch.chdir(tmp_path)
    real = options.TrainerOptions
    monkeypatch.setattr("applications.classification.learner.TrainerOptions", lambda: real(**BEFORE))


@pytest.fixture()
def pets(tmp_path, draw):
    """Photos named like Oxford's pets, ``great_pyrenees_173.jpg``, upper case for cats."""
    folder = tmp_path / "pets" / "images"
    folder.mkdir(parents=True)
    for i in range(24):
        name, colour = (("Bombay", "red"), ("great_pyrenees", "blue"))[i % 2]
        draw([colour], i).save(folder / f"{name}_{i}.jpg")
    return tmp_path / "pets"


@pytest.fixture()
def pascal(tmp_path, draw):
    """A folder of photos with several labels each in ``train.csv``, as Pascal 2007's."""
    names = ["blue", "green", "red"]
    (tmp_path / "pascal" / "train").mkdir(parents=True)
    rows = []
    for i in range(30):
        labels = [n for k, n in enumerate(names) if (i % 7 + 1) >> k & 1]
        draw(labels, i).save(tmp_path / "pascal" / "train" / f"{i:06}.jpg")
        rows.append((f"{i:06}.jpg", " ".join(labels), i % 5 == 0))
    frame = pd.DataFrame(rows, columns=["fname", "labels", "is_valid"])
    frame.to_csv(tmp_path / "pascal" / "train.csv", index=False)
    return tmp_path / "pascal"


def is_picture(figure):
    assert figure._repr_png_().startswith(b"\x89PNG")
    return True


def test_chapter_two_runs_as_it_is_printed(class_folders):
    path = class_folders(each=8)
    bears = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        splitter=RandomSplitter(valid_pct=0.2, seed=42),
        get_y=parent_label,
        item_tfms=Resize(128),
    )
    dls = bears.dataloaders(path)
    assert is_picture(dls.valid.show_batch(max_n=4, nrows=1))

    bears = bears.new(item_tfms=Resize(128, ResizeMethod.Squish))
    dls = bears.dataloaders(path)
    assert is_picture(dls.valid.show_batch(max_n=4, nrows=1))

    bears = bears.new(item_tfms=Resize(128, ResizeMethod.Pad, pad_mode="zeros"))
    dls = bears.dataloaders(path)
    assert is_picture(dls.valid.show_batch(max_n=4, nrows=1))

    bears = bears.new(item_tfms=RandomResizedCrop(128, min_scale=0.3))
    dls = bears.dataloaders(path)
    assert is_picture(dls.train.show_batch(max_n=4, nrows=1, unique=True))

    bears = bears.new(item_tfms=Resize(128), batch_tfms=aug_transforms(mult=2))
    dls = bears.dataloaders(path)
    assert is_picture(dls.train.show_batch(max_n=8, nrows=2, unique=True))

    bears = bears.new(item_tfms=RandomResizedCrop(32, min_scale=0.5), batch_tfms=aug_transforms())
    dls = bears.dataloaders(path)
    learn = vision_learner(dls, resnet18, metrics=error_rate)
    learn.fine_tune(1)
    interp = ClassificationInterpretation.from_learner(learn)
    assert is_picture(interp.plot_confusion_matrix())
    assert is_picture(interp.plot_top_losses(5, nrows=1))

    learn.export()
    path = Path()
    learn_inf = load_learner(path / "bundle")
    photo = sorted(Path("photos").rglob("*.jpg"))[0]
    record = learn_inf.predict(photo)
    assert record["label"] in learn_inf.vocab == dls.vocab == ["blue", "green", "red"]
    assert record["probabilities"] == pytest.approx(learn.predict(photo)["probabilities"], abs=1e-6)
    assert set(learn.history[0]) >= {"train_loss", "valid_loss", "error_rate"}


def test_the_older_name_of_the_learner_is_the_same():
    assert cnn_learner is vision_learner


def test_pets_by_a_function_of_the_name(pets):
    path = pets
    files = get_image_files(path / "images")

    def label_func(f):
        return f[0].isupper()

    dls = ImageDataLoaders.from_name_func(path, files, label_func, item_tfms=Resize(32))
    assert is_picture(dls.show_batch())
    learn = vision_learner(dls, resnet34, metrics=error_rate)
    learn.fine_tune(1)
    assert learn.predict(files[0])["label"] in ("False", "True")
    assert is_picture(learn.show_results())


def test_pets_by_regular_expression(pets):
    path = pets
    files = get_image_files(path / "images")
    pat = r"^(.*)_\d+.jpg"
    dls = ImageDataLoaders.from_name_re(path, files, pat, item_tfms=Resize(46), batch_tfms=aug_transforms(size=32))
    assert is_picture(dls.show_batch())
    learn = vision_learner(dls, resnet18, metrics=error_rate)
    assert 1e-7 < learn.lr_find(steps=5).valley < 10
    learn.fine_tune(1, 5e-3)
    assert is_picture(learn.show_results())
    interp = Interpretation.from_learner(learn)
    assert is_picture(interp.plot_top_losses(9, figsize=(15, 10)))
    assert dls.vocab == ["Bombay", "great_pyrenees"]


def test_pets_by_datablock(pets):
    pets_block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        splitter=RandomSplitter(),
        get_y=using_attr(RegexLabeller(r"(.+)_\d+.jpg$"), "name"),
        item_tfms=Resize(46),
        batch_tfms=aug_transforms(size=32),
    )
    dls = pets_block.dataloaders(pets / "images")
    assert is_picture(dls.show_batch(max_n=9))
    assert dls.one_batch().x.shape == (dls.train.n, 3, 32, 32)  # fewer than one batch of 64
    assert dls.train.n + dls.valid.n == 24


def test_multi_label_by_csv(pascal):
    path = pascal
    df = pd.read_csv(path / "train.csv")
    dls = ImageDataLoaders.from_df(
        df, path, folder="train", valid_col="is_valid", label_delim=" ",
        item_tfms=Resize(46), batch_tfms=aug_transforms(size=32),
    )  # fmt: skip
    assert is_picture(dls.show_batch())
    learn = vision_learner(dls, resnet18, metrics=[partial(accuracy_multi, thresh=0.5), F1ScoreMulti(thresh=0.5)])
    learn.fine_tune(1, 3e-2)
    assert set(learn.history[-1]) >= {"accuracy_multi", "f1"}
    assert is_picture(learn.show_results())
    interp = Interpretation.from_learner(learn)
    assert is_picture(interp.plot_top_losses(9))
    record = learn.predict(path / "train" / "000000.jpg")
    assert set(record["labels"]) <= {"blue", "green", "red"}


def test_the_metrics_of_the_multi_label_example_have_names_of_their_own(pascal):
    f1_macro = F1ScoreMulti(thresh=0.5, average="macro")
    f1_macro.name = "F1(macro)"
    f1_samples = F1ScoreMulti(thresh=0.5, average="samples")
    f1_samples.name = "F1(samples)"
    df = pd.read_csv(pascal / "train.csv")
    dls = ImageDataLoaders.from_df(
        df, pascal, folder="train", valid_col="is_valid", label_delim=" ", item_tfms=Resize(32)
    )
    learn = vision_learner(dls, "small_resnet", metrics=[partial(accuracy_multi, thresh=0.5), f1_macro, f1_samples])
    learn.fine_tune(1, 3e-2)
    assert set(learn.history[-1]) >= {"accuracy_multi", "F1(macro)", "F1(samples)"}


def test_multi_label_by_datablock(pascal):
    path = pascal
    df = pd.read_csv(path / "train.csv")
    block = DataBlock(
        blocks=(ImageBlock, MultiCategoryBlock),
        splitter=ColSplitter("is_valid"),
        get_x=ColReader("fname", pref=str(path / "train") + os.path.sep),
        get_y=ColReader("labels", label_delim=" "),
        item_tfms=Resize(46),
        batch_tfms=aug_transforms(size=32),
    )
    dls = block.dataloaders(df)
    assert is_picture(dls.show_batch(max_n=9))
    learn = vision_learner(dls, resnet18, metrics=partial(accuracy_multi, thresh=0.5))
    learn.fine_tune(1, 3e-2)
    learn.export("several")
    assert load("several").task.multi_label
    photo = path / "train" / "000003.jpg"
    ours, theirs = learn.predict(photo), Predictor("several")(photo)
    assert theirs["labels"] == ours["labels"]
    assert theirs["probabilities"] == pytest.approx(ours["probabilities"], abs=1e-6)


# ------------------------------------------------------------ what was learned


@pytest.fixture()
def small(class_folders):
    """A small net trained on coloured photos until it knows them."""
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
        splitter=RandomSplitter(0.34, seed=0), item_tfms=Resize(16),
    )  # fmt: skip
    learn = vision_learner(block.dataloaders(class_folders(each=8), bs=4), "small_resnet")
    learn.fit_one_cycle(6, 1e-2)
    return learn


def test_colours_are_learned(small):
    assert small.validate()["accuracy"] == 1.0


def test_the_confusion_matrix_counts_the_predictions(small):
    interp = ClassificationInterpretation(small)
    outputs = small.get_preds()
    expected = torch.zeros(3, 3, dtype=torch.int64)
    for true, chosen in zip(outputs.target, outputs.output.argmax(1), strict=True):
        expected[true, chosen] += 1
    assert torch.equal(interp.confusion_matrix(), expected)
    assert interp.most_confused() == []


def test_top_losses_are_the_largest_with_their_own_ids(small):
    interp = Interpretation(small)
    losses, ids = interp.top_losses(3)
    whole = {int(i): float(v) for i, v in zip(interp.outputs.ids, interp.outputs.losses, strict=True)}
    assert losses.tolist() == sorted(whole.values(), reverse=True)[:3]
    assert [whole[i] for i in ids.tolist()] == losses.tolist()


def test_most_confused_is_sorted_by_count(small):
    interp = ClassificationInterpretation(small)
    target = torch.tensor([0, 0, 0, 1, 1, 2])
    chosen = torch.tensor([1, 1, 0, 2, 1, 0])
    interp.outputs = type(interp.outputs)(torch.eye(3)[chosen], target, None, None)
    assert interp.most_confused() == [("blue", "green", 2), ("green", "red", 1), ("red", "blue", 1)]
    assert interp.most_confused(2) == [("blue", "green", 2)]


def test_class_names_with_dollars_are_drawn_as_they_are(class_folders, draw):
    root = class_folders(classes=("red", "blue"))
    (root / "red").rename(root / "US$ ^_{")
    dls = ImageDataLoaders.from_folder(root, valid_pct=0.4, seed=0, item_tfms=Resize(16), bs=4)
    learn = vision_learner(dls, "small_resnet")
    learn.fit(1)
    assert is_picture(dls.show_batch())
    assert is_picture(learn.show_results())
    assert is_picture(ClassificationInterpretation(learn).plot_confusion_matrix())
    assert is_picture(Interpretation(learn).plot_top_losses(4))


# ------------------------------------------------------------ on shared folders

SHARED = Path(__file__).resolve().parents[3].parent / "shared"
needs_shared = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason=f"{SHARED}/data is not there")


@pytest.mark.data
@needs_shared
def test_chapter_two_on_some_flowers(tmp_path):
    for folder in sorted((SHARED / "data" / "flowers" / "train").iterdir())[:3]:
        (tmp_path / "some" / folder.name).mkdir(parents=True)
        for photo in sorted(folder.iterdir())[:8]:
            (tmp_path / "some" / folder.name / photo.name).symlink_to(photo)
    path = tmp_path / "some"
    flowers = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        splitter=RandomSplitter(valid_pct=0.2, seed=42),
        get_y=parent_label,
        item_tfms=RandomResizedCrop(32, min_scale=0.5),
        batch_tfms=aug_transforms(),
    )
    dls = flowers.dataloaders(path)
    assert is_picture(dls.show_batch(max_n=4, nrows=1))
    learn = vision_learner(dls, resnet18, metrics=error_rate)
    learn.fine_tune(1)
    assert is_picture(ClassificationInterpretation.from_learner(learn).plot_top_losses(4, nrows=1))
    learn.export()
    photo = sorted(path.rglob("*.jpg"))[0]
    assert load_learner("bundle").predict(photo)["label"] in dls.vocab


@pytest.mark.data
@needs_shared
def test_pretrained_weights_of_the_shared_folder_are_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(SHARED / "weights" / "torch_home"))
    model = create_model("mobilenet_v2", 5, pretrained=True)
    state = torch.load(
        SHARED / "weights" / "torch_home" / "hub" / "checkpoints" / "mobilenet_v2-b0353104.pth", weights_only=True
    )
    for name, value in model.network.state_dict().items():
        if name.startswith("features"):
            assert torch.equal(value, state[name]), name


@pytest.mark.data
@needs_shared
def test_multi_label_by_csv_on_some_of_coco(tmp_path):
    import json

    root = SHARED / "data" / "coco_mini"
    rows = []
    for part in ("train2017", "val2017"):
        notes = json.loads((root / "annotations" / f"instances_{part}.json").read_text())
        names = {c["id"]: c["name"].replace(" ", "_") for c in notes["categories"]}
        found = {i["id"]: (i["file_name"], set()) for i in notes["images"]}
        for note in notes["annotations"]:
            found[note["image_id"]][1].add(names[note["category_id"]])
        chosen = [(f, s) for f, s in found.values() if s][: 24 if part == "train2017" else 8]
        rows += [(f"{part}/{f}", " ".join(sorted(s)), part == "val2017") for f, s in chosen]
    known = {name for _, labels, held in rows if not held for name in labels.split()}
    rows = [(f, " ".join(n for n in labels.split() if n in known), held) for f, labels, held in rows]
    pd.DataFrame(rows, columns=["fname", "labels", "is_valid"]).to_csv(tmp_path / "coco.csv", index=False)

    df = pd.read_csv(tmp_path / "coco.csv")
    dls = ImageDataLoaders.from_df(
        df, root, valid_col="is_valid", label_delim=" ", item_tfms=Resize(46), batch_tfms=aug_transforms(size=32)
    )
    assert set(dls.vocab) == known
    assert is_picture(dls.show_batch())
    learn = vision_learner(dls, resnet18, metrics=[partial(accuracy_multi, thresh=0.5)])
    learn.fine_tune(1, 3e-2)
    assert is_picture(learn.show_results())
    assert is_picture(Interpretation.from_learner(learn).plot_top_losses(4))
    assert 0 <= learn.history[-1]["accuracy_multi"] <= 1
