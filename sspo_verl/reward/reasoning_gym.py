"""Reward function for reasoning-gym, for verl: the score of the task's own verifier.

    reward.custom_reward_function.path=pkg://sspo_verl.reward.reasoning_gym

For the data of `sspo data reasoning-gym`, whose rows contain their entry. Safe wherever verl calls it: threads, async
Ray actors, several at once. docs/reasoning_gym.md has the rules.
"""

from __future__ import annotations

from sspo_verl.extras import require

# Raises when verl loads this module, before any training; and before the next imports need the extra.
require("gym", "sspo_verl.reward.reasoning_gym")

from sspo_verl.reward.judge import SECONDS  # noqa: E402
from sspo_verl.reward.judges import Judges, result  # noqa: E402
from sspo_verl.reward.notes import Notes  # noqa: E402
from sspo_verl.reward.task_judge import TaskJudge, gold_of  # noqa: E402

_judges = Judges(TaskJudge)
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
    answer: str = "tag",
    partial: bool = True,
    reward_router_address: str | None = None,
    reward_model_tokenizer: object = None,
) -> dict[str, float]:
    """Score one response. Called by verl with keyword arguments. Does not raise on any response or ground truth.

    workers, seconds, answer, partial: see TaskJudge; set by reward.custom_reward_function.reward_kwargs. verl passes
    the last two to every reward function if there is also a reward model; they are not used here.

    Returns score: the verifier's, 0.0 to 1.0, or only 0.0 or 1.0 with partial=False. acc: 1.0 for a full score.
    boxed: 1.0 if the response has an answer in the format `answer`. timeout, failed: 1.0 if the verifier timed out or
    failed in another way, and the response therefore scored 0. Always has these keys.
    """
    judge = _judges.get(workers=workers, seconds=seconds, answer=answer, partial=partial)
    try:
        gold: object = gold_of(ground_truth, extra_info)
    except ValueError as error:
        gold = error
    verdict = judge.check(solution_str, gold)  # pyright: ignore[reportArgumentType]
    _notes.take(verdict, data_source, ground_truth, solution_str, answer)
    return result(verdict, judge.score(verdict))
