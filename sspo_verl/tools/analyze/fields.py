"""The fields of a row that are counted. Names are those of verl's dumps unless the user gives others."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sspo_verl.metrics.names import DUMP_FIELDS
from sspo_verl.tools.analyze.read import MISSING, lookup

SOURCE = "data_source"
CORRECT = ("acc", "score")  # the first that a row has
PROMPT = ("input", "prompt")  # in verl's dumps, in `sspo eval`; the first that is a text
DUMP_SEGMENTS, *DUMP_LISTS = DUMP_FIELDS
SIDES = {-1: "low", 0: "none", 1: "high"}
NO_SOURCE = "(no source)"


@dataclass(frozen=True)
class Columns:
    text: str = "output"
    source: str = SOURCE
    correct: tuple[str, ...] = CORRECT
    entropy: str | None = None  # per token
    prompt: tuple[str, ...] = PROMPT

    def all(self) -> list[str]:
        entropy = [self.entropy] if self.entropy else []
        return [self.text, *self.prompt, self.source, *self.correct, *entropy, DUMP_SEGMENTS, *DUMP_LISTS]


class Dumped(NamedTuple):
    """One segment as listed in a dump; None for what it does not contain."""

    tokens: int | None
    entropy: float | None
    side: str | None  # of the clip, one of SIDES
    ratio: float | None
    advantage: float | None = None
    tv: float | None = None
    kl: float | None = None


@dataclass
class Response:
    where: str
    text: str
    source: str | None
    correct: bool | None
    segments: int | None = None  # number in the dump
    dumped: list[Dumped] = field(default_factory=list)  # the first segments
    entropies: list[float | None] | None = None  # per token
    prompt: str | None = None
    problems: list[str] = field(default_factory=list)  # what could not be used although the response counts


def take(where: str, value: dict[str, Any], columns: Columns) -> Response | str:
    """The response in a row, or why there is none."""
    text = lookup(value, columns.text)
    if text is MISSING:
        return f"no column {columns.text!r}"
    if text is None:
        return f"{columns.text!r} is null"
    if not isinstance(text, str):
        return f"{columns.text!r} is not a string"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # "\\ud83d" alone is valid JSON but not a character
            return f"{columns.text!r} is not Unicode (half of a surrogate pair)"
    response = Response(where, text, _source(lookup(value, columns.source)), _correct(value, columns.correct))
    response.prompt = next((found for name in columns.prompt if isinstance(found := lookup(value, name), str)), None)
    _take_dump(response, value)
    if columns.entropy is not None:
        entropies = lookup(value, columns.entropy)
        if entropies is not MISSING and entropies is not None:
            if isinstance(entropies, list) and all(v is None or _is_number(v) for v in entropies):
                response.entropies = [_finite(v) for v in entropies]
            else:
                response.problems.append(f"{columns.entropy!r} is not a list of numbers")
    return response


def _source(value: Any) -> str | None:
    return None if value is MISSING or value is None else str(value)[:80]


def _correct(value: dict[str, Any], names: tuple[str, ...]) -> bool | None:
    score = next((found for name in names if (found := lookup(value, name)) is not MISSING), None)
    if not isinstance(score, int | float) or math.isnan(score):  # a bool is an int
        return None
    return score > 0


def _take_dump(response: Response, value: dict[str, Any]) -> None:
    segments = value.get(DUMP_SEGMENTS)
    lists = [value.get(name) for name in DUMP_LISTS]
    known = [one for one in lists if one is not None]
    if segments is None and not known:
        return
    if not (
        (segments is None or (isinstance(segments, int) and not isinstance(segments, bool) and segments >= 0))
        and all(isinstance(one, list) for one in known)
        and len({len(one) for one in known}) <= 1
        and (segments is None or not known or len(known[0]) <= segments)
        and all(one is None or _is_number(one) for values in known for one in values)
        and all(side is None or side in SIDES for side in lists[2] or ())
        and all(tokens is None or (isinstance(tokens, int) and tokens > 0) for tokens in lists[0] or ())
    ):
        response.problems.append(f"{DUMP_SEGMENTS} and sspo_segment_* do not fit each other")
        return
    response.segments = segments
    if lists[1] is None and lists[2] is None:
        return  # a validation dump: there was no update
    columns = (one if one is not None else [None] * len(known[0]) for one in lists)
    response.dumped = [
        Dumped(count, _finite(entropy), None if side is None else SIDES[side], *map(_finite, others))
        for count, entropy, side, *others in zip(*columns, strict=True)
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
