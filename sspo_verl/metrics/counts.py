"""Counts of one micro-batch for the metrics: sums and extremes, reduced on the device and fetched in one copy.

Nothing is divided here: `finalize.metrics` computes means and fractions once per step, over all micro-batches and
ranks. Pure torch. Source: ours; what is counted is what arXiv 2511.04256 plans to compare.

NaN and infinite values (a token's log ratio or entropy, a segment's H or ratio) are counted, and excluded from every
sum, extreme and band.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sspo_verl.divergence import binary_kl, total_variation
from sspo_verl.loss import MAX_LOG_RATIO, TokenTerms, sspo_token_terms
from sspo_verl.metrics.distribution import Distribution
from sspo_verl.metrics.names import ALGORITHMS, LENGTHS
from sspo_verl.sums import Segments as Segmentation
from sspo_verl.sums import at_least_float32, at_tokens, count_each, segment_means, segment_sums, valid_only

GRPO_BOUNDS = (0.8, 1.2)  # 1 - 0.2 and 1 + 0.2
GSPO_BOUNDS = (1 - 3e-4, 1 + 4e-4)  # arXiv 2507.18071, section 5.1
GSPO_WIDE_BOUNDS = GRPO_BOUNDS  # GSPO with GRPO's usual bounds
VANILLA_MAX_LOG_RATIO = 20.0  # where verl's vanilla loss clamps, on both sides

OF_ROWS = 6  # number of fields of `Segments`, without the entropies
GROUPS, SIDES = 4, 3  # low, mid, high entropy, none (NaN, inf, not given); not clipped, clipped at the lower, the upper
RATIO_AND_BOUNDS = ("ratio", "lower_bound", "upper_bound")
SUMMED = 2 * SIDES + 2 * len(RATIO_AND_BOUNDS)  # sums over segments: see `_of_block`
# Segments are counted in blocks of rows, to limit the memory for the 30 temporary numbers per segment: a single block
# if there are few, and at most BLOCKS, so that a GPU is not kept waiting.
BLOCK, BLOCKS = 1 << 14, 8
OF_TOKENS = ("responses", "single_segment", "log_ratio", "log_ratio_nonfinite", "entropy", "entropy_nonfinite")
SCALARS = (*OF_TOKENS, "entropy_tokens", "failed")
# Code of a token: one bit per algorithm that clips it, and the length group of its segment; NOWHERE if masked.
ALGORITHM_BITS, CODES, NOWHERE = len(ALGORITHMS), 256, 128
BY_LENGTH = (1 + len(ALGORITHMS), len(LENGTHS))  # tokens, and those that each algorithm clips
# Layout of a record's sums: SCALARS; [GROUPS, SIDES] for tokens and for segments; the number of finite RATIO_AND_BOUNDS
# and their sums; BY_LENGTH.
_SIZES = [len(SCALARS), GROUPS * SIDES, GROUPS * SIDES, 2 * len(RATIO_AND_BOUNDS), BY_LENGTH[0] * BY_LENGTH[1]]
_ENDS = np.cumsum(_SIZES)


@dataclass(frozen=True)
class Segments:
    """The segments of each row of a micro-batch, in order: one array per row in each list."""

    lengths: list[np.ndarray]  # tokens
    entropies: list[np.ndarray] | None  # H in nats
    clips: list[np.ndarray]  # -1 clipped at the lower bound, 1 at the upper, 0 not
    ratios: list[np.ndarray]  # s, the importance ratio
    advantages: list[np.ndarray]  # the mean of A
    tv: list[np.ndarray]  # D, the mean divergence of clip_statistic=tv
    kl: list[np.ndarray]  # same for binary_kl


@dataclass(frozen=True)
class Counts:
    """Counts of one or more micro-batches for `finalize.metrics`. They can be added; the sum is no larger than one.

    Counts are integers and exact; sums of floats are float64, whose last bits depend on the order of the parts.
    """

    sums: np.ndarray  # float64, by _ENDS
    smallest: np.ndarray  # of RATIO_AND_BOUNDS; inf if there are no values
    largest: np.ndarray  # of RATIO_AND_BOUNDS, and of a token's ratio times -A; -inf if there are no values
    segment_entropy: Distribution  # finite H of the segments, in nats

    @classmethod
    def failure(cls, failed: int) -> Counts:
        """Counts of this many micro-batches whose counting failed."""
        sums, nowhere = np.zeros(_ENDS[-1]), np.full(len(RATIO_AND_BOUNDS), np.inf)
        sums[SCALARS.index("failed")] = failed
        return cls(sums, nowhere, np.full(len(RATIO_AND_BOUNDS) + 1, -np.inf), Distribution.of(np.empty(0)))

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            sums=self.sums + other.sums,
            smallest=np.minimum(self.smallest, other.smallest),
            largest=np.maximum(self.largest, other.largest),
            segment_entropy=self.segment_entropy + other.segment_entropy,
        )

    @property
    def scalars(self) -> dict[str, float]:
        """SCALARS by name; log_ratio and entropy are sums of the finite values over valid tokens."""
        return dict(zip(SCALARS, self.sums.tolist(), strict=False))

    @property
    def failed(self) -> int:
        """Number of failed parts of the diagnostics."""
        return int(self.scalars["failed"])

    @property
    def tokens(self) -> np.ndarray:
        """[GROUPS, SIDES]"""
        return self.sums[_ENDS[0] : _ENDS[1]].reshape(GROUPS, SIDES)

    @property
    def segments(self) -> np.ndarray:
        """[GROUPS, SIDES]; a segment counts in each cell in proportion to its tokens there."""
        return self.sums[_ENDS[1] : _ENDS[2]].reshape(GROUPS, SIDES)

    @property
    def ratio_and_bounds(self) -> np.ndarray:
        """[RATIO_AND_BOUNDS, 4]: number of segments with a finite value, and their sum, min and max."""
        finite, totals = self.sums[_ENDS[2] : _ENDS[3]].reshape(2, -1)
        return np.stack((finite, totals, self.smallest, self.largest[:-1]), axis=1)

    @property
    def by_length(self) -> np.ndarray:
        """BY_LENGTH: valid tokens, and those that each of ALGORITHMS clips, by length of their segment."""
        return self.sums[_ENDS[3] :].reshape(BY_LENGTH)

    @property
    def max_negative_weight(self) -> float:
        """The max of ratio |A| over tokens with A < 0; 0 or less if there are none, NaN if an A is NaN."""
        return float(self.largest[-1])

    @property
    def valid(self) -> float:
        """Valid tokens."""
        return float(self.tokens.sum())

    @property
    def clipped(self) -> float:
        """Clipped tokens: those whose loss is the clipped term."""
        return float(self.tokens[:, 1:].sum())

    @property
    def log_ratio(self) -> tuple[float, float]:
        """(sum, number of tokens) of the finite log ratios."""
        return self.scalars["log_ratio"], self.valid - self.scalars["log_ratio_nonfinite"]


@dataclass(frozen=True)
class Observation:
    """A micro-batch's counts, still on the device."""

    packed: Tensor  # float64, 1-D
    shape: tuple[int, int]
    has_entropy: bool
    has_rows: bool

    def fetch(self) -> tuple[Counts, Segments | None]:
        """(counts, the rows' segments if requested), on the host. The only point that synchronizes with the device."""
        values = self.packed.cpu().numpy()
        sizes = (len(OF_TOKENS), CODES, SUMMED * GROUPS, len(RATIO_AND_BOUNDS), len(RATIO_AND_BOUNDS) + 1)
        of_tokens, codes, sums, smallest, largest, maps = np.split(values, np.cumsum(sizes))
        sums = sums.reshape(SUMMED, GROUPS)
        maps = maps.reshape(OF_ROWS * self.has_rows + self.has_entropy, *self.shape)
        rows = None
        if self.has_rows:
            starts = [~np.isnan(row) for row in maps[0]]
            lengths, clips, ratios, advantages, tv, kl, *entropies = (
                [row[start] for row, start in zip(of_kind, starts, strict=True)] for of_kind in maps
            )
            rows = Segments(lengths, entropies[0] if entropies else None, clips, ratios, advantages, tv, kl)
        entropies = maps[-1][np.isfinite(maps[-1])] if self.has_entropy else np.empty(0)
        totals = sums[2 * SIDES :].sum(axis=1)
        tokens, segments = sums[:SIDES].T.flatten(), _snap(sums[SIDES : 2 * SIDES].T).flatten()
        entropy_tokens = tokens.sum() - of_tokens[-1] if self.has_entropy else 0
        counts = Counts(
            sums=np.concatenate((of_tokens, (entropy_tokens, 0), tokens, segments, totals, _by_length(codes))),
            smallest=smallest.copy(),  # a view would keep the complete fetched array alive
            largest=largest.copy(),
            segment_entropy=Distribution.of(entropies),
        )
        return counts, rows


