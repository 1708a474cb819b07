"""The folder of checkpoints: what stays, what goes, and what is said when one cannot be written."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common import tensors
from common.errors import CheckpointError
from common.train import checkpoint as ckpt
from common.train.checkpoint import add_checkpoint, is_sound, newest_sound
from common.train.hooks import Hook

ROOT = Path(__file__).resolve().parents[3]


def add(root, step, value=0.0, **state):
    return add_checkpoint(root, step, {"model": {"w": torch.full((3,), value)}}, {"step": step, **state})


def names(root):
    return sorted(path.name for path in root.iterdir())


def test_the_two_newest_are_kept(tmp_path):
    for step in (4, 8, 12, 100):
        add(tmp_path, step)
    assert names(tmp_path) == ["checkpoint-000000012", "checkpoint-000000100"]


def test_leftovers_of_killed_writes_go_at_the_next_write(tmp_path):
    for name in (".checkpoint-000000004.x1.partial", ".checkpoint-000000004.x2.partial.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    add(tmp_path, 8)
    assert names(tmp_path) == ["checkpoint-000000008"]


def test_the_same_state_is_not_written_again(tmp_path, monkeypatch):
    folder = add(tmp_path, 4, epoch=1)
    monkeypatch.setattr(ckpt, "write_checkpoint", lambda *a: pytest.fail("written again"))
    assert add(tmp_path, 4, epoch=1) == folder


def test_a_second_checkpoint_of_a_step_leaves_the_sound_first_one(tmp_path):
    first = add(tmp_path, 4, 1.0, cursor=4)
    second = add(tmp_path, 4, 2.0, cursor=0)
    assert first != second
    assert is_sound(first)
    assert newest_sound(tmp_path)[0] == second
    assert add(tmp_path, 5) > second


def test_a_damaged_checkpoint_of_the_step_is_written_anew(tmp_path):
    folder = add(tmp_path, 4, 1.0)
    (folder / "state.json").write_text("{}")
    assert add(tmp_path, 4, 2.0) == folder
    assert newest_sound(tmp_path)[1]["model"]["w"].tolist() == [2, 2, 2]


def test_checkpoints_of_a_course_that_was_left_go(tmp_path):
    for step in (4, 8):
        add(tmp_path, step)
    add(tmp_path, 6, 5.0)  # resumed from 4
    assert names(tmp_path) == ["checkpoint-000000004", "checkpoint-000000006"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("place", ["save_file", "fsync", "rename", "mkdtemp"])
def test_a_write_that_fails_is_a_sentence_and_leaves_the_older_one(tmp_path, monkeypatch, number, place):
    import tempfile

    from common import files

    good = add(tmp_path, 4, 1.0)

    def fails(*arguments, **options):
        raise OSError(number, os.strerror(number), str(arguments[0]) if arguments else None)

    home = {"save_file": tensors, "fsync": os, "rename": files.os, "mkdtemp": tempfile}[place]
    with monkeypatch.context() as patch, pytest.raises(CheckpointError) as said:  # noqa: PT012
        patch.setattr(home, place, fails)
        add(tmp_path, 8)
    text = str(said.value)
    advice = ": free some space and go on with resume" if number == errno.ENOSPC else ""
    assert text == (
        f"{tmp_path / 'checkpoint-000000008'} cannot be written: {os.strerror(number)}{advice}; "
        f"{good} is the newest good one"
    )
    assert names(tmp_path) == ["checkpoint-000000004"]
    assert is_sound(good)


def test_a_failed_write_ends_the_fit_which_then_resumes(tmp_path, monkeypatch, image_trainer, same):
    whole = image_trainer()
    whole.fit_one_cycle(3, 2e-2)
    options = {"out": tmp_path, "checkpoint": True}
    write = ckpt.write_checkpoint

    def full(folder, tensors, state):
        if state["epoch"] == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(folder, tensors, state)

    with monkeypatch.context() as patch:
        patch.setattr(ckpt, "write_checkpoint", full)
        with pytest.raises(
            CheckpointError, match=r"No space left on device.*checkpoint-000000004 is the newest good one"
        ):
            image_trainer(**options).fit_one_cycle(3, 2e-2)
    again = image_trainer(**options)
    again.resume(tmp_path / "checkpoints")
    again.fit_one_cycle(3, 2e-2)
    assert same(again.model.state_dict(), whole.model.state_dict())


def test_a_folder_that_is_a_file_is_a_sentence(tmp_path, image_trainer):
    (tmp_path / "checkpoints").write_text("mine")
    with pytest.raises(CheckpointError, match="checkpoint-000000004 cannot be written: "):
        image_trainer(out=tmp_path, checkpoint=True).fit(1)
    assert (tmp_path / "checkpoints").read_text() == "mine"


def test_save_within_a_fit_is_a_place_to_go_on_from(tmp_path, image_trainer, same):
    class Save(Hook):
        def epoch_end(self, trainer, record):
            if record["epoch"] == 1:
                trainer.save(tmp_path / "by_hand")

    whole = image_trainer(hooks=[Save()], ema_decay=0.8)
    whole.fit_one_cycle(3, 2e-2)
    again = image_trainer(ema_decay=0.8)
    again.resume(tmp_path / "by_hand")
    again.fit_one_cycle(3, 2e-2)
    assert same(again.model.state_dict(), whole.model.state_dict())


# ------------------------------------------------------------------ real disks

SCRIPT = """
import errno, os, subprocess, sys
from pathlib import Path
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from common.data import DataLoaders
from common import tensors
from common.errors import CheckpointError
from common.train import RegressionTask, Trainer, TrainerOptions
from common.train.checkpoint import checkpoints, is_sound
from common.train.hooks import Hook

