"""Sends the actors' counts to the driver, as verl metrics that verl itself adds up.

verl folds the metrics of micro-batches into those of a mini-batch, and these into those of an update, with the methods
`init_list` and `append`. In between it gathers them over the data-parallel ranks; `to_first_rank` does that for ours.
Each rank sends one record per mini-batch, and the driver gets one record per batch. A few numbers in it are kept per
mini-batch, because each successive update moves further from the policy that sampled the batch.
"""

from __future__ import annotations

import pickle
from typing import Any

import torch.distributed as dist
from verl.utils.metric import AggregationType, Metric

from sspo_verl.metrics.counts import Counts
from sspo_verl.metrics.guard import report_failure
from sspo_verl.metrics.updates import Updates


class Folded(Metric):
    """A metric whose values are added to each other, not a number for verl to average. value None: nothing yet."""

    def __init__(self, value: Any = None):
        super().__init__(AggregationType.SUM)
        self.value = value

    def __reduce__(self):
        return type(self), (self.value,)  # quick to unpickle: the first rank reads one per rank

    def init_list(self) -> Folded:
        return type(self)()

    def append(self, value: Any) -> None:
        self.value = value.value if self.value is None else self._sum(value.value)

    def _sum(self, other: Any) -> Any:
        return self.value + other


class FoldedCounts(Folded):
    """`Counts`; a failing addition is reported instead of ending the run."""

    value: Counts | None

    def _sum(self, other: Counts) -> Counts:
        assert self.value is not None
        try:
            return self.value + other
        except Exception as error:
            report_failure("adding up the diagnostics", error)
            return Counts.failure(self.value.failed + other.failed + 1)


class FoldedUpdates(Folded):
    """`Updates`, concatenated in order: tells the driver what each update on a batch clipped."""

    value: Updates | None

    def _sum(self, other: Updates) -> Updates:
        assert self.value is not None
        return self.value.then(other)


class Share(Folded):
    """(numerator, denominator), summed before the division: the same for any division into micro-batches and ranks.
    0 if the denominator is 0."""

    def __init__(self, value: tuple[float, float] = (0.0, 0.0)):
        super().__init__(value)

    def _sum(self, other: tuple[float, float]) -> tuple[float, float]:
        return self.value[0] + other[0], self.value[1] + other[1]

    def aggregate(self) -> float:
        numerator, denominator = self.value
        return numerator / denominator if denominator else 0.0


PACKED = "actor/sspo_packed"  # a rank's pickled `Folded` metrics in transit: only the first rank unpickles them


def to_first_rank(allgather_dict_into_dict, data: dict, group, rows: str) -> dict:
    """verl's `allgather_dict_into_dict(data, group)`, except that `Folded` metrics are added up over the ranks and only
    returned on the first rank of the group, which is the one that the driver reads.

    rows: name of a metric that grows with the batch, which is sent to the first rank only. All ranks of the group must
    call this, like verl's function; a rank may lack any of the metrics.
    """
    ours = {name: value for name, value in data.items() if isinstance(value, Folded)}
    own_rows = ours.pop(rows, None)
    sent = {name: value for name, value in data.items() if not isinstance(value, Folded)}
    if ours:
        sent[PACKED] = pickle.dumps(ours)
    if own_rows is not None:
        sent[rows] = True  # all ranks must agree on sending rows: this tells each whether any rank has some
    gathered = allgather_dict_into_dict(sent, group)

    first = dist.get_rank(group) == 0
    packed, has_rows = gathered.pop(PACKED, []), gathered.pop(rows, None)
    of_ranks = [pickle.loads(one) for one in packed] if first else []
    if has_rows:
        of_ranks += [{rows: one} for one in _send_to_first_rank(own_rows, group) if one is not None]
    for of_rank in of_ranks:
        for name, value in of_rank.items():
            gathered.setdefault(name, value.init_list()).append(value)
    # verl gathers once per update: the counts here are of all micro-batches and ranks of one update.
    return {name: _of_one_update(value) if type(value) is FoldedCounts else value for name, value in gathered.items()}


def _of_one_update(counts: FoldedCounts) -> FoldedUpdates:
    return FoldedUpdates(None if counts.value is None else Updates.of_one(counts.value))


def _send_to_first_rank(thing: Any, group) -> list:
    """[thing of each rank] on the first rank of the group; nothing on the others."""
    first = dist.get_rank(group) == 0
    found: list = [None] * dist.get_world_size(group) if first else []
    destination = 0 if group is None else dist.get_global_rank(group, 0)
    dist.gather_object(thing, found if first else None, dst=destination, group=group)
    return found
