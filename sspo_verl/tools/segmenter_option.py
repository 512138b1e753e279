"""The option `--segmenter`: a segmenter and its setting in one word, such as `fixed:32`."""

from __future__ import annotations

import os
from typing import Any

from sspo_verl.segmenters import SEGMENTERS, SegmentSettings, check

HELP = (
    f"{', '.join(SEGMENTERS)} (with its setting after a colon: fixed:32, entropy:0.1, 'regex:[;:]'), or your own "
    "function as pkg://package.module:function or file.py:function."
)


def settings_of(spec: str, max_tokens: int | None = None) -> SegmentSettings:
    """Settings for `NAME`, `NAME:VALUE` or the place of a function. Raises ValueError like `segmenters.check`."""
    name, colon, value = spec.partition(":")
    given: dict[str, Any] = {"segmenter": spec, "segment_max_tokens": max_tokens}
    if name in SEGMENTERS:
        given["segmenter"] = name
        if colon:
            given |= _value(name, value)
    elif not spec.startswith("pkg://"):
        place, _, function = spec.rpartition(":")
        given["segmenter"] = f"{os.path.abspath(place)}:{function}" if place.endswith(".py") else spec
    settings = SegmentSettings(**given)
    check(settings)
    return settings


def _value(name: str, text: str) -> dict[str, Any]:
    uses = SEGMENTERS[name].uses
    if not uses:
        raise ValueError(f"segmenter={name} takes no setting, got {text!r} after the colon.")
    if len(uses) != 1:
        raise ValueError(f"segmenter={name} takes {' and '.join(uses)}, which one value after a colon cannot give.")
    (key,) = uses
    kind = {"segment_tokens": int, "segment_entropy_share": float}.get(key, str)
    try:
        return {key: kind(text)}
    except ValueError as error:
        raise ValueError(f"segmenter={name}: {key} must be a number, got {text!r}.") from error
