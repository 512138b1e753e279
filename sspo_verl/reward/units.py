r"""Units after a value: \text{ cm}^2, dollars, eggs per day, km/h, degrees. Also words that change a value: million.

What counts as a unit: upright text at the end (\text and the like), unless one of its words means more than a unit
(`is_no_unit`: number words, operators, conditions); and plain words after a constant, if they are words. Plain letters
after a number are a product (6m, 5 m, 2ab). After letters, text is a unit only if it is a known one: n\text{ odd}.
"""

from __future__ import annotations

import itertools
import re

from sspo_verl.reward.tidy import UNIT_LETTERS
from sspo_verl.reward.unit_words import ABBREVIATIONS, MEASURES, MULTIPLIERS, SHORT_NOUNS, is_no_unit

LONGEST = 100  # characters of a unit
_EXPONENT = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d))?"
_UPRIGHT = rf"\\text\{{[^{{}}]*\}}{_EXPONENT}"
_QUOTIENT = rf"\\frac\{{\s*{_UPRIGHT}\s*\}}\{{\s*{_UPRIGHT}\s*\}}"
_DEGREES = r"\^\\circ\s*(?:\\text\{[CFK]\}|[CFK])?"
_END_UNIT = re.compile(rf"(?:\s|\\cdot(?![a-zA-Z])|/|-)*(?:{_UPRIGHT}|{_QUOTIENT}|{_DEGREES})$")
_WORDS_OF_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_RAISED = r"\.?(?:\^(?:\d|\{\d\}))?"
_PLAIN_UNIT = re.compile(
    rf"(?P<space>\s*)(?:/\s*)?(?P<words>(?<![\\A-Za-z])(?:[A-Za-z]{{2,}}|[mgJLNVW](?=/)){_RAISED}(?:(?:\s+|\s*[/-]\s*)[A-Za-z]+{_RAISED})*)$"
)
_CHINESE = re.compile(r"(?<=[\d})])\s*(?:\\text\{\s*)?(?P<words>[\u3400-\u9fff]+(?:/[\u3400-\u9fff]+)?)(?:\s*\})?$")
_CHINESE_NOT = re.compile("[零〇一二三四五六七八九十百千万萬亿億半或且和与與及至到余負负]|分之|以上|以下|左右")
_MULTIPLIER = re.compile(
    rf"(?<=[\d}})])\s*(?:\\text\{{[\s(-]*(?P<text>{'|'.join(MULTIPLIERS)})s?(?![a-zA-Z])[\s)]*(?P<more>[^{{}}]*)\}}"
    rf"|-?(?P<plain>{'|'.join(MULTIPLIERS)})s?(?![a-zA-Z]))",
    re.IGNORECASE,
)
_POWER_IN_WORDS = re.compile(
    r"(?:(?<=meters)|(?<=metres)|(?<=feet)|(?<=inches)|(?<=yards)|(?<=miles)|(?<=units)|(?<=[ck]m)|(?<=mm)|(?<=ft)"
    r"|(?<=second)|(?<=seconds))\s+(?:squared|cubed)(?![a-z])"
)
_VARIABLES = re.compile(r"(?<![\\A-Za-z])(?!pi)[A-Za-z]")
_INITIALS = re.compile(r"[A-Za-z](?:\.[A-Za-z])+")  # p.m.
_TIME = re.compile(r"(?P<hours>[01]?\d|2[0-4])\s*:\s*(?P<minutes>[0-5]\d)")
_MERIDIEM = re.compile(r"(?:\\text\{\s*)?(?P<half>[ap])\.?\s?m\.?\s*\}?$", re.IGNORECASE)


def with_multipliers(text: str) -> str:
    r"""Rewrite 5 million and 5\text{ million} as 5 \times 10^{6}; what follows (dollars) is kept."""
    for _ in range(2):  # a hundred thousand
        if not (found := _MULTIPLIER.search(text)):
            break
        more = (found["more"] or "").strip()
        factor = rf" \times {MULTIPLIERS[(found['text'] or found['plain']).lower()]}"
        text = text[: found.start()] + factor + (rf"\text{{{more}}}" if more else "") + text[found.end() :]
    return text


