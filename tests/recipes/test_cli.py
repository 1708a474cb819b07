"""The command line as a new user tries it: help, lists, mistakes, a full disk, Ctrl-C."""

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

OK_PREFIX = "cookbook: error: "


def sentence(found, *, code=None):
    """Checks that a failed command said one line, and returns it."""
    got, out, err = found
    assert got not in (0, None)
    assert code is None or got == code
    assert "Traceback" not in out + err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith(OK_PREFIX)
    assert "COOKBOOK_DEBUG" not in lines[0], "an error of no kind that was foreseen"
    assert out == ""
    return lines[0]


def left(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


# --------------------------------------------------------------- help and list


def test_help_answers_in_half_a_second(cookbook, tmp_path):
    def used():  # the processor's seconds of all child processes: a neighbour's work does not count
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        return spent.ru_utime + spent.ru_stime

    times = []
    for _ in range(5):
        before = used()
        done = subprocess.run([*cookbook, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        times.append(used() - before)
        assert done.returncode == 0
        assert all(verb in done.stdout for verb in ("list", "demo", "run", "evaluate", "predict"))
    assert min(times) < 0.5


@pytest.mark.parametrize("verb", ["list", "demo", "run", "evaluate", "predict"])
def test_every_verb_has_help(here, verb):
    code, out, err = here(verb, "--help")
    assert (code, err) == (0, "")
    assert f"cookbook {verb}" in out


def test_a_recipes_options_have_help_with_their_defaults(here):
    import dataclasses

    from recipes.classification import Options

    code, out, _ = here("run", "classification", "--help")
    assert code == 0
    for field in dataclasses.fields(Options):
        assert f"--{field.name.replace('_', '-')}" in out
    assert "(default small_resnet)" in " ".join(out.split())


def test_list_names_every_recipe_once(here):
    from recipes.discovery import recipe_names

    code, out, _ = here("list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == recipe_names()
    assert {"classification", "detection", "segmentation", "tabular"} <= set(recipe_names())


def test_every_recipe_keeps_the_contract():
    from recipes.discovery import find_recipe, recipe_names, summary
    from recipes.options import CommonOptions

    for name in recipe_names():
        recipe = find_recipe(name)
        assert issubclass(recipe.Options, CommonOptions)
        assert callable(recipe.run)
        assert summary(recipe).endswith(".")


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "clasification"], "there is no recipe 'clasification': did you mean classification?"),
        (["rnu", "classification"], "'rnu'"),
        ([], "VERB"),
        (["run"], "RECIPE"),
        (["run", "classification", "--epoch", "2"], "--epoch is not an option here: did you mean --epochs"),
        (["run", "classification", "--epcohs=2"], "--epcohs=2 is not an option here: did you mean --epochs"),
        (["run", "classification", "--epochs", "two"], "--epochs: invalid int value: 'two'"),
        (["run", "classification", "--epochs"], "--epochs: expected one argument"),
        (["run", "classification", "extra"], "extra"),
        (["evaluate", "--jsn", "b"], "--jsn"),
        (["predict", "bundle"], "INPUT"),
        (["run", "classification", "--arch", "resnet81"], "arch has no option 'resnet81': did you mean 'resnet18'"),
        (["run", "classification", "--arch", "mobilenetv2"], "did you mean 'mobilenet_v2'"),
        (["run", "classification", "--precision", "bf61"], "precision has no option 'bf61': did you mean 'bf16'"),
        (["run", "classification", "--precision", "fp16", "--device", "cpu"], "precision='fp16' needs a GPU"),
        (["run", "classification", "--device", "gpu"], "device has no option 'gpu'"),
        (["run", "classification", "--epochs", "0"], "epochs"),
        (["run", "classification", "--epochs", "-1"], "epochs"),
        (["run", "classification", "--lr", "0"], "lr must be above 0"),
        (["run", "classification", "--lr", "-0.1"], "lr must be above 0"),
        (["run", "classification", "--lr", "nan"], "lr must be above 0"),
        (["run", "classification", "--batch-size", "0"], "batch_size"),
        (["run", "classification", "--batch-size", "-4"], "batch_size"),
        (["run", "classification", "--size", "0"], "size"),
        (["run", "classification", "--size", "-8"], "size must lie in"),
        (["run", "classification", "--valid-pct", "0"], "valid_pct"),
        (["run", "classification", "--valid-pct", "1.5"], "valid_pct"),
        (["run", "classification", "--label-smoothing", "1"], "label_smoothing must lie in"),
        (["run", "classification", "--mixup", "-1"], "mixup|alpha"),
        (["run", "classification", "--cutmix", "1.5"], "cutmix must lie in"),
        (["run", "classification", "--pretrained"], "pretrained"),
        (["run", "classification", "--resume"], "checkpoint"),
        (["run", "classification", "--data", "nowhere"], "nowhere does not exist"),
        (["evaluate", "nowhere"], "nowhere is not a bundle"),
        (["predict", "nowhere", "x.png"], "nowhere is not a bundle"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(here, tmp_path, arguments, says):
    extra = ["--quick", "--out", "out"] if arguments[:2] == ["run", "classification"] and len(arguments) > 2 else []
    said = sentence(here(*arguments, *extra))
    assert re.search(says, said) or says in said, said
    assert left(tmp_path) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_a_gpu_that_is_not_there_is_one_sentence(here, tmp_path):
    said = sentence(here("run", "classification", "--device", "cuda", "--out", "out"))
    assert "device='cuda', but torch sees no CUDA GPU" in said
    assert left(tmp_path) == []


def test_data_at_fault_is_one_sentence_and_leaves_nothing(here, tmp_path, photos):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts" / "a").mkdir(parents=True)
    (tmp_path / "texts" / "a" / "notes.txt").write_text("x")
    photos(tmp_path / "one", ("",), ("red",), 3)
    (tmp_path / "t.csv").write_text("image,labels\na.png,x\nb.png,y\n")
    (tmp_path / "gone.csv").write_text("image,label\n" + "".join(f"{i}.png,{'xy'[i % 2]}\n" for i in range(20)))
    (tmp_path / "file.zip").write_bytes(b"PK")
    before = left(tmp_path)
    for data, says in (
        ("empty", "empty holds no images"),
        ("texts", "texts holds no images"),
        ("one", "only one class (red)"),
        ("t.csv", "t.csv has no column 'label' (label_column): did you mean 'labels'?"),
        ("gone.csv", ".png: the file does not exist"),
        ("file.zip", "file.zip is not a table"),
    ):
        said = sentence(here("run", "classification", "--data", data, "--size", 16, "--epochs", 1, "--out", "out"))
        assert says in said, data
        assert left(tmp_path) == before, data


def test_a_damaged_photo_is_named(here, tmp_path, photos):
    data = photos(tmp_path / "photos")
    bad = data / "train" / "red" / "07.png"
    bad.write_bytes(bad.read_bytes()[:300])
    said = here("run", "classification", "--data", data, "--size", 16, "--epochs", 1, "--out", "out")
    assert said[0] == 1
    assert "Traceback" not in said[2]
    assert said[2].strip().splitlines()[-1].startswith(f"{OK_PREFIX}{bad}: ")
    assert not (tmp_path / "out").exists()


def test_a_failed_run_leaves_an_older_run_as_it_was(digits_run, here, tmp_path):
    shutil.copytree(digits_run, tmp_path / "run")
    before = {
        name: (tmp_path / "run" / name).read_bytes() for name in left(tmp_path / "run") if "." in name.split("/")[-1]
    }
    for wrong in (["--precision", "bf61"], ["--lr", "-1"], ["--device", "gpu"]):
        sentence(here("run", "classification", "--epochs", 1, "--out", "run", *wrong))
        after = {name: (tmp_path / "run" / name).read_bytes() for name in before if (tmp_path / "run" / name).exists()}
        assert after.keys() == before.keys(), wrong
        assert [name for name in before if before[name] != after[name]] == [], wrong


def test_out_that_is_a_file_is_named(here, tmp_path):
    (tmp_path / "out").write_text("mine")
    said = sentence(here("run", "classification", "--epochs", 1, "--out", "out"))
    assert "out=out is a file: name a folder" in said
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("out", ["/dev/null/x", "/proc/x/y", "file/below"])
def test_out_that_cannot_be_made_is_named(here, tmp_path, out):
    (tmp_path / "file").write_text("mine")
    said = sentence(here("run", "classification", "--epochs", 1, "--out", out))
    assert out.split("/")[1 if out.startswith("/") else 0] in said
    assert left(tmp_path) == ["file"]


def test_predict_names_the_input_that_cannot_be_read(digits_run, here, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    assert "text.png: not an image" in sentence(here("predict", digits_run / "bundle", "text.png"))
    assert "nowhere.png: the file does not exist" in sentence(here("predict", digits_run / "bundle", "nowhere.png"))


def test_a_bundle_with_one_byte_changed_is_refused_by_both_verbs(digits_run, here, tmp_path):
    shutil.copytree(digits_run / "bundle", tmp_path / "b")
    file = tmp_path / "b" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(bytes(data))
    for command in (["evaluate", "b"], ["predict", "b", "x.png"]):
        assert "model.safetensors was changed" in sentence(here(*command), code=1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--split", "tset"], "split 'tset' is not there: did you mean 'test'?"),
        (["--data", "nowhere"], "nowhere does not exist"),
    ],
)
def test_evaluate_on_what_is_not_there_is_one_sentence(digits_run, here, options, says):
    assert says in sentence(here("evaluate", digits_run / "bundle", *options))


def test_evaluate_on_other_classes_names_the_first(digits_run, here, tmp_path, photos):
    data = photos(tmp_path / "photos", each=3)
    said = sentence(here("evaluate", digits_run / "bundle", "--data", data))
    assert "'blue' is not among the 10 training classes" in said


# ------------------------------------------------- a full disk, Ctrl-C, a pipe


def whole_or_absent(out):
    """Nothing half-written: no temporary file, and what is there can be read."""
    assert not [p for p in out.parent.rglob("*") if ".partial" in p.name]
    for file in out.rglob("*.json") if out.exists() else ():
        json.loads(file.read_text())
    if (out / "bundle").exists():
        from common.deploy import load

        load(out / "bundle")


def limited():
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


@pytest.mark.slow
@pytest.mark.parametrize("quick", [True, False], ids=["at the bundle", "at the first checkpoint"])
def test_a_file_that_cannot_grow_is_one_sentence(fresh, tmp_path, quick):
    done = fresh(
        "run", "classification", "--epochs", 1, "--out", "out", *(["--quick"] if quick else []),
        cwd=tmp_path, preexec_fn=limited,
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(OK_PREFIX)
    assert "Traceback" not in done.stderr
    assert "COOKBOOK_DEBUG" not in last
    whole_or_absent(tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert not (tmp_path / "out" / "bundle").exists()


MOUNT = 'mount -t tmpfs -o size="$1" none disk && shift && cd disk && "$@"; code=$?; ls -AR . > ../listing; exit $code'


SLOW = pytest.mark.slow


@pytest.mark.parametrize("size", [pytest.param("64k", marks=SLOW), "500k", pytest.param("1m", marks=SLOW)])
def test_a_disk_that_is_full_is_one_sentence(cookbook, tmp_path, size, root):
    """A disk of its own, in a namespace of its own: smaller than the events, the bundle, the pictures."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True).returncode:
        pytest.skip("this machine lets no one mount a file system in a namespace (unshare -rm)")
    (tmp_path / "disk").mkdir()
    run = ["run", "classification", "--epochs", "1", "--quick", "--out", "out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [unshare, "-rm", "sh", "-c", MOUNT, "sh", size, *cookbook, *run],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(OK_PREFIX)
    assert "No space left on device" in last
    assert "Traceback" not in done.stderr
    listing = (tmp_path / "listing").read_text()
    assert ".partial" not in listing
    assert "metrics.json" not in listing


def test_a_flush_that_fails_is_one_sentence_with_the_remedy(here, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = here("run", "classification", "--epochs", 1, "--quick", "--out", "out")
    assert code == 1
    last = err.strip().splitlines()[-1]
    assert last.startswith(OK_PREFIX)
    assert "No space left on device: free some space and run again" in last
    whole_or_absent(tmp_path / "out")
    assert left(tmp_path) == []


def stopped_by(number, cookbook, tmp_path, root, *options):
    """Sends a signal to a run after its first epoch and returns the exit code and the last line it said."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    process = subprocess.Popen(
        [*cookbook, "run", "classification", "--epochs", "200", "--out", "out", *options],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        events = tmp_path / "out" / "events.jsonl"
        deadline = time.monotonic() + 60
        begun = (
            '"event": "resume"' if "--resume" in options else '"event": "start"'
        )  # the log of the run before goes on
        while time.monotonic() < deadline and not (
            events.exists() and '"epoch"' in events.read_text().rpartition(begun)[2] and begun in events.read_text()
        ):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert "Traceback" not in out + err
    whole_or_absent(tmp_path / "out")
    return process.returncode, err.strip().splitlines()[-1]


def test_ctrl_c_ends_with_code_130_and_no_traceback(cookbook, tmp_path, root):
    code, said = stopped_by(signal.SIGINT, cookbook, tmp_path, root, "--quick")
    assert code == 130
    assert re.fullmatch(r"cookbook: stopped in epoch \d+ of 200; no checkpoint is kept", said)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_how_to_go_on_and_does(cookbook, tmp_path, root, number, code):
    (tmp_path / "my data").mkdir()
    got, said = stopped_by(number, cookbook, tmp_path, root, "--seed", "3")
    assert got == code
    going_on = re.fullmatch(r"cookbook: stopped in epoch (\d+) of 200; go on with: cookbook (.*)", said)
    epoch, command = going_on.groups()
    assert command == "run classification --epochs 200 --out out --seed 3 --resume"
    got, again = stopped_by(number, cookbook, tmp_path, root, "--seed", "3", "--resume")
    assert got == code
    later = re.fullmatch(r"cookbook: stopped in epoch (\d+) of 200; go on with: cookbook (.*)", again)
    assert int(later[1]) >= int(epoch)
    assert later[2] == command
    events = [json.loads(line) for line in (tmp_path / "out" / "events.jsonl").read_text().splitlines()]
    epochs = [event["epoch"] for event in events if event["event"] == "epoch"]
    assert epochs == list(range(len(epochs)))
    assert [event["event"] for event in events].count("start") == 1


def test_the_command_to_go_on_is_quoted_for_a_shell(here, monkeypatch):
    from pathlib import Path

    from common.train import Interrupted
    from recipes import cli

    def interrupted(_):
        raise Interrupted(signal.SIGTERM, 3, 40, Path("out"))

    monkeypatch.setitem(cli.VERBS, "run", interrupted)
    given = ("run", "classification", "--data", "my photos")
    line = "cookbook: stopped in epoch 3 of 40; go on with: cookbook run classification --data 'my photos' --resume\n"
    assert here(*given) == (143, "", line)
    assert here(*given, "--resume") == (143, "", line)


def test_a_warning_is_one_line(here, monkeypatch):
    import warnings

    from recipes import cli

    def warned(_):
        warnings.simplefilter("default")
        warnings.warn("the batch size is another one", stacklevel=1)

    monkeypatch.setitem(cli.VERBS, "list", warned)
    shown = warnings.showwarning
    assert here("list") == (0, "", "cookbook: note: the batch size is another one\n")
    assert warnings.showwarning is shown


@pytest.mark.slow
def test_progress_in_a_pipe_is_plain_lines_on_standard_error(fresh, tmp_path):
    done = fresh("run", "classification", "--epochs", 2, "--quick", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    assert lines[0].split()[:2] == ["epoch", "train_loss"]
    assert [line.split()[0] for line in lines[1:3]] == ["0", "1"]
    said = r"the device waited \d+\.\d s of \d+\.\d s \(\d+ %\) for data; augmentation runs between the steps of .*"
    assert re.fullmatch(said, lines[3])
    assert "".join(lines).isprintable()
    assert "\x1b" not in done.stdout


def test_a_reader_that_leaves_early_is_no_traceback(cookbook, tmp_path):
    command = " ".join(cookbook) + " run classification --help | head -n 1"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr


def test_an_error_that_was_not_foreseen_is_one_line_that_says_how_to_see_more(here, monkeypatch):
    from recipes import cli

    def broken(_):
        raise ZeroDivisionError("division by zero\nand more")

    monkeypatch.setitem(cli.VERBS, "list", broken)
    code, _, err = here("list")
    assert code == 1
    assert err == "cookbook: error: division by zero (ZeroDivisionError; COOKBOOK_DEBUG=1 shows where)\n"
    monkeypatch.setenv("COOKBOOK_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main(["list"])


def test_an_interrupt_in_this_process_is_code_130(here, monkeypatch):
    from recipes import cli

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.VERBS, "list", interrupted)
    assert here("list") == (130, "", "cookbook: stopped\n")


def test_help_imports_nothing_heavy(tmp_path, root):
    code = (
        "import sys; sys.argv = ['cookbook', '--help']\n"
        "from recipes.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pandas', 'PIL', 'matplotlib', 'sklearn', 'rich', 'accelerate'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)},
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr
