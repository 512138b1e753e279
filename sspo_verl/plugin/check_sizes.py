"""Checks that the batch sizes are compatible; verl only fails after the first rollout, and names no key."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sspo_verl.plugin.check_numbers import REF
from sspo_verl.plugin.run_settings import ACTOR, FSDP, ROLLOUT, Run


def sizes_fit(run: Run) -> str | None:
    """Error if a batch cannot be divided into equal micro-batches on each rank, or None.

    Follows verl's V1 trainer (from reading 0.9.1): a batch has train_batch_size x n responses, padded to a multiple of
    the mini-batch and of the ranks. With dynamic batch sizes there is nothing to check.
    """
    if run.trainer != "main_ppo" or run.config.trainer.v1.trainer_mode != "sync" or run.own_groups:
        return None
    if run.actor.strategy not in FSDP:
        return None
    ranks, parallel = _ranks(run), run.actor.get("ulysses_sequence_parallel_size", 1)
    if ranks % parallel:
        return (
            f"{ACTOR}.ulysses_sequence_parallel_size={parallel} does not divide the {ranks} GPUs "
            "(trainer.n_gpus_per_node x trainer.nnodes). Change one of the three."
        )
    ranks //= parallel  # data-parallel ranks
    mini = run.actor.ppo_mini_batch_size * run.n
    if mini % ranks:
        return (
            f"{ACTOR}.ppo_mini_batch_size={run.actor.ppo_mini_batch_size} x {ROLLOUT}.n={run.n} are {mini} responses, "
            f"which {ranks} ranks cannot share equally. Change one of the three."
        )
    wanted = run.config.data.train_batch_size * run.n
    multiple = math.lcm(mini, ranks)
    batch = math.ceil(wanted / multiple) * multiple
    filled = "" if batch == wanted else f", padded to {batch} (a multiple of the mini-batch and of the ranks)"
    of_batch = f"data.train_batch_size={run.config.data.train_batch_size} x {ROLLOUT}.n={run.n}{filled}"
    of_mini = f"{ACTOR}.ppo_mini_batch_size={run.actor.ppo_mini_batch_size} x {ROLLOUT}.n={run.n}"
    for key, size, total, whole in (
        *((key, size, mini, of_mini) for key, size in _training(run)),
        *((key, size, batch, of_batch) for key, size in _inference(run)),
    ):
        if (total // ranks) % size:
            return (
                f"{key}={size} does not divide the {total // ranks} responses of a rank ({whole}, on {ranks} rank(s)). "
                f"Set it to {math.gcd(total // ranks, size)}, or {ACTOR}.use_dynamic_bsz=True."
            )
    return None


def _ranks(run: Run) -> int:
    return run.config.trainer.n_gpus_per_node * run.config.trainer.nnodes


def _training(run: Run) -> Iterator[tuple[str, int]]:
    size = run.actor.get("ppo_micro_batch_size_per_gpu")
    if size and not run.actor.use_dynamic_bsz:
        yield f"{ACTOR}.ppo_micro_batch_size_per_gpu", size


def _inference(run: Run) -> Iterator[tuple[str, int]]:
    parts = []
    if not run.actor.use_dynamic_bsz and not run.bypass:  # the actor's engine computes old_log_prob
        parts.append((ROLLOUT, run.config.actor_rollout_ref.rollout))
    ref = run.config.actor_rollout_ref.ref
    has_ref = run.actor.get("use_kl_loss") or run.config.algorithm.get("use_kl_in_reward")
    if has_ref and not ref.get("log_prob_use_dynamic_bsz"):
        parts.append((REF, ref))
    for name, settings in parts:
        if size := settings.get("log_prob_micro_batch_size_per_gpu"):
            yield f"{name}.log_prob_micro_batch_size_per_gpu", size
