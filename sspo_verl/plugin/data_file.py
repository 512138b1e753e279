"""Reads through a data file as verl reads it: counts its rows, and names the first row that verl cannot use.

For parquet, only the columns that are checked are read, in batches, as arrow arrays; a row is converted to Python only
if something about it is unusual. Lines and rows are counted from 1.
"""
# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute creates its functions when it is loaded)

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

SOURCES = 5  # number of data_sources of which a row is kept
BATCH = 8192  # rows
HEAD = 64  # rows of JSON from which the types of its columns are inferred


@dataclass(frozen=True)
class Needs:
    """What verl needs from the data. prompt: its column. messages: whether verl's own agent loops read it. reward:
    whether verl's own reward manager scores."""

    prompt: str
    messages: bool = True
    reward: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.prompt, *(("data_source", "reward_model") if self.reward else ()))


@dataclass
class DataFile:
    """A data file. key: the setting that names it. samples: the first row of each data_source, at most SOURCES, and
    where it is."""

    key: str
    path: Path
    rows: int = 0
    columns: list[str] = field(default_factory=list)
    samples: dict[Any, tuple[str, dict[str, Any]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.key}: {self.path}"

    @property
    def is_parquet(self) -> bool:
        return self.path.suffix == ".parquet"

    def read(self, columns: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(where, row) of each row; from parquet, only these columns."""
        if not self.is_parquet:
            yield from json_rows(self.path)
            return
        with _open(self.path) as file:
            rows = (row for batch in file.iter_batches(64, columns=list(columns)) for row in batch.to_pylist())
            yield from ((f"row {number}", row) for number, row in enumerate(rows, start=1))

    def schema(self) -> Any | None:
        """Types of the columns, as far as they can be determined."""
        import pyarrow.parquet

        if self.is_parquet:
            return pyarrow.parquet.read_schema(self.path)
        head = [row for (_, row), _ in zip(json_rows(self.path), range(HEAD), strict=False)]
        try:
            return pyarrow.Table.from_pylist(head, schema=None).schema
        except (pyarrow.ArrowException, TypeError):
            return None

    def _keep(self, row: dict[str, Any], where: str) -> None:
        source = row.get("data_source")
        source = repr(source) if isinstance(source, (list, dict)) else source
        if source not in self.samples and len(self.samples) < SOURCES:
            self.samples[source] = (where, row)


def read_through(key: str, path: Path, needs: Needs) -> DataFile:
    """Read a data file. Raises ValueError, naming the key, the file and its row or line, if verl cannot train on it."""
    found = DataFile(key, path)
    try:
        if found.is_parquet:
            _scan_parquet(found, needs)
        else:
            _scan_json(found, needs)
    except OSError as error:
        raise ValueError(f"{found.name} cannot be read: {_first_line(error)}") from error
    if not found.rows:
        raise ValueError(f"{found.name} has no rows.")
    return found


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


# Checks of a row


def fault(row: Mapping[str, Any], needs: Needs) -> str | None:
    """What verl cannot use in a row, and what it should be; None if the row is fine."""
    prompt = row.get(needs.prompt)
    wrong = _prompt_fault(prompt) if needs.messages else "is null" if prompt is None else None
    if wrong:
        named = f"{needs.prompt!r} (data.prompt_key)"
        return f"{named} {wrong}. It must be a list of messages, [{{'role': 'user', 'content': ...}}]"
    extra = row.get("extra_info")
    if extra is not None and not isinstance(extra, dict):
        return f"'extra_info' is {_kind(extra)}. It must be a dict, or null"
    if not needs.reward:
        return None
    model = row.get("reward_model")
    if not isinstance(model, dict):
        wrong = "is missing" if "reward_model" not in row else "is null" if model is None else f"is {_kind(model)}"
        return f"'reward_model' {wrong}. It must be a dict with 'ground_truth', which the reward is computed from"
    truth = model.get("ground_truth")
    if truth is None or (isinstance(truth, float) and truth != truth):
        if "ground_truth" not in model:
            return "'reward_model' is not a dict with 'ground_truth', which the reward is computed from"
        shown = "null" if truth is None else "NaN"
        return f"'reward_model' has 'ground_truth': {shown}. Give the row's answer, or leave the row out"
    if "data_source" not in row:
        return "'data_source' is missing, the reward's first argument"
    return None


def _prompt_fault(prompt: Any) -> str | None:
    if prompt is None:
        return "is missing or null"
    if not isinstance(prompt, list):
        return f"is {_kind(prompt)}"
    if not prompt:
        return "is an empty list"
    for number, message in enumerate(prompt, start=1):
        if not isinstance(message, dict):
            return f"has {_kind(message)} as message {number}"
        if not isinstance(message.get("role"), str):
            return f"has no text as the 'role' of message {number}"
        content = message.get("content")
        if not isinstance(content, (str, list)) and not (content is None and message.get("tool_calls")):
            wrong = "no 'content'" if content is None else f"{_kind(content)} as the 'content'"
            return f"has {wrong} in message {number}"
    return None


def _kind(value: Any) -> str:
    return f"a {type(value).__name__} ({value!r:.40})"


def _refuse(found: DataFile, where: str, row: Any, needs: Needs) -> None:
    wrong = fault(row, needs)
    if wrong:
        raise ValueError(f"{found.name}, {where}: {wrong}. `sspo data` and docs/data.md show the layout.")


# Parquet


def _open(path: Path):
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**20)


def _scan_parquet(found: DataFile, needs: Needs) -> None:
    import numpy
    import pyarrow

    try:
        with _open(found.path) as file:
            found.rows, found.columns = file.metadata.num_rows, file.schema_arrow.names
            _refuse_columns_of_one_name(found)
            _refuse_missing_columns(found, needs)
            wanted = [name for name in (*needs.columns, "extra_info") if name in found.columns]
            before = 0
            for batch in file.iter_batches(BATCH, columns=list(dict.fromkeys(wanted))):
                for index in numpy.flatnonzero(_unusual(batch, needs)).tolist():
                    _refuse(found, f"row {before + index + 1}", batch.slice(index, 1).to_pylist()[0], needs)
                for index in _first_of_each_source(batch) if len(found.samples) < SOURCES else ():
                    found._keep(batch.slice(index, 1).to_pylist()[0], f"row {before + index + 1}")
                before += batch.num_rows
    except pyarrow.ArrowException as error:
        raise ValueError(f"{found.name} cannot be read: {_first_line(error)}") from error


def _refuse_columns_of_one_name(found: DataFile) -> None:
    for column in found.columns:
        if found.columns.count(column) > 1:
            raise ValueError(f"{found.name} has {found.columns.count(column)} columns {column!r}. Keep one of them.")


def _refuse_missing_columns(found: DataFile, needs: Needs) -> None:
    uses = {
        needs.prompt: "data.prompt_key",
        "data_source": "the reward's first argument",
        "reward_model": "{'ground_truth': ...}",
    }
    for column in needs.columns:
        if column not in found.columns:
            why = "" if column == needs.prompt else ", without which the reward fails for each response"
            raise ValueError(
                f"{found.name} has no column {column!r} ({uses[column]}){why}. It has {', '.join(found.columns)}. "
                "`sspo data` and docs/data.md show the layout."
            )


def _unusual(batch, needs: Needs):
    """Numpy mask of the rows that `fault` has to check: all of them if a column has an unexpected type."""
    import numpy
    import pyarrow.types as kinds

    unusual = numpy.zeros(batch.num_rows, bool)
    if needs.messages:
        unusual |= _unusual_prompts(batch.column(needs.prompt))
    else:
        unusual |= _nulls(batch.column(needs.prompt))
    if needs.reward:
        model = batch.column("reward_model")
        if kinds.is_struct(model.type) and model.type.get_field_index("ground_truth") >= 0:
            import pyarrow.compute

            truth = pyarrow.compute.struct_field(model, "ground_truth")
            unusual |= _nulls(truth, nan_is_null=kinds.is_floating(truth.type))
        else:
            unusual[:] = True
    if "extra_info" in batch.schema.names:
        extra = batch.column("extra_info")
        unusual |= False if kinds.is_struct(extra.type) else ~_nulls(extra)
    return unusual


def _unusual_prompts(prompts):
    import numpy
    import pyarrow.compute as pc
    import pyarrow.types as kinds

    every = numpy.ones(len(prompts), bool)
    if not (kinds.is_list(prompts.type) or kinds.is_large_list(prompts.type)):
        return every
    message = prompts.type.value_type
    if not kinds.is_struct(message) or min(message.get_field_index(name) for name in ("role", "content")) < 0:
        return every
    if not _is_text(message.field("role").type) or not _is_text(message.field("content").type):
        return every
    lengths = pc.fill_null(pc.list_value_length(prompts), 0).to_numpy(zero_copy_only=False)
    unusual = lengths == 0
    messages = prompts.flatten()
    bad = _nulls(pc.struct_field(messages, "role")) | _nulls(pc.struct_field(messages, "content"))
    if bad.any():
        unusual[pc.list_parent_indices(prompts).to_numpy(zero_copy_only=False)[bad]] = True
    return unusual


def _is_text(kind) -> bool:
    import pyarrow.types as kinds

    return kinds.is_string(kind) or kinds.is_large_string(kind)


def _nulls(column, nan_is_null: bool = False):
    import pyarrow.compute

    return pyarrow.compute.is_null(column, nan_is_null=nan_is_null).to_numpy(zero_copy_only=False).astype(bool)


def _first_of_each_source(batch) -> list[int]:
    import pyarrow
    import pyarrow.compute as pc

    if not batch.num_rows:
        return []
    if "data_source" not in batch.schema.names:
        return [0]
    column = batch.column("data_source")
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pyarrow.types.is_nested(column.type) or pyarrow.types.is_null(column.type):
        return [0]
    null = {int(_nulls(column).argmax())} if column.null_count else set()
    return sorted({pc.index(column, value).as_py() for value in pc.unique(column)[:SOURCES] if value.is_valid} | null)


# JSON


def _scan_json(found: DataFile, needs: Needs) -> None:
    columns: dict[str, None] = {}
    try:
        for where, row in json_rows(found.path):
            _refuse(found, where, row, needs)
            found.rows += 1
            if row.keys() - columns.keys():
                columns |= dict.fromkeys(row)
            if len(found.samples) < SOURCES:
                found._keep(row, where)
    except NotRows as error:
        raise ValueError(f"{found.name} cannot be read: {error}") from error
    found.columns = list(columns)


class NotRows(ValueError):
    """A file is not JSON, or has something other than an object where a row should be."""


class _Refused(Exception):
    """What `datasets`, which verl reads with, refuses in JSON that Python reads."""


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Refused(f"has the key {next(key for key in keys if keys.count(key) > 1)!r} twice. Keep one of them.")
    return found


def _number(digits: str) -> float:
    """An integer; infinity, as in `datasets`, for one that Python does not convert."""
    try:
        return int(digits)
    except ValueError:
        return math.copysign(math.inf, -1 if digits.startswith("-") else 1)


def _number_in_list(digits: str) -> float:
    number = _number(digits)
    if not -(2**63) <= number < 2**64:
        raise _Refused(
            f"has a number that does not fit in 64 bits ({digits:.20}...), which verl cannot read in a list. Write it "
            "in quotes, or write one row per line."
        )
    return number


ROWS = json.JSONDecoder(object_pairs_hook=_object_of)
ROWS_OF_LONG_NUMBERS = json.JSONDecoder(object_pairs_hook=_object_of, parse_int=_number)  # a call per integer: slow
LIST = json.JSONDecoder(parse_int=_number_in_list)
UNREADABLE = (json.JSONDecodeError, RecursionError, _Refused)


def _row(text: str) -> Any:
    """The value of a line. Raises UNREADABLE."""
    try:
        return ROWS.decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # a number with more digits than Python converts
        return ROWS_OF_LONG_NUMBERS.decode(text)


def _refuse_line(line: int, error: BaseException) -> NoReturn:
    """Raise NotRows for JSON that is UNREADABLE."""
    if isinstance(error, json.JSONDecodeError):
        why = f"is not JSON ({error.msg}, column {error.colno})."
    elif isinstance(error, RecursionError):
        why = "has lists or objects nested too deeply to be read. Correct it, or leave it out."
    else:
        why = str(error)
    raise NotRows(f"line {line} {why}") from error


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) of JSONL, one JSON list, or objects over several lines: what verl accepts. Raises NotRows."""
    with path.open("rb") as file:
        lines = enumerate(file, start=1)
        number, line = 0, b""
        for number, line in lines:
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if line.strip():
                break
        if not line.strip():
            return
        if line.lstrip().startswith(b"[") or not _is_json(line):
            yield from _whole(_decoded(line, number) + _decoded(file.read(), number + 1), number)
            return
        yield f"line {number}", _object(_parsed(line, number), f"line {number}")
        for number, line in lines:
            if not line.isspace():
                where = f"line {number}"
                yield where, _object(_parsed(line, number), where)


def _decoded(line: bytes, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        number += line[: error.start].count(b"\n")
        raise NotRows(f"line {number} is not UTF-8 ({error.reason}). Save the file as UTF-8.") from error


def _parsed(line: bytes, number: int) -> Any:
    try:
        value = _row(_decoded(line, number))
    except UNREADABLE as error:
        _refuse_line(number, error)
    if b"\\ud" in line.lower() and isinstance(value, dict):
        _refuse_lone_surrogates(value, number)
    return value


def _refuse_lone_surrogates(row: dict[str, Any], line: int) -> None:
    """Refuse an escape like \\ud800 that is no character: `datasets` fails on it."""
    for column, value in row.items():
        try:
            json.dumps([column, value], ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            found = error.object[error.start]
            raise NotRows(
                f"line {line}: {column!r} has half a character ({found!r}, a lone surrogate). Correct the text, or "
                "leave the row out."
            ) from error


def _is_json(line: bytes) -> bool:
    """Whether a line is JSON, refused or not."""
    try:
        _row(line.decode())
    except (json.JSONDecodeError, UnicodeDecodeError):
        return False
    except (RecursionError, _Refused):
        pass
    return True


def _whole(text: str, first_line: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of one list, or of consecutive objects, which may span several lines."""
    decoder, position, number = LIST if text.lstrip().startswith("[") else ROWS_OF_LONG_NUMBERS, 0, 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        try:
            value, position = decoder.raw_decode(text, position)
        except UNREADABLE as error:
            at = error.pos if isinstance(error, json.JSONDecodeError) else position
            _refuse_line(first_line + text.count("\n", 0, at), error)
        for row in value if isinstance(value, list) else [value]:
            number += 1
            yield f"row {number}", _object(row, f"row {number}")


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NotRows(f"{where} is {_kind(value)} and not an object. Correct it, or leave it out.")
    return value
