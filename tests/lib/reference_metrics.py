"""The metrics of a step a second time, slowly: ALGORITHM's "What to measure" in scalar loops over Python floats.

Nothing is shared with the package, names included. One call sees all rows of a step; the package sees micro-batches.
"""

import math
from dataclasses import dataclass

from reference import LOG_RATIO_MAX, Settings, clip_bounds

GRPO_LOW, GRPO_HIGH = 0.8, 1.2
GSPO_LOW, GSPO_HIGH = 1 - 3e-4, 1 + 4e-4
VANILLA_LOG_RATIO_MAX = 20.0
LENGTHS = ("to_8", "to_16", "to_32", "to_64", "over_64")
QUANTILES = {"p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}


@dataclass(frozen=True)
class Row:
    """One response. Lists of one value per token; ids: the segment of each token, -1 where it has none."""

    old: list[float]
    new: list[float]
    advantages: list[float]
    mask: list[int]
    ids: list[int]
    entropy: list[float] | None


@dataclass(frozen=True)
class Segment:
    """One segment, with the sides ("", "low" or "high") at which its tokens are clipped."""

    ratio: float
    lower: float
    upper: float
    entropy: float | None
    band: str | None
    sides: list[str]
    weights: list[float]  # ratio times |A| of the tokens with A < 0
    tokens: list[int]  # where they are in the row


def is_clipped(ratio: float, low: float, high: float, advantage: float) -> bool:
    """Does the clipped term of -min(ratio A, clip(ratio) A) alone count? It must be strictly greater as a loss."""
    bounded = low if ratio < low else high if ratio > high else ratio
    return -advantage * bounded > -advantage * ratio


def side_of(ratio: float, low: float, high: float, advantage: float) -> str:
    if not is_clipped(ratio, low, high, advantage):
        return ""
    return "low" if ratio < low else "high"


def band_of(entropy: float, s: Settings) -> str | None:
    if not math.isfinite(entropy):
        return None
    if entropy < s.entropy_low:
        return "low"
    return "high" if entropy > s.entropy_high else "mid"


def valid_tokens(row: Row) -> list[int]:
    return [t for t in range(len(row.ids)) if row.mask[t] and row.ids[t] >= 0]


def mean(values: list[float]) -> float:
    """Exactly rounded where all are finite; else what floats make of it: NaN or infinite."""
    return (math.fsum if all(map(math.isfinite, values)) else sum)(values) / len(values)


def segments_of(row: Row, s: Settings) -> list[Segment]:
    """The segments of a response, in order."""
    members: dict[int, list[int]] = {}
    for t in valid_tokens(row):
        members.setdefault(row.ids[t], []).append(t)
    out = []
    for tokens in members.values():
        log_ratio = mean([row.new[t] - row.old[t] for t in tokens])
        ratio = math.exp(min(log_ratio, LOG_RATIO_MAX))
        entropy = None if row.entropy is None else mean([row.entropy[t] for t in tokens])
        lower, upper = clip_bounds(0.0 if entropy is None else entropy, s)
        out.append(
            Segment(
                ratio=ratio,
                lower=lower,
                upper=upper,
                entropy=entropy,
                band=None if entropy is None else band_of(entropy, s),
                sides=[side_of(ratio, lower, upper, row.advantages[t]) for t in tokens],
                weights=[ratio * -row.advantages[t] for t in tokens if row.advantages[t] < 0],
                tokens=tokens,
            )
        )
    return out


def grpo_clipped(row: Row) -> set[int]:
    """The tokens that verl's vanilla loss clips: every token has its own ratio."""
    found = set()
    for t in valid_tokens(row):
        log_ratio = row.new[t] - row.old[t]
        if math.isnan(log_ratio):
            continue
        log_ratio = max(-VANILLA_LOG_RATIO_MAX, min(log_ratio, VANILLA_LOG_RATIO_MAX))
        if is_clipped(math.exp(log_ratio), GRPO_LOW, GRPO_HIGH, row.advantages[t]):
            found.add(t)
    return found


def gspo_clipped(row: Row, low: float, high: float) -> set[int]:
    """The tokens that verl's gspo loss clips: all valid tokens of a response have one ratio."""
    tokens = valid_tokens(row)
    if not tokens:
        return set()
    ratio = math.exp(min(mean([row.new[t] - row.old[t] for t in tokens]), LOG_RATIO_MAX))
    return {t for t in tokens if is_clipped(ratio, low, high, row.advantages[t])}


def clipped_by(row: Row, s: Settings) -> dict[str, set[int]]:
    """{algorithm: the tokens of a response that it clips}"""
    ours = {t for segment in segments_of(row, s) for t, side in zip(segment.tokens, segment.sides, strict=True) if side}
    return {
        "sspo": ours,
        "grpo": grpo_clipped(row),
        "gspo": gspo_clipped(row, GSPO_LOW, GSPO_HIGH),
        "gspo_wide": gspo_clipped(row, GRPO_LOW, GRPO_HIGH),
    }


def length_of(tokens: int) -> str:
    for longest in (8, 16, 32, 64):
        if tokens <= longest:
            return f"to_{longest}"
    return "over_64"


def update_of(number: int) -> str:
    """The group of the updates on a batch; the first is 1."""
    for last in (1, 2, 4, 8):
        if number <= last:
            return f"to_{last}"
    return "over_8"


def by_length(rows: list[Row], s: Settings) -> dict[str, float]:
    lengths, clips = {}, {}
    for row in rows:
        of_row = clipped_by(row, s)
        for segment in segments_of(row, s):
            group = length_of(len(segment.tokens))
            lengths[group] = lengths.get(group, 0) + len(segment.tokens)
            for algorithm, clipped in of_row.items():
                of_group = clips.setdefault(algorithm, {})
                of_group[group] = of_group.get(group, 0) + len(clipped & set(segment.tokens))
    out = {f"sspo/tokens_by_length/{name}": lengths.get(name, 0) / sum(lengths.values()) for name in LENGTHS}
    for algorithm, of_group in clips.items():
        for group, count in of_group.items():
            out[f"sspo/clipfrac_by_length/{algorithm}/{group}"] = count / lengths[group]
    return out


def by_update(updates: list[list[Row]], s: Settings) -> dict[str, float]:
    """Of the updates on one batch, in their order."""
    tokens, clips = {}, {}
    for number, rows in enumerate(updates, start=1):
        group = update_of(number)
        tokens[group] = tokens.get(group, 0) + sum(len(valid_tokens(row)) for row in rows)
        for row in rows:
            for algorithm, clipped in clipped_by(row, s).items():
                of_group = clips.setdefault(algorithm, {})
                of_group[group] = of_group.get(group, 0) + len(clipped)
    return {
        f"sspo/clipfrac_by_update/{algorithm}/{group}": count / tokens[group]
        for algorithm, of_group in clips.items()
        for group, count in of_group.items()
        if tokens[group]
    }


def quantile(values: list[float], share: float) -> float:
    """Linear between the two nearest ranks, of which the smallest has the share 0 and the largest 1."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def metrics(rows: list[Row], s: Settings) -> dict[str, float]:
    """All metrics of a step but the warnings. Those with the denominator 0 are left out. What is not finite is counted,
    and is in no other."""
    out: dict[str, float] = {}
    per_row = [segments for segments in (segments_of(row, s) for row in rows) if segments]
    segments = [segment for of_row in per_row for segment in of_row]
    if not segments:
        return out
    tokens = sum(len(segment.sides) for segment in segments)
    with_entropy = segments[0].entropy is not None

    groups = {"": segments}
    banded = [segment for segment in segments if segment.band]
    if banded:
        for band in ("low", "mid", "high"):
            of_band = [segment for segment in banded if segment.band == band]
            out[f"sspo/entropy_band/{band}"] = len(of_band) / len(banded)
            if of_band:
                groups[f"band_{band}/"] = of_band
    for group, members in groups.items():
        of_group = sum(len(segment.sides) for segment in members)
        for name, sides in (("all", ("low", "high")), ("low", ("low",)), ("high", ("high",))):
            clipped = [sum(side in sides for side in segment.sides) for segment in members]
            out[f"sspo/token_clipfrac/{group}{name}"] = sum(clipped) / of_group
            shares = [n / len(segment.sides) for n, segment in zip(clipped, members, strict=True)]
            out[f"sspo/segment_clipfrac/{group}{name}"] = math.fsum(shares) / len(members)

    for algorithm in ("grpo", "gspo", "gspo_wide"):
        clipped = sum(len(clipped_by(row, s)[algorithm]) for row in rows)
        out[f"sspo/counterfactual/{algorithm}_clipfrac"] = clipped / tokens
    out |= by_length(rows, s)
    out["sspo/segments_per_response"] = len(segments) / len(per_row)
    out["sspo/tokens_per_segment"] = tokens / len(segments)
    out["sspo/single_segment_frac"] = sum(len(of_row) == 1 for of_row in per_row) / len(per_row)

    log_ratios = [row.new[t] - row.old[t] for row in rows for t in valid_tokens(row)]
    out["sspo/nonfinite/log_ratio"] = sum(not math.isfinite(value) for value in log_ratios)
    out["sspo/diagnostics_failed"] = 0
    weights = [weight for segment in segments for weight in segment.weights if not math.isnan(weight)]
    out["sspo/max_negative_weight"] = max(weights, default=0.0)
    distributions = {
        "ratio": [segment.ratio for segment in segments if not math.isnan(segment.ratio)],
        "lower_bound": [segment.lower for segment in segments],
        "upper_bound": [segment.upper for segment in segments],
    }
    if with_entropy:
        entropies = [row.entropy[t] for row in rows for t in valid_tokens(row)]
        finite = [value for value in entropies if math.isfinite(value)]
        out["sspo/nonfinite/entropy"] = len(entropies) - len(finite)
        if finite:
            out["sspo/token_entropy"] = mean(finite)
        distributions["segment_entropy"] = [segment.entropy for segment in banded]
        for name, share in QUANTILES.items():
            if banded:
                out[f"sspo/segment_entropy/{name}"] = quantile(distributions["segment_entropy"], share)
    for name, values in distributions.items():
        if values:
            out[f"sspo/{name}/mean"] = mean(values)
            out[f"sspo/{name}/min"] = min(values)
            out[f"sspo/{name}/max"] = max(values)
    return out
