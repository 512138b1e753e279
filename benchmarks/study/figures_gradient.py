"""Figures of gradient quality: each estimator at each distance between the policies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.study.draw import Styles, curve, log_scale, panels
from benchmarks.study.points import Point, grouped
from benchmarks.study.statistics import mean_interval

MEASURES = {"cosine": "cosine with the on-policy gradient", "variance": "variance / |on-policy gradient|²"}


LINES = 7  # in a panel, besides the on-policy one


def estimators(points: Sequence[Point], file: Path, measure: str, names: Sequence[str]) -> None:
    """A panel per task and loss of the drift, a line per estimator over the KL reached; means and intervals over seeds.
    A target that a loss never reached is drawn where its updates ended."""
    groups = grouped(points, lambda each: (each.at("task"), each.algorithm.name))
    styles = Styles(["on-policy", *names])

    def draw(axes, index):
        log_scale(axes)
        axes.set_yscale("log" if measure == "variance" else "linear")
        targets = grouped(list(groups.values())[index], lambda each: each.at("target_kl")).values()
        reached = [fmean(each.result["kl"] for each in there) for there in targets]
        for number, name in enumerate(styles.names):
            y = [mean_interval([quality(each, name, measure) for each in there]) for there in targets]
            curve(axes, [kl * (1 + 0.015 * number) for kl in reached], y, styles.of(name), name)

    titles = [f"{task}, drifted by {name}" for task, name in groups]
    panels(file, titles, draw, ("KL between the policies, nats per token", MEASURES[measure]), columns=3)


def quality(point: Point, name: str, measure: str) -> float:
    found = point.result["on-policy"] if name == "on-policy" else point.result["estimators"][name]
    return found[measure]
