"""Compares several segmenters on the same responses, to choose one before a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sspo_verl.tools.analyze.count import Histogram, Problems
from sspo_verl.tools.analyze.cut import PIECE, ByTokens
from sspo_verl.tools.analyze.fields import Columns, Response
from sspo_verl.tools.analyze.run import Analysis, batches_of

SHARES = {"p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}


@dataclass
class OfSegmenter:
    """Counts of one segmenter, over the responses that it could segment."""

    segments: Histogram = field(default_factory=Histogram)
    tokens: Histogram = field(default_factory=Histogram)  # per segment

    def summary(self) -> dict[str, Any]:
        responses = self.segments.n
        if not responses:
            return {"responses": 0, "segments_per_response": None, "tokens_per_segment": None, "single_segment": None}
        quantiles = dict(zip(SHARES, self.tokens.quantiles(SHARES.values()), strict=True))
        return {
            "responses": responses,
            "segments_per_response": self.segments.summary(),
            "tokens_per_segment": (self.tokens.summary() or {}) | quantiles,
            "single_segment": self.segments.counts[1] / responses,
        }


def compare(
    files: Iterable[Path], columns: Columns, cutters: dict[str, ByTokens], limit: int | None = None
) -> tuple[dict[str, OfSegmenter], Problems]:
    """Counts of each segmenter, and what was not counted. Empty and overlong responses are excluded."""
    from sspo_verl.segmenters import factory_of

    analysis, found = Analysis(), {name: OfSegmenter() for name in cutters}
    (encoder, *_) = cutters.values()
    for batch in batches_of(files, columns, analysis, limit):
        short = [response for response in batch if len(response.text) <= PIECE]
        for response in batch:
            if len(response.text) > PIECE:
                analysis.skipped.add(f"over {PIECE:,} characters", response.where)
        encoded = encoder.encode([response.text for response in short])
        for name, cutter in cutters.items():
            rows, entropies = list(encoded), None
            if factory_of(cutter.settings.segmenter).needs_entropy:
                rows, entropies = _with_entropies(short, encoded, analysis.skipped)
            for cut in cutter.cut(rows, entropies):
                if cut.segments and cut.tokens is not None:
                    found[name].segments.add([cut.segments])
                    found[name].tokens.add(cut.tokens.tolist())
    return found, analysis.skipped


def _with_entropies(responses: list[Response], encoded: list, skipped: Problems) -> tuple[list, list[list[float]]]:
    """Tokens and entropies of the responses that have one entropy per token, or one more for the end token."""
    rows, entropies = [], []
    for response, ids in zip(responses, encoded, strict=True):
        values = response.entropies
        if values is None or len(values) - len(ids) not in (0, 1):
            skipped.add("no entropy for each token, which the segmenter entropy needs", response.where)
            continue
        rows.append(ids)
        entropies.append([float("nan") if value is None else value for value in values[: len(ids)]])
    return rows, entropies


def show(found: dict[str, dict], console) -> None:
    from sspo_verl.tools.analyze.table import NOT_KNOWN, new_table, number

    headings = ("responses", "segments: mean", "p50", "p95", "single", "tokens: mean", *SHARES, "max")
    rows = new_table("Segmenters side by side: segments per response, tokens per segment", console, headings)
    for name, of in found.items():
        if not of["responses"]:
            rows.add_row(name, "0", *[NOT_KNOWN] * (len(headings) - 1))
            continue
        segments, tokens = of["segments_per_response"], of["tokens_per_segment"]
        cells = [number(segments[key]) for key in ("mean", "p50", "p95")] + [f"{of['single_segment']:.1%}"]
        cells += [number(tokens[key]) for key in ("mean", *SHARES, "max")]
        rows.add_row(name, f"{of['responses']:,}", *cells)
    console.print(rows)
