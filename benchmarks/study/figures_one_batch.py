"""Figures of gains from one batch: by learning rate, and over the sweeps of bounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.study.draw import Styles, curve, log_scale, panels, zero_line
from benchmarks.study.markdown import mean
from benchmarks.study.points import Point, grouped, values
from benchmarks.study.statistics import mean_interval

GAIN = "gain in accuracy"


def by_rate(points: Sequence[Point], file: Path) -> None:
    """A panel per task and number of updates, a line per algorithm over the learning rates."""
    groups = grouped(points, lambda each: (each.at("task"), each.at("updates")))
    styles = Styles([each.algorithm.name for each in points])
    rates = sorted({each.at("learning_rate") for each in points})

    def draw(axes, index):
        log_scale(axes, rates)
        zero_line(axes)
        for name, there in grouped(list(groups.values())[index], lambda each: each.algorithm.name).items():
            at_rate = grouped(there, lambda each: each.at("learning_rate"))
            shift = 1 + 0.03 * (styles.names.index(name) - len(styles.names) / 2)  # so that bars do not overlap
            y = [_gain(found) for found in at_rate.values()]
            curve(axes, [rate * shift for rate in at_rate], y, styles.of(name), name)

    titles = [f"{task}, {updates} updates" for task, updates in groups]
    panels(file, titles, draw, ("learning rate", GAIN), columns=3)


def by_bound(points: Sequence[Point], file: Path, x: str, label: str) -> None:
    """A panel per task, number of updates and rate; a marker per algorithm at its mean of `x`, a line through those of
    one level."""
    groups = dict(sorted(grouped(points, lambda each: each.place).items()))
    styles = Styles(sorted({each.algorithm.level for each in points}))

    def draw(axes, index):
        log_scale(axes)
        zero_line(axes)
        for level, there in grouped(list(groups.values())[index], lambda each: each.algorithm.level).items():
            by_name = grouped(there, lambda each: each.algorithm.name)
            marks = sorted((max(share(found, x), FLOOR), _gain(found)) for found in by_name.values())
            curve(axes, [at for at, _ in marks], [gain for _, gain in marks], styles.of(level), level)

    titles = [", ".join(f"{value:g} {WORDS[n]}" for n, value in place if n in WORDS) for place in groups]
    panels(file, titles, draw, (label, GAIN))


def by_setting(points: Sequence[Point], file: Path) -> None:
    """A panel per sweep of a setting, a line per rate over its values."""
    sweeps = grouped(points, lambda each: each.algorithm.name.rsplit(" ", 1)[0])
    styles = Styles([f"rate {each.at('learning_rate'):g}" for each in points])

    def draw(axes, index):
        zero_line(axes)
        for rate, there in grouped(list(sweeps.values())[index], lambda each: each.at("learning_rate")).items():
            at_value = grouped(there, lambda each: float(each.algorithm.name.rsplit(" ", 1)[1]))
            label = f"rate {rate:g}"
            curve(axes, list(at_value), [_gain(found) for found in at_value.values()], styles.of(label), label)

    panels(file, list(sweeps), draw, ("value", GAIN), columns=3, sharex=False)


MEASURES = {"kl": "KL to the sampling policy, nats per token", "clipped": "share of the tokens that is clipped"}
WORDS = {"updates": "updates", "learning_rate": "rate"}
FLOOR = 1e-4  # smaller values are drawn there, on a logarithmic axis


def share(points: Sequence[Point], name: str) -> float:
    """A mean over seeds; `clipped` is the sum of both sides."""
    if name == "clipped":
        return mean(points, "clipped_low") + mean(points, "clipped_high")
    return mean(points, name)


def _gain(points: Sequence[Point]):
    return mean_interval(list(values(points, "gain").values()))
