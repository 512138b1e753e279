"""Judges of a reward function: one per process and combination of settings, closed at process exit."""

from __future__ import annotations

import atexit
import threading
from typing import Any, Generic, TypeVar

from sspo_verl.reward.judge import Judge, Verdict

J = TypeVar("J", bound=Judge)


class Judges(Generic[J]):
    """Cache of judges by their settings, usually just one. Thread-safe."""

    def __init__(self, kind: type[J]):
        self._kind = kind
        self._lock = threading.Lock()
        self._made: dict[tuple, J] = {}
        atexit.register(self.close)

    def get(self, **settings: Any) -> J:
        key = tuple(settings.items())
        with self._lock:
            if key not in self._made:
                self._made[key] = self._kind(**settings)
            return self._made[key]

    def close(self) -> None:
        """End the workers. The next check restarts them."""
        with self._lock:
            judges = list(self._made.values())
            self._made.clear()
        for judge in judges:
            judge.close()


def result(verdict: Verdict, score: float) -> dict[str, float]:
    """The dict that a reward function returns to verl, always with the same keys."""
    return {
        "score": score,
        "acc": float(verdict.correct),
        "boxed": float(verdict.answer is not None),
        "timeout": float(verdict.status == "timeout"),
        "failed": float(verdict.status == "failed"),
    }
