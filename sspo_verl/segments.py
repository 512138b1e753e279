"""Segmentation of responses: subsentences at line breaks (arXiv 2511.04256; the rule for blank lines is ours)."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int64, Shaped, UInt8
from torch import Tensor

LINE_BREAK = "\n"
# The table holds two flags per token, so that one look-up answers both questions.
ENDS_LINE = 1  # bit 0: the decoded text holds a line break
BLANK = 2  # bit 1: no text: only white space, a special token, or an id outside the vocabulary


def line_break_table(tokenizer) -> UInt8[Tensor, " vocab"]:
    """The table that `segment_ids` looks tokens up in. Build it once per tokenizer.

    tokenizer: a Hugging Face tokenizer, of which `len`, `decode`, the special tokens, and, if it has them, `get_vocab`
    and the added tokens are used.

    Returns one uint8 of flags per id, up to the largest: ENDS_LINE, BLANK, both, or 0 for a token of plain
    text. An id without a token, where the vocabulary has holes, is BLANK.
    Raises ValueError if no token holds a line break, for then nothing could ever be cut.
    Source: ours; the paper cuts text, this table cuts the same places on the device.
    """
    table = flag_table(tokenizer, _line_flags, BLANK)
    if not (table & ENDS_LINE).any():
        raise ValueError(
            f"No token of {type(tokenizer).__name__} ({len(tokenizer)} tokens) holds a line break, so SSPO has nothing "
            "to cut at and would be GSPO. Check actor_rollout_ref.model.path, or train with algorithm=gspo."
        )
    return table


def _line_flags(text: str, special: bool) -> int:
    text = counted_text(text, special)
    return (ENDS_LINE if LINE_BREAK in text else 0) | (BLANK if not text.strip() else 0)


def counted_text(text: str, special: bool) -> str:
    """What of a token's text segmenters look at: all of it, and of a special token its line breaks alone."""
    return LINE_BREAK * text.count(LINE_BREAK) if special else text


def flag_table(
    tokenizer,
    flags: Callable[[str, bool], int],
    unknown: int,
    dtype: torch.dtype = torch.uint8,
    within_text: bool = False,
) -> Shaped[Tensor, " vocab"]:
    """A table over the vocabulary: `flags` of each token's text and of whether it is special, up to the largest id.

    An id without a token, where the vocabulary has holes, has the flags `unknown`. within_text: the text that a token
    has behind another one; alone, SentencePiece's tokens lose the space that they begin with.
    """
    added = getattr(tokenizer, "added_tokens_decoder", None)
    if not isinstance(added, dict):  # transformers' wrapper of Mistral's tokenizers has something else of this name
        added = {}
    special = set(tokenizer.all_special_ids) | {token_id for token_id, token in added.items() if token.special}

    ids = _token_ids(tokenizer, added)
    table = torch.full((max(ids, default=-1) + 1,), unknown, dtype=dtype)
    texts = zip(ids, (_decode_within_text if within_text else _decode_each)(tokenizer, ids), strict=True)
    table[ids] = torch.tensor([flags(text, token_id in special) for token_id, text in texts], dtype=dtype)
    return table


def _token_ids(tokenizer, added: dict) -> list[int]:
    """The ids of all tokens: 0, 1, 2, ..., or, where one is larger than their number allows, those that are named."""
    size = len(tokenizer)
    named = {*added, *(tokenizer.get_vocab().values() if hasattr(tokenizer, "get_vocab") else ())}
    return sorted(named) if max(named, default=-1) >= size else list(range(size))


def _decode_each(tokenizer, ids: list[int]) -> list[str]:
    """The text of every single token. The Rust tokenizer decodes 150,000 of them in a fraction of a second."""
    return _decode_all(tokenizer, [[i] for i in ids])


