"""Who may import whom: recipes → applications → common, never back; and what importing the core costs."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOUSE = ("common", "applications", "recipes")
ALLOWED = {"common": {"common"}, "applications": {"common", "applications"}, "recipes": set(HOUSE)}
BETWEEN_APPLICATIONS = {("audio", "classification"), ("captioning", "nlp")}
HEAVY = ("torchvision", "sklearn", "matplotlib", "accelerate", "transformers", "xgboost", "rich", "scipy")


def imports(file):
    """Every absolute module name that a file imports, at any depth of its syntax tree."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module


def sources(package):
    return sorted((ROOT / package).rglob("*.py"))


def test_imports_run_recipes_to_applications_to_common():
    for package in HOUSE:
        for file in sources(package):
            if "exercises" in file.parts:
                continue
            for name in imports(file):
                top = name.split(".")[0]
                if top in HOUSE:
                    assert top in ALLOWED[package], f"{file.relative_to(ROOT)} imports {name}"


def test_applications_import_each_other_only_where_the_design_says():
    for file in sources("applications"):
        own = file.relative_to(ROOT / "applications").parts[0]
        for name in imports(file):
            parts = name.split(".")
            if parts[0] == "applications" and len(parts) > 1 and parts[1] != own:
                assert (own, parts[1]) in BETWEEN_APPLICATIONS, f"{file.relative_to(ROOT)} imports {name}"


def test_no_star_imports_and_nothing_is_unpickled():
    for package in HOUSE:
        for file in sources(package):
            tree = ast.parse(file.read_text("utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom):
                    star = any(alias.name == "*" for alias in node.names)
                    assert not star, f"{file.relative_to(ROOT)}:{node.lineno} star import"
            names = set(imports(file))
            assert not names & {"pickle", "joblib", "dill", "cloudpickle", "marshal", "shelve"}, file


def test_datasets_holds_no_python():
    assert not list((ROOT / "datasets").rglob("*.py"))


def loaded_after(statement):
    code = f"import sys; {statement}; print(' '.join(sorted(m for m in sys.modules if '.' not in m)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_importing_the_core_loads_none_of_the_heavy_packages():
    modules = loaded_after("import common, common.data, common.augment; common.DataBlock")
    assert "torch" in modules
    assert not modules & set(HEAVY)


def test_importing_a_recipe_or_the_command_line_loads_no_torch():
    assert "torch" not in loaded_after("import common, recipes.cli, recipes.classification")
