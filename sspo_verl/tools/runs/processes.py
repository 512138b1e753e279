"""Starts verl as a child process, and stops it with everything it started.

Ray and vLLM start processes in their own sessions, which signals to the child's group do not reach, and which outlive a
parent that dies. So this process asks to become the parent of such orphans: then they all remain its descendants.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil

from sspo_verl.tools.runs.prctl import adopt_orphans

# Ray's own shutdown after an interrupt takes a few seconds.
SECONDS_TO_END = {signal.SIGINT: 20.0, signal.SIGTERM: 5.0, signal.SIGKILL: 5.0}


class Child:
    """A command in its own session, with its output appended to a file."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, keep_open: tuple[int, ...] = ()):
        adopt_orphans()
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # this process passes on Ctrl-C in the terminal
                pass_fds=keep_open,
            )

    def poll(self) -> int | None:
        return self.process.poll()

    def stop(self) -> None:
        """Interrupt the child, then terminate, then kill, whatever is left below this process."""
        if self.poll() is None:
            self._signal([psutil.Process(self.process.pid)], signal.SIGINT)
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._signal(_living_descendants(), number)
        _bury_orphans(except_for=self.process.pid)

    def _signal(self, processes: list[psutil.Process], number: signal.Signals) -> None:
        """Send a signal and give the processes time to end."""
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        deadline = time.monotonic() + SECONDS_TO_END[number]
        while any(map(_is_alive, processes)) and time.monotonic() < deadline:
            self.poll()  # reaps the child
            time.sleep(0.1)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _living_descendants() -> list[psutil.Process]:
    return [process for process in psutil.Process().children(recursive=True) if _is_alive(process)]


def _bury_orphans(except_for: int) -> None:
    """Reap orphans that ended, so that no zombies remain. `except_for` is reaped elsewhere."""
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error, ChildProcessError):
            if process.pid != except_for and process.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(process.pid, os.WNOHANG)
