"""Estimators from the samples of one problem: the share that is correct, pass@k, and maj@k."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

from sspo_verl.reward.numbers import read_number
from sspo_verl.reward.tidy import canonical, tidy


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Probability that k of the n samples, drawn without replacement, include a correct one.

        pass@k = 1 - C(n - c, k) / C(n, k)

    n: samples of the problem; correct: c, how many are correct; k in 1..n. In [0, 1]. Its mean over sets of n samples
    is 1 - (1 - p)^k for a model that is correct with probability p: unbiased, unlike 1 - (1 - c/n)^k.
    Source: Chen et al. 2021 (arXiv 2107.03374), section 2.1.
    """
    if not 1 <= k <= n or not 0 <= correct <= n:
        raise ValueError(f"pass@{k} of {n} samples, {correct} of them correct: k must be in 1..n, c in 0..n.")
    return 1.0 - comb(n - correct, k) / comb(n, k)


def pass_ks(n: int) -> list[int]:
    """The values of k reported for n samples: the powers of two below n, and n."""
    return [*(2**power for power in range(n.bit_length()) if 2**power < n), n]


def majority(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """maj@k: whether the most frequent answer is correct.

    answers: as extracted, None if there was none, which casts no vote; correct: the verdict on each. Answers with the
    same `group_key` vote together, and the first of them determines the group's verdict. Ties are equally likely: the
    result is the share of the largest groups that is correct, in [0, 1]. 0 if there is no answer at all.
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
    r"""Key of an answer: maj@k counts two answers with the same key as one.

    Answers share a key if they are spelled alike (`sspo_verl.reward.tidy`: white space, `$`, `\left`, thin spaces, a
    final full stop and the like are ignored, `\dfrac` is `\frac`), or are plain numbers of the same value (0.50, 1/2,
    \frac{1}{2}). The reward's own equality is not used: it is not transitive, so groups would depend on the order.
    """
    text = tidy(answer)
    number = read_number(text)
    return canonical(text) if number is None else str(number.value)
