"""Recognizes files without verl metrics, such as those of other loggers, to name them in messages."""

from __future__ import annotations

import json
from pathlib import Path

from sspo_verl.tools.runs import metrics_file

RESPONSES = {"input", "output", "score"}  # among the keys of a verl dump
READABLE = (
    'What can be read: the JSONL of verl\'s `file` logger, a line {"step": 1, "data": {...}} for each step (add `file` '
    "to trainer.logger), tensorboard's event files, and folders that hold them"
)
SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".wandb", ".parquet", ".txt", ".log")
_KEYS = 4  # number of keys named
_SHOWN = 60  # characters shown of a line
_BINARY = {b"PAR1": "a parquet file", b"\x89PNG": "a picture", b":W&B": "a run file of wandb", b"SQLi": "a database"}
_ALL_READ = 2**24  # bytes; a larger JSON document is judged by its first line


def describe(path: Path) -> str | None:
    """What a file is instead of metrics; None if it is empty, or may be a metrics file with an unfinished line."""
    with open(path, "rb") as file:
        head = file.read(_ALL_READ)
    if kind := _BINARY.get(head[:4]):
        return kind
    if b"\0" in head[:4096]:
        return "a binary file"
    text = head.decode("utf-8-sig", errors="replace").lstrip()
    first, line_break, _ = text.partition("\n")
    if not first:
        return None
    parsed = _json(text) or _json(first)
    if isinstance(parsed, dict):
        return _of_json(parsed, parsed == _json(first))
    if isinstance(parsed, list):
        return "a list in JSON"
    if first.startswith("{") and not line_break:
        return None
    if any(mark in first for mark in ",\t;") and not first.startswith(("{", "[")):
        columns = [name.strip().strip('"') for name in first.replace("\t", ",").replace(";", ",").split(",")]
        return f"a table (CSV) with the columns {_named(columns)}"
    return f"a file that begins with {first[:_SHOWN].rstrip()!r}"


def _of_json(value: dict, is_line: bool) -> str:
    if "log_history" in value:
        return "the trainer_state.json of a trainer of transformers or TRL"
    if value.keys() >= RESPONSES:
        return "a dump of responses, which `sspo analyze` reads"
    if is_line and isinstance(fault := metrics_file.parse(json.dumps(value)), str):
        return f"JSON lines in a different format: in the first, {fault}"
    what = "JSON lines in a different format" if is_line else "a JSON document"
    return f"{what}, with the keys {_named(list(value))}"


def is_dump(path: Path) -> bool:
    """Whether a file is a dump of responses, from its first line."""
    first = _json(next(metrics_file.first_lines(path), ""))
    return isinstance(first, dict) and first.keys() >= RESPONSES


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _named(names: list[str]) -> str:
    return ", ".join(names[:_KEYS]) + (", ..." if len(names) > _KEYS else "")


def in_folder(folder: Path) -> str:
    """Name and kind of the first few files in a folder that might be mistaken for metrics."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and file.suffix in SUFFIXES]
    said = [f"{file.name} is {kind}" for file in files[:_KEYS] if (kind := describe(file))]
    return "; ".join(said)
