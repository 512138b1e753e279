"""Analysis of files: reads, segments and counts in batches, with one batch in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from sspo_verl.tools.analyze.count import Counts, Problems
from sspo_verl.tools.analyze.cut import Cut, Cutter
from sspo_verl.tools.analyze.fields import NO_SOURCE, Columns, Response, take
from sspo_verl.tools.analyze.read import rows
from sspo_verl.tools.analyze.sample import Sample
from sspo_verl.tools.analyze.thresholds import Thresholds

BATCH_RESPONSES = 512
BATCH_WEIGHT = 250_000  # characters and numbers
MAX_SOURCES = 100
OTHER_SOURCES = "(all other sources)"
CORRECT = {True: "correct", False: "wrong", None: "unknown"}

Key = tuple[str | None, bool | None]


@dataclass
class Analysis:
    """Counts by (source, correct); every other grouping is a sum of these."""

    cells: dict[Key, Counts] = field(default_factory=dict)
    rows: int = 0
    skipped: Problems = field(default_factory=Problems)  # rows that are not counted
    partly: Problems = field(default_factory=Problems)  # rows that are only partly counted
    dumped: int = 0  # responses whose dump has the number of segments
    dumped_other: int = 0  # of those, responses where the text gives another number
    dumped_segments: int = 0  # segments of the responses that list some of theirs
    dumped_named: int = 0  # of those, segments that are listed
    limited: bool = False
    sources: set[str] = field(default_factory=set)

    def group(self, keep: Callable[[Key], bool] = lambda _: True) -> Counts:
        total = Counts()
        for key, counts in self.cells.items():
            if keep(key):
                total.merge(counts)
        return total

    def by_source(self) -> dict[str, Counts]:
        """Counts by data source; empty if no response names its source."""
        names = sorted({source for source, _ in self.cells if source is not None})
        groups = {name: self.group(lambda key, name=name: key[0] == name) for name in names}
        if groups and any(source is None for source, _ in self.cells):
            groups[NO_SOURCE] = self.group(lambda key: key[0] is None)
        return groups

    def by_correct(self) -> dict[str, Counts]:
        """Counts by correct or wrong; empty if that is unknown for all responses."""
        there = {correct for _, correct in self.cells}
        if there <= {None}:
            return {}
        return {name: self.group(lambda key, c=c: key[1] is c) for c, name in CORRECT.items() if c in there}


def analyze(
    files: Iterable[Path],
    columns: Columns,
    cutter: Cutter,
    entropy_low: float,
    entropy_high: float,
    limit: int | None = None,
    progress: Callable[[Analysis], None] = lambda _: None,
    sample: Sample | None = None,
) -> Analysis:
    """Count every response in the files, or the first `limit`; those that are counted are offered to `sample`."""
    analysis = Analysis()
    for batch in batches_of(files, columns, analysis, limit):
        for response, cut in zip(batch, cutter([response.text for response in batch]), strict=True):
            if isinstance(cut, str):
                analysis.skipped.add(cut, response.where)
            else:
                _count(analysis, response, cut, Thresholds(entropy_low, entropy_high).band)
                if sample is not None:
                    sample.add(response)
        progress(analysis)
    return analysis


def batches_of(
    files: Iterable[Path], columns: Columns, analysis: Analysis, limit: int | None = None
) -> Iterator[list[Response]]:
    """Responses of the files, or the first `limit`, in batches; what cannot be read is recorded in `analysis`."""
    responses = _responses(files, columns, analysis)
    yield from _batches(responses if limit is None else _first(responses, limit, analysis))


def _responses(files: Iterable[Path], columns: Columns, analysis: Analysis) -> Iterator[Response]:
    for path in files:
        for row in rows(path, columns.all()):
            analysis.rows += 1
            response = row.problem if row.value is None else take(row.where, row.value, columns)
            if isinstance(response, str):
                analysis.skipped.add(response, row.where)
            else:
                yield response


def _first(responses: Iterator[Response], limit: int, analysis: Analysis) -> Iterator[Response]:
    yield from islice(responses, limit)
    analysis.limited = next(responses, None) is not None


def _batches(responses: Iterable[Response]) -> Iterator[list[Response]]:
    batch, weight = [], 0
    for response in responses:
        one = len(response.text) + len(response.entropies or ()) + len(response.dumped)
        if batch and (weight + one > BATCH_WEIGHT or len(batch) == BATCH_RESPONSES):
            yield batch
            batch, weight = [], 0
        batch.append(response)
        weight += one
    if batch:
        yield batch


def _count(analysis: Analysis, response: Response, cut: Cut, band: Callable[[float | None], str | None]) -> None:
    source = response.source
    if source is not None and source not in analysis.sources:
        if len(analysis.sources) < MAX_SOURCES:
            analysis.sources.add(source)
        else:
            source = OTHER_SOURCES
    counts = analysis.cells.setdefault((source, response.correct), Counts())
    counts.responses += 1
    if cut.segments:
        counts.segments.add([cut.segments])
        counts.line_breaks.add([response.text.count("\n")])
        if cut.tokens is not None:
            counts.tokens.add([int(cut.tokens.sum())])
            counts.segment_tokens.add(cut.tokens.tolist())
    else:
        counts.empty += 1

    if response.segments is not None:
        analysis.dumped += 1
        # An empty text still has an end token, which the dump does not show: one segment in training.
        analysis.dumped_other += response.segments != max(cut.segments, 1)
    if response.dumped:
        analysis.dumped_named += len(response.dumped)
        analysis.dumped_segments += len(response.dumped) if response.segments is None else response.segments
    by_tokens = mean_entropies(response, cut, analysis.partly)
    for dumped in response.dumped:
        key = (band(dumped.entropy) if by_tokens is None else None, dumped.side)
        counts.banded[key] += 1
        counts.banded_tokens[key] += dumped.tokens or 0
    for tokens, entropy in by_tokens or ():
        counts.banded[band(entropy), None] += 1
        counts.banded_tokens[band(entropy), None] += tokens
    for problem in response.problems:
        analysis.partly.add(problem, response.where)


def mean_entropies(response: Response, cut: Cut, partly: Problems) -> list[tuple[int, float | None]] | None:
    """(tokens, H) of each segment, from the tokens' entropies; None if the row has none of matching length."""
    if response.entropies is None or cut.tokens is None:
        return None
    sizes = cut.tokens.tolist()
    extra = len(response.entropies) - sum(sizes)
    if extra == 1:  # the end token, not visible in the text; it is blank and joins the last segment
        sizes = [*sizes[:-1], sizes[-1] + 1] if sizes else [1]
    elif extra:
        partly.add("needs as many entropies as the text has tokens, or one more for the end token", response.where)
        return None
    out, start = [], 0
    for size in sizes:
        values = response.entropies[start : start + size]
        known = [value for value in values if value is not None]
        out.append((size, sum(known) / size if len(known) == size else None))
        start += size
    return out