def without_unit(text: str) -> str | None:
    """The value before the unit at the end of a tidy text; None if there is no unit, or nothing before it."""
    value = text
    while (shorter := _shorter(value)) is not None:
        value = shorter
    return value if value != text else None


def without_units(gold: str, answer: str) -> tuple[str | None, str | None]:
    r"""`without_unit` of both. But if their texts differ, an unknown unit is kept after a value that has letters
    (n\text{ prime}), and two unknown ones are kept after brackets ((1, 2)\text{ maximum}, \text{ minimum})."""
    values = without_unit(gold), without_unit(answer)
    g, a = (_unit(text, value) for text, value in zip((gold, answer), values, strict=True))
    if g == a:
        return values
    both_unknown = not _is_known(g) and not _is_known(a)
    kept = [
        None
        if value
        and not _is_known(unit)
        and (_has_letters(value) or (both_unknown and value.endswith((")", "]", r"\}"))))
        else value
        for value, unit in zip(values, (g, a), strict=True)
    ]
    return kept[0], kept[1]


def _unit(text: str, value: str | None) -> str:
    return (
        "" if value is None else " ".join(re.findall(r"[^\W\d_]+", text[len(value) :].replace("\\text", " "))).lower()
    )


def _is_known(unit: str) -> bool:
    known = {word.lower() for word in ABBREVIATIONS | SHORT_NOUNS | MEASURES | UNIT_LETTERS}
    return all(word in known or word in ("circ", "cdot", "frac", "u") for word in unit.split())


def _has_letters(value: str) -> bool:
    return bool(re.search(r"[A-Za-z]", re.sub(r"\\(?:[a-zA-Z]+)", "", value)))


def same_time(gold: str, answer: str) -> bool | None:
    """Whether two times of day are the same; False if one has a.m. or p.m. and either is not a time; else None.

    a.m. or p.m. is only compared if both have it.
    """
    (g, g_half), (a, a_half) = _half_of_day(gold), _half_of_day(answer)
    g_time, a_time = _TIME.fullmatch(g), _TIME.fullmatch(a)
    if not g_time or not a_time:
        return False if g_half or a_half else None
    if g_half and a_half and g_half != a_half:
        return False
    return [int(part) for part in g_time.groups()] == [int(part) for part in a_time.groups()]


def _half_of_day(text: str) -> tuple[str, str]:
    """A time of day without its a.m. or p.m., and which of the two it had: "a", "p" or ""."""
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
    text = _POWER_IN_WORDS.sub("", text)
    found = re.findall(r"[^\s/·*^(),.\d{}-]+(?:\.[a-zA-Z])*", text)
    if not found or re.search(r"[=<>+|\\]|(?<![\^a-zA-Z{-])\d", text):
        return False
    if any(is_no_unit(word) and not (len(word) == 1 and word in UNIT_LETTERS) for word in found):
        return False
    if any(_INITIALS.fullmatch(word) for word in found):
        return False
    return all(len(word) > 1 or word in UNIT_LETTERS or len(found) > 1 for word in found)


def _are_words(text: str, space: bool) -> bool:
    """True if plain letters are words rather than a product of variables."""
    bare = re.sub(r"\^(?:\d|\{\d\})|\.", "", _POWER_IN_WORDS.sub("", text))
    if not space and re.search("sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi", bare.lower()):
        return False
    pieces = re.split(r"\s+|\s*[/-]\s*", bare)
    if any(is_no_unit(piece) and not (piece in UNIT_LETTERS and "/" in text) for piece in pieces):
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
    """True for four or more letters with a vowel, unless they are in alphabetical order like variables (abcd, mnop)."""
    letters = piece.lower()
    if len(letters) < 4 or not letters.isalpha() or not re.search("[aeiouy]", letters):
        return False
    rises = all(one < other for one, other in itertools.pairwise(letters)) or len(set(letters)) < 3
    return not rises and not set(letters) <= set("xyzwuvtr")
