"""Metrics `sspo/reward/*` on verl's driver: responses without an answer, time-outs and failed checks.

verl 0.9.1 averages the extra keys of a reward's result only in validation (val-aux/*). In training it keeps them with
each response (extra_fields.reward_extra_info), where they are counted here.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

from sspo_verl.log import say_once
from sspo_verl.metrics.names import PREFIX
from sspo_verl.plugin.require import require
from sspo_verl.plugin.responses import response_of

# {metric: (the reward's key, its value for a response that counts)}
COUNTED = {"no_answer_frac": ("boxed", 0.0), "timeout_frac": ("timeout", 1.0), "failed_frac": ("failed", 1.0)}
ALMOST_ALL = 0.95


def wrap_compute_metrics(trainer_base) -> None:
    """Patch verl.trainer.ppo.v1.trainer_base: `_compute_metrics` also counts these, if the reward is ours."""
    trainer = trainer_base.PPOTrainer
    compute_metrics = require(trainer, "_compute_metrics", ("batch", "metrics", "global_steps"))

    @functools.wraps(compute_metrics)
    def compute_metrics_and_count(self, batch, metrics, *args, **kwargs):
        result = compute_metrics(self, batch, metrics, *args, **kwargs)
        if _reward_is_ours(self.config):
            data = trainer_base.tq.kv_batch_get(
                keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_fields"]
            )
            fields = data.pop("extra_fields", None)
            found = shares(batch.keys, batch.tags, [] if fields is None else fields.tolist())
            metrics.update(found)
            _warn(found)
        return result

    trainer._compute_metrics = compute_metrics_and_count


def _reward_is_ours(config) -> bool:
    from sspo_verl.reward.settings import is_ours

    return is_ours((config.reward.get("custom_reward_function") or {}).get("path"))


def shares(keys: Iterable[str], tags: Iterable[Mapping], fields: Iterable[object]) -> dict[str, float]:
    """{metric: share of the responses}. A metric whose key no response has is left out.

    keys, tags, fields: of a batch's rows, as verl stores them. Rows that only pad the batch do not count; of a session
    with several outputs, which all have its reward, the last one counts.
    """
    infos: dict[str, Mapping] = {}
    for key, tag, field in zip(keys, tags, fields, strict=False):
        info = field.get("reward_extra_info") if isinstance(field, Mapping) else None
        if info and not tag.get("is_padding", False):
            infos[response_of(key)] = info
    found = {}
    for name, (of, counts) in COUNTED.items():
        values = [info[of] for info in infos.values() if info.get(of) is not None]
        if values:
            found[f"{PREFIX}reward/{name}"] = sum(value == counts for value in values) / len(values)
    return found


def _warn(found: dict[str, float]) -> None:
    share = found.get(f"{PREFIX}reward/no_answer_frac", 0.0)
    if share >= ALMOST_ALL:
        say_once(
            "WARNING. Hardly any response has an answer that the reward can read, so nothing can be learned: "
            f"{PREFIX}reward/no_answer_frac is 0.95 or more. The prompt must ask for \\boxed{{}} (for "
            "sspo_verl.reward.reasoning_gym: <answer></answer>), or set "
            "reward.custom_reward_function.reward_kwargs.answer (docs/reward.md). The reward shows examples in this "
            "log after its first hundred checks."
        )
