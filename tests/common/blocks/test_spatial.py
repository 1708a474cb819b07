"""Images as people have them: turned, deep, transparent, damaged; masks, boxes and points."""

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from common.blocks.item_transforms import View
from common.blocks.shapes import outline
from common.blocks.spatial import open_image
from common.data import BBoxBlock, CategoryBlock, DataBlock, ImageBlock, IndexSplitter, MaskBlock, PointBlock, Resize
from common.errors import ConfigError, DataError, ItemError

# What turns the stored pixels as each EXIF orientation says (EXIF 2.32, tag 0x0112).
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", TURNS)
def test_a_photo_is_turned_as_its_exif_says(tmp_path, picture, orientation):
    pixels = picture(6, 9)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    block = ImageBlock()
    assert np.array_equal(block.encode(tmp_path / "a.png").numpy(), TURNS[orientation](pixels))
    assert block.extent(block.open(tmp_path / "a.png")) == TURNS[orientation](pixels).shape[:2]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_sixteen_bit_greys_keep_their_upper_eight_bits(tmp_path, mode):
    deep = np.array([[0, 255, 256], [0x8000, 0xFE80, 0xFFFF]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    encoded = ImageBlock(mode).encode(tmp_path / "deep.png").numpy()
    assert np.abs(encoded - (deep / 257)[..., None]).max() <= 1
    assert encoded.min() == 0
    assert encoded.max() == 255


def test_a_palette_with_transparency_keeps_its_colours(tmp_path):
    colours = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 30]], dtype=np.uint8)
    ids = np.array([[0, 1, 2], [2, 1, 0]], dtype=np.uint8)
    image = Image.fromarray(ids)
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "bytes.png", transparency=b"\xff\x80\x00")
    image.save(tmp_path / "index.gif", transparency=1)
    assert np.array_equal(ImageBlock().encode(tmp_path / "bytes.png").numpy(), colours[ids])
    opaque = ids != 1
    assert np.array_equal(ImageBlock().encode(tmp_path / "index.gif").numpy()[opaque], colours[ids][opaque])


def test_a_cmyk_jpeg_has_the_colours_of_the_plain_formula(tmp_path):
    inks = np.zeros((32, 32, 4), dtype=np.uint8)
    inks[:, :16], inks[:, 16:] = (200, 20, 60, 40), (0, 180, 180, 0)
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0)
    found = ImageBlock().encode(tmp_path / "a.jpg").numpy().astype(float)
    share = inks / 255.0
    wanted = 255 * (1 - share[..., :3]) * (1 - share[..., 3:])
    assert np.abs(found - wanted)[:, [2, 29]].max() <= 4


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGBA", "P", "F", "YCbCr"])
def test_every_mode_becomes_three_channels(tmp_path, picture, mode):
    image = Image.fromarray(picture(8, 8)).convert(mode)
    assert ImageBlock().encode(image).shape == (8, 8, 3)
    assert ImageBlock("L").encode(image).shape == (8, 8, 1)


def test_path_bytes_image_and_array_give_the_same_pixels(tmp_path, picture):
    pixels = picture(5, 7)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    for raw in (path, str(path), path.read_bytes(), Image.open(path), pixels):
        assert np.array_equal(ImageBlock().encode(raw).numpy(), pixels)


@pytest.mark.parametrize("array", [np.zeros((2, 2)), np.zeros(4, np.uint8), np.zeros((2, 2, 2, 2), np.uint8)])
def test_an_array_that_is_no_image_is_refused(array):
    with pytest.raises(DataError, match="an image array must be uint8"):
        ImageBlock().encode(array)


