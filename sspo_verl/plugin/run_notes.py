"""Notes for the log before the first rollout of an SSPO run: what is trained, and which keys have no effect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields

from sspo_verl.band_settings import BY_NAME
from sspo_verl.names import KEY, NAME
from sspo_verl.plugin.run_settings import ACTOR, CORRECTION, ROLLOUT, Run

_BOUNDS = f"SSPO's bounds are {KEY}.clip_low, clip_high, clip_low_tight and alpha"
_NO_SUCH_TERM = f"SSPO's loss has no such term; {_BOUNDS}"
# Keys that verl's other losses and advantages read and SSPO's do not: {key: SSPO's equivalent}. A test scans verl's
# losses for keys that are missing here.
UNUSED_BY_LOSS = {
    f"{ACTOR}.clip_ratio": _BOUNDS,
    f"{ACTOR}.clip_ratio_low": f"SSPO's lower bound is {KEY}.clip_low, a bound on the ratio itself",
    f"{ACTOR}.clip_ratio_high": f"SSPO's upper bound is {KEY}.clip_high, a bound on the ratio itself",
    f"{ACTOR}.clip_ratio_c": f"SSPO's dual clip is {KEY}.dual_clip",
    f"{ACTOR}.tau_pos": _BOUNDS,
    f"{ACTOR}.tau_neg": _BOUNDS,
    f"{KEY}.clip_cov_ratio": _NO_SUCH_TERM,
    f"{KEY}.clip_cov_lb": _NO_SUCH_TERM,
    f"{KEY}.clip_cov_ub": _NO_SUCH_TERM,
    f"{KEY}.kl_cov_ratio": _NO_SUCH_TERM,
    f"{KEY}.ppo_kl_coef": f"SSPO's loss has no such term; for a KL penalty set {ACTOR}.use_kl_loss and kl_loss_coef",
    f"{KEY}.dro_beta": _NO_SUCH_TERM,
    f"{KEY}.rollout_correction": f"it belongs to verl's loss bypass_mode; set {CORRECTION}",
}
_ADVANTAGE = "SSPO's advantage is group-relative; its only key is algorithm.norm_adv_by_std_in_grpo"
UNUSED_BY_ADVANTAGE = {
    "algorithm.gamma": _ADVANTAGE,
    "algorithm.lam": _ADVANTAGE,
    "algorithm.gdpo_reward_keys": _ADVANTAGE,
    "algorithm.gdpo_reward_weights": _ADVANTAGE,
    f"{ACTOR}.calculate_sum_pi_squared": _ADVANTAGE,
}


def notes(run: Run) -> Iterator[str]:
    """Notes for the log, for a run that passed `check_run`."""
    yield what_trains(run)
    yield from _another_advantage(run)
    yield from _groups_of_ones_own(run)
    yield from unused_keys(run)
    yield from unused_settings(run)
    yield from _hidden_clip_ratio(run)
    yield from _nothing_trains(run)
    yield from _nothing_to_clip(run)
    yield from _no_warnings(run)


def what_trains(run: Run) -> str:
    name = f" (algorithm={run.settings.label})" if run.settings.label else ""
    plain = " without entropy clip" if run.sspo and not run.settings.entropy_clip else ""
    beyond = _beyond_the_paper(run.settings) if run.sspo else ""
    parts = f"policy loss {run.loss}{plain}{beyond}, advantage {run.advantage}, aggregation {run.actor.loss_agg_mode}"
    return f"this run trains{name}: {parts}"


def _beyond_the_paper(settings) -> str:
    own = {field.name: field.default for field in fields(settings)}
    names = (*(field.name for field in fields(settings.segments())), "entropy_thresholds", *BY_NAME)
    changed = [f"{name}={getattr(settings, name)}" for name in names if getattr(settings, name) != own[name]]
    return f" with {', '.join(changed)}" if changed else ""


def _another_advantage(run: Run) -> Iterator[str]:
    if run.sspo and run.advantage != NAME:
        yield (
            f"NOTE: SSPO's loss trains with the advantage algorithm.adv_estimator={run.advantage}; the method's own "
            f"is algorithm.adv_estimator={NAME}"
        )


def _groups_of_ones_own(run: Run) -> Iterator[str]:
    if run.advantage == NAME and run.n < 2 and run.own_groups:
        yield (
            f"NOTE: {ROLLOUT}.n={run.n}, so {' or '.join(run.own_groups)} must make groups of several responses to one "
            "prompt: in a group of one the advantage is 0"
        )


def unused_keys(run: Run) -> Iterator[str]:
    """A line per verl key that differs from verl's default and that SSPO does not read."""
    unused = {**(UNUSED_BY_LOSS if run.sspo else {}), **(UNUSED_BY_ADVANTAGE if run.advantage == NAME else {})}
    if run.sspo and not run.bypass:
        unused[f"{CORRECTION}.loss_type"] = f"verl reads it only with {CORRECTION}.bypass_mode=True"
    defaults = _defaults()
    for key, instead in unused.items():
        value = _value(run.config, key, defaults.get(key))
        if value != defaults.get(key):
            yield f"NOTE: {key}={value} has no effect here: {instead}"


