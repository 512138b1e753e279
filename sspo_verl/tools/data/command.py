"""`sspo data`: training and evaluation sets in verl's layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sspo_verl.extras import MissingExtra
from sspo_verl.tools.data.sets import EVALUATION
from sspo_verl.tools.data.template import DEFAULT, TEMPLATES
from sspo_verl.tools.usage import HELP, NotThere

SOURCE = "FILE|FOLDER"
OUT = click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write to.")
FORCE = click.option("--force", is_flag=True, help="Replace existing files.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print only the report, as one JSON document.")
TEMPLATE = click.option(
    "--template", type=click.Choice(TEMPLATES), default=DEFAULT, show_default=True, help="Messages of the prompt."
)


class WrongData(click.ClickException):
    exit_code = 1


class Levels(click.ParamType):
    """Option type for levels: `3-5`, `5` or `1,3-5`."""

    name = "levels"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> frozenset[int]:
        if isinstance(value, frozenset):
            return value
        levels: set[int] = set()
        for part in str(value).split(","):
            first, dash, last = part.strip().partition("-")
            last = last if dash else first
            if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last) <= 5):
                self.fail(f"{value!r} is not a range of MATH's levels, 1 to 5: 3-5, 5, or 1,3-5.", param, ctx)
            levels |= set(range(int(first), int(last) + 1))
        return frozenset(levels)


@click.group("data", context_settings=HELP)
def command() -> None:
    """Make training and evaluation sets in verl's layout from the published data sets.

    Each command reads from the hub, through the library `datasets`, or from files on disk (--source: parquet, arrow,
    JSONL), and reports what it found: rows without an answer, duplicates, and problems that several sets share.

    Exit codes: 0 success, 1 a row cannot be used (it is named), 2 bad usage, a file or hub was not found, or the
    output already exists.
    """


@command.command("math")
@click.option("--levels", type=Levels(), default="3-5", show_default=True, help="Levels from 1 to 5: 3-5, 5, or 1,3-5.")
@click.option("--source", "sources", multiple=True, metavar=SOURCE, help="MATH's train split on disk; else the hub's.")
@click.option(
    "--against",
    multiple=True,
    metavar=f"{SOURCE}|SET={SOURCE.split('|')[0]}",
    help="Evaluation sets on disk to check for overlap. [default: those in a --source folder; the hub's]",
)
@click.option("--drop-duplicates", is_flag=True, help="Keep only the first copy of each problem.")
@click.option("--drop-overlap", is_flag=True, help="Leave out problems of an evaluation set.")
@TEMPLATE
@OUT
@FORCE
@JSON
def math(
    levels: frozenset[int],
    sources: tuple[str, ...],
    against: tuple[str, ...],
    drop_duplicates: bool,
    drop_overlap: bool,
    template: str,
    out: Path,
    force: bool,
    as_json: bool,
) -> None:
    """Write MATH's train split at the given levels to OUT/train.parquet.

    \b
    sspo data math --levels 3-5 --out data
    sspo data math --levels 3-5 --source math/train.parquet --against evaluation_sets --out data
    """
    from sspo_verl.tools.data import make

    drop = frozenset(name for name, on in (("duplicates", drop_duplicates), ("overlap", drop_overlap)) if on)
    _run(lambda: make.math(levels, sources, against, template, out, drop, force), as_json)


@command.command("eval")
@click.option("--sets", help=f"Some of {','.join(EVALUATION)}. [default: all]")
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar=f"{SOURCE}|SET=FILE",
    help="Sets on disk, not the hub's: a folder, a file named like its set, or SET=FILE. Of two files for one "
    "set, the first is read.",
)
@TEMPLATE
@OUT
@FORCE
@JSON
def evaluation(
    sets: str | None, sources: tuple[str, ...], template: str, out: Path, force: bool, as_json: bool
) -> None:
    """Write each evaluation set to OUT/<set>.parquet.

    \b
    sspo data eval --out data/eval
    sspo data eval --source evaluation_sets --source minerva=files/minerva_272.jsonl --out data/eval
    """
    from sspo_verl.tools.data import make

    names = [name.strip() for name in sets.split(",") if name.strip()] if sets else []
    unknown = [name for name in names if name not in EVALUATION]
    if unknown:
        raise click.UsageError(f"--sets: there is no {', '.join(unknown)}. There are {', '.join(EVALUATION)}.")
    _run(lambda: make.evaluation(list(dict.fromkeys(names)), sources, template, out, force), as_json)


@command.command("arithmetic")
@OUT
@FORCE
@JSON
def arithmetic(out: Path, force: bool, as_json: bool) -> None:
    """Write the quickstart's data, sums of four digits, to OUT/train.parquet and OUT/test.parquet."""
    from sspo_verl.tools.data import make

    _run(lambda: make.arithmetic(out, force), as_json)


