"""Progress display of the quickstart: a live view in a terminal, plain lines in a pipe."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from sspo_verl.tools.report import series
from sspo_verl.tools.runs.metrics_file import Rows

PLAIN_EVERY_STEPS = 5
PLAIN_EVERY_SECONDS = 20.0


# The stages, as they are shown.
SETTINGS, PREPARING, TRAINING = "settings", "1/2 preparing", "2/2 training"


@dataclass(frozen=True)
class Status:
    stage: str
    phase: str  # what is happening in the stage, in words
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    facts: tuple[str, ...] = ()


def clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    return f"{minutes}:{rest:02d}"


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def shorten(path: Path) -> str:
    """The path relative to the current directory, if that is shorter."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def training_facts(rows: Rows, step: int) -> tuple[str, ...]:
    """The numbers of a run up to `step`, in words."""
    rows = {s: row for s, row in rows.items() if s <= step}
    facts = []
    if accuracy := series.points(rows, "accuracy"):
        last_step, last = accuracy[-1]
        first = f"{percent(accuracy[0][1])} → " if len(accuracy) > 1 else ""
        facts.append(f"held-out accuracy {first}{percent(last)} (step {last_step})")
    for name, text in (("reward", "reward {:.2f}"), ("entropy", "entropy {:.2f}")):
        if data := series.recorded(rows, name):
            facts.append(text.format(data[-1][1]))
    if clipped := series.points(rows, "clip fraction"):
        facts.append(f"clipped {percent(clipped[-1][1], 2)} of tokens")
    return tuple(facts)


class Display(Protocol):
    def show(self, status: Status) -> None: ...
    def say(self, text: str) -> None: ...


@dataclass
class PlainDisplay:
    """Prints a line when the phase changes, every few steps, and at each new accuracy."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    began: float = field(default_factory=time.monotonic)
    _shown: Status | None = None
    _shown_at: float = 0.0

    def _worth_a_line(self, status: Status, now: float) -> bool:
        last = self._shown
        if last is None or (last.stage, last.phase) != (status.stage, status.phase):
            return True
        if status.done == last.done:
            return False
        new_accuracy = status.stage == TRAINING and status.facts[:1] != last.facts[:1]
        waited = now - self._shown_at >= PLAIN_EVERY_SECONDS
        few_steps = status.stage == TRAINING and status.done % PLAIN_EVERY_STEPS == 0
        return new_accuracy or waited or few_steps or status.done == status.total

    def show(self, status: Status) -> None:
        now = time.monotonic()
        if not self._worth_a_line(status, now):
            return
        self._shown, self._shown_at = status, now
        parts = [f"step {status.done}/{status.total}"] if status.total else []
        parts += status.facts
        if status.seconds_left is not None and status.done < max(status.total, 1):
            parts.append(f"about {clock(status.seconds_left)} left")
        self.say(" · ".join([f"{status.stage}: {status.phase}", *parts]))

    def say(self, text: str) -> None:
        print(f"[{clock(time.monotonic() - self.began):>5}] {text}", file=self.out, flush=True)


class LiveDisplay(Progress):
    """A rich progress bar, redrawn in place, with a line for times and one for numbers below it."""

    def __init__(self, console: Console):
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[steps]}", markup=False),
        )
        super().__init__(*columns, console=console, transient=True, refresh_per_second=4)
        self._began = time.monotonic()
        self._shown, self._shown_at = Status("", ""), self._began

    def show(self, status: Status) -> None:
        if (status.stage, status.phase) != (self._shown.stage, self._shown.phase):  # a bar for each phase
            for task in self.task_ids:
                self.remove_task(task)
            self.add_task(f"{status.stage}: {status.phase}", total=status.total or None, steps="")
        self._shown, self._shown_at = status, time.monotonic()
        steps = f"step {status.done}/{status.total}" if status.total else ""
        self.update(self.task_ids[0], completed=status.done, steps=steps)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        if not self.task_ids:
            return
        now, status = time.monotonic(), self._shown
        times = f"  {clock(now - self._began)} so far"
        if status.seconds_left is not None:
            times += f" · about {clock(max(status.seconds_left - (now - self._shown_at), 0))} left"
        yield Text(times, style="dim")
        if status.facts:
            yield Text("  " + " · ".join(status.facts), style="green")


@contextmanager
def make_display() -> Iterator[Display]:
    """Live in a terminal that can redraw, plain elsewhere."""
    console = Console()
    if console.is_terminal and not console.is_dumb_terminal:
        with LiveDisplay(console) as display:
            yield display
    else:
        yield PlainDisplay()
