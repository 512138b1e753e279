"""Counts the responses in a step's batch, on verl's driver: if sampling or the reward fails for some, verl silently
drops them and trains on the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def response_of(key: str) -> str:
    """The response that a row of a batch belongs to. verl's keys are uid_session_index, and a session may be recorded
    as several outputs."""
    return key.rpartition("_")[0] or key


def count(keys: Iterable[str], tags: Iterable[Mapping]) -> int:
    """Number of responses, without rows that only pad the batch."""
    return len({response_of(key) for key, tag in zip(keys, tags, strict=True) if not tag.get("is_padding", False)})


def missing(batch: Any, wanted: int | None) -> dict[str, float]:
    """The metric responses_missing of a step. wanted: train_batch_size x rollout.n; None if the number is unknown."""
    from sspo_verl.metrics.names import MISSING

    if wanted is None or not hasattr(batch, "tags"):
        return {}
    return {MISSING: float(max(0, wanted - count(batch.keys, batch.tags)))}
