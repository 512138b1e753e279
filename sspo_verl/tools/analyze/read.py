"""Reads rows of JSONL and parquet files one by one, in bounded memory; a bad line does not stop the file."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")
LINE_LIMIT = 128 * 2**20  # bytes; a longer line is not a row, and would need that much memory
PARQUET_BATCH = 16 * 2**20  # bytes, uncompressed
PEEK = 100
MISSING = object()


class Row(NamedTuple):
    """A line of JSONL or a row of parquet, counted from 1; `problem` says why there is no `value`."""

    where: str
    value: dict[str, Any] | None
    problem: str = ""


def expand(names: Iterable[str]) -> list[Path]:
    """The files that the names refer to, each once. Raises FileNotFoundError, naming what was not found."""
    found: dict[Path, Path] = {}
    for name in names:
        path = Path(name)
        inside = [path]
        if path.is_dir():
            inside = sorted((p for p in path.iterdir() if p.is_file() and p.name.endswith(SUFFIXES)), key=_natural)
            if not inside:
                raise FileNotFoundError(
                    f"{path} has no file that ends with {', '.join(SUFFIXES)}. Sub-folders are not searched: name them."
                )
        elif not path.exists():
            raise FileNotFoundError(f"{path} is not there.")
        found |= {p.resolve(): p for p in inside if p.resolve() not in found}
    return list(found.values())


def _natural(path: Path) -> tuple[int, str]:
    stem = path.name.split(".")[0]
    return (int(stem) if stem.isdecimal() else -1, path.name)  # verl's dumps are <step>.jsonl


def lookup(value: dict[str, Any], name: str) -> Any:
    """The value of a column, or MISSING. `a.b.c` is the column with that name, or else c in b in a."""
    if name in value:
        return value[name]
    head, dot, rest = name.partition(".")
    inner = value.get(head)
    return lookup(inner, rest) if dot and isinstance(inner, dict) else MISSING


def columns(path: Path) -> list[str] | None:
    """Column names of a file, `a.b` for nested ones: from parquet's schema, or the first objects of JSONL.

    None if nothing readable was found.
    """
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            return _schema_names(pyarrow.parquet.read_schema(path))
        except (pyarrow.ArrowException, OSError):
            return None
    objects = [row.value for row in islice(_json_rows(path), PEEK) if row.value is not None]
    names: dict[str, None] = {}
    for value in objects:
        names |= dict.fromkeys(_value_names(value))
    return list(names) if objects else None


def _schema_names(fields: Any, before: str = "") -> list[str]:
    import pyarrow

    names = []
    for field in fields:
        names.append(before + field.name)
        if pyarrow.types.is_struct(field.type):
            names += _schema_names(field.type, f"{before}{field.name}.")
    return names


def _value_names(value: dict[str, Any], before: str = "") -> Iterator[str]:
    for name, inner in value.items():
        yield before + name
        if isinstance(inner, dict):
            yield from _value_names(inner, f"{before}{name}.")


def rows(path: Path, names: Iterable[str]) -> Iterator[Row]:
    """All rows of a file; from parquet, only these columns are read."""
    return _parquet_rows(path, names) if path.suffix == ".parquet" else _json_rows(path)


def _json_rows(path: Path) -> Iterator[Row]:
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            for line in _lines(file):
                number += 1
                yield _parse(f"{path}:{number}", line)
    except (OSError, EOFError, zlib.error) as error:  # a broken .gz, or a disk error
        yield Row(f"{path}:{number + 1}", None, f"unreadable from here on ({error})")


def _lines(file: BinaryIO | gzip.GzipFile) -> Iterator[bytes | None]:
    """Lines, split only at line feeds as in JSONL; None for one over the limit."""
    while line := file.readline(LINE_LIMIT + 1):
        if len(line) <= LINE_LIMIT:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(LINE_LIMIT)
        yield None


def _parse(where: str, line: bytes | None) -> Row:
    if line is None:
        return Row(where, None, f"line over {LINE_LIMIT // 2**20} MiB")
    if not line.strip():
        return Row(where, None, "blank line")
    try:
        value = json.loads(line.removeprefix(codecs.BOM_UTF8).decode())
    except UnicodeDecodeError:
        return Row(where, None, "not UTF-8")
    except (ValueError, RecursionError):
        return Row(where, None, "not JSON")
    return Row(where, value) if isinstance(value, dict) else Row(where, None, "not an object")


def _parquet_rows(path: Path, names: Iterable[str]) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        # Both settings, to read a row group as it is used: otherwise a file with a single one would be read at once.
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
            there = _schema_names(file.schema_arrow)
            wanted = [name for name in names if name in there]
            size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
            batch = min(max(PARQUET_BATCH * file.metadata.num_rows // max(size, 1), 1), 1024)
            for part in file.iter_batches(batch_size=batch, columns=wanted, use_threads=False):
                for value in part.to_pylist():
                    number += 1
                    yield Row(f"{path}:{number}", value)
    except (pyarrow.ArrowException, OSError) as error:
        yield Row(f"{path}:{number + 1}", None, f"unreadable from here on ({str(error).splitlines()[0]})")
