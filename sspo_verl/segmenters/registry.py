"""The registry of segmenters, and the settings that they are made with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

# (token_ids, response_mask, entropy) -> segment_ids, all [batch, length]; entropy may be None
Segmenter = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class SegmentSettings:
    """The settings of a segmenter, by the names that they have in `config.SSPOPolicyLossConfig`."""

    segmenter: str = "line_break"
    segment_tokens: int | None = None
    segment_entropy_share: float | None = None
    segment_regex: str | None = None
    segment_max_tokens: int | None = None


Make = Callable[[Any, SegmentSettings], Segmenter]  # (tokenizer, settings) -> segmenter


@dataclass(frozen=True)
class Factory:
    """A registered segmenter. uses: the settings that it cannot do without. needs_entropy: of the old policy."""

    make: Make
    uses: tuple[str, ...] = ()
    needs_entropy: bool = False


SEGMENTERS: dict[str, Factory] = {}


def register_segmenter(name: str, uses: tuple[str, ...] = (), needs_entropy: bool = False):
    """Decorator: the function `(tokenizer, settings) -> segmenter` is the segmenter `name`.

    uses: the names of the settings (`SegmentSettings`) that it reads and that must be given. needs_entropy: its third
    argument is then the old policy's entropy, never None.
    Raises ValueError if another function has the name.
    """

    def register(make):
        known = SEGMENTERS.get(name)
        if known is not None and _place(known.make) != _place(make):
            raise ValueError(
                f"The segmenter {name!r} is {known.make.__module__}.{known.make.__qualname__} already. Choose another "
                f"name for {make.__module__}.{make.__qualname__}."
            )
        SEGMENTERS[name] = Factory(make, tuple(uses), needs_entropy)
        return make

    return register


def _place(make) -> tuple[str, str]:
    """Where a function is written: a file that is loaded a second time registers the same one."""
    return make.__code__.co_filename, make.__qualname__