def _decode_within_text(tokenizer, ids: list[int]) -> list[str]:
    """The text of every token behind a letter, without the letter."""
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
    """The subsentence that each token belongs to.

        y_i = y_{i,1} y_{i,2} ...,  each y_{i,j} ending with the token that holds a line break

    token_ids: y, any integer dtype. response_mask: m, non-zero where the token counts. table: from
    `line_break_table`, on any device.

    Returns ids 0, 1, 2, ... along each row, -1 where masked. A blank stretch (white space, special tokens)
    joins the segment before it, or the one after it where there is none before; a masked run ends a segment
    and nothing is merged across it, so a blank stretch between two masked runs is a segment of its own.
    Ids outside the table have no text: blank.
    Source: arXiv 2511.04256 (cut at line breaks); blank and masked stretches: ours.

    Vectorised over rows and segments: integer prefix scans only, so the result is exact on every device.
    """
    if token_ids.numel() == 0:
        return token_ids.long()
    valid = response_mask.bool()
    flags = look_up(table.to(token_ids.device), token_ids, BLANK)
    # Bytes that are 0 or 1 are looked at as booleans without a copy: on a CPU a comparison takes ten times as long.
    return ids_of_ends(valid, valid & ~(flags >> 1).view(torch.bool), (flags & ENDS_LINE).view(torch.bool))


# Parts of every segmenter (`sspo_verl.segmenters`)


def ids_of_ends(
    valid: Bool[Tensor, "batch length"], has_text: Bool[Tensor, "batch length"], ends: Bool[Tensor, "batch length"]
) -> Int64[Tensor, "batch length"]:
    """Segment ids where a segment ends after each token that `ends`, but for blank and masked stretches, which are
    treated as `segment_ids` says. has_text: false where not valid."""
    # Is there text since the last masked token, up to and including this one? And is there text ahead before the next
    # end? The first token from here on that settles it is one that has text (yes), or ends or is masked (no).
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
    """Segment ids 0, 1, 2, ... where a segment begins at each token of `starts`; -1 where not valid.

    starts: false where not valid, true at the first valid token of a row.
    """
    return starts.cumsum(dim=1, dtype=torch.int32).mul_(valid).sub_(1).long()


def renumbered(
    segment_ids: Int64[Tensor, "batch length"], response_mask: Shaped[Tensor, "batch length"]
) -> Int64[Tensor, "batch length"]:
    """Ids 0, 1, 2, ... along each row, whatever numbers a segmenter gave; -1 where masked, and where they are negative.

    A segment is the valid tokens of one number that follow one another, with masked ones between them or not: a number
    that comes again later is another segment. Ids that count up already stay as they are. The host does
    not wait for the device; `sums.locate` needs such ids to give the same everywhere.
    """
    valid = response_mask.bool() & (segment_ids >= 0)
    if segment_ids.numel() == 0:
        return segment_ids
    place = torch.arange(1, valid.shape[1] + 1, device=valid.device)
    last = (place * valid).cummax(dim=1).values  # where the last valid token was, from 1; 0 for nowhere
    before = torch.nn.functional.pad(last[:, :-1], (1, 0))
    same = segment_ids == segment_ids.gather(1, (before - 1).clamp(min=0))
    return ids_of_starts(valid, valid & ~((before > 0) & same))


def look_up(table: Tensor, token_ids: Tensor, unknown: int) -> Tensor:
    """Each token's flags. An entry more at either end of the table is for the ids outside of it: `unknown`."""
    index = token_ids.long().clamp(-1, table.numel()).add_(1)
    padded = torch.nn.functional.pad(table, (1, 1), value=unknown)
    return padded.index_select(0, index.reshape(-1)).view(token_ids.shape)


def at_last_event(flag: Tensor, event: Tensor) -> Tensor:
    """For each token, what `flag` says at the last token up to it where `event` is true; false before the first."""
    return number_at_last_event(flag, event).view(torch.bool)


def number_at_last_event(number: Tensor, event: Tensor) -> UInt8[Tensor, "batch length"]:
    """`at_last_event` of a number 0, 1, ..., 255; 0 before the first event. A row has at most 2^23 - 2 tokens.

    An event's code is larger than those before it, and its last byte is the number: the largest so far is the last.
    """
    length = number.shape[1]
    place = torch.arange(256, 256 * length + 256, 256, dtype=torch.int32, device=number.device)
    code = number.int().add_(place).mul_(event)
    return code.cummax(dim=1).values.to(torch.uint8)  # modulo 256
