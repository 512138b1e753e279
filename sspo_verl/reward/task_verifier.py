"""A worker's comparison module for reasoning-gym: runs the verifier of the entry's task."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

from sspo_verl.reward.entries import from_json

# Some verifiers pass the answer to eval(), directly or through sympy: read-only events are allowed.
_REFUSED = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.kill", "os.remove", "os.rename")
_REFUSED += ("os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.putenv", "os.unsetenv")
_REFUSED += ("os.forkpty", "os.startfile", "subprocess.", "socket.", "shutil.", "pty.", "signal.")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def load() -> None:
    """Import reasoning_gym, which takes seconds, before the time of the first check starts."""
    import reasoning_gym  # noqa: F401

    sys.dont_write_bytecode = True  # a verifier's late imports would write bytecode
    sys.addaudithook(_audit)


_checking = False


def _audit(event: str, arguments: tuple) -> None:
    """Audit hook. Not a sandbox: it stops what a sampled answer may do by accident, or a policy may stumble upon."""
    if not _checking:
        return
    if event == "open":
        if not arguments[2] & _WRITES:
            return
    elif not event.startswith(_REFUSED):
        return
    raise PermissionError(f"an answer tried {event}")


@functools.lru_cache(maxsize=256)
def _dataset(task: str, config: str) -> Any:
    from reasoning_gym import create_dataset

    return create_dataset(task, **from_json(config))


def same(answer: str, gold: str) -> float:
    """The verifier's score, from 0 to 1. gold: [task, config, entry] as `entries.to_json` writes them.

    Raises ValueError for a score that is not a number or out of bounds, and whatever the verifier raises.
    """
    global _checking
    task, config, entry = from_json(gold)
    dataset = _dataset(task, config)
    _checking = True
    try:
        found = dataset.score_answer(answer, entry)
    finally:
        _checking = False
    score = float(found)
    if not 0 <= score <= 1:
        raise ValueError(f"the verifier of {task} gave {found!r}, not a score from 0 to 1")
    return score
