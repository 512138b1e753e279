"""Runs verl's own `main_ppo` on a recipe, as a child process with everything that it needs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sspo_verl.tools.runs import attempts
from sspo_verl.tools.runs.environment import (
    CPU_ENVIRONMENT,
    QUIET_ENVIRONMENT,
    RAY_START_ENVIRONMENT,
    guards,
    short_directory,
)
from sspo_verl.tools.runs.folder import RunDir
from sspo_verl.tools.runs.ray_child import RayChild

LOG_ENVIRONMENT = {"HYDRA_FULL_ERROR": "1", "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class MainPPO:
    """A call of verl. platform: "cpu" or "gpu"; variables: environment variables in addition to this process's."""

    recipes: Path
    recipe: str
    overrides: Sequence[str]
    platform: str
    variables: Mapping[str, str] = field(default_factory=dict)

    def command(self) -> list[str]:
        recipe = ("--config-path", str(self.recipes), "--config-name", self.recipe)
        return [sys.executable, "-m", "verl.trainer.main_ppo", *recipe, *self.overrides]

    def environment(self, run: RunDir, attempt: Path, private: Path) -> dict[str, str]:
        """The child's environment. private: a folder that only this user can access, containing r/ and t/."""
        return {
            **RAY_START_ENVIRONMENT,
            **os.environ,
            **QUIET_ENVIRONMENT,
            **LOG_ENVIRONMENT,
            **(CPU_ENVIRONMENT if self.platform == "cpu" else {}),
            **({} if self._joins_a_cluster() else guards()),
            "SSPO_RAY_DIR": str(private / "r"),
            "TMPDIR": str(private / "t"),
            "VERL_FILE_LOGGER_PATH": str(attempt / attempts.METRICS),
            "HF_DATASETS_CACHE": str(run.cache),
            **self.variables,
        }

    def _joins_a_cluster(self) -> bool:
        return any(override.lstrip("+").startswith("ray_kwargs.ray_init.address=") for override in self.overrides)


@dataclass(frozen=True)
class Attempt:
    folder: Path
    child: RayChild

    @property
    def log(self) -> Path:
        return self.folder / attempts.LOG

    @property
    def metrics(self) -> Path:
        return self.folder / attempts.METRICS

    def wait(self, seconds: float) -> int | None:
        """Exit code; None if it is still running after `seconds`."""
        return self.child.wait(seconds)


@contextmanager
def started(job: MainPPO, run: RunDir, keep_open: tuple[int, ...] = ()) -> Iterator[Attempt]:
    """Context manager that starts a new attempt at the run. On exit, however caused, none of its processes is left.

    keep_open: descriptors of lock files, which verl inherits.
    """
    folder, private = run.new_attempt(), Path(short_directory())
    for name in ("r", "t"):  # Ray's files, and all other temporary ones
        (private / name).mkdir()
    child = RayChild(job.command(), job.environment(run, folder, private), folder / attempts.LOG, keep_open)
    try:
        yield Attempt(folder, child)
    finally:
        child.stop()
        shutil.rmtree(private, ignore_errors=True)
