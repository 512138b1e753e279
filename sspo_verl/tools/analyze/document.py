"""An analysis as one JSON document; the table and the figure show its contents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sspo_verl.tools.analyze.fields import Columns
from sspo_verl.tools.analyze.run import Analysis


def correct_means(columns: Columns) -> str:
    first, *others = columns.correct
    return f"{first} > 0" + "".join(f", or {name} > 0 where there is none" for name in others)


def document(
    analysis: Analysis,
    files: Sequence[Path],
    columns: Columns,
    model: Path | None,
    entropy_low: float,
    entropy_high: float,
) -> dict[str, Any]:
    return {
        "files": [str(path) for path in files],
        "model": None if model is None else str(model),
        "text_column": columns.text,
        "source_column": columns.source,
        "correct_means": correct_means(columns),
        "entropy_low": entropy_low,
        "entropy_high": entropy_high,
        "rows": analysis.rows,
        "skipped": analysis.skipped.summary(),
        "partly_used": analysis.partly.summary(),
        "all": analysis.group().summary(),
        "by_correct": {name: counts.summary() for name, counts in analysis.by_correct().items()},
        "by_source": {name: counts.summary() for name, counts in analysis.by_source().items()},
        "notes": notes(analysis, model, columns),
    }


def notes(analysis: Analysis, model: Path | None, columns: Columns) -> list[str]:
    """Notes needed to read the numbers."""
    total = analysis.group()
    out = []
    if model is None:
        out.append("No --model: tokens are not counted, and the text is cut at its own line breaks.")
    else:
        out.append(
            "Tokens are those of the text as the tokenizer encodes it, without the end token. In sampling, the same "
            "text can have been spelled with other tokens."
        )
    if total.empty:
        out.append(f"{total.empty:,} empty responses are counted, but are in none of the other numbers.")
    if analysis.by_correct():
        out.append(f"Correct: {correct_means(columns)}.")
    if analysis.limited:
        out.append(f"There are more responses than the {total.responses:,} that --limit let in.")
    if analysis.dumped_other:
        out.append(
            f"{analysis.dumped_other:,} of {analysis.dumped:,} responses had a different number of segments in "
            "training (sspo_segments) than their text has: other tokens were sampled, or --model has another tokenizer."
        )
    if analysis.dumped_named < analysis.dumped_segments:
        out.append(
            f"Bands and clips are of the first segments of each response, {analysis.dumped_named:,} of "
            f"{analysis.dumped_segments:,}: the dump has no more (policy_loss.dump_segments)."
        )
    return out
