"""Segmenter `entropy`: a segment begins where the old policy was least certain."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sspo_verl.segmenters.plain import run_starts
from sspo_verl.segmenters.registry import Segmenter, SegmentSettings, register_segmenter
from sspo_verl.segments import ids_of_starts

ROUNDING = 1e-9  # tokens: 0.29 times 100 is 28.999999999999996 in binary


@register_segmenter("entropy", uses=("segment_entropy_share",), needs_entropy=True)
def entropy(tokenizer, settings: SegmentSettings) -> Segmenter:
    """A segment ends before each of the floor(share * n) tokens of largest entropy of the n valid ones of a response.

    Of tokens with the same entropy the first ones count; one whose entropy is NaN never does. A masked run ends a
    segment. Per response, so that micro-batches change nothing. Source: ours; high-entropy tokens as the forks of a
    response: arXiv 2506.01939.
    """
    share = settings.segment_entropy_share or 0.0  # never None: `uses`

    def cut(token_ids, response_mask, entropy):
        valid = response_mask.bool()
        return ids_of_starts(valid, run_starts(valid) | top_share(entropy, valid, share))

    return cut


def top_share(
    values: Float[Tensor, "batch length"], valid: Bool[Tensor, "batch length"], share: float
) -> Bool[Tensor, "batch length"]:
    """True at the floor(share * n) largest values among the n valid ones of a row; the first ones of those alike."""
    width = int(share * valid.shape[1] + ROUNDING)
    if not width:
        return torch.zeros_like(valid)
    values = values.masked_fill(~valid | values.isnan(), -torch.inf)
    wanted = valid.sum(dim=1, keepdim=True).double().mul_(share).add_(ROUNDING).long()  # toward 0
    smallest = values.topk(width, dim=1).values.gather(1, (wanted - 1).clamp(min=0))
    above = (values > smallest) & (wanted > 0)
    alike = (values == smallest) & (wanted > 0) & (values > -torch.inf)
    left = (wanted - above.sum(dim=1, keepdim=True)).int()
    return above | (alike & (alike.cumsum(dim=1, dtype=torch.int32) <= left))
