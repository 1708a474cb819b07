"""A training that is cut within an epoch, by a fault or by a signal, goes on bit for bit as if it had not been."""

import json
import os
import signal
import threading

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from common.data import DataLoaders
from common.train import Interrupted, Trainer
from common.train.checkpoint import checkpoints, read_checkpoint
from common.train.hooks import Hook
from common.train.signals import Signals


class AtStep(Hook):
    """Does something after a step, counted over all fits."""

    def __init__(self, step, act):
        self.step, self.act = step, act

    def step_end(self, trainer, step, loss, samples):
        if trainer.step == self.step:
            self.act()


def power_cut():
    raise RuntimeError("power cut")


def signalled(number):
    return lambda: os.kill(os.getpid(), number)


def one_fit(trainer):
    trainer.fit_one_cycle(3, 2e-2)  # three epochs of four steps


OPTIONS = {
    "plain": {},
    "average": {"ema_decay": 0.8},
    "sgd, clip": {"optimizer": "sgd", "clip_norm": 0.5},
    "accumulate": {"accumulate": 2},
    "accumulate three": {"accumulate": 3, "ema_decay": 0.7},
    "bf16": {"precision": "bf16"},
    "early stop": {"early_stop": 0},
}


@pytest.fixture()
def cut_and_resumed(tmp_path, image_trainer, same, timeless):
    """Trains whole, and again with something that ends it and a resume; returns the place of the checkpoint used."""

    def run(hook, error=RuntimeError, make=image_trainer, fit=one_fit, every=1, cursor=None, **options):
        whole = make(**options)
        fit(whole)
        kept = {"out": tmp_path / "cut", "checkpoint": True, "checkpoint_every": every, **options}
        with pytest.raises(error):
            fit(make(hooks=[hook], **kept))
        again = make(**kept)
        used = read_checkpoint(checkpoints(tmp_path / "cut" / "checkpoints")[0])[1]["place"]
        assert cursor is None or used["cursor"] == cursor
        again.resume(tmp_path / "cut" / "checkpoints")
        fit(again)
        assert timeless(again.history) == timeless(whole.history)
        assert same(again.model.state_dict(), whole.model.state_dict())
        return used

    return run


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_fit_cut_within_an_epoch_is_bit_identical_to_an_uninterrupted_one(cut_and_resumed, options):
    cut_and_resumed(AtStep(7, power_cut), **options)


@pytest.mark.parametrize("step", [2, 3, 4, 5, 8, 11, 12])  # in the first step there is nothing yet to go on from
def test_a_fit_may_be_cut_at_any_step(cut_and_resumed, step):
    cut_and_resumed(AtStep(step, power_cut), ema_decay=0.8)


def test_checkpoints_within_an_epoch_come_at_steps_of_the_optimizer(tmp_path, image_trainer):
    options = {"out": tmp_path, "checkpoint": True, "checkpoint_every": 1, "accumulate": 3}
    trainer = image_trainer(hooks=[AtStep(8, power_cut)], **options)
    with pytest.raises(RuntimeError, match="power cut"):
        one_fit(trainer)
    found = [read_checkpoint(folder)[1]["place"] for folder in checkpoints(tmp_path / "checkpoints")]
    assert [(place["done"], place["cursor"]) for place in found] == [(1, 3), (1, 0)]


def torch_trainer(mlp, blobs, classes_task, quiet, data=None):
    def make(hooks=(), **options):
        x, y = blobs(64)
        items = data(x, y) if data else torch.utils.data.TensorDataset(x, y)
        train = DataLoader(items, batch_size=16, shuffle=True)
        valid = DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=16)
        return Trainer(mlp(dropout=0.3), DataLoaders(train, valid), classes_task, quiet(**options), hooks=hooks)

    return make


