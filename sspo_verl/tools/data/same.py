"""Rule for the same problem: two problems are the same if their texts are, but for how they are set.

The rule: Unicode NFKC and no difference of upper and lower case; \\dfrac and \\tfrac are \\frac; no math delimiters
($, \\(, \\), \\[, \\]), no \\left, \\right or \\displaystyle, no spacing of TeX's, no white space; no braces around a
single character; no full stop, comma, colon or question mark at the end, or where a line of mathematics ends.
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
    # A line break of TeX (\\) before a bracket is not a delimiter.
    text = _LOOKS.sub("", text.replace("\\\\", "\\newline"))
    # A sentence's full stop is inside the dollar signs or outside of them: \x00 marks where one may be.
    text = _PUNCTUATION_AT_MATH.sub("", _DELIMITERS.sub("\x00", text))
    text = _FRACTION.sub(r"\\frac", text)
    return _ONE_IN_BRACES.sub(r"\1", text).rstrip(".,:?")


class Duplicates(NamedTuple):
    """groups: the records of each problem that is there more than once. differing: groups with several answers."""

    groups: list[list[Record]]
    differing: int

    @property
    def later(self) -> list[Record]:
        """All but the first of each."""
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
