"""SSPO in verl: everything of verl's trainer and workers that this plugin touches.

verl imports this module (through `plugin`) at the end of `import verl`, in the driver and in every Ray worker.
Importing it must be cheap, so each of verl's modules is extended when it is itself imported:

| verl's module | what is done there |
|---|---|
| `verl.trainer.ppo.core_algos` | policy loss `sspo` and advantage estimator `sspo` are registered |
| `verl.workers.utils.losses` | `ppo_loss` is wrapped: verl hands a policy loss log-probs only, SSPO cuts tokens |
| `verl.utils.config` | `validate_config` is wrapped: settings that do not fit stop the driver before Ray starts |
"""

import contextvars
import functools
import inspect
import sys
import weakref
from typing import Any, NamedTuple

import torch

from sspo_verl import cpu
from sspo_verl.import_hook import after_import

SUPPORTED = "verl 0.9.1"
NAME = "sspo"
CORE_ALGOS = "verl.trainer.ppo.core_algos"
LOSSES = "verl.workers.utils.losses"
CONFIG = "verl.utils.config"
USE_ALGORITHM = (
    "Start with algorithm=sspo (or algorithm=sspo_no_entropy_clip), which sets "
    "actor_rollout_ref.actor.policy_loss._target_ and loss_mode together."
)


class _MicroBatch(NamedTuple):
    """What `ppo_loss` knows and does not hand to the policy loss."""

    data: Any  # verl's TensorDict
    model_output: dict
    metrics: dict  # filled by the loss; merged into what ppo_loss returns


_micro_batch: contextvars.ContextVar[_MicroBatch | None] = contextvars.ContextVar("micro_batch", default=None)
# One table per tokenizer and device, for the life of the process.
_tables: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _require(module, name: str, parameters: tuple[str, ...]) -> Any:
    """verl's function `name`, if it is there and takes `parameters`; else an error that names the version."""
    function = getattr(module, name, None)
    if callable(function) and set(parameters) <= set(inspect.signature(function).parameters):
        return function
    import verl

    raise RuntimeError(
        f"sspo_verl relies on {module.__name__}.{name}({', '.join(parameters)}), which verl {verl.__version__} "
        f"does not have. This version of sspo_verl supports {SUPPORTED}: install that verl, or a newer sspo_verl."
    )


@functools.cache
def _say_once(what: str) -> None:
    """One line per process in the run's log: proof that SSPO is what trains, and with which settings.

    Printed, as verl does: what loggers say in a Ray worker depends on which library configured them last.
    """
    print(f"sspo_verl: {what}", flush=True)


# The policy loss and the advantage estimator


def _register_algorithm(core_algos) -> None:
    register_policy_loss = _require(core_algos, "register_policy_loss", ("name",))
    register_adv_est = _require(core_algos, "register_adv_est", ("name_or_enum",))
    _require(core_algos, "agg_loss", ("loss_mat", "loss_mask", "loss_agg_mode", "dp_size", "batch_num_tokens"))
    for registry, function in (
        (core_algos.POLICY_LOSS_REGISTRY, policy_loss),
        (core_algos.ADV_ESTIMATOR_REGISTRY, advantage_estimator),
    ):
        if getattr(registry.get(NAME, function), "__module__", None) != __name__:
            raise RuntimeError(
                f'The name "{NAME}" is taken by {registry[NAME].__module__}. Two plugins claim it; uninstall one, or '
                "choose with VERL_USE_EXTERNAL_PLUGINS=sspo_verl."
            )
    register_policy_loss(NAME)(policy_loss)
    register_adv_est(NAME)(advantage_estimator)


