"""The entropy of next-token distributions: no gradient, and no second tensor of the logits' size."""

import torch
from jaxtyping import Float
from torch import Tensor

# The logits are read in pieces, and this is the size of the largest tensor that is made of one, in float32. On CUDA one
# such tensor lives at a time; on a CPU there are two, for it converts bfloat16 before it takes the softmax.
CHUNK_BYTES = 64 * 2**20


@torch.no_grad()
def token_entropy(
    logits: Float[Tensor, "*tokens vocabulary"], chunk_bytes: int = CHUNK_BYTES
) -> Float[Tensor, "*tokens"]:
    """The entropy of the softmax of each row of logits.

        H = - sum over v of p_v log p_v,   p = softmax(logits)

    logits: [*tokens, vocabulary], any floating dtype; -inf is a token that cannot come. Not changed.
    chunk_bytes: see CHUNK_BYTES; a piece has one row at least. The result does not depend on it.

    Returns [*tokens] in float32 (float64 for float64), in nats, without gradient. NaN where a row holds NaN or +inf,
    or nothing but -inf.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    entropy = torch.empty(logits.shape[:-1], dtype=dtype, device=logits.device)
    if logits.dim() > 2:  # one by one: to flatten a tensor that is not contiguous is to copy all of it
        for part, its_entropy in zip(logits, entropy, strict=True):
            its_entropy.copy_(token_entropy(part, chunk_bytes))
        return entropy
    rows, out = torch.atleast_2d(logits), entropy.view(-1)
    count = max(1, chunk_bytes // (rows.shape[1] * dtype.itemsize))
    for begin in range(0, len(rows), count):
        out[begin : begin + count] = _entropy(rows[begin : begin + count], dtype)
    return entropy


def _entropy(logits: Tensor, dtype: torch.dtype) -> Tensor:
    """Entropy of each row. `entr` is -p log p, and 0 at p = 0; it takes the place of the probabilities."""
    probabilities = logits.softmax(dim=-1, dtype=dtype)
    return torch.special.entr(probabilities, out=probabilities).sum(dim=-1)
