"""Each data source goes to its scorer, in order, whatever the mix."""

import pytest

from sspo_verl.tools.evaluate.problems import Problem
from sspo_verl.tools.evaluate.scorers import Score, Scorers


def problem(source: str, gold: str) -> Problem:
    return Problem("set", 0, source, [{"role": "user", "content": "?"}], gold, None)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("ok\n#### 25", Score(True, "25", "ok")),
        ("ok\n#### 25\n\n", Score(True, "25", "ok")),
        ("#### 24", Score(False, "24", "ok")),
        ("#### 25.0", Score(False, "25.0", "ok")),  # the quickstart's rule is exact
        ("#### 25\nso", Score(False, None, "no_answer")),
        ("\\boxed{25}", Score(False, None, "no_answer")),
        ("", Score(False, None, "no_answer")),
    ],
)
def test_the_quickstarts_sums(output, expected):
    with Scorers() as scorers:
        assert scorers.score([(problem("sums", "25"), output)]) == [expected]
        assert scorers._judge is None, "sums need no judge"


def test_all_others_go_to_the_judge_in_order():
    responses = [
        (problem("math500", "\\frac{1}{2}"), "so it is \\boxed{0.5}"),
        (problem("sums", "25"), "#### 25"),
        (problem("gsm8k", "18"), "#### 18"),
        (problem("gsm8k", "18"), "\\boxed{19}"),
        (problem("a set of your own", "1,000"), "\\boxed{1000}"),
    ]
    with Scorers() as scorers:
        found = scorers.score(responses)
        assert scorers.score([]) == []
    assert [one.correct for one in found] == [True, True, False, False, True]
    assert [one.answer for one in found] == ["0.5", "25", None, "19", "1000"]
    assert [one.status for one in found] == ["ok", "ok", "no_answer", "ok", "ok"]
