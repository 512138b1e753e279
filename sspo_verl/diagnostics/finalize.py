"""From the counts of a step to its metrics: sums over sums, never means of means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sspo_verl.diagnostics.counts import RATIO_AND_BOUNDS, SCALARS, Counts
from sspo_verl.diagnostics.names import BANDS, PREFIX, QUANTILES


def metrics(counts: Sequence[Counts]) -> dict[str, float]:
    """The metrics of `names.METRICS` but for the warnings, with PREFIX.

    counts: those of all micro-batches, ranks and mini-batches of a step, in any order. A metric whose denominator is
    0 is left out.
    """
    out: dict[str, float] = {}
    if not counts:
        return out

    def put(name: str, numerator: float, denominator: float) -> None:
        if denominator > 0:
            out[PREFIX + name] = float(numerator / denominator)

    scalars = {name: math.fsum(c.scalars[name] for c in counts) for name in SCALARS}
    tokens, segments = _sum(counts, "tokens"), _sum(counts, "segments")
    valid, cut = tokens.sum(), round(float(segments.sum()))
    entropies = [c.segment_entropy for c in counts if c.segment_entropy is not None]

    for unit, cells in (("token", tokens), ("segment", segments)):
        group = f"{unit}_clipfrac"
        _put_sides(put, group, cells.sum(axis=0), cells.sum())
        if entropies:
            for band, sides in zip(BANDS, cells, strict=True):
                _put_sides(put, f"{group}/band_{band}", sides, sides.sum())
    put("counterfactual/grpo_clipfrac", scalars["grpo_clipped"], valid)
    put("counterfactual/gspo_clipfrac", scalars["gspo_clipped"], valid)
    put("segments_per_response", cut, scalars["responses"])
    put("tokens_per_segment", valid, cut)
    put("single_segment_frac", scalars["single_segment"], scalars["responses"])
    if entropies:
        put("token_entropy", scalars["entropy"], valid)
        for band, sides in zip(BANDS, segments, strict=True):
            put(f"entropy_band/{band}", sides.sum(), cut)
        _put_distribution(out, np.concatenate(entropies))
    if cut:
        rows = np.stack([c.ratio_and_bounds for c in counts])
        for i, name in enumerate(RATIO_AND_BOUNDS):
            put(f"{name}/mean", math.fsum(rows[:, i, 0]), cut)
            out[f"{PREFIX}{name}/min"] = float(rows[:, i, 1].min())
            out[f"{PREFIX}{name}/max"] = float(rows[:, i, 2].max())
    return out


def _sum(counts: Sequence[Counts], name: str) -> np.ndarray:
    return np.sum([getattr(c, name) for c in counts], axis=0)


def _put_sides(put, group: str, sides: np.ndarray, whole: float) -> None:
    _, low, high = sides
    put(f"{group}/all", low + high, whole)
    put(f"{group}/low", low, whole)
    put(f"{group}/high", high, whole)


def _put_distribution(out: dict[str, float], entropies: np.ndarray) -> None:
    if not entropies.size:
        return
    group = f"{PREFIX}segment_entropy"
    out[f"{group}/mean"] = math.fsum(entropies) / entropies.size
    out[f"{group}/min"], out[f"{group}/max"] = float(entropies.min()), float(entropies.max())
    for name, value in zip(QUANTILES, np.quantile(entropies, list(QUANTILES.values())), strict=True):
        out[f"{group}/{name}"] = float(value)
