"""Folder lock: allows one process at a time, with a lock file that names the process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

import psutil


class Busy(Exception):
    """Another process is using the folder."""


def hold(path: Path) -> IO[str]:
    """Lock the file `path` until the returned file, and every copy that a child inherited, is closed.

    Raises Busy if another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+")  # noqa: SIM115  held open on purpose
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holders = [int(word) for word in file.read().split() if word.isdecimal()]
        file.close()
        raise Busy(f"{_who(holders)} is using {path.parent}. Wait for it, or stop it.") from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def add(descriptor: int, process: int) -> None:
    """Add a process that inherits the lock, and keeps it if this one is killed."""
    os.write(descriptor, f" {process}".encode())


def _who(holders: list[int]) -> str:
    """The first of the lock's processes that is alive."""
    living = [process for process in holders if psutil.pid_exists(process)]
    if not living:
        return f"something that process {holders[0]}, which has ended, started" if holders else "another process"
    if living[0] == holders[0]:
        return f"another process ({living[0]})"
    return f"process {living[0]}, which process {holders[0]} started before it was killed,"
