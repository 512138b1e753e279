"""Segmenter `entropy`: a segment begins where the old policy was least certain."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sspo_verl.segmenters.plain import run_starts
from sspo_verl.segmenters.registry import Segmenter, SegmentSettings, register_segmenter
from sspo_verl.segments import ids_of_starts

ROUNDING = 1e-9  # tokens: 0.29 times 100 is 28.999999999999996 in binary


@register_segmenter("entropy", uses=("segment_entropy_share",), needs_entropy=True)
def entropy(tokenizer, settings: SegmentSettings) -> Segmenter:
    """A segment begins at each of the floor(share * n) highest-entropy tokens of a response with n valid tokens.

    Ties go to the earlier tokens; a token with a NaN entropy is never chosen. A masked run ends a segment. Computed
    per response, so the result does not depend on micro-batching. Source: ours; high-entropy tokens as the forks of a
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
    """True at the floor(share * n) largest of the n valid values of a row; ties go to the earlier ones."""
    width = int(share * valid.shape[1] + ROUNDING)
    if not width:
        return torch.zeros_like(valid)
    values = torch.where(valid, values.nan_to_num(-torch.inf, torch.inf, -torch.inf), -torch.inf)
    wanted = valid.sum(dim=1, keepdim=True).double().mul_(share).add_(ROUNDING).long()  # truncates
    smallest = _smallest_of_largest(values, wanted, width)
    above, alike = values > smallest, values == smallest
    left = (wanted - above.sum(dim=1, keepdim=True)).masked_fill_(smallest == -torch.inf, 0).int()
    return above | (alike & (alike.cumsum(dim=1, dtype=torch.int32) <= left))


def _smallest_of_largest(
    values: Float[Tensor, "batch length"], wanted: Int64[Tensor, "batch 1"], width: int
) -> Float[Tensor, "batch 1"]:
    """For each row, the smallest of its `wanted` largest values (at most `width`); inf if none is wanted."""
    # Adding `width` - `wanted` infinities to each row makes it the smallest of the `width` largest in every row.
    fewer = torch.arange(width, device=values.device) < width - wanted
    infinities = values.new_full(fewer.shape, -torch.inf).masked_fill_(fewer, torch.inf)
    of_row = torch.cat((_candidates(values, width), infinities), dim=1)
    return of_row.topk(width, dim=1, sorted=False).values.amin(dim=1, keepdim=True)


def _candidates(values: Float[Tensor, "batch length"], width: int) -> Float[Tensor, "batch candidates"]:
    """Values of each row that include its `width` largest: all values of the `width` groups with the largest maxima.

    The top-k takes most of the time; this leaves fewer values for it. Groups have 4 values, if there are enough groups.
    """
    groups = torch.nn.functional.pad(values, (0, -values.shape[1] % 4), value=-torch.inf).unflatten(1, (4, -1))
    if width >= groups.shape[2]:
        return values
    best = groups.amax(dim=1, keepdim=True).topk(width, dim=2, sorted=False).indices
    return groups.gather(2, best.expand(-1, 4, -1)).flatten(1)
