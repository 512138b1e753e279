"""SSPO in verl's actor workers: the policy loss, the inputs that verl does not pass to it, and its metrics."""

from __future__ import annotations

import contextvars
import functools
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from sspo_verl.log import say_once
from sspo_verl.names import KEY, NAME, USE_ALGORITHM
from sspo_verl.plugin.require import require

if TYPE_CHECKING:
    from sspo_verl.metrics.counts import Counts

# Names under which a micro-batch's counts and the segments of its rows are sent to the driver, with the actor's metrics
# (see `metrics.travel` and `driver`). verl prefixes "actor/" to names that do not begin with it.
COUNTS = "actor/sspo_counts"
ROWS = "actor/sspo_rows"
SHARES = ("actor/pg_clipfrac", "actor/ppo_kl")  # verl's own metric names, computed for SSPO's loss


@dataclass
class _MicroBatch:
    """A micro-batch: inputs that `ppo_loss` does not pass to the policy loss, and what the loss keeps for metrics."""

    data: Any  # verl's TensorDict
    model_output: dict
    terms: Any = None  # loss.TokenTerms, if the policy loss is SSPO
    inputs: dict[str, Any] = field(default_factory=dict)  # the arguments that the terms were computed from
    metrics: dict = field(default_factory=dict)  # merged into what ppo_loss returns


_micro_batch: contextvars.ContextVar[_MicroBatch | None] = contextvars.ContextVar("micro_batch", default=None)


