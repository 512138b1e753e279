"""Segmenter `line_break`: the paper's subsentences (arXiv 2511.04256)."""

from sspo_verl.segmenters.registry import Segmenter, SegmentSettings, register_segmenter
from sspo_verl.segments import line_break_table, segment_ids


@register_segmenter("line_break")
def line_break(tokenizer, settings: SegmentSettings) -> Segmenter:
    """A segment ends with each token that contains a line break; see `segments.segment_ids`."""
    table = line_break_table(tokenizer)
    return lambda token_ids, response_mask, entropy: segment_ids(token_ids, response_mask, table)
