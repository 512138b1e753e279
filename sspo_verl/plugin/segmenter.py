"""The segmenter of a run, built once per process for each tokenizer, settings and device."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import torch

from sspo_verl.names import KEY

if TYPE_CHECKING:
    from sspo_verl.segmenters import Segmenter, SegmentSettings

_made: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # by tokenizer


def segmenter_on(device: torch.device, tokenizer, settings: SegmentSettings) -> Segmenter:
    """`segmenters.segmenter_of`, cached for the lifetime of the tokenizer. Raises ValueError, naming the key."""
    from sspo_verl.segmenters import segmenter_of

    made = _made.setdefault(tokenizer, {})
    if (settings, device) not in made:
        try:
            made[settings, device] = segmenter_of(tokenizer, settings, device)
        except ValueError as error:
            named = f"segmenter={settings.segmenter}: "
            raise ValueError(f"{KEY}.{named}{str(error).removeprefix(named)}") from error
    return made[settings, device]
