"""What one micro-batch adds to the metrics: counts, sums, extremes, reduced on the device and fetched in one piece.

Nothing here divides: means and fractions are taken once per step, of all micro-batches and ranks together, by
`finalize.metrics`. Pure torch. Source: ours; what is counted is what arXiv 2511.04256 plans to compare.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sspo_verl.loss import MAX_LOG_RATIO, TokenTerms, segment_sums, sspo_token_terms

GRPO_BOUNDS = (0.8, 1.2)  # 1 - 0.2 and 1 + 0.2
GSPO_BOUNDS = (1 - 3e-4, 1 + 4e-4)  # arXiv 2507.18071, section 5.1
VANILLA_MAX_LOG_RATIO = 20.0  # where verl's vanilla loss clamps, on both sides

BANDS, SIDES = 3, 3  # low, mid, high entropy; not clipped, clipped at the lower bound, at the upper
RATIO_AND_BOUNDS = ("ratio", "lower_bound", "upper_bound")
SUMMED = 2 * SIDES + len(RATIO_AND_BOUNDS) + 1  # what is added up over segments: see `observe`
# Segments are counted in blocks of rows, so that the 25 numbers that each needs for it are not all there at once: in
# one block where they have few places, and never in so many that a GPU would be kept waiting for the next.
BLOCK, BLOCKS = 1 << 14, 8
SCALARS = ("responses", "single_segment", "grpo_clipped", "gspo_clipped", "log_ratio", "entropy")


@dataclass(frozen=True)
class Segments:
    """The segments of each row of a micro-batch, in order: one array per row in each list."""

    lengths: list[np.ndarray]  # tokens
    entropies: list[np.ndarray] | None  # H in nats
    clips: list[np.ndarray]  # -1 clipped at the lower bound, 1 at the upper, 0 not


@dataclass(frozen=True)
class Counts:
    """What `finalize.metrics` needs of one micro-batch; small, and ready to be pickled."""

    scalars: dict[str, float]  # SCALARS; log_ratio and entropy are sums over valid tokens
    tokens: np.ndarray  # [BANDS, SIDES]
    segments: np.ndarray  # [BANDS, SIDES]; a segment counts in each cell with the share of its tokens
    ratio_and_bounds: np.ndarray  # [RATIO_AND_BOUNDS, 3]: sum over segments, least, greatest
    segment_entropy: np.ndarray | None  # H of each segment in nats

    @property
    def clipped(self) -> float:
        """Tokens whose clipped term counts."""
        return float(self.tokens[:, 1:].sum())


@dataclass(frozen=True)
class Observation:
    """A micro-batch's counts, still on the device."""

    packed: Tensor  # float64, 1-D
    shape: tuple[int, int]
    has_entropy: bool
    has_rows: bool

    def fetch(self) -> tuple[Counts, Segments | None]:
        """(counts, the rows' segments if they were asked for), on the host, which waits for the device this once."""
        values = self.packed.cpu().numpy()
        of_tokens, sums, least, greatest, maps = np.split(values, np.cumsum([5, SUMMED * (BANDS + 1), 3, 3]))
        sums = sums.reshape(SUMMED, BANDS + 1)
        maps = maps.reshape(2 * self.has_rows + self.has_entropy, *self.shape)
        rows = None
        if self.has_rows:
            starts = [~np.isnan(row) for row in maps[0]]
            lengths, clips, *entropies = (
                [row[start] for row, start in zip(of_kind, starts, strict=True)] for of_kind in maps
            )
            rows = Segments(lengths, entropies[0] if entropies else None, clips)
        entropy = maps[-1][~np.isnan(maps[-1])] if self.has_entropy else None
        counts = Counts(
            scalars=dict(zip(SCALARS, [*of_tokens.tolist(), float(sums[-1, BANDS])], strict=True)),
            tokens=sums[:SIDES, :BANDS].T,
            segments=_snap(sums[SIDES : 2 * SIDES, :BANDS].T),
            ratio_and_bounds=np.stack((sums[2 * SIDES : -1, BANDS], least, greatest), axis=1),
            segment_entropy=entropy,
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
    """What SSPO does to a batch. Arguments and errors as of `loss.sspo_token_loss`; all tensors [batch, length].

    terms: those of the loss on this batch, from a caller that has them already. with_rows: also the segments of each
    row, for the rollout dump. Waits for the device nowhere.
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
    exists, h = terms.length > 0, terms.entropy
    at_lower = terms.ratio < terms.lower
    clipped = segment_sums(terms.clipped, terms.column, exists.shape[1])

    per_row = exists.sum(dim=1)
    log_ratio, losses = terms.log_ratio, terms.advantages.neg()
    clamped = log_ratio.clamp(-VANILLA_MAX_LOG_RATIO, VANILLA_MAX_LOG_RATIO)
    of_tokens = torch.stack(
        [
            (per_row > 0).sum(),
            (per_row == 1).sum(),
            _clipped(clamped.exp_(), losses, GRPO_BOUNDS),
            _clipped(_response_ratio(log_ratio, terms.valid), losses, GSPO_BOUNDS),
            log_ratio.sum(dtype=torch.float64),
        ]
    )
    del clamped, losses
    of_segments = (terms.length, clipped, at_lower, h, terms.ratio, terms.lower, terms.upper)
    rows = max(1, BLOCK // max(1, exists.shape[1]), -(-exists.shape[0] // BLOCKS))
    blocks = [
        _of_block(*part, entropy_low=entropy_low, entropy_high=entropy_high)
        for part in zip(*(x.split(rows) for x in of_segments), strict=True)
    ]
    sums, least, greatest = (torch.stack(part) for part in zip(*blocks, strict=True))
    maps = []
    if with_rows:
        maps += [terms.length, torch.where(clipped > 0, torch.where(at_lower, -1, 1), 0)]
    if entropy is not None:
        maps.append(h)
    packed = [of_tokens, sums.sum(dim=0).flatten(), least.amin(dim=0), greatest.amax(dim=0)]
    packed += [torch.where(exists, values, torch.nan).flatten() for values in maps]
    return Observation(torch.cat(packed), (exists.shape[0], exists.shape[1]), entropy is not None, with_rows)


def _of_block(length, clipped, at_lower, h, ratio, lower, upper, entropy_low: float, entropy_high: float):
    """(sums [SUMMED, BANDS + 1], least and greatest of RATIO_AND_BOUNDS) of the segments of some rows, in float64."""
    exists = length > 0
    not_low, high = h >= entropy_low, h > entropy_high
    bands = torch.stack((~not_low, not_low & ~high, not_low & high, exists)).flatten(1).double()
    sides = torch.stack((length - clipped, clipped * at_lower, clipped * ~at_lower)).double()
    ranges = torch.stack((ratio, lower, upper)).double()
    summed = torch.cat((sides, sides / length.clamp(min=1), ranges, (h.double() * length)[None])).flatten(1)
    sums = torch.stack([(summed * band).sum(dim=1) for band in bands], dim=1)
    nowhere = torch.where(exists, 0.0, torch.inf)
    least = torch.nn.functional.pad((ranges + nowhere).flatten(1), (0, 1), value=torch.inf).amin(dim=1)
    greatest = torch.nn.functional.pad((ranges - nowhere).flatten(1), (0, 1), value=-torch.inf).amax(dim=1)
    return sums, least, greatest


def _snap(segments: np.ndarray) -> np.ndarray:
    """The shares of a segment's tokens add up to 1 but for float error: whole segments stay whole numbers."""
    whole = segments.round()
    return np.where(abs(segments - whole) < 1e-9, whole, segments)


def _response_ratio(log_ratio: Tensor, valid: Tensor) -> Tensor:
    """verl's gspo ratio, in its own dtype and order of operations, so that the same tokens are clipped."""
    mean = log_ratio.sum(dim=1, keepdim=True) / valid.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.exp(mean.clamp(max=MAX_LOG_RATIO))


def _clipped(ratio: Tensor, losses: Tensor, bounds: tuple[float, float]) -> Tensor:
    """How many tokens have a clipped term that counts: as verl's pg_clipfrac, but a count. losses: -A."""
    return (losses * ratio.clamp(*bounds) > losses * ratio).sum()
