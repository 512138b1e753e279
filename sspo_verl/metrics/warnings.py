"""Warnings: signs that SSPO is not working as intended, with what each means and which key to change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from sspo_verl.metrics.names import BANDS, MISSING, PREFIX
from sspo_verl.names import KEY

Row = dict[str, float]


class Sign(NamedTuple):
    """One failure signature. `seen` takes a step's metrics and the threshold (0 for a sign without one), and returns
    None if the step did not measure it."""

    title: str
    threshold: str | None  # the setting's name
    seen: Callable[[Row, float], bool | None]
    what: Callable[[Row, float], str]
    meaning: str
    advice: str


def _value(row: Row, name: str) -> float | None:
    return row.get(PREFIX + name)


def _over(name: str) -> Callable[[Row, float], bool | None]:
    def seen(row: Row, threshold: float) -> bool | None:
        value = _value(row, name)
        return None if value is None else value > threshold

    return seen


def _low_entropy(row: Row, threshold: float) -> bool | None:
    value = _value(row, "token_entropy")
    return None if value is None else value < threshold


def _fullest_band(row: Row) -> tuple[float, str] | None:
    shares = [(share, band) for band in BANDS if (share := _value(row, f"entropy_band/{band}")) is not None]
    return max(shares) if shares else None


def _one_band(row: Row, threshold: float) -> bool | None:
    fullest = _fullest_band(row)
    return None if fullest is None else fullest[0] >= threshold


def _name_band(row: Row, threshold: float) -> str:
    fullest = _fullest_band(row)
    assert fullest is not None
    share, band = fullest
    return f"{share:.1%} of the segments are in the {band} entropy band (threshold: {threshold:.1%})"


def _farthest(row: Row) -> float | None:
    """Largest distance of the step's ratios from 1."""
    low, high = _value(row, "ratio/min"), _value(row, "ratio/max")
    return None if low is None or high is None else max(abs(low - 1), abs(high - 1))


def _ratio_stays(row: Row, threshold: float) -> bool | None:
    farthest = _farthest(row)
    return None if farthest is None else farthest < threshold


def _responses_missing(row: Row, threshold: float) -> bool | None:
    value = row.get(MISSING)
    return None if value is None else value > threshold


NONFINITE = {"entropy": "token entropies", "log_ratio": "token log ratios"}


def _nonfinite(row: Row, threshold: float) -> bool | None:
    counts = [count for name in NONFINITE if (count := _value(row, f"nonfinite/{name}")) is not None]
    return any(count > threshold for count in counts) if counts else None


def _name_nonfinite(row: Row, threshold: float) -> str:
    counts = {of: _value(row, f"nonfinite/{name}") or 0.0 for name, of in NONFINITE.items()}
    seen = [f"{count:.0f} {of}" for of, count in counts.items() if count > threshold]
    return f"{' and '.join(seen)} are NaN or infinite"


SIGNS: dict[str, Sign] = {
    "clipfrac": Sign(
        "Many tokens are clipped",
        "warn_clipfrac",
        _over("token_clipfrac/all"),
        lambda row, threshold: (
            f"{row[PREFIX + 'token_clipfrac/all']:.1%} of the tokens are clipped (threshold: {threshold:.1%})"
        ),
        "clipped tokens have no gradient: the segments are too long for one ratio, the bounds too tight, or the policy "
        "moves too far in one step",
        f"look at sspo/tokens_per_segment and sspo/ratio; widen {KEY}.clip_low and clip_high, or lower "
        "actor_rollout_ref.actor.optim.lr",
    ),
    "single_segment": Sign(
        "Few segments",
        "warn_single_segment",
        _over("single_segment_frac"),
        lambda row, threshold: (
            f"{row[PREFIX + 'single_segment_frac']:.1%} of the responses are one segment (threshold: {threshold:.1%})"
        ),
        "for a response without line breaks, SSPO is GSPO with wider bounds",
        f"cut differently ({KEY}.segmenter=sentence; docs/segments.md), ask for line breaks in the prompt template, "
        "or compare with algorithm=gspo, which this run is close to",
    ),
    "entropy": Sign(
        "Entropy is collapsing",
        "warn_entropy",
        _low_entropy,
        lambda row, threshold: (
            f"the entropy is {row[PREFIX + 'token_entropy']:.3f} nats per token (threshold: {threshold:g})"
        ),
        "the policy stops exploring although its bounds follow the entropy: the thresholds do not fit this model",
        f"lower {KEY}.entropy_low and entropy_high to sspo/segment_entropy/p25 and p75, or raise alpha",
    ),
    "one_band": Sign(
        "Nearly all segments are in one entropy band",
        "warn_one_band",
        _one_band,
        _name_band,
        "the thresholds do not separate the segments: no bound depends on H, except the upper one in the high band "
        "(1 + alpha + H)",
        f"set {KEY}.entropy_low and entropy_high between sspo/segment_entropy/p25 and p75, or use "
        "algorithm=sspo_no_entropy_clip",
    ),
    "ratio": Sign(
        "The policy does not move",
        "warn_ratio",
        _ratio_stays,
        lambda row, threshold: (
            f"after several updates, all ratios of the step are within {_farthest(row):.1g} of 1 "
            f"(threshold: {threshold:g})"
        ),
        "the updates change nothing, so nothing is learned and nothing can be clipped: the gradient is 0 or skipped as "
        "not finite, or the learning rate is 0",
        "look at actor/grad_norm, critic/advantages/max and actor/lr; set actor_rollout_ref.actor.optim.lr, or make "
        "rewards differ within a group",
    ),
    "nonfinite": Sign(
        "Values are not finite",
        None,
        _nonfinite,
        _name_nonfinite,
        "a segment without a finite H gets the plain bounds, and the other metrics leave out such values: the "
        "entropy that verl computes is NaN if a logit is -inf, and a log ratio is infinite if one of the two policies "
        "cannot sample the token",
        f"for the entropy, set {KEY}.entropy_source to current, which treats a logit of -inf as a probability of 0; "
        "for both, find what sets logits to -inf (a mask on the vocabulary, an overflow in the model's dtype)",
    ),
    "responses_missing": Sign(
        "Responses are missing",
        None,
        _responses_missing,
        lambda row, threshold: f"{row[MISSING]:.0f} responses of the step are not in its batch",
        "verl leaves out responses for which sampling or the reward function failed, and trains on the others, which "
        "may be a biased sample",
        "look for the first error of an AgentLoopWorker or RewardLoopWorker in verl's log; make the reward function "
        "return 0 if it cannot judge a response",
    ),
}


