"""SSPO (Subsentence-level Policy Optimization, arXiv 2511.04256) a second time, slowly, to test the first.

Plain lists, floats and loops: nothing is shared with the package, not even torch. A Python float is a float64.
Each function takes one row (or one number) where the package takes a batch.
"""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

LOG_RATIO_MAX = 10.0
STD_EPS = 1e-6
SMALLEST_REST = 1e-8


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


@dataclass(frozen=True)
class Band(Settings):
    """The same, and what is beyond the paper: docs/bands.md."""

    clip_length_exponent: float = 0.0
    clip_length_reference: float = 16.0
    clip_statistic: str = "ratio"
    clip_divergence: float | None = None
    ratio_length_exponent: float = 0.0
    ratio_cap: float | None = None


def is_blank(text: str, special: bool) -> bool:
    return special or text.strip() == ""


def segments_of_row(texts: list[str], special: list[bool], mask: list[int]) -> list[int]:
    """Segment id of each token of one response, -1 where the mask is 0.

    texts: what each token decodes to; special: whether it is a special token; mask: 1 where the token counts.
    """
    return _cut_runs(texts, special, mask, lambda run: {t for t in run if "\n" in texts[t]})


def _cut_runs(texts: list[str], special: list[bool], mask: list[int], ends_of_run) -> list[int]:
    """Segment ids of a row that is cut after the tokens `ends_of_run(run)` of each run of valid ones."""
    ids = [-1] * len(texts)
    next_id = 0
    for run in _runs_of_ones(mask):
        # A list of stretches, each a list of positions.
        ends, stretches = ends_of_run(run), [[]]
        for t in run:
            stretches[-1].append(t)
            if t in ends:
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
        if waiting:  # all of the run is blank: a segment of its own, whatever is beyond the mask
            segments.append(waiting)

        for segment in segments:
            for t in segment:
                ids[t] = next_id
            next_id += 1
    return ids


def tokens_of_row(mask: list[int]) -> list[int]:
    """Segmenter `token`."""
    return _numbered([[t] for t, m in enumerate(mask) if m], len(mask))


def response_of_row(mask: list[int]) -> list[int]:
    """Segmenter `response`."""
    return [0 if m else -1 for m in mask]


def turns_of_row(mask: list[int]) -> list[int]:
    """Segmenter `turn`."""
    return _numbered(_runs_of_ones(mask), len(mask))


def fixed_of_row(mask: list[int], size: int) -> list[int]:
    """Segmenter `fixed`: so many tokens each, from the start of every run."""
    runs = _runs_of_ones(mask)
    return _numbered([run[i : i + size] for run in runs for i in range(0, len(run), size)], len(mask))


