"""Tables of conditions: define the runs, fixed and committed before they start. One YAML file each, in conditions/.

    about: the table's question and cost
    like: another table, whose algorithms, sweeps and groups can be used here as well
    algorithms: {name: {loss, segmenter, settings}}
    sweeps: {name: {over: SETTING or half_width, values: [...], loss, segmenter, settings}}    named `NAME VALUE`
    groups: {name: [algorithms, sweeps or groups]}
    grids: {name: {experiment, added, figures, AXIS: value or list of values}}    every combination is a cell

    claims: [{grid, metric, minus: [first algorithm, second]}]    compared at each place of the grid; one Holm family
    agreements: [{grids: [first, second], metric}]    two grids in which each algorithm should give the same result

A grid may have `each: [{AXIS: value, ...}, ...]`: values that go together, such as each algorithm with its own rate.
An axis is a field of the experiment; lists of algorithms may include sweeps and groups. half_width w is the band
[1 - w, 1 + w]. `added` is null for the original grids, else says when and why the grid was added. `figures` and
`tables` are names in report.py.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from benchmarks.study.experiments import EXPERIMENTS
from benchmarks.study.losses import Algorithm
from benchmarks.study.tasks import TASKS

FOLDER = Path(__file__).with_name("conditions")
SECTIONS = ("about", "like", "algorithms", "sweeps", "groups", "grids", "claims", "agreements")
SHARED = ("algorithms", "sweeps", "groups")
NOT_AXES = ("experiment", "added", "figures", "tables", "each")
FIRST_AXES = ("seed", "task")  # vary slowest: pairs are complete early, and what cells share is reused


@dataclass(frozen=True)
class Cell:
    """One run: an experiment with all of its parameters."""

    grid: str
    experiment: str
    parameters: Any  # an instance of EXPERIMENTS[experiment]

    def as_dict(self) -> dict:
        return {"experiment": self.experiment, **asdict(self.parameters)}

    def key(self) -> str:
        """Key of the cell: equal for cells that would give the same result; includes the algorithm's name."""
        return key_of({"experiment": self.experiment, **vars(self.parameters)})


def key_of(cell: dict) -> str:
    """Key of a cell as a row has it, or with its parameters as dataclasses: `as_dict` would copy them, for each key."""
    return json.dumps(cell, sort_keys=True, default=vars)


@dataclass(frozen=True)
class Table:
    name: str
    about: str
    algorithms: dict[str, Algorithm]
    groups: dict[str, list[str]]  # names of algorithms; a sweep is a group
    grids: dict[str, dict]
    claims: list[dict]
    agreements: list[dict]

    def cells(self, *grids: str) -> list[Cell]:
        """Cells of these grids, or of all; a cell in several grids occurs once, in the first."""
        found: dict[str, Cell] = {}
        for grid in grids or self.grids:
            for cell in self._cells_of(grid):
                found.setdefault(cell.key(), cell)
        return list(found.values())

    def _cells_of(self, name: str) -> Iterator[Cell]:
        if name not in self.grids:
            raise ValueError(f"{self.name}: no grid {name!r}; it has {', '.join(self.grids)}.")
        grid = self.grids[name]
        axes = sorted((axis for axis in grid if axis not in NOT_AXES), key=_order)
        experiment = EXPERIMENTS[grid["experiment"]]
        for values in itertools.product(*(self._values(axis, grid[axis]) for axis in axes)):
            for tied in grid.get("each", [{}]):
                chosen = {axis: self._values(axis, value)[0] for axis, value in tied.items()}
                yield Cell(name, grid["experiment"], experiment(**dict(zip(axes, values, strict=True)), **chosen))

    def tied(self, grid: str) -> set[str]:
        """Parameters that `each` sets, which do not distinguish the places of a comparison."""
        return {axis for tied in self.grids[grid].get("each", []) for axis in tied}

    def _values(self, axis: str, written: Any) -> Sequence[Any]:
        names = written if isinstance(written, list) else [written]
        if axis == "algorithm":
            return self.named(names)
        if axis == "estimators":  # every cell has all of them
            return [tuple(self.named(names))]
        return names

    def named(self, names: Sequence[str]) -> list[Algorithm]:
        """Algorithms by name, including those of sweeps and groups."""
        found: dict[str, Algorithm] = {}
        for name in names:
            if name in self.groups:
                found |= {a.name: a for a in self.named(self.groups[name])}
            elif name in self.algorithms:
                found[name] = self.algorithms[name]
            else:
                raise ValueError(f"{self.name}: no algorithm, sweep or group {name!r}.")
        return list(found.values())


