"""The study's segmenters, by the names of the plugin's setting `segmenter`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.study.text import Text
from sspo_verl.segments import BLANK, ENDS_LINE, segment_ids

FIXED = 8  # tokens


def _number(index: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask.bool(), index.expand_as(mask), -1)


def _positions(tokens: Tensor) -> Tensor:
    return torch.arange(tokens.shape[1])


def line_break(tokens: Tensor, mask: Tensor, text: Text) -> Tensor:
    """The paper's segmenter: cuts at line breaks."""
    return segment_ids(tokens, mask, text.table)


def space(tokens: Tensor, mask: Tensor, text: Text) -> Tensor:
    """Cuts at spaces, for texts that have them instead of line breaks."""
    flags = text.table & ~ENDS_LINE
    flags[text.encode(" ")] |= ENDS_LINE | BLANK
    return segment_ids(tokens, mask, flags)


def token(tokens: Tensor, mask: Tensor, text: Text) -> Tensor:
    return _number(_positions(tokens), mask)


def response(tokens: Tensor, mask: Tensor, text: Text) -> Tensor:
    return _number(torch.zeros_like(_positions(tokens)), mask)


def fixed(tokens: Tensor, mask: Tensor, text: Text) -> Tensor:
    """Cuts after every `FIXED` tokens."""
    return _number(_positions(tokens) // FIXED, mask)


# (tokens, mask, text) -> segment index of each token, -1 where masked, all [batch, length]; masks have no holes here.
SEGMENTERS: dict[str, Callable[[Tensor, Tensor, Text], Tensor]] = {
    function.__name__: function for function in (line_break, space, token, response, fixed)
}
