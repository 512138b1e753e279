"""Estimates the remaining time of the quickstart."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from sspo_verl.tools.report import series
from sspo_verl.tools.runs.metrics_file import Rows

# Seconds on two cores, used until this run has measured its own.
EXPECTED_START = 75.0
EXPECTED_STEP = 4.0
EXPECTED_VALIDATION = 5.0
RECENT_STEPS = 5


@dataclass(frozen=True)
class Forecast:
    """Remaining training time: from this run's measurements, else from earlier ones."""

    total_steps: int
    validate_every: int
    start_step: int = 0

    def validations_after(self, step: int) -> int:
        """Number of validations left: at every multiple of `validate_every`, and at the last step."""
        if self.validate_every <= 0 or step >= self.total_steps:
            return 0
        regular = self.total_steps // self.validate_every - step // self.validate_every
        return regular + (self.total_steps % self.validate_every != 0)

    def training_left(self, step: int, rows: Rows) -> float:
        """Seconds from the end of `step` to the end of the last one."""
        steps = [v for s, v in series.points(rows, "seconds per step") if s > self.start_step][-RECENT_STEPS:]
        validations = [v for s, v in series.points(rows, "seconds per validation") if s > self.start_step]
        per_step = median(steps) if steps else EXPECTED_STEP
        per_validation = validations[-1] if validations else EXPECTED_VALIDATION
        return (self.total_steps - step) * per_step + self.validations_after(step) * per_validation

    def before_training(self, elapsed: float = 0.0) -> float:
        """Seconds to the end after `elapsed` seconds of the start-up."""
        return max(EXPECTED_START - elapsed, 1.0) + self.training_left(self.start_step, {})
