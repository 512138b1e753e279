"""Summarizes a run in a few numbers, for the quickstart's summary and the report's table."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import mean, median

from sspo_verl.metrics.names import PREFIX
from sspo_verl.metrics.warnings import SIGNS
from sspo_verl.tools.report.series import recorded, values
from sspo_verl.tools.runs.metrics_file import Rows

Numbers = dict[str, float | None]


def _first(data: list[float]) -> float:
    return data[0]


def _last(data: list[float]) -> float:
    return data[-1]


# {number: (series, how it is reduced, minimum number of values)}
_OF: dict[str, tuple[str, Callable[[list[float]], float], int]] = {
    "accuracy_first": ("accuracy", _first, 1),
    "accuracy_last": ("accuracy", _last, 2),  # the first validation is not a result of the training
    "accuracy_best": ("accuracy", max, 1),
    "reward_last": ("reward", _last, 1),
    "clip_fraction": ("clip fraction", mean, 1),
    "clip_fraction_highest": ("clip fraction", max, 1),
    "grpo_clip_fraction": ("sspo/counterfactual/grpo_clipfrac", mean, 1),
    "gspo_clip_fraction": ("sspo/counterfactual/gspo_clipfrac", mean, 1),
    "gspo_wide_clip_fraction": ("sspo/counterfactual/gspo_wide_clipfrac", mean, 1),
    "segments_per_response": ("segments per response", mean, 1),
    "entropy_first": ("entropy", _first, 1),
    "entropy_last": ("entropy", _last, 1),
    "seconds_per_step": ("seconds per step", median, 1),  # without validation
    "rollout_difference": ("rollout difference", max, 1),
}


def numbers(rows: Rows) -> Numbers:
    """{number: value}; None if the run did not measure it. Means and medians are over the run's steps.

    NaN if a first or last value is not finite, or if no value is; otherwise computed from the finite values.
    """
    found: Numbers = {"steps": max(rows, default=0)}
    for name, (series, of, at_least) in _OF.items():
        data = [v for _, v in recorded(rows, series)]
        if len(data) < at_least:
            found[name] = None
            continue
        counted = data if of in (_first, _last) else [v for v in data if math.isfinite(v)]
        found[name] = of(counted) if counted else math.nan
    return found


def warning_series(sign: str) -> str:
    return f"{PREFIX}warning/{sign}"


def warnings_seen(rows: Rows) -> dict[str, tuple[int, int]]:
    """{sign: (steps at which it was seen, steps that checked for it)}, for the signs that the run checked."""
    looked = {sign: values(rows, warning_series(sign)) for sign in SIGNS}
    return {sign: (sum(v > 0 for v in data), len(data)) for sign, data in looked.items() if data}
