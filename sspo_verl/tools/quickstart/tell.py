"""Step 4, tell: prints the summary, or why the run ended early and how to continue."""

from __future__ import annotations

import signal
import sys

from sspo_verl.tools.quickstart import summary
from sspo_verl.tools.quickstart.ask import Asked
from sspo_verl.tools.quickstart.display import shorten
from sspo_verl.tools.quickstart.publish import publish
from sspo_verl.tools.quickstart.run import Run
from sspo_verl.tools.quickstart.train import Failed, Trained
from sspo_verl.tools.runs.recipe import algorithms
from sspo_verl.tools.runs.verl_log import advice, useful_lines


def tell(trained: Trained) -> int:
    """Print the summary and what to do next; return 0."""
    run = trained.asked.run
    print(f"\n{summary.render(summary.collect(run.rows()), run, trained.seconds, trained.resumed_from)}\n")
    print(f"Its curves and some of its responses, tinted by entropy: sspo report {shorten(run.path)}")
    if trained.again:
        print(
            "This run was already finished: nothing was trained this time. The same command with --fresh starts over."
        )
        return 0
    others = [name for name in algorithms() if not Run(run.path.with_name(name)).finished.exists()]
    if others:
        print(f"Next: the same command with --algorithm {others[0]}   (not tried yet: {', '.join(others)})")
    return 0


def tell_failure(failure: Failed) -> int:
    """Print what is known and what to do; return verl's exit code, or 128 + the signal that ended it."""
    _print(f"\nTraining failed: {failure}. The last relevant lines of its log:\n")
    for line in useful_lines(failure.log_text):
        _print(f"    {line[:300]}")
    _print(f"\nThe complete log: {shorten(failure.log)}")
    if hint := advice(failure.log_text, failure.exit_code):
        _print(hint)
    _print(_how_to_resume(failure.run))
    _publish(failure.run)
    return failure.exit_code if failure.exit_code > 0 else 128 - failure.exit_code


def tell_stop(asked: Asked | None, number: int) -> int:
    """Print how far the run got before the signal `number`; return 128 + the signal."""
    if asked is None:
        _print("Stopped before anything started.")
    else:
        done = max(asked.run.rows(), default=0)
        _print(f"\nStopped by {signal.Signals(number).name}, after step {done}. {_how_to_resume(asked.run)}")
        _publish(asked.run)
    return 128 + number


def _publish(run: Run) -> None:
    """Publish after the explanation is printed, which must not be lost to a full disk."""
    try:
        publish(run)
    except OSError as error:
        _print(f"Its curve and summary could not be written: {error}")


def _how_to_resume(run: Run) -> str:
    step = run.last_checkpoint()
    return (
        f"Run the same command again to resume from the checkpoint of step {step}."
        if step
        else "There is no checkpoint yet: run the same command again, and training starts over."
    )


def _print(text: str) -> None:
    print(text, file=sys.stderr)
