"""Bounds on a segment's ratio, equation (3): the paper's rule, its length-scaled form, and divergence gates.

Every rule returns (lower, upper), bounds on the ratio itself (1 means no change), without gradient. Equation (4) does
the rest: a ratio that is outside its bounds and would move further out gets no gradient.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypedDict

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Unpack

from sspo_verl.divergence import binary_kl, divergence_gate, total_variation
from sspo_verl.sums import Segments, segment_means, valid_only

OfSegments = Float[Tensor, "batch segments"]


class Bounds(TypedDict):
    """Settings of the paper's rule, all required, passed by keyword. H is in nats."""

    clip_low: float  # lower bound
    clip_high: float  # upper bound
    clip_low_tight: float  # lower bound where H < entropy_low
    alpha: float  # the upper bound is 1 + alpha + H where H > entropy_high
    entropy_low: float
    entropy_high: float
    entropy_clip: bool  # False: clip_low and clip_high everywhere


class Band(Bounds, total=False):
    """`Bounds` plus the settings beyond the paper, which are optional and off when omitted."""

    clip_length_exponent: float  # p; 0: one band for all lengths
    clip_length_reference: float  # L0, in tokens; needed where p is not 0
    clip_statistic: str  # a key of RULES; "ratio": the bounds above
    clip_divergence: float | None  # threshold, required by "tv" and "binary_kl"


class Batch(NamedTuple):
    """Inputs of a rule."""

    entropy: Tensor  # H, per segment
    old_log_prob: Tensor  # per token
    log_prob: Tensor
    segments: Segments


def segment_bounds(
    entropy: Tensor, old_log_prob: Tensor, log_prob: Tensor, segments: Segments, **band: Unpack[Band]
) -> tuple[Tensor, Tensor]:
    """Bounds on each segment's ratio, by the rule that `clip_statistic` names.

    entropy: H, in nats, [batch, segments]. old_log_prob, log_prob: per token, [batch, length], without gradient.
    Raises like `require_settings`; ValueError for an unknown rule, a gate without a threshold, or a length exponent
    without a reference length.
    """
    require_settings(band, Band)
    statistic = band.get("clip_statistic", "ratio")
    if statistic not in RULES:
        raise ValueError(f"clip_statistic must be one of {', '.join(RULES)}, got {statistic!r}.")
    return RULES[statistic](Batch(entropy, old_log_prob, log_prob, segments), band)


def uses_entropy(band: Mapping[str, Any]) -> bool:
    """True if the bounds depend on H."""
    return band["entropy_clip"] and band.get("clip_statistic", "ratio") == "ratio"


# The paper's rule


def clip_bounds(segment_entropy: OfSegments, **bounds: Unpack[Bounds]) -> tuple[OfSegments, OfSegments]:
    """Entropy-adaptive bounds on the ratio of each subsentence.

        upper_ij = 1 + alpha + H_ij   if H_ij > entropy_high,  else clip_high
        lower_ij = clip_low_tight     if H_ij < entropy_low,   else clip_low

    segment_entropy: H, in nats, per segment, or per token (the mean of its segment). bounds: see `Bounds`.
    Where H is NaN or infinite, the entropy is unknown and the bounds are clip_low and clip_high.

    Returns (lower, upper). Raises like `require_settings`.
    Source: arXiv 2511.04256; the values of the constants: see `config.SSPOPolicyLossConfig`.
    """
    require_settings(bounds, Bounds)
    h = segment_entropy.detach()
    lower, upper = torch.full_like(h, bounds["clip_low"]), torch.full_like(h, bounds["clip_high"])
    if not bounds["entropy_clip"]:
        return lower, upper
    h = h.masked_fill(h.isinf(), torch.nan)  # compares false with both thresholds
    lower.masked_fill_(h < bounds["entropy_low"], bounds["clip_low_tight"])
    return lower, torch.where(h > bounds["entropy_high"], 1 + bounds["alpha"] + h, upper)


def scaled_by_length(bounds: tuple[Tensor, Tensor], length: Tensor, exponent: float, reference: float):
    """Bounds whose width in log space scales with a power of the segment's length.

        lower' = lower ^ (L / L0)^p = exp( -w_low (L / L0)^p ),   w_low = -log lower
        upper' = upper ^ (L / L0)^p = exp( w_high (L / L0)^p ),   w_high = log upper

    length: L, in tokens. exponent: p; 0 returns the bounds unchanged, bit for bit; -1/2 bounds the sum of log ratios
    by w sqrt(L L0), which clips segments of all lengths equally often if the tokens' log ratios are independent.
    reference: L0, the length at which the bounds are unchanged. A lower bound of 0 stays 0.
    Source: ours; for complete responses: arXiv 2509.09177.
    """
    if not exponent:
        return bounds
    lower, upper = bounds
    # exp and log, because on a CPU the bits of torch's pow depend on the memory address.
    power = (length.clamp(min=1).to(lower.dtype) / reference).log_().mul_(exponent).exp_()
    return (power * lower.log()).exp_(), (power * upper.log()).exp_()


def _by_ratio(batch: Batch, band: Band) -> tuple[Tensor, Tensor]:
    plain: Bounds = {name: band[name] for name in Bounds.__annotations__}  # pyright: ignore[reportAssignmentType]
    bounds, exponent = clip_bounds(batch.entropy, **plain), band.get("clip_length_exponent", 0.0)
    if not exponent:
        return bounds
    if (reference := band.get("clip_length_reference")) is None:
        raise ValueError(f"clip_length_exponent={exponent} needs a length: pass clip_length_reference, in tokens.")
    return scaled_by_length(bounds, batch.segments.length, exponent, reference)


def _by(divergence_of: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Batch, Band], tuple[Tensor, Tensor]]:
    def gate(batch: Batch, band: Band) -> tuple[Tensor, Tensor]:
        threshold = band.get("clip_divergence")
        if threshold is None:
            raise ValueError(f"clip_statistic={band.get('clip_statistic')} needs its threshold: pass clip_divergence.")
        (of_tokens,) = valid_only(batch.segments.valid, divergence_of(batch.old_log_prob, batch.log_prob))
        return divergence_gate(segment_means(of_tokens, batch.segments), threshold)

    return gate


RULES: dict[str, Callable[[Batch, Band], tuple[Tensor, Tensor]]] = {
    "ratio": _by_ratio,
    "tv": _by(total_variation),
    "binary_kl": _by(binary_kl),
}


def require_settings(given: Bounds, settings: type) -> None:
    """Raise TypeError for a missing or unknown setting. settings: Bounds or Band."""
    names = settings.__annotations__.keys()
    missing, unknown = sorted(settings.__required_keys__ - given.keys()), sorted(given.keys() - names)
    if missing or unknown:
        faults = [f"missing {', '.join(missing)}"] * bool(missing) + [f"unknown {', '.join(unknown)}"] * bool(unknown)
        raise TypeError(f"The clip takes the settings {', '.join(names)}: {'; '.join(faults)}.")
