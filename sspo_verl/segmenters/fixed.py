"""Segmenter `fixed`: segments of a fixed number of tokens. Also the maximum segment length, for any segmenter."""

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from sspo_verl.segmenters.plain import run_starts
from sspo_verl.segmenters.registry import Segmenter, SegmentSettings, register_segmenter
from sspo_verl.segments import ids_of_starts


@register_segmenter("fixed", uses=("segment_tokens",))
def fixed(tokenizer, settings: SegmentSettings) -> Segmenter:
    """Segments of `segment_tokens` tokens, from the start of each run of valid tokens; the last may be shorter."""
    size = settings.segment_tokens or 1  # never None: `uses`

    def cut(token_ids, response_mask, entropy):
        valid = response_mask.bool()
        position = torch.arange(valid.shape[1], dtype=torch.int32, device=valid.device)
        in_run = position - (position * run_starts(valid)).cummax(dim=1).values
        return ids_of_starts(valid, valid & (in_run % size == 0))

    return cut


def cut_long(segment_ids: Int64[Tensor, "batch length"], max_tokens: int) -> Int64[Tensor, "batch length"]:
    """Split each segment of more than `max_tokens` tokens into the smallest number of even pieces; keep the others.

        piece of the k-th token (0, 1, ...) of n = floor( k * ceil(n / max_tokens) / n )

    Even pieces avoid a remainder of one or two tokens, whose ratio would be mostly noise: 65 tokens with a maximum of
    64 become 33 and 32. Integers throughout, so the result is the same on every device. Source: ours.
    """
    if segment_ids.numel() == 0:
        return segment_ids
    valid = segment_ids >= 0
    starts = _starts(segment_ids)
    rank = valid.cumsum(dim=1)  # 1, 2, ... for valid tokens; a masked one has the rank of the token before it
    first = (rank * starts).cummax(dim=1).values
    size = _next_first(rank, starts) - first
    pieces = torch.div(size + max_tokens - 1, max_tokens, rounding_mode="floor") * valid
    size = size.clamp(min=1)
    k = rank - first
    begins = torch.div(k * pieces, size, rounding_mode="floor") > torch.div(
        (k - 1) * pieces, size, rounding_mode="floor"
    )
    return ids_of_starts(valid, valid & begins)


def _starts(segment_ids: Tensor) -> Bool[Tensor, "batch length"]:
    """True at the first token of each segment: its id is larger than all before it."""
    starts = segment_ids >= 0
    starts[:, 1:] &= segment_ids[:, 1:] > segment_ids.cummax(dim=1).values[:, :-1]
    return starts


def _next_first(rank: Tensor, starts: Tensor) -> Int64[Tensor, "batch length"]:
    """Rank of the first token of the segment after each token's own; the last rank plus one if there is none."""
    end = rank[:, -1:] + 1
    after = ((end - rank) * starts).flip(1).cummax(dim=1).values.flip(1)  # the nearest start ahead has the largest
    following = torch.zeros_like(rank)
    following[:, :-1] = after[:, 1:]
    return end - following
