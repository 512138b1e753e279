"""Validation of the settings beyond the paper: length-scaled band and ratio, divergence gate, quantile thresholds."""

from __future__ import annotations

import math
import sys
from typing import Any

from sspo_verl.names import KEY

STATISTICS = ("ratio", "tv", "binary_kl")  # values of clip_statistic: the keys of `bounds.RULES`
THRESHOLDS = ("absolute", "quantile")  # values of entropy_thresholds
LARGEST_CAP = 22026.0  # exp(10), where the loss limits the ratio itself
# The values in verl's own DPPO script (arXiv 2602.04879).
SUGGESTED = {"tv": 0.15, "binary_kl": 0.05}
BY_NAME = (
    "clip_length_exponent",
    "clip_length_reference",
    "ratio_length_exponent",
    "ratio_cap",
    "clip_statistic",
    "clip_divergence",
)


def check_band(settings: Any) -> None:
    """Raise ValueError, naming the key and the fix. settings: an SSPOPolicyLossConfig that passed its other checks."""
    _check_choices(settings)
    _check_numbers(settings)
    _check_gate(settings)
    _check_ratio_cap(settings)
    _check_thresholds(settings)


def _check_choices(settings: Any) -> None:
    for name, choices in {"clip_statistic": STATISTICS, "entropy_thresholds": THRESHOLDS}.items():
        if getattr(settings, name) not in choices:
            raise ValueError(f"{KEY}.{name} must be one of {', '.join(choices)}, got {getattr(settings, name)!r}.")


def _check_numbers(settings: Any) -> None:
    for name, smallest, largest, meaning in (
        ("clip_length_exponent", -1, 1, "0 is one band for all lengths, -0.5 clips all lengths equally often"),
        ("ratio_length_exponent", 0, 1, "0 is the mean of the log ratios, 1 their sum"),
        ("clip_length_reference", 1, math.inf, "the length in tokens at which clip_low etc. apply unchanged"),
    ):
        value = getattr(settings, name)
        if not (is_finite(value) and smallest <= value <= largest):
            limits = f"of {smallest} or more" if largest == math.inf else f"from {smallest} to {largest}"
            raise ValueError(f"{KEY}.{name} must be a number {limits}, got {value!r}: {meaning}.")


def _check_gate(settings: Any) -> None:
    statistic, threshold = settings.clip_statistic, settings.clip_divergence
    if statistic == "ratio":
        if threshold is not None:
            raise ValueError(
                f"{KEY}.clip_divergence={threshold} with clip_statistic=ratio: no divergence is computed. Set "
                f"{KEY}.clip_statistic to tv or binary_kl, or clip_divergence=null."
            )
        return
    if not (is_finite(threshold) and threshold > 0):
        raise ValueError(
            f"{KEY}.clip_statistic={statistic} needs {KEY}.clip_divergence, a number over 0, got {threshold!r}: "
            f"{SUGGESTED[statistic]} is what DPPO (arXiv 2602.04879) uses per token."
        )
    if settings.clip_length_exponent != 0:
        raise ValueError(
            f"{KEY}.clip_length_exponent={settings.clip_length_exponent} with clip_statistic={statistic}: a gate has "
            "no band to scale by length. Reset one of them: clip_length_exponent=0 or clip_statistic=ratio."
        )


def _check_ratio_cap(settings: Any) -> None:
    cap, dual_clip = settings.ratio_cap, settings.dual_clip
    if cap is None:
        return
    if not (is_finite(cap) and 1 <= cap <= LARGEST_CAP):
        raise ValueError(
            f"{KEY}.ratio_cap must be a number from 1 to {LARGEST_CAP:.0f}, or null for none, got {cap!r}: it limits "
            "the weight, which is 1 for an unchanged policy."
        )
    if settings.ratio_length_exponent == 0 and settings.clip_statistic == "ratio":
        raise ValueError(
            f"{KEY}.ratio_cap={cap} with ratio_length_exponent=0 and clip_statistic=ratio: a mean ratio is limited by "
            f"its bounds and by {KEY}.dual_clip. Set ratio_cap=null, or ratio_length_exponent=1 for the product of the "
            "tokens' ratios."
        )
    if dual_clip is not None and dual_clip >= cap:
        raise ValueError(
            f"{KEY}.dual_clip={dual_clip} with ratio_cap={cap}: no weight is over the cap, so the dual clip has "
            "no effect. Set dual_clip=null, or one under the cap."
        )


def _check_thresholds(settings: Any) -> None:
    if settings.entropy_thresholds == "absolute":
        return
    for name in ("entropy_low", "entropy_high"):
        if getattr(settings, name) > 1:
            raise ValueError(
                f"{KEY}.{name}={getattr(settings, name)} with entropy_thresholds=quantile: it is a share of the "
                "segments and must not be over 1. Write 0.25 for the quarter with the lowest entropy."
            )
    defaults = type(settings)  # in nats: if neither was set, they are not shares
    if (settings.entropy_low, settings.entropy_high) == (defaults.entropy_low, defaults.entropy_high):
        raise ValueError(
            f"{KEY}.entropy_thresholds=quantile with entropy_low={settings.entropy_low} and entropy_high="
            f"{settings.entropy_high}, the defaults in nats: as shares, half of the segments would be low and none "
            "high. Set both, to 0.25 and 0.75, say."
        )
    if settings.entropy_source != "old":
        raise ValueError(
            f"{KEY}.entropy_thresholds=quantile with entropy_source={settings.entropy_source}: quantiles need the "
            "entropy of a complete batch, and before an update only the old policy's is known. Set "
            f"{KEY}.entropy_source=old, or entropy_thresholds=absolute."
        )


def is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