class Noisy(Dataset):
    """Points with noise from torch's global generator, as many data sets of others draw it."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i] + torch.randn(4), self.y[i]


@pytest.mark.parametrize("data", [None, Noisy], ids=["shuffled", "random items"])
def test_torch_loaders_go_on_within_an_epoch(cut_and_resumed, mlp, blobs, classes_task, quiet, data):
    make = torch_trainer(mlp, blobs, classes_task, quiet, data)
    cut_and_resumed(AtStep(7, power_cut), make=make, cursor=2)


# -------------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_training_leaves_a_checkpoint_to_go_on_from(cut_and_resumed, number):
    cut_and_resumed(AtStep(6, signalled(number)), Interrupted, every=None, cursor=2, ema_decay=0.8)


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.8}], ids=["plain", "average"])
def test_a_signal_in_validation_leaves_a_checkpoint_to_validate_from(cut_and_resumed, image_trainer, options):
    calls = []

    def make(hooks=(), **options):
        def metric(output, target):
            calls.append(None)
            if hooks and len(calls) == 3:  # the second batch of the second validation
                os.kill(os.getpid(), signal.SIGINT)
            return float(output.sum())

        return Trainer((made := image_trainer(**options)).model, made.dls, made.task, made.options, metrics=[metric])

    def counted(hooks=(), **options):
        calls.clear()
        return make(hooks, **options)

    used = cut_and_resumed([None], Interrupted, make=counted, every=None, cursor=4, **options)
    assert used["done"] == 1


def test_the_last_word_of_an_interruption_names_epoch_and_checkpoint(tmp_path, image_trainer):
    hooks = [AtStep(6, signalled(signal.SIGINT))]
    trainer = image_trainer(hooks=hooks, out=tmp_path, checkpoint=True)
    with pytest.raises(Interrupted) as stop:
        one_fit(trainer)
    found = stop.value
    assert (found.signal, found.epoch, found.epochs) == (signal.SIGINT, 2, 3)
    assert found.folder == tmp_path / "checkpoints" / "checkpoint-000000006"
    assert str(found) == f"stopped in epoch 2 of 3; its checkpoint is {found.folder}"


def test_without_checkpoints_an_interruption_says_so(image_trainer):
    with pytest.raises(Interrupted, match="stopped in epoch 1 of 3; no checkpoint is kept") as stop:
        one_fit(image_trainer(hooks=[AtStep(2, signalled(signal.SIGINT))]))
    assert stop.value.folder is None


def test_an_interruption_in_the_last_moment_is_not_lost(tmp_path, image_trainer):
    class AtTheEnd(Hook):
        def epoch_end(self, trainer, record):
            if record["epoch"] == 2:
                os.kill(os.getpid(), signal.SIGINT)

    trainer = image_trainer(hooks=[AtTheEnd()], out=tmp_path, checkpoint=True)
    with pytest.raises(Interrupted):
        one_fit(trainer)
    assert len(trainer.history) == 3
    again = image_trainer(out=tmp_path, checkpoint=True)
    again.resume(tmp_path / "checkpoints")
    one_fit(again)
    assert len(again.history) == 3


def test_the_same_trainer_goes_on_after_an_interruption(tmp_path, image_trainer, same):
    whole = image_trainer()
    one_fit(whole)
    hook = AtStep(6, signalled(signal.SIGINT))
    trainer = image_trainer(hooks=[hook], out=tmp_path, checkpoint=True)
    with pytest.raises(Interrupted) as stop:
        one_fit(trainer)
    hook.step = -1
    trainer.resume(stop.value.folder)
    one_fit(trainer)
    assert same(trainer.model.state_dict(), whole.model.state_dict())


def test_a_second_signal_ends_at_once():
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt) as stop:
            os.kill(os.getpid(), signal.SIGINT)
    assert not isinstance(stop.value, Interrupted)


def test_the_handlers_of_before_are_put_back(image_trainer):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    image_trainer().fit(1)
    with pytest.raises(RuntimeError, match="power cut"):
        one_fit(image_trainer(hooks=[AtStep(2, power_cut)]))
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            assert not signals.received
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_a_fit_trains_without_handlers(image_trainer):
    trainer = image_trainer()
    thread = threading.Thread(target=trainer.fit, args=(1,))
    thread.start()
    thread.join()
    assert len(trainer.history) == 1


# ------------------------------------------------------------- hooks, the log


def test_early_stop_counts_on_over_a_resume(cut_and_resumed, image_trainer):
    def stops(trainer):
        trainer.fit(12, 0.3)  # a rate at which the validation loss soon rises

    cut_and_resumed(AtStep(10, power_cut), fit=stops, early_stop=2)


def test_a_stop_that_was_decided_stays_decided(tmp_path, image_trainer, same):
    class CutAtTheEnd(Hook):
        def fit_end(self, trainer):
            power_cut()

    def stops(trainer):
        trainer.fit(12, 0.3)

    whole = image_trainer(early_stop=1)
    stops(whole)
    options = {"early_stop": 1, "out": tmp_path, "checkpoint": True}
    with pytest.raises(RuntimeError, match="power cut"):
        stops(image_trainer(hooks=[CutAtTheEnd()], **options))
    again = image_trainer(**options)
    again.resume(tmp_path / "checkpoints")
    stops(again)
    assert len(again.history) == len(whole.history) < 12
    assert same(again.model.state_dict(), whole.model.state_dict())


@pytest.mark.parametrize("torn", ["", '{"event": "ep'])
def test_the_log_of_a_resumed_run_names_each_epoch_once(tmp_path, cut_and_resumed, torn):
    log = tmp_path / "cut" / "events.jsonl"

    class Tear(Hook):
        def epoch_end(self, trainer, record):
            if record["epoch"] == 1:  # the log has this epoch, the checkpoints do not
                with open(log, "a") as stream:
                    stream.write(torn)
                power_cut()

    cut_and_resumed(Tear())
    found = [json.loads(line) for line in log.read_text().splitlines()]
    assert [e["event"] for e in found] == ["fit_start", "epoch", "resume", "fit_start", "epoch", "epoch", "fit_end"]
    assert [e["epoch"] for e in found if e["event"] == "epoch"] == [0, 1, 2]


def test_another_log_is_only_added_to(tmp_path, image_trainer):
    first = image_trainer(out=tmp_path / "a", checkpoint=True)
    one_fit(first)
    (tmp_path / "b").mkdir()
    other = '{"event": "start", "mine": true, "long": "' + "x" * 2000 + '"}\n'
    (tmp_path / "b" / "events.jsonl").write_text(other + '{"half')
    again = image_trainer(out=tmp_path / "b", checkpoint=True)
    again.resume(tmp_path / "a" / "checkpoints")
    one_fit(again)
    text = (tmp_path / "b" / "events.jsonl").read_text()
    assert text.startswith(other)
    assert [json.loads(line)["event"] for line in text.splitlines()] == ["start", "resume", "fit_start", "fit_end"]


# ---------------------------------------------------------------- what changed


@pytest.fixture()
def cut_run(tmp_path, image_trainer):
    with pytest.raises(RuntimeError, match="power cut"):
        one_fit(image_trainer(hooks=[AtStep(7, power_cut)], out=tmp_path, checkpoint=True, checkpoint_every=1))
    return tmp_path / "checkpoints"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"weight_decay": 0.1}, "weight_decay was 0.01 and is 0.1"),
        ({"optimizer": "sgd"}, "optimizer was adamw and is sgd"),
        ({"precision": "bf16"}, "precision was no and is bf16"),
        ({"accumulate": 2}, "accumulate was 1 and is 2"),
        ({"ema_decay": 0.9}, "ema_decay was None and is 0.9"),
    ],
)
def test_a_changed_option_is_said_and_training_goes_on(cut_run, image_trainer, options, says):
    trainer = image_trainer(**options)
    with pytest.warns(UserWarning, match=f"checkpoint-000000006 was made otherwise, and training goes on: {says}"):
        trainer.resume(cut_run)
    one_fit(trainer)
    assert len(trainer.history) == 3


@pytest.mark.parametrize(
    ("loaders", "says"),
    [
        ({"bs": 4}, "batch_size was 8 and is 4"),
        ({"count": 40}, "order of train is another one; order of valid is another one; train items was 36 and is 30"),
        ({"augment": False}, "blocks and transforms is another one"),
    ],
)
def test_changed_data_are_said_and_training_goes_on(cut_run, image_trainer, image_loaders, loaders, says):
    trainer = image_trainer(loaders=image_loaders(**loaders))
    with pytest.warns(UserWarning, match=says):
        trainer.resume(cut_run)
    one_fit(trainer)
    assert len(trainer.history) == 3


def test_a_changed_batch_size_keeps_the_place_among_the_samples(cut_run, image_trainer, image_loaders):
    seen = []

    class Numbers(Hook):
        def step_end(self, trainer, step, loss, samples):
            seen.append((trainer.epoch, step))

    trainer = image_trainer(loaders=image_loaders(bs=4), hooks=[Numbers()])
    with pytest.warns(UserWarning, match="batch_size"):
        trainer.resume(cut_run)  # two of the four batches of 8 of the second epoch were done
    one_fit(trainer)
    assert seen[0] == (1, 4)


@pytest.mark.parametrize(
    ("fit", "says"),
    [
        (lambda t: t.fit_one_cycle(5, 2e-2), "epochs was 3 and is 5"),
        (lambda t: t.fit_one_cycle(3, 1e-2), r"lr was \[0.02, 0.02, 0.02\] and is \[0.01"),
        (lambda t: t.fit(3, 2e-2), "schedule was .*OneCycle.* and is .*Constant"),
    ],
)
def test_a_changed_fit_is_said_and_training_goes_on(cut_run, image_trainer, fit, says):
    trainer = image_trainer()
    trainer.resume(cut_run)
    with pytest.warns(UserWarning, match=says):
        fit(trainer)
    assert len(trainer.history) >= 3
