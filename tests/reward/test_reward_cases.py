r"""The reward on pairs of a ground truth and an answer, kind by kind: reward_cases.tsv.

Each kind is one that users of graders reported, with a root in math-verify or in this reward; the pairs are of our own
making, and of both verdicts. docs/reward.md tells the rules.

large, small    exact constants that differ a little, or relatively little
upright         \mathrm{i}, \text{ million}: what is upright is not always a unit
comma           32, 349 is two numbers
relation        x + y = 1 is not 1
ellipsis        \ldots is not nothing; `and` is not `or`
units           in words, with powers and quotients
plus-minus      in fractions
unicode         √, ², full-width digits, ...
sets            written as sets or as inequalities
formats         \boldsymbol, \color, \textnormal, ...
boxes           an empty one last, \\boxed, several
notations       0.\dot{3}, 1 1/2, \binom52, pi/2, ...
"""

from pathlib import Path

import pytest

from sspo_verl.reward.answer import boxed_answer
from sspo_verl.reward.compare import same
from sspo_verl.reward.constants import Undecided

ROWS = [
    line.split("\t")
    for line in (Path(__file__).parent / "reward_cases.tsv").read_text().splitlines()
    if not line.startswith("#")
]
KINDS = sorted({row[0] for row in ROWS})
UNWRITTEN = {"<U+200B>": "\u200b", "<U+FEFF>": "\ufeff", "<U+2009>": "\u2009", r"\n\n": "\n\n"}


def plain(text: str) -> str:
    for name, character in UNWRITTEN.items():
        text = text.replace(name, character)
    return text


def verdict(gold: str, response: str) -> str:
    answer = boxed_answer(response if "boxed" in response else f"\\boxed{{{response}}}")
    if answer is None:
        return "wrong"
    try:
        return "right" if same(answer, gold) else "wrong"
    except Undecided:  # scores 0, and is told
        return "wrong"


def test_each_kind_has_both_verdicts():
    assert len(KINDS) == 13
    for kind in KINDS:
        assert {row[1] for row in ROWS if row[0] == kind} == {"right", "wrong"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_pair_of_a_kind(kind):
    pairs = [(expected, plain(gold), plain(response)) for k, expected, gold, response in ROWS if k == kind]
    assert [pair for pair in pairs if verdict(pair[1], pair[2]) != pair[0]] == []
