"""The README is true: its script has at most twelve lines and runs as it stands; its links and commands exist."""

import ast
import re
import shlex
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


PAGES = sorted(
    p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*.md") if ".venv" not in p.parts and "runs" not in p.parts
)
FOLDERS = ("common", "applications", "recipes", "tests", "datasets")


def names_of_files(text):
    """What a page names as a file or folder of the project: a path from its root, or a benchmark by its name."""
    for found in re.findall(r"`([^`\s]+)`", text):
        if re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/[\w./-]*[\w/]", found):
            yield found
        elif re.fullmatch(r"(?:bench|test)_\w+\.py", found):
            yield f"**/{found}"


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_files_that_a_page_names_are_there(page):
    here = (ROOT / page).parent
    for name in names_of_files((ROOT / page).read_text("utf-8")):
        found = any(ROOT.glob(name)) or any(here.glob(name)) if "*" in name else (ROOT / name).exists()
        assert found, f"{page}: {name}"


def commands():
    """Every line of a code block of a page that starts with the program, with what stands before it left out."""
    for page in PAGES:
        for block in re.findall(r"```(?:sh|bash|)\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if found := re.match(r"(?:\w+=\S+ )*(cookbook .*)", line.strip()):
                    yield pytest.param(
                        re.split(r"\s{3,}|\s#\s", found.group(1))[0], id=f"{page}: {found.group(1)[:50]}"
                    )


@pytest.mark.parametrize("line", list(commands()))
def test_commands_of_the_pages_have_options_that_are_there(line):
    from common.deploy.domain import find_domain
    from recipes.cli import _add_evaluation, _parser
    from recipes.discovery import find_recipe, recipe_names
    from recipes.options import Parser, add_arguments
    from recipes.predict import predict_parser

    words = shlex.split(line.replace("[", "").replace("]", ""))[1:]
    if "…" in line or words[0] in ("RECIPE", "data", "learn", "serve", "audit", "review"):
        pytest.skip("a form, not a command")
    parsed = _parser().parse_args(words)
    rest, known = getattr(parsed, "rest", []), []
    if parsed.verb == "run" or (parsed.verb == "check" and parsed.what in recipe_names()):
        parser = Parser(prog="cookbook")
        add_arguments(parser, find_recipe(parsed.recipe if parsed.verb == "run" else parsed.what).Options)
        known = [parser]
    elif parsed.verb in ("evaluate", "predict"):  # of which domain the bundle is, no line says: of one at least
        for name in ("classification", "detection", "segmentation", "tabular"):
            parser = Parser(prog="cookbook")
            _add_evaluation(parser, find_domain(name))
            known.append(parser if parsed.verb == "evaluate" else predict_parser("b", find_domain(name)))
    for word in rest if known else ():
        assert not word.startswith("--") or any(parser.knows(word) for parser in known), f"{line}: {word}"
