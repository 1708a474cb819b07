"""Sources of images and masks in the layouts people have, and a sentence for every fault of one."""

import numpy as np
import pytest
from PIL import Image

from applications.segmentation import DataBlock, ImageBlock, read_source
from applications.segmentation.classes import VOC_CLASSES
from common.blocks.spatial import open_image
from common.errors import DataError, ItemError


def loaders(source, **options):
    block = DataBlock(
        (ImageBlock, source.block()), get_x=source.get_x, get_y=source.get_y, splitter=source.splitter(0.34, 0)
    )
    return block.dataloaders(source.items, bs=2, **options)


def everything(source):
    """Encodes every item of every part."""
    dls = loaders(source)
    return [batch for loader in dls for batch in loader]


@pytest.mark.parametrize(
    ("images", "masks", "suffix"),
    [("images", "masks", ""), ("imgs", "labels", "_P"), ("Images", "Annotations", "_mask"), ("img", "gt", "_L")],
)
def test_images_and_masks_are_paired_by_name(folder, images, masks, suffix):
    source = read_source(folder(images=images, masks=masks, suffix=suffix))
    assert len(source.items) == 6
    assert source.parts is None
    assert source.codes == ("0", "1", "2")
    for item in source.items:
        assert item.mask.stem == item.image.stem + suffix
    assert "3 classes from the values in the training masks (0 to 2)" in source.kind


def test_split_lists_divide_the_images(folder):
    root = folder(8)
    (root / "train.txt").write_text("0\n1.jpg\nimages/2.jpg\n\n")
    (root / "val.txt").write_text("/data/x/images/3.jpg /data/x/masks/3.png\n")
    (root / "test.txt").write_text("4\n5")
    source = read_source(root)
    assert dict(zip([i.image.stem for i in source.items], source.parts.tolist(), strict=True)) == {
        "0": "train", "1": "train", "2": "train", "3": "valid", "4": "test", "5": "test",
    }  # fmt: skip
    split = source.splitter(0.2, 0)(source.items)
    assert (len(split.train), len(split.valid), len(split.test)) == (3, 1, 2)


def test_where_only_held_out_images_are_listed_the_rest_is_train(folder):
    root = folder(6)
    (root / "valid.txt").write_text("4.jpg\n5.jpg")
    assert read_source(root).parts.tolist() == ["train"] * 4 + ["valid"] * 2


def test_part_folders_above_or_below_divide_the_images(folder, tmp_path):
    for i, part in enumerate(("train", "val", "test")):
        folder(2, root=f"above/{part}", first=2 * i)
        folder(2, images=f"images/{part}", masks=f"masks/{part}", root=f"below_{part}", first=2 * i)
    source = read_source(tmp_path / "above")
    assert sorted(source.parts.tolist()) == ["test"] * 2 + ["train"] * 2 + ["valid"] * 2
    below = tmp_path / "below_train"
    for part in ("val", "test"):
        for kind in ("images", "masks"):
            (tmp_path / f"below_{part}" / kind / part).rename(below / kind / part)
    source = read_source(below)
    assert sorted(source.parts.tolist()) == ["test"] * 2 + ["train"] * 2 + ["valid"] * 2


def test_pascal_voc_has_its_own_classes_and_ignores_255(folder):
    root = folder(6, "JPEGImages", "SegmentationClass", values=(0, 15, 255))
    (root / "Annotations").mkdir()
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("0\n1\n2\n")
    (lists / "val.txt").write_text("3\n4\n")
    (lists / "trainval.txt").write_text("0\n1\n2\n3\n4\n")
    source = read_source(root)
    assert source.codes == VOC_CLASSES
    assert source.ignore == 255
    assert source.parts.tolist() == ["train"] * 3 + ["valid"] * 2
    ids = source.block().encode(source.get_y(source.items[0])).numpy()
    assert set(np.unique(ids)) == {0, 15, 255}


def test_palette_masks_are_read_by_their_index(folder, toy):
    source = read_source(folder(mode="P"))
    assert source.codes == ("0", "1", "2")
    assert (source.block().encode(source.get_y(source.items[3])).numpy() == toy(3)[1]).all()


