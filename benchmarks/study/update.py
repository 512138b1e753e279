"""One update of a policy, as in verl's actor, and counts of what its loss clipped."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from benchmarks.study.losses import Algorithm, lengths, reduce
from benchmarks.study.policy import Policy
from benchmarks.study.rollout import Batch, micro_batch_of, slices

WEIGHT_DECAY = 0.01  # verl's
MAX_GRAD_NORM = 1.0  # verl's
LONGEST_OF_BUCKETS = (8, 16, 32, 64)  # tokens of a segment; one more bucket is for all longer ones


def buckets() -> list[int]:
    return [0] * (len(LONGEST_OF_BUCKETS) + 1)


@dataclass
class Counts:
    """Token counts of the updates on a batch. A clipped token has a non-zero advantage but no gradient."""

    tokens: int = 0
    with_gradient: int = 0
    clipped_high: int = 0  # in responses with a positive advantage
    clipped_low: int = 0  # in responses with a negative advantage
    by_length: list[int] = field(default_factory=buckets)  # tokens with an advantage, by length of their segment
    clipped_by_length: list[int] = field(default_factory=buckets)

    def add(self, gradient: Tensor, advantages: Tensor, mask: Tensor, segments: Tensor) -> None:
        """Add counts. gradient: of the loss with respect to the log-probabilities."""
        live = mask & (advantages != 0)
        clipped = live & (gradient == 0)
        self.tokens += int(mask.sum())
        self.with_gradient += int((live & ~clipped).sum())
        self.clipped_high += int((clipped & (advantages > 0)).sum())
        self.clipped_low += int((clipped & (advantages < 0)).sum())
        bucket = torch.bucketize(lengths(segments), torch.tensor(LONGEST_OF_BUCKETS))
        for counts, chosen in ((self.by_length, live), (self.clipped_by_length, clipped)):
            found = torch.bincount(bucket[chosen], minlength=len(counts)).tolist()
            counts[:] = [a + b for a, b in zip(counts, found, strict=True)]

    def shares(self) -> dict[str, float | list[int]]:
        """Shares of all tokens, and the counts by length."""
        tokens = max(self.tokens, 1)
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {n: v / tokens if isinstance(v, int) and n != "tokens" else v for n, v in found.items()}


def check_updates(updates: int, prompts: int) -> None:
    """Raise ValueError if a batch of `prompts` groups cannot be divided into `updates` parts of complete groups."""
    if prompts % updates:
        raise ValueError(f"updates must divide prompts ({prompts}), for whole groups; got {updates}.")


def new_optimizer(net: Policy, learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY)


def update(net: Policy, optimizer: torch.optim.Optimizer, algorithm: Algorithm, batch: Batch, counts: Counts) -> None:
    """One optimizer step on all rows of `batch`."""
    rows = len(batch.mask)
    optimizer.zero_grad()
    for part in map(batch.part, slices(rows, micro_batch_of(rows))):
        tokens = part.tokens(algorithm)
        log_prob, _ = net.log_probs(part.prompts, part.responses)
        loss = reduce(algorithm.token_loss(log_prob, tokens), part.mask, rows)
        (gradient,) = torch.autograd.grad(loss, log_prob, retain_graph=True)
        counts.add(gradient, tokens.advantages, part.mask, tokens.segments)
        log_prob.backward(gradient)
    torch.nn.utils.clip_grad_norm_(net.parameters(), MAX_GRAD_NORM)
    optimizer.step()


def one_pass(net: Policy, optimizer: torch.optim.Optimizer, algorithm: Algorithm, batch: Batch, updates: int) -> Counts:
    """`updates` updates on consecutive parts of a batch, each response in one of them. Returns the counts."""
    counts = Counts()
    algorithm = algorithm.for_batch(batch.responses, batch.mask, batch.entropy, batch.text)
    for rows in slices(len(batch.mask), len(batch.mask) // updates):
        update(net, optimizer, algorithm, batch.part(rows), counts)
    return counts
