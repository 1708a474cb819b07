"""What a person writes: every option checked and named."""

import pytest

from common.augment import Augment, Normalize, aug_transforms
from common.data import CategoryBlock, ImageBlock, RandomResizedCrop, imagenet_stats
from common.errors import ConfigError

NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("rotate", [-1, 181, NAN]),
        ("zoom", [0.5, 11, NAN]),
        ("zoom_least", [0, 1.5, NAN]),
        ("warp", [-0.1, 1, NAN]),
        ("translate", [-0.1, 1]),
        ("brightness", [-0.1, 1]),
        ("contrast", [-0.1, 1]),
        ("p_affine", [-0.1, 1.1]),
        ("p_lighting", [-0.1, 1.1]),
        ("p_texture", [-0.1, 1.1]),
        ("p_erase", [-0.1, 1.1]),
        ("min_scale", [0, 1.1]),
        ("max_scale", [0.5, 1.1]),
        ("elastic", [-0.01, 1 / 16, NAN]),
        ("elastic_cells", [0, 17]),
        ("blur", [-0.1, 10.5]),
        ("sharpen", [-0.1, 11]),
        ("saturation", [-0.1, 1]),
        ("hue", [-0.1, 0.6]),
        ("grayscale", [-0.1, 1.1]),
        ("noise", [-0.1, 1.1]),
        ("salt_pepper", [-0.1, 1.1]),
        ("erase", [-0.1, 1.1]),
        ("min_visibility", [-0.1, 1]),
    ],
)
def test_an_option_of_augment_out_of_range_is_named(name, values):
    for value in values:
        with pytest.raises(ConfigError, match=rf"^{name} must lie in .*, got {value}$"):
            Augment(**{name: value})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_rotate", [-1, 181, 400]),
        ("max_zoom", [0.5, 11]),
        ("max_lighting", [-0.1, 1, 3]),
        ("max_warp", [-0.1, 1, 2]),
        ("mult", [-1]),
        ("p_affine", [-0.1, 1.1]),
        ("p_lighting", [-0.1, 1.1]),
        ("min_scale", [0, 2]),
        ("size", [0, -5, 2.5]),
    ],
)
def test_an_option_of_aug_transforms_out_of_range_is_named_as_it_was_written(name, values):
    for value in values:
        with pytest.raises(ConfigError, match=rf"{name} must"):
            aug_transforms(**{"size": 8, name: value})


def test_a_wrong_padding_answers_with_the_near_one():
    with pytest.raises(ConfigError, match="has no option 'reflect': did you mean 'reflection'"):
        aug_transforms(pad_mode="reflect")
    with pytest.raises(ConfigError, match="padding has no option 'zero': did you mean 'zeros'"):
        Augment(padding="zero")


def test_a_random_part_needs_a_size():
    with pytest.raises(ConfigError, match="min_scale below 1 and whole need size"):
        Augment(min_scale=0.5)


@pytest.mark.parametrize("ratio", [(0, 1), (2, 1), (-1, 1)])
def test_a_ratio_that_is_none_is_refused(ratio):
    with pytest.raises(ConfigError, match=r"ratio must be \(least, greatest\)"):
        Augment(size=8, min_scale=0.5, ratio=ratio)


def test_a_random_part_has_the_scale_and_ratio_asked():
    crop = Augment(size=(8, 12), min_scale=0.2, max_scale=0.6, ratio=(0.5, 3.0)).crop()
    assert (crop.size, crop.scale, crop.ratio) == ((8, 12), (0.2, 0.6), (0.5, 3.0))
    assert Augment(size=8).crop().ratio == (1, 1)


def test_the_books_defaults():
    (augment,) = aug_transforms()
    assert augment == Augment(flip=True, rotate=10, zoom=1.1, warp=0.2, brightness=0.2, contrast=0.2)


