"""Statistics over paired seeds: t intervals, bootstrap intervals, paired t-tests, Holm's correction."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from math import atan, cos, floor, fsum, pi, sin, sqrt
from statistics import fmean, stdev, variance
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
SEED = 0
FEWEST_SEEDS = 5  # for an interval or a comparison


class Interval(NamedTuple):
    mean: float
    low: float
    high: float
    n: int

    @property
    def is_range(self) -> bool:
        """Whether low and high are the smallest and the largest value: there are too few for an interval."""
        return self.n < FEWEST_SEEDS


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean and its 95 % t interval, which agrees with `paired_p`; of fewer than 5 values, mean and range."""
    mean, n = fmean(values), len(values)
    if n < FEWEST_SEEDS:
        return Interval(mean, min(values), max(values), n)
    half = student_quantile(n - 1) * stdev(values) / sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def mean_interval_unpaired(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Mean of `first` minus that of `second`, of runs that share nothing, and Welch's 95 % interval.

    Two values or more on each side. n is the number of both together; the degrees of freedom are rounded down.
    """
    mean = fmean(first) - fmean(second)
    parts = [variance(values) / len(values) for values in (first, second)]
    total, n = sum(parts), len(first) + len(second)
    if total == 0:
        return Interval(mean, mean, mean, n)
    freedom = total**2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, (first, second), strict=True))
    half = student_quantile(floor(freedom)) * sqrt(total)
    return Interval(mean, mean - half, mean + half, n)


def bootstrap(values: Sequence[float]) -> Interval:
    """Mean and its 95 % percentile bootstrap interval. Too narrow for few values: of ten it covers about 90 %."""
    drawn = np.random.default_rng(SEED).integers(0, len(values), (RESAMPLES, len(values)))
    means = np.asarray(values, dtype=np.float64)[drawn].mean(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(fmean(values), float(low), float(high), len(values))


def paired_p(differences: Sequence[float]) -> float:
    """Two-sided p-value of the paired t-test that the mean difference is 0. 1 for a single difference."""
    n = len(differences)
    if n < 2 or not any(differences):
        return 1.0
    spread = stdev(differences)
    if spread == 0:
        return 0.0
    return student_p(fmean(differences) / (spread / sqrt(n)), n - 1)


def student_p(t: float, freedom: int) -> float:
    """P(|T| > t) for Student's t with integer degrees of freedom: finite sums of Abramowitz and Stegun, 26.7.3-4."""
    angle = atan(abs(t) / sqrt(freedom))
    c, s = cos(angle), sin(angle)
    odd = freedom % 2
    terms, term = [], c if odd else 1.0
    for k in range(1 + odd, freedom, 2):
        terms.append(term)
        term *= c * c * k / (k + 1)
    inside = s * fsum(terms)
    return max(0.0, 1 - (2 / pi * (angle + inside) if odd else inside))


@functools.cache
def student_quantile(freedom: int) -> float:
    """The t with P(|T| > t) = 0.05, by bisection: half the width of a 95 % interval in standard errors."""
    low, high = 0.0, 20.0  # 12.7 at one degree of freedom is the largest
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if student_p(middle, freedom) > 1 - LEVEL else (low, middle)
    return high


def holm(ps: Sequence[float]) -> list[float]:
    """p-values after Holm's step-down correction, in the order given: each is significant if it is under 0.05."""
    order = sorted(range(len(ps)), key=ps.__getitem__)
    corrected, largest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = largest
    return corrected
