"""Sums and means per segment: fast, and bitwise reproducible, because tokens are added one after another in order.

Token tensors are [batch, length]. Segment tensors are [batch, segments]: segment j of row i is at [i, j], and beyond
a row's last segment the length is 0.
"""

from typing import NamedTuple

import torch
from torch import Tensor

INTEGERS = {4: torch.int32, 8: torch.int64}  # by size in bytes


class Segments(NamedTuple):
    """The segments of a batch, computed once by `locate` and shared by every sum over them."""

    valid: Tensor  # bool, per token
    index_in_row: Tensor  # int64, per token: the segment's index in its row; 0 where not valid
    length: Tensor  # int32, per segment: number of tokens
    offsets: Tensor | None  # int64 [batch, segments + 1]: where each begins and the last one ends; None on a CPU


def locate(segment_ids: Tensor, valid: Tensor) -> Segments:
    """Segments of the `valid` tokens. segment_ids: 0, 1, 2, ... along a row where valid."""
    (index,) = valid_only(valid, segment_ids)
    offsets = None if _scatter_is_ordered(index) else _offsets(index)
    # On a CPU, as wide as the row with the most segments. Elsewhere one per token: reading the max would synchronize.
    width = int(index.amax()) + 1 if offsets is None and index.numel() else index.shape[1]
    return Segments(valid, index, _sums(valid, index, width, offsets), offsets)


def segment_sums(values: Tensor, segments: Segments) -> Tensor:
    """[batch, segments]: sum of `values` [batch, length], 0 where not valid, over each segment, in token order.

    Returns float64, or int32 for booleans (a count of the true values).
    """
    return _sums(values, segments.index_in_row, segments.length.shape[1], segments.offsets)


def _sums(values: Tensor, index: Tensor, width: int, offsets: Tensor | None) -> Tensor:
    dtype = torch.int32 if values.dtype == torch.bool else torch.float64
    if offsets is None:
        return torch.zeros(index.shape[0], width, dtype=dtype).scatter_add_(1, index, values.to(dtype))
    # In two dimensions torch uses its own CUDA kernel, in which one thread sums one segment. In one dimension it uses
    # CUB, which sums as a tree (aten/src/ATen/native/cuda/SegmentReduce.cu).
    return torch.segment_reduce(values.double(), "sum", offsets=offsets, axis=1, unsafe=True).to(dtype)


def segment_means(values: Tensor, segments: Segments, power: float = 1.0) -> Tensor:
    """[batch, segments]: each segment's sum divided by its length to the `power`: 1 gives the mean, 0 the sum.

    values: 0 where not valid. Returns values' dtype; 0 where there is no segment.
    """
    length = segments.length.clamp(min=1)
    if power != 1:
        length = length.double().log_().mul_(power).exp_()
    return segment_sums(values, segments).div_(length).to(values.dtype)


def count_each(codes: Tensor, size: int) -> Tensor:
    """int64 [size]: how often each code occurs. codes: integers from 0 to size - 1, of any shape."""
    codes = codes.flatten()
    if _scatter_is_ordered(codes):
        return torch.bincount(codes, minlength=size)
    # On CUDA bincount reads the largest code, which synchronizes. Integer sums are the same in any order.
    return codes.new_zeros(size, dtype=torch.int64).index_add_(0, codes.long(), torch.ones_like(codes.long()))


def at_tokens(of_segments: Tensor, segments: Segments) -> Tensor:
    """[batch, length]: the value of each token's segment; for tokens that are not valid, that of the first segment."""
    return of_segments.gather(1, segments.index_in_row)


def valid_only(valid: Tensor, *tensors: Tensor) -> list[Tensor]:
    """The tensors with 0 where not valid, even over inf or NaN. Done on the bits: on a CPU `torch.where` takes five
    times as long."""
    integers = {size: INTEGERS[size] for size in {x.element_size() for x in tensors}}
    bits = {size: valid.to(dtype).neg_() for size, dtype in integers.items()}  # all 1 where valid
    return [(x.view(integers[x.element_size()]) & bits[x.element_size()]).view(x.dtype) for x in tensors]


def at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _scatter_is_ordered(index: Tensor) -> bool:
    """Whether scatter_add adds in order. On CUDA it uses atomics: the order would change from run to run."""
    return index.device.type == "cpu"


def _offsets(index: Tensor) -> Tensor:
    """[batch, segments + 1]; masked tokens, whose values are 0, are included in the segment before them."""
    last = index.cummax(dim=1).values
    every = torch.arange(-1, index.shape[1], device=index.device).expand(index.shape[0], -1).contiguous()
    return torch.searchsorted(last, every, right=True)
