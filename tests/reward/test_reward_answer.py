r"""Which part of a response is its answer: the last \boxed{...} that closes."""

import time

import pytest

from sspo_verl.reward.answer import boxed_answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"so it is \boxed{42}.", "42"),
        (r"\boxed{1} or rather \boxed{2}, I think \frac{3}{4}", "2"),
        (r"\boxed{1} and then \boxed{2", "1"),
        (r"\boxed{ \boxed{1} ", "1"),
        (r"\boxed{\frac{1}{2}}}}", r"\frac{1}{2}"),
        (r"\boxed{\left\{1, 2\right\}}", r"\left\{1, 2\right\}"),
        (r"\boxed{a \\}", r"a \\"),
        ("\\boxed {\n 7 }", "7"),
        (r"\boxed{\boxed{3}} \boxed{ \boxed{ \boxed{4} } }", "4"),
        (r"\boxed{x = \boxed{5}}", r"x = \boxed{5}"),
        (r"{ } } \boxed{8}", "8"),
        ("the answer is 42", None),
        (r"\boxed 5", None),
        (r"\boxed{1} \boxed{ }", "1"),
        (r"\boxed{} or \boxed{ }", None),
        (r"\\boxed{\\frac{1}{2}}", r"\frac{1}{2}"),
        (r"x \\\boxed{3}", "3"),
        (r"\boxed{1}, \boxed{2} and \boxed{3}", r"1, 2 \text{ and } 3"),
        (r"$\boxed{1}$ \text{or} \[\boxed{2}\]", r"1 \text{ or } 2"),
        (r"\boxed{4}, \boxed{4}", "4"),
        (r"\boxed{1}, that is, \boxed{2}", "2"),
        (r"\boxed{1", None),
        ("", None),
        (None, None),
    ],
)
def test_the_rule(response, answer):
    assert boxed_answer(response) == answer


@pytest.mark.parametrize(
    "response",
    [
        "\\boxed{" * 150_000,
        "\\boxed{" * 150_000 + "1" + "}" * 150_000,
        "\\boxed" + "{" * 500_000 + "}" * 500_000,
        "}{" * 500_000 + "\\boxed{1}",
        "\\boxed{1}, \\boxed{2} and " * 40_000,
    ],
)
def test_a_megabyte_of_braces_takes_linear_time(response):
    start = time.process_time()
    boxed_answer(response)
    assert time.process_time() - start < 5  # 0.3 s; in quadratic time, hours
