"""Results of a table: results/TABLE.jsonl, one row per cell, appended as cells finish."""

from __future__ import annotations

import fcntl
import json
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.study.conditions import key_of

FOLDER = Path(__file__).with_name("results")
DIGITS = 6


@dataclass(frozen=True)
class Row:
    """A cell, its result, and what it was run with."""

    cell: dict
    result: dict
    cpu_seconds: float
    made_with: dict

    def line(self) -> str:
        return json.dumps(rounded(vars(self)), separators=(",", ":")) + "\n"


def rounded(value: Any) -> Any:
    """The value with floats rounded to six significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list | tuple) else value


def read(file: Path) -> list[Row]:
    """Rows of a file, without a last line that a kill left incomplete."""
    if not file.exists():
        return []
    return [Row(**json.loads(line)) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]


def done(file: Path) -> set[str]:
    """Keys of the cells that have a row."""
    return {key_of(row.cell) for row in read(file)}


@contextmanager
def appending(file: Path):
    """Open the file for appending, dropping an incomplete last line. Raises ValueError if another run has it open."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{file} is being written by another run: wait for it, or stop it.") from None
        opened.seek(0)
        text = opened.read()
        opened.truncate(len(text[: text.rfind("\n") + 1].encode()))
        yield opened


def made_with(device: str) -> dict[str, str]:
    """Commit (with a + if tracked files were changed), version of torch, and the device if it is not the CPU."""
    here = Path(__file__).parent
    found = {"torch": torch.__version__} | ({} if device == "cpu" else {"device": torch.cuda.get_device_name(device)})
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown"} | found
    mark = "+" if [line for line in changed.stdout.splitlines() if not line.endswith(".jsonl")] else ""
    return {"commit": commit.stdout.strip() + mark} | found
