"""Parent's side of a worker process: start it, send it checks, end it."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys

START_SECONDS = 120  # importing sympy takes 1 s, but a machine that is loading models may take long

# Like multiprocessing's spawn: a new interpreter with this one's path. Not a fork of this process, which may have CUDA,
# vLLM or Ray loaded, and unlike spawn it does not run the program's main module again.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from sspo_verl.reward.worker import main; main(int(sys.argv[1]), sys.argv[3])"
)


class WorkerLost(Exception):
    """The worker exited, or was killed, without a verdict."""


class TookTooLong(WorkerLost):
    """The worker gave no verdict within the wall-clock limit."""


class Worker:
    """A process that runs `worker.main`. Not thread-safe: one check at a time.

    comparison: its comparison module.
    """

    def __init__(self, comparison: str = "sspo_verl.reward.compare"):
        self._connection, theirs = multiprocessing.Pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, str(theirs.fileno()), json.dumps(sys.path), comparison],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C goes to the parent, which ends its workers
            )
        except BaseException:
            self._connection.close()
            raise
        finally:
            theirs.close()
        self._ready = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, answer: str, gold: str, cpu_seconds: float, wall_seconds: float) -> dict:
        """The worker's reply. Its start-up time does not count. Raises WorkerLost; the caller must then call end()."""
        if not self._ready:
            ready = self._receive(START_SECONDS)
            if ready["status"] != "ready":
                raise WorkerLost(ready["detail"])
            self._ready = True
        try:
            self._connection.send_bytes(json.dumps([answer, gold, cpu_seconds]).encode())
        except OSError as error:
            raise WorkerLost(self._how_it_ended()) from error
        return self._receive(wall_seconds)

    def _receive(self, seconds: float) -> dict:
        try:
            if not self._connection.poll(seconds):
                raise TookTooLong(f"no verdict within {seconds:g} s")
            return json.loads(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise WorkerLost(self._how_it_ended()) from error

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return "the worker closed its connection"
        return f"the worker ended with {'signal' if code < 0 else 'exit code'} {abs(code)}"

    def end(self) -> None:
        """Kill the worker and wait for it, to leave no zombie."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
