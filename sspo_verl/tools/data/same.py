"""Duplicate detection: two problems are the same if their texts are, apart from typesetting.

The rule: Unicode NFKC, ignoring case; \\dfrac and \\tfrac are \\frac; no math delimiters ($, \\(, \\), \\[, \\]), no
\\left, \\right or \\displaystyle, no TeX spacing, no white space; no braces around a single character; no full stop,
comma, colon or question mark at the end, or at the end of a line of mathematics.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sspo_verl.tools.data.record import Record

_DELIMITERS = re.compile(r"(?<!\\)\$+|\\[()\[\]]")
_FRACTION = re.compile(r"\\[dt]frac(?![a-z])")
_LOOKS = re.compile(r"\\(?:left|right|displaystyle|quad|qquad)(?![a-z])|\\[,;:! ]|[\s~]")
_ONE_IN_BRACES = re.compile(r"(?<!\\)\{([^{}\\])\}")
_PUNCTUATION_AT_MATH = re.compile(r"[.,:]?\x00+[.,:]?")


def normalise(problem: str) -> str:
    text = unicodedata.normalize("NFKC", problem).casefold()
    # A TeX line break (\\) before a bracket is not a delimiter.
    text = _LOOKS.sub("", text.replace("\\\\", "\\newline"))
    # A sentence's full stop may be inside or outside the dollar signs: \x00 marks where one may be.
    text = _PUNCTUATION_AT_MATH.sub("", _DELIMITERS.sub("\x00", text))
    text = _FRACTION.sub(r"\\frac", text)
    return _ONE_IN_BRACES.sub(r"\1", text).rstrip(".,:?")


class Duplicates(NamedTuple):
    """Duplicates. groups: the records of each problem that occurs more than once. differing: groups with different
    answers."""

    groups: list[list[Record]]
    differing: int

    @property
    def later(self) -> list[Record]:
        """All but the first record of each group."""
        return [record for group in self.groups for record in group[1:]]


def duplicates(records: Iterable[Record]) -> Duplicates:
    by_problem: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_problem[normalise(record.problem)].append(record)
    groups = [group for group in by_problem.values() if len(group) > 1]
    return Duplicates(groups, sum(len({record.answer for record in group}) > 1 for group in groups))


def overlap(records: Iterable[Record], others: Sequence[Record]) -> list[tuple[Record, Record]]:
    """(record, the first of the others with the same problem), for each record that has one."""
    there: dict[str, Record] = {}
    for other in others:
        there.setdefault(normalise(other.problem), other)
    found = ((record, there.get(normalise(record.problem))) for record in records)
    return [(record, other) for record, other in found if other is not None]