def read(file: Path) -> Table:
    """Read a table and check all its cells. Raises ValueError, naming the file and the fault."""
    try:
        return _table(file.stem, _with_shared(yaml.safe_load(file.read_text())))
    except (ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise ValueError(f"{file}: {error}") from error


def find(name: str) -> Path:
    """The file of a table. Raises ValueError, listing the names that exist."""
    file = FOLDER / f"{name}.yaml"
    if not file.exists():
        raise ValueError(
            f"no table {name!r}; conditions/ has {', '.join(sorted(f.stem for f in FOLDER.glob('*.yaml')))}."
        )
    return file


def _with_shared(written: dict) -> dict:
    """A table with the entries it takes from the one that it is `like`."""
    if "like" not in written:
        return written
    base = yaml.safe_load(find(written["like"]).read_text())
    return written | {name: {**base.get(name, {}), **written.get(name, {})} for name in SHARED}


def _table(name: str, written: dict) -> Table:
    _known("sections", written, SECTIONS)
    algorithms = {key: Algorithm(key, **value) for key, value in written["algorithms"].items()}
    groups = dict(written.get("groups", {}))
    for key, sweep in written.get("sweeps", {}).items():
        found = list(_sweep(key, **sweep))
        groups[key] = [algorithm.name for algorithm in found]
        algorithms |= {algorithm.name: algorithm for algorithm in found}
    table = Table(
        name,
        written["about"],
        algorithms,
        groups,
        written["grids"],
        *(written.get(name, []) for name in ("claims", "agreements")),
    )
    for key, grid in table.grids.items():
        _check_grid(key, grid)
    table.cells()
    for claim in table.claims:
        _check_claim(table, **claim)
    return table


def _sweep(name: str, over: str, values: list[float], settings: dict | None = None, **rest: Any) -> Iterator[Algorithm]:
    for value in values:
        changed = _band(value) if over == "half_width" else {over: value}
        yield Algorithm(f"{name} {value:g}", settings={**(settings or {}), **changed}, **rest)


def _band(half_width: float) -> dict[str, float]:
    """Bounds of a half width. Rounded, because 1 - 0.8 is not exactly 0.2; a ratio is never under 0."""
    return {"clip_low": max(0.0, round(1 - half_width, 6)), "clip_high": round(1 + half_width, 6)}


def _check_grid(name: str, grid: dict) -> None:
    if grid.get("experiment") not in EXPERIMENTS:
        raise ValueError(f"grid {name}: experiment must be one of {', '.join(EXPERIMENTS)}.")
    if "added" not in grid:
        raise ValueError(f"grid {name}: write `added: null`, or when and why it was added after the first runs.")
    known = [f.name for f in fields(EXPERIMENTS[grid["experiment"]])]
    axes = {axis for axis in grid if axis not in NOT_AXES} | {axis for tied in grid.get("each", []) for axis in tied}
    _known(f"axes of grid {name}", axes, known)
    tasks = grid["task"] if isinstance(grid["task"], list) else [grid["task"]]
    _known(f"tasks of grid {name}", tasks, list(TASKS))


def _check_claim(table: Table, grid: str, metric: str, minus: list[str]) -> None:
    missing = {a.name for a in table.named(minus)} - {cell.parameters.algorithm.name for cell in table.cells(grid)}
    if missing:
        raise ValueError(f"claims: grid {grid} does not run {', '.join(missing)}.")


def _known(what: str, found: Any, known: Sequence[str]) -> None:
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise ValueError(f"{what}: {', '.join(unknown)} unknown; known are {', '.join(known)}.")


def _order(axis: str) -> tuple[int, str]:
    return (FIRST_AXES.index(axis) if axis in FIRST_AXES else len(FIRST_AXES), axis)
