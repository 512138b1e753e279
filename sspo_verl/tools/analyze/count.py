"""Exact statistics in bounded memory: integers are counted by value, and quantiles come from those counts."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from sspo_verl.metrics.names import BANDS, SIDES


@dataclass
class Histogram:
    """Counts of each integer seen. n different integers add up to at least n^2 / 2, so there are never many."""

    counts: Counter[int] = field(default_factory=Counter)

    def add(self, values: Iterable[int]) -> None:
        self.counts.update(values)

    def merge(self, other: Histogram) -> None:
        self.counts.update(other.counts)

    @property
    def n(self) -> int:
        return self.counts.total()

    @property
    def sum(self) -> int:
        return sum(value * count for value, count in self.counts.items())

    def quantiles(self, shares: Iterable[float]) -> list[float]:
        """Quantiles with linear interpolation between ranks, equal to numpy.quantile of all values."""
        values, ends, end = sorted(self.counts), [], 0
        for value in values:
            end += self.counts[value]
            ends.append(end)

        def at(rank: int) -> int:
            return values[bisect_right(ends, rank)]

        out = []
        for share in shares:
            rank = share * (end - 1)
            below = int(rank)
            low, high = at(below), at(min(below + 1, end - 1))
            out.append(low + (high - low) * (rank - below))
        return out

    def summary(self) -> dict[str, float] | None:
        """Summary statistics; None if nothing was counted."""
        if not self.n:
            return None
        p50, p95 = self.quantiles((0.5, 0.95))
        low, high = min(self.counts), max(self.counts)
        return {"n": self.n, "mean": self.sum / self.n, "min": low, "p50": p50, "p95": p95, "max": high}


@dataclass
class Counts:
    """Counts of one group of responses. Empty ones are counted, but excluded from the histograms."""

    responses: int = 0
    empty: int = 0
    tokens: Histogram = field(default_factory=Histogram)
    line_breaks: Histogram = field(default_factory=Histogram)
    segments: Histogram = field(default_factory=Histogram)
    segment_tokens: Histogram = field(default_factory=Histogram)
    # Keys: (band, side of the clip), None if unknown. Segments, and the tokens in them.
    banded: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)
    banded_tokens: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)

    def merge(self, other: Counts) -> None:
        self.responses += other.responses
        self.empty += other.empty
        for name in ("tokens", "line_breaks", "segments", "segment_tokens"):
            getattr(self, name).merge(getattr(other, name))
        self.banded.update(other.banded)
        self.banded_tokens.update(other.banded_tokens)

    def summary(self) -> dict:
        known = self.segments.n
        singles = self.segments.counts[1]
        return {
            "responses": self.responses,
            "empty": self.empty,
            "tokens_per_response": self.tokens.summary(),
            "line_breaks_per_response": self.line_breaks.summary(),
            "segments_per_response": self.segments.summary(),
            "tokens_per_segment": self.segment_tokens.summary(),
            "single_segment": {"n": singles, "of": known, "share": singles / known} if known else None,
            "entropy_bands": self._bands(),
            "clipped_segments": _clipped(self.banded),
            "clipped_tokens": _clipped(self.banded_tokens),
        }

    def _bands(self) -> dict | None:
        known: Counter[str] = Counter()
        for (band, _), count in self.banded.items():
            if band is not None:
                known[band] += count
        of = known.total()
        if not of:
            return None
        bands: dict = {"of": of}
        for band in BANDS:
            inside = Counter({key: count for key, count in self.banded.items() if key[0] == band})
            bands[band] = {"n": known[band], "share": known[band] / of, "clipped_segments": _clipped(inside)}
        return bands


def _clipped(counter: Counter[tuple[str | None, str | None]]) -> dict | None:
    sides = Counter()
    for (_, side), count in counter.items():
        if side is not None:
            sides[side] += count
    of = sides.total()
    if not of:
        return None
    out: dict = {"of": of}
    for side in SIDES:
        out[side] = {"n": sides[side], "share": sides[side] / of}
    both = sides["low"] + sides["high"]
    return out | {"all": {"n": both, "share": both / of}}


@dataclass
class Problems:
    """What was not counted and why: for each kind, how often and where it occurred first."""

    FIRST = 5
    kinds: dict[str, tuple[int, list[str]]] = field(default_factory=dict)

    def add(self, kind: str, where: str) -> None:
        count, first = self.kinds.get(kind, (0, []))
        self.kinds[kind] = (count + 1, first if len(first) == self.FIRST else [*first, where])

    @property
    def n(self) -> int:
        return sum(count for count, _ in self.kinds.values())

    def summary(self) -> dict:
        return {kind: {"n": count, "first": first} for kind, (count, first) in self.kinds.items()}
