"""Printing to the run's log."""

import functools


def say(what: str) -> None:
    """Print a line to the run's log. Uses print, as verl does: what loggers output in a Ray worker depends on which
    library configured them last."""
    print(f"sspo_verl: {what}", flush=True)


say_once = functools.cache(say)  # one line per process: shows that SSPO is training, and with which settings
