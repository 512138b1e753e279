"""Counts of the updates on one batch: all together, and what each of them clipped."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sspo_verl.metrics.counts import Counts


class Updates(NamedTuple):
    """Of some updates in a row. The first on a batch is by the policy that sampled it, the others are by later ones."""

    total: Counts
    clipped: tuple[np.ndarray, ...] = ()  # of each: valid tokens, and those that each of names.ALGORITHMS clips

    @classmethod
    def of_one(cls, counts: Counts) -> Updates:
        return cls(counts, (counts.by_length.sum(axis=1),))

    def then(self, other: Updates) -> Updates:
        return Updates(self.total + other.total, self.clipped + other.clipped)
