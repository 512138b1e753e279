"""The registry of segmenters, and their settings."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

# (token_ids, response_mask, entropy) -> segment_ids, all [batch, length]; entropy may be None
Segmenter = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class SegmentSettings:
    """Settings of a segmenter, with the same names as in `config.SSPOPolicyLossConfig`."""

    segmenter: str = "line_break"
    segment_tokens: int | None = None
    segment_entropy_share: float | None = None
    segment_regex: str | None = None
    segment_max_tokens: int | None = None


# What `uses` may name: every setting except `segmenter` itself.
NAMES = tuple(field.name for field in fields(SegmentSettings) if field.name != "segmenter")
Make = Callable[[Any, SegmentSettings], Segmenter]  # (tokenizer, settings) -> segmenter


@dataclass(frozen=True)
class Factory:
    """A registered segmenter. uses: the settings it requires. needs_entropy: it needs the old policy's entropy."""

    make: Make
    uses: tuple[str, ...] = ()
    needs_entropy: bool = False


SEGMENTERS: dict[str, Factory] = {}


def register_segmenter(name: str, uses: tuple[str, ...] = (), needs_entropy: bool = False):
    """Decorator: register the factory `(tokenizer, settings) -> segmenter` under `name`.

    uses: names of the settings (`SegmentSettings`) that it reads and that must be given. needs_entropy: the segmenter's
    third argument is the old policy's entropy and never None.
    Raises ValueError if another function already has the name, or for an unknown setting.
    """
    unknown = [setting for setting in uses if setting not in NAMES]
    if unknown:
        raise ValueError(
            f"The segmenter {name!r} uses {unknown[0]!r}, which is not a setting. Available: {', '.join(NAMES)}. Write "
            f"uses=({NAMES[0]!r},)."
        )

    def register(make):
        known = SEGMENTERS.get(name)
        if known is not None and _place(known.make) != _place(make):
            raise ValueError(
                f"The segmenter {name!r} is {_full_name(known.make)} already. Choose another name for "
                f"{_full_name(make)}."
            )
        SEGMENTERS[name] = Factory(make, tuple(uses), needs_entropy)
        return make

    return register


def _place(make) -> tuple[str, str]:
    """Where a function, or a callable object's class, is defined: loading a file twice registers the same place."""
    code, written = getattr(make, "__code__", None), _written(make)
    module = sys.modules.get(written.__module__)
    file = getattr(module, "__file__", written.__module__) if code is None else code.co_filename
    return str(file), written.__qualname__


def _full_name(make) -> str:
    written = _written(make)
    return f"{written.__module__}.{written.__qualname__}"


def _written(make):
    return make if hasattr(make, "__qualname__") else type(make)
