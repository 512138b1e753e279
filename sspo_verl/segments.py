"""Segmentation of responses into subsentences at line breaks (arXiv 2511.04256; the rule for blank lines is ours)."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int64, Shaped, UInt8
from torch import Tensor

LINE_BREAK = "\n"
# The table has two flags per token, so that one look-up answers both questions.
ENDS_LINE = 1  # bit 0: the decoded text contains a line break
BLANK = 2  # bit 1: no text: only white space, a special token, or an id outside the vocabulary


def line_break_table(tokenizer) -> UInt8[Tensor, " vocab"]:
    """Look-up table over the vocabulary for `segment_ids`. Build it once per tokenizer.

    tokenizer: a Hugging Face tokenizer; uses its `len`, `decode`, special tokens and, if present, `get_vocab` and the
    added tokens.

    Returns one uint8 of flags per id, up to the largest: ENDS_LINE, BLANK, both, or 0 for a token of plain
    text. An id without a token (a hole in the vocabulary) is BLANK.
    Raises ValueError if no token contains a line break, because nothing could ever be cut.
    Source: ours; the paper cuts text, this table cuts at the same places on the device.
    """
    table = flag_table(tokenizer, _line_flags, BLANK)
    if not (table & ENDS_LINE).any():
        raise ValueError(
            f"No token of {type(tokenizer).__name__} ({len(tokenizer)} tokens) contains a line break, so SSPO has "
            "nothing to cut at and would be GSPO. Check actor_rollout_ref.model.path, or train with algorithm=gspo."
        )
    return table


def _line_flags(text: str, special: bool) -> int:
    text = counted_text(text, special)
    return (ENDS_LINE if LINE_BREAK in text else 0) | (BLANK if not text.strip() else 0)


def counted_text(text: str, special: bool) -> str:
    """The part of a token's text that segmenters see: all of it, or only the line breaks of a special token."""
    return LINE_BREAK * text.count(LINE_BREAK) if special else text


def flag_table(
    tokenizer,
    flags: Callable[[str, bool], int],
    unknown: int,
    dtype: torch.dtype = torch.uint8,
    within_text: bool = False,
) -> Shaped[Tensor, " vocab"]:
    """Table over the vocabulary: `flags(text, is_special)` of each token, up to the largest id.

    An id without a token (a hole in the vocabulary) gets the flags `unknown`. within_text: use the text that a token
    decodes to after another token; decoded alone, SentencePiece tokens lose their leading space.
    """
    added = getattr(tokenizer, "added_tokens_decoder", None)
    if not isinstance(added, dict):  # transformers' wrapper of Mistral's tokenizers has something else by this name
        added = {}
    special = set(tokenizer.all_special_ids) | {token_id for token_id, token in added.items() if token.special}

    ids = _token_ids(tokenizer, added)
    table = torch.full((max(ids, default=-1) + 1,), unknown, dtype=dtype)
    texts = zip(ids, (_decode_within_text if within_text else _decode_each)(tokenizer, ids), strict=True)
    table[ids] = torch.tensor([flags(text, token_id in special) for token_id, text in texts], dtype=dtype)
    return table


def _token_ids(tokenizer, added: dict) -> list[int]:
    """Ids of all tokens: 0 to len(tokenizer) - 1, or, if a named id is larger than that, the named ids only."""
    size = len(tokenizer)
    named = {*added, *(tokenizer.get_vocab().values() if hasattr(tokenizer, "get_vocab") else ())}
    return sorted(named) if max(named, default=-1) >= size else list(range(size))


def _decode_each(tokenizer, ids: list[int]) -> list[str]:
    """Text of each token, decoded alone. The Rust tokenizer decodes 150,000 of them in a fraction of a second."""
    return _decode_all(tokenizer, [[i] for i in ids])


def _decode_within_text(tokenizer, ids: list[int]) -> list[str]:
    """Text of each token, decoded after a letter that is then removed."""
    letters = (i for i in ids if (text := tokenizer.decode([i])) and len(text) == 1 and "a" <= text.lower() <= "z")
    letter = next(letters, None)
    if letter is None:
        return _decode_each(tokenizer, ids)
    return [text[1:] for text in _decode_all(tokenizer, [[letter, i] for i in ids])]


def _decode_all(tokenizer, rows: list[list[int]]) -> list[str]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return backend.decode_batch(rows, skip_special_tokens=False)
    return [tokenizer.decode(row) for row in rows]


