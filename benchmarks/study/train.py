"""Experiment: a complete training, with several updates on each batch and a sampler that lags behind."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from statistics import fmean

import torch

from benchmarks.study.losses import Algorithm
from benchmarks.study.policy import new_policy
from benchmarks.study.rollout import collect, kl, measure, micro_batch_of
from benchmarks.study.tasks import TASKS
from benchmarks.study.update import check_updates, new_optimizer, one_pass


@dataclass(frozen=True)
class Train:
    """A training on `steps` batches with `updates` updates each. staleness: steps by which the sampler's weights lag;
    old_log_prob is the sampler's, so that the ratio includes the lag."""

    task: str
    algorithm: Algorithm
    updates: int
    learning_rate: float
    seed: int
    staleness: int = 0
    steps: int = 30
    prompts: int = 16
    group: int = 8
    every: int = 5  # steps between evaluations
    held_out: int = 256

    def __post_init__(self):
        check_updates(self.updates, self.prompts)
        if self.steps % self.every:
            raise ValueError(f"every ({self.every}) must divide steps ({self.steps}): the last step is evaluated.")

    def run(self) -> dict:
        """Run the training. The result's lists have a value per step, except `accuracy` and `entropy`: before the first
        step, and then after every `every` steps."""
        task, net = TASKS[self.task], new_policy(self.task)
        optimizer = new_optimizer(net, self.learning_rate)
        rng, generator = random.Random(self.seed), torch.Generator().manual_seed(2_000_000 + self.seed)
        micro = micro_batch_of(self.prompts * self.group // self.updates)
        lagging = deque([net.weights_copy()], maxlen=self.staleness + 1)
        steps, evaluations = [], [measure(net, task, self.seed, self.held_out)]
        for step in range(1, self.steps + 1):
            batch = collect(new_policy(self.task, lagging[0]), task, rng, generator, self.prompts, self.group, micro)
            counts = one_pass(net, optimizer, self.algorithm, batch, self.updates)
            shares = counts.shares()
            steps.append({"reward": float(batch.rewards.mean()), "kl": kl(net, batch)} | {n: shares[n] for n in KEPT})
            lagging.append(net.weights_copy())
            if step % self.every == 0:
                evaluations.append(measure(net, task, self.seed, self.held_out))
        curves = {name: [found[name] for found in steps] for name in steps[0]}
        curves |= {name: [getattr(found, name) for found in evaluations] for name in ("accuracy", "entropy", "length")}
        return summary(curves["accuracy"]) | {"reward": fmean(curves["reward"]), "curves": curves}


KEPT = ("with_gradient", "clipped_high", "clipped_low")
FAR_BELOW = 0.2  # of the best accuracy


def summary(accuracy: list[float]) -> dict[str, float]:
    """Summary of an accuracy curve. final; area: mean of the trapezoids under the curve; collapsed: 1 if it ends below
    its start, or far below its best."""
    area = (sum(accuracy) - (accuracy[0] + accuracy[-1]) / 2) / (len(accuracy) - 1)
    collapsed = accuracy[-1] < accuracy[0] or accuracy[-1] < max(accuracy) - FAR_BELOW
    return {"final": accuracy[-1], "area": area, "collapsed": float(collapsed)}
