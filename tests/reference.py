"""SSPO (Subsentence-level Policy Optimization, arXiv 2511.04256) a second time, slowly, to test the first.

Plain lists, floats and loops: nothing is shared with the package, not even torch. A Python float is a float64.
Each function takes one row (or one number) where the package takes a batch.
"""

import math
from dataclasses import dataclass

LOG_RATIO_MAX = 10.0
STD_EPS = 1e-6


@dataclass(frozen=True)
class Settings:
    """Settings of the clip bounds; the values are those of the definition, section 3."""

    clip_low: float = 0.7
    clip_high: float = 1.3
    clip_low_tight: float = 0.8
    alpha: float = 0.3
    entropy_low: float = 0.5
    entropy_high: float = 1.0
    entropy_clip: bool = True


def is_blank(text: str, special: bool) -> bool:
    return special or text.strip() == ""


def segments_of_row(texts: list[str], special: list[bool], mask: list[int]) -> list[int]:
    """Segment id of each token of one response, -1 where the mask is 0.

    texts: what each token decodes to; special: whether it is a special token; mask: 1 where the token counts.
    """
    ids = [-1] * len(texts)
    next_id = 0
    for run in _runs_of_ones(mask):
        # A list of stretches, each a list of positions: cut after every token that holds a line break.
        stretches: list[list[int]] = [[]]
        for t in run:
            stretches[-1].append(t)
            if "\n" in texts[t]:
                stretches.append([])
        stretches = [stretch for stretch in stretches if stretch]

        # Blank stretches join the text before them; those before any text join the first text.
        segments: list[list[int]] = []
        waiting: list[int] = []
        for stretch in stretches:
            if all(is_blank(texts[t], special[t]) for t in stretch):
                (segments[-1] if segments else waiting).extend(stretch)
            else:
                segments.append(waiting + stretch)
                waiting = []
        if waiting:  # the whole run is blank: it stands alone, whatever lies beyond the mask
            segments.append(waiting)

        for segment in segments:
            for t in segment:
                ids[t] = next_id
            next_id += 1
    return ids


def _runs_of_ones(mask: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for t, m in enumerate(mask):
        if m and t > 0 and mask[t - 1]:
            runs[-1].append(t)
        elif m:
            runs.append([t])
    return runs


def lines_of_text(text: str) -> list[str]:
    """Cut a text without masked parts and special tokens: the definition's rule on characters, without tokens."""
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return merge_blank([line for line in lines if line])


def merge_blank(lines: list[str]) -> list[str]:
    """Join each blank line to the text before it, and those before any text to the first text."""
    out: list[str] = []
    waiting = ""
    for line in lines:
        if line.strip():
            out.append(waiting + line)
            waiting = ""
        elif out:
            out[-1] += line
        else:
            waiting += line
    return out + ([waiting] if waiting else [])


def segment_mean(values: list[float], ids: list[int]) -> list[float]:
    """Each valid token gets the mean of the values of its segment, a masked token gets 0."""
    out = []
    for j in ids:
        members = [v for v, k in zip(values, ids, strict=True) if k == j]
        out.append(math.fsum(members) / len(members) if j >= 0 else 0.0)
    return out


def clip_bounds(entropy: float, s: Settings) -> tuple[float, float]:
    """(lower, upper) bound on the ratio of a segment with this mean entropy."""
    if not s.entropy_clip:
        return s.clip_low, s.clip_high
    lower = s.clip_low_tight if entropy < s.entropy_low else s.clip_low
    upper = 1.0 + s.alpha + entropy if entropy > s.entropy_high else s.clip_high
    return lower, upper


def token_loss(
    old: list[float],
    new: list[float],
    advantages: list[float],
    ids: list[int],
    entropy: list[float] | None,
    s: Settings,
) -> tuple[list[float], list[float]]:
    """Per-token loss of one row, and its derivative with respect to that token's own log-probability.

    With x = min(mean log ratio of the segment, 10) and ratio = e^x, the token's ratio in GSPO-token form is
    sg[ratio] * pi / sg[pi]: its value is e^x, and its derivative with respect to log pi of this token is again e^x,
    or 0 where the ceiling of 10 holds it. The other tokens of the segment enter through the stop-gradient alone, so
    the Jacobian is diagonal. loss = -min(ratio A, clip(ratio) A): where the min is the clipped term and the clip
    binds, the loss is a constant; elsewhere its derivative is -A times that of the ratio.
    """
    # Values at masked tokens may be anything, so nothing of theirs is touched.
    log_ratio = segment_mean([n - o if j >= 0 else 0.0 for n, o, j in zip(new, old, ids, strict=True)], ids)
    level = [0.0] * len(ids) if entropy is None else segment_mean(entropy, ids)
    loss, grad = [], []
    for t, j in enumerate(ids):
        if j < 0:
            loss.append(0.0)
            grad.append(0.0)
            continue
        a = advantages[t]
        ratio = math.exp(min(log_ratio[t], LOG_RATIO_MAX))
        d_ratio = ratio if log_ratio[t] <= LOG_RATIO_MAX else 0.0
        lower, upper = clip_bounds(level[t], s)
        clipped = lower if ratio < lower else upper if ratio > upper else ratio
        loss.append(-min(ratio * a, clipped * a))
        grad.append(-a * d_ratio if ratio * a <= clipped * a else 0.0)
    return loss, grad


def group_advantage(rewards: list[float], groups: list[int], normalize_by_std: bool = True) -> list[float]:
    """Reward minus the mean of its group, over the group's standard deviation (n - 1 in the denominator) + 1e-6."""
    out = []
    for reward, group in zip(rewards, groups, strict=True):
        members = [r for r, g in zip(rewards, groups, strict=True) if g == group]
        if all(r == members[0] for r in members):
            out.append(0.0)
            continue
        mean = math.fsum(members) / len(members)
        std = math.sqrt(math.fsum((r - mean) ** 2 for r in members) / (len(members) - 1))
        out.append((reward - mean) / (std + STD_EPS) if normalize_by_std else reward - mean)
    return out
