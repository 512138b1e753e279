"""File helpers: atomic writing, and files named on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write(path: Path, text: str) -> None:
    """Write a file atomically: it is complete or absent, even if the writer is killed."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def read_json(path: Path, way_out: str) -> Any:
    """The content of a JSON file. Raises ValueError with the file's name and `way_out` if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): {way_out}.") from error


def split(argument: str) -> tuple[str | None, Path]:
    """Split a command's argument NAME=PATH or PATH. An existing path is a path, whatever its name. Raises ValueError if
    it is neither."""
    name, equals, rest = argument.partition("=")
    if not equals or Path(argument).exists() or "/" in name:
        return None, Path(argument)
    if not name or not rest:
        raise ValueError(
            f"{argument!r} is neither a path nor NAME=PATH: write the name before the = and the path after it."
        )
    return name, Path(rest)
