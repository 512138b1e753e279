"""Distribution of H in a fixed amount of memory: all values if there are few, else a histogram."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

EXACT = 1024  # up to this many values, all are kept and quantiles are exact
# Above it, the error of a quantile q is at most ERROR * (q + SCALE), for values from 0 to 20 nats (a vocabulary of 2^28
# words has at most 19.4): the width of the bins is set for that, and is proportional to q well above SCALE.
ERROR, SCALE = 0.01, 0.01  # a share; nats
_EDGES = SCALE * ((1 + 2 * ERROR) ** np.arange(385) - 1)  # the last one is 20.05
_MIDDLES = np.append((_EDGES[:-1] + _EDGES[1:]) / 2, _EDGES[-1])  # above the last edge only the max is known


@dataclass(frozen=True)
class Distribution:
    """Distribution of finite values. Can be added up in any order with the same result, except for the last bits of
    `total`, a sum of floats."""

    size: int
    total: float
    smallest: float  # inf if there are no values
    largest: float
    values: np.ndarray | None  # [size] float64, while size <= EXACT
    bins: np.ndarray | None  # [len(_MIDDLES)] int64, number of values in each bin, above EXACT

    @classmethod
    def of(cls, values: np.ndarray) -> Distribution:
        """Distribution of finite values, 1-D."""
        values = values.astype(np.float64)
        exact = values.size <= EXACT
        return cls(
            size=values.size,
            total=float(values.sum()),
            smallest=float(values.min(initial=np.inf)),
            largest=float(values.max(initial=-np.inf)),
            values=values if exact else None,
            bins=None if exact else _binned(values),
        )

    def __add__(self, other: Distribution) -> Distribution:
        if not self.size or not other.size:
            return self if self.size else other
        if self.values is not None and other.values is not None:
            return Distribution.of(np.concatenate((self.values, other.values)))
        return Distribution(
            size=self.size + other.size,
            total=self.total + other.total,
            smallest=min(self.smallest, other.smallest),
            largest=max(self.largest, other.largest),
            values=None,
            bins=self._histogram() + other._histogram(),
        )

    def _histogram(self) -> np.ndarray:
        if self.bins is not None:
            return self.bins
        assert self.values is not None
        return _binned(self.values)

    def quantiles(self, shares: Iterable[float]) -> list[float]:
        """Quantiles, linear between the two nearest ranks like numpy.quantile; needs at least one value."""
        if self.values is not None:
            return [float(q) for q in np.quantile(self.values, list(shares))]
        ends = self._histogram().cumsum()

        def at(rank: int) -> float:
            middle = _MIDDLES[np.searchsorted(ends, rank, side="right")]
            return float(min(max(middle, self.smallest), self.largest))

        out = []
        for share in shares:
            place = share * (self.size - 1)
            below = int(place)
            low, high = at(below), at(min(below + 1, self.size - 1))
            out.append(low + (place - below) * (high - low))
        return out


def _binned(values: np.ndarray) -> np.ndarray:
    """Number of values in each bin; values that rounding made negative go to the first."""
    places = np.log1p(values.clip(min=0) / SCALE) / np.log1p(2 * ERROR)
    return np.bincount(np.minimum(places, len(_MIDDLES) - 1).astype(np.int64), minlength=len(_MIDDLES))
