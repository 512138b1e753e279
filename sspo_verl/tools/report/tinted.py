"""Responses as shown on the page: each segment with its tint, H and ratio, and where it was clipped."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from sspo_verl.tools.analyze.count import Problems
from sspo_verl.tools.analyze.cut import ByTokens, Cut
from sspo_verl.tools.analyze.fields import Dumped, Response
from sspo_verl.tools.analyze.pieces import Pieces, pieces
from sspo_verl.tools.analyze.run import CORRECT, mean_entropies
from sspo_verl.tools.analyze.thresholds import Thresholds

SEGMENTS = 100  # segments shown per response
CHARACTERS = 2000  # characters shown per segment
PROMPT = 300  # characters shown from the end of the prompt
NAMES = {"\r": "CR", "\0": "NUL", "\x1b": "ESC", "\x08": "BS", "\x7f": "DEL"}
# Characters that are kept; the joiners U+200C and U+200D are part of letters and emoji.
_KEPT = "\n\t\u200c\u200d"
# Control and format characters, line separators, surrogates, and unassigned ones. Private use is kept: fonts may have
# glyphs for it.
_UNSEEN = ("Cc", "Cf", "Zl", "Zp", "Cs", "Cn")
_ASCII = re.compile(r"[\n\t -~]*")

Part = tuple[bool, str]  # (whether it is the name of an invisible character, text)


@dataclass(frozen=True)
class Segment:
    parts: list[Part]
    band: str | None
    entropy: float | None  # H in nats
    ratio: float | None
    side: str | None  # "low", "high", or None if not clipped or unknown


@dataclass(frozen=True)
class Tinted:
    verdict: str  # a value of CORRECT
    where: str
    prompt: list[Part]
    segments: list[Segment]
    total: int  # number of segments, including those not shown
    remark: str


def tinted(response: Response, cutter: ByTokens | None, thresholds: Thresholds, lines_too: bool = True) -> Tinted:
    """One response as shown. cutter: None if there is no tokenizer; lines_too: see `pieces`."""
    cut = pieces(response, cutter, lines_too)
    values = _values(response, cut)
    segments = [
        _segment(text, value, thresholds)
        for text, value in zip_longest(cut.texts[:SEGMENTS], values[: min(SEGMENTS, len(cut.texts))])
    ]
    prompt = response.prompt or ""
    if len(prompt) > PROMPT:
        prompt = "… " + prompt[-PROMPT:]
    verdict = CORRECT[response.correct]
    return Tinted(verdict, response.where, readable(prompt), segments, len(cut.texts), cut.remark)


def _values(response: Response, cut: Pieces) -> Sequence[Dumped]:
    """Known values of the segments: from the tokens' entropies if the row has them, else from the dump."""
    if response.entropies is not None and cut.tokens is not None:
        of_tokens = mean_entropies(response, Cut(len(cut.tokens), np.asarray(cut.tokens)), Problems())
        if of_tokens is not None:
            return [Dumped(tokens, entropy, None, None) for tokens, entropy in of_tokens]
    return response.dumped if cut.known else []


def _segment(text: str, value: Dumped | None, thresholds: Thresholds) -> Segment:
    if len(text) > CHARACTERS:
        text = f"{text[:CHARACTERS]}… ({len(text) - CHARACTERS:,} more characters)"
    if value is None:
        return Segment(readable(text), None, None, None, None)
    side = value.side if value.side in ("low", "high") else None
    return Segment(readable(text), thresholds.band(value.entropy), value.entropy, value.ratio, side)


def readable(text: str) -> list[Part]:
    """The text, with characters that a page would not show, or that would reverse it, replaced by their names."""
    if _ASCII.fullmatch(text):
        return [(False, text)] if text else []
    parts: list[Part] = []
    for character in text:
        unseen = character not in _KEPT and unicodedata.category(character) in _UNSEEN
        if unseen:
            parts.append((True, NAMES.get(character, f"U+{ord(character):04X}")))
        elif parts and not parts[-1][0]:
            parts[-1] = (False, parts[-1][1] + character)
        else:
            parts.append((False, character))
    return parts
