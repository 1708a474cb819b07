"""Pictures: what they hold, that they are drawn without global state, and that they are written whole."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from common.errors import ConfigError
from common.show import Picture, learning_curves, line_figure, matrix_figure, show_batch, show_results
from common.train import Trainer, TrainerOptions


def pixels(figure):
    return np.asarray(Image.open(io.BytesIO(figure.png())).convert("RGB"))


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


@pytest.fixture(scope="module")
def trainer(loaders):
    from applications.classification import make_task
    from applications.classification.model import create_model

    options = TrainerOptions(device="cpu", progress=False)
    made = Trainer(create_model("small_resnet", 2), loaders, make_task(loaders), options)
    made.fit(2, 1e-2)
    return made


def test_a_picture_is_a_png_that_a_notebook_shows(loaders):
    figure = show_batch(loaders.train, max_n=4)
    assert isinstance(figure, Picture)
    assert figure._repr_png_() == figure.png()
    assert pixels(figure).std() > 10


@pytest.mark.parametrize(("max_n", "nrows", "drawn"), [(4, None, 4), (3, 1, 3), (100, None, 16), (1, None, 1)])
def test_a_batch_is_drawn_with_its_labels(loaders, max_n, nrows, drawn):
    figure = show_batch(loaders.train, max_n=max_n, nrows=nrows)
    ids = loaders.train.order.places(0, 0, drawn).tolist()
    assert titles(figure) == [("cat", "dog")[i % 2] for i in ids]
    if nrows is not None:
        assert figure.axes[0].get_subplotspec().get_gridspec().nrows == nrows


def test_a_batch_is_drawn_as_the_model_gets_it(loaders):
    figure = show_batch(loaders.train, max_n=4, epoch=3)
    batch = loaders.train.with_options(batch_size=4).one_batch(3)
    block = loaders.blocks[0]
    for axes, x in zip(figure.axes, batch.x, strict=True):
        assert np.array_equal(axes.get_images()[0].get_array(), block.decode(x))


def test_one_sample_is_drawn_as_augmented_in_successive_epochs(loaders):
    figure = show_batch(loaders.train, max_n=6, unique=True)
    arrays = [np.asarray(axes.get_images()[0].get_array()) for axes in figure.axes]
    assert len(set(titles(figure))) == 1
    assert len({a.tobytes() for a in arrays}) > 3


def test_drawing_leaves_no_figure_behind_in_pyplot(loaders):
    import matplotlib.pyplot as plt

    plt.close("all")
    show_batch(loaders.train).png()
    assert plt.get_fignums() == []


def test_drawing_leaves_the_loader_as_it_was(loaders):
    before = loaders.train.options, loaders.train.epoch
    show_batch(loaders.train, unique=True)
    assert (loaders.train.options, loaders.train.epoch) == before


def test_a_foreign_loader_is_refused():
    with pytest.raises(ConfigError, match="show_batch needs a loader that a DataBlock made"):
        show_batch(DataLoader(TensorDataset(torch.zeros(2))))


def test_results_show_truth_and_prediction_and_mark_the_wrong_ones(trainer, loaders):
    figure = show_results(trainer, max_n=8)
    records = trainer.get_preds("valid").records(trainer.task)
    for axes, record, row in zip(figure.axes[:8], records, loaders.valid.rows.tolist(), strict=True):
        truth = ("cat", "dog")[row % 2]
        assert axes.get_title().startswith(f"{truth} / {record['label']} ")
        assert axes.title.get_color() == ("black" if truth == record["label"] else "crimson")


def test_results_of_named_samples_show_their_loss(trainer):
    outputs = trainer.get_preds("valid")
    figure = show_results(trainer, ids=[21, 17])
    losses = dict(zip(outputs.ids.tolist(), outputs.losses.tolist(), strict=True))
    assert [axes.get_title().split("loss ")[1] for axes in figure.axes] == [f"{losses[21]:.2f}", f"{losses[17]:.2f}"]


@pytest.mark.parametrize("part", ["tets", "test"])
def test_results_of_a_part_that_is_not_there_are_refused(trainer, part):
    with pytest.raises(ConfigError, match="test"):
        show_results(trainer, part=part)


def test_a_matrix_shows_its_counts():
    figure = matrix_figure([[5, 1], [0, 3]], ["cat", "dog"])
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["5", "1", "0", "3"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["cat", "dog"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_a_normalised_matrix_shows_shares_of_each_row_even_an_empty_one():
    figure = matrix_figure([[3, 1], [0, 0]], ["cat", "dog"], normalize=True)
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.75", "0.25", "0.00", "0.00"]


def test_curves_hold_the_numbers_of_the_history():
    history = [{"epoch": i, "train_loss": 1 / (i + 1), "valid_loss": 0.5, "note": "x"} for i in range(3)]
    axes = learning_curves(history, ["train_loss", "valid_loss", "absent"]).axes[0]
    lines = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    assert list(lines) == ["train_loss", "valid_loss"]
    assert list(lines["train_loss"]) == [1, 1 / 2, 1 / 3]


def test_curves_of_nothing_are_an_empty_picture():
    assert learning_curves([], ["train_loss"]).png().startswith(b"\x89PNG")


def test_lines_may_have_marks_on_a_logarithmic_axis():
    figure = line_figure({"loss": ([1e-3, 1e-1], [2, 1])}, "rate", "loss", log_x=True, marks={"valley": 1e-2})
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert [line.get_label() for line in axes.get_lines()] == ["loss", "valley 1.00e-02"]


def test_a_picture_is_written_where_it_is_asked_for(tmp_path, loaders):
    figure = show_batch(loaders.train, max_n=2, path=tmp_path / "deep" / "a.png")
    assert (tmp_path / "deep" / "a.png").read_bytes() == figure.png()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.png"]
