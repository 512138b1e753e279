"""Results of a table together with their conditions, grouped so that seeds can be paired."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.study.conditions import Table, key_of
from benchmarks.study.losses import Algorithm
from benchmarks.study.results import Row

PLACE = ("task", "updates", "learning_rate", "staleness", "target_kl")  # algorithms are compared within these


class Point(NamedTuple):
    """A cell that has a result."""

    algorithm: Algorithm
    place: tuple[tuple[str, Any], ...]  # its parameters in PLACE
    seed: int
    result: Mapping[str, Any]

    def without(self, names: set[str]) -> Point:
        """The same point, with these names removed from its place."""
        return self._replace(place=tuple((name, value) for name, value in self.place if name not in names))

    def at(self, name: str) -> Any:
        return dict(self.place).get(name)


def of_grids(table: Table, rows: Iterable[Row], grids: Sequence[str]) -> list[Point]:
    """Points of these grids, in order; cells without a result are left out."""
    found = {key_of(row.cell): row for row in rows}
    return [point(found[key]) for cell in table.cells(*grids) if (key := cell.key()) in found]


def point(row: Row) -> Point:
    cell = row.cell
    place = tuple((name, cell[name]) for name in PLACE if name in cell)
    return Point(Algorithm(**cell["algorithm"]), place, cell["seed"], row.result)


def grouped(points: Iterable[Point], key: Callable[[Point], Any]) -> dict[Any, list[Point]]:
    found: dict[Any, list[Point]] = {}
    for each in points:
        found.setdefault(key(each), []).append(each)
    return found


def values(points: Iterable[Point], metric: str) -> dict[int, float]:
    """{seed: metric}, for points that only differ in their seed."""
    found: dict[int, float] = {}
    for each in points:
        assert each.seed not in found, f"two results of seed {each.seed}"
        found[each.seed] = each.result[metric]
    return found


def differences(first: Mapping[int, float], second: Mapping[int, float]) -> list[float]:
    """first minus second, for the seeds that both have."""
    return [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
