"""Statistics over paired seeds: bootstrap intervals, paired t-tests, Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from math import atan, cos, fsum, pi, sin, sqrt
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
SEED = 0


class Interval(NamedTuple):
    mean: float
    low: float
    high: float
    n: int


def bootstrap(values: Sequence[float]) -> Interval:
    """Mean and its 95 % percentile bootstrap interval. With few values it is somewhat too narrow."""
    return Interval(fmean(values), *_middle(_resampled_means(values, SEED)), len(values))


def bootstrap_unpaired(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Mean of `first` minus that of `second`, of runs that share nothing; n is the smaller number."""
    drawn = _resampled_means(first, SEED) - _resampled_means(second, SEED + 1)
    return Interval(fmean(first) - fmean(second), *_middle(drawn), min(len(first), len(second)))


def _resampled_means(values: Sequence[float], seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    return np.asarray(values, dtype=np.float64)[drawn].mean(1)


def _middle(means: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def paired_p(differences: Sequence[float]) -> float:
    """Two-sided p-value of the paired t-test that the mean difference is 0. One difference says nothing: 1."""
    n = len(differences)
    if n < 2 or not any(differences):
        return 1.0
    spread = stdev(differences)
    if spread == 0:
        return 0.0
    return student_p(fmean(differences) / (spread / sqrt(n)), n - 1)


def student_p(t: float, freedom: int) -> float:
    """P(|T| > t) for Student's t with whole degrees of freedom: the finite sums of Abramowitz and Stegun, 26.7.3-4."""
    angle = atan(abs(t) / sqrt(freedom))
    c, s = cos(angle), sin(angle)
    odd = freedom % 2
    terms, term = [], c if odd else 1.0
    for k in range(1 + odd, freedom, 2):
        terms.append(term)
        term *= c * c * k / (k + 1)
    inside = s * fsum(terms)
    return max(0.0, 1 - (2 / pi * (angle + inside) if odd else inside))


def holm(ps: Sequence[float]) -> list[float]:
    """p-values after Holm's step-down correction, in the order given: each is significant if it is under 0.05."""
    order = sorted(range(len(ps)), key=ps.__getitem__)
    corrected, largest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = largest
    return corrected
