"""The quickstart's run folder: a run's folder with a curve, a summary, and a record written when it finishes."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sspo_verl.plugin.checkpoints import KINDS
from sspo_verl.tools import files
from sspo_verl.tools.runs import attempts, settings
from sspo_verl.tools.runs.folder import RunDir


@dataclass(frozen=True)
class Plan:
    """What a call has to do: begin at step 0, resume from a checkpoint, or nothing."""

    kind: str  # "begin", "resume" or "finished"
    step: int = 0


@dataclass(frozen=True)
class Run(RunDir):
    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def metrics(self) -> Path:
        return self.path / attempts.METRICS

    @property
    def settings(self) -> Path:
        return self.path / settings.FILE

    @property
    def curve(self) -> Path:
        return self.path / "curve.png"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def finished(self) -> Path:
        return self.path / "finished.json"

    def recorded_steps(self) -> int:
        """Number of steps with which a call saw the run finish; 0 if none did."""
        return self.record()["step"] if self.finished.exists() else 0

    def record(self) -> dict:
        """The record of the call that finished the run: step, seconds by stage, resumed_from. Raises ValueError, naming
        the file, if it is damaged."""
        return files.read_json(self.finished, "remove it to have the run checked again")

    def plan(self, total_steps: int, contents: Iterable[str] = KINDS) -> Plan:
        """contents: what a resume loads (checkpoint.load_contents)."""
        done = self.recorded_steps()
        if done >= total_steps:
            return Plan("finished", done)
        step = self.last_checkpoint(contents)
        if step >= total_steps and step in self.rows():
            return Plan("finished", step)
        return Plan("resume", step) if step else Plan("begin")

    def clear(self) -> None:
        """Delete what a run creates, and nothing else in the folder."""
        own = (self.checkpoints, self.path / attempts.FOLDER, self.validation, self.rollouts, self.hydra, self.cache)
        for folder in own:
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.metrics, self.curve, self.summary, self.settings, self.finished):
            file.unlink(missing_ok=True)
