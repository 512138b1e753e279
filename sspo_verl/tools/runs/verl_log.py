"""Reads verl's raw log: how far the start-up has got, and which lines explain a failure."""

from __future__ import annotations

import re
from pathlib import Path

# (line of verl's log, what happens after it), in order.
PHASES = (
    ("Started a local Ray instance", "loading verl's trainer"),
    ("create worker group", "loading the model for training (FSDP)"),
    ("actor and ref model engine initialized", "starting the sampler (vLLM)"),
    ("all initialize finished", "measuring accuracy before training"),
    ("Training Progress:", "learning from rewards"),
)
FIRST_PHASE = "starting Ray"
LEARNING = PHASES[-1][1]

RAY_NODE_FAILED = "The current node timed out during startup"  # Ray's exception, when ray.init or `ray start` gave up
RAY_NODE_ADVICE = (
    "Ray's processes did not start within its time limits: the machine is too busy, or its disk is too slow. End other "
    "work, then run the same command again."
)

# verl's replay buffer, once a minute (VERL_REPLAY_BUFFER_DEBUG_INTERVAL_SECONDS) while it waits for a batch.
_WAITING = re.compile(r"pending: \d+, running: \d+, finished: \d+, failure: \d+")
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ACTOR = re.compile(r"^(\([\w:.]*\s*pid=\d+[^)]*\)\s?)+")
_NOISE = re.compile(r"Training Progress:|WARNING|Warning:|warnings\.warn|^step:\d+ - |\[repeated \d+x|^[\s^~]*$")
_ERROR = re.compile(r"^\s*([\w.]+\.)?\w*(Error|Exception|Interrupt)\b|\bOutOfMemory|No space left|Killed")

# What a line of the log means for the user; the first match counts.
_MEMORY = "The machine ran out of memory. The quickstart needs about 7 GiB of free memory: close other programs."
_KILLED = "verl was killed (SIGKILL). If nobody did that, the machine ran out of memory: about 7 GiB must be free."
_ADVICE = (
    (
        re.compile(r"CUDA out of memory"),
        "Out of GPU memory: add actor_rollout_ref.rollout.gpu_memory_utilization=0.1, or wait if others use this GPU.",
    ),
    (re.compile(r"OutOfMemory|running low on memory|Cannot allocate memory|std::bad_alloc"), _MEMORY),
    (
        re.compile(r"No space left on device"),
        "A disk is full: free space for the run directory and the temporary directory.",
    ),
    (re.compile(RAY_NODE_FAILED), RAY_NODE_ADVICE),
    (
        re.compile(r"EngineDeadError"),
        "vLLM's engine died. If nobody ended it, the machine ran out of memory, or an error of vLLM's is further up in "
        "the log; what verl says after it (of groups, or of a size that is not divisible) follows from that.",
    ),
    (
        re.compile(r"no materializable trajectories"),
        "Each response of the batch failed, in the reward function or in sampling: the first error above says why. "
        "verl's own advice (sync_refill_failed_groups) would only try again.",
    ),
    (
        re.compile(r"ActorDiedError"),
        "One of verl's processes was killed from outside. If nobody did that, the machine ran out of memory: about "
        "7 GiB must be free.",
    ),
)


def clean(line: str) -> str:
    """A line without colours and without Ray's `(Actor pid=123)`."""
    return _ACTOR.sub("", _COLOUR.sub("", line)).rstrip()


class LogReader:
    """Follows a growing log: the phase that verl is in, and the size of the log."""

    def __init__(self, path: Path):
        self.path = path
        self.phase = FIRST_PHASE
        self.size = 0
        self.waiting: str | None = None  # the rollouts that verl is waiting for, in its words
        self._rest = ""

    def poll(self) -> bool:
        """Read new lines. Returns whether they are progress: anything except verl's report of rollouts with unchanged
        numbers, which it prints once a minute while it waits."""
        if not self.path.exists():
            return False
        with self.path.open("rb") as file:
            file.seek(self.size)
            new = file.read()
        self.size += len(new)
        *lines, self._rest = (self._rest + new.decode(errors="replace")).replace("\r", "\n").split("\n")
        names = [name for _, name in PHASES]
        progress = bool(new and self._rest)
        for line in lines:
            waiting = _WAITING.search(line)
            progress |= line != "" and (waiting is None or waiting[0] != self.waiting)
            self.waiting = waiting[0] if waiting else self.waiting
            for index, (mark, name) in enumerate(PHASES):
                if mark in line and (self.phase == FIRST_PHASE or index > names.index(self.phase)):
                    self.phase = name
        return progress


def useful_lines(text: str, before: int = 12, after: int = 7, first_before: int = 4) -> list[str]:
    """The lines around the last error in a log, without colours, prefixes, warnings and progress bars; preceded by the
    first error, which may be the cause, if that is a different one."""
    lines = [line for line in (clean(part) for part in re.split(r"[\r\n]+", text)) if not _NOISE.search(line)]
    errors = [index for index, line in enumerate(lines) if _ERROR.search(line)]
    last = errors[-1] if errors else len(lines) - 1
    begin = max(0, last - before)
    shown = lines[begin : last + 1 + after]
    if not errors or errors[0] >= begin or lines[errors[0]] == lines[last]:
        return shown
    first = errors[0]
    times = sum(lines[index] == lines[first] for index in errors)
    count = f"    ({times:,} times in the log)" if times > 1 else ""
    return [*lines[max(0, first - first_before) : first], lines[first] + count, "...", *shown]


def advice(text: str, exit_code: int) -> str | None:
    """Advice, if the log or the exit code suggests what to do."""
    for pattern, meaning in _ADVICE:
        if pattern.search(text):
            return meaning
    return _KILLED if exit_code in (-9, 137) else None
