"""Scorers: one per data source, and scoring of many responses at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from sspo_verl.tools.evaluate.problems import Problem


@dataclass(frozen=True)
class Score:
    correct: bool
    answer: str | None
    status: str  # "ok", "no_answer", "timeout" or "failed"


def _exact_last_line(output: str, gold: str) -> Score:
    """The quickstart's rule: the last line is `#### n`."""
    from sspo_verl.tools.tasks.arithmetic import final_line, is_solved

    last = output.rstrip().split("\n")[-1]
    answer = last.removeprefix(final_line("")) if last.startswith(final_line("")) else None
    return Score(is_solved(output, gold), answer, "no_answer" if answer is None else "ok")


# {data_source: scorer of one response}. All others go to the judge of sspo_verl.reward: math-verify.
OTHERS: dict[str, Callable[[str, str], Score]] = {"sums": _exact_last_line}


class Scorers:
    """Context manager that scores responses; starts the judge's processes when the first response needs them.

    answer: where a response's answer is, see `sspo_verl.reward.formats`.
    """

    def __init__(self, answer: str = "boxed") -> None:
        self._answer = answer
        self._stack = ExitStack()
        self._judge: Any = None

    def __enter__(self) -> Scorers:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def score(self, responses: Sequence[tuple[Problem, str]]) -> list[Score]:
        """Scores of (problem, output) pairs, in order."""
        scores = {
            number: scorer(output, problem.gold)
            for number, (problem, output) in enumerate(responses)
            if (scorer := OTHERS.get(problem.data_source))
        }
        rest = [number for number in range(len(responses)) if number not in scores]
        if rest:
            pairs = [(responses[number][1], responses[number][0].gold) for number in rest]
            verdicts = self._get_judge().check_all(pairs)
            for number, verdict in zip(rest, verdicts, strict=True):
                scores[number] = Score(verdict.correct, verdict.answer, verdict.status)
        return [scores[number] for number in range(len(responses))]

    def _get_judge(self) -> Any:
        if self._judge is None:
            from sspo_verl.reward.judge import Judge

            self._judge = self._stack.enter_context(Judge(answer=self._answer))
        return self._judge
