"""The entropy thresholds of `algorithm=sspo`, between low, mid and high entropy."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple


class Thresholds(NamedTuple):
    """Entropy thresholds in nats per token."""

    low: float
    high: float

    def band(self, entropy: float | None) -> str | None:
        """The band of a segment's H, one of `metrics.names.BANDS`; None if H is unknown."""
        if entropy is None:
            return None
        return "low" if entropy < self.low else "high" if entropy > self.high else "mid"


def defaults() -> Thresholds:
    """entropy_low and entropy_high from the config group. The dataclass has the same values, but would import verl."""
    from omegaconf import OmegaConf

    text = files("sspo_verl").joinpath("conf", "algorithm", "sspo.yaml").read_text()
    settings = OmegaConf.create(text).actor_rollout_ref.actor.policy_loss
    return Thresholds(float(settings.entropy_low), float(settings.entropy_high))
