"""Segments texts: by a model's tokens as in training, or by lines if there is no model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from sspo_verl.segmenters import SegmentSettings

PIECE = 250_000  # characters of one text that a tokenizer gets at once: it needs 100 to 200 bytes for each
PADDED = 250_000  # tokens of a batch, including padding
SEAM = 1000  # characters on both sides of a cut with which to check that it makes no difference


class Cut(NamedTuple):
    """One response. tokens: number in each segment; None if unknown. An empty response has no segment."""

    segments: int
    tokens: np.ndarray | None


class Cutter(Protocol):
    def __call__(self, texts: Sequence[str]) -> list[Cut | str]:
        """The cut of each text, or why there is none."""
        ...


def by_lines(texts: Sequence[str]) -> list[Cut | str]:
    """Each non-blank line is a segment; blank lines join another. A text of only blank lines is one segment."""
    lines = re.compile(r"\S[^\n]*")
    return [Cut(max(sum(1 for _ in lines.finditer(text)), int(text != "")), None) for text in texts]


class ByTokens:
    """A segmenter applied to the tokenizer's encoding of a text, without special tokens.

    settings: `segmenters.SegmentSettings`; None for `line_break`. Raises ValueError if it cannot handle the vocabulary.
    """

    def __init__(self, tokenizer: Any, settings: SegmentSettings | None = None):
        from sspo_verl.segmenters import SegmentSettings, segmenter_of

        self.settings = SegmentSettings() if settings is None else settings
        self.segmenter = segmenter_of(tokenizer, self.settings)
        self.tokenizer = tokenizer
        self.backend = getattr(tokenizer, "backend_tokenizer", None)
        if self.backend is not None:
            # A tokenizer.json can contain its own settings, which transformers turns off at each call.
            self.backend.no_truncation()
            self.backend.no_padding()

    def __call__(self, texts: Sequence[str]) -> list[Cut | str]:
        cuts: list[Cut | str] = []
        short: list[str] = []
        for text in texts:
            if len(text) <= PIECE:
                short.append(text)
                continue
            cuts += self._cut(short)
            short = []
            cuts.append(self._cut_long(text))
        return cuts + self._cut(short)

    @cached_property
    def _line_breaks(self) -> Any:
        from sspo_verl.segments import line_break_table

        return line_break_table(self.tokenizer)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        if self.backend is None:
            encoded = [self.tokenizer.encode(text, add_special_tokens=False) for text in texts]
        else:
            encoded = [one.ids for one in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]
        return [np.asarray(ids, dtype=np.int64) for ids in encoded]

    def _cut(self, texts: Sequence[str]) -> list[Cut]:
        return self.cut(self.encode(texts))

    def cut(self, encoded: Sequence[np.ndarray], entropies: Sequence[Sequence[float]] | None = None) -> list[Cut]:
        """The cut of each text, given as tokens. entropies: of each token, for a segmenter that needs them."""
        cuts: list[Cut] = [Cut(0, np.empty(0, dtype=np.int64))] * len(encoded)
        for rows in _alike([len(ids) for ids in encoded]):
            sizes = self._sizes([encoded[i] for i in rows], [entropies[i] for i in rows] if entropies else None)
            for i, of_row in zip(rows, sizes, strict=True):
                cuts[i] = Cut(len(of_row), of_row)
        return cuts

    def _sizes(self, rows: list[np.ndarray], entropies: list[Sequence[float]] | None) -> list[np.ndarray]:
        import torch
        from torch.nn.utils.rnn import pad_sequence

        tokens = pad_sequence([torch.from_numpy(row) for row in rows], batch_first=True, padding_value=-1)
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(tokens.shape[1]) < lengths[:, None]
        entropy = None
        if entropies:
            entropy = pad_sequence([torch.tensor(row, dtype=torch.float64) for row in entropies], batch_first=True)
        with _one_thread():
            ids = self.segmenter(tokens, mask, entropy).numpy()
        return [np.bincount(of_row[: len(row)]) for of_row, row in zip(ids, rows, strict=True)]

    def _cut_long(self, text: str) -> Cut | str:
        """Cut a long text in pieces: 50 million characters at once would take 10 GB."""
        pieces, by_lines = [], self.settings.segmenter == "line_break"  # only then is each piece cut as within the text
        for piece in self._pieces(text):
            if piece is None:
                return f"over {2 * PIECE:,} characters without a line break where it could be tokenized piece by piece"
            pieces += self._cut([piece]) if by_lines else self.encode([piece])
        if not by_lines:
            return self.cut([np.concatenate(pieces)])[0]
        sizes = np.concatenate([piece.tokens for piece in pieces if piece.tokens is not None])
        return Cut(len(sizes), sizes)

    def _pieces(self, text: str) -> Iterator[str | None]:
        start = 0
        while len(text) - start > 2 * PIECE:
            lines = re.compile(r"\n(?=\S)").finditer(text, start + PIECE, start + 2 * PIECE)
            end = next((line.end() for line in lines if self._seam_shows_nothing(text, start, line.end())), None)
            if end is None:
                yield None
                return
            yield text[start:end]
            start = end
        yield text[start:]

    def _seam_shows_nothing(self, text: str, start: int, cut: int) -> bool:
        """Whether both sides give the same tokens apart as together, and a segment ends here with text on both."""
        from sspo_verl.segments import BLANK, ENDS_LINE

        before, after = text[max(start, cut - SEAM) : cut], text[cut : cut + SEAM]
        left, right, both = self.encode([before, after, before + after])
        if not np.array_equal(np.concatenate([left, right]), both):
            return False
        flags = [int(self._line_breaks[token]) for token in both]
        last_left = len(left) - 1
        return bool(
            flags[last_left] & ENDS_LINE
            and not flags[last_left + 1] & BLANK
            and any(not flag & BLANK for flag in flags[: last_left + 1])
        )


def _alike(lengths: list[int]) -> Iterator[list[int]]:
    """Rows to put into one batch: shortest first, as many as fit into PADDED tokens including padding."""
    batch: list[int] = []
    for i in sorted((i for i, n in enumerate(lengths) if n), key=lambda i: lengths[i]):
        if batch and lengths[i] * (len(batch) + 1) > PADDED:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: a row cannot be split, and on a busy machine threads waiting for each other took 100 times as
    long."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
