"""95 % confidence intervals over problems: how much the figure would vary with other problems of the same kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist, fmean, variance

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


@dataclass(frozen=True)
class Estimate:
    """A value in [0, 1] and its interval."""

    value: float
    low: float
    high: float


def wilson(p: float, n: float) -> tuple[float, float]:
    """Wilson score interval of a proportion p of n trials. Unlike p +- z sqrt(p(1-p)/n), it has width at p = 0 and 1.

    (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    """
    centre = p + Z * Z / (2 * n)
    half = Z * sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    # Clamped against rounding: at p = 0 and p = 1 the two terms cancel exactly only on paper.
    return max(0.0, (centre - half) / (1 + Z * Z / n)), min(1.0, (centre + half) / (1 + Z * Z / n))


def over_problems(values: Sequence[float], samples: int = 1) -> Estimate:
    """Mean of one value in [0, 1] per problem, with the Wilson interval for the effective number of problems.

        n_eff = n p (1 - p) / s^2,  at least n, at most n times samples

    values: x_i, one per problem, each a mean over `samples` samples; p is their mean, s^2 their variance. If every x_i
    is 0 or 1, n_eff = n: plain Wilson. If sampling makes the x_i vary less than coin flips with probability p, n_eff
    grows accordingly. A single problem says nothing about other problems: n_eff = 1.
    """
    n = len(values)
    p = fmean(values)
    s2 = variance(values) if n > 1 else 0.0
    effective = float(n)
    if n > 1:
        effective = n * samples if s2 == 0 else min(max(n * p * (1 - p) / s2, n), n * samples)
    if p in (0.0, 1.0):
        effective = n  # no spread to estimate it from: the minimum
    return Estimate(p, *wilson(p, effective))


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Unweighted mean of the benchmarks, with an interval derived from theirs.

        low = mean - sqrt(sum (p_j - low_j)^2) / m,   high = mean + sqrt(sum (high_j - p_j)^2) / m

    The benchmarks' problems are independent, so the squared distances to the limits add up (Zou and Donner 2008,
    "MOVER"). For a single benchmark, it is that benchmark's interval.
    """
    m = len(estimates)
    value = fmean(one.value for one in estimates)
    low = value - sqrt(sum((one.value - one.low) ** 2 for one in estimates)) / m
    high = value + sqrt(sum((one.high - one.value) ** 2 for one in estimates)) / m
    return Estimate(value, max(0.0, low), min(1.0, high))
