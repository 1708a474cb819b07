"""The options for reading a table, which a bundle stores."""

from dataclasses import dataclass

from common.errors import one_of
from common.spec import option

KINDS = ("auto", "classification", "regression")


@dataclass(frozen=True, kw_only=True)
class TableReading:
    """How the rows of a table and their target are read."""

    target: str | None = option(None, "the column to predict (default: the last one)")
    kind: str = option("auto", "classification, regression or auto (by the target's values)")
    ignore: str | None = option(None, "columns that are no features, separated by commas")
    split_column: str = option("split", "a column of train, valid or test, which may be absent")

    def __post_init__(self) -> None:
        one_of("kind", self.kind, KINDS)

    @property
    def ignored(self) -> tuple[str, ...]:
        """The columns that are not features."""
        return tuple(part.strip() for part in (self.ignore or "").split(",") if part.strip())