def test_mult_multiplies_every_strength():
    (augment,) = aug_transforms(mult=2)
    strengths = (augment.rotate, augment.zoom, augment.warp, augment.brightness, augment.contrast)
    assert strengths == pytest.approx((20, 1.2, 0.4, 0.4, 0.4))
    assert aug_transforms(mult=0)[0].operations() == Augment(flip=True).operations()


def test_a_large_mult_stops_at_the_greatest_strength():
    (augment,) = aug_transforms(mult=50)
    assert augment.rotate == 180
    assert augment.warp < 1
    assert augment.brightness < 1


def test_every_option_reaches_the_operations():
    augment = Augment(
        flip=True, flip_vertical=True, symmetries=True, rotate=5, zoom=1.5, zoom_least=0.8, warp=0.3, translate=0.2,
        elastic=0.02, elastic_cells=6, blur=1.5, sharpen=2, brightness=0.1, contrast=0.4, saturation=0.3, hue=0.15,
        grayscale=0.25, noise=0.03, salt_pepper=0.04, erase=0.35, p_affine=0.6, p_lighting=0.7, p_texture=0.8, p_erase=0.9,
    )  # fmt: skip
    found = {op.name: op for op in augment.operations()}
    assert [found[name].p for name in ("flip_horizontal", "flip_vertical")] == [0.5, 0.5]
    assert {found[name].p for name in ("rotate", "zoom", "warp", "translate", "elastic")} == {0.6}
    assert {found[name].p for name in ("brightness", "contrast", "saturation", "hue")} == {0.7}
    assert {found[name].p for name in ("blur", "sharpen", "noise", "salt_pepper")} == {0.8}
    assert (found["symmetry"].p, found["erase"].p, found["grayscale"].p) == (1, 0.9, 0.25)
    assert (found["elastic"].share, found["elastic"].cells) == (0.02, 6)
    assert (found["blur"].sigma_px, found["sharpen"].amount, found["erase"].area) == (1.5, 2, 0.35)
    assert (found["saturation"].change, found["hue"].turn) == (0.3, 0.15)
    assert (found["noise"].std, found["salt_pepper"].share) == (0.03, 0.04)
    assert found["rotate"].degrees == 5
    assert (found["zoom"].least, found["zoom"].greatest) == (0.8, 1.5)
    assert (found["warp"].magnitude, found["translate"].share) == (0.3, 0.2)
    assert (found["brightness"].change, found["contrast"].change) == (0.1, 0.4)


def test_an_augment_of_nothing_has_no_operation():
    assert Augment().operations() == []
    assert Augment().crop() is None
    assert Normalize().operations() == []


def test_normalize_from_stats_is_that_of_its_numbers():
    assert Normalize.from_stats(*imagenet_stats) == Normalize()
    assert Normalize.from_stats([0.5], [0.25]) == Normalize((0.5,), (0.25,))


@pytest.mark.parametrize("std", [(0.0, 0.5, 0.5), (-1.0, 0.5, 0.5)])
def test_a_deviation_that_cannot_divide_is_named(std):
    with pytest.raises(ConfigError, match="std must"):
        Normalize(std=std)


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.5,)), ((0.5,) * 3, (0.5,)), ((0.5,), (0.5,) * 3)])
def test_normalize_must_have_the_images_channels(pipeline, mean, std):
    with pytest.raises(ConfigError, match="channels"):
        pipeline(Normalize(mean, std), blocks=(ImageBlock(),))


@pytest.mark.parametrize("transform", [Augment(flip=True), Augment(contrast=0.1), Augment(size=8)])
def test_what_needs_an_image_is_refused_without_one(pipeline, transform):
    with pytest.raises(ConfigError, match="needs an image"):
        pipeline(transform, blocks=(CategoryBlock(("a",)),))


def test_a_random_crop_needs_an_image(pipeline):
    with pytest.raises(ConfigError, match="needs an image"):
        pipeline(blocks=(CategoryBlock(("a",)),), item_tfms=(RandomResizedCrop(8),))
