"""Step 3, train: runs verl's own trainer and watches it until it ends."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from sspo_verl.tools import files
from sspo_verl.tools.quickstart.ask import Asked
from sspo_verl.tools.quickstart.display import TRAINING, Display, Status, training_facts
from sspo_verl.tools.quickstart.prepare import Prepared
from sspo_verl.tools.quickstart.publish import publish
from sspo_verl.tools.quickstart.run import Run
from sspo_verl.tools.runs import metrics_file
from sspo_verl.tools.runs.main_ppo import Attempt, started
from sspo_verl.tools.runs.verl_log import LEARNING, LogReader

POLL_SECONDS = 0.5


class Failed(Exception):
    """verl ended with an error, or was stopped because it no longer made progress."""

    def __init__(self, reason: str, exit_code: int, run: Run, attempt: Attempt):
        super().__init__(reason)
        self.run = run
        self.exit_code = exit_code
        self.log = attempt.log
        # Read now, before stopping verl adds lines that are only about being stopped.
        self.log_text = attempt.child.text()


@dataclass(frozen=True)
class Trained:
    """A finished run. seconds (by stage), resumed_from: of the call that finished it; again: an earlier call did."""

    asked: Asked
    seconds: dict[str, float]
    resumed_from: int
    again: bool


def trained_before(asked: Asked) -> Trained | None:
    """The run, if an earlier call finished it."""
    if asked.plan.kind != "finished":
        return None
    if asked.run.recorded_steps() < asked.plan.step:  # verl ended after its quickstart was killed
        publish(asked.run)
        _write_record(asked, {}, asked.plan.step)
    record = asked.run.record()
    return Trained(asked, record["seconds"], record["resumed_from"], again=True)


def train(prepared: Prepared, display: Display) -> Trained:
    """Run verl to completion. Raises Failed; after any exception, no started process is left."""
    asked = prepared.asked
    seconds = prepared.seconds | watch(asked, display)
    display.show(Status(TRAINING, "drawing the curve"))
    publish(asked.run)
    _write_record(asked, seconds, asked.plan.step)
    return Trained(asked, seconds, asked.plan.step, again=False)


def _write_record(asked: Asked, seconds: dict[str, float], resumed_from: int) -> None:
    record = {"step": asked.forecast.total_steps, "seconds": seconds, "resumed_from": resumed_from}
    files.write(asked.run.finished, json.dumps(record) + "\n")


def watch(asked: Asked, display: Display) -> dict[str, float]:
    """Run and watch verl; return the seconds of its start-up and of its training."""
    began = grew = time.monotonic()
    training_since: float | None = None
    with started(asked.main_ppo, asked.run, asked.keep_open) as attempt:
        reader = LogReader(attempt.log)
        try:
            while (exit_code := attempt.child.poll()) is None:
                now = time.monotonic()
                if reader.poll():
                    grew = now
                elif now - grew > 60 * asked.stall_minutes:
                    raise Failed(_stalled(asked, reader), 1, asked.run, attempt)
                if training_since is None and reader.phase == LEARNING:
                    training_since = now
                display.show(_status(asked, attempt, reader.phase, now - began))
                time.sleep(POLL_SECONDS)
        finally:
            if attempt.child.poll() is None:
                display.show(Status(TRAINING, "stopping verl"))
    if exit_code != 0:
        raise Failed(f"verl ended with exit code {exit_code}", exit_code, asked.run, attempt)
    ended = time.monotonic()
    training_since = training_since or ended
    return {"start-up": training_since - began, "training": ended - training_since}


def _stalled(asked: Asked, reader: LogReader) -> str:
    reason = (
        f"no progress in verl's log for {asked.stall_minutes:g} minutes, so it was stopped (--stall-minutes sets how "
        f"long to wait). It was at: {reader.phase}"
    )
    if reader.waiting:
        reason += f". It waited for responses ({reader.waiting}): sampling or the reward function does not return"
    return reason


def _status(asked: Asked, attempt: Attempt, phase: str, elapsed: float) -> Status:
    forecast = asked.forecast
    if phase != LEARNING:
        return Status(TRAINING, phase, seconds_left=forecast.before_training(elapsed))
    rows = metrics_file.read(attempt.metrics).rows
    step = max(rows, default=forecast.start_step)
    return Status(
        TRAINING,
        phase,
        done=step,
        total=forecast.total_steps,
        seconds_left=forecast.training_left(step, rows),
        facts=training_facts(asked.run.rows(), step),
    )
