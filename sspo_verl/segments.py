"""Where a response is cut: subsentences at line breaks (arXiv 2511.04256; the rule for blank lines is ours)."""

import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

LINE_BREAK = "\n"
# The table holds two flags per token, so that one look-up answers both questions.
ENDS_LINE = 1  # bit 0: the decoded text holds a line break
BLANK = 2  # bit 1: no text: only white space, a special token, or an id outside the vocabulary


def line_break_table(tokenizer) -> UInt8[Tensor, " vocab"]:
    """The table that `segment_ids` looks tokens up in. Build it once per tokenizer.

    tokenizer: a Hugging Face tokenizer, of which `len`, `decode` and the special tokens are used.

    Returns one uint8 of flags per token id: ENDS_LINE, BLANK, both, or 0 for a token of plain text.
    Raises ValueError if no token holds a line break, for then nothing could ever be cut.
    Source: ours; the paper cuts text, this table cuts the same places on the device.
    """
    size = len(tokenizer)
    texts = _decode_each(tokenizer, size)
    special = set(tokenizer.all_special_ids)
    added = getattr(tokenizer, "added_tokens_decoder", None)
    if isinstance(added, dict):  # transformers' wrapper of Mistral's tokenizers has something else of this name
        special |= {token_id for token_id, token in added.items() if token.special}

    flags = [
        (ENDS_LINE if LINE_BREAK in text else 0) | (BLANK if token in special or not text.strip() else 0)
        for token, text in enumerate(texts)
    ]
    if not any(flag & ENDS_LINE for flag in flags):
        raise ValueError(
            f"No token of {type(tokenizer).__name__} ({size} tokens) holds a line break, so SSPO has nothing to "
            "cut at and would be GSPO. Check actor_rollout_ref.model.path, or train with algorithm=gspo."
        )
    return torch.tensor(flags, dtype=torch.uint8)


def _decode_each(tokenizer, size: int) -> list[str]:
    """The text of every single token. The Rust tokenizer decodes 150,000 of them in a fraction of a second."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return backend.decode_batch([[i] for i in range(size)], skip_special_tokens=False)
    return [tokenizer.decode([i]) for i in range(size)]


@torch.no_grad()
def segment_ids(
    token_ids: Shaped[Tensor, "batch length"],
    response_mask: Shaped[Tensor, "batch length"],
    table: Shaped[Tensor, " vocab"],
) -> Int64[Tensor, "batch length"]:
    """The subsentence that each token belongs to.

        y_i = y_{i,1} y_{i,2} ...,  each y_{i,j} ending with the token that holds a line break

    token_ids: y, any integer dtype. response_mask: m, non-zero where the token counts. table: from
    `line_break_table`, on any device.

    Returns ids 0, 1, 2, ... along each row, -1 where masked. A blank stretch (white space, special tokens)
    joins the segment before it, or the one after it where there is none before; a masked run ends a segment
    and nothing is merged across it, so a blank stretch between two masked runs stands alone.
    Ids outside the table have no text: blank.
    Source: arXiv 2511.04256 (cut at line breaks); blank and masked stretches: ours.

    Vectorised over rows and segments: integer prefix scans only, so the result is exact on every device.
    """
    if token_ids.numel() == 0:
        return token_ids.long()
    valid = response_mask.bool()
    flags = _look_up(table.to(token_ids.device), token_ids)
    # Bytes that are 0 or 1 are looked at as booleans where they lie: on a CPU a comparison takes ten times as long.
    has_text = valid & ~(flags >> 1).view(torch.bool)
    ends_line = valid & (flags & ENDS_LINE).view(torch.bool)

    # Is there text since the last masked token, up to and including this one? And is there text ahead on this line?
    # The first token from here on that settles it is one that has text (yes), or ends the line or is masked (no).
    masked_or_text = has_text | ~valid
    settles = masked_or_text | ends_line
    flag = torch.cat((has_text, has_text.flip(1)))
    text_so_far, text_ahead = _at_last_event(flag, torch.cat((masked_or_text, settles.flip(1)))).chunk(2)
    text_ahead = text_ahead.flip(1)

    starts = valid.clone()
    starts[:, 1:] &= ~valid[:, :-1] | (ends_line[:, :-1] & text_so_far[:, :-1] & text_ahead[:, 1:])
    return starts.cumsum(dim=1, dtype=torch.int32).mul_(valid).sub_(1).long()


def _look_up(table: Tensor, token_ids: Tensor) -> Tensor:
    """Each token's flags. An entry more at either end of the table is for the ids outside of it."""
    index = token_ids.long().clamp(-1, table.numel()).add_(1)
    return torch.nn.functional.pad(table, (1, 1), value=BLANK).index_select(0, index.view(-1)).view(token_ids.shape)


def _at_last_event(flag: Tensor, event: Tensor) -> Tensor:
    """For each token, what `flag` says at the last token up to it where `event` is true; false before the first.

    An event's code is greater than those before it, and odd where the flag is set: the greatest so far is the last.
    """
    length = flag.shape[1]
    even = torch.arange(2, 2 * length + 2, 2, dtype=torch.int32, device=flag.device)
    code = (even + flag) * event
    return (code.cummax(dim=1).values & 1).to(torch.uint8).view(torch.bool)
