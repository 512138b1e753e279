"""Probes: fresh processes that each check one thing, all in parallel."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from sspo_verl.tools.doctor.supervise import TIMED_OUT
from sspo_verl.tools.runs.environment import QUIET_ENVIRONMENT, RAY_START_ENVIRONMENT, short_directory

PACKAGES = Path(__file__).parents[3]  # the folder that contains this installation's sspo_verl
SUPERVISE = (
    f"import sys; sys.path.insert(0, {str(PACKAGES)!r}); from sspo_verl.tools.doctor.supervise import main; "
    "sys.exit(main(sys.argv[1:]))"
)
# Like `python -m verl.trainer.main_ppo`: modules in the working directory are found first.
RUN_PATH = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
# Importing torch alone can take a minute from a cold disk.
SECONDS = 480


class Probe:
    """A file of this package, run as a script in a fresh Python; it writes its notes to a file.

    seconds: time limit, after which it and everything it started are ended.
    """

    def __init__(self, script: str, *arguments: str, seconds: float = SECONDS):
        self.seconds = seconds
        self.folder = Path(short_directory())
        self.notes_file = self.folder / "notes"
        self.log = self.folder / "log"
        path = str(Path(__file__).parent / script)
        command = [sys.executable, "-c", RUN_PATH, path, str(self.notes_file), *arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SUPERVISE, f"{seconds:g}", str(self.log), *command],
                env={**RAY_START_ENVIRONMENT, **os.environ, **QUIET_ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal only reaches sspo doctor, which ends its probes
            )

    def running(self) -> bool:
        return self.process.poll() is None

    def notes(self) -> Notes:
        text = self.notes_file.read_text() if self.notes_file.exists() else ""
        complete = text.split("\n")[:-1]  # a process that was killed may leave half a line
        return Notes([json.loads(line) for line in complete], self._how_it_ended(), self._last_line())

    def _how_it_ended(self) -> str:
        code = self.process.poll()
        if code == TIMED_OUT:
            return f"no answer within {self.seconds:g} seconds"
        return f"the process ended with exit code {code}"

    def _last_line(self) -> str:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:300] if lines else ""

    def ask_to_end(self) -> None:
        if self.running():
            self.process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Wait for it to end after `ask_to_end`."""
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Notes:
    """Notes of a probe, by step."""

    def __init__(self, lines: list[dict], ended: str, last_line: str):
        self.lines = {line["step"]: line for line in lines}
        self.ended = ended
        self.last_line = last_line

    def value(self, step: str):
        """Result of the step, or None if it failed or was not reached."""
        return self.lines.get(step, {}).get("value")

    def why_not(self, step: str) -> str:
        """Why there is no value, in one line."""
        line = self.lines.get(step)
        if line is None:
            last = f"; its last line: {self.last_line}" if self.last_line else ""
            return self.ended + last
        return tell(line)


def tell(error: dict) -> str:
    """One line from what `probe.describe` recorded."""
    return f"{error['error']} ({error['where']})" if error["where"] else error["error"]
