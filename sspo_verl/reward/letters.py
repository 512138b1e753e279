r"""Upper and lower case. Both are the same variable (ABC is abc), unless a text has one letter in both cases.

\pi(R^2 - r^2) is not 0: if the ground truth or the answer has a letter in both cases, the capital is renamed in both
texts, to a capital letter that neither of them uses.
"""

from __future__ import annotations

import re

from sspo_verl.reward.units import is_word

_NEVER = frozenset("EIDOTCPN")  # have a meaning, or look as if they had one
_TOKEN = re.compile(
    r"\\(?:text|operatorname|mathbb|begin|end)\s*\{[^{}]*\}|\^\\circ\s*[CFK]|\\[A-Za-z]+|(?P<letters>[A-Za-z]+)"
)


def with_capitals_apart(gold: str, answer: str) -> tuple[str, str]:
    """Both tidy texts, with capital letters renamed that one of them also has in lower case."""
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
