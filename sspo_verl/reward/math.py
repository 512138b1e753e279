"""Reward function for mathematics, for verl: 1 if a response's answer equals the ground truth, else 0.

    reward.custom_reward_function.path=pkg://sspo_verl.reward.math reward.custom_reward_function.name=compute_score

Safe wherever verl calls it: threads, async Ray actors, several at once. docs/reward.md has the rules.
"""

from __future__ import annotations

from sspo_verl.extras import require

# Raises when verl loads this module, before any training; and before the next imports need the extra.
require("math", "sspo_verl.reward.math")

from sspo_verl.reward.judge import SECONDS, Judge  # noqa: E402
from sspo_verl.reward.judges import Judges, result  # noqa: E402
from sspo_verl.reward.notes import Notes  # noqa: E402

_judges = Judges(Judge)
_notes = Notes()
close = _judges.close


def compute_score(
    data_source: str,
    solution_str: str | None,
    ground_truth: str,
    extra_info: dict | None = None,
    *,
    workers: int | None = None,
    seconds: float = SECONDS,
    answer: str = "boxed",
    reward_router_address: str | None = None,
    reward_model_tokenizer: object = None,
) -> dict[str, float]:
    """Score one response. Called by verl with keyword arguments. Does not raise on any response or ground truth.

    workers, seconds, answer: see Judge; set by reward.custom_reward_function.reward_kwargs. verl passes the last two to
    every reward function if there is also a reward model; they are not used here.

    Returns score and acc: 1.0 or 0.0. boxed: 1.0 if the response has an answer, boxed or in the format `answer`.
    timeout, failed: 1.0 if the check timed out or failed in another way, and therefore scored 0. Always has these keys.
    """
    verdict = _judges.get(workers=workers, seconds=seconds, answer=answer).check(solution_str, ground_truth)
    _notes.take(verdict, data_source, ground_truth, solution_str, answer)
    return result(verdict, float(verdict.correct))
