"""Hooks: one contract for every one of them, and what each writes."""

import inspect
import io
import json
import re
import time
from importlib import import_module

import pytest
import torch

from common.data import DataLoaders
from common.errors import ConfigError
from common.train import Trainer
from common.train.hooks import EarlyStop, EventLog, Hook, ProgressBar, TensorBoardLog

MOMENTS = ("fit_start", "epoch_start", "step_end", "epoch_end", "fit_end")
STATE = ("state_dict", "load_state_dict")
EXAMPLES = {
    ProgressBar: lambda folder: ProgressBar(io.StringIO()),
    EventLog: lambda folder: EventLog(folder / "events.jsonl"),
    TensorBoardLog: lambda folder: TensorBoardLog(folder / "board"),
    EarlyStop: lambda folder: EarlyStop(100),
}


def discovered():
    """Every Hook subclass of the project itself."""
    for name in ("common.train", "applications.classification", "recipes.run"):
        import_module(name)
    found, waiting = [], [Hook]
    while waiting:
        for cls in waiting.pop().__subclasses__():
            waiting.append(cls)
            if cls.__module__.split(".")[0] in ("common", "applications", "recipes"):
                found.append(cls)
    return sorted(set(found), key=lambda cls: cls.__qualname__)


HOOKS = discovered()


def strict_json(line):
    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    return json.loads(line, parse_constant=refuse)


