"""Figures of one model from its responses: per benchmark, and the average over benchmarks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from sspo_verl.tools.evaluate.estimators import majority, pass_at_k, pass_ks
from sspo_verl.tools.evaluate.intervals import Estimate, average, over_problems
from sspo_verl.tools.evaluate.store import Response


@dataclass(frozen=True)
class Figures:
    """Figures of one benchmark, or the average of several."""

    problems: int
    samples: int  # per problem
    accuracy: Estimate
    pass_at: dict[int, Estimate]
    maj_at: Estimate  # over all samples
    mean_tokens: float
    cut_off: float  # share of responses truncated at the token limit
    no_answer: float  # share of responses without an answer
    statuses: dict[str, int]  # number of checks by status: ok, no_answer, timeout, failed


def figures(problems: Sequence[Sequence[Response]]) -> Figures:
    """Figures of one benchmark, from the responses to each problem: equally many, in sample order."""
    (k,) = {len(responses) for responses in problems}
    right = [sum(response.correct for response in responses) for responses in problems]
    everything = [response for responses in problems for response in responses]
    return Figures(
        problems=len(problems),
        samples=k,
        accuracy=over_problems([c / k for c in right], samples=k),
        pass_at={j: over_problems([pass_at_k(k, c, j) for c in right], samples=k) for j in pass_ks(k)},
        maj_at=over_problems([majority([r.answer for r in rs], [r.correct for r in rs]) for rs in problems]),
        mean_tokens=fmean(response.tokens for response in everything),
        cut_off=fmean(not response.finished for response in everything),
        no_answer=fmean(response.status == "no_answer" for response in everything),
        statuses=dict(sorted(Counter(response.status for response in everything).items())),
    )


def averaged(sets: Sequence[Figures]) -> Figures:
    """Average with equal weight per benchmark, however many problems it has, as in the papers' tables."""
    statuses: Counter[str] = Counter()
    for one in sets:
        statuses.update(one.statuses)
    return Figures(
        problems=sum(one.problems for one in sets),
        samples=sets[0].samples,
        accuracy=average([one.accuracy for one in sets]),
        pass_at={j: average([one.pass_at[j] for one in sets]) for j in sets[0].pass_at},
        maj_at=average([one.maj_at for one in sets]),
        mean_tokens=fmean(one.mean_tokens for one in sets),
        cut_off=fmean(one.cut_off for one in sets),
        no_answer=fmean(one.no_answer for one in sets),
        statuses=dict(sorted(statuses.items())),
    )
