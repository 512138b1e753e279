"""Panels of the report: which pictures are drawn, in which order, and what each means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sspo_verl.metrics.names import (
    ALGORITHMS,
    BAND_NAMES,
    BANDS,
    LENGTHS,
    METRICS,
    PREFIX,
    QUANTILES,
    SIDES,
    TOKENS,
    UPDATES,
    Metric,
    group_names,
)
from sspo_verl.metrics.warnings import SIGNS
from sspo_verl.tools.report.numbers import warning_series
from sspo_verl.tools.report.series import ACCURACY, SERIES

LINES, FAN, TIMELINE, PROFILE = "lines", "fan", "timeline", "profile"

# verl's own metrics that are drawn.
_VERL = {
    ACCURACY: Metric("held-out problems", "those answered right; the mean over data sources if there are several"),
    "reward": Metric("responses of the batch", "their mean reward"),
    "entropy": Metric(TOKENS, "entropy in nats, of the policy that sampled"),
    "clip fraction": Metric(TOKENS, "tokens that the run's own bounds clip, whatever its algorithm"),
    "response_length/mean": Metric("responses", "tokens"),
    "response_length/clip_ratio": Metric("responses", "those that reached the max length and were cut off"),
    "seconds per step": Metric("none", "wall-clock time of a step, validation left out"),
    "actor/ppo_kl": Metric(TOKENS, "log pi_old - log pi: how far the policy moved in the step"),
    "actor/grad_norm": Metric("none", "norm of the gradient before it is clipped, mean over the step's updates"),
    "rollout difference": Metric(TOKENS, "difference of a token's probability in the sampler and in the trainer"),
}
_VERL_NAMES = {ACCURACY: "val-core/*/mean@*"}


@dataclass(frozen=True)
class Tile:
    """One picture: one axis with the curves of all algorithms (a fan has one axis per algorithm)."""

    key: str
    title: str
    unit: str
    series: tuple[str, ...]  # one; for a fan the quantiles in ascending order; for a profile its positions
    kind: str = LINES
    share: bool = False  # shown in percent
    log: bool = False  # logarithmic, with a linear part at 0
    from_zero: bool = True
    top: float | None = None
    meaning: str = ""  # instead of the one in the metrics table
    of: str = ""  # denominator, instead of the one in the metrics table
    places: tuple[str, ...] = ()  # for a profile: labels of the positions on its x axis
    axis: str = "step"  # quantity on the x axis

    @property
    def scale(self) -> float:
        return 100.0 if self.share else 1.0

    @property
    def metrics(self) -> list[str]:
        """Names of the drawn metrics in verl."""
        return [_VERL_NAMES.get(s) or SERIES.get(s, (s,))[0] for s in self.series]

    @property
    def needs_diagnostics(self) -> bool:
        return all(name.startswith(PREFIX) for name in self.metrics)

    @property
    def explanation(self) -> tuple[str, str]:
        """(meaning, denominator)."""
        metric = _VERL.get(self.series[0]) or METRICS[self.metrics[0]]
        return self.meaning or metric.meaning, self.of or metric.denominator


@dataclass(frozen=True)
class Section:
    key: str
    title: str
    text: str
    tiles: tuple[Tile, ...]
    same_scale: bool = False  # the tiles share their y axis


def _percent(key: str, title: str, series: str, of: str = "tokens", **more) -> Tile:
    return Tile(key, title, f"% of {of}", (series,), share=True, **more)


def _profile(key: str, title: str, group: str, ends: Sequence[float], axis: str, of: str, meaning: str) -> Tile:
    """A metric's groups side by side: one point per group, its mean over the steps."""
    series = tuple(f"{PREFIX}{group}/{name}" for name in group_names(ends))
    places = tuple(f"up to {end}" if end < math.inf else f"over {ends[-2]}" for end in ends)
    return Tile(
        key, title, "% of tokens", series, PROFILE, share=True, meaning=meaning, of=of, places=places, axis=axis
    )


