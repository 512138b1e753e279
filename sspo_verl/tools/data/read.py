"""Reads rows of published files: parquet, arrow (stream or file), JSONL. An invalid row is an error.

A file is read completely or not at all: a training set without the row of a bad line would be a different set.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sspo_verl.tools.analyze.read import columns as all_columns
from sspo_verl.tools.analyze.read import rows as any_rows
from sspo_verl.tools.data.sets import SUFFIXES


class RawRow(NamedTuple):
    """A row of a file. where: `file:line` or `file:row`, for messages. row: its number in the source, from 1.

    columns: the file's columns, if not all are read.
    """

    where: str
    source: str
    row: int
    value: dict[str, Any]
    columns: tuple[str, ...] = ()


def read(path: Path, columns: tuple[str, ...]) -> Iterator[RawRow]:
    """All rows of a file, in order; from parquet, only these columns. Raises ValueError, naming file and row."""
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"{path} ends with none of {', '.join(SUFFIXES)}, the formats that can be read.")
    if path.suffix == ".arrow":
        yield from _arrow_rows(path)
        return
    there = tuple(name for name in all_columns(path) or () if "." not in name) if path.suffix == ".parquet" else ()
    for row in any_rows(path, columns):
        if row.problem == "blank line":
            continue
        if row.value is None:
            raise ValueError(f"{row.where}: {row.problem}.")
        yield RawRow(row.where, path.name, int(row.where.rpartition(":")[2]), row.value, there)


def _arrow_rows(path: Path) -> Iterator[RawRow]:
    import pyarrow

    number = 0
    try:
        with pyarrow.memory_map(str(path)) as file:
            # The datasets library writes streams; a file with an index begins with a magic string.
            is_stream = file.read(6) != b"ARROW1"
            file.seek(0)
            reader = pyarrow.ipc.open_stream(file) if is_stream else pyarrow.ipc.open_file(file)
            table = reader.read_all()
            for batch in table.to_batches(max_chunksize=1000):
                for value in batch.to_pylist():
                    number += 1
                    yield RawRow(f"{path}:{number}", path.name, number, value)
    except (pyarrow.ArrowException, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path}:{number + 1}: cannot be read as arrow ({reason}).") from error
