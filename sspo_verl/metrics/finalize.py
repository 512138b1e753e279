"""Computes a step's metrics from its counts: sums over sums, never means of means."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence

import numpy as np

from sspo_verl.metrics.counts import RATIO_AND_BOUNDS, Counts
from sspo_verl.metrics.distribution import Distribution
from sspo_verl.metrics.names import ALGORITHMS, BANDS, LENGTHS, PREFIX, QUANTILES, SIDES, UPDATES, group_names


def metrics(
    counts: Sequence[Counts],
    updates: Sequence[Sequence[np.ndarray]] = (),
    thresholds: Sequence[dict[str, float]] = (),
) -> dict[str, float]:
    """The metrics of `names.METRICS` except the warnings, with PREFIX.

    counts: of all micro-batches, ranks and mini-batches of a step, in any order, added up or not.
    updates: for each batch of the step and each update on it, in order: the number of valid tokens, and of those that
    each of ALGORITHMS clips. thresholds: entropy_low and entropy_high of each batch of the step, if they are quantiles.
    A metric whose denominator is 0 is left out; without any valid token, all are except the count of failures.
    """
    out: dict[str, float] = {}
    if not counts:
        return out
    total = functools.reduce(operator.add, counts)
    scalars, valid = total.scalars, total.valid

    def put(name: str, numerator: float, denominator: float) -> None:
        if denominator > 0:
            out[PREFIX + name] = float(numerator / denominator)

    if valid or total.failed:
        out[f"{PREFIX}diagnostics_failed"] = float(total.failed)
    for unit, cells in (("token", total.tokens), ("segment", total.segments)):
        group = f"{unit}_clipfrac"
        _put_sides(put, group, cells.sum(axis=0))
        for band, sides in zip(BANDS, cells, strict=False):  # the last group has no band
            _put_sides(put, f"{group}/band_{band}", sides)
    cut, banded = (round(float(cells.sum())) for cells in (total.segments, total.segments[: len(BANDS)]))
    _put_by_length(put, total.by_length)
    _put_by_update(put, updates)
    put("segments_per_response", cut, scalars["responses"])
    put("tokens_per_segment", valid, cut)
    put("single_segment_frac", scalars["single_segment"], scalars["responses"])
    put("token_entropy", scalars["entropy"], scalars["entropy_tokens"])
    for band, sides in zip(BANDS, total.segments, strict=False):
        put(f"entropy_band/{band}", sides.sum(), banded)
    _put_distribution(out, total.segment_entropy)
    for side in SIDES:
        known = [of_batch[f"entropy_{side}"] for of_batch in thresholds if math.isfinite(of_batch[f"entropy_{side}"])]
        put(f"entropy_threshold/{side}", sum(known), len(known))
    entropies = scalars["entropy_tokens"] + scalars["entropy_nonfinite"]
    put("nonfinite/log_ratio", scalars["log_ratio_nonfinite"], valid and 1)
    put("nonfinite/entropy", scalars["entropy_nonfinite"], entropies and 1)
    if valid and not math.isnan(total.max_negative_weight):
        out[f"{PREFIX}max_negative_weight"] = max(0.0, total.max_negative_weight)
    for name, (segments, of_all, smallest, largest) in zip(RATIO_AND_BOUNDS, total.ratio_and_bounds, strict=True):
        put(f"{name}/mean", of_all, segments)
        put(f"{name}/min", smallest, segments and 1)
        put(f"{name}/max", largest, segments and 1)
    return out


def _put_by_length(put, by_length: np.ndarray) -> None:
    tokens, *clipped = by_length
    for algorithm, of_lengths in zip(ALGORITHMS, clipped, strict=True):
        if algorithm != "sspo":
            put(f"counterfactual/{algorithm}_clipfrac", of_lengths.sum(), tokens.sum())
        for name, n, of in zip(group_names(LENGTHS), of_lengths, tokens, strict=True):
            put(f"clipfrac_by_length/{algorithm}/{name}", n, of)
    for name, n in zip(group_names(LENGTHS), tokens, strict=True):
        put(f"tokens_by_length/{name}", n, tokens.sum())


def _put_by_update(put, updates: Sequence[Sequence[np.ndarray]]) -> None:
    groups = np.zeros((len(UPDATES), 1 + len(ALGORITHMS)))
    for of_batch in updates:
        for number, of_update in enumerate(of_batch, start=1):
            groups[np.searchsorted(UPDATES, number)] += of_update
    for name, (tokens, *clipped) in zip(group_names(UPDATES), groups, strict=True):
        for algorithm, n in zip(ALGORITHMS, clipped, strict=True):
            put(f"clipfrac_by_update/{algorithm}/{name}", n, tokens)


def _put_sides(put, group: str, sides: np.ndarray) -> None:
    _, low, high = sides
    total = sides.sum()
    put(f"{group}/all", low + high, total)
    put(f"{group}/low", low, total)
    put(f"{group}/high", high, total)


def _put_distribution(out: dict[str, float], entropies: Distribution) -> None:
    if not entropies.size:
        return
    group = f"{PREFIX}segment_entropy"
    out[f"{group}/mean"] = entropies.total / entropies.size
    out[f"{group}/min"], out[f"{group}/max"] = entropies.smallest, entropies.largest
    for name, value in zip(QUANTILES, entropies.quantiles(QUANTILES.values()), strict=True):
        out[f"{group}/{name}"] = value