def test_black_and_white_masks_have_two_classes(folder, toy):
    source = read_source(folder(values=(0, 255, 255)))
    assert (source.codes, source.values) == (("background", "object"), (0, 255))
    assert set(np.unique(source.block().encode(source.get_y(source.items[0])).numpy())) == {0, 1}
    assert read_source(folder(values=(0, 255, 255), root="b"), classes="no,yes").values == (0, 255)


def test_values_with_gaps_are_classes_of_their_own_and_255_among_them_is_ignored(folder):
    source = read_source(folder(values=(3, 7, 255)))
    assert (source.codes, source.values, source.ignore) == (("3", "7"), (3, 7), 255)
    assert "255 is ignored" in source.kind
    everything(source)


def test_names_come_from_a_file_or_an_option_and_the_ignored_one_goes(folder):
    root = folder()
    (root / "codes.txt").write_text("grey\nred\nblue\n")
    assert read_source(root).codes == ("grey", "red", "blue")
    assert read_source(root, classes="a, b ,c").codes == ("a", "b", "c")
    last = read_source(root, ignore=2)
    assert (last.codes, last.ignore, last.values) == (("grey", "red"), 2, ())
    first = read_source(root, ignore=0)
    assert (first.codes, first.ignore, first.values) == (("red", "blue"), 0, (1, 2))
    ids = first.block().encode(first.get_y(first.items[0])).numpy()
    assert set(np.unique(ids)) == {0, 1, 255}
    everything(first)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("colors.txt", "grey,90,90,90\nred,210,40,40\nblue,40,60,210\n"),
        ("class_dict.csv", "name,r,g,b\ngrey, 90, 90, 90\nred, 210, 40, 40\nblue, 40, 60, 210\n"),
        ("label_colors.txt", "90 90 90\t\tgrey\n210 40 40 red\n40 60 210 blue"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\ngrey:90,90,90::\nred:210,40,40::\nblue:40,60,210::\n"),
    ],
)
def test_colour_masks_are_read_by_a_table_of_colours(folder, toy, file, text):
    root = folder(mode="RGB")
    (root / file).write_text(text)
    source = read_source(root)
    assert source.codes == ("grey", "red", "blue")
    assert (source.block().encode(source.get_y(source.items[2])).numpy() == toy(2)[1]).all()
    without = read_source(root, ignore=1)
    assert without.codes == ("grey", "blue")
    ids = without.block().encode(without.get_y(without.items[2])).numpy()
    assert ((ids == 255) == (toy(2)[1] == 1)).all()


def test_the_embedded_scenes_need_no_network():
    source = read_source(None)
    assert len(source.codes) == 11
    assert set(source.parts.tolist()) == {"train", "valid", "test"}
    assert not source.mirrored
    assert source.get_y(source.items[0]).max() <= 10


# ------------------------------------------------------------------- faults


def says(error, *parts):
    text = str(error.value)
    assert len(text.splitlines()) == 1
    for part in parts:
        assert part in text, text


def test_what_is_no_folder_of_pairs_is_named(tmp_path, folder):
    for name, said in (("nowhere", "nowhere does not exist"), ("a.zip", "a.zip is a file: name the folder")):
        if name == "a.zip":
            (tmp_path / name).write_bytes(b"PK")
        with pytest.raises(DataError) as error:
            read_source(tmp_path / name)
        says(error, said)
    (tmp_path / "odd" / "pictures").mkdir(parents=True)
    with pytest.raises(DataError) as error:
        read_source(tmp_path / "odd")
    says(error, "odd has no folder images/", "found pictures/")
    (tmp_path / "odd" / "images").mkdir()
    with pytest.raises(DataError) as error:
        read_source(tmp_path / "odd")
    says(error, "odd has no folder masks/", "labels")
    (tmp_path / "odd" / "masks").mkdir()
    with pytest.raises(DataError, match="images holds no images"):
        read_source(tmp_path / "odd")


def test_masks_of_other_names_are_named(folder):
    with pytest.raises(DataError) as error:
        read_source(folder(suffix="_other"))
    says(error, "0.jpg has no mask in", "nor has any other image", "_mask behind it")


