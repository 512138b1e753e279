"""Log messages about answers that the reward could not read or decide, limited so that they do not flood the log."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from sspo_verl.reward import formats
from sspo_verl.reward.judge import Verdict

EVERY_SECONDS = 60.0
FIRST = 100  # number of checks of a data source after which this process warns if answers are rarely found
FEW = 0.05  # warn below this share of responses with an answer
EXAMPLES, END = 3, 60  # number of responses shown, and of characters from the end of each
SOURCES = 50  # limit of data sources that are tracked


@dataclass
class _Seen:
    """The first checks of one data source in this process."""

    checks: int = 0
    answered: int = 0
    examples: list[str] = field(default_factory=list)
    elsewhere: Counter[str] = field(default_factory=Counter)  # answers that another format would find


class Notes:
    """Counts checks. Prints the first failure at once, then at most one line per EVERY_SECONDS; and, once per data
    source, a warning if hardly any of its first responses has an answer."""

    def __init__(self, clock=time.monotonic):
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._last: float | None = None
        self._sources: dict[str, _Seen] = {}

    def take(
        self, verdict: Verdict, data_source: str, gold: object, response: str | None = None, answer: str = "boxed"
    ) -> None:
        """Record one check. answer: the setting, see `formats`."""
        with self._lock:
            lines = [self._unread(verdict, str(data_source), gold, response, answer), self._lost(verdict)]
        if lines[0]:
            _print(lines[0])
        if lines[1]:
            found = (verdict.answer or "")[:80]
            _print(
                f"{lines[1]}. The last: {verdict.detail} (data_source {data_source!r}, answer {found!r}, ground truth "
                f"{str(gold)[:80]!r})"
            )

    def _lost(self, verdict: Verdict) -> str | None:
        """Message on the time-outs and failures since the last one, if due."""
        self._counts["checks"] += 1
        if verdict.status not in ("timeout", "failed"):
            return None
        self._counts[verdict.status] += 1
        now = self._clock()
        if self._last is not None and now - self._last < EVERY_SECONDS:
            return None
        self._last = now
        counts, self._counts = self._counts, Counter()
        return (
            f"of {counts['checks']:,} checks, {counts['timeout']} ran out of time and {counts['failed']} failed; "
            "those scored 0"
        )

    def _unread(self, verdict: Verdict, source: str, gold: object, response: str | None, answer: str) -> str | None:
        """Warning after the first checks of a data source, if hardly any has an answer."""
        if source not in self._sources and len(self._sources) >= SOURCES:
            return None
        seen = self._sources.setdefault(source, _Seen())
        if seen.checks >= FIRST:
            return None
        seen.checks += 1
        if verdict.answer is not None:
            seen.answered += 1
        else:
            seen.elsewhere.update(formats.others(answer, response))
            if len(seen.examples) < EXAMPLES:
                end = (response or "").rstrip()[-END:]
                seen.examples.append(f"{end!r} (ground truth {str(gold)[:40]!r})")
        if seen.checks < FIRST or seen.answered >= FEW * FIRST:
            return None
        asked = formats.choose(answer).asked
        ways = [
            f"{count} of them have one with +reward.custom_reward_function.reward_kwargs.answer={name}"
            for name, count in seen.elsewhere.most_common()
        ]
        return (
            f"WARNING: of the first {FIRST} responses of data_source {source!r}, {FIRST - seen.answered} have no "
            f"answer (answer={answer}) and scored 0. The prompt must ask for {asked}"
            f"{'; ' + ', '.join(ways) if ways else ''}. They end in: {'; '.join(seen.examples)}"
        )


def _print(line: str) -> None:
    print(f"sspo_verl.reward: {line}", file=sys.stderr, flush=True)
