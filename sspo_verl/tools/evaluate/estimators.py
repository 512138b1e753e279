"""Estimators from k samples of one problem: the share that is right, pass@k, and maj@k."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

from sspo_verl.reward.numbers import read_number
from sspo_verl.reward.tidy import canonical, tidy


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The chance that k of the n samples, drawn without replacement, hold a correct one.

        pass@k = 1 - C(n - c, k) / C(n, k)

    n: samples of the problem; correct: c, how many of them are right; k in 1..n. In [0, 1]. Its mean over sets of n
    samples is 1 - (1 - p)^k for a model that is right with probability p: unbiased, where 1 - (1 - c/n)^k is not.
    Source: Chen et al. 2021 (arXiv 2107.03374), section 2.1.
    """
    if not 1 <= k <= n or not 0 <= correct <= n:
        raise ValueError(f"pass@{k} of {n} samples, {correct} of them correct: k is to be in 1..n, c in 0..n.")
    return 1.0 - comb(n - correct, k) / comb(n, k)


def pass_ks(n: int) -> list[int]:
    """The k that are reported for n samples: the powers of two below n, and n."""
    return [*(2**power for power in range(n.bit_length()) if 2**power < n), n]


def majority(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Is the answer that most samples gave the right one?

    answers: as extracted, None where there was none, which casts no vote; correct: the verdict on each. Answers with
    the same `group_key` vote together, and the first of them speaks for its group. Among groups of equal size each is
    as likely: the result is the share of them that is right, in [0, 1]. 0 if there is no answer at all.
    """
    groups: dict[str, list[bool]] = {}
    for answer, right in zip(answers, correct, strict=True):
        if answer is not None:
            groups.setdefault(group_key(answer), []).append(right)
    if not groups:
        return 0.0
    most = max(map(len, groups.values()))
    leading = [group[0] for group in groups.values() if len(group) == most]
    return sum(leading) / len(leading)


def group_key(answer: str) -> str:
    r"""Two answers with the same key are one answer to maj@k.

    They are spelled alike (`sspo_verl.reward.tidy`: white space, `$`, `\left`, thin spaces, a full stop at the end and
    the like do not count, `\dfrac` is `\frac`), or are plain numbers of one value (0.50, 1/2, \frac{1}{2}). No more
    than that: equality as the reward judges it is not transitive, and groups that ask it would depend on the order.
    """
    text = tidy(answer)
    number = read_number(text)
    return canonical(text) if number is None else str(number.value)
