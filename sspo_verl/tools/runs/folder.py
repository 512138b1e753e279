"""A run's folder: its contents, and how far the run got."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sspo_verl.plugin import checkpoints
from sspo_verl.plugin.checkpoints import KINDS
from sspo_verl.tools.runs import attempts
from sspo_verl.tools.runs.metrics_file import Rows


@dataclass(frozen=True)
class RunDir:
    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def validation(self) -> Path:
        return self.path / "validation"

    @property
    def rollouts(self) -> Path:
        return self.path / "rollouts"

    @property
    def hydra(self) -> Path:
        return self.path / "hydra"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    def attempts(self) -> list[Path]:
        return attempts.folders(self.path)

    def new_attempt(self) -> Path:
        return attempts.new(self.path)

    def rows(self) -> Rows:
        """The metrics of all attempts, by step."""
        return attempts.read(self.path).rows

    def last_checkpoint(self, contents: Iterable[str] = KINDS) -> int:
        """The step that the next start resumes from; 0 if there is no complete checkpoint (`plugin.checkpoints`).
        contents: what a resume loads."""
        best = checkpoints.resumable(self.checkpoints, contents)
        return best.step if best else 0

    def hugging_face_model(self) -> Path | None:
        model = self.checkpoints / f"global_step_{self.last_checkpoint()}" / "actor" / "huggingface"
        return model if model.is_dir() else None
