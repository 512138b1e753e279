"""The text of each segment of one response: cut by the model's tokens, or by lines if there is no model."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from sspo_verl.tools.analyze.cut import ByTokens
from sspo_verl.tools.analyze.fields import Response

EXTRA_TOKENS = 2  # tokens of a segment not visible in its text: the end token, SentencePiece's blank at the start


class Pieces(NamedTuple):
    """Segment texts in order; joined, they are the response."""

    texts: list[str]
    tokens: list[int] | None  # number in each segment, None if cut by lines
    known: bool  # False: the dump has other segments than the text, so they cannot be matched
    remark: str = ""  # what the reader needs to know about it


def pieces(response: Response, cutter: ByTokens | None, lines_too: bool = True) -> Pieces:
    """Cut a response so that it matches its dump; if no cut does, by tokens or lines anyway, with `known` False.

    cutter: None if there is no tokenizer. A cut matches if it has as many segments as the dump says, and none of those
    listed has more tokens than its text has bytes. Tokens are tried first, then lines. lines_too: False if training did
    not cut at line breaks, so that an equal number of lines would be a coincidence.
    """
    text = response.text
    found = [cut for cut in (_by_tokens(text, cutter) if cutter else None, (by_lines(text), None)) if cut]
    for texts, tokens in found:
        if (tokens is not None or lines_too) and _fits(texts, response):
            return Pieces(texts, tokens, True, _spelling(tokens, response))
    texts, tokens = found[0]
    remark = (
        f"Not tinted: the text has {len(texts)} segments and had {response.segments} in training."
        if response.segments != len(texts)
        else "Not tinted: the text is too short for the tokens that its segments had in training."
    )
    return Pieces(texts, tokens, False, remark)


def by_lines(text: str) -> list[str]:
    """Each non-blank line with the blank lines after it; leading blank lines belong to the first."""
    found = [""]
    *lines, last = text.split("\n")  # str.splitlines would also split at other characters
    for line in (*(line + "\n" for line in lines), last):
        if line.strip() and found[-1].strip():
            found.append(line)
        else:
            found[-1] += line
    return found


def _by_tokens(text: str, cutter: ByTokens) -> tuple[list[str], list[int]] | None:
    """(texts, tokens); None if neither the tokenizer's decoding nor its offsets reproduce the text."""
    [cut] = cutter([text])
    if isinstance(cut, str) or cut.tokens is None:
        return None
    ends = np.cumsum(cut.tokens).tolist()
    bounds = list(pairwise([0, *ends]))
    [ids] = cutter.encode([text])
    if cutter.backend is not None:
        parts = [ids[start:end].tolist() for start, end in bounds]
        texts = cutter.backend.decode_batch(parts, skip_special_tokens=False)
        if "".join(texts) != text:
            offsets = cutter.backend.encode(text, add_special_tokens=False).offsets
            starts = [0, *(offsets[start][0] for start, _ in bounds[1:]), len(text)]
            texts = [text[start:end] for start, end in pairwise(starts)]
    else:
        texts = [cutter.tokenizer.decode(ids[start:end].tolist()) for start, end in bounds]
    return (texts or [""], cut.tokens.tolist()) if "".join(texts) == text else None


def _fits(texts: list[str], response: Response) -> bool:
    # An empty text has an end token in training: one segment. A validation dump, made from the text, says 0.
    if response.segments is not None and max(response.segments, 1) != len(texts):
        return False
    return all(
        dumped.tokens is None or dumped.tokens <= len(text.encode()) + EXTRA_TOKENS
        for text, dumped in zip(texts, response.dumped, strict=False)
    )


def _spelling(tokens: list[int] | None, response: Response) -> str:
    """A remark if the sampled tokens differ from those of the re-encoded text."""
    if tokens is None:
        return ""
    last = len(tokens) - 1
    other = [
        number
        for number, (count, dumped) in enumerate(zip(tokens, response.dumped, strict=False))
        if dumped.tokens is not None and dumped.tokens != count and not (number == last and dumped.tokens == count + 1)
    ]
    if not other:
        return ""
    return f"Segment {other[0] + 1} had different tokens in training than its text has now; they are matched by number."
