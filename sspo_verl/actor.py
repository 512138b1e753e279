"""SSPO in verl's actor workers: the policy loss, what verl does not hand to it, and what it reports."""

from __future__ import annotations

import contextvars
import functools
import sys
import weakref
from dataclasses import dataclass, field
from typing import Any

import torch

from sspo_verl.seam import NAME, USE_ALGORITHM, require, say_once

# Under these names a micro-batch's counts, and the segments of its rows, travel with the actor's metrics to the driver
# (see `driver`). verl puts "actor/" before every name that does not begin with it.
COUNTS = "actor/sspo_counts"
ROWS = "actor/sspo_rows"


@dataclass
class _MicroBatch:
    """What `ppo_loss` knows and does not hand to the policy loss, and what the loss leaves for the metrics."""

    data: Any  # verl's TensorDict
    model_output: dict
    terms: Any = None  # loss.TokenTerms, where the policy loss is SSPO
    inputs: dict[str, Any] = field(default_factory=dict)  # what the terms were made of
    metrics: dict = field(default_factory=dict)  # merged into what ppo_loss returns


_micro_batch: contextvars.ContextVar[_MicroBatch | None] = contextvars.ContextVar("micro_batch", default=None)
# One table per tokenizer and device, for the life of the process.
_tables: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def wrap_ppo_loss(losses) -> None:
    """verl.workers.utils.losses: the policy loss sees the whole micro-batch, and may add to the metrics."""
    ppo_loss = require(losses, "ppo_loss", ("config", "model_output", "data", "dp_group"))
    for user in ("verl.workers.engine_workers", "verl.trainer.distillation.losses"):
        if getattr(sys.modules.get(user), "ppo_loss", None) is not None:
            raise RuntimeError(
                f"sspo_verl was loaded after {user} had taken verl's ppo_loss, and cannot reach it any more. Let verl "
                "load the plugin: VERL_USE_EXTERNAL_PLUGINS must be unset, or name sspo_verl."
            )

    @functools.wraps(ppo_loss)
    def ppo_loss_with_micro_batch(config, model_output, data, dp_group=None):
        micro_batch = _MicroBatch(data, model_output)
        token = _micro_batch.set(micro_batch)
        try:
            loss, metrics = ppo_loss(config=config, model_output=model_output, data=data, dp_group=dp_group)
            return loss, {**metrics, **micro_batch.metrics}
        finally:
            _micro_batch.reset(token)

    losses.ppo_loss = ppo_loss_with_micro_batch


def wrap_get_policy_loss_fn(losses) -> None:
    """verl.workers.utils.losses: every policy loss, verl's own too, is followed by the diagnostics, if they are on."""
    get_policy_loss_fn = require(losses, "get_policy_loss_fn", ("name",))

    @functools.wraps(get_policy_loss_fn)
    def get_observed_policy_loss_fn(name):
        policy_loss_fn = get_policy_loss_fn(name)

        @functools.wraps(policy_loss_fn)
        def observed(**arguments):
            loss, metrics = policy_loss_fn(**arguments)
            _report(arguments)
            return loss, metrics

        return observed

    losses.get_policy_loss_fn = get_observed_policy_loss_fn


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
    Returns the loss (scalar) and no metrics: they come with the counts. Raises RuntimeError outside an actor's update
    and TypeError without the plugin's config class.
    """
    from verl.trainer.ppo.core_algos import agg_loss

    from sspo_verl.config import SSPOPolicyLossConfig
    from sspo_verl.loss import sspo_token_terms

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

    say_once(f"policy loss sspo (arXiv 2511.04256), entropy_source={settings.entropy_source}, {settings.bounds()}")
    micro_batch.inputs = _inputs(micro_batch, config, old_log_prob, log_prob, advantages, response_mask)
    micro_batch.terms = sspo_token_terms(**micro_batch.inputs, **settings.bounds())
    valid = response_mask.bool()
    loss = micro_batch.terms.loss
    if rollout_is_weights is not None:
        loss = loss * torch.where(valid, rollout_is_weights, 0.0)
    batch = _global_batch(config.global_batch_info, valid)
    return agg_loss(loss_mat=loss, loss_mask=valid, loss_agg_mode=loss_agg_mode, **batch), {}


def _inputs(micro_batch: _MicroBatch, config, old_log_prob, log_prob, advantages, response_mask) -> dict[str, Any]:
    """The tensors of `loss.sspo_token_terms`, by name."""
    from sspo_verl.segments import segment_ids

    responses = _padded(micro_batch.data["responses"])
    return {
        "old_log_prob": old_log_prob,
        "log_prob": log_prob,
        "advantages": advantages,
        "response_mask": response_mask,
        "segment_ids": segment_ids(responses, response_mask, table_of(config.model_config.tokenizer, responses.device)),
        "entropy": _entropy(micro_batch, config.policy_loss),
    }


def _report(arguments: dict) -> None:
    """Leave what this micro-batch adds to the metrics. The host waits for the device once."""
    from verl.utils.metric import AggregationType, Metric

    from sspo_verl.config import SSPOPolicyLossConfig

    micro_batch, config = _micro_batch.get(), arguments["config"]
    if micro_batch is None or not isinstance(config.policy_loss, SSPOPolicyLossConfig):
        return
    if config.policy_loss.diagnostics:
        clipped, log_ratio = _count(micro_batch, arguments)
    elif micro_batch.terms is not None:
        clipped, log_ratio = _two_sums(micro_batch)
    else:
        return
    if micro_batch.terms is not None:
        # verl's own names, as shares of a mean over the mini-batch on all ranks; verl adds the shares up.
        batch = _global_batch(config.global_batch_info, arguments["response_mask"].bool())
        scale = batch["dp_size"] / batch["batch_num_tokens"]
        usual = {"actor/pg_clipfrac": clipped * scale, "actor/ppo_kl": -log_ratio * scale}
        micro_batch.metrics.update(Metric.from_dict(usual, aggregation=AggregationType.SUM))


def _count(micro_batch: _MicroBatch, arguments: dict) -> tuple[float, float]:
    """Leave the counts, and the rows' segments where they are asked for; (clipped tokens, sum of log ratios)."""
    from sspo_verl.diagnostics.counts import observe
    from sspo_verl.diagnostics.dump import records

    config = arguments["config"]
    settings = config.policy_loss
    inputs = micro_batch.inputs
    if not inputs:  # another algorithm's loss: what SSPO would do to the same batch
        tensors = ("old_log_prob", "log_prob", "advantages", "response_mask")
        inputs = _inputs(micro_batch, config, **{name: arguments[name] for name in tensors})
    observation = observe(**inputs, **settings.bounds(), terms=micro_batch.terms, with_rows=settings.dump_segments > 0)
    counts, rows = observation.fetch()
    micro_batch.metrics[COUNTS] = counts
    if rows is not None:
        micro_batch.metrics[ROWS] = records(micro_batch.data, rows, settings.dump_segments)
    return counts.clipped, counts.scalars["log_ratio"]


def _two_sums(micro_batch: _MicroBatch) -> tuple[float, float]:
    """(clipped tokens, sum of log ratios) of SSPO's own loss, where nothing else is counted."""
    terms = micro_batch.terms
    clipped, total = torch.stack((terms.clipped.sum(), terms.log_ratio.sum(dtype=torch.float64))).tolist()
    return clipped, total


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


def table_of(tokenizer, device: torch.device) -> torch.Tensor:
    """The line-break table of a tokenizer, on a device; built once in a process."""
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
