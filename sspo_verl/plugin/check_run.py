"""Checks of a composed configuration on the driver, before Ray starts: refuses runs that would not train as asked.

An error if the run would train something other than what was asked for, or would fail later. Anything that is only
worth knowing goes to `run_notes`.
"""

from __future__ import annotations

import difflib
import functools
import sys
from importlib.util import find_spec
from pathlib import Path

from sspo_verl.log import say
from sspo_verl.names import KEY, NAME, USE_ALGORITHM
from sspo_verl.plugin import check_data, queue
from sspo_verl.plugin.check_choices import checkpoints_can_be_resumed, correction_is_known, misspelt, names_are_known
from sspo_verl.plugin.check_numbers import numbers_are_valid
from sspo_verl.plugin.check_resume import check_resume
from sspo_verl.plugin.check_sizes import sizes_fit
from sspo_verl.plugin.require import require
from sspo_verl.plugin.run_settings import ACTOR, ALGORITHMS, CORRECTION, ROLLOUT, Run, run_of

NO_ENTROPY_CLIP = f"{KEY}.entropy_clip=False (algorithm=sspo_no_entropy_clip)"


def wrap_validate_config(module) -> None:
    """Patch verl.utils.config: `validate_config` also runs our checks, followed by those of data and checkpoints if
    main_ppo is the program: `python -m verl.trainer.main_ppo` executes that file without importing it, so
    `wrap_run_ppo` does not apply."""
    validate_config = require(module, "validate_config", ("config", "use_reference_policy", "use_critic"))

    @functools.wraps(validate_config)
    def validate_config_with_sspo(config, *args, **kwargs):
        check_once(config)
        result = validate_config(config, *args, **kwargs)
        if _main_ppo_is_the_program():
            check_start(config)
        return result

    module.validate_config = validate_config_with_sspo


def wrap_run_ppo(module) -> None:
    """Patch verl.trainer.main_ppo: `run_ppo`, which starts Ray, first runs all checks, including data and checkpoints.
    Among verl's entry points, fully_async never calls `validate_config`, and one_step_off calls it inside Ray."""
    run_ppo = require(module, "run_ppo", ("config", "task_runner_class"))

    @functools.wraps(run_ppo)
    def run_ppo_with_sspo(config, *args, **kwargs):
        check_once(config)
        check_start(config)
        return run_ppo(config, *args, **kwargs)

    module.run_ppo = run_ppo_with_sspo


def _main_ppo_is_the_program() -> bool:
    main_ppo, program = find_spec("verl.trainer.main_ppo"), getattr(sys.modules["__main__"], "__file__", None)
    if main_ppo is None or main_ppo.origin is None or program is None:
        return False
    return Path(program).resolve() == Path(main_ppo.origin).resolve()


_checked = None  # the configuration that this process checked last: main_ppo passes through both functions above


def check_once(config) -> None:
    """`check_run`, unless this process has just checked the same object; on the driver, also print `run_notes`."""
    global _checked
    if config is _checked:
        return
    queue.check()
    check_run(config)
    check_reward(config)
    if not _in_ray_actor():
        run = run_of(config)
        if run is not None:
            from sspo_verl.plugin.run_notes import notes

            for line in notes(run):
                say(line)
    _checked = config


def check_start(config) -> None:
    """Check the files of an SSPO run that is about to start: raise ValueError if it cannot train on the data or cannot
    resume (`check_data`, `check_resume`), and log what is worth knowing."""
    run = run_of(config)
    if run is None or run.trainer != "main_ppo":
        return
    for line in check_data.check(config):
        say(line)
    check_resume(config, say)


def _in_ray_actor() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None


def check_run(config) -> None:
    """Raise ValueError, naming the key and the fix, if what the run asks of SSPO or its diagnostics is not possible.

    config: the complete composed configuration, as `main_ppo` gets it. Runs that use neither pass.
    """
    run = run_of(config)
    if run is None:
        return
    for rule in RULES:
        error = rule(run)
        if error:
            raise ValueError(error)


