"""`entropy_thresholds=quantile`: on verl's driver, what entropy_low and entropy_high are of a complete batch.

The batch is the one that verl hands to one update of the actor, `PPOTrainer._update_actor`: all responses of the step,
or, where the trainer updates several times in a step (trainer.v1.*.parameter_sync_step), those of that update; without
the rows that only pad it. So the thresholds are the same in each of its micro-batches, mini-batches, epochs and ranks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sspo_verl.names import KEY, NAME

# Under these names they reach each micro-batch, in verl's batch.extra_info, as the temperature does.
IN_BATCH = {"entropy_low": "sspo_entropy_low", "entropy_high": "sspo_entropy_high"}


def wanted(settings: Any) -> bool:
    """True for a run that takes shares. settings: SSPOPolicyLossConfig, or None for verl's own class."""
    if settings is None or settings.entropy_thresholds != "quantile":
        return False
    return settings.loss_mode == NAME or settings.diagnostics


def quantiles(entropy: torch.Tensor, mask: torch.Tensor, ids: torch.Tensor, shares: list[float]) -> list[float]:
    """The quantiles of the segments' H, in nats: linear between the two nearest ranks, as sspo/segment_entropy/p25.

    entropy, mask, ids: [batch, length]. H as the loss has it, what is not finite left out, sorted and interpolated in
    float64: the order of the rows does not matter. A share of 0 is the smallest H and one of 1 the largest, and as (3)
    compares strictly, segments of the very same H are all on one side. Without a segment: -inf and inf, no bounds of
    entropy. shares: in rising order.
    """
    from sspo_verl.sums import at_least_float32, locate, segment_means, valid_only

    valid = mask.bool() & (ids >= 0)
    segments = locate(ids, valid)
    (entropy,) = valid_only(valid, at_least_float32(entropy))
    h = segment_means(entropy, segments)[segments.length > 0].double().numpy()
    h = h[np.isfinite(h)]
    return np.quantile(h, shares).tolist() if h.size else [-np.inf, np.inf]


def of_micro_batch(data: Any) -> dict[str, float]:
    """{entropy_low, entropy_high: in nats}, as the driver put them. Raises RuntimeError where it did not."""
    from verl.utils.tensordict_utils import get_non_tensor_data

    found: dict[str, Any] = {name: get_non_tensor_data(data, key, default=None) for name, key in IN_BATCH.items()}
    if None in found.values():
        raise RuntimeError(
            "The micro-batch holds no thresholds for entropy_thresholds=quantile: its trainer does not compute them. "
            "verl.trainer.main_ppo does, with trainer.use_v1=True; with any other trainer set "
            f"{KEY}.entropy_thresholds=absolute and thresholds in nats."
        )
    return found
