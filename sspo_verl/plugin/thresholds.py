"""Computes entropy_low and entropy_high for `entropy_thresholds=quantile`, over a complete batch, on verl's driver.

The batch is the one that verl passes to one actor update, `PPOTrainer._update_actor`: all responses of the step, or, if
the trainer updates several times in a step (trainer.v1.*.parameter_sync_step), those of that update; without the rows
that only pad it. So the thresholds are the same in each of its micro-batches, mini-batches, epochs and ranks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sspo_verl.names import KEY, NAME

# Names under which they are passed to each micro-batch, in verl's batch.extra_info, like the temperature.
IN_BATCH = {"entropy_low": "sspo_entropy_low", "entropy_high": "sspo_entropy_high"}


def wanted(settings: Any) -> bool:
    """True for a run with quantile thresholds. settings: SSPOPolicyLossConfig, or None for verl's own class."""
    if settings is None or settings.entropy_thresholds != "quantile":
        return False
    return settings.loss_mode == NAME or settings.diagnostics


def quantiles(entropy: torch.Tensor, mask: torch.Tensor, ids: torch.Tensor, shares: list[float]) -> list[float]:
    """Quantiles of the segments' H, in nats: linear between the two nearest ranks, like sspo/segment_entropy/p25.

    entropy, mask, ids: [batch, length]. H is the same as in the loss; non-finite values are dropped, and the rest is
    sorted and interpolated in float64, so the order of the rows does not matter. A share of 0 is the smallest H and 1
    the largest. As (3) compares strictly, segments with equal H are all on the same side. Without any segment: -inf and
    inf, which disable the entropy-dependent bounds. shares: in ascending order.
    """
    from sspo_verl.sums import at_least_float32, locate, segment_means, valid_only

    valid = mask.bool() & (ids >= 0)
    segments = locate(ids, valid)
    (entropy,) = valid_only(valid, at_least_float32(entropy))
    h = segment_means(entropy, segments)[segments.length > 0].double().numpy()
    h = h[np.isfinite(h)]
    return np.quantile(h, shares).tolist() if h.size else [-np.inf, np.inf]


def of_micro_batch(data: Any) -> dict[str, float]:
    """{entropy_low, entropy_high: in nats}, as set by the driver. Raises RuntimeError if they are not set."""
    from verl.utils.tensordict_utils import get_non_tensor_data

    found: dict[str, Any] = {name: get_non_tensor_data(data, key, default=None) for name, key in IN_BATCH.items()}
    if None in found.values():
        raise RuntimeError(
            "The micro-batch has no thresholds for entropy_thresholds=quantile: its trainer does not compute them. "
            "verl.trainer.main_ppo does, with trainer.use_v1=True; with any other trainer set "
            f"{KEY}.entropy_thresholds=absolute and thresholds in nats."
        )
    return found
