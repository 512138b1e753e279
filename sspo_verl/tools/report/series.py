"""A run's values over its steps, by display name or by verl's own name."""

from __future__ import annotations

import math

from sspo_verl.tools.runs.metrics_file import Row, Rows

# {display name of a series: its possible names in verl's metrics}. Any other name is taken to be verl's own.
SERIES = {
    "reward": ("critic/score/mean", "critic/rewards/mean"),
    "clip fraction": ("actor/pg_clipfrac",),
    "entropy": ("actor/entropy",),
    "segments per response": ("sspo/segments_per_response",),
    "seconds per step": ("timing_s/step",),
    "seconds per validation": ("timing_s/testing",),
    "rollout difference": ("training/rollout_probs_diff_mean",),
}
ACCURACY = "accuracy"
ACCURACY_PREFIX = "val-core/"
VALIDATION = ("val-core/", "val-aux/")


def accuracy(row: Row) -> float | None:
    """verl's main validation score, averaged over data sources; None if the step was not validated."""
    scores = [v for name, v in row.items() if name.startswith(ACCURACY_PREFIX) and "/mean@" in name]
    return sum(scores) / len(scores) if scores else None


def value(row: Row, series: str) -> float | None:
    if series == ACCURACY:
        return accuracy(row)
    return next((row[name] for name in SERIES.get(series, (series,)) if name in row), None)


def recorded(rows: Rows, series: str) -> list[tuple[int, float]]:
    """(step, value) where the series has a value, also NaN; `series` is "accuracy", a name in SERIES, or a metric."""
    return [(step, v) for step, row in sorted(rows.items()) if (v := value(row, series)) is not None]


def points(rows: Rows, series: str) -> list[tuple[int, float]]:
    """The finite values of a series, which can be drawn."""
    return [(step, v) for step, v in recorded(rows, series) if math.isfinite(v)]


def values(rows: Rows, series: str) -> list[float]:
    return [v for _, v in points(rows, series)]


def ended(rows: Rows, series: str) -> int | None:
    """The last step that has the series, if the training continued without it; None if it did not, or never had it. A
    row with only a validation is not training."""
    trained = [step for step, row in rows.items() if any(not name.startswith(VALIDATION) for name in row)]
    steps = [step for step, _ in recorded(rows, series)]
    return steps[-1] if steps and trained and steps[-1] < max(trained) else None


def not_finite(rows: Rows) -> dict[str, tuple[list[int], bool]]:
    """{metric: (steps at which it was NaN or infinite, whether the last step that has it is one of them)}."""
    steps: dict[str, list[int]] = {}
    last: dict[str, int] = {}
    for step, row in sorted(rows.items()):
        for name, v in row.items():
            last[name] = step
            if not math.isfinite(v):
                steps.setdefault(name, []).append(step)
    return {name: (found, last[name] == found[-1]) for name, found in steps.items()}
