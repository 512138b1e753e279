"""Experiment: gain from one stale batch. Every algorithm gets the same responses, randomness and number of updates."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass

import torch

from benchmarks.study.losses import Algorithm
from benchmarks.study.policy import new_policy
from benchmarks.study.rollout import Batch, Measured, collect, kl, measure, micro_batch_of
from benchmarks.study.tasks import TASKS
from benchmarks.study.update import check_updates, new_optimizer, one_pass

KL_PROMPTS = 32  # prompts of the batch


@dataclass(frozen=True)
class OneBatch:
    """A batch from the starting model, `updates` updates in one pass over it, and the accuracy afterwards."""

    task: str
    algorithm: Algorithm
    updates: int
    learning_rate: float
    seed: int
    prompts: int = 64
    group: int = 8
    held_out: int = 512

    def __post_init__(self):
        check_updates(self.updates, self.prompts)

    def run(self) -> dict:
        rows = self.prompts * self.group
        micro = micro_batch_of(rows // self.updates)
        batch = first_batch(self.task, self.seed, self.prompts, self.group, micro)
        net = new_policy(self.task)
        counts = one_pass(net, new_optimizer(net, self.learning_rate), self.algorithm, batch, self.updates)
        before = measured_start(self.task, self.seed, self.held_out)
        after = measure(net, TASKS[self.task], self.seed, self.held_out)
        return {
            "gain": after.accuracy - before.accuracy,
            "accuracy": after.accuracy,
            "entropy": after.entropy,
            "length": after.length,
            "kl": kl(net, batch.part(slice(0, KL_PROMPTS * self.group))),
            "reward": float(batch.rewards.mean()),
            **counts.shares(),
        }


@functools.lru_cache(maxsize=4)
def first_batch(task: str, seed: int, prompts: int, group: int, micro: int) -> Batch:
    net = new_policy(task)
    generator = torch.Generator().manual_seed(1_000_000 + seed)
    return collect(net, TASKS[task], random.Random(seed), generator, prompts, group, micro)


@functools.lru_cache(maxsize=4)
def measured_start(task: str, seed: int, count: int) -> Measured:
    return measure(new_policy(task), TASKS[task], seed, count)
