"""Invariances of every segmenter: the loss of a batch depends on its tokens, not on how they are batched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from sspo_verl.segmenters import Segmenter


class Batch(NamedTuple):
    """The arguments of a segmenter, all [batch, length]."""

    token_ids: Tensor
    response_mask: Tensor
    entropy: Tensor

    def of(self, rows) -> Batch:
        return Batch(*(values[rows] for values in self))


def random_batch(vocabulary: int, seed: int = 0, rows: int = 40, length: int = 60) -> Batch:
    """Rows with a few different tokens each: empty, full, padded and with holes."""
    g = torch.Generator().manual_seed(seed)
    few = torch.randint(0, vocabulary, (rows, 8), generator=g)
    tokens = few.gather(1, torch.randint(0, 8, (rows, length), generator=g))
    used = torch.randint(0, length + 1, (rows, 1), generator=g)
    used[0], used[1] = 0, length
    holes = (torch.rand(rows, length, generator=g) < 0.1) & (torch.rand(rows, 1, generator=g) < 0.5)
    mask = (torch.arange(length) < used) & ~holes
    return Batch(tokens, mask.long(), torch.rand(rows, length, generator=g))


def text_batch(token_ids: list[list[int]], seed: int = 0) -> Batch:
    """One row per text, padded; every other row has a masked stretch, like tool output."""
    g = torch.Generator().manual_seed(seed)
    length = max(map(len, token_ids))
    tokens = torch.tensor([row + [0] * (length - len(row)) for row in token_ids])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in token_ids])
    for i in range(0, len(token_ids), 2):
        third = len(token_ids[i]) // 3
        mask[i, third : 2 * third] = 0
    return Batch(tokens, mask, torch.rand(tokens.shape, generator=g))


def ids_count_up(cut: Segmenter, batch: Batch) -> str | None:
    ids, mask = cut(*batch), batch.response_mask.bool()
    if ids.dtype != torch.int64 or ids.shape != mask.shape:
        return f"returns {ids.dtype} {list(ids.shape)}, not int64 {list(mask.shape)}"
    if ((ids == -1) != ~mask).any():
        return "-1 is not exactly where masked"
    for i, row in enumerate(ids.tolist()):
        valid = [j for j in row if j >= 0]
        if valid and valid[0] != 0:
            return f"row {i} begins with {valid[0]}, not 0"
        if any(b - a not in (0, 1) for a, b in pairwise(valid)):
            return f"row {i} does not go up by 0 or 1"
    return None


def two_runs(cut: Segmenter, batch: Batch) -> str | None:
    before = [values.clone() for values in batch]
    first, second = cut(*batch), cut(*batch)
    if any(not torch.equal(x, y) for x, y in zip(batch, before, strict=True)):
        return "it writes to its arguments"
    return _rows_that_differ(first, second)


def micro_batches(cut: Segmenter, batch: Batch) -> str | None:
    rows = len(batch.token_ids)
    for size in (1, 3, rows - 1):
        parts = [cut(*batch.of(slice(start, start + size))) for start in range(0, rows, size)]
        if problem := _rows_that_differ(torch.cat(parts), cut(*batch)):
            return f"micro-batches of {size}: {problem}"
    return None


def order_of_rows(cut: Segmenter, batch: Batch) -> str | None:
    order = torch.randperm(len(batch.token_ids), generator=torch.Generator().manual_seed(1))
    return _rows_that_differ(cut(*batch.of(order)), cut(*batch)[order])


def padding(cut: Segmenter, batch: Batch) -> str | None:
    token = int(batch.token_ids.max())
    for width in ((0, 1), (0, 37), (5, 0), (3, 8)):
        tokens = pad(batch.token_ids, width, value=token)
        padded = cut(tokens, pad(batch.response_mask, width), pad(batch.entropy, width, value=torch.nan))
        if problem := _rows_that_differ(padded, pad(cut(*batch), width, value=-1)):
            return f"{width[0]} tokens on the left and {width[1]} on the right: {problem}"
    return None


def what_is_masked(cut: Segmenter, batch: Batch) -> str | None:
    valid, expected = batch.response_mask.bool(), cut(*batch)
    some = [int(token) for token in batch.token_ids.flatten()[:20].unique()]
    for token, entropy in [(-1, torch.nan), (2**40, torch.inf), *((token, 99.0) for token in some)]:
        found = cut(batch.token_ids.where(valid, token), batch.response_mask, batch.entropy.where(valid, entropy))
        if problem := _rows_that_differ(found, expected):
            return f"id {token} and entropy {entropy} under the mask: {problem}"
    return None


def ids_outside_the_vocabulary(cut: Segmenter, batch: Batch) -> str | None:
    """Ids outside the vocabulary: a model's embedding may be larger, and such ids may be sampled."""
    tokens = batch.token_ids.clone()
    tokens[:, ::5] = 2**31 - 1
    return ids_count_up(cut, batch._replace(token_ids=tokens))


def empty_batches(cut: Segmenter, batch: Batch) -> str | None:
    for shape in ((0, 7), (3, 0)):
        nothing = torch.zeros(shape, dtype=torch.int64)
        if tuple(cut(nothing, nothing, nothing.float()).shape) != shape:
            return f"of {list(shape)} it returns a different shape"
    return None


def kinds_of_mask(cut: Segmenter, batch: Batch) -> str | None:
    for dtype in (torch.bool, torch.float32):
        if problem := _rows_that_differ(cut(*batch._replace(response_mask=batch.response_mask.to(dtype))), cut(*batch)):
            return f"a mask of {dtype}: {problem}"
    return None


INVARIANCES: dict[str, Callable[[Segmenter, Batch], str | None]] = {
    "ids from 0, up by 0 or 1, -1 where masked": ids_count_up,
    "the same twice": two_runs,
    "cut into micro-batches": micro_batches,
    "order of rows": order_of_rows,
    "padding left and right": padding,
    "what is under the mask": what_is_masked,
    "kinds of mask": kinds_of_mask,
    "ids outside the vocabulary": ids_outside_the_vocabulary,
    "empty batches": empty_batches,
}


def broken(cut: Segmenter, batches: dict[str, Batch]) -> Iterator[tuple[str, str | None]]:
    """(invariance, how it is broken or None) for each. batches: by name."""
    for name, look in INVARIANCES.items():
        found = None
        for what, batch in batches.items():
            try:
                found = look(cut, Batch(*(values.clone() for values in batch)))
            except Exception as error:  # whatever a user's segmenter raises
                found = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            if found:
                found = f"on {what}: {found}"
                break
        yield name, found


def _rows_that_differ(found: Tensor, expected: Tensor) -> str | None:
    if found.shape != expected.shape:
        return f"{list(found.shape)} in place of {list(expected.shape)}"
    rows = (found != expected).any(dim=1).nonzero().flatten().tolist()
    return f"different segments in {len(rows)} of {len(found)} rows (the first is {rows[0]})" if rows else None
