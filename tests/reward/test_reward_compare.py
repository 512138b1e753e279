r"""Cases of equal answers: docs/reward.md's table of cases, run; and the rule for numbers."""

import re
from fractions import Fraction
from pathlib import Path

import pytest

from sspo_verl.reward.compare import NotUnderstood, same
from sspo_verl.reward.numbers import agree, read_number
from sspo_verl.reward.settle import settle

PAGE = (Path(__file__).parents[2] / "docs" / "reward.md").read_text()
CASES = re.findall(r"^\| `(.+?)` \| `(.+?)` \| (right|wrong) \| (right|wrong) \| ", PAGE, re.MULTILINE)

FAULTS = re.findall(
    r"^Ground truth `(.+?)`, answer `(.+?)`: (right|wrong), and should be (right|wrong)\.$", PAGE, re.MULTILINE
)


def test_the_table_is_there():
    assert len(CASES) >= 30
    assert {case[3] for case in CASES} == {"right", "wrong"}


@pytest.mark.parametrize(("gold", "answer", "_", "expected"), CASES)
def test_the_table_of_the_page_is_true_of_this_reward(gold, answer, _, expected):
    assert same(answer, gold) is (expected == "right")


@pytest.mark.parametrize(("gold", "answer", "expected", "_"), CASES)
def test_the_table_of_the_page_is_true_of_math_verify(gold, answer, expected, _):
    """The page's verdicts of math-verify: a newer one may no longer need our help."""
    from math_verify import LatexExtractionConfig, parse, verify

    golds, answers = (parse(f"\\boxed{{{text}}}", (LatexExtractionConfig(),)) for text in (gold, answer))
    assert verify(golds, answers) is (expected == "right")


def test_the_faults_told_of_math_verify_are_its_own():
    """And what the page says of each is what this reward does: a newer math-verify may need fewer of our rules."""
    from math_verify import LatexExtractionConfig, parse, verify

    assert len(FAULTS) > 20
    for gold, answer, there, here in FAULTS:
        golds, answers = (parse(f"\\boxed{{{text}}}", (LatexExtractionConfig(),)) for text in (gold, answer))
        assert (verify(golds, answers), same(answer, gold)) == (there == "right", here == "right"), (gold, answer)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", Fraction(42)),
        ("-1,234.50", Fraction(-12345, 10)),
        (r"1{,}000", Fraction(1000)),
        (r"10,\!000", Fraction(10000)),
        (r"1\,000", Fraction(1000)),
        (".5", Fraction(1, 2)),
        ("3.", Fraction(3)),
        (r"-\dfrac{1}{2}", Fraction(-1, 2)),
        ("3 / 4", Fraction(3, 4)),
        (r"8.7 \times 10^{-2}", Fraction(87, 1000)),
        ("8.7E+2", Fraction(870)),
        ("\u22125", Fraction(-5)),
        ("1 1/2", Fraction(3, 2)),
        (r"-2\frac{1}{4}", Fraction(-9, 4)),
        ("32, 349", None),
        (r"11,\! 111", Fraction(11111)),
        ("1 000", None),
        ("1,00", None),
        ("1/0", None),
        ("1e999", None),
        ("9" * 300, None),
        ("٣", None),
        ("x", None),
        ("", None),
    ],
)
def test_numbers_are_read_exactly(text, value):
    number = read_number(text)
    assert (number and number.value) == value


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("1/3", "2/6", True),
        ("1/3", "0.3333", True),  # four significant digits, rounded
        ("1/3", "0.333", False),
        ("2/3", "0.6666", False),  # cut off, not rounded
        ("1/1024", "0.0009766", True),
        ("2000", "1999.9996", False),  # of an integer there is no rounding
        ("0.33", "1/3", False),
        ("1.0000004", "1", True),  # six decimals
        ("1.0000006", "1", False),
        ("0.0000001", "0.0000002", False),  # and relatively
        ("1e-30", "1e-31", False),
        ("12345678.1", "12345678.2", False),
    ],
)
def test_the_rule_for_numbers_is_symmetric(a, b, expected):
    one, other = read_number(a), read_number(b)
    assert one is not None
    assert other is not None
    assert agree(one, other) is agree(other, one) is expected


def test_what_needs_algebra_is_not_settled_without():
    assert settle(r"$\dfrac{x}{2}$.", r"\frac{x}{2}") is True
    assert settle("2", "3") is False
    assert settle("x+1", "1+x") is None


@pytest.mark.parametrize("gold", ["90{square", "{" * 9, "}", "a}{b"])
def test_a_ground_truth_that_cannot_be_read_is_told(gold):
    with pytest.raises(NotUnderstood, match="ground truth"):
        same("5", gold)
