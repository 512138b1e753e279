"""`Check`: the result of one check, its status, and how to fix it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

OK = "ok"
WARNING = "warning"  # training works, but perhaps not as expected
FAILED = "failed"
SKIPPED = "skipped"


@dataclass(frozen=True)
class Check:
    """Result of a check. name: what was checked. found: what was found. fix: what to do, if anything."""

    name: str
    status: str
    found: str
    fix: str = ""

    def __post_init__(self):
        assert self.status in (OK, WARNING, FAILED, SKIPPED), self.status
        assert self.fix or self.status in (OK, SKIPPED), f"{self.name} says nothing about how to fix it"


def guarded(name: str, look: Callable[[], Iterable[Check]]) -> list[Check]:
    """The checks of `look`; if it raises, one failed check with this name."""
    try:
        return list(look())
    except Exception as error:
        found = f"could not be checked: {type(error).__name__}: {error}"
        return [Check(name, FAILED, found, "This is a bug in sspo doctor itself: report it with this message.")]
