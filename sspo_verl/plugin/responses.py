"""Responses of a step's batch, counted on verl's driver: where sampling or the reward fails for some, verl leaves them
out, trains on the rest, and says nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def response_of(key: str) -> str:
    """The response that a row of a batch belongs to: verl's keys are uid_session_index, and a session may be recorded
    as several outputs."""
    return key.rpartition("_")[0] or key


def count(keys: Iterable[str], tags: Iterable[Mapping]) -> int:
    """Number of responses; rows that only pad the batch are none."""
    return len({response_of(key) for key, tag in zip(keys, tags, strict=True) if not tag.get("is_padding", False)})


def missing(batch: Any, wanted: int | None) -> dict[str, float]:
    """The metric responses_missing of a step. wanted: train_batch_size x rollout.n; None where that does not tell."""
    from sspo_verl.metrics.names import MISSING

    if wanted is None or not hasattr(batch, "tags"):
        return {}
    return {MISSING: float(max(0, wanted - count(batch.keys, batch.tags)))}
