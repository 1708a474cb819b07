"""Tables in common formats: CSV, TSV, JSON lines (also gzipped), parquet, Arrow and Feather files.

Floor: sources; may import blocks and below. Used by: applications.
"""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from common.errors import DataError
from common.sources.splits import ColSplitter

TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz", ".tsv.gz", ".jsonl.gz", ".arrow", ".feather")


def read_table(path: Path) -> pd.DataFrame:
    """Returns a CSV, TSV, JSONL (also gzipped), parquet or Arrow file as a frame.

    An Arrow file (``.arrow``, ``.feather``) is memory-mapped: its columns are Arrow-backed and take no memory of the
    process, unless the file is compressed.

    Args:
        path: The file.

    Raises:
        DataError: if it is none of these, empty, or cannot be read.
    """
    name = path.name.lower()
    if not name.endswith(TABLE_ENDINGS):
        raise DataError(f"{path} is not a table this reads ({', '.join(TABLE_ENDINGS)}), nor a folder")
    ending = Path(name.removesuffix(".gz")).suffix
    try:
        if ending == ".parquet":
            frame = pd.read_parquet(path)
        elif ending in (".arrow", ".feather"):
            frame = _mapped(path)
        elif ending == ".jsonl":
            as_written: Any = False  # else pandas turns "01234" into a number
            frame = pd.read_json(path, lines=True, dtype=as_written)
        else:
            frame = pd.read_csv(path, sep="\t" if ending == ".tsv" else ",")
    except (ValueError, OSError, ImportError, EOFError, zlib.error) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{path}: cannot be read as a table: {reason}") from error
    if not len(frame):
        raise DataError(f"{path} has no rows")
    return frame


def _mapped(path: Path) -> pd.DataFrame:
    """An Arrow file (or stream) as a frame over the mapped bytes; dictionary columns become pandas categories."""
    import pyarrow as pa
    import pyarrow.ipc as ipc

    source: Any = pa.memory_map(str(path), "r")
    try:
        table: Any = ipc.open_file(source).read_all()
    except pa.ArrowInvalid:
        source.seek(0)
        table = ipc.open_stream(source).read_all()

    def mapper(kind: Any) -> Any:
        return None if pa.types.is_dictionary(kind) else pd.ArrowDtype(kind)

    return table.to_pandas(types_mapper=mapper)


def parts_of(frame: pd.DataFrame, column: str) -> np.ndarray:
    """Returns the part (``train``, ``valid`` or ``test``) of each row from a column of such words."""
    split = ColSplitter(column)(frame)
    parts = np.empty(len(frame), dtype=object)
    for part in ("train", "valid", "test"):
        parts[split[part]] = part
    return parts
