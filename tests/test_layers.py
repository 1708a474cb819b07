"""Who may import whom: the floors of common, recipes → applications → common; and what importing the core costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOUSE = ("common", "applications", "recipes")
ALLOWED = {"common": {"common"}, "applications": {"common", "applications"}, "recipes": set(HOUSE)}
BETWEEN_APPLICATIONS = {("audio", "classification"), ("captioning", "nlp")}
HEAVY = ("torchvision", "sklearn", "matplotlib", "accelerate", "transformers", "xgboost", "rich", "scipy")
GROUND = ("counter", "figures", "files", "errors", "registry", "spec", "memory", "tensors")
FLOORS = (
    GROUND,
    ("text",),
    ("blocks",),
    ("sources",),
    ("augment",),
    ("store",),
    ("data",),
    ("task",),
    ("show",),
    ("deploy",),
    ("train",),
    ("vision", "catalogue"),
)
"""The rooms of common from the ground up: a file imports from its own room and from the floors below it."""
FACADE = "common"  # common/__init__.py names what is used most; it stands on the roof and loads nothing by itself


def imports(file, *, types_too=True):
    """Every absolute module that a file imports, wherever in it: lazily in a function, and for types only."""
    tree = ast.parse(file.read_text("utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types and not types_too:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module
            yield from (name for alias in node.names if is_module(name := f"{node.module}.{alias.name}"))


def is_module(name):
    place = ROOT.joinpath(*name.split("."))
    return name.split(".")[0] in HOUSE and (place.is_dir() or place.with_suffix(".py").is_file())


def sources(package):
    return sorted((ROOT / package).rglob("*.py"))


def room(name):
    """The room of a module of common: ``common.data.loader`` lies in ``data``."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else FACADE


def floor(name):
    return next((i for i, rooms in enumerate(FLOORS) if room(name) in rooms), None)


def module_of(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def upward(module, imported):
    """Whether a module of common may not import another: it lies on a floor above, or in a room beside."""
    if imported.split(".")[0] != "common" or module == FACADE or room(imported) == FACADE:
        return False
    if {room(module), room(imported)} <= set(GROUND):
        return False
    return room(module) != room(imported) and floor(imported) >= floor(module)


def circles(edges):
    """The sets of nodes that lead back to themselves (Tarjan 1972, by repeated reachability: the graph is small)."""
    reach = {node: set(after) for node, after in edges.items()}
    changed = True
    while changed:
        changed = False
        for node, after in reach.items():
            more = after.union(*(reach.get(other, set()) for other in after))
            if more != after:
                reach[node], changed = more, True
    return sorted(node for node, after in reach.items() if node in after)


def test_every_room_of_common_has_a_floor():
    assert [name for name in map(module_of, sources("common")) if name != FACADE and floor(name) is None] == []


def test_no_file_of_common_imports_from_a_floor_above_lazily_or_not():
    found = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in sources("common")
        for name in imports(file)
        if upward(module_of(file), name)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("module", "imported", "wrong"),
    [
        ("common.data.loader", "common.train.trainer", True),
        ("common.data.loader", "common.store.store", False),
        ("common.vision.scenes", "common.catalogue.cards", True),  # beside it, not below
        ("common.spec", "common.registry", False),  # both on the ground
        ("common.text.encoder", "common.figures", False),
    ],
)
def test_an_import_that_runs_up_or_sideways_is_noticed(module, imported, wrong):
    assert upward(module, imported) == wrong


def test_rooms_and_the_files_of_a_room_form_no_circle():
    rooms, files = {}, {}
    for file in [file for package in HOUSE for file in sources(package)]:
        module = module_of(file)
        files[module] = {
            name for name in imports(file, types_too=False) if name != module and is_module(name)
        } - packages_of(module)
        if module.startswith("common."):
            below = {room(name) for name in imports(file) if name.split(".")[0] == "common"} - {FACADE}
            rooms.setdefault(room(module), set()).update(below - {room(module)})
    assert circles(rooms) == []
    assert circles(files) == []


def packages_of(module):
    """The packages around a module: importing a neighbour names them too."""
    parts = module.split(".")
    return {".".join(parts[:i]) for i in range(1, len(parts))}


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