@command.command("counting")
@OUT
@FORCE
@JSON
def counting(out: Path, force: bool, as_json: bool) -> None:
    """Write SmolLM2's data (count on: the next three numbers) to OUT/train.parquet and OUT/test.parquet."""
    from sspo_verl.tools.data import make

    _run(lambda: make.counting(out, force), as_json)


@command.command("reasoning-gym")
@click.argument("tasks", nargs=-1, metavar="TASK...")
@click.option("--list", "list_", is_flag=True, help="Print only the tasks, by category.")
@click.option("--rows", type=click.IntRange(1), default=1000, show_default=True, help="Training rows per task.")
@click.option("--test-rows", type=click.IntRange(1), default=100, show_default=True, help="Held-out rows per task.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Random seed.")
@click.option("--set", "settings", multiple=True, metavar="TASK.KEY=VALUE", help="A setting of a task, as JSON.")
@click.option(
    "--answer",
    type=click.Choice(("tag", "boxed", "none")),
    default="tag",
    show_default=True,
    help="How the prompt asks for the answer: in <answer></answer>, in a box, or not at all.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder to write to.")
@FORCE
@JSON
def reasoning_gym(
    tasks: tuple[str, ...],
    list_: bool,
    rows: int,
    test_rows: int,
    seed: int,
    settings: tuple[str, ...],
    answer: str,
    out: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write reasoning-gym tasks (logic, games, code, algebra) to OUT/train.parquet and OUT/test.parquet.

    \b
    sspo data reasoning-gym --list
    sspo data reasoning-gym knights_knaves mini_sudoku --rows 2000 --seed 1 --out data/gym
    sspo data reasoning-gym chain_sum --set chain_sum.max_terms=3 --out data/sums
    """
    from sspo_verl.tools.data import gym

    try:
        if list_:
            found = gym.listing()
            lines = [f"{category}: {', '.join(names)}" for category, names in found.items()]
            click.echo(json.dumps(found, indent=1) if as_json else "\n".join(lines))
            return
        if not tasks or out is None:
            raise click.UsageError("Name at least one TASK and --out, or --list to see the tasks.")
        chosen = gym.check_tasks(tuple(dict.fromkeys(tasks)), settings)
    except MissingExtra as error:
        raise NotThere(str(error)) from error
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    _run(lambda: gym.make(chosen, {"train": rows, "test": test_rows}, seed, answer, out, force), as_json)


def _run(make: Callable[[], dict[str, Any]], as_json: bool) -> None:
    try:
        report = make()
    except OSError as error:
        raise NotThere(str(error)) from error
    except ValueError as error:
        raise WrongData(str(error)) from error
    if as_json:
        click.echo(json.dumps(report, indent=1, ensure_ascii=False))
        return
    from rich.console import Console

    from sspo_verl.tools.data.show import show

    console = Console(highlight=False)
    show(report, console if console.is_terminal else Console(highlight=False, width=200, soft_wrap=True))


if __name__ == "__main__":
    command()
