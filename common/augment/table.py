"""The table of README.md, what each operation does to each kind of target: ``python -m common.augment.table``.

Floor: augment; may import sources and below. Used by: scripts.
"""

from pathlib import Path

from common.augment import colours, mixing, mosaic, moves, spectral, textures
from common.augment.operations import Operation
from common.files import write_text

README = Path(__file__).with_name("README.md")
MARKS = ("<!-- operations -->", "<!-- /operations -->")
COLUMNS = ("image", "mask", "boxes", "points", "category", "number", "spectrogram")
SAID = {"transforms": "transforms", "invariant": "invariant", "unsupported": "refuses"}


def operations() -> list[type[Operation]]:
    """Returns every operation that users can request, in the order of the modules and of their classes.

    Examples:
        >>> [operation.name for operation in operations()][:2]
        ['flip_horizontal', 'flip_vertical']
    """
    found: list[type[Operation]] = []
    for module in (moves, colours, textures, mixing, mosaic, spectral):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Operation) and value.__module__ == module.__name__:
                found += [value] if hasattr(value, "name") else []
    return found


def table() -> str:
    """Returns the operations and what each does to each kind of target, as a table in Markdown."""
    rows = [["operation", *COLUMNS], ["---"] * (1 + len(COLUMNS))]
    rows += [[op.label, *(SAID[op.support[column]] for column in COLUMNS)] for op in operations()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def between_marks(page: str) -> tuple[str, str, str]:
    """Returns the text of a page before the two marks, between them, and after them.

    Raises:
        ValueError: if the page does not have both marks.
    """
    before, first, rest = page.partition(MARKS[0])
    inside, second, after = rest.partition(MARKS[1])
    if not first or not second:
        raise ValueError(f"the page must have the marks {MARKS[0]} and {MARKS[1]}, in this order")
    return before, inside, after


def write(page: Path = README) -> None:
    """Rewrites the table of a page between its two marks."""
    before, _, after = between_marks(page.read_text("utf-8"))
    write_text(page, f"{before}{MARKS[0]}\n{table()}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    write()
