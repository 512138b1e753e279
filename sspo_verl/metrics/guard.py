"""Failures of the diagnostics: logged once, counted and left out, so that they never end a run."""

import traceback

from sspo_verl.log import say

_said: set[tuple[str, type]] = set()


def report_failure(what: str, error: Exception) -> None:
    """Log that the diagnostics' part `what` failed: one line per part and type of error, the first with its traceback.
    The caller counts the failure in the metric `sspo/diagnostics_failed`."""
    if (what, type(error)) in _said:
        return
    if not _said:
        traceback.print_exception(error)
    _said.add((what, type(error)))
    reason = " ".join(str(error).split())
    say(
        f"WARNING: {what}: failed and left out ({type(error).__name__}: {reason}). Training continues "
        "unaffected; sspo/diagnostics_failed counts how often."
    )