# Loss and label


def _class_is_ours(run: Run) -> str | None:
    target, label = run.policy_loss.get("_target_"), run.policy_loss.get("label")
    if run.settings is None and run.loss == NAME:
        return f"{KEY}.loss_mode={NAME}, but {KEY}._target_ is {target}. {USE_ALGORITHM}"
    if run.settings is None and label is not None:
        return (
            f"algorithm={label} set {KEY}.label={label}, but {KEY}._target_={target} was set later, "
            f"{_where('_target_')}, and has none of its settings. Remove that, or start without algorithm={label}."
        )
    return None


def _loss_is_the_one_asked_for(run: Run) -> str | None:
    label = run.settings.label if run.settings is not None else None
    if label is not None and (meant := misspelt(label, ALGORITHMS)):
        return f"{KEY}.label={label} is not the name of an algorithm. Did you mean {meant}? Set algorithm={meant}."
    if run.settings is None or label not in ALGORITHMS:
        return None
    for name, asked in ALGORITHMS[label].items():
        found = getattr(run.settings, name)
        if found == asked:
            continue
        others = [other for other, sets in ALGORITHMS.items() if name == "loss_mode" and sets[name] == found]
        instead = f"choose {' or '.join(f'algorithm={other}' for other in others)} in its place, " if others else ""
        return (
            f"algorithm={label} ({KEY}.label={label}) stands for {KEY}.{name}={asked}, but {KEY}.{name}={found} was "
            f"set later, {_where(name)}: {found} would train under the name of {label}. Remove that, {instead}or set "
            f"{KEY}.label=null for a mix of your own."
        )
    return None


def _where(name: str) -> str:
    """Where Hydra found `KEY.name`, in words."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return "in a config or an override"
    hydra = HydraConfig.get()
    if any(override.lstrip("+").partition("=")[0] == f"{KEY}.{name}" for override in hydra.overrides.task):
        return "on the command line"
    return f"in the config {hydra.job.config_name} or one that it includes"


def _advantage_has_its_loss(run: Run) -> str | None:
    if run.advantage != NAME or run.loss == NAME:
        return None
    return (
        f"algorithm.adv_estimator={NAME}, but {KEY}.loss_mode={run.loss}: the advantage alone is not SSPO. "
        f"{USE_ALGORITHM} For the loss {run.loss}, set algorithm.adv_estimator=grpo, the same advantage except for "
        "groups of one."
    )


def _policy_loss_is_in_the_objective(run: Run) -> str | None:
    distillation = run.config.get("distillation")
    if not run.sspo or not distillation or not distillation.get("enabled"):
        return None
    if distillation.distillation_loss.use_task_rewards:
        return None
    return (
        "distillation.distillation_loss.use_task_rewards=False leaves the policy loss out, so SSPO would train "
        "nothing. Set it to True, or start without algorithm=sspo."
    )


# Advantages


def _advantage_exists(run: Run) -> str | None:
    """Refuse an unset name, or one that is close to a name verl knows. User code may still register any other name."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    if run.advantage in ADV_ESTIMATOR_REGISTRY:
        return None
    if run.advantage is None:
        return f"algorithm.adv_estimator is null, so there would be no advantages. Set {NAME} or grpo."
    if not isinstance(run.advantage, str):
        return f"algorithm.adv_estimator must be a name, got {run.advantage!r}. Set {NAME} or grpo."
    near = difflib.get_close_matches(run.advantage.lower(), list(map(str, ADV_ESTIMATOR_REGISTRY)), 1, 0.75)
    if not near:
        return None
    return f"algorithm.adv_estimator={run.advantage}: verl has no such advantage estimator. Did you mean {near[0]}?"


def _groups_have_members(run: Run) -> str | None:
    if run.advantage != NAME or run.n > 1 or run.own_groups or run.config.trainer.get("val_only"):
        return None
    return (
        f"{ROLLOUT}.n={run.n}: each group has one response, so every advantage is 0 and nothing would train. Set "
        f"{ROLLOUT}.n to 2 or more (8, say); the {NAME} advantage compares the responses to one prompt."
    )


