"""Segmenters: where a response is cut. One file each, found by name (`register_segmenter`) or in a file of the user's.

A segmenter is a function `(token_ids, response_mask, entropy) -> segment_ids` on the device, made once per tokenizer by
the factory that is registered: `factory(tokenizer, settings) -> segmenter`.
"""

from sspo_verl.segmenters import entropy, fixed, line_break, pattern, plain, sentence  # noqa: F401  they register themselves
from sspo_verl.segmenters.registry import SEGMENTERS, Segmenter, SegmentSettings, register_segmenter
from sspo_verl.segmenters.select import check, factory_of, segmenter_of

__all__ = ["SEGMENTERS", "SegmentSettings", "Segmenter", "check", "factory_of", "register_segmenter", "segmenter_of"]
