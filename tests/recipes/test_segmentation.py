"""The segmentation recipe: what it leaves in its folder, its choices, and its faults in one sentence."""

import json
from pathlib import Path

import pytest

from common.errors import ConfigError
from recipes import segmentation
from recipes.segmentation import Options, make_loaders, run

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def test_a_run_leaves_everything_in_its_folder(rectangles, tmp_path):
    out = tmp_path / "out"
    metrics = run(Options(data=str(rectangles()), out=str(out), epochs=8, batch_size=4, crop="32x48"))
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert {"miou", "pixel_accuracy", "mean_class_accuracy", "seconds", "items_per_second"} <= set(metrics)
    assert metrics["miou"] > 0.6
    names = {file.stem for file in (out / "pictures").glob("*.png")}
    assert names == {"augmented", "batch", "curves", "miou", "results", "top_losses"}
    page = (out / "report.html").read_text()
    assert "most frequent at each place" in page
    assert "Classes on the test part" in page
    from applications.segmentation import Predictor, evaluate, ids_of

    predictor = Predictor(out / "bundle")
    found = evaluate(predictor, tmp_path / "data")
    assert found["miou"] == pytest.approx(metrics["miou"])
    record = predictor(tmp_path / "data" / "images" / "0.png")
    assert ids_of(record).shape == (40, 60)  # the whole frame, though training saw pieces
    assert sum(entry["share"] for entry in record["classes"]) == pytest.approx(1)


def test_evaluation_sees_the_whole_frame_and_training_pieces(rectangles):
    options = Options(data=str(rectangles()), crop="16x24", batch_size=2)
    _, dls = make_loaders(options, segmentation.find_source(options))
    assert dls.train.one_batch().x.shape[2:] == (16, 24)
    assert dls.valid.one_batch().x.shape[2:] == (40, 60)
    assert dls.test.one_batch().x.shape[2:] == (40, 60)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": "3,4"}, "size must be a number of pixels or HEIGHTxWIDTH"),
        ({"crop": "8"}, "crop must lie in"),
        ({"lr": -1.0}, "lr must be above 0"),
        ({"epochs": 0}, "epochs must lie in"),
        ({"pretrained": True}, "pretrained needs an arch that has weights"),
        ({"weights": "X", "arch": "mobilenet_v2"}, "weights needs --pretrained"),
        ({"valid_pct": 1.0}, "valid_pct must lie in"),
    ],
)
def test_wrong_options_are_named(options, said):
    with pytest.raises(ConfigError, match=said):
        Options(**options)


def test_a_wrong_name_stops_before_anything_is_written(rectangles, tmp_path):
    for wrong, said in (({"arch": "mobilenet_v9"}, "did you mean"), ({"loss": "dise"}, "did you mean 'dice'")):
        with pytest.raises(ConfigError, match=said):
            run(
                Options(
                    data=str(rectangles(9)) if wrong.get("arch") else str(tmp_path / "data"),
                    out=str(tmp_path / "o"),
                    **wrong,
                )
            )
        assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_the_embedded_scenes_are_learned(tmp_path):
    assert run(Options(quick=True, out=str(tmp_path)))["miou"] >= 0.8


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not (SHARED / "data" / "camvid").exists(), reason="needs ../shared/data/camvid")
def test_street_scenes_beat_the_simple_rules(tmp_path):
    names = "sky,building,pole,road,pavement,tree,sign,fence,car,pedestrian,bicyclist"
    options = Options(
        data=str(SHARED / "data" / "camvid"), classes=names, ignore=11, size="96x128", epochs=2, out=str(tmp_path)
    )
    assert run(options)["miou"] > 0.2