def png_header(width, height):
    """A PNG file that claims a size and holds one row."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 9))]
    out = b"\x89PNG\r\n\x1a\n"
    for kind, data in [*chunks, (b"IEND", b"")]:
        out += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return out


def cut_png():
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(stream, "png")
    return stream.getvalue()[:2000]


def bad_file(kind, folder, jpeg):
    path = folder / f"{kind}.jpg"
    if kind == "directory":
        path.mkdir()
    elif kind != "missing":
        content = {
            "truncated": jpeg[: len(jpeg) // 2],
            "text": b"<html>404 not found</html>",
            "empty": b"",
            "bomb": png_header(60_000, 60_000),
            "large": png_header(10_001, 10_001),
            "cut": cut_png(),
        }[kind]
        path.write_bytes(content)
    return path


BAD = {
    "truncated": "truncated",
    "text": "not an image",
    "empty": "the file is empty",
    "missing": "does not exist",
    "directory": "cannot be read: Is a directory",
    "bomb": "decompression bomb",
    "large": "10001 x 10001 pixels, the limit is 100,000,000",
    "cut": "truncated|damaged|cannot be read",
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_is_an_error_that_names_file_and_stage(tmp_path, picture, kind, workers):
    folder = tmp_path / "cat"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(picture(64, 64, i)).save(folder / f"{i}.jpg")
    bad = bad_file(kind, folder, (folder / "0.jpg").read_bytes())
    items = [folder / "0.jpg", folder / "1.jpg", bad, folder / "2.jpg"]
    block = DataBlock(
        (ImageBlock, CategoryBlock), get_y=lambda p: "cat", splitter=IndexSplitter([3]), item_tfms=Resize(8)
    )
    dls = block.dataloaders(items, bs=3, num_workers=workers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(ItemError, match=BAD[kind]) as caught:
            list(dls.train.batches())
    assert str(caught.value).startswith(f"{bad}: ")
    assert caught.value.item == str(bad)
    assert "(stage: " in str(caught.value)
    assert "ImageBlock" in caught.value.stage


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux's /proc to count open files")
@pytest.mark.parametrize("kind", ["truncated", "text", "bomb", "cut", "good.jpg", "good.gif", "good.tif"])
def test_no_file_stays_open(tmp_path, picture, kind):
    for name in ("good.jpg", "good.gif", "good.tif"):
        Image.fromarray(picture(64, 64)).save(tmp_path / name)
    jpeg = (tmp_path / "good.jpg").read_bytes()
    path = tmp_path / kind if kind.startswith("good") else bad_file(kind, tmp_path, jpeg)
    kept = []
    for _ in range(3):
        try:
            kept.append(open_image(path))
        except DataError as error:
            kept.append(error)
    open_files = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    assert str(path) not in open_files


def test_decode_reverses_the_normalisation(picture):
    import torch

    block = ImageBlock()
    pixels = torch.from_numpy(picture(5, 7))
    mean, std = (torch.tensor(v)[:, None, None] for v in (block.mean, block.std))
    normal = (pixels.permute(2, 0, 1) / 255 - mean) / std
    assert np.array_equal(block.decode(normal), pixels.numpy())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "CMYK"}, "mode has no option 'CMYK'"),
        ({"mean": (0.5,)}, "mean must have 3 entries for mode 'RGB'"),
        ({"mode": "L", "std": (0.5, 0.5)}, "std must have 1 entries for mode 'L'"),
        ({"std": (0.5, 0.0, 0.5)}, "std must lie in"),
    ],
)
def test_wrong_options_of_an_image_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        ImageBlock(**options)


def test_a_mask_keeps_its_ids(tmp_path):
    ids = np.array([[0, 1, 2], [2, 255, 0]], dtype=np.uint8)
    image = Image.fromarray(ids)
    image.save(tmp_path / "grey.png")
    image.putpalette(bytes(range(256)) * 3)
    image.save(tmp_path / "palette.png")
    for name in ("grey.png", "palette.png"):
        assert np.array_equal(MaskBlock().encode(tmp_path / name).numpy(), ids)
    binary = np.array([[True, False]])
    Image.fromarray(binary).save(tmp_path / "binary.png")
    assert MaskBlock().encode(tmp_path / "binary.png").tolist() == [[1, 0]]


def test_a_coloured_mask_is_refused(picture):
    with pytest.raises(DataError, match=r"must hold one class a pixel, got mode 'RGB': give MaskBlock the colors"):
        MaskBlock().encode(picture(4, 4))


def test_an_id_without_a_class_is_refused_but_the_ignored_one_is_not():
    codes = ("sky", "ground")
    assert MaskBlock(codes, ignore=255).encode(np.array([[0, 1, 255]], np.uint8)).max() == 255
    with pytest.raises(DataError, match=r"holds 2, but its 2 classes have the ids 0 to 1"):
        MaskBlock(codes).encode(np.array([[0, 2]], np.uint8))
    with pytest.raises(DataError, match="holds 7, .* and 255 is ignored"):
        MaskBlock(codes, ignore=255).encode(np.array([[0, 7, 255]], np.uint8))


def test_boxes_and_labels_must_be_as_many():
    with pytest.raises(DataError, match="2 boxes but 1 labels"):
        BBoxBlock(("cat",)).encode(([[0, 0, 1, 1], [0, 0, 2, 2]], ["cat"]))


def test_an_outline_has_the_things_box_after_any_turn():
    generator = np.random.default_rng(0)
    mask = np.zeros((80, 90), bool)
    rows, cols = np.mgrid[0:80, 0:90]
    mask[((cols - 40) / 30) ** 2 + ((rows - 35) / 18) ** 2 < 1] = True
    polygon = generator.uniform(0, 100, (40, 2))
    corners = [(x + dx, y + dy) for y, x in np.argwhere(mask) for dx in (0, 1) for dy in (0, 1)]
    for shape, points in ((mask, np.array(corners)), (polygon, polygon)):
        around = outline(shape)
        assert around.shape == (32, 2)
        for angle in np.linspace(0, 3, 13):
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            found, wanted = around @ turn, points @ turn
            size = np.ptp(wanted, axis=0).max()
            assert np.abs(found.min(axis=0) - wanted.min(axis=0)).max() < 0.005 * size
            assert np.abs(found.max(axis=0) - wanted.max(axis=0)).max() < 0.005 * size


def test_boxes_with_outlines_keep_them_in_the_view():
    block = BBoxBlock(("cat",), outlined=True)
    raw = ([[12, 4, 40, 10], [0, 0, 5, 5]], ["cat", "cat"], [[(12, 4), (40, 4), (40, 10)], [(0, 0), (5, 5), (0, 5)]])
    found = block.encode(raw, View((10, 0, 30, 20), (40, 40)))
    assert found["boxes"].tolist() == [[4.0, 8.0, 40.0, 20.0]]
    assert found["outlines"].shape == (1, 32, 2)
    assert found["outlines"].amax((0, 1)).tolist() == [60, 20]
    assert block.encode(([], [], []))["outlines"].shape == (0, 32, 2)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (([[0, 0, 1, 1]], ["cat"]), "must have boxes, labels and polygons or masks, got no shapes"),
        (([[0, 0, 1, 1]], ["cat"], []), "1 boxes but 0 shapes"),
        (([[0, 0, 1, 1]], ["cat"], [[]]), "polygon or mask of a box is empty"),
        (([[0, 0, 1, 1]], ["cat"], [np.zeros((4, 4), bool)]), "polygon or mask of a box is empty"),
    ],
)
def test_outlines_that_are_none_are_refused(raw, reason):
    with pytest.raises(DataError, match=reason):
        BBoxBlock(("cat",), outlined=True).encode(raw)


def test_boxes_follow_the_view_and_are_cut_to_it():
    view = View((10, 0, 30, 20), (40, 40))
    boxes = BBoxBlock(("cat",)).encode(([[12, 4, 40, 10]], ["cat"]), view)["boxes"]
    assert boxes.tolist() == [[4.0, 8.0, 40.0, 20.0]]


def test_points_follow_the_view():
    assert PointBlock().encode([[12, 4], [40, 10]], View((10, 0, 30, 20), (40, 40))).tolist() == [[4, 8], [60, 20]]


def test_the_background_and_what_is_ignored_are_drawn_clear():
    block = MaskBlock(("Background", "cat", "dog"), ignore=9)
    found = block.overlay(np.array([[0, 1], [2, 9]], np.uint8))
    assert (found[..., 3] > 0).tolist() == [[False, True], [True, False]]
    every = MaskBlock(("sky", "road")).overlay(np.array([[0, 1]], np.uint8))
    assert (every[..., 3] > 0).all()
    assert (every[0, 0] != every[0, 1]).any()