LOWER_LR = "lower actor_rollout_ref.actor.optim.lr"
WHOLE = ("response", "turn")  # segmenters for which a single-segment response is intended
MORE_SEGMENTS = {
    "fixed": f"lower {KEY}.segment_tokens",
    "entropy": f"raise {KEY}.segment_entropy_share",
    "regex": f"widen {KEY}.segment_regex",
}


def signs_of(settings: Any) -> dict[str, Sign]:
    """The SIGNS that apply to these settings, worded for them. settings: SSPOPolicyLossConfig."""
    signs = dict(SIGNS)
    gate, shares = settings.clip_statistic != "ratio", settings.entropy_thresholds == "quantile"
    if gate:
        signs["clipfrac"] = signs["clipfrac"]._replace(
            meaning="clipped tokens have no gradient: the limit on the divergence is too tight, or the policy moves "
            "too far in one step",
            advice=f"raise {KEY}.clip_divergence, or {LOWER_LR}",
        )
    if not settings.uses_entropy:
        del signs["one_band"]
        wider = "clip_divergence" if gate else "clip_high"
        signs["entropy"] = signs["entropy"]._replace(
            meaning="the policy stops exploring, and the bounds of this run do not follow the entropy",
            advice=f"raise {KEY}.{wider}, or {LOWER_LR}",
        )
    elif shares:
        signs["entropy"] = signs["entropy"]._replace(
            meaning="the policy stops exploring although its bounds follow the entropy",
            advice=f"lower {KEY}.entropy_high (here a share of the segments), or raise alpha",
        )
        signs["one_band"] = signs["one_band"]._replace(
            advice=f"set {KEY}.entropy_low and entropy_high (here shares of the segments) to 0.25 and 0.75, say"
        )
    if settings.segmenter in WHOLE and settings.segment_max_tokens is None:
        del signs["single_segment"]
    elif settings.segmenter != "line_break":
        more = MORE_SEGMENTS.get(settings.segmenter, f"choose another {KEY}.segmenter (docs/segments.md)")
        longest = "" if settings.segment_max_tokens is None else f", lower {KEY}.segment_max_tokens"
        signs["single_segment"] = signs["single_segment"]._replace(
            meaning=f"for a response that segmenter={settings.segmenter} does not cut, SSPO is GSPO with wider bounds",
            advice=f"{more}{longest}, or compare with algorithm=gspo, which this run is close to",
        )
    return signs


class Warner:
    """Checks each step's metrics for the signs. thresholds: {Sign.threshold: value}, for the signs that have one.
    signs: the signs to check; all if None."""

    def __init__(self, every_steps: int, thresholds: dict[str, float], signs: dict[str, Sign] | None = None):
        self.every_steps = every_steps
        self.thresholds = thresholds
        self.signs = SIGNS if signs is None else signs
        self._printed: dict[str, int] = {}

    def look(self, row: Row) -> dict[str, bool]:
        """{sign: whether it was seen}, for the signs that this step measured."""
        found = {name: sign.seen(row, _threshold(sign, self.thresholds)) for name, sign in self.signs.items()}
        return {name: seen for name, seen in found.items() if seen is not None}

    def due(self, step: int, row: Row) -> list[str]:
        """Warnings to print now: for each sign that is seen, at most one per `every_steps` steps."""
        if not self.every_steps:
            return []
        lines = []
        for name, seen in self.look(row).items():
            last = self._printed.get(name)
            if seen and (last is None or step - last >= self.every_steps):
                self._printed[name] = step
                lines.append(text(self.signs[name], row, self.thresholds))
        return lines


def text(sign: Sign, row: Row, thresholds: dict[str, float]) -> str:
    """Text of a warning: what was seen, what it means, what to change."""
    what = sign.what(row, _threshold(sign, thresholds))
    return f"{sign.title}: {what}. {_sentence(sign.meaning)} {_sentence(sign.advice)}"


def _threshold(sign: Sign, thresholds: dict[str, float]) -> float:
    return thresholds[sign.threshold] if sign.threshold else 0.0


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:] + "."
