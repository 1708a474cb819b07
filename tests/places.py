"""The line that ends the docstring of each file of common: its floor, what it may import, and who uses it.

``python tests/places.py`` says which are wrong; with ``--write`` it mends them.
"""

import ast
import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_spec = importlib.util.spec_from_file_location("layers", ROOT / "tests" / "test_layers.py")
layers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(layers)
MARK = "Floor: "


def users():
    """By module of common: the rooms and packages outside its own room that import it."""
    found = {layers.module_of(file): set() for file in layers.sources("common")}
    for package in layers.HOUSE:
        for file in layers.sources(package):
            module = layers.module_of(file)
            who = layers.room(module) if package == "common" else package
            for name in set(layers.imports(file)):
                if name in found and name != module:
                    found[name].add("" if package == "common" and layers.room(name) == who else who)
    return found


def line_of(module, used):
    floor = layers.floor(module)
    if floor == 0:
        where = f"{MARK}ground; imports only from the ground"
    else:
        below = next(rooms for rooms in reversed(layers.FLOORS[:floor]) if layers.room(module) not in rooms)
        name = "the ground" if below is layers.GROUND else f"{below[0]} and below"
        where = f"{MARK}{layers.room(module)}; may import {name}"
    order = [room for rooms in layers.FLOORS for room in rooms] + list(layers.HOUSE)
    ground = sorted(
        {"ground" if who in layers.GROUND else who for who in used - {""}},
        key=lambda w: order.index(w) if w in order else -1,
    )
    who = ", ".join(ground) or ("its own room" if used else "scripts")
    return f"{where}. Used by: {who}."


def mended(file, line):
    """The text of a file with this line at the end of its docstring."""
    text = file.read_text("utf-8")
    (first, *_) = ast.parse(text).body
    lines = text.splitlines()
    head = lines[first.lineno - 1 : first.end_lineno]
    raw = "\n".join(head)
    quote = 'r"""' if raw.startswith("r") else '"""'
    body = raw.removeprefix(quote).removesuffix('"""').rstrip().splitlines()
    while body and (body[-1].startswith(MARK) or not body[-1].strip() or (len(body) > 1 and body[-2].startswith(MARK))):
        body.pop()
    wrapped, words = [], line.split(" ")
    for word in words:
        if wrapped and len(wrapped[-1]) + 1 + len(word) <= 116:
            wrapped[-1] += f" {word}"
        else:
            wrapped.append(word)
    made = [quote + body[0], *body[1:], "", *wrapped, '"""']
    return "\n".join(lines[: first.lineno - 1] + made + lines[first.end_lineno :]) + "\n"


def wrong():
    """The files whose line is not true, with the text that would be."""
    used = users()
    for file in layers.sources("common"):
        module = layers.module_of(file)
        if file.name == "__init__.py" or module == layers.FACADE:
            continue
        text = mended(file, line_of(module, used[module]))
        if text != file.read_text("utf-8"):
            yield file, text


if __name__ == "__main__":
    left = list(wrong())
    for file, text in left:
        if "--write" in sys.argv:
            file.write_text(text, "utf-8")
        else:
            print(f"{file.relative_to(ROOT)}: its last line of docstring is not true")
    sys.exit(bool(left) and "--write" not in sys.argv)