def events(path):
    return [strict_json(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(autouse=True)
def warnings_of_tensorboard(recwarn):
    """TensorBoard's own imports warn; that is not this project's."""
    return recwarn


# --------------------------------------------------------------- the contract


def test_there_are_at_most_seven_moments_and_they_are_these():
    own = [name for name, value in vars(Hook).items() if inspect.isfunction(value) and not name.startswith("_")]
    assert tuple(own) == MOMENTS + STATE
    assert len(MOMENTS) <= 7


def test_every_hook_of_the_project_has_an_example_here():
    assert set(HOOKS) == set(EXAMPLES)


@pytest.mark.parametrize("cls", HOOKS)
def test_a_hook_overrides_moments_with_their_own_signature(cls):
    overridden = [name for name in MOMENTS if getattr(cls, name) is not getattr(Hook, name)]
    assert overridden
    for name in overridden:
        assert list(inspect.signature(getattr(cls, name)).parameters) == list(
            inspect.signature(getattr(Hook, name)).parameters
        )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("cls", HOOKS)
def test_a_hook_leaves_training_as_it_is(cls, tmp_path, mlp, blobs, loaders, classes_task, quiet, same):
    runs = []
    for hooks in ([], [EXAMPLES[cls](tmp_path)]):
        trainer = Trainer(mlp(dropout=0.3), loaders(*blobs()), classes_task, quiet(ema_decay=0.9), hooks=hooks)
        trainer.fit(2, 1e-2)
        trainer.fit_one_cycle(1, 1e-2)  # a second fit with the same hook
        runs.append(trainer)
    assert same(runs[0].model.state_dict(), runs[1].model.state_dict())
    assert len(runs[1].history) == 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("cls", HOOKS)
def test_a_hook_outlives_a_fit_that_fails(cls, tmp_path, mlp, blobs, loaders, classes_task, quiet):
    class PowerCut(Hook):
        armed = True

        def step_end(self, trainer, step, loss, samples):
            if self.armed:
                raise RuntimeError("power cut")

    cut = PowerCut()
    trainer = Trainer(mlp(), loaders(*blobs()), classes_task, quiet(), hooks=[EXAMPLES[cls](tmp_path), cut])
    with pytest.raises(RuntimeError, match="power cut"):
        trainer.fit(1, 1e-2)
    cut.armed = False
    trainer.fit(1, 1e-2)
    assert len(trainer.history) == 1


def test_moments_come_in_their_order(mlp, blobs, loaders, classes_task, quiet):
    told = []

    class Recorder(Hook):
        def fit_start(self, trainer, epochs, steps):
            told.append(("fit_start", epochs, steps))

        def epoch_start(self, trainer, epoch):
            told.append(("epoch_start", epoch))

        def step_end(self, trainer, step, loss, samples):
            assert isinstance(loss, torch.Tensor)
            assert not loss.requires_grad
            told.append(("step_end", step, samples))

        def epoch_end(self, trainer, record):
            told.append(("epoch_end", record["epoch"]))

        def fit_end(self, trainer):
            told.append(("fit_end",))

    trainer = Trainer(mlp(), loaders(*blobs(24)), classes_task, quiet(), hooks=[Recorder()])
    trainer.fit(2, 1e-3)
    epoch = [("step_end", 0, 16), ("step_end", 1, 8)]
    assert told == [
        ("fit_start", 2, 2),
        *[("epoch_start", 0), *epoch, ("epoch_end", 0)],
        *[("epoch_start", 1), *epoch, ("epoch_end", 1)],
        ("fit_end",),
    ]


# -------------------------------------------------------------------- events


def test_every_line_of_the_events_is_json(tmp_path, mlp, blobs, loaders, classes_task, quiet):
    trainer = Trainer(mlp(), loaders(*blobs()), classes_task, quiet(out=tmp_path / "run"))
    trainer.fit(2, 1e-2)
    trainer.fit(1, 1e-3)
    found = events(tmp_path / "run" / "events.jsonl")
    names = [event["event"] for event in found]
    assert names == ["fit_start", "epoch", "epoch", "fit_end", "fit_start", "epoch", "fit_end"]
    assert [event["epoch"] for event in found if event["event"] == "epoch"] == [0, 1, 2]
    for event, record in zip((e for e in found if e["event"] == "epoch"), trainer.history, strict=True):
        assert {k: v for k, v in event.items() if k not in ("event", "time")} == record
    times = [event["time"] for event in found]
    assert times == sorted(times)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_not_a_number_leaves_the_events_json(
    tmp_path, mlp, blobs, loaders, classes_task, quiet, value
):
    def odd(output, target):
        return value

    options = quiet(out=tmp_path, checkpoint=True)
    trainer = Trainer(mlp(), loaders(*blobs()), classes_task, options, metrics=[odd])
    trainer.fit(1, 1e-2)
    assert [event["event"] for event in events(tmp_path / "events.jsonl")] == ["fit_start", "epoch", "fit_end"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_holds_the_numbers_of_every_epoch(tmp_path, mlp, blobs, loaders, classes_task, quiet):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    trainer = Trainer(mlp(), loaders(*blobs()), classes_task, quiet(out=tmp_path, tensorboard=True))
    trainer.fit(2, 1e-2)
    board = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name in ("train_loss", "valid_loss", "accuracy"):
        found = [(event.step, event.value) for event in board.Scalars(name)]
        assert found == [(r["epoch"], pytest.approx(r[name], rel=1e-5)) for r in trainer.history]


# ------------------------------------------------------------------ progress


def progress(trainer_of, fits):
    stream = io.StringIO()
    trainer = trainer_of(ProgressBar(stream))
    for fit in fits:
        fit(trainer)
    return stream.getvalue(), trainer


@pytest.fixture()
def shown(mlp, blobs, loaders, classes_task, quiet):
    def make(bar, metrics=None):
        return Trainer(mlp(), loaders(*blobs()), classes_task, quiet(), hooks=[bar], metrics=metrics)

    return make


def test_in_a_pipe_there_is_one_line_an_epoch_and_no_control_character(shown):
    text, trainer = progress(shown, [lambda t: t.fit(3, 1e-2)])
    lines = text.splitlines()
    assert len(lines) == 1 + 3 + 1
    assert lines[0].split() == ["epoch", "train_loss", "valid_loss", "accuracy", "seconds"]
    for line, record in zip(lines[1:-1], trainer.history, strict=True):
        cells = line.split()
        assert int(cells[0]) == record["epoch"]
        assert float(cells[1]) == pytest.approx(record["train_loss"], abs=1e-4)
        assert float(cells[3]) == pytest.approx(record["accuracy"], abs=1e-4)
    assert text.replace("\n", "").isprintable()


def test_the_last_line_says_how_long_the_loop_waited_for_data(mlp, blobs, classes_task, quiet):
    class Slow(torch.utils.data.TensorDataset):
        def __getitem__(self, index):
            time.sleep(0.002)
            return super().__getitem__(index)

    slow = torch.utils.data.DataLoader(Slow(*blobs(64)), batch_size=16)
    stream = io.StringIO()
    trainer = Trainer(mlp(), DataLoaders(slow), classes_task, quiet(), hooks=[ProgressBar(stream)])
    trainer.fit(2, 1e-2)
    waited = [record["wait_seconds"] for record in trainer.history]
    assert all(0.128 <= seconds <= record["seconds"] for seconds, record in zip(waited, trainer.history, strict=True))
    last = stream.getvalue().splitlines()[-1]
    found = re.fullmatch(r"the device waited (\d+\.\d) s of (\d+\.\d) s \((\d+) %\) for data", last)
    assert float(found[1]) == pytest.approx(sum(waited), abs=0.051)
    assert 50 < int(found[3]) <= 100


def test_many_metrics_still_take_one_line_an_epoch(shown):
    def named(name):
        def metric(output, target):
            return 0.5

        metric.__name__ = name
        return metric

    metrics = [named(f"a_rather_long_name_{i}") for i in range(14)]
    text, _ = progress(lambda bar: shown(bar, metrics), [lambda t: t.fit(2, 1e-2)])
    assert len(text.splitlines()) == 1 + 2 + 1


def test_in_a_terminal_the_bar_shows_loss_rate_and_time_left(shown, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    bar = ProgressBar(stream)
    trainer = shown(bar)
    seen = []

    class Look(Hook):
        def step_end(self, trainer, step, loss, samples):
            bar.shown = -1.0  # as if long ago: every step is drawn
            if step:
                seen.append((bar.bar.tasks[0].completed, bar.bar.tasks[0].fields["note"]))

    trainer.hooks = [Look(), bar]
    trainer.fit(2, 1e-2)
    assert bar.bar is None
    assert seen[-1][0] == 11  # of 2 epochs of 6 steps, all but the last one
    assert "loss " in seen[-1][1]
    assert "items/s" in seen[-1][1]
    assert "epoch 2/2" in stream.getvalue()


def test_progress_goes_to_standard_error(capsys, mlp, blobs, loaders, classes_task, quiet):
    Trainer(mlp(), loaders(*blobs()), classes_task, quiet(progress=True)).fit(1, 1e-2)
    said = capsys.readouterr()
    assert said.out == ""
    assert "train_loss" in said.err


# ---------------------------------------------------------------- early stop


def test_early_stop_on_a_number_that_is_not_there_names_the_near_one(shown):
    trainer = shown(EarlyStop(1, monitor="valid_los"))
    with pytest.raises(ConfigError, match="'valid_los'.*did you mean 'valid_loss'"):
        trainer.fit(1, 1e-2)


def test_early_stop_may_wait_for_a_number_to_rise(shown):
    trainer = shown(EarlyStop(0, monitor="accuracy", lower=False))
    trainer.fit(30, 1e-2)
    accuracies = [record["accuracy"] for record in trainer.history]
    assert len(accuracies) < 30
    assert accuracies[-1] <= accuracies[-2] == max(accuracies)
