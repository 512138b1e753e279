r"""Comparison without algebra: equal texts and plain numbers. Cheap, safe on any text, and without sympy."""

from __future__ import annotations

from sspo_verl.reward.numbers import agree, read_number
from sspo_verl.reward.tidy import canonical, tidy


def settle(answer: str, gold: str) -> bool | None:
    """Whether the answer is correct, if that can be decided without algebra; else None."""
    answer, gold = tidy(answer), tidy(gold)
    if answer == gold or canonical(answer) == canonical(gold):
        return True
    one, other = read_number(answer), read_number(gold)
    return None if one is None or other is None else agree(one, other)
