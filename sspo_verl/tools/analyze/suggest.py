"""`sspo analyze --suggest SHARE`: settings under which that share of the tokens in a run's dumps would be clipped.

A segment is clipped if its ratio is outside its band on the side that its advantage pushes to: above the upper bound
if A > 0, below the lower one if A < 0. How far it moved that way is `outwards`: log s if A > 0, -log s if A < 0. A band
of width w in log space clips the segments that moved further than w, so the width is a quantile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sspo_verl.metrics.names import LENGTHS, group_names
from sspo_verl.tools.analyze.fields import Columns, Response, take
from sspo_verl.tools.analyze.read import rows

REFERENCE = 16.0  # clip_length_reference of algorithm=sspo; a test checks that they agree
FEW = 100  # segments, below which a suggestion is of little use
SHARES = (0.25, 0.75)  # shares of the segments at which entropy thresholds are suggested


class NothingToSuggest(ValueError):
    """The files do not contain the data needed for a suggestion."""


class Updated(NamedTuple):
    """The segments in the dumps that were used in an update: one array each, [segments]."""

    tokens: np.ndarray
    log_ratio: np.ndarray
    positive: np.ndarray  # A > 0
    entropy: np.ndarray  # H in nats; NaN if unknown
    tv: np.ndarray  # NaN if unknown
    kl: np.ndarray

    @property
    def outwards(self) -> np.ndarray:
        return np.where(self.positive, self.log_ratio, -self.log_ratio)


def read(paths: Iterable[Path], columns: Columns) -> Updated:
    """Read the segments. Raises NothingToSuggest, naming the fix, if none has a ratio and an advantage."""
    found = [segment for path in paths for response in _responses(path, columns) for segment in response.dumped]
    known = [s for s in found if s.tokens and s.ratio is not None and s.ratio > 0 and s.advantage]
    if not known:
        raise NothingToSuggest(
            "no segment in these files has a ratio and an advantage other than 0. They are in verl's rollout dumps "
            "(trainer.rollout_data_dir) of a run with actor_rollout_ref.actor.policy_loss.dump_segments=N; those of "
            "an older version of sspo_verl lack sspo_segment_advantage."
        )
    nan = float("nan")
    return Updated(
        tokens=np.array([s.tokens for s in known], dtype=np.float64),
        log_ratio=np.log(np.array([s.ratio for s in known], dtype=np.float64)),
        positive=np.array([s.advantage for s in known], dtype=np.float64) > 0,
        entropy=np.array([nan if s.entropy is None else s.entropy for s in known]),
        tv=np.array([nan if s.tv is None else s.tv for s in known]),
        kl=np.array([nan if s.kl is None else s.kl for s in known]),
    )


def _responses(path: Path, columns: Columns) -> Iterator[Response]:
    for row in rows(path, columns.all()):
        if row.value is not None:
            response = take(row.where, row.value, columns)
            if isinstance(response, Response):
                yield response


def suggest(seen: Updated, share: float) -> dict[str, Any]:
    """Suggestions as a document. share: of the tokens, between 0 and 1 (exclusive)."""
    fitted = fitted_exponent(seen)
    exponents = {"one band": 0.0, "all lengths equally": -0.5, "fitted": fitted}
    return {
        "share": share,
        "segments": len(seen.tokens),
        "tokens": int(seen.tokens.sum()),
        "bands": [{"name": name, **band(seen, share, exponent)} for name, exponent in exponents.items()],
        "entropy": thresholds(seen),
        "gates": gates(seen, share),
        "notes": [f"only {len(seen.tokens)} segments: too few to rely on"] * (len(seen.tokens) < FEW),
    }


def band(seen: Updated, share: float, exponent: float) -> dict[str, Any]:
    """clip_low and clip_high of equal width in log space with clip_length_exponent, and the shares they clip."""
    power = (seen.tokens / REFERENCE) ** exponent
    width = largest_kept(seen.outwards / power, seen.tokens, share)
    if width <= 0:
        return {"clip_length_exponent": exponent, "clip_low": None, "clip_high": None, "clipped": None, "by_length": {}}
    low, high = (float(f"{np.exp(side * width):.4g}") for side in (-1, 1))
    bounds = np.where(seen.positive, np.log(high), -np.log(low)) * power
    clipped = seen.outwards > bounds
    place = np.searchsorted(LENGTHS, seen.tokens)
    of_lengths = {name: _share(clipped[place == i], seen.tokens[place == i]) for i, name in enumerate(_names())}
    return {
        "clip_length_exponent": exponent,
        "clip_low": low,
        "clip_high": high,
        "clipped": _share(clipped, seen.tokens),
        "by_length": of_lengths,
    }


def largest_kept(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The smallest value such that at most `share` of the weight is above it."""
    order = np.argsort(values, kind="stable")
    over = 1 - weights[order].cumsum() / weights.sum()
    return float(values[order][np.argmax(over <= share + 1e-12)])


