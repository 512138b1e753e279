"""Entropy of the policy being trained in verl's FSDP engine, for entropy_source=current.

verl's own computation (actor.calculate_entropy) keeps what its gradient needs, several tensors of the logits' size,
even if no gradient is needed. This replaces it if entropy_coeff is 0.
"""

from __future__ import annotations

import contextvars
import functools

import torch

from sspo_verl.names import NAME
from sspo_verl.plugin.require import require

STRATEGIES = ("fsdp", "fsdp2", "fsdp_turbo")  # values of actor.strategy that use this engine

# Collects the entropies of the current logits, while they are requested.
_found: contextvars.ContextVar[list | None] = contextvars.ContextVar("found", default=None)


def wrap_fsdp_engine(module) -> None:
    """Patch verl.workers.engine.fsdp.transformer_impl: set `model_output["entropy"]` in updates that need it."""
    engine = module.FSDPEngineWithLMHead
    arguments = ("output", "output_args", "micro_batch", "logits_processor_func")
    prepare_model_outputs = require(engine, "prepare_model_outputs", arguments)
    require(engine, "_gather_and_unpad_packed", ("tensor", "pad_size"))
    logprobs_from_logits = require(module, "logprobs_from_logits", ("logits", "labels"))

    @functools.wraps(logprobs_from_logits)
    def logprobs_from_logits_seen(logits, labels, *args, **kwargs):
        """Also compute the entropy: these are the logits of the loss, scaled by the temperature, one row per token."""
        found = _found.get()
        if found is not None:
            from sspo_verl.entropy import token_entropy

            found.append(token_entropy(logits))
        return logprobs_from_logits(logits, labels, *args, **kwargs)

    @functools.wraps(prepare_model_outputs)
    def prepare_model_outputs_with_entropy(self, output, output_args, micro_batch, logits_processor_func):
        flag = functools.partial(module.tu.get_non_tensor_data, data=micro_batch, default=False)
        if not asked_for(logits_processor_func, verls=flag(key="calculate_entropy")):
            return prepare_model_outputs(self, output, output_args, micro_batch, logits_processor_func)
        fused = flag(key="use_fused_kernels")
        micro_batch = micro_batch.copy()
        # A fused kernel does not materialize logits, and returns the entropy itself.
        module.tu.assign_non_tensor(micro_batch, calculate_entropy=fused)
        token = _found.set([])
        try:
            model_output = prepare_model_outputs(self, output, output_args, micro_batch, logits_processor_func)
            found = _found.get()
        finally:
            _found.reset(token)
        if fused:
            model_output["entropy"] = model_output["entropy"].detach()
        elif found:
            (entropy,) = found
            # Same as verl does with the log-probs of these tokens.
            if module.tu.get_non_tensor_data(data=micro_batch, key="use_remove_padding", default=True):
                entropy = self._gather_and_unpad_packed(entropy, output_args["pad_size"])
            offsets = micro_batch["input_ids"].offsets()
            model_output["entropy"] = torch.nested.nested_tensor_from_jagged(entropy, offsets)
        return model_output

    module.logprobs_from_logits = logprobs_from_logits_seen
    engine.prepare_model_outputs = prepare_model_outputs_with_entropy


def asked_for(loss_function, verls: bool) -> bool:
    """True if an update with this loss needs the entropy of the policy being trained, but no gradient of it.

    loss_function: from verl's workers, a partial of verl's `ppo_loss` with the actor's config; None in a pass that is
    not an update. verls: whether verl is asked to compute its own.
    """
    config = getattr(loss_function, "keywords", {}).get("config")
    if config is None:
        return False
    from sspo_verl.config import SSPOPolicyLossConfig

    settings = getattr(config, "policy_loss", None)
    if not isinstance(settings, SSPOPolicyLossConfig) or not (settings.loss_mode == NAME or settings.diagnostics):
        return False
    return settings.entropy_source == "current" and config.entropy_coeff == 0 and (settings.uses_entropy or verls)