@torch.no_grad()
def segment_ids(
    token_ids: Shaped[Tensor, "batch length"],
    response_mask: Shaped[Tensor, "batch length"],
    table: Shaped[Tensor, " vocab"],
) -> Int64[Tensor, "batch length"]:
    """Index of the subsentence that each token belongs to.

        y_i = y_{i,1} y_{i,2} ...,  each y_{i,j} ending with the token that contains a line break

    token_ids: y, any integer dtype. response_mask: m, non-zero where the token counts. table: from
    `line_break_table`, on any device.

    Returns ids 0, 1, 2, ... along each row, -1 where masked. A blank stretch (white space, special tokens)
    joins the segment before it, or the one after it if there is none before; a masked run ends a segment
    and nothing is merged across it, so a blank stretch between two masked runs is a segment of its own.
    Ids outside the table count as blank.
    Source: arXiv 2511.04256 (cut at line breaks); blank and masked stretches: ours.

    Vectorised over rows and segments: integer prefix scans only, so the result is exact on every device.
    """
    if token_ids.numel() == 0:
        return token_ids.long()
    valid = response_mask.bool()
    flags = look_up(table.to(token_ids.device), token_ids, BLANK)
    # Bytes that are 0 or 1 are viewed as booleans without a copy: on a CPU a comparison takes ten times as long.
    return ids_of_ends(valid, valid & ~(flags >> 1).view(torch.bool), (flags & ENDS_LINE).view(torch.bool))


# Shared parts of the segmenters (`sspo_verl.segmenters`)


def ids_of_ends(
    valid: Bool[Tensor, "batch length"], has_text: Bool[Tensor, "batch length"], ends: Bool[Tensor, "batch length"]
) -> Int64[Tensor, "batch length"]:
    """Segment ids where a segment ends after each token in `ends`, except for blank and masked stretches, which are
    handled as described in `segment_ids`. has_text: false where not valid."""
    # Is there text since the last masked token, up to and including this one? And is there text ahead before the next
    # end? The latter is decided by the first token from here on that has text (yes), or that ends or is masked (no).
    masked_or_text = has_text | ~valid
    settles = masked_or_text | ends
    flag = torch.cat((has_text, has_text.flip(1)))
    text_so_far, text_ahead = at_last_event(flag, torch.cat((masked_or_text, settles.flip(1)))).chunk(2)
    text_ahead = text_ahead.flip(1)

    starts = valid.clone()
    starts[:, 1:] &= ~valid[:, :-1] | (ends[:, :-1] & text_so_far[:, :-1] & text_ahead[:, 1:])
    return ids_of_starts(valid, starts)


def ids_of_starts(
    valid: Bool[Tensor, "batch length"], starts: Bool[Tensor, "batch length"]
) -> Int64[Tensor, "batch length"]:
    """Segment ids 0, 1, 2, ... where a segment begins at each token in `starts`; -1 where not valid.

    starts: false where not valid, true at the first valid token of a row.
    """
    return starts.cumsum(dim=1, dtype=torch.int32).mul_(valid).sub_(1).long()


def renumbered(
    segment_ids: Int64[Tensor, "batch length"], response_mask: Shaped[Tensor, "batch length"]
) -> Int64[Tensor, "batch length"]:
    """Segment ids renumbered 0, 1, 2, ... along each row; -1 where masked, and where the given id is negative.

    A segment is a run of valid tokens with the same id, ignoring masked tokens between them: an id that recurs later
    is another segment. Ids that already count up are unchanged. Does not synchronize with the device. `sums.locate`
    needs ids of this form to give the same result on every device.
    """
    valid = response_mask.bool() & (segment_ids >= 0)
    if segment_ids.numel() == 0:
        return segment_ids
    place = torch.arange(1, valid.shape[1] + 1, device=valid.device)
    last = (place * valid).cummax(dim=1).values  # position of the last valid token, from 1; 0 if there is none
    before = torch.nn.functional.pad(last[:, :-1], (1, 0))
    same = segment_ids == segment_ids.gather(1, (before - 1).clamp(min=0))
    return ids_of_starts(valid, valid & ~((before > 0) & same))


def look_up(table: Tensor, token_ids: Tensor, unknown: int) -> Tensor:
    """Each token's flags. The table is padded with `unknown` at both ends, for ids outside of it."""
    index = token_ids.long().clamp(-1, table.numel()).add_(1)
    padded = torch.nn.functional.pad(table, (1, 1), value=unknown)
    return padded.index_select(0, index.reshape(-1)).view(token_ids.shape)


def at_last_event(flag: Tensor, event: Tensor) -> Tensor:
    """For each token, the `flag` of the last token up to it where `event` is true; false before the first event."""
    return number_at_last_event(flag, event).view(torch.bool)


def number_at_last_event(number: Tensor, event: Tensor) -> UInt8[Tensor, "batch length"]:
    """`at_last_event` for numbers 0, 1, ..., 255; 0 before the first event. A row has at most 2^23 - 2 tokens.

    An event's code is larger than those before it, and its last byte is the number, so a cumulative max finds it.
    """
    length = number.shape[1]
    place = torch.arange(256, 256 * length + 256, 256, dtype=torch.int32, device=number.device)
    code = number.int().add_(place).mul_(event)
    return code.cummax(dim=1).values.to(torch.uint8)  # modulo 256
