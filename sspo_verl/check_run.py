"""Settings that do not fit together, found on the driver before Ray starts."""

from __future__ import annotations

import functools

from sspo_verl.seam import NAME, USE_ALGORITHM, require


def wrap_validate_config(module) -> None:
    """verl.utils.config: `validate_config` also checks what SSPO needs."""
    validate_config = require(module, "validate_config", ("config", "use_reference_policy", "use_critic"))

    @functools.wraps(validate_config)
    def validate_config_with_sspo(config, *args, **kwargs):
        check_run(config)
        return validate_config(config, *args, **kwargs)

    module.validate_config = validate_config_with_sspo


def check_run(config) -> None:
    """Raise ValueError, naming the key and the way out, if SSPO or its diagnostics cannot work as configured.

    config: the whole composed configuration, as `main_ppo` gets it. Runs with neither pass.
    """
    from sspo_verl.config import KEY, settings_of
    from sspo_verl.engine import STRATEGIES

    actor = config.actor_rollout_ref.actor
    settings = settings_of(actor.policy_loss)
    if settings is None:
        if actor.policy_loss.loss_mode == NAME:
            raise ValueError(
                f"{KEY}.loss_mode={NAME}, but {KEY}._target_ is {actor.policy_loss.get('_target_')}. {USE_ALGORITHM}"
            )
        return
    if settings.loss_mode != NAME and not settings.diagnostics:
        return

    what, otherwise = "SSPO", ""
    if settings.loss_mode != NAME:
        what, otherwise = "the diagnostics", f", or {KEY}.diagnostics=False"
    if not config.trainer.use_v1:
        raise ValueError(
            f"trainer.use_v1=False: verl's old trainer does not hand the tokens' entropy to the loss, and {what} never "
            f"ran with it. Set trainer.use_v1=True{otherwise}."
        )
    if not settings.entropy_clip:
        return
    correction = config.algorithm.get("rollout_correction") or {}
    if settings.entropy_source == "old" and correction.get("bypass_mode"):
        raise ValueError(
            f"{KEY}.entropy_source=old needs the pass that computes old_log_prob, which "
            "algorithm.rollout_correction.bypass_mode=True leaves out. Set bypass_mode=False, or "
            f"{KEY}.entropy_source=current{otherwise}."
        )
    computed = actor.strategy in STRATEGIES or actor.calculate_entropy or actor.entropy_coeff != 0
    if settings.entropy_source == "current" and not computed:
        raise ValueError(
            f"{KEY}.entropy_source=current with actor_rollout_ref.actor.strategy={actor.strategy} needs "
            "actor_rollout_ref.actor.calculate_entropy=True (it is False), for sspo_verl computes it with "
            f"{' and '.join(STRATEGIES)} only. Set it, or {KEY}.entropy_source=old, which costs nothing{otherwise}."
        )
