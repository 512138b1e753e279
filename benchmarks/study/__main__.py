"""The study's command: python -m benchmarks.study COMMAND, in a checkout.

start TASK            train a task's starting model again (starts/)
run TABLE             run the cells of conditions/TABLE.yaml that have no row in results/TABLE.jsonl
show TABLE            how many cells of each grid have a row
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("start", help="teach a starting model")
    one.add_argument("task")
    one = commands.add_parser("run", help="run what has no result yet")
    one.add_argument("table")
    one.add_argument("--grid", action="append", default=[], help="this grid alone; may be given several times")
    one.add_argument("--processes", type=int, default=1, help="of one thread each; default 1")
    one.add_argument("--device", default="cpu", help="cuda needs torch and transformers alone; default cpu")
    one.add_argument("--most", type=int, help="stop after so many cells")
    one.add_argument("--results", type=Path, help="another folder than results/")
    one = commands.add_parser("show", help="how far it is")
    one.add_argument("table")
    one = commands.add_parser("best", help="what to confirm")
    one.add_argument("table")
    one.add_argument("grids", nargs="+")
    one.add_argument("--results", type=Path, help="another folder than results/")
    one = commands.add_parser("report", help="figures and tables")
    one.add_argument("--out", type=Path, help="another folder than docs/evidence/")
    arguments = parser.parse_args()
    try:
        globals()[arguments.command](arguments)
    except ValueError as error:
        sys.exit(str(error))


def start(arguments: argparse.Namespace) -> None:
    from benchmarks.study import warm_up

    torch.set_num_threads(1)
    file = warm_up.STARTS / f"{arguments.task}.safetensors"
    print(warm_up.make(arguments.task, file))


def run(arguments: argparse.Namespace) -> None:
    from benchmarks.study import conditions, results, runner

    table = conditions.read(conditions.find(arguments.table))
    file = (arguments.results or results.FOLDER) / f"{table.name}.jsonl"
    runner.run(table, file, arguments.grid, arguments.processes, arguments.most, arguments.device)


def show(arguments: argparse.Namespace) -> None:
    from benchmarks.study import conditions, results, runner

    table = conditions.read(conditions.find(arguments.table))
    for grid, finished, total in runner.left_by_grid(table, results.FOLDER / f"{table.name}.jsonl"):
        print(f"{grid:24} {finished:5} of {total} cells")


def best(arguments: argparse.Namespace) -> None:
    from benchmarks.study import choose, conditions, results

    table = conditions.read(conditions.find(arguments.table))
    rows = results.read((arguments.results or results.FOLDER) / f"{table.name}.jsonl")
    print(choose.as_yaml(choose.best(table, rows, arguments.grids)), end="")


def report(arguments: argparse.Namespace) -> None:
    from benchmarks.study import report

    for file in report.write(arguments.out or report.OUT):
        print(file)


if __name__ == "__main__":
    main()