@torch.no_grad()
def observe(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    segment_ids: Tensor,
    entropy: Tensor | None,
    entropy_low: float,
    entropy_high: float,
    terms: TokenTerms | None = None,
    with_rows: bool = False,
    **settings,
) -> Observation:
    """Count what SSPO does to a batch. Arguments and errors as in `loss.sspo_token_loss`; all tensors [batch, length].

    terms: the terms of the loss on this batch, if the caller already has them. with_rows: also return the segments of
    each row, for the rollout dump. Does not synchronize with the device.
    """
    terms = terms or sspo_token_terms(
        old_log_prob=old_log_prob,
        log_prob=log_prob,
        advantages=advantages,
        response_mask=response_mask,
        segment_ids=segment_ids,
        entropy=entropy,
        entropy_low=entropy_low,
        entropy_high=entropy_high,
        **settings,
    )
    segments, h = terms.segments, terms.entropy
    exists = segments.length > 0
    at_lower = terms.ratio < terms.lower
    clipped = segment_sums(terms.clipped, segments)

    per_row = exists.sum(dim=1)
    log_ratio, losses = terms.log_ratio, terms.advantages.neg()
    clamped = log_ratio.clamp(-VANILLA_MAX_LOG_RATIO, VANILLA_MAX_LOG_RATIO)
    of_tokens = [(per_row > 0).sum(), (per_row == 1).sum()]
    of_others = _clips_of_others(clamped.exp_(), _response_ratio(log_ratio, segments.valid), losses)
    codes = count_each(_codes(terms.clipped, of_others, segments), CODES)
    weights = at_tokens(terms.ratio.nan_to_num(0.0), segments).mul_(losses)
    heaviest = weights.amax() if weights.numel() else weights.new_tensor(-torch.inf)
    del clamped, losses, weights
    of_tokens += finite_sum(log_ratio)
    if entropy is None:
        of_tokens += [per_row.new_zeros(())] * 2
    else:
        of_tokens += finite_sum(*valid_only(segments.valid, at_least_float32(entropy)))
    # h * 0 is NaN where h is not finite; torch's isfinite takes twice as long.
    has_entropy = torch.zeros_like(exists) if entropy is None else exists & (h * 0 == 0)
    of_segments = (segments.length, clipped, at_lower, has_entropy, h, terms.ratio, terms.lower, terms.upper)
    rows = max(1, BLOCK // max(1, exists.shape[1]), -(-exists.shape[0] // BLOCKS))
    blocks = [
        _of_block(*part, entropy_low=entropy_low, entropy_high=entropy_high)
        for part in zip(*(x.split(rows) for x in of_segments), strict=True)
    ]
    sums, smallest, largest = (torch.stack(part) for part in zip(*blocks, strict=True))
    maps = []
    if with_rows:
        maps += [segments.length, torch.where(clipped > 0, torch.where(at_lower, -1, 1), 0), terms.ratio]
        old, new = at_least_float32(old_log_prob), at_least_float32(log_prob.detach())
        of_valid = valid_only(segments.valid, total_variation(old, new), binary_kl(old, new))
        maps += [segment_means(values, segments) for values in (terms.advantages, *of_valid)]
    if entropy is not None:
        maps.append(h)
    packed = [
        torch.stack(of_tokens),
        codes.double(),
        sums.sum(dim=0).flatten(),
        smallest.amin(dim=0),
    ]
    packed += [largest.amax(dim=0), heaviest.double()[None]]
    packed += [torch.where(exists, values, torch.nan).flatten() for values in maps]
    return Observation(torch.cat(packed), (exists.shape[0], exists.shape[1]), entropy is not None, with_rows)


def _of_block(length, clipped, at_lower, has_entropy, h, ratio, lower, upper, entropy_low: float, entropy_high: float):
    """(sums [SUMMED, GROUPS], min, max of RATIO_AND_BOUNDS) over the segments of a block of rows, in float64."""
    exists = length > 0
    not_low, high = h >= entropy_low, h > entropy_high
    in_band = (has_entropy & ~not_low, has_entropy & not_low & ~high, has_entropy & high)
    groups = torch.stack((*in_band, exists & ~has_entropy)).flatten(1).double()
    sides = torch.stack((length - clipped, clipped * at_lower, clipped * ~at_lower)).double()
    ranges = torch.stack((ratio, lower, upper)).double()
    finite = exists & (ranges * 0 == 0)
    to_sum = (sides, sides / length.clamp(min=1), finite.double(), ranges.nan_to_num(0.0, 0.0, 0.0))
    summed = torch.cat(to_sum).flatten(1)
    sums = torch.stack([(summed * group).sum(dim=1) for group in groups], dim=1)
    nowhere = torch.where(exists, 0.0, torch.inf)
    lowest = (ranges + nowhere).nan_to_num_(torch.inf, torch.inf, -torch.inf)
    highest = (ranges - nowhere).nan_to_num_(-torch.inf, -torch.inf, -torch.inf)
    smallest = torch.nn.functional.pad(lowest.flatten(1), (0, 1), value=torch.inf).amin(dim=1)
    largest = torch.nn.functional.pad(highest.flatten(1), (0, 1), value=-torch.inf).amax(dim=1)
    return sums, smallest, largest


def finite_sum(values: Tensor) -> tuple[Tensor, Tensor]:
    """(sum of the finite values, number of NaN or infinite ones), in float64. values: 0 where masked."""
    nonfinite = (values * 0).nan_to_num_(1.0)
    return values.nan_to_num(0.0, 0.0, 0.0).sum(dtype=torch.float64), nonfinite.sum(dim=1).sum(dtype=torch.float64)


def _snap(segments: np.ndarray) -> np.ndarray:
    """Round away float error: the shares of a segment's tokens add up to 1, so complete segments stay integers."""
    nearest = segments.round()
    return np.where(abs(segments - nearest) < 1e-9, nearest, segments)


def _response_ratio(log_ratio: Tensor, valid: Tensor) -> Tensor:
    """verl's gspo ratio, with verl's dtype and order of operations, so that the same tokens are clipped."""
    mean = log_ratio.sum(dim=1, keepdim=True) / valid.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.exp(mean.clamp(max=MAX_LOG_RATIO))


def _clips_of_others(of_tokens: Tensor, of_responses: Tensor, losses: Tensor) -> Iterator[Tensor]:
    """Yield, per token, whether it is clipped by GRPO (token ratio) and by GSPO (response ratio) with each of its two
    bounds, as in verl's pg_clipfrac: if the clipped term is the larger loss. losses: -A. Overwrites of_tokens."""
    free = of_tokens * losses
    yield of_tokens.clamp_(*GRPO_BOUNDS).mul_(losses) > free
    torch.mul(of_responses, losses, out=free)
    for bounds in (GSPO_BOUNDS, GSPO_WIDE_BOUNDS):
        yield torch.mul(of_responses.clamp(*bounds), losses, out=of_tokens) > free


def _codes(ours: Tensor, of_others: Iterator[Tensor], segments: Segmentation) -> Tensor:
    """uint8 code per token: a bit per algorithm that clips it, then the index of its segment's length in LENGTHS."""
    place = torch.zeros_like(segments.length, dtype=torch.uint8)
    for longest in LENGTHS[:-1]:
        place += (segments.length > longest).view(torch.uint8)
    codes = at_tokens(place << ALGORITHM_BITS, segments)
    codes += ours.view(torch.uint8)
    for bit, clipped in enumerate(of_others, start=1):
        codes.add_(clipped.view(torch.uint8), alpha=1 << bit)
    return codes.add_((~segments.valid).view(torch.uint8), alpha=NOWHERE)


def _by_length(codes: np.ndarray) -> np.ndarray:
    """BY_LENGTH, flattened, from the number of tokens with each code."""
    found = codes[: len(LENGTHS) << ALGORITHM_BITS].reshape(len(LENGTHS), -1)
    each = np.arange(found.shape[1])
    rows = [found, *(found * (each >> bit & 1) for bit in range(ALGORITHM_BITS))]
    return np.concatenate([row.sum(axis=1) for row in rows])
