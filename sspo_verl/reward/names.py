r"""Distinguishes equations that name a value, and count as their right-hand side, from relations.

x = 5, f(x) = 2x, AB^2 = 5, a_{10} = 3, \text{Area} = 7, P(X = 3) = 1/4, |AB| = 2, \angle ABC = 60, (x, y) = (1, 2),
A : B = 2 : 3 name a value. x + y = 1, x^2 = 4, xy = 6 and x/y = 2 are relations between variables, not equivalent to
their right-hand sides. Neither are AB = AC and x = y, with two names, and a_{n+1} = 2a_n, where the name recurs.
"""

from __future__ import annotations

import re

from sspo_verl.reward.units import is_word

_LETTER = (
    r"(?:[A-Za-z]|\\(?!frac|sqrt|pm|mp|pi|sum|int|left|text|bar|hat|vec|tilde|overline|overrightarrow|mathcal|mathbb)[a-zA-Z]+"
    r"|\\(?:text|bar|hat|vec|tilde|overline|overrightarrow|mathcal|mathbb)\s*\{[^{}]*\})"
)
_MARKS = (
    r"(?:\s*_\s*(?:\{[^{}]*\}|\w|\\[a-zA-Z]+))?"
    r"(?:\s*'+|\s*\^\s*(?:\*|\\prime|\{\s*(?:(?:\\prime\s*)+|\*|-1|\(\w\))\s*\}))?"
)
# Lengths, angles, areas: AB, A_1B_1, ABCD.
_CAPITALS = r"[A-Z](?:_\w|_\{\w+\}|')?(?:\s*[A-Z](?:_\w|_\{\w+\}|')?){0,3}"
_TWO_CAPITALS = r"[A-Z](?:_\w|_\{\w+\}|')?(?:\s*[A-Z](?:_\w|_\{\w+\}|')?){1,3}"
_ONE = rf"(?:{_CAPITALS}|{_LETTER}{_MARKS})"
_ARGUMENTS = r"\s*(?:\([^()]*\)|\[[^\[\]]*\])"
_FUNCTION = rf"\\(?:sin|cos|tan|cot|sec|csc|log|ln|det|angle|triangle|operatorname\{{\w+\}}){_MARKS}"
_FORMS = (
    rf"{_ONE}(?:{_ARGUMENTS})?",
    rf"{_FUNCTION}\s*\(?\s*(?:\\angle\s*)?{_ONE}\s*\)?",
    rf"m\s*\\angle\s*{_CAPITALS}",
    rf"\|\s*{_ONE}\s*\|",
    rf"\(\s*{_ONE}(?:\s*,\s*{_ONE}){{1,9}}\s*\)",
    rf"{_ONE}(?:{_ARGUMENTS})?(?:\s*:\s*{_ONE}(?:{_ARGUMENTS})?){{1,4}}",
    rf"\\frac\{{\s*{_CAPITALS}\s*\}}\{{\s*{_CAPITALS}\s*\}}|{_CAPITALS}\s*/\s*{_CAPITALS}",
    rf"{_TWO_CAPITALS}\s*\^\s*(?:2|\{{\s*2\s*\}})",
    r"\\frac\{\s*d\s*[A-Za-z]?\s*\}\{\s*d\s*[A-Za-z]\s*\}",
    r"\\(?:max|min|gcd|lcm)(?:\s*_\s*(?:\{[^{}]*\}|\w))?(?:\s*[\w(|][^=]*)?",
)
_OF_ONE = re.compile(rf"\s*{_FUNCTION}.*")
_NAME = re.compile(rf"\s*(?:{'|'.join(_FORMS)})\s*")
LONGEST = 100  # characters


def is_name(text: str) -> bool:
    if len(text) > LONGEST:
        return False
    return bool(_NAME.fullmatch(text)) or all(is_word(word) for word in text.split() or [""])


# Values that are written like names.
_CONSTANT = re.compile(r"\s*(?:[ei]|\\(?:emptyset|infty|varphi|phi)|\\mathbb\s*\{[RZNQC]\}|\\text\s*\{[^{}]*\})\s*")
_APPLIED = re.compile(
    r"(?P<head>[A-Za-z]|\\[A-Za-z]+)\s*(?:_\s*(?:\{(?P<index>[^{}]*)\}|(?P<short>\w))|\((?P<argument>[^()]*)\))"
)


def names_no_value(name: str, value: str) -> bool:
    r"""True if an equation does not give the name's value: its other side is a bare name, or contains the name."""
    found = _APPLIED.fullmatch(name.strip())
    if is_name(value) and not _CONSTANT.fullmatch(value) and not _is_word_of_text(name):
        return found is None or not _arguments(found) & set(re.findall("[A-Za-z]", value))
    if found:
        return any(
            again["head"] == found["head"] and _arguments(again) and _arguments(found)
            for again in _APPLIED.finditer(value)
        )
    letter = name.strip()
    bare = re.search(rf"(?<![A-Za-z\\]){re.escape(letter)}(?![A-Za-z_(])", re.sub(r"\\text\{[^{}]*\}", "", value))
    return bool(re.fullmatch(r"[A-Za-z]+|\\[A-Za-z]+", letter) and bare)


def _arguments(found: re.Match) -> set[str]:
    """The letters that a name is applied to: n in a_{n+1}."""
    return set(re.findall("[A-Za-z]", found["index"] or found["short"] or found["argument"] or ""))


def _is_word_of_text(name: str) -> bool:
    return bool(re.search(r"[A-Za-z]{3}|\\text", re.sub(r"\\(?!text)[A-Za-z]+", "", name)))


def is_function(text: str) -> bool:
    r"""True for \sin A, which names a value, but is a relation for A if the other side also has variables."""
    return bool(_OF_ONE.fullmatch(text)) and not re.match(r"\s*\\(?:angle|triangle)", text)
