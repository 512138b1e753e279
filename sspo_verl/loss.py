"""SSPO's per-token loss (arXiv 2511.04256). Token t of response i is in subsentence j, called `segment` in the code.

    (1)  s_ij = exp( mean over t in j of ( log pi(y_it) - log pi_old(y_it) ) )
    (2)  H_ij = mean over t in j of h_it
    (3)  lower_ij, upper_ij = clip_bounds(H_ij)
    (4)  l_it = max( -s_ij A_it,  -clip(s_ij, lower_ij, upper_ij) A_it )
    (5)  d l_it / d log pi(y_it) = -s_ij A_it  where (4) takes its first term, else 0

(5) is the gradient of the GSPO-token form, s_it = sg[s_ij] pi(y_it) / sg[pi(y_it)]. The log ratio in (1) is clamped at
MAX_LOG_RATIO; where it is clamped, the loss is constant (unless ratio_cap is set). Beyond the paper, and off by default
(docs/bands.md):

    ratio_length_exponent q   (1) is exp( L_ij^q mean ): with q = 1 the product of the tokens' ratios
    Band of `bounds`          (3) depends on the segment's length, or on its divergence
    dual_clip c               l_it is at most -c A_it where A_it < 0, and constant there
    ratio_cap c               (4) selects its term by s_ij; then min(s_ij, c) replaces s_ij, in l_it and in (5)
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from typing_extensions import Unpack

from sspo_verl.bounds import Band, Bounds, clip_bounds, require_settings, segment_bounds, uses_entropy
from sspo_verl.derivatives import segment_mean, with_derivative
from sspo_verl.sums import Segments, at_tokens, locate, segment_means, valid_only

__all__ = ["Bounds", "TokenTerms", "clip_bounds", "segment_mean", "sspo_token_loss", "sspo_token_terms"]

Tokens = Float[Tensor, "batch length"]
# exp(10) is about 22,000: far outside every bound, well within float32. verl's gspo clamps at the same value.
MAX_LOG_RATIO = 10.0


class TokenTerms(NamedTuple):
    """The loss and the terms it is computed from; only `loss` has a gradient."""

    # per token, [batch, length], all 0 where masked
    loss: Tensor
    clipped: Tensor  # bool: (4) takes its second term
    log_ratio: Tensor
    advantages: Tensor
    # per segment, [batch, segments]
    ratio: Tensor
    lower: Tensor
    upper: Tensor
    entropy: Tensor  # H; 0 where no entropy was given
    segments: Segments  # which tokens they consist of


def sspo_token_loss(*tensors: Any, **arguments: Any) -> Tensor:
    """Loss of each token, to be reduced by verl's `agg_loss`: `sspo_token_terms(...).loss`, with the same arguments."""
    return sspo_token_terms(*tensors, **arguments).loss


def sspo_token_terms(
    old_log_prob: Tokens,
    log_prob: Tokens,
    advantages: Tokens,
    response_mask: Shaped[Tensor, "batch length"],
    segment_ids: Int64[Tensor, "batch length"],
    entropy: Tokens | None,
    dual_clip: float | None = None,
    ratio_length_exponent: float = 0.0,
    ratio_cap: float | None = None,
    **band: Unpack[Band],
) -> TokenTerms:
    """SSPO's loss of each token, (4), and the terms it is computed from.

    old_log_prob, log_prob: log pi_old and log pi of the sampled token, in nats. advantages: A.
    response_mask: non-zero where the token counts. segment_ids: j(t), from `segments.segment_ids`.
    entropy: h, in nats; may be None if the bounds do not depend on it. band: see `bounds.Band`.
    dual_clip, ratio_length_exponent, ratio_cap: see the module docstring.

    Returns float32 (float64 for float64 log-probs), 0 where masked; inputs under the mask are ignored, even inf or
    NaN. In a row whose first ratio is NaN, the masked tokens are NaN too. Only log_prob gets a gradient.
    Raises ValueError if entropy is missing but the bounds need it, TypeError for a missing or unknown bound.
    Source: arXiv 2511.04256; dual_clip: arXiv 1912.09729; ratio_cap: Ionides 2008, arXiv 2506.13585.
    """
    require_settings(band, Band)
    if entropy is None:
        if uses_entropy(band):
            raise ValueError("entropy_clip=True needs the tokens' entropy; pass it, or set entropy_clip=False.")
        entropy = torch.zeros_like(log_prob)
    valid = response_mask.bool() & (segment_ids >= 0)
    segments = locate(segment_ids, valid)
    dtype = torch.promote_types(torch.promote_types(log_prob.dtype, old_log_prob.dtype), torch.float32)
    new, old, a, h = (x.detach().to(dtype) for x in (log_prob, old_log_prob, advantages, entropy))
    log_ratio, a, h = valid_only(valid, new - old, a, h)

    # In place, which takes a sixth of the memory (benchmarks/loss.py).
    s = segment_means(log_ratio, segments, power=1 - ratio_length_exponent)
    clamped = s > MAX_LOG_RATIO
    s = s.clamp_(max=MAX_LOG_RATIO).exp_()  # (1)
    h = segment_means(h, segments)  # (2)
    lower, upper = segment_bounds(h, old, new, segments, **band)  # (3)
    first = at_tokens(s, segments).mul_(a).neg_()
    second = at_tokens(s.clamp(lower, upper), segments).mul_(a).neg_()
    clipped = second > first
    loss = torch.maximum(first, second, out=second)  # (4)
    if dual_clip is not None:
        loss = torch.where(a < 0, torch.minimum(loss, -dual_clip * a), loss)
    free = loss == first
    if ratio_cap is None:
        free &= ~at_tokens(clamped, segments)
    else:
        limit = ratio_cap * a.abs()
        loss, first = loss.clamp(-limit, limit), first.clamp(-limit, limit)
    loss = with_derivative(log_prob, loss, first.mul_(free))  # (5)
    return TokenTerms(loss, clipped, log_ratio, a, s, lower, upper, h, segments)
