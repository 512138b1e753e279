"""Counts of the updates on one batch: their total, and what each update clipped."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sspo_verl.metrics.counts import Counts


class Updates(NamedTuple):
    """Counts of consecutive updates. The first on a batch uses the policy that sampled it, the others later ones."""

    total: Counts
    clipped: tuple[np.ndarray, ...] = ()  # per update: valid tokens, and those that each of names.ALGORITHMS clips

    @classmethod
    def of_one(cls, counts: Counts) -> Updates:
        return cls(counts, (counts.by_length.sum(axis=1),))

    def then(self, other: Updates) -> Updates:
        return Updates(self.total + other.total, self.clipped + other.clipped)
