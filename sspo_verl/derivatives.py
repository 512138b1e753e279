"""Autograd functions with explicit derivatives."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from sspo_verl.sums import Segments, at_least_float32, at_tokens, locate, segment_means, valid_only


def with_derivative(x: Tensor, values: Tensor, derivative: Tensor) -> Tensor:
    """`values`, an elementwise function of x with a known `derivative`: one saved tensor, one backward product."""
    return _KnownDerivative.apply(x, values, derivative) if x.requires_grad else values


class _KnownDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, values, derivative):
        ctx.save_for_backward(derivative)
        ctx.dtype = x.dtype
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        (derivative,) = ctx.saved_tensors
        return (grad * derivative).to(ctx.dtype), None, None


def segment_mean(
    values: Float[Tensor, "batch length"], segment_ids: Int64[Tensor, "batch length"]
) -> Float[Tensor, "batch length"]:
    """Segment mean at each valid token; 0 where masked.

        mean_{i,t} = 1/|y_{i,j(t)}| * sum_{t' in y_{i,j(t)}} values_{i,t'}

    segment_ids: -1 where masked; otherwise 0, 1, 2, ... along a row, with masked tokens anywhere in between. Values
    under the mask are ignored, even inf or NaN.

    Returns values' dtype, at least float32. Each segment is summed in float64, one token after another in order: the
    same bits on every run, whatever else is in the batch, and no atomics on CUDA.
    Source: ours.
    """
    return _SegmentMean.apply(values, locate(segment_ids, segment_ids >= 0))


class _SegmentMean(torch.autograd.Function):
    """Segment mean; its backward pass is the same segment mean, of the gradients."""

    @staticmethod
    def forward(ctx, values, segments):
        ctx.segments = segments
        ctx.dtype = values.dtype
        return _token_means(values, segments)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        return _token_means(grad, ctx.segments).to(ctx.dtype), None


def _token_means(values: Tensor, segments: Segments) -> Tensor:
    (values,) = valid_only(segments.valid, at_least_float32(values))
    (means,) = valid_only(segments.valid, at_tokens(segment_means(values, segments), segments))
    return means
