"""Runs the cells of a table that have no result yet, in one or more single-threaded processes."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.study import results
from benchmarks.study.conditions import Cell, Table

REPORT_EVERY = 30.0  # seconds


def run(
    table: Table,
    file: Path,
    grids: Iterable[str] = (),
    processes: int = 1,
    most: int | None = None,
    device: str = "cpu",
) -> int:
    """Run the remaining cells, at most `most`; return the number of cells that were run.

    device: of the policies; random numbers always come from the CPU.
    Can be killed at any time and resumed: a cell's result only depends on the cell, and rows are written when they are
    complete. Raises ValueError if another run is writing to the file.
    """
    with results.appending(file) as opened:
        finished = results.done(file)
        todo = [cell for cell in table.cells(*grids) if cell.key() not in finished][:most]
        made_with, progress = results.made_with(device), Progress(table.name, len(todo))
        with workers(processes, device) as each:
            for cell, result, seconds in each(todo):
                opened.write(results.Row(cell.as_dict(), result, seconds, made_with).line())
                opened.flush()
                progress.one_more(seconds)
    return len(todo)


@contextmanager
def workers(processes: int, device: str):
    """A function from cells to (cell, result, CPU seconds), in any order."""
    if processes == 1:
        one_thread(device)
        yield lambda cells: map(run_cell, cells)
    else:
        with multiprocessing.get_context("spawn").Pool(processes, one_thread, (device,)) as pool:
            yield lambda cells: pool.imap_unordered(run_cell, cells)


def one_thread(device: str) -> None:
    torch.set_num_threads(1)
    torch.set_default_device(device)


def run_cell(cell: Cell) -> tuple[Cell, dict, float]:
    begin = time.process_time()
    result = cell.parameters.run()
    return cell, result, time.process_time() - begin


class Progress:
    """Prints a line from time to time: progress, speed, and remaining time."""

    def __init__(self, name: str, total: int):
        self.name, self.total, self.cells, self.cpu = name, total, 0, 0.0
        self.begin = self.last = time.monotonic()
        print(f"{name}: {total} cells to run", flush=True)

    def one_more(self, cpu_seconds: float) -> None:
        self.cells, self.cpu = self.cells + 1, self.cpu + cpu_seconds
        now = time.monotonic()
        if now - self.last >= REPORT_EVERY or self.cells == self.total:
            self.last = now
            print(self.line(now - self.begin), flush=True)

    def line(self, wall: float) -> str:
        left = wall / self.cells * (self.total - self.cells)
        return (
            f"{self.name}: {self.cells} of {self.total} cells, {self.cpu / self.cells:.1f} CPU s and "
            f"{wall / self.cells:.1f} s each, {clock(left)} left"
        )


def clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d} h"


def left_by_grid(table: Table, file: Path) -> Iterator[tuple[str, int, int]]:
    """(grid, number of cells with a result, number of cells)."""
    finished = results.done(file)
    for grid in table.grids:
        keys = [cell.key() for cell in table.cells(grid)]
        yield grid, sum(key in finished for key in keys), len(keys)
