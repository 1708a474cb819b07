"""Tables as a domain: the value from which command line, evaluation and server are made."""

from pathlib import Path

from applications.tabular.data import TableSource, embedded_table, read_inputs, read_source
from applications.tabular.learner import tabular_learner
from applications.tabular.reading import TableReading
from applications.tabular.task import TabularRegression
from common.deploy.domain import Domain, Inputs
from common.deploy.predictor import Predictor
from common.errors import ConfigError
from common.sources.tables import TABLE_ENDINGS


def read(data: str | Path | None, reading: TableReading, predictor: Predictor | None = None) -> TableSource:
    """Returns the rows and the target of a table; a predictor, if given, decides the kind of target.

    Args:
        data: In any format that `read_source` takes.
        reading: The reading options.
        predictor: The predictor to evaluate, or None.

    Raises:
        ConfigError: if an option states another kind of target than the predictor's.
    """
    classes = None if reading.kind == "auto" else reading.kind == "classification"
    if predictor is not None:
        own = not isinstance(predictor.task, TabularRegression)
        if classes not in (None, own):
            raise ConfigError(f"kind is the bundle's own, {'classification' if own else 'regression'}: leave it out")
        classes = own
    if data is None:
        return embedded_table()
    return read_source(data, reading.target, ignore=reading.ignored, split_column=reading.split_column, classes=classes)


def rows_of(path: str | Path) -> Inputs:
    """Returns the rows of a table in a file, each an input.

    Args:
        path: A file that `read_inputs` takes.
    """
    frame = read_inputs(path)
    return Inputs([f"{path}, row {row}" for row in range(len(frame))], frame)


DOMAIN = Domain(
    name="tabular",
    recipes=("tabular",),
    reading=TableReading,
    read=read,
    inputs=rows_of,
    endings=frozenset(TABLE_ENDINGS),
    learner=tabular_learner,
)
