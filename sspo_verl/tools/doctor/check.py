"""`Check`: one thing that was looked at, its status, and how to fix it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

OK = "ok"
WARNING = "warning"  # training works, but not quite as one may think
FAILED = "failed"
SKIPPED = "skipped"


@dataclass(frozen=True)
class Check:
    """name: what was looked at. found: what is there. fix: what to do, wherever something is to be done."""

    name: str
    status: str
    found: str
    fix: str = ""

    def __post_init__(self):
        assert self.status in (OK, WARNING, FAILED, SKIPPED), self.status
        assert self.fix or self.status in (OK, SKIPPED), f"{self.name} says nothing about how to fix it"


def guarded(name: str, look: Callable[[], Iterable[Check]]) -> list[Check]:
    """The checks of `look`; if it raises, one failed check of this name."""
    try:
        return list(look())
    except Exception as error:
        found = f"could not be looked at: {type(error).__name__}: {error}"
        return [Check(name, FAILED, found, "This is a fault in sspo doctor itself: report it with this message.")]
