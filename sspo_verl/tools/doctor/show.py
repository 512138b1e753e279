"""Output of the checks: for a terminal, for a pipe, and as JSON; and a progress line."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sspo_verl.tools.doctor.check import FAILED, OK, SKIPPED, WARNING, Check

STYLES = {OK: "green", WARNING: "yellow", FAILED: "bold red", SKIPPED: "dim"}


@contextlib.contextmanager
def progress() -> Iterator[Callable[[list[str]], None]]:
    """A function to call with the checks still running; it shows them on stderr if that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda running: None
        return
    began = time.monotonic()
    with console.status("starting") as status:
        yield lambda running: status.update(f"{time.monotonic() - began:.0f} s, looking at {', '.join(running)}")


def as_json(checks: list[Check]) -> str:
    return json.dumps({"ok": not failures(checks), "checks": [asdict(check) for check in checks]}, indent=2)


def as_text(checks: list[Check], seconds: float) -> str:
    """One line per check, and one below it if there is something to fix."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.status:<7}  {check.name:<{width}}  {check.found}")
        if check.fix:
            lines.append(f"{'':<7}  {'':<{width}}  to fix: {check.fix}")
    return "\n".join([*lines, "", summary(checks, seconds)])


def on_terminal(checks: list[Check], seconds: float, console: Console) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        found = Text(check.found, style="dim" if check.status == SKIPPED else "")
        if check.fix:
            found.append(f"\nto fix: {check.fix}", style="italic")
        table.add_row(Text(check.status, style=STYLES[check.status]), Text(check.name), found)
    console.print(table)
    console.print()
    console.print(Text(summary(checks, seconds), style=STYLES[FAILED if failures(checks) else OK]))


def failures(checks: list[Check]) -> int:
    return sum(check.status == FAILED for check in checks)


def summary(checks: list[Check], seconds: float) -> str:
    count = Counter(check.status for check in checks)
    parts = [f"{count[status]} {status}" for status in STYLES if count[status]]
    verdict = "Not all checks passed" if failures(checks) else "All checks passed"
    return f"{verdict}: {', '.join(parts)} ({seconds:.0f} s)"
