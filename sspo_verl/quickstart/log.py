"""verl's raw log: how far the start has come, and which of its lines explain a failure."""

from __future__ import annotations

import re
from pathlib import Path

# A line of verl's log, and what goes on after it. In this order.
PHASES = (
    ("Started a local Ray instance", "loading verl's trainer"),
    ("create worker group", "loading the model for training (FSDP)"),
    ("actor and ref model engine initialized", "starting the sampler (vLLM)"),
    ("all initialize finished", "measuring accuracy before training"),
    ("Training Progress:", "learning from rewards"),
)
FIRST_PHASE = "starting Ray"
LEARNING = PHASES[-1][1]

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ACTOR = re.compile(r"^(\([\w:.]*\s*pid=\d+[^)]*\)\s?)+")
_NOISE = re.compile(r"Training Progress:|WARNING|Warning:|warnings\.warn|^step:\d+ - |\[repeated \d+x|^[\s^~]*$")
_ERROR = re.compile(r"^\s*([\w.]+\.)?\w*(Error|Exception|Interrupt)\b|\bOutOfMemory|No space left|Killed")

# What a line of the log means for the user; the first that is found counts.
_MEMORY = "The machine ran out of memory. The quickstart needs about 7 GiB that are free: close other programs."
_ADVICE = (
    (
        re.compile(r"CUDA out of memory"),
        "The GPU is in use by others: add actor_rollout_ref.rollout.gpu_memory_utilization=0.1, or wait.",
    ),
    (re.compile(r"OutOfMemory|running low on memory|Cannot allocate memory|std::bad_alloc"), _MEMORY),
    (
        re.compile(r"No space left on device"),
        "A disk is full: make room where the run directory or the temporary directory lies.",
    ),
    (
        re.compile(r"ActorDiedError"),
        "One of verl's processes was killed from outside. If nobody did that, the machine ran out of memory: about "
        "7 GiB must be free.",
    ),
)


def clean(line: str) -> str:
    """Without colours and without Ray's `(Actor pid=123)`."""
    return _ACTOR.sub("", _COLOUR.sub("", line)).rstrip()


class LogReader:
    """Follows a log that grows: the phase that verl is in, and how large the log is."""

    def __init__(self, path: Path):
        self.path = path
        self.phase = FIRST_PHASE
        self.size = 0
        self._rest = ""

    def poll(self) -> bool:
        """Read what is new. Returns whether there was anything."""
        if not self.path.exists():
            return False
        with self.path.open("rb") as file:
            file.seek(self.size)
            new = file.read()
        self.size += len(new)
        *lines, self._rest = (self._rest + new.decode(errors="replace")).replace("\r", "\n").split("\n")
        names = [name for _, name in PHASES]
        for line in lines:
            for index, (mark, name) in enumerate(PHASES):
                if mark in line and (self.phase == FIRST_PHASE or index > names.index(self.phase)):
                    self.phase = name
        return bool(new)


def useful_lines(text: str, before: int = 12, after: int = 7) -> list[str]:
    """The lines around the last error in a log, without colours, prefixes, warnings and progress bars."""
    lines = [line for line in (clean(part) for part in re.split(r"[\r\n]+", text)) if not _NOISE.search(line)]
    errors = [index for index, line in enumerate(lines) if _ERROR.search(line)]
    last = errors[-1] if errors else len(lines) - 1
    return lines[max(0, last - before) : last + 1 + after]


def advice(text: str, exit_code: int) -> str | None:
    """What to do about it, where the log or the exit code says so."""
    for pattern, meaning in _ADVICE:
        if pattern.search(text):
            return meaning
    return _MEMORY if exit_code in (-9, 137) else None