def cut_long_of_row(ids: list[int], longest: int) -> list[int]:
    """Even pieces of those segments that have over `longest` tokens."""
    pieces = []
    for j in range(max(ids, default=-1) + 1):
        tokens = [t for t, k in enumerate(ids) if k == j]
        n = math.ceil(len(tokens) / longest)
        of = [k * n // len(tokens) for k in range(len(tokens))]
        pieces += [[t for t, piece in zip(tokens, of, strict=True) if piece == i] for i in range(n)]
    return _numbered(pieces, len(ids))


def renumbered_row(ids: list[int], mask: list[int]) -> list[int]:
    """Numbers of any kind as ids 0, 1, 2, ...: a new one where the number is not that of the valid token before."""
    segments: list[list[int]] = []
    for t in (t for t, m in enumerate(mask) if m and ids[t] >= 0):
        if not segments or ids[segments[-1][-1]] != ids[t]:
            segments.append([])
        segments[-1].append(t)
    return _numbered(segments, len(ids))


def entropy_of_row(entropy: list[float], mask: list[int], share: float) -> list[int]:
    """Segmenter `entropy`: cut before the largest ones, the earlier of those alike; NaN is none of them."""
    valid = [t for t, m in enumerate(mask) if m]
    known = sorted((t for t in valid if not math.isnan(entropy[t])), key=lambda t: (-entropy[t], t))
    top = set(known[: math.floor(Fraction(str(share)) * len(valid))])  # of the share as it is written
    segments: list[list[int]] = []
    for run in _runs_of_ones(mask):
        for t in run:
            if t == run[0] or t in top:
                segments.append([])
            segments[-1].append(t)
    return _numbered(segments, len(mask))


def matches_of_row(texts: list[str], special: list[bool], mask: list[int], pattern: str) -> list[int]:
    """Segmenter `regex`: the text of each run is searched, and the end of a match moves to that of its token."""
    return _cut_text(texts, special, mask, lambda text: {found.end() for found in re.finditer(pattern, text)})


def _numbered(segments: list[list[int]], length: int) -> list[int]:
    ids = [-1] * length
    for j, segment in enumerate(segments):
        for t in segment:
            ids[t] = j
    return ids


def sentences_of_row(texts: list[str], special: list[bool], mask: list[int]) -> list[int]:
    """Segmenter `sentence`: the text of each run is cut (`sentence_ends`), and an end moves to that of its token."""
    return _cut_text(texts, special, mask, sentence_ends)


def _cut_text(texts: list[str], special: list[bool], mask: list[int], ends_of_text) -> list[int]:
    def ends_of_run(run):
        # A token without text is like white space that is neither a space nor a line break. Of a special token the
        # line breaks count.
        pieces = [("\n" * texts[t].count("\n") if special[t] else texts[t]) or "\x1f" for t in run]
        found = ends_of_text("".join(pieces))
        position, ends = 0, set()
        for t, piece in zip(run, pieces, strict=True):
            if found & set(range(position + 1, position + len(piece) + 1)):
                ends.add(t)
            position += len(piece)
        return ends

    return _cut_runs(texts, special, mask, ends_of_run)


STOPS, WIDE_STOPS = ".!?…", "。！？．｡"  # noqa: RUF001
BRACKETS = "”’)]}»」』）】》〉］｝"  # noqa: RUF001
CLOSERS = BRACKETS + "\"'*_`$"
ABBREVIATIONS = """
    Dr Mr Mrs Ms Prof Sr Jr St Fig Figs Eq Eqs Sec Sect Ch Vol Thm Def Prop Cor Ref Refs Ex Inc Ltd Co etc vs cf al
    approx resp viz eg ie esp
"""
WORDS = ABBREVIATIONS.split()


def sentence_ends(text: str) -> set[int]:
    """Where sentences end in a text, as numbers of characters from its start. Blank ones are not merged yet."""
    inline, display = latex_state(text)
    ends = {i + 1 for i, c in enumerate(text) if c == "\n" and not display[i + 1]}
    for start, end in _runs(text, STOPS + WIDE_STOPS + BRACKETS):
        if _has_wide(text[start:end]) and not inline[end] and not display[end]:
            ends.add(end)
    for start, end in _runs(text, STOPS + WIDE_STOPS + CLOSERS):
        # What of it is one stretch without marks was cut above, if a full-width stop is in it.
        *_, last = _runs(text[start:end], STOPS + WIDE_STOPS + BRACKETS)
        is_wide = _has_wide(text[start:end][slice(*last)])
        if not is_wide and text[end : end + 1].isspace() and not inline[end] and not display[end]:
            ends |= set() if _is_short(text, start, end) else {end}
    return ends


def _has_wide(text: str) -> bool:
    return any(c in WIDE_STOPS for c in text)


def _runs(text: str, characters: str):
    """(start, end) of each stretch of `characters` that holds a stop."""
    i = 0
    while i < len(text):
        end = i
        while end < len(text) and text[end] in characters:
            end += 1
        if any(c in STOPS + WIDE_STOPS for c in text[i:end]):
            yield i, end
        i = max(end, i + 1)


def _is_short(text: str, dot: int, end: int) -> bool:
    """The dot is that of an abbreviation, or of a number that its line begins with. end: behind its closers."""
    line = text[text.rfind("\n", 0, dot) + 1 : dot]
    if text[dot] != "." or any(c not in CLOSERS for c in text[dot + 1 : end]):
        return False
    if line[-1:].isdecimal() and all(c.isdecimal() or c in " \t\x1f" for c in line):
        return True
    start = dot
    while start > 0 and text[start - 1].isascii() and text[start - 1].isalpha():
        start -= 1
    word, before = text[start:dot], text[start - 1 : start]
    if len(word) == 1 and before == ".":
        return True
    if before.isalnum():
        return False
    numbered = word in ("No", "Nos", "no", "nos", "p", "pp") and text[end:].lstrip(" \t")[:1].isdecimal()
    return numbered or word in WORDS


def latex_state(text: str) -> tuple[list[bool], list[bool]]:
    """After each number of characters: inside $...$ or \\(...\\) of this line; inside $$...$$, \\[...\\] or
    \\begin...\\end of this paragraph."""
    inline, display = [False] * (len(text) + 1), [False] * (len(text) + 1)
    within, dollars, opened, closed = False, False, 0, 0
    i = 0
    while i < len(text):
        step = 1
        if text[i] == "\\" and i + 1 < len(text) and text[i + 1] != "\n":
            name = next((n for n in ("begin", "end") if text.startswith(n, i + 1)), "")
            if name and text[i + 1 + len(name) : i + 2 + len(name)].isascii():
                name = "" if text[i + 1 + len(name) : i + 2 + len(name)].isalpha() else name
            step = 1 + len(name) if name else 2
            within ^= text[i + 1] in "()"
            opened += name == "begin" or text[i + 1] == "["
            closed += name == "end" or text[i + 1] == "]"
        elif text.startswith("$$", i):
            step = 2
            dollars ^= not within
        elif text[i] == "$":
            within = not within
        elif text[i] == "\n":
            within = False
            if "\n" in text[:i] and not text[text.rfind("\n", 0, i) : i].strip():
                dollars, opened, closed = False, 0, 0
        for k in range(i + 1, i + step + 1):
            inline[k], display[k] = within, dollars or opened > closed
        i += step
    return inline, display


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
    """(lower, upper) bound on the ratio of a segment with this mean entropy; the plain ones if it is not finite."""
    if not s.entropy_clip or not math.isfinite(entropy):
        return s.clip_low, s.clip_high
    lower = s.clip_low_tight if entropy < s.entropy_low else s.clip_low
    upper = 1.0 + s.alpha + entropy if entropy > s.entropy_high else s.clip_high
    return lower, upper


def divergence(old: float, new: float, statistic: str) -> float:
    """Of one token, between two coins that show it with the probabilities e^old and e^new."""
    if statistic == "tv":
        return abs(math.exp(new) - math.exp(old))
    p = math.exp(old)
    rest_p, rest_q = (max(-math.expm1(x), SMALLEST_REST) for x in (old, new))
    return max(p * (old - new) + rest_p * math.log(rest_p / rest_q), 0.0)


def segment_bounds(entropy: float, length: int, diverged: float, s: Band) -> tuple[float, float]:
    """(lower, upper) bound on the ratio of a segment of so many tokens, of which `diverged` is the mean divergence."""
    if s.clip_statistic != "ratio":
        return (1.0, 1.0) if diverged > s.clip_divergence else (0.0, math.inf)
    power = (length / s.clip_length_reference) ** s.clip_length_exponent
    lower, upper = clip_bounds(entropy, s)
    w_low, w_high = -math.log(lower) if lower else math.inf, math.log(upper)
    return math.exp(-w_low * power), math.exp(w_high * power)


def band_loss(
    old: list[float],
    new: list[float],
    advantages: list[float],
    ids: list[int],
    entropy: list[float],
    s: Band,
    dual_clip: float | None = None,
) -> tuple[list[float], list[float]]:
    """As token_loss, with what is beyond the paper. Segment by segment: its ratio, its bounds, then each of its tokens.

    The cap is on the weight: the decision which term counts is that of the ratio without it, and a weight at the cap
    has the derivative of its value, as has a ratio over e^10 that a cap limits.
    """
    loss, grad = [0.0] * len(ids), [0.0] * len(ids)
    for j in sorted(set(ids) - {-1}):
        tokens = [t for t, k in enumerate(ids) if k == j]
        length = len(tokens)
        exponent = math.fsum(new[t] - old[t] for t in tokens) / length * length**s.ratio_length_exponent
        ratio = math.exp(min(exponent, LOG_RATIO_MAX))
        diverged = 0.0
        if s.clip_statistic != "ratio":
            diverged = math.fsum(divergence(old[t], new[t], s.clip_statistic) for t in tokens) / length
        level = math.fsum(entropy[t] for t in tokens) / length
        lower, upper = segment_bounds(level, length, diverged, s)
        bounded = min(max(ratio, lower), upper)
        cap = math.inf if s.ratio_cap is None else s.ratio_cap
        for t in tokens:
            a = advantages[t]
            clipped = bounded * a < ratio * a
            loss[t] = -(bounded if clipped else ratio) * a
            stopped = clipped or (s.ratio_cap is None and exponent > LOG_RATIO_MAX)
            if dual_clip is not None and a < 0 and loss[t] > dual_clip * abs(a):
                loss[t], stopped = dual_clip * abs(a), True
            loss[t] = max(min(loss[t], cap * abs(a)), -cap * abs(a))
            grad[t] = 0.0 if stopped else -min(ratio, cap) * a
    return loss, grad


def token_loss(
    old: list[float],
    new: list[float],
    advantages: list[float],
    ids: list[int],
    entropy: list[float] | None,
    s: Settings,
    dual_clip: float | None = None,
) -> tuple[list[float], list[float]]:
    """Per-token loss of one row, and its derivative with respect to that token's own log-probability.

    With x = min(mean log ratio of the segment, 10) and ratio = e^x, the token's ratio in GSPO-token form is
    sg[ratio] * pi / sg[pi]: its value is e^x, and its derivative with respect to log pi of this token is again e^x,
    or 0 where the ceiling of 10 holds it. The other tokens of the segment enter through the stop-gradient alone, so
    the Jacobian is diagonal. loss = -min(ratio A, clip(ratio) A): where the min is the clipped term and the clip
    binds, the loss is a constant; elsewhere its derivative is -A times that of the ratio. With a dual clip, a loss over
    dual_clip |A| with A < 0 is that constant.
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
        if dual_clip is not None and a < 0 and loss[-1] > dual_clip * abs(a):
            loss[-1], grad[-1] = dual_clip * abs(a), 0.0
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