def policy_loss(
    old_log_prob,
    log_prob,
    advantages,
    response_mask,
    loss_agg_mode="token-mean",
    config=None,
    rollout_is_weights=None,
):
    """verl's policy loss `sspo`: `loss.sspo_token_loss`, reduced by verl's `agg_loss`. Called by `ppo_loss`.

    All tensors [batch, length]; rollout_is_weights multiply the loss of each token, as in verl's own losses.
    Returns the loss (scalar) and verl's usual metrics of it. Raises RuntimeError outside an actor's update and
    TypeError without the plugin's config class.
    """
    from verl.trainer.ppo.core_algos import agg_loss

    from sspo_verl.config import SSPOPolicyLossConfig
    from sspo_verl.loss import sspo_token_terms
    from sspo_verl.segments import segment_ids

    micro_batch = _micro_batch.get()
    if micro_batch is None or config is None:
        raise RuntimeError(
            "verl's policy loss `sspo` was called outside an actor's update (verl.workers.utils.losses.ppo_loss), so "
            "it cannot see the tokens that it cuts. In a training loop of your own, call "
            "sspo_verl.segments.segment_ids and sspo_verl.loss.sspo_token_loss."
        )
    settings = config.policy_loss
    if not isinstance(settings, SSPOPolicyLossConfig):
        raise TypeError(
            f"loss_mode={NAME} needs the settings of sspo_verl, but policy_loss is a {type(settings).__name__}. "
            + USE_ALGORITHM
        )

    bounds = settings.bounds()
    _say_once(f"policy loss sspo (arXiv 2511.04256), entropy_source={settings.entropy_source}, {bounds}")
    responses = _padded(micro_batch.data["responses"])
    ids = segment_ids(responses, response_mask, _table(config.model_config.tokenizer, responses.device))
    terms = sspo_token_terms(
        old_log_prob=old_log_prob,
        log_prob=log_prob,
        advantages=advantages,
        response_mask=response_mask,
        segment_ids=ids,
        entropy=_entropy(micro_batch, settings),
        **bounds,
    )
    valid = response_mask != 0
    loss = terms.loss
    if rollout_is_weights is not None:
        loss = loss * torch.where(valid, rollout_is_weights, 0.0)

    batch = _global_batch(config.global_batch_info, valid)
    ranks = batch["dp_size"]
    log_ratio = torch.where(valid, log_prob.detach() - old_log_prob, 0.0)
    # Each value is this micro-batch's share of a mean over the mini-batch on all ranks; verl adds the shares up.
    micro_batch.metrics.update(
        {
            "actor/pg_clipfrac": terms.clipped.sum() / batch["batch_num_tokens"] * ranks,
            "actor/ppo_kl": -log_ratio.sum() / batch["batch_num_tokens"] * ranks,
            "sspo/segments_per_response": (ids.amax(dim=1) + 1).sum() / batch["global_batch_size"] * ranks,
        }
    )
    return agg_loss(loss_mat=loss, loss_mask=valid, loss_agg_mode=loss_agg_mode, **batch), {}


def _global_batch(info: dict, valid: torch.Tensor) -> dict:
    """verl's global-batch normalizers. Where a caller left them out the micro-batch is the batch, as in `agg_loss`;
    never 0, so that a batch without a single valid token has the loss 0."""
    tokens, responses = info.get("batch_num_tokens"), info.get("global_batch_size")
    tokens = valid.sum() if tokens is None else tokens
    responses = valid.any(dim=1).sum() if responses is None else responses
    return {
        "dp_size": info.get("dp_size", 1),
        "batch_num_tokens": max(tokens, 1),
        "global_batch_size": max(responses, 1),
        "loss_scale_factor": info.get("loss_scale_factor"),
    }


def _padded(tensor: torch.Tensor) -> torch.Tensor:
    """verl's jagged [batch, *] as [batch, length]; its padding lies under the response mask."""
    return tensor.to_padded_tensor(0) if tensor.is_nested else tensor


def _table(tokenizer, device: torch.device) -> torch.Tensor:
    from sspo_verl.segments import line_break_table

    tables = _tables.setdefault(tokenizer, {})
    if device not in tables:
        tables[device] = line_break_table(tokenizer).to(device)
    return tables[device]


def _entropy(micro_batch: _MicroBatch, settings) -> torch.Tensor | None:
    """Each response token's entropy in nats [batch, length], from where `entropy_source` says."""
    from verl.workers.utils.padding import no_padding_2_padding

    if settings.entropy_source == "current":
        entropy = micro_batch.model_output.get("entropy")
        if entropy is not None:
            return no_padding_2_padding(entropy, micro_batch.data).detach()
        advice = "set actor_rollout_ref.actor.calculate_entropy=True"
    else:
        if "entropy" in micro_batch.data.keys():  # noqa: SIM118  a TensorDict, not a dict
            return _padded(micro_batch.data["entropy"])
        advice = (
            "its trainer did not compute old_log_prob with entropy: use trainer.use_v1=True and "
            "algorithm.rollout_correction.bypass_mode=False, or "
            "actor_rollout_ref.actor.policy_loss.entropy_source=current"
        )
    if not settings.entropy_clip:
        return None
    raise RuntimeError(f"The micro-batch holds no entropy for entropy_source={settings.entropy_source}: {advice}.")