def _clipping_by(group: str, ends: Sequence[float], axis: str, of: str) -> tuple[Tile, ...]:
    return tuple(
        _profile(
            f"{group}_{algorithm}", title, f"{group}/{algorithm}", ends, axis, of, f"tokens that {clips}; {_OF_STEPS}"
        )
        for (algorithm, clips), title in zip(ALGORITHMS.items(), _WHOSE, strict=True)
    )


_OF_STEPS = "each point is the mean over the run's steps"
_WHOSE = ("SSPO's bounds", "GRPO, 0.2", "GSPO, 3e-4 and 4e-4", "GSPO, 0.2")

ACCURACY_TILE = _percent("accuracy", "Held-out accuracy", ACCURACY, "problems", top=105.0)
REWARD = Tile("reward", "Training reward", "mean over the batch", ("reward",))
ENTROPY = Tile("entropy", "Entropy of the policy", "nats per token", ("entropy",))
CLIP_FRACTION = _percent("clipfrac", "Clip fraction", "clip fraction")
LENGTH = Tile("length", "Response length", "tokens", ("response_length/mean",))

OVERVIEW = (ACCURACY_TILE, REWARD, CLIP_FRACTION, ENTROPY)  # the quickstart's picture

_COUNTERFACTUAL = "What GRPO or GSPO would have clipped on the batches that the run trained on, with its own policy."

