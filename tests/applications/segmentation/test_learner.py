"""From loaders to a bundle: a toy set is learned, and what was learned is the same after loading."""

import numpy as np
import pytest
import torch
from PIL import Image

from applications.segmentation import (
    Augment,
    DataBlock,
    ImageBlock,
    MaskBlock,
    Mixup,
    Predictor,
    RandomSplitter,
    Resize,
    TrainerOptions,
    baseline,
    class_weights,
    evaluate,
    ids_of,
    make_task,
    pixel_counts,
    predict_sliding,
    read_source,
    segmentation_learner,
    show_maps,
    unet_learner,
)
from applications.segmentation.learner import loss_weights
from common.deploy import export
from common.errors import ConfigError, DataError

QUIET = TrainerOptions(device="cpu", progress=False)
CODES = ("grey", "red", "blue")


def made(source, tfms=(), item_tfms=(), bs=4, valid=0.25):
    block = DataBlock(
        (ImageBlock, source.block()), get_x=source.get_x, get_y=source.get_y, splitter=source.splitter(valid, 0),
        item_tfms=item_tfms, batch_tfms=list(tfms),
    )  # fmt: skip
    return block.dataloaders(source.items, bs=bs, seed=0)


@pytest.fixture(scope="module")
def learned(tmp_path_factory, toy):
    """A tiny net that was taught red and blue rectangles, its folder of data, and its bundle."""
    root = tmp_path_factory.mktemp("toy")
    for name in ("images", "masks"):
        (root / name).mkdir()
    for i in range(48):
        pixels, ids = toy(i)
        Image.fromarray(pixels).save(root / "images" / f"{i}.png")
        Image.fromarray(ids).save(root / "masks" / f"{i}.png")
    (root / "test.txt").write_text("\n".join(map(str, range(40, 48))))
    torch.set_num_threads(1)
    source = read_source(root, classes=CODES)
    dls = made(source, [Augment(flip=True)], Resize((32, 40), "squish"))
    learn = segmentation_learner(dls, "small_resnet", pretrained=False, options=QUIET)
    learn.fit_one_cycle(5, 1e-2)
    return learn, source, root, learn.export(root / "bundle")


def test_plain_colours_are_learned(learned):
    learn, source, _, bundle = learned
    assert learn.history[-1]["miou"] > 0.9
    assert evaluate(Predictor(bundle), source.items[0].image.parents[1], "test")["miou"] > 0.9


def test_a_bundle_gives_the_same_records_and_metrics(learned):
    learn, source, root, bundle = learned
    assert "| classes | grey, red, blue |" in (bundle / "README.md").read_text()
    predictor, files = Predictor(bundle), [item.image for item in source.items[:3]]
    assert predictor.predict_many(files) == learn.predictor().predict_many(files)
    found = evaluate(predictor, root)
    outputs = learn.get_preds("test")
    assert found == learn.task.report(outputs)
    with pytest.raises(DataError, match="split 'valid' is not there"):
        evaluate(predictor, root, "valid")


def test_a_record_has_the_size_of_the_image_that_was_given(learned, tmp_path, toy):
    pixels, ids = toy(99, (64, 100))
    Image.fromarray(pixels).save(tmp_path / "x.png")
    record = learned[0].predict(tmp_path / "x.png")
    assert ids_of(record).shape == (64, 100)
    assert (ids_of(record) == ids).mean() > 0.9


def test_results_are_drawn_in_their_own_shape_with_the_colours_named(learned):
    assert learned[0].show_results(max_n=2).png()[:4] == b"\x89PNG"
    figure = show_maps(learned[0], max_n=3, part="test")
    assert figure.get_size_inches()[0] == 8
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(CODES)
    assert figure.png()[:4] == b"\x89PNG"


def test_averaging_class_maps_is_refused(learned):
    with pytest.raises(ConfigError, match="tta is not there for segmentation"):
        learned[0].tta("test", n=1)


def test_a_window_as_large_as_the_image_sees_what_the_whole_does(learned, toy):
    predictor = Predictor(learned[3])
    pixels = toy(7)[0]
    assert predict_sliding(predictor, pixels) == predictor(pixels)
    assert predict_sliding(predictor, pixels, window_px=500) == predictor(pixels)


def test_windows_of_a_large_image_agree_and_show_no_seam(learned):
    predictor = Predictor(learned[3])
    ids = np.zeros((70, 130), np.uint8)
    ids[20:50, 15:115] = 1  # crosses every seam
    pixels = np.array([(90, 90, 90), (210, 40, 40)], np.uint8)[ids]
    for overlap in (0.25, 0.5):
        found = ids_of(predict_sliding(predictor, pixels, overlap=overlap))
        assert found.shape == ids.shape
        assert (found == ids).mean() > 0.97
    for wrong in ({"overlap": 1.0}, {"window_px": 0}):
        with pytest.raises(ConfigError):
            predict_sliding(predictor, pixels, **wrong)


