"""Parent process of one probe: ends it after its time limit, with everything it started (Ray starts a lot).

A separate process, because it adopts every orphan below it: in `sspo doctor` itself, ending one probe's orphans would
end those of all probes.
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
    """Arguments: SECONDS LOG COMMAND...; returns the command's exit code."""
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
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would interrupt the clean-up
    sys.exit(128 + number)