def _value(config, key: str, default):
    from omegaconf import OmegaConf

    marker = "absent"  # a key that is not in the composed config has its dataclass's default; one that is null is null
    value = OmegaConf.select(config, key, default=marker)
    if value == marker:
        return default
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _defaults() -> dict:
    """{key: verl's default}, from its dataclasses; without fields that have a factory, which its configs omit."""
    from verl.trainer.config import AlgoConfig, RolloutCorrectionConfig
    from verl.workers.config import ActorConfig, PolicyLossConfig

    places = {ACTOR: ActorConfig, KEY: PolicyLossConfig, "algorithm": AlgoConfig, CORRECTION: RolloutCorrectionConfig}
    return {
        f"{place}.{field.name}": field.default
        for place, owner in places.items()
        for field in fields(owner)
        if field.default is not MISSING
    }


def unused_settings(run: Run) -> Iterator[str]:
    """A line per SSPO setting that was changed and that this run does not read."""
    settings = run.settings
    own = {field.name: field.default for field in fields(settings) if field.name not in _VERLS_AND_NAMES}
    warnings = {name for name in own if name.startswith("warn_")}
    reasons: dict[str, str] = {}
    if not run.observes:
        reasons = dict.fromkeys(own, f"{KEY}.loss_mode={run.loss} has its own bounds, and diagnostics=False")
    elif not settings.diagnostics:
        reasons = dict.fromkeys(warnings, f"{KEY}.diagnostics=False")
    elif not run.sspo:
        reasons = dict.fromkeys(warnings, f"only runs with {KEY}.loss_mode={NAME} have warnings")
    if run.observes and not run.needs_entropy and not settings.diagnostics:
        reasons["entropy_source"] = f"{KEY}.entropy_clip=False and diagnostics=False, so no entropy is computed"
    if run.observes and not run.sspo:
        limits = ("dual_clip", "ratio_cap")
        reasons.update(dict.fromkeys(limits, f"it limits SSPO's loss, but {KEY}.loss_mode={run.loss}"))
    if run.observes and settings.clip_length_exponent == 0:
        reasons["clip_length_reference"] = f"{KEY}.clip_length_exponent=0, so all lengths have the same band"
    if run.observes and settings.clip_statistic != "ratio":
        gate = f"{KEY}.clip_statistic={settings.clip_statistic} clips by the divergence"
        reasons.update(dict.fromkeys((*_OF_THE_BAND, *(() if settings.diagnostics else _THRESHOLDS)), gate))
    elif run.observes and not settings.entropy_clip:
        idle = ("clip_low_tight", "alpha", *(() if settings.diagnostics else _THRESHOLDS))
        reasons.update(dict.fromkeys(idle, f"{KEY}.entropy_clip=False, so every segment has the plain band"))
    for name, reason in reasons.items():
        if getattr(settings, name) != own[name]:
            yield f"NOTE: {KEY}.{name}={getattr(settings, name)} has no effect here: {reason}"


_OF_THE_BAND = ("clip_low", "clip_high", "clip_low_tight", "alpha", "entropy_clip")
_THRESHOLDS = ("entropy_low", "entropy_high", "entropy_thresholds")
# Not settings of the loss: its names, and verl's own keys, which are handled above.
_VERLS_AND_NAMES = (
    "loss_mode",
    "label",
    "diagnostics",
    *(key.removeprefix(f"{KEY}.") for key in UNUSED_BY_LOSS if key.startswith(KEY)),
)


def _hidden_clip_ratio(run: Run) -> Iterator[str]:
    """Note a changed clip_ratio: each algorithm here sets the two keys that verl's losses read first."""
    ratio, low, high = (run.actor.get(f"clip_ratio{end}") for end in ("", "_low", "_high"))
    if not run.sspo and None not in (low, high) and ratio not in (low, high):
        yield (
            f"NOTE: {ACTOR}.clip_ratio={ratio} has no effect here: {ACTOR}.clip_ratio_low={low} and "
            f"clip_ratio_high={high} are set"
        )


def _nothing_trains(run: Run) -> Iterator[str]:
    if run.actor.optim.get("lr") == 0:
        yield f"NOTE: {ACTOR}.optim.lr=0: no update changes the policy"


def _nothing_to_clip(run: Run) -> Iterator[str]:
    if not run.sspo or run.updates != 1 or run.bypass:
        return
    if run.trainer == "fully_async":
        more = "async_training.require_batches or trigger_parameter_sync_step above 1"
    elif run.config.trainer.v1.trainer_mode == "separate_async":
        more = "trainer.v1.separate_async.parameter_sync_step above 1 (and data.train_batch_size with it)"
    else:
        sizes = f"({run.actor.ppo_mini_batch_size}) below data.train_batch_size ({run.config.data.train_batch_size})"
        more = f"{ACTOR}.ppo_mini_batch_size {sizes}, or {ACTOR}.ppo_epochs above 1"
    yield (
        "NOTE: one update per batch, so every ratio is 1 and nothing can be clipped: SSPO's segments and bounds change "
        f"nothing. Set {more}"
    )


def _no_warnings(run: Run) -> Iterator[str]:
    if run.sspo and run.settings.diagnostics and run.trainer != "main_ppo":
        yield f"NOTE: verl's trainer {run.trainer} gets the metrics sspo/* but not SSPO's warnings ({KEY}.warn_*)"
