"""The study's per-token losses: the plugin's SSPO with any segmenter and band, and the others below.

`clipped` with one token per segment is verl's `vanilla`, with one segment per response its `gspo` (tests/study), so
that one function serves every level of the ratio. w_it multiplies A_it d log pi(y_it):

    clipped   s_ij where the plugin's loss does not clip it, else 0
    product   the same with the segment's product of ratios, exp( sum over t in j of ( log pi - log pi_old ) )
    capped    min(that product, cap), never 0                                     truncated importance sampling
    none      1                                                                   stale REINFORCE
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.study.segmenters import SEGMENTERS
from benchmarks.study.text import Text
from sspo_verl.bounds import Band, Bounds
from sspo_verl.loss import MAX_LOG_RATIO, segment_mean, sspo_token_loss
from sspo_verl.plugin.thresholds import quantiles

BOUNDS = tuple(Bounds.__annotations__)
SETTINGS = (*Band.__annotations__, "dual_clip", "ratio_length_exponent", "ratio_cap", "entropy_thresholds")


class Tokens(NamedTuple):
    """Inputs of a loss, [batch, length] each, without gradient."""

    old_log_prob: Tensor
    advantages: Tensor
    mask: Tensor
    segments: Tensor  # -1 where masked
    entropy: Tensor


@dataclass(frozen=True)
class Algorithm:
    """A named loss. settings: by the plugin's names; a plain band only needs clip_low and clip_high, and `capped` cap.
    With `entropy_thresholds: quantile`, entropy_low and entropy_high are shares, see `for_batch`.

    Raises ValueError for an unknown loss, segmenter or setting, and for one that is missing.
    """

    name: str
    loss: str = "clipped"
    segmenter: str = "token"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        _one_of("loss", self.loss, LOSSES, self.name)
        _one_of("segmenter", self.segmenter, SEGMENTERS, self.name)
        _, needed, optional = LOSSES[self.loss]
        if self.settings.get("entropy_clip"):
            needed = BOUNDS
        unknown, missing = self.settings.keys() - {*needed, *optional}, needed - self.settings.keys()
        if unknown or missing:
            faults = [
                f"{word} {', '.join(sorted(names))}"
                for word, names in (("unknown", unknown), ("missing", missing))
                if names
            ]
            raise ValueError(f"algorithm {self.name}: settings of the loss {self.loss}: {'; '.join(faults)}.")

    @property
    def level(self) -> str:
        """Level of the ratio: token, segment or response; or the loss's name, if it is not `clipped`."""
        if self.loss != "clipped":
            return self.loss
        return self.segmenter if self.segmenter in ("token", "response") else "segment"

    def segment(self, tokens: Tensor, mask: Tensor, text: Text) -> Tensor:
        return SEGMENTERS[self.segmenter](tokens, mask, text)

    def for_batch(self, tokens: Tensor, mask: Tensor, entropy: Tensor, text: Text) -> Algorithm:
        """The same algorithm; thresholds that are shares are converted to nats, over the complete batch's segments."""
        if self.settings.get("entropy_thresholds", "absolute") == "absolute":
            return self
        names = ("entropy_low", "entropy_high")
        shares = [self.settings[name] for name in names]
        found = quantiles(entropy, mask, self.segment(tokens, mask, text), shares)
        nats = dict(zip(names, found, strict=True))
        return replace(self, settings={**self.settings, **nats, "entropy_thresholds": "absolute"})

    def token_loss(self, log_prob: Tensor, tokens: Tokens) -> Tensor:
        """Loss of each token, 0 where masked, [batch, length]."""
        function, _, _ = LOSSES[self.loss]
        return function(log_prob, tokens, self.settings)


def clipped(log_prob: Tensor, tokens: Tokens, settings: Mapping[str, Any]) -> Tensor:
    """The plugin's `sspo_token_loss`."""
    return sspo_token_loss(
        tokens.old_log_prob,
        log_prob,
        tokens.advantages,
        tokens.mask,
        tokens.segments,
        tokens.entropy,
        **_plain_band(settings),
    )


def product(log_prob: Tensor, tokens: Tokens, settings: Mapping[str, Any]) -> Tensor:
    """`clipped` for the product: its log is the sum over the segment; its derivative by each log pi is the product."""
    total = log_product(log_prob, tokens)
    moved = total + (log_prob - log_prob.detach())
    return clipped(moved, tokens._replace(old_log_prob=torch.zeros_like(total)), settings)


def capped(log_prob: Tensor, tokens: Tokens, settings: Mapping[str, Any]) -> Tensor:
    weight = log_product(log_prob, tokens).clamp(max=MAX_LOG_RATIO).exp().clamp(max=settings["cap"])
    return weight * none(log_prob, tokens, {})


def none(log_prob: Tensor, tokens: Tokens, settings: Mapping[str, Any]) -> Tensor:
    return -tokens.advantages * (log_prob - log_prob.detach()).exp() * tokens.mask


# {name: (function, required settings, optional settings)}
LOSSES: dict[str, tuple[Any, set[str], tuple[str, ...]]] = {
    "clipped": (clipped, {"clip_low", "clip_high"}, SETTINGS),
    "product": (product, {"clip_low", "clip_high"}, SETTINGS),
    "capped": (capped, {"cap"}, ()),
    "none": (none, set(), ()),
}


def log_product(log_prob: Tensor, tokens: Tokens) -> Tensor:
    """Sum of the log ratios of each token's segment, without gradient; 0 where masked."""
    mean = segment_mean((log_prob.detach() - tokens.old_log_prob) * tokens.mask, tokens.segments)
    return mean * lengths(tokens.segments)


def lengths(segments: Tensor) -> Tensor:
    """Number of tokens in each token's segment, as a float; 0 where masked. Segments have no holes."""
    valid = segments >= 0
    first = torch.ones_like(segments, dtype=torch.float64)  # of its segment; its mean is one over the length
    first[:, 1:] = (segments[:, 1:] != segments[:, :-1]).double()
    return torch.where(valid, 1 / segment_mean(first, segments).clamp(min=1e-9), 0).round().float()


def reduce(token_loss: Tensor, mask: Tensor, rows: int) -> Tensor:
    """verl's `seq-mean-token-mean`. rows: responses of the complete update, of which these may be a part."""
    return (token_loss.sum(1) / mask.sum(1).clamp(min=1)).sum() / rows


def _plain_band(settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of the clip: fills in those that a band without entropy clip does not use."""
    assert settings.get("entropy_thresholds", "absolute") == "absolute", "thresholds are shares: see `for_batch`"
    unused = {"clip_low_tight": settings["clip_low"], "alpha": 0.0, "entropy_low": 0.0, "entropy_high": 0.0}
    given = {name: value for name, value in settings.items() if name != "entropy_thresholds"}
    return {**unused, "entropy_clip": False, **given}


def _one_of(what: str, value: str, known: Mapping[str, Any], name: str) -> None:
    if value not in known:
        raise ValueError(f"algorithm {name}: {what} must be one of {', '.join(known)}, got {value!r}.")
