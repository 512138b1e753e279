"""Segmenters that use only the response mask: `token`, `response`, `turn`."""

from jaxtyping import Bool
from torch import Tensor

from sspo_verl.segmenters.registry import Segmenter, SegmentSettings, register_segmenter
from sspo_verl.segments import ids_of_starts


@register_segmenter("token")
def token(tokenizer, settings: SegmentSettings) -> Segmenter:
    """Each token is a segment: the ratio of PPO and GRPO, verl's `vanilla`."""
    return lambda token_ids, response_mask, entropy: ids_of_starts(response_mask.bool(), response_mask.bool())


@register_segmenter("response")
def response(tokenizer, settings: SegmentSettings) -> Segmenter:
    """All valid tokens of a response are one segment, even across masked ones: the ratio of GSPO, verl's `gspo`."""
    return lambda token_ids, response_mask, entropy: response_mask.bool().long().sub_(1)


@register_segmenter("turn")
def turn(tokenizer, settings: SegmentSettings) -> Segmenter:
    """Each run of valid tokens is a segment: what the policy wrote between masked stretches such as tool output."""

    def cut(token_ids, response_mask, entropy):
        valid = response_mask.bool()
        return ids_of_starts(valid, run_starts(valid))

    return cut


def run_starts(valid: Bool[Tensor, "batch length"]) -> Bool[Tensor, "batch length"]:
    """True at the first token of each run of valid tokens."""
    starts = valid.clone()
    starts[:, 1:] &= ~valid[:, :-1]
    return starts
