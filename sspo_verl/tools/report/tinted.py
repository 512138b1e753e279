"""Responses as the page shows them: each segment with its tint, its H and ratio, and where it was clipped."""

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

SEGMENTS = 100  # of a response that are shown
CHARACTERS = 2000  # of a segment that are shown
PROMPT = 300  # characters at its end that are shown
NAMES = {"\r": "CR", "\0": "NUL", "\x1b": "ESC", "\x08": "BS", "\x7f": "DEL"}
# Kept, as they are or as part of letters and emoji: the joiners U+200C and U+200D.
_KEPT = "\n\t\u200c\u200d"
# Control and format characters, separators of lines, halves of pairs, and what is not assigned. Private use is kept:
# fonts give it a shape.
_UNSEEN = ("Cc", "Cf", "Zl", "Zp", "Cs", "Cn")
_ASCII = re.compile(r"[\n\t -~]*")

Part = tuple[bool, str]  # (is it the name of a character that cannot be seen?, text)


@dataclass(frozen=True)
class Segment:
    parts: list[Part]
    band: str | None
    entropy: float | None  # H in nats
    ratio: float | None
    side: str | None  # "low", "high", or None where not clipped or not known


@dataclass(frozen=True)
class Tinted:
    verdict: str  # a value of CORRECT
    where: str
    prompt: list[Part]
    segments: list[Segment]
    total: int  # segments, with those that are not shown
    remark: str


def tinted(response: Response, cutter: ByTokens | None, thresholds: Thresholds, lines_too: bool = True) -> Tinted:
    """Of one response. cutter: None where there is no tokenizer; lines_too: see `pieces`."""
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
    """What is known of the segments: of the entropies of the tokens where the row has them, else of the dump."""
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
    """The text with the names of the characters that a page would swallow, or that would turn its order around."""
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
