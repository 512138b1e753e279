"""Every metric with the prefix `sspo/`: its name, meaning and denominator. docs/metrics.md shows this table.

A metric whose denominator is 0 at a step (no segment in a band, say) is left out at that step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

PREFIX = "sspo/"
BANDS = ("low", "mid", "high")  # bands of a segment's entropy H: H < entropy_low, between, H > entropy_high
BAND_NAMES = {"low": "low entropy", "mid": "middle entropy", "high": "high entropy"}
SIDES = ("low", "high")  # the bound at which a ratio was clipped
BOUNDS = {"low": "lower", "high": "upper"}
# Algorithms whose clipping is counted: SSPO's own settings, and on the same batch GRPO's and GSPO's usual bounds.
ALGORITHMS = {
    "sspo": "SSPO's bounds clip",
    "grpo": "GRPO's token ratio would clip (0.8, 1.2)",
    "gspo": "GSPO's response ratio would clip (0.9997, 1.0004)",
    "gspo_wide": "GSPO's response ratio would clip (0.8, 1.2)",
}
LENGTHS = (8, 16, 32, 64, math.inf)  # the largest of each group of segments, in tokens
UPDATES = (1, 2, 4, 8, math.inf)  # the last of each group of updates on one batch
QUANTILES = {"p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
# In verl's dumps: the number of segments of a response; then for each segment its tokens, entropy, clipping, ratio,
# advantage and divergences.
DUMP_FIELDS = (
    "sspo_segments",
    "sspo_segment_tokens",
    "sspo_segment_entropy",
    "sspo_segment_clip",
    "sspo_segment_ratio",
    "sspo_segment_advantage",
    "sspo_segment_tv",
    "sspo_segment_kl",
)
WARNINGS = ("clipfrac", "single_segment", "entropy", "one_band", "ratio", "nonfinite", "responses_missing")

TOKENS = "valid tokens"
SEGMENTS = "segments"
WITH_ENTROPY = "segments with a finite H"
RESPONSES = "responses with a valid token"
NOTHING = "none"


MISSING = f"{PREFIX}responses_missing"


class Metric(NamedTuple):
    denominator: str
    meaning: str


def group_names(ends: Sequence[float]) -> list[str]:
    """Last part of a metric's name for each group, from its largest member: to_8, to_16, ..., over_64."""
    return [f"to_{end}" if end < math.inf else f"over_{ends[-2]}" for end in ends]


def _table() -> dict[str, Metric]:
    table: dict[str, Metric] = {}

    def add(name: str, denominator: str, meaning: str) -> None:
        table[PREFIX + name] = Metric(denominator, meaning)

    for unit, denominator, those in (("token", TOKENS, "those in segments"), ("segment", SEGMENTS, "those")):
        group, things = f"{unit}_clipfrac", f"{unit}s"
        add(f"{group}/all", denominator, f"{things} that SSPO's bounds clip: the loss uses the clipped term")
        for side in SIDES:
            add(f"{group}/{side}", denominator, f"{things} clipped at the {BOUNDS[side]} bound; low + high = all")
        for band in BANDS:
            of_band = f"{denominator} in the band"
            which = f"of {those} with {BAND_NAMES[band]}"
            add(f"{group}/band_{band}/all", of_band, f"{things} clipped, {which}")
            for side in SIDES:
                add(f"{group}/band_{band}/{side}", of_band, f"{things} clipped at the {BOUNDS[side]} bound, {which}")
    for algorithm, clips in list(ALGORITHMS.items())[1:]:
        add(f"counterfactual/{algorithm}_clipfrac", TOKENS, f"tokens that {clips}")
    for algorithm, clips in ALGORITHMS.items():
        for name, end, before in zip(group_names(LENGTHS), LENGTHS, (0, *LENGTHS), strict=False):
            which = f"of {before + 1} to {end}" if end < math.inf else f"of more than {before}"
            of_length = f"valid tokens in segments {which} tokens"
            add(f"clipfrac_by_length/{algorithm}/{name}", of_length, f"tokens that {clips}, in segments of this length")
        for name, end, before in zip(group_names(UPDATES), UPDATES, (0, *UPDATES), strict=False):
            which = f"updates {before + 1} to {end}" if end < math.inf else f"updates {before + 1} and later"
            which = f"update {end}" if end == before + 1 else which
            of_updates = f"valid tokens of {which} on a batch"
            add(f"clipfrac_by_update/{algorithm}/{name}", of_updates, f"tokens that {clips}, at these updates")
    for name in group_names(LENGTHS):
        add(f"tokens_by_length/{name}", TOKENS, "tokens in segments of this length; they add up to 1")
    add("segments_per_response", RESPONSES, "segments")
    add("tokens_per_segment", SEGMENTS, "valid tokens")
    add("single_segment_frac", RESPONSES, "responses that are one segment")
    add(
        "token_entropy",
        "valid tokens with a finite entropy",
        "entropy in nats of the policy that `entropy_source` names",
    )
    for band in BANDS:
        add(f"entropy_band/{band}", WITH_ENTROPY, f"segments with {BAND_NAMES[band]}; the three add up to 1")
    for side in SIDES:
        what = f"`entropy_{side}` in nats, if it is a share (`entropy_thresholds=quantile`)"
        add(f"entropy_threshold/{side}", "batches of the step", what)
    add("segment_entropy/mean", WITH_ENTROPY, "H, a segment's mean entropy in nats")
    add("segment_entropy/min", NOTHING, "the smallest H")
    add("segment_entropy/max", NOTHING, "the largest H")
    for name, share in QUANTILES.items():
        add(f"segment_entropy/{name}", WITH_ENTROPY, f"{share:.0%} of the segments have an H of at most this, in nats")
    add("nonfinite/log_ratio", NOTHING, "number of valid tokens whose log ratio is NaN or infinite")
    add("nonfinite/entropy", NOTHING, "number of valid tokens whose entropy is NaN or infinite")
    add("diagnostics_failed", NOTHING, "how often a part of the diagnostics failed and was left out; see the log")
    add(
        MISSING.removeprefix(PREFIX),
        NOTHING,
        "how many of the step's train_batch_size x rollout.n responses are not in the batch, because sampling or the "
        "reward failed for them",
    )
    for name, what, denominator in (
        ("ratio", "importance ratio of a segment", "segments whose ratio is not NaN"),
        ("lower_bound", "lower bound of a segment", "segments whose bound is finite"),
        ("upper_bound", "upper bound of a segment", "segments whose bound is finite"),
    ):
        add(f"{name}/mean", denominator, what)
        add(f"{name}/min", NOTHING, f"the smallest {what}")
        add(f"{name}/max", NOTHING, f"the largest {what}")
    add(
        "max_negative_weight",
        NOTHING,
        "the largest product of ratio and -A over tokens with an advantage A < 0: how large the gradient gets "
        "without `dual_clip` and `ratio_cap`; 0 if there are none",
    )
    for name in WARNINGS:
        add(f"warning/{name}", NOTHING, "1 if the warning applies at this step, else 0")
    return table


METRICS = _table()
