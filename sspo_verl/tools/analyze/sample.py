"""Samples a few dozen responses out of any number: correct and wrong ones, with and without a clipped segment."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest

from sspo_verl.tools.analyze.cut import PIECE
from sspo_verl.tools.analyze.fields import Response

ORDER = (False, True, None)  # wrong, correct, unknown


def is_clipped(response: Response) -> bool:
    return any(dumped.side in ("low", "high") for dumped in response.dumped)


@dataclass
class Pool:
    """Responses of one kind: their number, and a uniform sample of a few, the same for the same file."""

    seen: int = 0
    drawn: list[tuple[int, Response]] = field(default_factory=list)  # (position in the file, response)
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    def add(self, place: int, response: Response, wanted: int) -> None:
        self.seen += 1
        if len(self.drawn) < wanted:
            self.drawn.append((place, response))
        elif (slot := self.chance.randrange(self.seen)) < wanted:
            self.drawn[slot] = (place, response)


class Sample:
    """Draws up to `wanted` responses in one pass, keeping at most 6 * wanted of them."""

    def __init__(self, wanted: int):
        self.wanted = wanted
        self.pools = {(correct, clipped): Pool() for correct in ORDER for clipped in (True, False)}
        self.seen = self.too_long = 0

    def add(self, response: Response) -> None:
        self.seen += 1
        if len(response.text) > PIECE:
            self.too_long += 1
        else:
            self.pools[response.correct, is_clipped(response)].add(self.seen, response, self.wanted)

    def chosen(self) -> list[Response]:
        """The sample: alternates between wrong and correct, and within each between those with and without a clipped
        segment; in file order."""
        kinds = [self._kind(correct) for correct in ORDER]
        mixed = [one for turn in zip_longest(*kinds) for one in turn if one is not None]
        return [response for _, response in sorted(mixed[: self.wanted], key=lambda one: one[0])]

    def _kind(self, correct: bool | None) -> Iterator[tuple[int, Response]]:
        pools = (self.pools[correct, clipped].drawn for clipped in (True, False))
        return (one for turn in zip_longest(*pools) for one in turn if one is not None)

    def count(self, correct: bool | None) -> int:
        return sum(self.pools[correct, clipped].seen for clipped in (True, False))

    @property
    def clipped(self) -> int:
        return sum(self.pools[correct, True].seen for correct in ORDER)
