"""The parent of one probe: ends it after its time, and with it all that it has started (Ray starts a lot).

A process of its own, because it takes in every orphan below it: in `sspo doctor` itself, ending one probe's would end
all of them.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from sspo_verl.tools.runs.prctl import end_with_parent
from sspo_verl.tools.runs.processes import Child

TIMED_OUT = 124  # as timeout(1)


def main(arguments: list[str]) -> int:
    """SECONDS LOG COMMAND...; returns the command's exit code."""
    seconds, log, *command = arguments
    signal.signal(signal.SIGTERM, _end)
    end_with_parent(signal.SIGTERM)
    child = Child(command, dict(os.environ), Path(log))
    try:
        deadline = time.monotonic() + float(seconds)
        while (code := child.poll()) is None:
            if time.monotonic() > deadline:
                return TIMED_OUT
            time.sleep(0.05)
        return code if code >= 0 else 128 - code
    finally:
        child.stop()


def _end(number: int, _frame) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: a second one would cut the cleaning up short
    sys.exit(128 + number)
