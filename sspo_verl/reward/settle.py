r"""Comparison without algebra: the same text, and plain numbers. Cheap, safe on any text, and without sympy."""

from __future__ import annotations

from sspo_verl.reward.numbers import agree, read_number
from sspo_verl.reward.tidy import canonical, tidy


def settle(answer: str, gold: str) -> bool | None:
    """Right or wrong where that needs no algebra; None where it does."""
    answer, gold = tidy(answer), tidy(gold)
    if answer == gold or canonical(answer) == canonical(gold):
        return True
    one, other = read_number(answer), read_number(gold)
    return None if one is None or other is None else agree(one, other)