SECTIONS = (
    Section(
        "learning", "Learning", "Does it learn, and does it keep its entropy?", (ACCURACY_TILE, REWARD, ENTROPY, LENGTH)
    ),
    Section(
        "clipping",
        "What is clipped",
        "A clipped token has no gradient. The first picture is each run's own loss. The others are SSPO's bounds: what "
        "they clip in an SSPO run, and what they would have clipped in another.",
        (
            CLIP_FRACTION,
            _percent("clip_low", "At the lower bound", f"{PREFIX}token_clipfrac/low"),
            _percent("clip_high", "At the upper bound", f"{PREFIX}token_clipfrac/high"),
            *(
                _percent(
                    f"clip_band_{b}", f"Where H is {b}", f"{PREFIX}token_clipfrac/band_{b}/all", "tokens in the band"
                )
                for b in BANDS
            ),
            *(
                _percent(
                    f"clip_band_{b}_{side}",
                    f"H {b}, {bound} bound",
                    f"{PREFIX}token_clipfrac/band_{b}/{side}",
                    "tokens in the band",
                )
                for side, bound in (("low", "lower"), ("high", "upper"))
                for b in BANDS
            ),
        ),
    ),
    Section(
        "counterfactual",
        "What other algorithms would have clipped",
        f"{_COUNTERFACTUAL} One scale for all: logarithmic, linear below 0.1 % so that zero can be shown.",
        (
            _percent("own", "The run's own bounds", "clip fraction", log=True),
            _percent("as_grpo", "GRPO's bounds", f"{PREFIX}counterfactual/grpo_clipfrac", log=True),
            _percent("as_gspo", "GSPO's bounds", f"{PREFIX}counterfactual/gspo_clipfrac", log=True),
            _percent("as_gspo_wide", "GSPO with 0.2", f"{PREFIX}counterfactual/gspo_wide_clipfrac", log=True),
        ),
        same_scale=True,
    ),
    Section(
        "lengths",
        "What is clipped, by length",
        "The share of the tokens in segments of one length that is clipped: one band for all lengths clips short "
        "segments most. The last picture shows how many tokens there are.",
        (
            *_clipping_by("clipfrac_by_length", LENGTHS, "tokens in the segment", "valid tokens in these segments"),
            _profile(
                "tokens_by_length",
                "Tokens",
                "tokens_by_length",
                LENGTHS,
                "tokens in the segment",
                TOKENS,
                f"tokens in segments of this length; {_OF_STEPS}",
            ),
        ),
    ),
    Section(
        "updates",
        "What is clipped, by update",
        "The first update on a batch starts from the policy that sampled it and clips nothing; later ones move away.",
        _clipping_by("clipfrac_by_update", UPDATES, "update on the batch", "valid tokens of these updates"),
    ),
    Section(
        "segments",
        "Segments",
        "SSPO cuts a response at its line breaks. If most responses are one segment, it is GSPO with wider bounds.",
        (
            Tile("segments", "Segments per response", "segments", ("segments per response",)),
            Tile("segment_tokens", "Tokens per segment", "tokens", (f"{PREFIX}tokens_per_segment",)),
            _percent("single", "Single-segment responses", f"{PREFIX}single_segment_frac", "responses"),
        ),
    ),
    Section(
        "bands",
        "Entropy bands",
        "The share of the segments in each band of H, a segment's mean entropy, which sets the bounds.",
        tuple(
            _percent(f"band_{b}", BAND_NAMES[b].capitalize(), f"{PREFIX}entropy_band/{b}", "segments", top=105.0)
            for b in BANDS
        ),
        same_scale=True,
    ),
    Section(
        "thresholds",
        "Entropy thresholds",
        "`entropy_low` and `entropy_high` of each batch in nats, if they are shares (entropy_thresholds=quantile).",
        tuple(
            Tile(f"threshold_{side}", f"entropy_{side}", "nats per token", (f"{PREFIX}entropy_threshold/{side}",))
            for side in SIDES
        ),
        same_scale=True,
    ),
    Section(
        "quantiles",
        "Entropy of the segments",
        "The distribution of H over a step's segments, one picture per algorithm.",
        (
            Tile(
                "quantiles",
                "H of the segments",
                "nats",
                tuple(f"{PREFIX}segment_entropy/{name}" for name in QUANTILES),
                kind=FAN,
                meaning="the line: half of the segments have an H below it. The dark band: the middle half (p25 to "
                "p75). The pale one: p05 to p95. Of several seeds, the mean of each quantile",
            ),
        ),
        same_scale=True,
    ),
    Section(
        "bounds",
        "Ratio and bounds",
        "Means over the segments of a step. The last is the maximum of a step over tokens with a negative advantage.",
        (
            Tile("ratio", "Importance ratio", "ratio", (f"{PREFIX}ratio/mean",), from_zero=False),
            Tile("lower_bound", "Lower bound", "ratio", (f"{PREFIX}lower_bound/mean",), from_zero=False),
            Tile("upper_bound", "Upper bound", "ratio", (f"{PREFIX}upper_bound/mean",), from_zero=False),
            Tile("negative_weight", "Largest ratio times -A", "where A < 0", (f"{PREFIX}max_negative_weight",)),
        ),
    ),
    Section(
        "trainer",
        "The trainer",
        "Cost and health of the training.",
        (
            Tile("seconds", "Time per step", "seconds", ("seconds per step",)),
            _percent("cut_off", "Responses cut off", "response_length/clip_ratio", "responses"),
            Tile("kl", "KL of a step (ppo_kl)", "nats per token", ("actor/ppo_kl",), from_zero=False),
            Tile("grad_norm", "Gradient norm", "", ("actor/grad_norm",)),
            Tile("rollout", "Sampler against trainer", "probability", ("rollout difference",)),
        ),
    ),
    Section(
        "warnings",
        "Warnings",
        "Signs that SSPO is not working as intended. A bar marks each step at which a warning applies; with several "
        "seeds, its height is the share of them.",
        tuple(
            Tile(f"warning_{name}", sign.title, "", (warning_series(name),), kind=TIMELINE)
            for name, sign in SIGNS.items()
        ),
    ),
)


def advice(tile: Tile) -> tuple[str, str]:
    """(what a sign means, what to change)."""
    sign = SIGNS[tile.series[0].removeprefix(warning_series(""))]
    return sign.meaning, sign.advice
