"""The text of each segment of one response: cut by the model's tokens, or by its lines where there is no model."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from sspo_verl.tools.analyze.cut import ByTokens
from sspo_verl.tools.analyze.fields import Response

EXTRA_TOKENS = 2  # of a segment that its text does not show: the end token, and SentencePiece's blank at the start


class Pieces(NamedTuple):
    """The texts in order, which joined are the response."""

    texts: list[str]
    tokens: list[int] | None  # of each, None where the cut was by lines
    known: bool  # False: the dump has other segments than the text, so which is which is not known
    remark: str = ""  # what the reader has to know of it


def pieces(response: Response, cutter: ByTokens | None, lines_too: bool = True) -> Pieces:
    """Cut a response so that it fits its dump; where nothing does, by tokens or lines all the same, `known` False.

    cutter: None where there is no tokenizer. A cut fits if it has as many segments as the dump says, and none of those
    listed has more tokens than its text has bytes. First the tokens are tried, then the lines. lines_too: False where
    training cut at other places than line breaks, so that as many lines would be chance.
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
    """Each line that is not blank, with the blank lines after it; those that the text begins with are the first's."""
    found = [""]
    *lines, last = text.split("\n")  # str.splitlines would cut at other characters too
    for line in (*(line + "\n" for line in lines), last):
        if line.strip() and found[-1].strip():
            found.append(line)
        else:
            found[-1] += line
    return found


def _by_tokens(text: str, cutter: ByTokens) -> tuple[list[str], list[int]] | None:
    """(texts, tokens); None where the tokenizer gives the text back neither by decoding nor by its offsets."""
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
    # A text of no tokens has its end token in training: one segment. A validation's dump, made of the text, says 0.
    if response.segments is not None and max(response.segments, 1) != len(texts):
        return False
    return all(
        dumped.tokens is None or dumped.tokens <= len(text.encode()) + EXTRA_TOKENS
        for text, dumped in zip(texts, response.dumped, strict=False)
    )


def _spelling(tokens: list[int] | None, response: Response) -> str:
    """A remark where the sampled tokens were others than those of the text, encoded anew."""
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
    return f"Segment {other[0] + 1} had other tokens in training than its text has now; segments go by their number."
