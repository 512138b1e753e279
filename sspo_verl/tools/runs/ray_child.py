"""A child process that starts Ray, and is started again if Ray's node did not start in time.

Ray's node ends itself if one of its two agents takes over 15 s to start, as on a busy machine or from a slow disk; no
setting changes that (github.com/ray-project/ray/issues/65983). The next start often succeeds: the files are then in
memory.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

from sspo_verl.tools.runs import lock
from sspo_verl.tools.runs.processes import Child
from sspo_verl.tools.runs.verl_log import RAY_NODE_FAILED

STARTS = 3
POLL_SECONDS = 0.5
END_OF_LOG = 4_000  # characters, which hold the traceback's last lines


class RayChild:
    """A Child, started up to STARTS times. keep_open: descriptors of lock files, to which each child is added."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, keep_open: tuple[int, ...] = ()):
        self.log = log
        self.starts = 0
        self._arguments = (command, environment, log, keep_open)
        self._start()

    def _start(self) -> None:
        self.starts += 1
        self._begin = self.log.stat().st_size if self.log.exists() else 0
        self.child = Child(*self._arguments)
        for descriptor in self._arguments[-1]:
            lock.add(descriptor, self.child.process.pid)

    def poll(self) -> int | None:
        """Exit code of the last start; None while it runs."""
        code = self.child.poll()
        if code in (None, 0) or self.starts == STARTS or not self._node_failed():
            return code
        self.child.stop()
        with self.log.open("a") as log:
            count = f"{self.starts + 1} of {STARTS}"
            log.write(f"Ray's node did not start in time: its agents have 15 s. Starting again ({count}).\n")
        self._start()
        return None

    def wait(self, seconds: float = math.inf) -> int | None:
        """Exit code of the last start; None if it is still running after `seconds`."""
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return code

    def stop(self) -> None:
        self.child.stop()

    def text(self) -> str:
        """The log since the last start."""
        with self.log.open("rb") as log:
            log.seek(self._begin)
            return log.read().decode(errors="replace")

    def _node_failed(self) -> bool:
        return RAY_NODE_FAILED in self.text()[-END_OF_LOG:]
