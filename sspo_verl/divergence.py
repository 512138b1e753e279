"""Divergence of the sampled tokens' probabilities, and the gate that it shuts (DPPO, arXiv 2602.04879)."""

import torch
from jaxtyping import Float
from torch import Tensor

# Float32 knows 1 - p of a token with p near 1 to about 1e-7: less counts as this much. verl's dppo_kl adds it instead.
SMALLEST_REST = 1e-8


OfSegments = Float[Tensor, "batch segments"]


def divergence_gate(divergence: OfSegments, threshold: float) -> tuple[OfSegments, OfSegments]:
    """Bounds that are shut where a segment has diverged, and open elsewhere.

        lower_ij = upper_ij = 1          where D_ij > threshold
        lower_ij = 0, upper_ij = inf     elsewhere

    Shut, (4) and (5) leave a gradient only to a ratio that moves back: none where A > 0 and s > 1, or A < 0 and s < 1.
    divergence: D, of each segment. A NaN is not over the threshold.
    Source: the mask of DPPO (arXiv 2602.04879), there of tokens.
    """
    shut = divergence > threshold
    return shut.to(divergence.dtype), torch.full_like(divergence, torch.inf).masked_fill_(shut, 1.0)


def total_variation(old_log_prob: Tensor, log_prob: Tensor) -> Tensor:
    """Of "the sampled token or another" under both policies: |pi - pi_old|, of each token (arXiv 2602.04879)."""
    return (log_prob.exp() - old_log_prob.exp()).abs_()


def binary_kl(old_log_prob: Tensor, log_prob: Tensor) -> Tensor:
    """Of "the sampled token or another" under both policies, in nats, of each token (arXiv 2602.04879).

        pi_old log(pi_old / pi) + (1 - pi_old) log((1 - pi_old) / (1 - pi))

    Each 1 - pi is at least SMALLEST_REST, and the sum at least 0. Where pi_old is 0, so is the first term.
    """
    rest_old, rest = (x.expm1().neg_().clamp_(min=SMALLEST_REST) for x in (old_log_prob, log_prob))
    kl = old_log_prob.exp().mul_(old_log_prob - log_prob).masked_fill_(old_log_prob == -torch.inf, 0.0)
    return kl.add_(rest_old * (rest_old.log() - rest.log_())).clamp_(min=0)
