"""Chooses what to confirm with new seeds: at each dose, each level's bound and rate with the highest mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from benchmarks.study.conditions import Table
from benchmarks.study.points import Point, grouped, of_grids
from benchmarks.study.results import Row

METRIC = "gain"


class Chosen(NamedTuple):
    task: str
    updates: int
    level: str
    algorithm: str
    learning_rate: float
    mean: float
    seeds: int


def best(table: Table, rows: Iterable[Row], grids: Sequence[str]) -> list[Chosen]:
    """The best candidates, over the seeds that all candidates of a dose share, so that none wins by luckier seeds."""
    points = of_grids(table, rows, grids)
    found = []
    for (task, updates), at_dose in grouped(points, lambda each: (each.at("task"), each.at("updates"))).items():
        candidates = grouped(at_dose, lambda each: (each.algorithm.name, each.at("learning_rate")))
        seeds = set.intersection(*({each.seed for each in there} for there in candidates.values()))
        if seeds:
            found += _best_of_levels(task, updates, candidates.values(), seeds)
    return found


def _best_of_levels(task: str, updates: int, candidates: Iterable[list[Point]], seeds: set[int]) -> list[Chosen]:
    chosen: dict[str, Chosen] = {}
    for there in candidates:
        algorithm, mean = there[0].algorithm, fmean(each.result[METRIC] for each in there if each.seed in seeds)
        if algorithm.level not in chosen or mean > chosen[algorithm.level].mean:
            rate = there[0].at("learning_rate")
            chosen[algorithm.level] = Chosen(task, updates, algorithm.level, algorithm.name, rate, mean, len(seeds))
    return list(chosen.values())


def as_yaml(found: Sequence[Chosen]) -> str:
    """The `each` of a grid per task and number of updates."""
    lines, doses = [], {}
    for each in found:
        doses.setdefault((each.task, each.updates), []).append(each)
    for (task, updates), there in doses.items():
        lines.append(f"# {task}, {updates} updates, {there[0].seeds} seeds")
        lines.append("each:")
        for each in there:
            chosen = f"{{algorithm: '{each.algorithm}', learning_rate: {each.learning_rate:.1e}}}"
            lines.append(f"  - {chosen} # {each.level}: {each.mean:+.3f}")
    return "".join(f"{line}\n" for line in lines)