class Pointwise(torch.nn.Module):
    """Looks at each pixel by itself, so that windows cannot differ from the whole."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.7])
def test_where_neighbours_do_not_matter_windows_give_the_whole(learned, overlap):
    learn = learned[0]
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 256, (47, 61, 3)).astype(np.uint8)
    from common.augment import BatchPipeline
    from common.blocks.sample import SampleEncoder

    encoder = SampleEncoder(learn.dls.train.store.encoder.blocks)
    predictor = Predictor.of(Pointwise(), learn.task, encoder, BatchPipeline(encoder), torch.device("cpu"))
    whole = ids_of(predictor(pixels))
    assert (ids_of(predict_sliding(predictor, pixels, (16, 20), overlap)) == whole).all()


def test_mixed_masks_can_be_learned_from(folder):
    source = read_source(folder(12), classes=CODES)
    dls = made(source, [Mixup(0.4)])
    learn = unet_learner(dls, "small_resnet", loss="cross_entropy+dice", options=QUIET)
    learn.fit(2, 5e-3)
    assert learn.history[-1]["train_loss"] < learn.history[0]["train_loss"]


def test_a_segmenter_of_torchvision_trains_on_both_heads(folder):
    source = read_source(folder(8), classes=CODES)
    learn = segmentation_learner(made(source), "lraspp_mobilenet_v3_large", pretrained=False, options=QUIET)
    learn.fit(1, 1e-3)
    assert 0 <= learn.history[-1]["miou"] <= 1


def test_torchvisions_deeplab_fed_by_our_loader_gives_the_loss_of_one_fed_by_hand(folder):
    import torch.nn.functional as F
    from torchvision.models import get_model
    from torchvision.transforms.functional import normalize, pil_to_tensor

    root = folder(6)
    for photo in (root / "images").iterdir():  # decoders of JPEG differ by some levels
        Image.open(photo).save(photo.with_suffix(".png"))
        photo.unlink()
    source = read_source(root, classes=CODES)
    learn = segmentation_learner(made(source, bs=3), "deeplabv3_mobilenet_v3_large", pretrained=False, options=QUIET)
    batch = learn.dls.train.one_batch()
    network = get_model(
        "deeplabv3_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=3, aux_loss=True
    )
    network.load_state_dict(learn.model.network.state_dict())
    pairs = [source.items[i] for i in batch.ids.tolist()]
    images = [pil_to_tensor(Image.open(pair.image)) / 255 for pair in pairs]
    x = torch.stack([normalize(i, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) for i in images])
    y = torch.stack([pil_to_tensor(Image.open(pair.mask))[0].long() for pair in pairs])
    torch.testing.assert_close(batch.x, x, atol=1e-5, rtol=0)
    for module in (*learn.model.modules(), *network.modules()):
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    learn.model.train(), network.train()
    found = learn.task.loss(learn.task.forward(learn.model, batch), batch)
    out = network(x)
    expected = F.cross_entropy(out["out"], y) + 0.5 * F.cross_entropy(out["aux"], y)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_learner_needs_masks_with_codes(folder):
    source = read_source(folder(4))
    block = DataBlock(
        (ImageBlock, MaskBlock()), get_x=source.get_x, get_y=source.get_y, splitter=RandomSplitter(0.5, 0)
    )
    with pytest.raises(ConfigError, match="a MaskBlock with the codes of its classes, got MaskBlock without codes"):
        segmentation_learner(block.dataloaders(source.items, bs=2), "small_resnet")


def test_a_loss_is_named_by_its_parts():
    assert loss_weights("dice + 2*cross_entropy") == {"cross_entropy": 2.0, "focal": 0.0, "dice": 1.0}
    for wrong, said in (("dise", "loss has no option 'dise': did you mean 'dice'"), ("x*dice", "'x' in 'x.dice'")):
        with pytest.raises(ConfigError, match=said):
            loss_weights(wrong)


def test_simple_rules_by_hand(folder):
    source = read_source(folder(4), classes=CODES)
    task = make_task(made(source, bs=2))
    masks = [source.get_y(item) for item in source.items]
    counts = pixel_counts(task, masks)
    assert counts.sum() == 4 * 64 * 64
    rules = baseline(task, counts, masks)
    truth = np.stack([task.block.encode(mask).numpy() for mask in masks])
    assert rules["most_frequent_class"]["pixel_accuracy"] == pytest.approx((truth == 0).mean())
    assert rules["most_frequent_at_each_place"]["miou"] > rules["most_frequent_class"]["miou"]


def test_rare_classes_weigh_more_and_the_mean_pixel_one():
    counts = np.array([900, 90, 10, 0])[:, None, None]
    weights = np.array(class_weights(counts, power=0.5, most=100))
    assert (np.diff(weights[:3]) > 0).all()
    assert weights[3] == weights[2]
    assert (weights[:3] * [0.9, 0.09, 0.01]).sum() == pytest.approx(1, abs=1e-3)
    assert weights[1] / weights[0] == pytest.approx(10**0.5, rel=1e-3)
    assert max(class_weights(counts, most=2.0)) == pytest.approx(2 * min(class_weights(counts, most=2.0)), rel=1e-3)


def test_a_bundle_may_be_written_with_another_pipeline(learned, tmp_path):
    learn, _, root, _ = learned
    folder = export(
        tmp_path / "b", learn.model, learn.task, learn.dls.train.store.encoder, learn.dls.train.pipeline, {}
    )
    assert evaluate(Predictor(folder), root) == evaluate(Predictor(learned[3]), root)
