"""Waits until the named nodes have joined the Ray cluster, and reports which have not.

    ray_nodes.py ADDRESS SECONDS NODE...

Exit code 0: all have joined. 3: some have not after SECONDS (0: checks once), or this was stopped (TERM) before.
"""

from __future__ import annotations

import logging
import signal
import sys
import time

import ray

NOT_ALL = 3


def missing(wanted: list[str]) -> list[str]:
    there = {node["NodeName"] for node in ray.nodes() if node["Alive"]}
    return [name for name in wanted if name not in there]


def wait(wanted: list[str], seconds: float) -> list[str]:
    """Wait for the nodes; return those that have not joined."""
    began = told = time.monotonic()
    while (absent := missing(wanted)) and time.monotonic() < began + seconds:
        if time.monotonic() > told + 30:
            told = time.monotonic()
            print(f"ray_nodes: {told - began:.0f} s, still waiting for {', '.join(absent)}", flush=True)
        time.sleep(0.5)
    return absent


def stop(_number, _frame):
    raise KeyboardInterrupt


def main(address: str, seconds: float, wanted: list[str]) -> int:
    ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    signal.signal(signal.SIGTERM, stop)  # after ray.init, which sets its own
    began = time.monotonic()
    try:
        absent = wait(wanted, seconds)
    except KeyboardInterrupt:
        absent = missing(wanted)
    if absent:
        how_long = f"after {time.monotonic() - began:.0f} s" if seconds else "any more"
        print(f"ray_nodes: not in the Ray cluster {how_long}: {', '.join(absent)} (of {', '.join(wanted)})", flush=True)
    return NOT_ALL if absent else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
