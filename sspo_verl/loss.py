"""SSPO's loss, token by token: segment ratios, entropy-adaptive bounds, clipped surrogate (arXiv 2511.04256)."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable

# exp(10) is about 22,000: far outside every bound, far inside float32. verl's gspo clamps at the same value.
MAX_LOG_RATIO = 10.0


class TokenTerms(NamedTuple):
    """What the loss is made of, without gradient but for `loss`. Segment j of row i stands at [i, j] in the tensors of
    segments, which may have more columns than a row has segments: there the length is 0."""

    # of tokens, [batch, length], all 0 where masked
    loss: Tensor
    valid: Tensor  # bool
    clipped: Tensor  # bool: the clipped term is the one that counts, so the token has no gradient
    column: Tensor  # int64: where the token's segment stands in its row
    log_ratio: Tensor
    advantages: Tensor
    # of segments, [batch, columns]
    ratio: Tensor
    lower: Tensor
    upper: Tensor
    entropy: Tensor  # H; 0 where no entropy was given
    length: Tensor  # how many tokens the segment has


def sspo_token_loss(
    old_log_prob: Float[Tensor, "batch length"],
    log_prob: Float[Tensor, "batch length"],
    advantages: Float[Tensor, "batch length"],
    response_mask: Shaped[Tensor, "batch length"],
    segment_ids: Int64[Tensor, "batch length"],
    entropy: Float[Tensor, "batch length"] | None,
    clip_low: float,
    clip_high: float,
    clip_low_tight: float,
    alpha: float,
    entropy_low: float,
    entropy_high: float,
    entropy_clip: bool,
) -> Float[Tensor, "batch length"]:
    """SSPO's loss of each token, to be reduced by verl's `agg_loss`.

        l_{i,t} = -min( s_{i,t} A_{i,t},  clip(s_{i,t}, lower_{i,j(t)}, upper_{i,j(t)}) A_{i,t} )

    old_log_prob, log_prob: log pi_old and log pi_theta of the sampled token, in nats. advantages: A.
    response_mask: non-zero where the token counts. segment_ids: j(t), from `segments.segment_ids`.
    entropy: h, in nats; may be None with entropy_clip=False. The settings are those of `clip_bounds`.

    Returns float32 (float64 for float64 input), 0 where masked; what stands under the mask, be it inf or
    NaN, changes nothing. The gradient flows to log_prob alone.
    Raises ValueError if entropy is missing although entropy_clip is on.
    Source: arXiv 2511.04256.
    """
    return sspo_token_terms(
        old_log_prob=old_log_prob,
        log_prob=log_prob,
        advantages=advantages,
        response_mask=response_mask,
        segment_ids=segment_ids,
        entropy=entropy,
        clip_low=clip_low,
        clip_high=clip_high,
        clip_low_tight=clip_low_tight,
        alpha=alpha,
        entropy_low=entropy_low,
        entropy_high=entropy_high,
        entropy_clip=entropy_clip,
    ).loss


def sspo_token_terms(
    old_log_prob: Float[Tensor, "batch length"],
    log_prob: Float[Tensor, "batch length"],
    advantages: Float[Tensor, "batch length"],
    response_mask: Shaped[Tensor, "batch length"],
    segment_ids: Int64[Tensor, "batch length"],
    entropy: Float[Tensor, "batch length"] | None,
    entropy_clip: bool,
    **bounds: float,
) -> TokenTerms:
    """`sspo_token_loss` with the terms that it is made of, for diagnostics; arguments and errors as there."""
    if entropy is None and entropy_clip:
        raise ValueError("entropy_clip=True needs the tokens' entropy; pass it, or set entropy_clip=False.")

    valid = response_mask.bool() & (segment_ids >= 0)
    column = _valid_only(segment_ids, valid)
    log_ratio = _valid_only(_at_least_float32(log_prob.detach()) - _at_least_float32(old_log_prob), valid)
    advantages = _valid_only(_at_least_float32(advantages.detach()), valid)
    entropy = None if entropy is None else _valid_only(_at_least_float32(entropy.detach()), valid)

    # Of each segment: its ratio, bounds, and what becomes of the ratio within them.
    columns = _columns(column)
    length = segment_sums(valid, column, columns)
    h = torch.zeros_like(length, dtype=log_ratio.dtype) if entropy is None else _mean(entropy, column, length)
    del entropy
    ratio = _mean(log_ratio, column, length)
    held = ratio > MAX_LOG_RATIO
    ratio = ratio.clamp_(max=MAX_LOG_RATIO).exp_()
    lower, upper = clip_bounds(h, entropy_clip=entropy_clip, **bounds)

    # Of each token. d plain / d log_prob = plain, since the token's ratio is sg[s] pi / sg[pi]; the clipped term is a
    # constant, and so is a ratio that is held at the ceiling.
    plain = ratio.gather(1, column).mul_(advantages).neg_()
    loss = torch.clamp(ratio, lower, upper).gather(1, column).mul_(advantages).neg_()
    torch.maximum(loss, plain, out=loss)
    clipped = loss > plain
    if log_prob.requires_grad:
        free = ~(clipped | held.gather(1, column))
        loss = _KnownDerivative.apply(log_prob, loss, plain.mul_(free))
    return TokenTerms(loss, valid, clipped, column, log_ratio, advantages, ratio, lower, upper, h, length)


class _KnownDerivative(torch.autograd.Function):
    """`values`, of which `derivative` is known: one saved tensor and one product in the backward pass."""

    @staticmethod
    def forward(ctx, log_prob, values, derivative):
        ctx.save_for_backward(derivative)
        ctx.dtype = log_prob.dtype
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        (derivative,) = ctx.saved_tensors
        return (grad * derivative).to(ctx.dtype), None, None


def segment_mean(
    values: Float[Tensor, "batch length"], segment_ids: Int64[Tensor, "batch length"]
) -> Float[Tensor, "batch length"]:
    """The mean of its segment, for each valid token; 0 where masked.

        mean_{i,t} = 1/|y_{i,j(t)}| * sum_{t' in y_{i,j(t)}} values_{i,t'}

    segment_ids: -1 where masked; the others count 0, 1, 2, ... along a row, with masked tokens anywhere between
    them. What stands under the mask, be it inf or NaN, changes nothing.

    Returns values' dtype, float32 at least. Every segment is added up in float64, token after token in
    order: the same bits on every run, whatever else is in the batch, and no atomics on CUDA.
    Source: ours.
    """
    return _SegmentMean.apply(values, segment_ids)


class _SegmentMean(torch.autograd.Function):
    """Of a mean within segments the derivative is the same mean: of the gradients."""

    @staticmethod
    def forward(ctx, values, segment_ids):
        ctx.save_for_backward(segment_ids)
        ctx.dtype = values.dtype
        return _token_mean(values, segment_ids)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        (segment_ids,) = ctx.saved_tensors
        return _token_mean(grad, segment_ids).to(ctx.dtype), None


def _token_mean(values: Tensor, segment_ids: Tensor) -> Tensor:
    valid = segment_ids >= 0
    column = _valid_only(segment_ids, valid)
    length = segment_sums(valid, column, _columns(column))
    mean = _mean(_valid_only(_at_least_float32(values), valid), column, length)
    return _valid_only(mean.gather(1, column), valid)


def _mean(values: Tensor, column: Tensor, length: Tensor) -> Tensor:
    """[batch, columns]: the mean of each segment; 0 where there is none."""
    return segment_sums(values, column, length.shape[1]).div_(length.clamp(min=1)).to(values.dtype)


def segment_sums(values: Tensor, column: Tensor, columns: int) -> Tensor:
    """[batch, columns]: `values` [batch, length] added up per segment, token after token in order.

    values: 0 where masked. column: the segment of each token, counted 0, 1, 2, ... along a row; 0 where masked.
    Returns float64, and int32 for a count of what is true.
    """
    if column.device.type == "cpu":
        dtype = torch.int32 if values.dtype == torch.bool else torch.float64
        return torch.zeros(column.shape[0], columns, dtype=dtype).scatter_add_(1, column, values.to(dtype))
    return _sums_of_runs(values, column, columns)


def _sums_of_runs(values: Tensor, column: Tensor, columns: int) -> Tensor:
    """`segment_sums` for CUDA, whose scatter_add is done by atomics: the order of the additions, and so the last bits,
    would change from run to run. Here one thread adds up one run of tokens."""
    dtype = torch.int32 if values.dtype == torch.bool else torch.float64
    if column.numel() == 0:
        return values.new_zeros(column.shape[0], columns, dtype=dtype)
    last = column.cummax(dim=1).values  # masked tokens, which are 0, ride along in the run before them
    every = torch.arange(columns, device=column.device).expand(column.shape[0], columns).contiguous()
    ends = torch.searchsorted(last, every, right=True)
    lengths = ends.diff(dim=1, prepend=torch.zeros_like(ends[:, :1])).view(-1)
    # Flat, so that a row's last run ends where the next row begins.
    sums = torch.segment_reduce(values.double().view(-1), "sum", lengths=lengths, unsafe=True)
    return sums.view(-1, columns).to(dtype)


def _columns(column: Tensor) -> int:
    """How many columns hold all segments: on a CPU as many as are needed; elsewhere one per token, for to ask would
    make the host wait for the device."""
    if column.device.type == "cpu" and column.numel():
        return int(column.amax()) + 1
    return column.shape[1]


def clip_bounds(
    segment_entropy: Float[Tensor, "batch length"],
    clip_low: float,
    clip_high: float,
    clip_low_tight: float,
    alpha: float,
    entropy_low: float,
    entropy_high: float,
    entropy_clip: bool,
) -> tuple[Float[Tensor, "batch length"], Float[Tensor, "batch length"]]:
    """Bounds on the ratio, from the entropy of the subsentence.

        upper_{i,j} = 1 + alpha + H_{i,j}   if H_{i,j} > entropy_high,  else clip_high
        lower_{i,j} = clip_low_tight        if H_{i,j} < entropy_low,   else clip_low

    segment_entropy: H, in nats, one value per token (the mean of its segment).
    entropy_clip: False gives the plain band [clip_low, clip_high] everywhere.

    Returns (lower, upper), bounds on the ratio itself (1 means no change), without gradient.
    Source: arXiv 2511.04256; the values of the constants: ours, see `config.SSPOPolicyLossConfig`.
    """
    h = segment_entropy.detach()
    lower, upper = torch.full_like(h, clip_low), torch.full_like(h, clip_high)
    if not entropy_clip:
        return lower, upper
    return lower.masked_fill_(h < entropy_low, clip_low_tight), torch.where(h > entropy_high, 1 + alpha + h, upper)


def _valid_only(values: Tensor, valid: Tensor) -> Tensor:
    """0 where not valid, be there inf or NaN. Done on the bits: on a CPU `torch.where` takes five times as long."""
    integers = {4: torch.int32, 8: torch.int64}[values.element_size()]
    return (values.view(integers) & valid.to(integers).neg_()).view(values.dtype)


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