def test_an_image_without_a_mask_is_named_or_left_out(folder):
    root = folder()
    (root / "masks" / "3.png").unlink()
    source = read_source(root)
    with pytest.raises(DataError) as error:
        loaders(source)
    says(error, "3.jpg", "it has no mask in", "masks")
    dls = loaders(source, on_error="skip")
    assert sum(len(batch) for batch in (*dls.valid, *dls.train)) <= 5


def test_a_mask_of_another_size_is_named(folder):
    root = folder()
    Image.new("L", (40, 30)).save(root / "masks" / "2.png")
    with pytest.raises(ItemError) as error:
        everything(read_source(root))
    says(error, "2.jpg", "2.png", "30 x 40 pixels, the image 32 x 40")


def test_a_value_without_a_class_is_named(folder):
    root = folder()
    with pytest.raises(ItemError) as error:
        everything(read_source(root, classes="grey,red"))
    says(error, ".png", "the mask holds 2, but its 2 classes have the ids 0 to 1")


def test_a_mask_that_is_cut_or_empty_is_named(folder):
    root = folder()
    whole = (root / "masks" / "4.png").read_bytes()
    for data in (whole[: len(whole) // 2], b""):
        (root / "masks" / "4.png").write_bytes(data)
        with pytest.raises(ItemError) as error:
            everything(read_source(root, classes="grey,red,blue"))
        says(error, "4.jpg", "4.png")


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ({"train": "0\n1\nzero\n"}, ["train.txt, line 3", "'zero' is no image of"]),
        ({"train": "0\n1\n", "val": "2\n\n1\n"}, ["val.txt, line 3: 1.jpg is in", "train.txt, line 2 too"]),
        ({"train": "\xff"}, ["train.txt: cannot be read as a list of names"]),
    ],
)
def test_a_wrong_name_in_a_split_list_is_named_with_its_line(folder, lists, said):
    root = folder()
    for name, text in lists.items():
        (root / f"{name}.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError) as error:
        read_source(root)
    says(error, *said)


def test_colour_masks_without_a_table_say_what_is_missing(folder):
    with pytest.raises(DataError) as error:
        read_source(folder(mode="RGB"))
    says(error, "0.png is a colour image (mode RGB)", "colors.txt", "name,red,green,blue")


def test_a_colour_that_is_in_no_table_is_named(folder):
    root = folder(mode="RGB")
    (root / "colors.txt").write_text("grey,90,90,90\nred,210,40,40\n")
    with pytest.raises(ItemError) as error:
        everything(read_source(root))
    says(error, ".png", "the colour (40, 60, 210), which stands for no class")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grey,90,90,90\nred,210,40\n", "colors.txt, line 2"),
        ("grey,90,90,90\nred,210,40,400\n", "values 0 to 255"),
        ("grey,90,90,90\ngrey,1,2,3\n", "line 2: grey (1, 2, 3) is there before"),
        ("grey,90,90,90\nred,90,90,90\n", "line 2: red (90, 90, 90) is there before as grey"),
        ("name,r,g,b\n", "names 0 classes"),
    ],
)
def test_a_faulty_table_of_colours_is_named_with_its_line(folder, text, said):
    root = folder(mode="RGB")
    (root / "colors.txt").write_text(text)
    with pytest.raises(DataError) as error:
        read_source(root)
    says(error, "colors.txt", said)


def test_other_faults_are_told_in_one_sentence(folder, tmp_path):
    with pytest.raises(DataError, match=r"'a' occurs twice"):
        read_source(folder(), classes="a,b,a")
    with pytest.raises(DataError, match="fewer than two classes .values found: 4"):
        read_source(folder(values=(4, 4, 4), root="one"))
    root = folder(root="jpeg")
    for file in (root / "masks").iterdir():
        open_image(file).save(file.with_suffix(".jpg"))
        file.unlink()
    with pytest.raises(DataError, match="changes the ids of classes: save masks as PNG"):
        read_source(root)
    root = folder(root="twice")
    Image.new("RGB", (40, 32)).save(root / "images" / "0.png")
    with pytest.raises(DataError, match="have one name"):
        read_source(root)
    root = folder(root="held")
    (root / "train.txt").write_text("\n")
    (root / "test.txt").write_text("0\n")
    assert read_source(root).parts.tolist() == ["test"] + ["train"] * 5
