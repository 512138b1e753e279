"""Batches of responses: sampled, scored, and given old_log_prob by a second pass of the sampling policy, as in verl."""

from __future__ import annotations

import random
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.study.losses import Algorithm, Tokens
from benchmarks.study.model import Samples
from benchmarks.study.policy import Policy
from benchmarks.study.tasks import Task
from benchmarks.study.text import Text
from sspo_verl.advantage import group_advantage

LARGEST_MICRO_BATCH = 32  # responses


class Batch(NamedTuple):
    """Responses grouped by prompt: those to one prompt are adjacent. [rows, length], advantages and rewards [rows]."""

    prompts: Tensor
    responses: Tensor
    mask: Tensor
    old_log_prob: Tensor
    entropy: Tensor
    advantages: Tensor
    rewards: Tensor
    text: Text

    def part(self, rows: slice) -> Batch:
        """Some rows, without the columns that are masked in all of them."""
        length = int(self.mask[rows].sum(1).max())
        cut = {name: getattr(self, name)[rows] for name in ("prompts", "advantages", "rewards")}
        return self._replace(**cut, **{name: getattr(self, name)[rows, :length] for name in BY_TOKEN})

    def tokens(self, algorithm: Algorithm) -> Tokens:
        segments = algorithm.segment(self.responses, self.mask, self.text)
        advantages = self.advantages[:, None].expand_as(self.old_log_prob)
        return Tokens(self.old_log_prob, advantages, self.mask, segments, self.entropy)


BY_TOKEN = ("responses", "mask", "old_log_prob", "entropy")


class Measured(NamedTuple):
    """Measurements of a policy on held-out problems, sampled at temperature 1."""

    accuracy: float
    entropy: float  # mean over tokens, in nats
    length: float  # tokens per response


def slices(rows: int, size: int) -> list[slice]:
    return [slice(begin, min(begin + size, rows)) for begin in range(0, rows, size)]


def micro_batch_of(update_rows: int) -> int:
    return min(update_rows, LARGEST_MICRO_BATCH)


def sample(net: Policy, task: Task, prompts: Tensor, generator: torch.Generator) -> Samples:
    uniform = torch.rand(task.limit, len(prompts), generator=generator, device=generator.device)
    return net.sample(prompts, uniform.to(prompts.device), task.text().end, task.limit)


def collect(
    net: Policy, task: Task, rng: random.Random, generator: torch.Generator, prompts: int, group: int, micro: int
) -> Batch:
    """Collect a batch of `net`'s responses to training problems.

    micro: rows per forward pass. A pass over the same rows gives bitwise identical log-probabilities, so that an update
    on unchanged weights has ratios of exactly 1.
    """
    problems = [p for p in task.problems(rng, prompts, held_out=False) for _ in range(group)]
    ids = task.encode_prompts(problems)
    found = sample(net, task, ids, generator)
    rewards = task.rewards(problems, found.tokens, found.mask)
    advantages = group_advantage(rewards, torch.arange(len(problems)) // group)
    empty = torch.zeros(found.tokens.shape)
    batch = Batch(ids, found.tokens, found.mask, empty, empty, advantages, rewards, task.text())
    old, entropy = look(net, batch, micro)
    return batch._replace(old_log_prob=old, entropy=entropy)


@torch.no_grad()
def look(net: Policy, batch: Batch, micro: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies of a policy for a batch's responses; 0 where masked."""
    log_probs, entropies = torch.zeros(batch.mask.shape), torch.zeros(batch.mask.shape)
    for rows in slices(len(batch.mask), micro):
        part = batch.part(rows)
        log_prob, table = net.log_probs(part.prompts, part.responses)
        length = log_prob.shape[1]
        log_probs[rows, :length] = log_prob * part.mask
        entropies[rows, :length] = -(table.exp() * table).sum(-1) * part.mask
    return log_probs, entropies


def kl(net: Policy, batch: Batch, micro: int = LARGEST_MICRO_BATCH) -> float:
    """Estimate of KL(old || net) per token, in nats, on old's responses: the mean of r - 1 - log r for the ratio r."""
    log_ratio = (look(net, batch, micro)[0] - batch.old_log_prob)[batch.mask].double()
    return float((log_ratio.exp() - 1 - log_ratio).mean())


def measure(net: Policy, task: Task, seed: int, count: int) -> Measured:
    """Measure a policy on held-out problems; a seed gives every policy the same problems and random numbers."""
    problems = task.problems(random.Random(f"held out {seed}"), count, held_out=True)
    found = sample(net, task, task.encode_prompts(problems), torch.Generator().manual_seed(seed))
    rewards = task.rewards(problems, found.tokens, found.mask)
    return Measured(
        float(rewards.mean()), float(found.entropy[found.mask].mean()), float(found.mask.sum(1).float().mean())
    )
