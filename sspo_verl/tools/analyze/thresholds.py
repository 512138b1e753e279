"""The entropy thresholds of `algorithm=sspo`: where low entropy ends and high entropy begins."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple


class Thresholds(NamedTuple):
    """In nats per token."""

    low: float
    high: float

    def band(self, entropy: float | None) -> str | None:
        """The band that a segment's H is in, one of `metrics.names.BANDS`; None if H is not known."""
        if entropy is None:
            return None
        return "low" if entropy < self.low else "high" if entropy > self.high else "mid"


def defaults() -> Thresholds:
    """entropy_low and entropy_high of the config group. Its dataclass has the same ones, and would import verl."""
    from omegaconf import OmegaConf

    text = files("sspo_verl").joinpath("conf", "algorithm", "sspo.yaml").read_text()
    settings = OmegaConf.create(text).actor_rollout_ref.actor.policy_loss
    return Thresholds(float(settings.entropy_low), float(settings.entropy_high))
