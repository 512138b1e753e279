"""TaskJudge: scores a response's answer with the verifier of its reasoning-gym task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sspo_verl.reward.entries import from_json, to_json
from sspo_verl.reward.judge import LONGEST, SECONDS, Judge, Verdict

# Limit in bytes of an entry. It is sent to a worker through a socket, whose buffer is larger.
LONGEST_ENTRY = 100_000
_NAMES = ("task", "config", "question", "metadata")  # of extra_info


class TaskJudge(Judge):
    """A Judge, with the same limits, whose check is the task's verifier; the result is in Verdict.score."""

    COMPARISON = "sspo_verl.reward.task_verifier"

    def __init__(self, workers: int | None = None, seconds: float = SECONDS, answer: str = "tag", partial: bool = True):
        """partial: whether scores between 0 and 1 count; otherwise only a full score does."""
        super().__init__(workers, seconds, answer)
        if not isinstance(partial, bool):
            raise ValueError(f"partial={partial!r}: give true or false")
        self.partial = partial

    def _check(self, answer: str | None, gold: Any) -> Verdict:
        """gold: what `gold_of` returns, or the ValueError it raises."""
        if not isinstance(gold, str):
            return Verdict(False, answer, "failed", str(gold))
        if answer is None:
            return Verdict(False, None, "no_answer", f"nothing of the kind: {self._format.asked}")
        if len(answer) > LONGEST:
            return Verdict(False, answer, "failed", f"longer than {LONGEST} characters: not verified")
        return self._ask(answer, gold)

    def score(self, verdict: Verdict) -> float:
        return float(verdict.correct) if verdict.score is None or not self.partial else verdict.score


def gold_of(ground_truth: object, extra_info: object) -> str:
    """The entry that `sspo data reasoning-gym` put into a row, in the form its verifier needs.

    Raises ValueError if the row does not contain one.
    """
    if not isinstance(extra_info, Mapping):
        raise ValueError("the row has no extra_info: its data are not those of `sspo data reasoning-gym`")
    if missing := [name for name in _NAMES if not isinstance(extra_info.get(name), str)]:
        raise ValueError(
            f"extra_info has no {' and no '.join(missing)}: its data are not those of `sspo data reasoning-gym`"
        )
    task, config, question, metadata = (str(extra_info[name]) for name in _NAMES)
    if not isinstance(ground_truth, str):
        raise ValueError(f"the ground truth is {ground_truth!r:.100}, not the text of an answer")
    try:
        # A task with many correct answers may not store one.
        entry = {"question": question, "answer": ground_truth or None, "metadata": from_json(metadata)}
    except ValueError as error:
        raise ValueError(f"extra_info.metadata is not JSON: {error}") from error
    gold = to_json([task, config, entry])
    if len(gold.encode(errors="surrogatepass")) > LONGEST_ENTRY:
        raise ValueError(f"the entry has more than {LONGEST_ENTRY:,} bytes")
    return gold