def advantage_estimator(token_level_rewards, response_mask, index, config=None, **_unused):
    """verl's advantage estimator `sspo`: `advantage.group_advantage` of the summed rewards, on every valid token.

    token_level_rewards, response_mask: [batch, length]. index: the prompt's uid, one per row; equal ones make a
    group. config: algorithm.*, of which norm_adv_by_std_in_grpo is used. verl passes what other estimators need too.
    Returns advantages and returns, the same [batch, length], 0 where masked.
    """
    import numpy as np

    from sspo_verl.advantage import group_advantage

    normalize_by_std = True if config is None else config["norm_adv_by_std_in_grpo"]
    _say_once(f"advantage estimator sspo (arXiv 2511.04256), norm_adv_by_std_in_grpo={normalize_by_std}")
    _, group_ids = np.unique(np.asarray(index).astype(str), return_inverse=True)
    advantage = group_advantage(
        rewards=token_level_rewards.sum(dim=-1),
        group_ids=torch.as_tensor(group_ids, device=token_level_rewards.device),
        normalize_by_std=normalize_by_std,
    )
    advantages = torch.where(response_mask != 0, advantage[:, None], 0.0)
    return advantages, advantages


# What the loss is not given


def _wrap_ppo_loss(losses) -> None:
    ppo_loss = _require(losses, "ppo_loss", ("config", "model_output", "data", "dp_group"))
    for user in ("verl.workers.engine_workers", "verl.trainer.distillation.losses"):
        if getattr(sys.modules.get(user), "ppo_loss", None) is not None:
            raise RuntimeError(
                f"sspo_verl was loaded after {user} had taken verl's ppo_loss, and cannot reach it any more. Let verl "
                "load the plugin: VERL_USE_EXTERNAL_PLUGINS must be unset, or name sspo_verl."
            )

    @functools.wraps(ppo_loss)
    def ppo_loss_with_micro_batch(config, model_output, data, dp_group=None):
        from verl.utils.metric import AggregationType, Metric

        metrics_of_sspo: dict = {}
        token = _micro_batch.set(_MicroBatch(data, model_output, metrics_of_sspo))
        try:
            loss, metrics = ppo_loss(config=config, model_output=model_output, data=data, dp_group=dp_group)
            return loss, {**metrics, **Metric.from_dict(metrics_of_sspo, aggregation=AggregationType.SUM)}
        finally:
            _micro_batch.reset(token)

    losses.ppo_loss = ppo_loss_with_micro_batch


# Settings that do not fit together


def _wrap_validate_config(module) -> None:
    validate_config = _require(module, "validate_config", ("config", "use_reference_policy", "use_critic"))

    @functools.wraps(validate_config)
    def validate_config_with_sspo(config, *args, **kwargs):
        check_run(config)
        return validate_config(config, *args, **kwargs)

    module.validate_config = validate_config_with_sspo


def check_run(config) -> None:
    """Raise ValueError, naming the key and the way out, if a run with `loss_mode=sspo` cannot work as configured.

    config: the whole composed configuration, as `main_ppo` gets it. Other loss modes pass.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import get_class, instantiate

    from sspo_verl.config import KEY, SSPOPolicyLossConfig

    actor = config.actor_rollout_ref.actor
    if actor.policy_loss.loss_mode != NAME:
        return
    target = actor.policy_loss.get("_target_")
    if target is None or not issubclass(get_class(target), SSPOPolicyLossConfig):
        raise ValueError(f"{KEY}.loss_mode={NAME}, but {KEY}._target_ is {target}. {USE_ALGORITHM}")
    try:
        settings = instantiate(actor.policy_loss, _convert_="partial")
    except InstantiationException as error:
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from None
        raise

    if not config.trainer.use_v1:
        raise ValueError(
            "trainer.use_v1=False: verl's old trainer does not hand the tokens' entropy to the loss, and SSPO was "
            "never run with it. Set trainer.use_v1=True."
        )
    if not settings.entropy_clip:
        return
    correction = config.algorithm.get("rollout_correction") or {}
    if settings.entropy_source == "old" and correction.get("bypass_mode"):
        raise ValueError(
            f"{KEY}.entropy_source=old needs the pass that computes old_log_prob, which "
            "algorithm.rollout_correction.bypass_mode=True leaves out. Set bypass_mode=False, or "
            f"{KEY}.entropy_source=current with actor_rollout_ref.actor.calculate_entropy=True."
        )
    if settings.entropy_source == "current" and not (actor.calculate_entropy or actor.entropy_coeff != 0):
        raise ValueError(
            f"{KEY}.entropy_source=current needs actor_rollout_ref.actor.calculate_entropy=True (it is False). Set it, "
            f"or {KEY}.entropy_source=old, which costs nothing."
        )


def _install() -> None:
    after_import(CORE_ALGOS, _register_algorithm)
    after_import(LOSSES, _wrap_ppo_loss)
    after_import(CONFIG, _wrap_validate_config)
    cpu.activate_if_no_accelerator()


_install()
