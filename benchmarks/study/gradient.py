"""Experiment: gradient quality without training. Compares estimators on old responses with the on-policy gradient.

There are two policies: old is the starting model; new has drifted from it by updates with one of the losses on old's
responses until KL(old || new) reached a target. g_b is an estimator's gradient at new from minibatch b of old's
responses, and g* is new's policy gradient from `on_policy` responses of its own. |g|^2 is estimated without bias:

    cosine         mean over b of  g_b . g* / ( |g_b| |g*| )       one minibatch: noise and bias together
    cosine_mean    E g . g* / ( |E g| |g*| )                       only the bias in direction
    bias           |E g - g*|^2 / |g*|^2
    variance       E |g_b - E g|^2 / |g*|^2                        one minibatch
    snr            |E g|^2 / E |g_b - E g|^2
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.study.losses import Algorithm, reduce
from benchmarks.study.policy import Policy, new_policy
from benchmarks.study.rollout import BY_TOKEN, Batch, collect, kl, slices
from benchmarks.study.tasks import TASKS
from benchmarks.study.update import Counts, new_optimizer, update

GROUP = 8
MICRO = 32
ON_POLICY = Algorithm("on-policy", "none")
MOST_UPDATES = 96
LOOK_EVERY = 2  # updates
LOOK_PROMPTS = 32


@dataclass(frozen=True)
class Gradient:
    """Parameters. algorithm: of the drift. old, on_policy: numbers of responses. minibatch: responses per gradient."""

    task: str
    algorithm: Algorithm
    learning_rate: float
    target_kl: float
    estimators: tuple[Algorithm, ...]
    seed: int
    old: int = 1024
    on_policy: int = 2048
    minibatch: int = 64

    def __post_init__(self):
        if self.old % self.minibatch or self.on_policy % (2 * self.minibatch) or self.minibatch % MICRO:
            raise ValueError(
                f"minibatch ({self.minibatch}) must be a multiple of {MICRO} and divide old ({self.old}) and half of "
                f"on_policy ({self.on_policy})."
            )

    def run(self) -> dict:
        old, new = new_policy(self.task), new_policy(self.task)
        sampler = Sampler(self.task, self.seed)
        drift, updates = self.drift(old, new, sampler)
        reference = self.gradients(new, sampler.batch(new, self.on_policy), [ON_POLICY])[0]
        found = self.gradients(new, sampler.batch(old, self.old), self.estimators)
        quality = {a.name: quality_of(g, reference) for a, g in zip(self.estimators, found, strict=True)}
        return {"kl": drift, "updates": updates, "on-policy": on_policy_quality(reference), "estimators": quality}

    def drift(self, old: Policy, new: Policy, sampler: Sampler) -> tuple[float, int]:
        """Update `new` until its KL from `old` reaches the target, or MOST_UPDATES times; return the KL and updates."""
        optimizer, counts = new_optimizer(new, self.learning_rate), Counts()
        looked_at, distance = sampler.batch(old, LOOK_PROMPTS * GROUP), 0.0
        for done in range(1, MOST_UPDATES + 1):
            update(new, optimizer, self.algorithm, sampler.batch(old, self.minibatch), counts)
            if done % LOOK_EVERY == 0:
                distance = kl(new, looked_at)
                if distance >= self.target_kl:
                    break
        return distance, done

    def gradients(self, net: Policy, batch: Batch, estimators: Sequence[Algorithm]) -> list[Tensor]:
        """For each estimator, the gradients of all minibatches, [minibatches, parameters]."""
        found = [[] for _ in estimators]
        for rows in slices(len(batch.mask), self.minibatch):
            totals = minibatch_gradients(net, batch.part(rows), estimators)
            for gradients, total in zip(found, totals, strict=True):
                gradients.append(total)
        return [torch.stack(gradients) for gradients in found]


class Sampler:
    """Samples batches of new responses, all from one random stream."""

    def __init__(self, task: str, seed: int):
        self.task, self.rng = TASKS[task], random.Random(f"gradient {seed}")
        self.generator = torch.Generator().manual_seed(3_000_000 + seed)

    def batch(self, net: Policy, responses: int) -> Batch:
        """A batch, sampled in parts of at most 256 distinct prompts, which may recur in the next part."""
        most = 256
        count = responses // GROUP
        parts = [
            collect(net, self.task, self.rng, self.generator, min(most, count - begin), GROUP, MICRO)
            for begin in range(0, count, most)
        ]
        return join(parts)


def join(parts: Sequence[Batch]) -> Batch:
    """Concatenate batches, padded to one length."""
    length = max(part.mask.shape[1] for part in parts)

    def padded(part: Batch) -> Batch:
        extra = (0, length - part.mask.shape[1])
        return part._replace(**{name: torch.nn.functional.pad(getattr(part, name), extra) for name in BY_TOKEN})

    *columns, texts = zip(*map(padded, parts), strict=True)
    return Batch(*map(torch.cat, columns), texts[0])


def minibatch_gradients(net: Policy, batch: Batch, estimators: Sequence[Algorithm]) -> list[Tensor]:
    """Flattened gradient of each estimator's loss on these responses."""
    parameters, rows = list(net.parameters()), len(batch.mask)
    totals = [torch.zeros(sum(p.numel() for p in parameters)) for _ in estimators]
    for part in map(batch.part, slices(rows, MICRO)):
        log_prob, _ = net.log_probs(part.prompts, part.responses)
        for i, algorithm in enumerate(estimators):
            tokens = part.tokens(algorithm)
            loss = reduce(algorithm.token_loss(log_prob, tokens), part.mask, rows)
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
            totals[i] += torch.cat([g.flatten() for g in gradients])
    return totals


def quality_of(gradients: Tensor, reference: Tensor) -> dict[str, float]:
    """Quality measures. gradients, reference: [minibatches, parameters], independent of each other."""
    mean, target = gradients.mean(0), reference.mean(0)
    variance = float((gradients - mean).pow(2).sum() / (len(gradients) - 1))
    own, target_2 = float(mean @ mean) - variance / len(gradients), squared_norm(reference)
    dots = gradients @ target
    return _ratios(dots, gradients.norm(dim=1), own, target_2, variance)


def on_policy_quality(reference: Tensor) -> dict[str, float]:
    """The same for the on-policy minibatches, each against the mean of the other half: the best achievable."""
    dots = torch.empty(len(reference))
    dots[0::2], dots[1::2] = reference[0::2] @ reference[1::2].mean(0), reference[1::2] @ reference[0::2].mean(0)
    mean = reference.mean(0)
    variance = float((reference - mean).pow(2).sum() / (len(reference) - 1))
    squared = squared_norm(reference)
    return _ratios(dots, reference.norm(dim=1), squared, squared, variance)


def squared_norm(gradients: Tensor) -> float:
    """|E g|^2 without bias: the product of the means of two halves."""
    return float(gradients[0::2].mean(0) @ gradients[1::2].mean(0))


def _ratios(dots: Tensor, norms: Tensor, own_2: float, target_2: float, variance: float) -> dict[str, float]:
    tiny = 1e-20
    target_2 = max(target_2, tiny)
    dot = float(dots.mean())
    return {
        "cosine": float((dots / norms.clamp(min=tiny)).mean()) / target_2**0.5,
        "cosine_mean": dot / (max(own_2, tiny) * target_2) ** 0.5,
        "bias": (own_2 + target_2 - 2 * dot) / target_2,
        "variance": variance / target_2,
        "snr": own_2 / max(variance, tiny),
    }
