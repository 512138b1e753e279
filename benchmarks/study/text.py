"""Tokens of the study's models: bytes, as in the quickstart, and those of SmolLM2."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from sspo_verl.segments import line_break_table
from sspo_verl.tools.quickstart import tokenizer as byte_tokenizer


@dataclass(frozen=True)
class Text:
    """A model's text encoding. `start`: ids that a prompt begins with; `end`: the token that ends a response."""

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]  # special tokens have no text
    start: tuple[int, ...]
    end: int
    table: Tensor  # for `segments.segment_ids`


@functools.cache
def of_bytes() -> Text:
    """Byte tokens, ASCII only: like the quickstart's tokenizer, but a hundred times as fast."""
    tokenizer = byte_tokenizer.build()
    texts = {i: tokenizer.decode([i]) for i in range(256)}
    ids = {text: i for i, text in texts.items()}
    special = tokenizer.get_vocab()
    return Text(
        encode=lambda text: [ids[character] for character in text],
        decode=lambda tokens: "".join(texts.get(token, "") for token in tokens),
        start=(special[byte_tokenizer.START],),
        end=special[byte_tokenizer.END],
        table=line_break_table(tokenizer),
    )
