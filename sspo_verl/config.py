"""SSPO's settings: the single source of their defaults and validation."""

import difflib
import sys
from dataclasses import dataclass, fields

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from verl.workers.config import PolicyLossConfig

from sspo_verl import segmenters
from sspo_verl.band_settings import BY_NAME, check_band, is_finite
from sspo_verl.bounds import uses_entropy
from sspo_verl.names import KEY, NAME

REGISTER = "sspo_verl.plugin.register"
ENTROPY_SOURCES = ("old", "current")
NUMBERS = ("clip_low", "clip_high", "clip_low_tight", "alpha", "entropy_low", "entropy_high")
SHARES = ("warn_clipfrac", "warn_single_segment", "warn_one_band")
SWITCHES = ("entropy_clip", "diagnostics")
COUNTS = ("warn_every_steps", "dump_segments")


@dataclass
class SSPOPolicyLossConfig(PolicyLossConfig):
    """`actor_rollout_ref.actor.policy_loss` of an SSPO run (arXiv 2511.04256).

    Bounds apply to the ratio itself: 1 means that the policy has not changed. Entropies are in nats.

    clip_low, clip_high: the plain band. clip_low_tight: the lower bound for low-entropy segments.
    alpha: a high-entropy segment has the upper bound 1 + alpha + H.
    entropy_low, entropy_high: a segment is low-entropy below the first and high-entropy above the second.
    entropy_clip: False uses the plain band for every segment ("SSPO w/o entropy clip").
    dual_clip: over 1, like verl's clip_ratio_c: with a negative advantage A a token's loss is at most dual_clip |A|,
        and has no gradient there. None: the only limit is that of the ratio itself, exp(10).
    entropy_source: "old" is the entropy of the policy that computed old_log_prob, which verl already has; "current"
        is that of the policy being trained, which takes another pass over the logits. Outside FSDP, "current" needs
        actor.calculate_entropy, and more memory.

    Beyond the paper, each off by default (docs/bands.md):
    clip_length_exponent, clip_length_reference: p, and L0 in tokens; the band's width in log space scales with
        (L / L0)^p.
    ratio_length_exponent: q; the ratio is exp(L^q times the mean log ratio): with 1, the product of the tokens' ratios.
    ratio_cap: the largest weight of a token; a capped token keeps its gradient. None: no cap.
    entropy_thresholds: "quantile" reads entropy_low and entropy_high as shares of the batch's segments.
    clip_statistic: "tv" and "binary_kl" clip by the segment's divergence instead of its ratio.
    clip_divergence: the divergence above which they clip; required by those two.
    segmenter: how responses are segmented: a name from `segmenters.SEGMENTERS`, or your own function as
        pkg://package.module:function or /path/to/file.py:function (docs/segments.md).
    segment_tokens, segment_entropy_share, segment_regex: required by the segmenters `fixed`, `entropy` and `regex`.
        segment_max_tokens: longer segments, of any segmenter, are split into even pieces; None for no maximum.

    label: the name that `algorithm=` selected; each file of conf/algorithm sets its own. A run whose loss does not
        match its label is refused (`check_run`); None for your own combination.

    The settings below do not affect updates. With another loss_mode (algorithm=grpo, gspo) they are the only ones used,
    and the bounds above are those whose clipping is counted.

    diagnostics: the metrics sspo/*, see docs/metrics.md.
    dump_segments: how many segments of each response verl's rollout and validation dumps list; 0 for none.
    warn_every_steps: a persistent warning is repeated after this many steps; 0 to never warn.
    warn_clipfrac: warn if more than this share of the tokens is clipped.
    warn_single_segment: warn if more than this share of the responses is one segment.
    warn_entropy: warn if the mean token entropy is under this, in nats.
    warn_one_band: warn if at least this share of the segments is in one entropy band.
    warn_ratio: warn if every ratio of a step with several updates is closer to 1 than this; 0 for never.

    Built on the driver before Ray starts, so a bad value is caught early. Raises ValueError, naming the key.
    Source: the formulas, 0.3, 1.3, 0.8, 0.5 and 1.0 are the paper's; alpha = 0.3 and 0.7 = 1 - 0.3 are our
    reading of it; dual_clip: arXiv 1912.09729; everything from diagnostics on: ours.
    """

    loss_mode: str = "sspo"
    clip_low: float = 0.7
    clip_high: float = 1.3
    clip_low_tight: float = 0.8
    alpha: float = 0.3
    entropy_low: float = 0.5
    entropy_high: float = 1.0
    entropy_clip: bool = True
    dual_clip: float | None = None
    entropy_source: str = "old"
    clip_length_exponent: float = 0.0
    clip_length_reference: float = 16.0
    ratio_length_exponent: float = 0.0
    ratio_cap: float | None = None
    entropy_thresholds: str = "absolute"
    clip_statistic: str = "ratio"
    clip_divergence: float | None = None
    segmenter: str = "line_break"
    segment_tokens: int | None = None
    segment_entropy_share: float | None = None
    segment_regex: str | None = None
    segment_max_tokens: int | None = None
    label: str | None = None
    diagnostics: bool = True
    dump_segments: int = 0
    warn_every_steps: int = 10
    warn_clipfrac: float = 0.5
    warn_single_segment: float = 0.5
    warn_entropy: float = 0.05
    warn_one_band: float = 0.99
    warn_ratio: float = 1e-9

    def __post_init__(self):
        if REGISTER not in sys.modules:  # verl hides why a plugin did not load; every use of SSPO passes through here
            raise RuntimeError(
                "verl did not load the plugin sspo_verl in this process, so SSPO is missing. Let verl load it: "
                "VERL_USE_EXTERNAL_PLUGINS must be unset, or name sspo_verl. If it is, "
                f"`python -c 'import {REGISTER}'` shows why it fails to load."
            )
        for name in (*NUMBERS, *SHARES, "warn_entropy", "warn_ratio"):
            value = getattr(self, name)
            if not is_finite(value):
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
        if self.uses_entropy and self.clip_low_tight < self.clip_low:
            raise ValueError(
                f"{KEY}.clip_low_tight ({self.clip_low_tight}) must not be under clip_low ({self.clip_low}): it "
                "is the tighter of the two. Raise clip_low_tight, lower clip_low, or set entropy_clip=false for one "
                "band."
            )
        if self.entropy_low > self.entropy_high:
            raise ValueError(
                f"{KEY}.entropy_low ({self.entropy_low}) must not be over entropy_high ({self.entropy_high}). "
                "Swap them, or set both to the same value for two bands."
            )
        if self.dual_clip is not None and not (is_finite(self.dual_clip) and self.dual_clip > 1):
            raise ValueError(
                f"{KEY}.dual_clip must be a finite number over 1 (verl's clip_ratio_c is 3.0), or null for none, got "
                f"{self.dual_clip!r}: it limits the ratio where the advantage is negative."
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
                raise ValueError(f"{KEY}.{name} must be an integer, 0 or more, got {value!r}.")
        if self.dump_segments and not self.diagnostics:
            raise ValueError(
                f"{KEY}.dump_segments={self.dump_segments} needs {KEY}.diagnostics=True, which counts the segments."
            )
        if self.label is not None and not isinstance(self.label, str):
            raise ValueError(f"{KEY}.label must be a name or null, got {self.label!r}.")
        if self.entropy_source not in ENTROPY_SOURCES:
            raise ValueError(
                f"{KEY}.entropy_source must be one of {', '.join(ENTROPY_SOURCES)}, got {self.entropy_source!r}."
            )
        check_band(self)

        try:
            segmenters.check(self.segments())
        except ValueError as error:
            raise ValueError(f"{KEY}.{error}") from error

    def segments(self) -> segmenters.SegmentSettings:
        """Settings for `segmenters.segmenter_of`."""
        return segmenters.SegmentSettings(
            **{field.name: getattr(self, field.name) for field in fields(segmenters.SegmentSettings)}
        )

    def bounds(self) -> dict:
        """Settings for `loss.sspo_token_loss`, by name. With entropy_thresholds=quantile, entropy_low and
        entropy_high are shares; replace them with the batch's quantiles before passing them to the loss."""
        return {name: getattr(self, name) for name in (*NUMBERS, "entropy_clip", "dual_clip", *BY_NAME)}

    @property
    def uses_entropy(self) -> bool:
        """Whether the bounds of the loss depend on the entropy."""
        return uses_entropy(self.bounds())


def settings_of(policy_loss) -> SSPOPolicyLossConfig | None:
    """`actor_rollout_ref.actor.policy_loss` of a composed configuration, built and checked; None if it is null or of
    another class. Raises ValueError, naming the key."""
    if policy_loss is None:
        return None
    if not isinstance(policy_loss, DictConfig):
        raise ValueError(
            f"{KEY}={policy_loss!r} replaces a group of settings by one value. Set its keys: {KEY}.alpha=0.3."
        )
    if not _is_ours(policy_loss):
        return None
    known = {field.name for field in fields(SSPOPolicyLossConfig)}
    if unknown := sorted(str(key) for key in policy_loss if key not in known and key != "_target_"):
        near = difflib.get_close_matches(unknown[0], known, n=1)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"{KEY}.{unknown[0]} is unknown.{meant} docs/settings.md lists the keys.")
    if missing := sorted(OmegaConf.missing_keys(policy_loss)):
        key = f"{KEY}.{missing[0].removeprefix(f'{KEY}.')}"  # OmegaConf names it from the top of its tree
        raise ValueError(f"{key} is ???, which is no value. Set one (docs/settings.md lists the defaults).")
    try:
        return instantiate(policy_loss, _convert_="partial")
    except InstantiationException as error:
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from None
        raise


def _is_ours(policy_loss: DictConfig) -> bool:
    """Whether the class is SSPO's. One that cannot be loaded is refused only in a run that asks for SSPO."""
    target = policy_loss.get("_target_")
    if target is None:
        return False
    try:
        if not isinstance(target, str):
            raise TypeError("it is not the name of a class")
        found = get_object(target)
    except Exception as error:  # from any module that the name imports
        if policy_loss.get("label") is None and policy_loss.get("loss_mode") != NAME:
            return False
        why = " ".join(str(error).split())
        raise ValueError(
            f"{KEY}._target_={target!r} cannot be loaded ({why}). Correct it, or leave it out: algorithm=sspo sets it."
        ) from error
    return isinstance(found, type) and issubclass(found, SSPOPolicyLossConfig)