def wrap_ppo_loss(losses) -> None:
    """Patch verl.workers.utils.losses: give the policy loss the complete micro-batch, and let it add metrics."""
    ppo_loss = require(losses, "ppo_loss", ("config", "model_output", "data", "dp_group"))
    for user in ("verl.workers.engine_workers", "verl.trainer.distillation.losses"):
        if getattr(sys.modules.get(user), "ppo_loss", None) is not None:
            raise RuntimeError(
                f"sspo_verl was loaded after {user} had imported verl's ppo_loss, which it can no longer patch. Let "
                "verl load the plugin: VERL_USE_EXTERNAL_PLUGINS must be unset, or name sspo_verl."
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
    """Patch verl.workers.utils.losses: run the diagnostics after every policy loss, also verl's, if they are on."""
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


def wrap_allgather_dict_into_dict(torch_functional) -> None:
    """Patch verl.utils.torch_functional: combine the ranks' counts into one record, on the rank the driver reads."""
    gather = require(torch_functional, "allgather_dict_into_dict", ("data", "group"))

    @functools.wraps(gather)
    def gather_to_first_rank(data, group=None):
        from sspo_verl.metrics.travel import to_first_rank

        return to_first_rank(gather, data, group, rows=ROWS)

    torch_functional.allgather_dict_into_dict = gather_to_first_rank


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
    Returns the loss (scalar) and no metrics, which are added with the counts. Raises RuntimeError outside an actor's
    update and TypeError without the plugin's config class.
    """
    from verl.trainer.ppo.core_algos import agg_loss

    from sspo_verl.config import SSPOPolicyLossConfig
    from sspo_verl.loss import sspo_token_terms

    micro_batch = _micro_batch.get()
    if micro_batch is None or config is None:
        raise RuntimeError(
            "verl's policy loss `sspo` was called outside an actor's update (verl.workers.utils.losses.ppo_loss), so "
            "it cannot see the tokens that it cuts. In your own training loop, call "
            "sspo_verl.segments.segment_ids and sspo_verl.loss.sspo_token_loss."
        )
    settings = config.policy_loss
    if not isinstance(settings, SSPOPolicyLossConfig):
        raise TypeError(
            f"loss_mode={NAME} needs the settings of sspo_verl, but policy_loss is a {type(settings).__name__}. "
            + USE_ALGORITHM
        )

    how = f"segmenter={settings.segmenter}, entropy_source={settings.entropy_source}"
    say_once(f"policy loss sspo (arXiv 2511.04256), {how}, {settings.bounds()}")
    micro_batch.inputs = _inputs(micro_batch, config, old_log_prob, log_prob, advantages, response_mask)
    micro_batch.terms = sspo_token_terms(**micro_batch.inputs)
    valid = response_mask.bool()
    loss = micro_batch.terms.loss
    if rollout_is_weights is not None:
        loss = loss * torch.where(valid, rollout_is_weights, 0.0)
    batch = _global_batch(config.global_batch_info, valid)
    return agg_loss(loss_mat=loss, loss_mask=valid, loss_agg_mode=loss_agg_mode, **batch), {}


def _inputs(micro_batch: _MicroBatch, config, old_log_prob, log_prob, advantages, response_mask) -> dict[str, Any]:
    """Keyword arguments of `loss.sspo_token_terms`: tensors and settings."""
    from sspo_verl.plugin.segmenter import segmenter_on
    from sspo_verl.segmenters import factory_of

    responses, settings = padded(micro_batch.data["responses"]), config.policy_loss
    band = _band(micro_batch, settings)
    cut = segmenter_on(responses.device, config.model_config.tokenizer, settings.segments())
    old_entropy = _old_entropy(micro_batch, settings) if factory_of(settings.segmenter).needs_entropy else None
    return {
        "old_log_prob": old_log_prob,
        "log_prob": log_prob,
        "advantages": advantages,
        "response_mask": response_mask,
        "segment_ids": cut(responses, response_mask, old_entropy),
        "entropy": _entropy(micro_batch, settings),
        **band,
    }


def _band(micro_batch: _MicroBatch, settings) -> dict[str, Any]:
    """Settings of `loss.sspo_token_loss`, with the entropy thresholds in nats."""
    if settings.entropy_thresholds == "absolute":
        return settings.bounds()
    from sspo_verl.plugin.thresholds import of_micro_batch

    return settings.bounds() | of_micro_batch(micro_batch.data)


def _report(arguments: dict) -> None:
    """Store this micro-batch's contribution to the metrics. Synchronizes with the device once. Failures here are only
    reported: the loss is already computed, and diagnostics must not end a run."""
    from sspo_verl.config import SSPOPolicyLossConfig

    micro_batch, config = _micro_batch.get(), arguments["config"]
    if micro_batch is None or not isinstance(config.policy_loss, SSPOPolicyLossConfig):
        return
    try:
        counts = _count(micro_batch, arguments) if config.policy_loss.diagnostics else None
        if micro_batch.terms is not None:
            _report_usual(micro_batch, counts)
    except Exception as error:
        _fail(micro_batch, "a micro-batch's actor/pg_clipfrac and actor/ppo_kl", error)


def _fail(micro_batch: _MicroBatch, what: str, error: Exception) -> None:
    """Log and count a failed part of the diagnostics."""
    from sspo_verl.metrics.counts import Counts
    from sspo_verl.metrics.guard import report_failure
    from sspo_verl.metrics.travel import FoldedCounts

    report_failure(what, error)
    micro_batch.metrics.setdefault(COUNTS, FoldedCounts()).append(FoldedCounts(Counts.failure(1)))


def _report_usual(micro_batch: _MicroBatch, counts: Counts | None) -> None:
    """Store verl's own metrics (SHARES), computed for SSPO's loss."""
    from sspo_verl.metrics.counts import finite_sum
    from sspo_verl.metrics.travel import Share

    terms = micro_batch.terms
    if counts is not None:
        clipped, valid, (log_ratio, finite) = counts.clipped, counts.valid, counts.log_ratio
    else:
        sums = (terms.clipped.sum(), terms.segments.valid.sum(), *finite_sum(terms.log_ratio))
        clipped, valid, log_ratio, nonfinite = torch.stack(sums).tolist()
        finite = valid - nonfinite
    micro_batch.metrics |= dict(zip(SHARES, (Share((clipped, valid)), Share((-log_ratio, finite))), strict=True))


def _count(micro_batch: _MicroBatch, arguments: dict) -> Counts | None:
    """Store the counts, and the rows' segments if requested. Returns None if counting was not possible."""
    from sspo_verl.metrics.counts import observe
    from sspo_verl.metrics.dump import records
    from sspo_verl.metrics.travel import Folded, FoldedCounts

    config = arguments["config"]
    settings = config.policy_loss
    try:
        inputs = micro_batch.inputs
        if not inputs:  # another algorithm's loss: count what SSPO would do to the same batch
            tensors = ("old_log_prob", "log_prob", "advantages", "response_mask")
            inputs = _inputs(micro_batch, config, **{name: arguments[name] for name in tensors})
        with_rows = settings.dump_segments > 0
        observation = observe(**inputs, terms=micro_batch.terms, with_rows=with_rows)
        counts, rows = observation.fetch()
    except Exception as error:
        _fail(micro_batch, "counting a micro-batch for the metrics sspo/*", error)
        return None
    micro_batch.metrics[COUNTS] = FoldedCounts(counts)
    if rows is not None:
        try:
            micro_batch.metrics[ROWS] = Folded([records(micro_batch.data, rows, settings.dump_segments)])
        except Exception as error:
            _fail(micro_batch, "listing a micro-batch's segments for the dumps", error)
    return counts


def _global_batch(info: dict, valid: torch.Tensor) -> dict:
    """verl's global-batch normalizers. If the caller omitted them, the micro-batch is the batch, as in `agg_loss`;
    never 0, so that a batch without any valid token has loss 0."""
    tokens, responses = info.get("batch_num_tokens"), info.get("global_batch_size")
    tokens = valid.sum() if tokens is None else tokens
    responses = valid.any(dim=1).sum() if responses is None else responses
    return {
        "dp_size": info.get("dp_size", 1),
        "batch_num_tokens": max(tokens, 1),
        "global_batch_size": max(responses, 1),
        "loss_scale_factor": info.get("loss_scale_factor"),
    }


def padded(tensor: torch.Tensor) -> torch.Tensor:
    """Convert verl's jagged [batch, *] to [batch, length]; the padding is outside the response mask."""
    return tensor.to_padded_tensor(0) if tensor.is_nested else tensor


def _entropy(micro_batch: _MicroBatch, settings) -> torch.Tensor | None:
    """Entropy of each response token in nats [batch, length], from the policy that `entropy_source` names."""
    from verl.workers.utils.padding import no_padding_2_padding

    if settings.entropy_source == "current":
        entropy = micro_batch.model_output.get("entropy")
        if entropy is not None:
            return no_padding_2_padding(entropy, micro_batch.data).detach()
        advice = "set actor_rollout_ref.actor.calculate_entropy=True"
    else:
        if (entropy := _entropy_of_old_policy(micro_batch)) is not None:
            return entropy
        advice = (
            "its trainer does not pass on the entropy of the old_log_prob pass. verl.trainer.main_ppo does, with "
            "trainer.use_v1=True and algorithm.rollout_correction.bypass_mode=False; with any other trainer set "
            "actor_rollout_ref.actor.policy_loss.entropy_source=current"
        )
    if not settings.uses_entropy:
        return None
    raise RuntimeError(f"The micro-batch has no entropy for entropy_source={settings.entropy_source}: {advice}.")


def _entropy_of_old_policy(micro_batch: _MicroBatch) -> torch.Tensor | None:
    if "entropy" in micro_batch.data.keys():  # noqa: SIM118  a TensorDict, not a dict
        return padded(micro_batch.data["entropy"])
    return None


def _old_entropy(micro_batch: _MicroBatch, settings) -> torch.Tensor:
    """The old policy's entropy, for a segmenter that needs it. Raises RuntimeError if verl did not pass it on."""
    entropy = _entropy_of_old_policy(micro_batch)
    if entropy is None:
        raise RuntimeError(
            f"{KEY}.segmenter={settings.segmenter} cuts by the entropy of the old_log_prob pass, and the micro-batch "
            "has none. verl.trainer.main_ppo passes it on with trainer.use_v1=True and "
            "algorithm.rollout_correction.bypass_mode=False; with any other trainer choose another segmenter."
        )
    return entropy
