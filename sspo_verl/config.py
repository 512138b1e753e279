"""SSPO's settings: the one place of their defaults and of the rules that they keep."""

import math
from dataclasses import dataclass

from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from verl.workers.config import PolicyLossConfig

# verl hides why a plugin did not load. Whoever uses SSPO comes by here, so here it is told.
import sspo_verl.register  # noqa: F401
from sspo_verl.seam import KEY

ENTROPY_SOURCES = ("old", "current")
NUMBERS = ("clip_low", "clip_high", "clip_low_tight", "alpha", "entropy_low", "entropy_high")
SHARES = ("warn_clipfrac", "warn_single_segment", "warn_one_band")
SWITCHES = ("entropy_clip", "diagnostics")
COUNTS = ("warn_every_steps", "dump_segments")


@dataclass
class SSPOPolicyLossConfig(PolicyLossConfig):
    """`actor_rollout_ref.actor.policy_loss` of a run with SSPO (arXiv 2511.04256).

    Bounds are bounds on the ratio itself: 1 means that the policy has not changed. Entropies are in nats.

    clip_low, clip_high: the plain band. clip_low_tight: the lower bound of a segment with little entropy.
    alpha: a segment with much entropy has the upper bound 1 + alpha + H.
    entropy_low, entropy_high: where little ends and where much begins.
    entropy_clip: False keeps the plain band for every segment ("SSPO w/o entropy clip").
    entropy_source: "old" is the entropy of the policy that computed old_log_prob, which verl has at hand;
        "current" that of the policy in training, which takes another look at the logits. Outside FSDP it needs
        actor.calculate_entropy, and memory.

    What follows changes no update. With another loss_mode (algorithm=grpo, gspo) it is all that is used, and the
    bounds above are those whose clipping is counted.

    diagnostics: the metrics sspo/*, see docs/metrics.md.
    dump_segments: how many segments of each response verl's rollout and validation dumps list; 0 for none.
    warn_every_steps: a warning that goes on is printed again after so many steps; 0 for never at all.
    warn_clipfrac: warn if more than this share of the tokens is clipped.
    warn_single_segment: warn if more than this share of the responses is one segment.
    warn_entropy: warn if the mean entropy of a token is under this, in nats.
    warn_one_band: warn if at least this share of the segments is in one band of entropy.

    Built on the driver before Ray starts, so a bad value costs nothing. Raises ValueError, naming the key.
    Source: the formulas, 0.3, 1.3, 0.8, 0.5 and 1.0 are the paper's; alpha = 0.3 and 0.7 = 1 - 0.3 are our
    reading of it; all from diagnostics on: ours.
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
    diagnostics: bool = True
    dump_segments: int = 0
    warn_every_steps: int = 10
    warn_clipfrac: float = 0.5
    warn_single_segment: float = 0.5
    warn_entropy: float = 0.05
    warn_one_band: float = 0.99

    def __post_init__(self):
        for name in (*NUMBERS, *SHARES, "warn_entropy"):
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
        for name in SHARES:
            if getattr(self, name) > 1:
                raise ValueError(f"{KEY}.{name} is a share and must not be over 1: write 0.5 for 50 %.")
        for name in SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{KEY}.{name} must be true or false, got {getattr(self, name)!r}.")
        for name in COUNTS:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"{KEY}.{name} must be a whole number, 0 or more, got {value!r}.")
        if self.dump_segments and not self.diagnostics:
            raise ValueError(
                f"{KEY}.dump_segments={self.dump_segments} needs {KEY}.diagnostics=True, which counts the segments."
            )
        if self.entropy_source not in ENTROPY_SOURCES:
            raise ValueError(
                f"{KEY}.entropy_source must be one of {', '.join(ENTROPY_SOURCES)}, got {self.entropy_source!r}."
            )

    def bounds(self) -> dict:
        """The settings of `loss.clip_bounds`, by name."""
        return {name: getattr(self, name) for name in (*NUMBERS, "entropy_clip")}


def settings_of(policy_loss) -> SSPOPolicyLossConfig | None:
    """`actor_rollout_ref.actor.policy_loss` of a composed configuration, built and checked; None where it is verl's own
    class. Raises ValueError, naming the key."""
    target = policy_loss.get("_target_")
    if target is None or not issubclass(get_class(target), SSPOPolicyLossConfig):
        return None
    try:
        return instantiate(policy_loss, _convert_="partial")
    except InstantiationException as error:
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from None
        raise