disk = Path("disk")
data = DataLoader(TensorDataset(torch.ones(32, 8), torch.ones(32)), batch_size=8)

class Spoil(Hook):
    def epoch_end(self, trainer, record):
        if record["epoch"] == 1 and sys.argv[1] == "full":
            with open(disk / "filler", "wb", buffering=0) as stream:
                try:
                    while True:
                        stream.write(b"0" * 512)
                except OSError as error:
                    assert error.errno == errno.ENOSPC
        elif record["epoch"] == 1:
            subprocess.run(["mount", "-o", "remount,ro", "disk"], check=True)

def run(hooks):
    torch.manual_seed(0)
    options = TrainerOptions(device="cpu", progress=False, out="log", checkpoint=True)
    trainer = Trainer(nn.Linear(8, 1), DataLoaders(data, data), RegressionTask(), options, hooks=hooks)
    if checkpoints(disk):
        trainer.resume(disk)
    trainer.fit(3)
    return trainer.history[-1]["valid_loss"]

Path("log").mkdir()
os.symlink(disk.resolve(), "log/checkpoints")
try:
    run([Spoil()])
except CheckpointError as error:
    print(error)
else:
    sys.exit("nothing was said")
assert [f.name for f in checkpoints(disk)] == ["checkpoint-000000004"] and is_sound(checkpoints(disk)[0])
assert not list(disk.glob(".*partial*")), list(disk.glob(".*"))
if sys.argv[1] == "full":
    (disk / "filler").unlink()
else:
    subprocess.run(["mount", "-o", "remount,rw", "disk"], check=True)
again = run([])
import shutil
for folder in checkpoints(disk):
    shutil.rmtree(folder)
assert run([]) == again
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "says"), [("full", "No space left on device"), ("read-only", "Read-only file system")]
)
def test_a_real_disk_that_fails_leaves_the_older_checkpoint_to_go_on_from(tmp_path, kind, says):
    """A disk of its own, in a namespace of its own: root is bound by it too, as it is not by permissions."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True).returncode:
        pytest.skip("this machine lets no one mount a file system in a namespace (unshare -rm)")
    (tmp_path / "disk").mkdir()
    (tmp_path / "script.py").write_text(SCRIPT)
    mounted = 'mount -t tmpfs -o size=64k none disk && "$@"'
    done = subprocess.run(
        [unshare, "-rm", "sh", "-c", mounted, "sh", sys.executable, "script.py", kind.split("-")[0]],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "checkpoint-000000008 cannot be written: " + says in done.stdout
    assert done.stdout.strip().endswith("checkpoint-000000004 is the newest good one")
    assert len(done.stdout.strip().splitlines()) == 1
