"""The comparisons that a table claims: paired differences with intervals, corrected as one family."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

from benchmarks.study.conditions import Table
from benchmarks.study.points import Point, differences, grouped, of_grids, values
from benchmarks.study.results import Row
from benchmarks.study.statistics import FEWEST_SEEDS, Interval, bootstrap, holm, mean_interval, paired_p

SIGNIFICANT = 0.05


class Comparison(NamedTuple):
    """A comparison: first minus second at one place."""

    first: str
    second: str
    metric: str
    place: tuple[tuple[str, Any], ...]
    difference: Interval
    bootstrap: Interval  # the same mean
    p: float
    corrected: float  # Holm-corrected, over all comparisons of the table

    @property
    def verdict(self) -> str:
        if self.corrected >= SIGNIFICANT:
            return "not resolved"
        return "higher" if self.difference.mean > 0 else "lower"


def compare(table: Table, rows: Iterable[Row]) -> list[Comparison]:
    """All comparisons with enough seeds."""
    rows, found = list(rows), []

    @functools.cache
    def points_of(grid: str) -> list[Point]:
        tied = table.tied(grid)
        return [each.without(tied) for each in of_grids(table, rows, [grid])]

    for claim in table.claims:
        first, second = claim["minus"]
        for place, there in grouped(points_of(claim["grid"]), lambda each: each.place).items():
            paired = _differences(there, first, second, claim["metric"])
            if len(paired) >= FEWEST_SEEDS:
                intervals = mean_interval(paired), bootstrap(paired)
                found.append(Comparison(first, second, claim["metric"], place, *intervals, paired_p(paired), 1.0))
    corrected = holm([each.p for each in found])
    return [each._replace(corrected=p) for each, p in zip(found, corrected, strict=True)]


def _differences(points: list[Point], first: str, second: str, metric: str) -> list[float]:
    by_name = grouped(points, lambda each: each.algorithm.name)
    return differences(values(by_name.get(first, []), metric), values(by_name.get(second, []), metric))
