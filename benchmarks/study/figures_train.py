"""Figures of complete trainings: held-out accuracy and entropy over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.study.draw import Styles, curve, panels
from benchmarks.study.points import Point, grouped
from benchmarks.study.statistics import mean_interval

MEASURES = {"accuracy": "held-out accuracy", "entropy": "entropy, nats per token"}  # evaluated every few steps


def curves(points: Sequence[Point], file: Path, measure: str) -> None:
    """One of MEASURES: a panel per place, a line per algorithm; means and 95 % intervals over seeds."""
    groups = grouped(points, lambda each: each.place)
    styles = Styles([each.algorithm.name for each in points])

    def draw(axes, index):
        for name, there in grouped(list(groups.values())[index], lambda each: each.algorithm.name).items():
            seeds = [each.result["curves"][measure] for each in there]
            every = len(there[0].result["curves"]["reward"]) // (len(seeds[0]) - 1)
            y = [mean_interval(at_step) for at_step in zip(*seeds, strict=True)]
            curve(axes, [every * i + 0.1 * styles.names.index(name) for i in range(len(y))], y, styles.of(name), name)

    panels(file, [title(dict(place)) for place in groups], draw, ("step", MEASURES[measure]), columns=3)


def title(place: dict) -> str:
    updates = f"{place['updates']} update{'s' * (place['updates'] != 1)}"
    return f"{place['task']}, {updates}, rate {place['learning_rate']:g}, lag {place['staleness']}"
