"""Lines in the run's log."""

import functools


def say(what: str) -> None:
    """Print a line in the run's log. Printed, as verl does: what loggers say in a Ray worker depends on which library
    configured them last."""
    print(f"sspo_verl: {what}", flush=True)


say_once = functools.cache(say)  # one line per process: proof that SSPO is what trains, and with which settings
