r"""Capital and small letters. They are one variable (ABC is abc), unless a text has the same letter as both.

\pi(R^2 - r^2) is not 0: where the ground truth or the answer has a letter in both cases, the capital one gets another
name in both texts, a capital letter that neither of them has.
"""

from __future__ import annotations

import re

from sspo_verl.reward.units import is_word

_NEVER = frozenset("EIDOTCPN")  # they mean something, or look as if they did
_TOKEN = re.compile(
    r"\\(?:text|operatorname|mathbb|begin|end)\s*\{[^{}]*\}|\^\\circ\s*[CFK]|\\[A-Za-z]+|(?P<letters>[A-Za-z]+)"
)


def with_capitals_apart(gold: str, answer: str) -> tuple[str, str]:
    """Both texts, tidy ones, with other names for the capital letters that one of them has as small ones, too."""
    letters = [_letters(text) for text in (gold, answer)]
    both = sorted({letter for found in letters for letter in found if letter.isupper() and letter.lower() in found})
    if not both:
        return gold, answer
    taken = {letter.upper() for letter in letters[0] | letters[1]} | _NEVER
    free = [letter for letter in "QWZYUXVHJKGSLMFBARC" if letter not in taken]
    names: dict[str, str] = dict(zip(both, free, strict=False))

    def renamed(found: re.Match) -> str:
        text: str = found.group()
        return text.translate(str.maketrans(names)) if _are_variables(found["letters"] or "") else text

    return _TOKEN.sub(renamed, gold), _TOKEN.sub(renamed, answer)


def _letters(text: str) -> set[str]:
    runs = [found["letters"] or "" for found in _TOKEN.finditer(text)]
    return set("".join(filter(_are_variables, runs)))


def _are_variables(letters: str) -> bool:
    return bool(letters) and not is_word(letters) and not re.fullmatch("[A-Z][aeiou][a-z]", letters)  # Bob
