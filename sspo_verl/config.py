"""SSPO's settings: the one place of their defaults and of the rules that they keep."""

import math
from dataclasses import dataclass

from verl.workers.config import PolicyLossConfig

# verl hides why a plugin did not load. Whoever uses SSPO comes by here, so here it is told.
import sspo_verl.register  # noqa: F401

KEY = "actor_rollout_ref.actor.policy_loss"
ENTROPY_SOURCES = ("old", "current")
NUMBERS = ("clip_low", "clip_high", "clip_low_tight", "alpha", "entropy_low", "entropy_high")


@dataclass
class SSPOPolicyLossConfig(PolicyLossConfig):
    """`actor_rollout_ref.actor.policy_loss` of a run with SSPO (arXiv 2511.04256).

    Bounds are bounds on the ratio itself: 1 means that the policy has not changed. Entropies are in nats.

    clip_low, clip_high: the plain band. clip_low_tight: the lower bound of a segment with little entropy.
    alpha: a segment with much entropy has the upper bound 1 + alpha + H.
    entropy_low, entropy_high: where little ends and where much begins.
    entropy_clip: False keeps the plain band for every segment ("SSPO w/o entropy clip").
    entropy_source: "old" is the entropy of the policy that computed old_log_prob, which verl has at hand;
        "current" that of the policy in training, which costs memory and needs actor.calculate_entropy.

    Built on the driver before Ray starts, so a bad value costs nothing. Raises ValueError, naming the key.
    Source: the formulas, 0.3, 1.3, 0.8, 0.5 and 1.0 are the paper's; alpha = 0.3 and 0.7 = 1 - 0.3 are our
    reading of it.
    """

    loss_mode: str = "sspo"
    clip_low: float = 0.7
    clip_high: float = 1.3
    clip_low_tight: float = 0.8
    alpha: float = 0.3
    entropy_low: float = 0.5
    entropy_high: float = 1.0
    entropy_clip: bool = True
    entropy_source: str = "old"

    def __post_init__(self):
        for name in NUMBERS:
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value):
                raise ValueError(f"{KEY}.{name} must be a finite number, got {value!r}.")
            if value < 0:
                raise ValueError(f"{KEY}.{name} must not be negative, got {value}.")
        for name in ("clip_low", "clip_low_tight"):
            if getattr(self, name) > 1:
                raise ValueError(
                    f"{KEY}.{name} is a lower bound on the ratio and must not be over 1, got {getattr(self, name)}: "
                    "it would clip an unchanged policy. It is the bound itself, not a distance from 1: "
                    "write 0.7 for 0.3 below."
                )
        if self.clip_high < 1:
            raise ValueError(
                f"{KEY}.clip_high is an upper bound on the ratio and must not be under 1, got {self.clip_high}: "
                "it would clip an unchanged policy. It is the bound itself, not a distance from 1: "
                "write 1.3 for 0.3 above."
            )
        if self.clip_low_tight < self.clip_low:
            raise ValueError(
                f"{KEY}.clip_low_tight ({self.clip_low_tight}) must not be under clip_low ({self.clip_low}): it "
                "is the tighter of the two. Raise clip_low_tight or lower clip_low."
            )
        if self.entropy_low > self.entropy_high:
            raise ValueError(
                f"{KEY}.entropy_low ({self.entropy_low}) must not be over entropy_high ({self.entropy_high}). "
                "Swap them, or set both to the same value for two bands."
            )
        if not isinstance(self.entropy_clip, bool):
            raise ValueError(f"{KEY}.entropy_clip must be true or false, got {self.entropy_clip!r}.")
        if self.entropy_source not in ENTROPY_SOURCES:
            raise ValueError(
                f"{KEY}.entropy_source must be one of {', '.join(ENTROPY_SOURCES)}, got {self.entropy_source!r}."
            )

    def bounds(self) -> dict:
        """The settings of `loss.clip_bounds`, by name."""
        return {name: getattr(self, name) for name in (*NUMBERS, "entropy_clip")}
