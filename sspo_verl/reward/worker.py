"""Worker process that compares answers. Started by `judge.Judge`; receives one check at a time and returns a verdict.

Checks run in its main thread, where signals can stop them. It protects itself in three ways: a check that uses too much
CPU time is interrupted; if it cannot be interrupted (a computation inside C code), the kernel ends the process; memory
beyond a limit is refused. It exits by itself when its parent is gone.
"""

from __future__ import annotations

import importlib
import json
import logging
import resource
import signal
from multiprocessing.connection import Connection

MEMORY = 2 * 1024**3  # bytes of address space
LEAVE_ABOVE = 512 * 1024**2  # a worker that has ever used more than this is replaced
WALL_PER_CPU = 3  # wall-clock limit of a check, relative to its CPU time: machines in training are busy
GRACE = 1  # seconds that the parent, which also watches, has before the kernel ends the process


class OutOfTime(BaseException):
    """A check used up its CPU time. Not an Exception, so that neither sympy nor math-verify can swallow it."""


def main(fd: int, comparison: str = "sspo_verl.reward.compare") -> None:
    """Run the worker. comparison: a module with `load()`, which does the slow imports, and `same(answer, gold)`, which
    returns True or False, or a score from 0 to 1."""
    connection = Connection(fd)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, _interrupt)
    try:
        compare = importlib.import_module(comparison)
        compare.load()  # before the time of the first check starts
        logging.disable(logging.CRITICAL)  # silences math-verify's notes that its time-outs are off
    except Exception as error:
        connection.send_bytes(_reply("failed", detail=f"a worker could not start: {error!r}"))
        return
    connection.send_bytes(_reply("ready"))
    while True:
        try:
            answer, gold, seconds = json.loads(connection.recv_bytes())
        except EOFError:
            return
        reply, leave = check(compare, answer, gold, seconds)
        leave = leave or _most_memory() > LEAVE_ABOVE
        try:
            connection.send_bytes(_reply(**reply, leaving=leave))
        except OSError:  # nobody is waiting for it any more
            return
        if leave:
            return


def _most_memory() -> int:
    """Peak memory of this process in bytes. (getrusage's ru_maxrss also includes the parent's: a worker of a large
    process would exit after each check.)"""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def _interrupt(signum, frame):
    raise OutOfTime


def check(compare, answer: str, gold: str, seconds: float) -> tuple[dict, bool]:
    """(verdict, whether this process should not be used for another check)."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the kernel's default: ends the process
    signal.setitimer(signal.ITIMER_REAL, seconds * WALL_PER_CPU + GRACE)
    try:
        try:
            # Repeated every half second: the first may be lost in a destructor, which swallows exceptions.
            signal.setitimer(signal.ITIMER_PROF, seconds, 0.5)
            found = compare.same(answer, gold)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        score = None if isinstance(found, bool) else float(found)
        return {"status": "ok", "correct": bool(found == 1), "score": score}, False
    except OutOfTime:
        return {"status": "timeout", "detail": f"took more than {seconds:g} s of processor time"}, False
    except MemoryError:
        return {"status": "failed", "detail": f"needed more than {MEMORY / 1024**3:g} GiB of memory"}, True
    except Exception as error:
        return {"status": "failed", "detail": f"{type(error).__name__}: {str(error)[:300]}"}, False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _reply(
    status: str, correct: bool = False, score: float | None = None, detail: str = "", leaving: bool = False
) -> bytes:
    reply = {"status": status, "correct": correct, "score": score, "detail": detail, "leaving": leaving}
    return json.dumps(reply).encode()
