"""Divergences estimated from the sampled tokens' probabilities, and the gate on them (DPPO, arXiv 2602.04879)."""

import torch
from jaxtyping import Float
from torch import Tensor

# In float32, 1 - p for p near 1 is accurate to about 1e-7: smaller values are clamped to this. verl's dppo_kl adds it.
SMALLEST_REST = 1e-8


OfSegments = Float[Tensor, "batch segments"]


def divergence_gate(divergence: OfSegments, threshold: float) -> tuple[OfSegments, OfSegments]:
    """Bounds that close the gate of each segment that has diverged and leave the others open.

        lower_ij = upper_ij = 1          where D_ij > threshold
        lower_ij = 0, upper_ij = inf     elsewhere

    With a closed gate, (4) and (5) give a gradient only where the update moves the ratio back towards 1: none where
    A > 0 and s > 1, or A < 0 and s < 1. divergence: D, per segment. NaN does not exceed the threshold.
    Source: DPPO's mask (arXiv 2602.04879), which is per token there.
    """
    shut = divergence > threshold
    return shut.to(divergence.dtype), torch.full_like(divergence, torch.inf).masked_fill_(shut, 1.0)


def total_variation(old_log_prob: Tensor, log_prob: Tensor) -> Tensor:
    """Total variation of "the sampled token or another" between the policies: |pi - pi_old| (arXiv 2602.04879)."""
    return (log_prob.exp() - old_log_prob.exp()).abs_()


def binary_kl(old_log_prob: Tensor, log_prob: Tensor) -> Tensor:
    """KL(old || new) of "the sampled token or another", per token, in nats (arXiv 2602.04879).

        pi_old log(pi_old / pi) + (1 - pi_old) log((1 - pi_old) / (1 - pi))

    Each 1 - pi is clamped to at least SMALLEST_REST, the sum to at least 0. Where pi_old is 0, so is the first term.
    """
    rest_old, rest = (x.expm1().neg_().clamp_(min=SMALLEST_REST) for x in (old_log_prob, log_prob))
    kl = old_log_prob.exp().mul_(old_log_prob - log_prob).masked_fill_(old_log_prob == -torch.inf, 0.0)
    return kl.add_(rest_old * (rest_old.log() - rest.log_())).clamp_(min=0)
