"""Entropy of next-token distributions, without gradient and without a second tensor of the logits' size."""

import torch
from jaxtyping import Float
from torch import Tensor

# The logits are processed in chunks; this is the size of the largest temporary per chunk, in float32. CUDA needs one
# such tensor at a time; a CPU needs two, because it converts bfloat16 before taking the softmax.
CHUNK_BYTES = 64 * 2**20


@torch.no_grad()
def token_entropy(
    logits: Float[Tensor, "*tokens vocabulary"], chunk_bytes: int = CHUNK_BYTES
) -> Float[Tensor, "*tokens"]:
    """Entropy of the softmax of each row of logits.

        H = - sum over v of p_v log p_v,   p = softmax(logits)

    logits: [*tokens, vocabulary], any floating dtype; -inf is a token of probability 0. Not modified.
    chunk_bytes: see CHUNK_BYTES; a chunk has at least one row. The result does not depend on it.

    Returns [*tokens] in float32 (float64 for float64), in nats, without gradient. NaN where a row contains NaN or
    +inf, or nothing but -inf.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    entropy = torch.empty(logits.shape[:-1], dtype=dtype, device=logits.device)
    if logits.dim() > 2:  # one by one: flattening a non-contiguous tensor would copy all of it
        for part, its_entropy in zip(logits, entropy, strict=True):
            its_entropy.copy_(token_entropy(part, chunk_bytes))
        return entropy
    rows, out = torch.atleast_2d(logits), entropy.view(-1)
    count = max(1, chunk_bytes // (rows.shape[1] * dtype.itemsize))
    for begin in range(0, len(rows), count):
        out[begin : begin + count] = _entropy(rows[begin : begin + count], dtype)
    return entropy


def _entropy(logits: Tensor, dtype: torch.dtype) -> Tensor:
    """Entropy of each row. `entr` is -p log p, and 0 at p = 0; it overwrites the probabilities."""
    probabilities = logits.softmax(dim=-1, dtype=dtype)
    return torch.special.entr(probabilities, out=probabilities).sum(dim=-1)