def _responses_differ(run: Run) -> str | None:
    if run.advantage != NAME or run.config.trainer.get("val_only"):
        return None
    temperature = run.config.actor_rollout_ref.rollout.get("temperature")
    if temperature != 0:
        return None
    return (
        f"{ROLLOUT}.temperature={temperature}: all responses to a prompt are the same, so every advantage is 0 and "
        "nothing would train. Set it above 0 (1.0, say); for greedy validation there is val_kwargs.temperature."
    )


def _advantages_stay_with_their_responses(run: Run) -> str | None:
    if not run.sspo or not run.config.algorithm.get("use_pf_ppo"):
        return None
    if run.advantage != "gae":
        happens = f"verl reads it only with adv_estimator=gae, so nothing would be resampled with {run.advantage}"
    elif run.trainer == "main_ppo":
        happens = "verl's V1 trainer gives the advantages of resampled responses to others (verl-project/verl#7956)"
    else:
        return None
    return f"algorithm.use_pf_ppo=True with loss_mode={NAME}: {happens}. Set algorithm.use_pf_ppo=False."


# Rollout correction


def _correction_happens(run: Run) -> str | None:
    if not run.sspo:
        return None
    asked = [
        f"{CORRECTION}.{key}={run.correction[key]}" for key in ("rollout_is", "rollout_rs") if run.correction.get(key)
    ]
    if run.bypass:
        if run.correction.get("loss_type", "ppo_clip") != "ppo_clip":
            asked.append(f"{CORRECTION}.loss_type={run.correction['loss_type']}")
        if asked:
            return (
                f"{' and '.join(asked)} with {CORRECTION}.bypass_mode=True: verl then applies it in its own policy "
                f"loss bypass_mode only, which loss_mode={NAME} replaces: nothing would be corrected. Set "
                f"bypass_mode=False, or rollout_is=null, rollout_rs=null and loss_type=ppo_clip."
            )
    if (asked or run.bypass) and not run.config.actor_rollout_ref.rollout.get("calculate_log_probs"):
        without = "verl would correct nothing" if asked else "there would be no old_log_prob"
        return (
            f"{' and '.join(asked) or f'{CORRECTION}.bypass_mode=True'} needs the sampler's log-probs, and without "
            f"them {without}: set {ROLLOUT}.calculate_log_probs=True."
        )
    return None


# Entropy, and what the trainers pass on


def _trainer_is_v1(run: Run) -> str | None:
    if run.trainer != "main_ppo" or run.config.trainer.use_v1 or not run.observes:
        return None
    return (
        f"trainer.use_v1=False: verl's old trainer does not pass the tokens' entropy to the loss, and {run.what} never "
        f"ran with it. Set trainer.use_v1=True{run.otherwise}."
    )


def _old_entropy_is_there(run: Run) -> str | None:
    if run.cuts_at_entropy and (run.trainer != "main_ppo" or run.bypass):
        missing = f"{CORRECTION}.bypass_mode=True" if run.bypass else f"the trainer {run.trainer}"
        return (
            f"{KEY}.segmenter={run.settings.segmenter} cuts by the entropy of the old_log_prob pass, which is not "
            f"available with {missing}. Set another segmenter{' or bypass_mode=False' * run.bypass}{run.otherwise}."
        )
    if not run.needs_entropy or run.settings.entropy_source != "old":
        return None
    if run.trainer != "main_ppo":
        return (
            f"{KEY}.entropy_source=old: verl's trainer {run.trainer} does not pass the entropy of the old_log_prob "
            "pass to the loss, with or without bypass_mode. Set "
            f"{KEY}.entropy_source=current, or {NO_ENTROPY_CLIP}{run.otherwise}."
        )
    if run.bypass:
        return (
            f"{KEY}.entropy_source=old needs the pass that computes old_log_prob, which "
            f"{CORRECTION}.bypass_mode=True leaves out. Set bypass_mode=False, or "
            f"{KEY}.entropy_source=current{run.otherwise}."
        )
    return None


