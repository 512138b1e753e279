"""Segmenters: functions that divide responses into segments. Registered by name, or loaded from a user's file.

A segmenter is a function `(token_ids, response_mask, entropy) -> segment_ids` on the device, created once per tokenizer
by a registered factory: `factory(tokenizer, settings) -> segmenter`.
"""

from sspo_verl.segmenters import entropy, fixed, line_break, pattern, plain, sentence  # noqa: F401  they register themselves
from sspo_verl.segmenters.registry import SEGMENTERS, Segmenter, SegmentSettings, register_segmenter
from sspo_verl.segmenters.select import check, factory_of, segmenter_of

__all__ = ["SEGMENTERS", "SegmentSettings", "Segmenter", "check", "factory_of", "register_segmenter", "segmenter_of"]
