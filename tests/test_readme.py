"""The README is true: its script has at most twelve lines and runs as it stands; its links and commands exist."""

import ast
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
SHARED = ROOT.parent / "shared"
FLOWERS = SHARED / "data" / "flowers" / "train"


def script():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    return code


def test_the_script_has_at_most_twelve_lines():
    assert len([line for line in script().splitlines() if line.strip()]) <= 12


@pytest.mark.data
@pytest.mark.skipif(not FLOWERS.is_dir(), reason="the shared flowers are not beside the project")
def test_the_script_runs_on_a_folder_of_photos(tmp_path, monkeypatch, capsys):
    for folder in sorted(FLOWERS.iterdir()):
        (tmp_path / "photos" / folder.name).mkdir(parents=True)
        for photo in sorted(folder.glob("*.jpg"))[:9]:
            shutil.copy(photo, tmp_path / "photos" / folder.name)
    shutil.copy(photo, tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(SHARED / "weights" / "torch_home"))
    exec(compile(script(), "README.md", "exec"), {})  # noqa: S102
    record = ast.literal_eval(capsys.readouterr().out.strip().splitlines()[-1])
    assert record["label"] in {folder.name for folder in FLOWERS.iterdir()}
    assert sum(record["probabilities"].values()) == pytest.approx(1)
    assert (tmp_path / "bundle" / "bundle.json").exists()


def examples():
    for package in ("applications",):  # those of common need a folder, a bundle or loaders of the reader's
        for page in sorted((ROOT / package).rglob("README.md")):
            for i, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)):
                yield pytest.param(code, id=f"{page.parent.relative_to(ROOT)}-{i}")


@pytest.mark.slow
@pytest.mark.parametrize("code", list(examples()))
def test_the_example_of_a_folders_page_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102


@pytest.mark.parametrize(
    "page", sorted(p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*.md") if ".venv" not in p.parts)
)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text("utf-8")):
        if not target.startswith("http"):
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_the_commands_of_the_readme_are_targets_of_the_makefile():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"^make (\w+)", README, re.MULTILINE)) <= targets


def test_every_folder_of_the_tree_exists():
    tree = README.split("## Where things are")[1].split("```")[1]
    for name in re.findall(r"^(\w+)/", tree, re.MULTILINE):
        assert (ROOT / name).is_dir(), name