def _shares_are_of_a_complete_batch(run: Run) -> str | None:
    if (
        not run.observes
        or run.settings.entropy_thresholds != "quantile"
        or (run.trainer == "main_ppo" and not run.bypass)
    ):
        return None
    of = f"{CORRECTION}.bypass_mode=True" if run.trainer == "main_ppo" else f"verl's trainer {run.trainer}"
    return (
        f"{KEY}.entropy_thresholds=quantile needs the old policy's entropy of a complete batch on the driver, which is "
        f"not available with {of}. Set {KEY}.entropy_thresholds=absolute, with thresholds in nats{run.otherwise}."
    )


def _current_entropy_is_computed(run: Run) -> str | None:
    from sspo_verl.plugin.engine import STRATEGIES

    actor = run.actor
    if not run.needs_entropy or run.settings.entropy_source != "current":
        return None
    if actor.strategy in STRATEGIES or actor.calculate_entropy or actor.entropy_coeff != 0:
        return None
    free = f", or {KEY}.entropy_source=old, which costs nothing" if run.trainer == "main_ppo" and not run.bypass else ""
    return (
        f"{KEY}.entropy_source=current with {ACTOR}.strategy={actor.strategy} needs "
        f"{ACTOR}.calculate_entropy=True (it is False), because sspo_verl computes it only with "
        f"{', '.join(STRATEGIES)}. Set it{free}{run.otherwise}."
    )


def _dumps_are_written(run: Run) -> str | None:
    if run.settings is None or not run.settings.dump_segments:
        return None
    trainer = run.config.trainer
    if run.trainer == "main_ppo":
        if trainer.get("rollout_data_dir") or trainer.get("validation_data_dir"):
            return None
        return (
            f"{KEY}.dump_segments={run.settings.dump_segments}, but verl writes no dumps: set "
            f"trainer.rollout_data_dir or trainer.validation_data_dir to a folder, or {KEY}.dump_segments=0."
        )
    return (
        f"{KEY}.dump_segments={run.settings.dump_segments}: verl's trainer {run.trainer} writes its dumps without "
        f"segments. Set {KEY}.dump_segments=0."
    )


def _segmenter_cuts_the_vocabulary(run: Run) -> str | None:
    """Checked here for a model in a local folder; for any other, the trainer checks it (`driver`)."""
    if not run.observes:
        return None
    from sspo_verl.plugin.tokenizer import one_thread, tokenizer_of
    from sspo_verl.segmenters import segmenter_of

    tokenizer = tokenizer_of(run.config.actor_rollout_ref.model)
    if tokenizer is None:
        return None
    try:
        with one_thread():
            segmenter_of(tokenizer, run.settings.segments())
    except ValueError as error:
        diagnostics = f" The diagnostics need the segmenter too; to train without them set {KEY}.diagnostics=False."
        return f"{error}{diagnostics if run.otherwise else ''}"
    return None


RULES = (
    numbers_are_valid,
    names_are_known,
    _class_is_ours,
    _loss_is_the_one_asked_for,
    _advantage_has_its_loss,
    _policy_loss_is_in_the_objective,
    _advantage_exists,
    _groups_have_members,
    _responses_differ,
    _advantages_stay_with_their_responses,
    _trainer_is_v1,
    _old_entropy_is_there,
    _shares_are_of_a_complete_batch,
    _current_entropy_is_computed,
    correction_is_known,
    _correction_happens,
    _dumps_are_written,
    sizes_fit,
    checkpoints_can_be_resumed,
    _segmenter_cuts_the_vocabulary,
)


def check_reward(config) -> None:
    """Raise ValueError for invalid settings of our reward, which would otherwise only show after a rollout."""
    from sspo_verl.reward import settings

    function = config.reward.get("custom_reward_function") or {}
    if module := settings.module_of(function.get("path")):
        settings.check(module, function.get("reward_kwargs") or {})