def fitted_exponent(seen: Updated) -> float:
    """p such that the spread of log s scales with L^p: least squares over the length groups, between -1 and 0.

    -1/2 for tokens with independent log ratios, 0 for tokens that all move together.
    """
    place = np.searchsorted(LENGTHS, seen.tokens)
    points = []
    for i in range(len(LENGTHS)):
        of_group = seen.log_ratio[place == i]
        spread = np.sqrt(np.mean(of_group**2)) if of_group.size else 0.0
        if of_group.size >= 10 and spread > 0:
            points.append((np.log(seen.tokens[place == i].mean()), np.log(spread), of_group.size))
    if len(points) < 2:
        return 0.0
    x, y, weights = map(np.array, zip(*points, strict=True))
    slope = np.polyfit(x, y, 1, w=np.sqrt(weights))[0]
    return float(round(min(max(slope, -1.0), 0.0), 2))


def thresholds(seen: Updated) -> dict[str, float] | None:
    """entropy_low and entropy_high in nats, at the first and third quartile of segments; None without entropies."""
    known = seen.entropy[np.isfinite(seen.entropy)]
    if not known.size:
        return None
    low, high = (round(float(q), 4) for q in np.quantile(known, SHARES))
    return {"entropy_low": low, "entropy_high": high}


def gates(seen: Updated, share: float) -> list[dict[str, Any]]:
    """clip_divergence for each statistic that is in the dumps. None if fewer tokens than `share` move outwards."""
    found = []
    for name, values in (("tv", seen.tv), ("binary_kl", seen.kl)):
        if np.isfinite(values).all():
            outwards = np.where(seen.outwards > 0, values, -1.0)
            threshold = largest_kept(outwards, seen.tokens, share)
            found.append({"clip_statistic": name, "clip_divergence": threshold if threshold > 0 else None})
    return found


def _share(clipped: np.ndarray, tokens: np.ndarray) -> float | None:
    return float((clipped * tokens).sum() / tokens.sum()) if tokens.size else None


def _names() -> list[str]:
    return group_names(LENGTHS)


def lines(doc: dict[str, Any]) -> Iterator[str]:
    """The document as lines of text."""
    yield f"{doc['segments']:,} segments of {doc['tokens']:,} tokens; to clip {doc['share']:.2%} of the tokens:"
    for each in doc["bands"]:
        head = f"  {each['name']:<20} clip_length_exponent={each['clip_length_exponent']:g}"
        if each["clip_low"] is None:
            yield f"{head}: not possible: fewer tokens than that have a ratio on their advantage's side of 1"
            continue
        by_length = ", ".join(f"{name} {share:.2%}" for name, share in each["by_length"].items() if share is not None)
        yield f"{head} clip_low={each['clip_low']:g} clip_high={each['clip_high']:g}  (clips {each['clipped']:.2%})"
        yield f"  {'':<20} by tokens in the segment: {by_length}"
    for gate in doc["gates"]:
        threshold = gate["clip_divergence"]
        yield f"  {'gate':<20} clip_statistic={gate['clip_statistic']} clip_divergence=" + (
            f"{threshold:g}" if threshold is not None else "?: not possible"
        )
    if doc["entropy"]:
        low, high = doc["entropy"]["entropy_low"], doc["entropy"]["entropy_high"]
        yield (
            f"  {'entropy':<20} entropy_low={low:g} entropy_high={high:g}, a quarter of the segments on each side; as "
            f"shares: entropy_thresholds=quantile entropy_low={SHARES[0]} entropy_high={SHARES[1]}"
        )
    for note in doc["notes"]:
        yield f"  note: {note}"
    yield "Bands are plain ones (entropy_clip=false); ratios are those of the last update on each response."
