"""What is clipped by the length of a segment and by the update on a batch, beside what other algorithms would clip."""

import dataclasses
import math

import pytest
import reference
import reference_metrics
import torch

from sspo_verl.metrics import names
from sspo_verl.metrics.counts import Counts, observe
from sspo_verl.metrics.finalize import metrics
from sspo_verl.metrics.updates import Updates
from sspo_verl.sums import count_each

DEFAULTS = reference.Settings()


def make(seed: int, dtype=torch.float64) -> dict[str, torch.Tensor]:
    """Rows of 300 tokens whose segments have 1 to 120, the lengths at the edges of the groups among them."""
    g = torch.Generator().manual_seed(seed)
    rows, width = 6, 300
    edges = torch.tensor([1, 7, 8, 9, 15, 16, 17, 32, 33, 64, 65, 120])
    ids = torch.zeros(rows, width, dtype=torch.int64)
    for row in ids:
        lengths = edges[torch.randint(0, len(edges), (width,), generator=g)]
        row.copy_(torch.repeat_interleave(torch.arange(width), lengths)[:width])
    mask = torch.rand(rows, width, generator=g) > 0.02
    valid_ids = torch.where(mask, ids, -1)
    for row in valid_ids:  # a segment may be masked as a whole: 0, 1, 2, ... again
        row[row >= 0] = torch.unique(row[row >= 0], return_inverse=True)[1]
    old = -3 * torch.rand(rows, width, generator=g)
    moved = 0.6 * torch.randn(rows, 1, generator=g) + 0.8 * torch.randn(rows, width, generator=g)
    batch = {
        "old_log_prob": old,
        "log_prob": old + moved,
        "advantages": torch.randn(rows, 1, generator=g).expand(rows, width).contiguous(),
        "entropy": 2 * torch.rand(rows, width, generator=g),
    }
    batch = {name: values.to(dtype).masked_fill(~mask, math.nan) for name, values in batch.items()}
    return batch | {"response_mask": mask.long(), "segment_ids": valid_ids}


def counts_of(batch, settings=DEFAULTS) -> Counts:
    return observe(**batch, **dataclasses.asdict(settings)).fetch()[0]


def rows_of(batch) -> list[reference_metrics.Row]:
    columns = ("old_log_prob", "log_prob", "advantages", "response_mask", "segment_ids", "entropy")
    return [reference_metrics.Row(*row) for row in zip(*(batch[name].tolist() for name in columns), strict=True)]


def test_each_length_has_its_clipping(request):
    seen = set()
    batches = [make(seed) for seed in range(4)]
    found = [metrics([counts_of(batch)]) for batch in batches]
    for batch, got in zip(batches, found, strict=True):
        want = reference_metrics.metrics(rows_of(batch), DEFAULTS)
        assert got == pytest.approx(want, rel=1e-12, abs=0)
        seen |= {name for name, value in got.items() if "by_length" in name and 0 < value < 1}
    assert seen == {name for name in names.METRICS if "by_length" in name} - {
        name
        for name in names.METRICS
        if "/gspo/" in name and name not in seen  # which clips nearly everything
    }
    request.getfixturevalue("as_on_a_device")
    for batch, want in zip(batches, found, strict=True):
        assert metrics([counts_of(batch)]) == pytest.approx(want, rel=1e-12, abs=0)


def test_each_update_has_its_clipping():
    batches = [make(seed) for seed in range(11)]
    of_updates = [[], []]  # two batches of a step, with 11 and 2 updates
    for i, batch in enumerate(batches):
        of_updates[0].append(batch)
        if i < 2:
            of_updates[1].append(make(100 + i))
    updates = []
    for of_batch in of_updates:
        first, *others = [Updates.of_one(counts_of(batch)) for batch in of_batch]
        for other in others:
            first = first.then(other)
        updates.append(first)
    got = metrics([each.total for each in updates], [each.clipped for each in updates])
    by_update = {name: value for name, value in got.items() if "by_update" in name}
    assert by_update.keys() == {name for name in names.METRICS if "by_update" in name}
    rows = [[rows_of(batch) for batch in of_batch] for of_batch in of_updates]
    # Of both batches together: the same places in their order, side by side.
    merged = [a + (rows[1][i] if i < 2 else []) for i, a in enumerate(rows[0])]
    assert by_update == pytest.approx(reference_metrics.by_update(merged, DEFAULTS), rel=1e-12, abs=0)


def test_where_the_updates_are_not_known_nothing_is_said_of_them():
    assert not [name for name in metrics([counts_of(make(0))]) if "by_update" in name]


def test_bounds_that_are_infinite_are_in_no_mean():
    gate = dataclasses.replace(reference.Band(), clip_statistic="tv", clip_divergence=0.25)
    settings = {k: v for k, v in dataclasses.asdict(gate).items() if k not in ("ratio_cap", "ratio_length_exponent")}
    batch = make(0)
    got = metrics([observe(**batch, **settings).fetch()[0]])
    assert got["sspo/upper_bound/max"] == got["sspo/upper_bound/mean"] == 1.0
    assert 0 < got["sspo/lower_bound/mean"] < 1
    assert 0 < got["sspo/token_clipfrac/all"] < 1
    assert all(math.isfinite(value) for value in got.values())


def test_codes_are_counted_the_same_on_a_device(request):
    codes = torch.randint(0, 256, (7, 90), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    wanted = [(codes == code).sum().item() for code in range(256)]
    for _ in range(2):
        assert count_each(codes, 256).tolist() == wanted
        assert count_each(codes[:0], 256).tolist() == [0] * 256
        request.getfixturevalue("as_on_a_device")
