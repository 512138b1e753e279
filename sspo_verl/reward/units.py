r"""Units after a value: \text{ cm}^2, dollars, eggs per day, km/h, degrees. And the words that change a value: million.

What counts as a unit: upright text at the end (\text and its kin), unless one of its words says more than a unit does
(`NOT_UNITS`: number words, operators, conditions); and plain words after a constant, if they are words. Plain letters
after a number are a product (6m, 5 m, 2ab).
"""

from __future__ import annotations

import re

from sspo_verl.reward.tidy import UNIT_LETTERS
from sspo_verl.reward.unit_words import ABBREVIATIONS, MULTIPLIERS, NOT_UNITS, SHORT_NOUNS

LONGEST = 100  # characters of a unit
_EXPONENT = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d))?"
_UPRIGHT = rf"\\text\{{[^{{}}]*\}}{_EXPONENT}"
_QUOTIENT = rf"\\frac\{{\s*{_UPRIGHT}\s*\}}\{{\s*{_UPRIGHT}\s*\}}"
_DEGREES = r"\^\\circ\s*(?:\\text\{[CFK]\}|[CFK])?"
_END_UNIT = re.compile(rf"(?:\s|\\cdot(?![a-zA-Z])|/|-)*(?:{_UPRIGHT}|{_QUOTIENT}|{_DEGREES})$")
_WORDS_OF_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_RAISED = r"\.?(?:\^(?:\d|\{\d\}))?"
_PLAIN_UNIT = re.compile(
    rf"(?P<space>\s*)(?:/\s*)?(?P<words>(?:[A-Za-z]{{2,}}|m(?=/)){_RAISED}(?:(?:\s+|\s*[/-]\s*)[A-Za-z]+{_RAISED})*)$"
)
_CHINESE = re.compile(r"(?<=[\d})])\s*(?:\\text\{\s*)?(?P<words>[\u3400-\u9fff]+(?:/[\u3400-\u9fff]+)?)(?:\s*\})?$")
_CHINESE_NOT = re.compile("[零〇一二三四五六七八九十百千万萬亿億半或且和与與及至到余負负]|分之|以上|以下|左右")
_MULTIPLIER = re.compile(
    rf"(?<=[\d}})])\s*(?:\\text\{{\s*(?P<text>{'|'.join(MULTIPLIERS)})(?![a-zA-Z])\s*(?P<more>[^{{}}]*)\}}"
    rf"|(?P<plain>{'|'.join(MULTIPLIERS)})(?![a-zA-Z]))"
)
_VARIABLES = re.compile(r"(?<![\\A-Za-z])(?!pi)[A-Za-z]")
_INITIALS = re.compile(r"[A-Za-z](?:\.[A-Za-z])+")  # p.m.
_MERIDIEM = re.compile(r"(?:\\text\{\s*)?(?P<half>[ap])\.?\s?m\.?\s*\}?$", re.IGNORECASE)


def with_multipliers(text: str) -> str:
    r"""5 million and 5\text{ million} as 5 \times 10^{6}; what follows (dollars) stays."""
    for _ in range(2):  # a hundred thousand
        if not (found := _MULTIPLIER.search(text)):
            break
        more = (found["more"] or "").strip()
        factor = rf" \times {MULTIPLIERS[found['text'] or found['plain']]}"
        text = text[: found.start()] + factor + (rf"\text{{{more}}}" if more else "") + text[found.end() :]
    return text


def without_unit(text: str) -> str | None:
    """The value before the unit at the end of a tidy text; None if there is no unit, or nothing before it."""
    value = text
    while (shorter := _shorter(value)) is not None:
        value = shorter
    return value if value != text else None


def half_of_day(text: str) -> tuple[str, str]:
    """A time of day without its a.m. or p.m., and which of them: "a", "p" or ""."""
    if ":" in text and (found := _MERIDIEM.search(text)):
        return text[: found.start()].strip(), found["half"].lower()
    return text, ""


def _shorter(text: str) -> str | None:
    if found := _END_UNIT.search(text, max(0, len(text) - LONGEST)):
        value = text[: found.start()].strip()
        groups = _WORDS_OF_TEXT.findall(found.group())
        return value if _is_value(value) and all(_is_unit(group) for group in groups) else None
    if found := _CHINESE.search(text):
        return text[: found.start()].strip() if not _CHINESE_NOT.search(found["words"]) else None
    found = _PLAIN_UNIT.search(text, max(0, len(text) - LONGEST))
    if not found or not (value := text[: found.start()].strip()) or not re.search(r"(?:[\d})!]|\\pi)$", value):
        return None
    if _VARIABLES.search(re.sub(r"\\[a-zA-Z]+", "", value)) or not _are_words(found["words"], bool(found["space"])):
        return None
    return value


def _is_value(text: str) -> bool:
    return (
        bool(text) and text[-1] not in "+-*/=^_(,;<>" and not re.search(r"\\(?:cdot|times|frac|sqrt|in|le|ge)$", text)
    )


def _is_unit(text: str) -> bool:
    if not text.strip(" .,()/-"):
        return True
    found = re.findall(r"[^\s/·*^(),.\d{}-]+(?:\.[a-zA-Z])*", text)
    if not found or re.search(r"[=<>+|\\]|(?<![\^a-zA-Z{-])\d", text):
        return False
    if any(word.lower() in NOT_UNITS and not (len(word) == 1 and word in UNIT_LETTERS) for word in found):
        return False
    if any(_INITIALS.fullmatch(word) for word in found):
        return False
    return all(len(word) > 1 or word in UNIT_LETTERS or len(found) > 1 for word in found)


def _are_words(text: str, space: bool) -> bool:
    """True if plain letters are words, not a product of variables."""
    bare = re.sub(r"\^(?:\d|\{\d\})|\.", "", text)
    if not space and re.search("sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi", bare.lower()):
        return False
    pieces = re.split(r"\s+|\s*[/-]\s*", bare)
    if any(piece.lower() in NOT_UNITS and not (piece in UNIT_LETTERS and "/" in text) for piece in pieces):
        return False
    if len(pieces) == 2 and "/" in bare and set(pieces) <= (ABBREVIATIONS | UNIT_LETTERS | SHORT_NOUNS):
        return space or len(pieces[0]) > 1
    first = pieces[0]
    if first in ABBREVIATIONS:
        return all(piece in ABBREVIATIONS | SHORT_NOUNS | UNIT_LETTERS or is_word(piece) for piece in pieces)
    if not space and len(first) < 4:
        return False
    known = ABBREVIATIONS | SHORT_NOUNS
    return all(
        piece in known or is_word(piece) or (n and piece in ("of", "in", "a", "an", "m"))
        for n, piece in enumerate(pieces)
    )


def is_word(piece: str) -> bool:
    """Four letters and more, with a vowel, not in the order of the alphabet, as variables are (abcd, mnop)."""
    letters = piece.lower()
    if len(letters) < 4 or not letters.isalpha() or not re.search("[aeiouy]", letters):
        return False
    return list(letters) != sorted(letters) and not set(letters) <= set("xyzwuvtr")
