"""Prints how large files, functions and signatures are, and which are larger than the design likes."""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMITS = {"lines of a file": 300, "lines of a function": 50, "parameters": 8}
HARD_FILE_LINES = 500


def measure(file):
    """Yields (kind, name, size) for a file, its functions and their signatures."""
    text = file.read_text("utf-8")
    name = str(file.relative_to(ROOT))
    yield "lines of a file", name, len(text.splitlines())
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            where = f"{name}:{node.lineno} {node.name}"
            yield "lines of a function", where, node.end_lineno - node.lineno + 1
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            yield "parameters", where, len([a for a in given if a.arg not in ("self", "cls")])


def main():
    files = [f for package in ("common", "applications", "recipes") for f in sorted((ROOT / package).rglob("*.py"))]
    found = [entry for file in files for entry in measure(file)]
    print(f"{'what':22}{'count':>7}{'median':>8}{'largest':>9}{'above the limit':>17}")
    for kind, limit in LIMITS.items():
        sizes = sorted(size for k, _, size in found if k == kind)
        above = [(size, name) for k, name, size in found if k == kind and size > limit]
        print(f"{kind:22}{len(sizes):>7}{sizes[len(sizes) // 2]:>8}{sizes[-1]:>9}{len(above):>10} (> {limit})")
        for size, name in sorted(above, reverse=True)[:6]:
            print(f"    {size:>5}  {name}")
    total = sum(size for kind, _, size in found if kind == "lines of a file")
    print(f"{len(files)} files, {total} lines")
    return any(kind == "lines of a file" and size > HARD_FILE_LINES for kind, _, size in found)


if __name__ == "__main__":
    sys.exit(main())
