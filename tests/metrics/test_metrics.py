"""The diagnostics' core against the scalar reference, against verl's own losses, and against itself in other cuts."""

import dataclasses
import functools
import math
import operator
import pickle
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import reference
import reference_metrics
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch.utils._python_dispatch import TorchDispatchMode
from verl.trainer.ppo.core_algos import compute_policy_loss_gspo, compute_policy_loss_vanilla
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPActorConfig, PolicyLossConfig
from verl.workers.utils import losses
from verl_batch import actor_config, micro_batch, responses

from sspo_verl.config import SSPOPolicyLossConfig
from sspo_verl.loss import sspo_token_terms
from sspo_verl.metrics import counts, distribution, names, warnings
from sspo_verl.metrics.counts import observe
from sspo_verl.metrics.finalize import metrics

ROOT = Path(__file__).parents[2]
DEFAULTS = reference.Settings()
# The definition's values; the plain band; a band without width, so that a ratio of 1 is on both bounds; and one in
# which every constant differs from every other.
SETTINGS = {
    "defaults": DEFAULTS,
    "no_entropy_clip": dataclasses.replace(DEFAULTS, entropy_clip=False),
    "no_width": reference.Settings(1.0, 1.0, 1.0, 0.0, 0.5, 1.0),
    "all_different": reference.Settings(0.55, 1.45, 0.85, 0.15, 0.35, 1.15),
    "one_threshold": dataclasses.replace(DEFAULTS, entropy_low=0.75, entropy_high=0.75),
}
FLOATS = ("old_log_prob", "log_prob", "advantages", "entropy")
GARBAGE = (math.nan, math.inf, -math.inf, 1e30, 0.0)
OF_THE_DRIVER = {names.MISSING, *(f"{names.PREFIX}warning/{name}" for name in warnings.SIGNS)}
SOMETIMES = ("band", "entropy", "by_length", "by_update")
ALWAYS = [name for name in names.METRICS if not any(part in name for part in SOMETIMES) and name not in OF_THE_DRIVER]


def counts_of(batch, settings=DEFAULTS, **options):
    return observe(**batch, **dataclasses.asdict(settings), **options).fetch()[0]


def measured(batches, settings=DEFAULTS):
    return metrics([counts_of(batch, settings) for batch in batches])


def expected(batch, settings=DEFAULTS):
    """The reference on every row of one batch."""
    names_of_row = ("old_log_prob", "log_prob", "advantages", "response_mask", "segment_ids")
    columns = [batch[name].tolist() for name in names_of_row]
    entropy = [None] * len(columns[0]) if batch["entropy"] is None else batch["entropy"].tolist()
    rows = [reference_metrics.Row(*values) for values in zip(*columns, entropy, strict=True)]
    return reference_metrics.metrics(rows, settings)


def assert_same(got, want, rel=1e-12):
    assert got == pytest.approx(want, rel=rel, abs=0), {
        name: (got.get(name), want.get(name)) for name in got.keys() | want.keys() if got.get(name) != want.get(name)
    }


def uniform(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fill_masked(batch, value=None):
    """The batch with garbage, or with `value`, wherever no token counts."""
    masked = (batch["response_mask"] == 0) | (batch["segment_ids"] < 0)
    junk = torch.tensor(GARBAGE, dtype=torch.float64)
    picked = junk[(uniform(1, *masked.shape) * len(GARBAGE)).long()]
    return batch | {
        name: torch.where(masked, picked.to(batch[name]) if value is None else value, batch[name])
        for name in FLOATS
        if batch[name] is not None
    }


def make(random_batch, seed, kind="plain", **options):
    """A random batch (rows empty, full, of one token, with holes; inf and NaN under the mask) of one more kind."""
    batch = random_batch(seed, **options)
    shape = batch["response_mask"].shape
    if kind == "advantages vary":
        values = uniform(seed + 100, *shape) - 0.5
        batch["advantages"] = torch.where(uniform(seed + 200, *shape) < 0.2, 0.0, values)
    elif kind == "no advantage":
        batch["advantages"] = torch.zeros(shape, dtype=torch.float64)
    elif kind == "unchanged":
        batch["log_prob"] = batch["old_log_prob"].clone()
    elif kind == "beyond the clamps":
        steps = torch.tensor([-800.0, -25, -15, -5, 5, 9.5, 10.5, 15, 25, 800], dtype=torch.float64)
        # A complete row moves one way, or every token its own way.
        of_row = steps[(uniform(seed + 100, shape[0], 1) * len(steps)).long()].expand(shape)
        of_token = steps[(uniform(seed + 200, *shape) * len(steps)).long()]
        batch["log_prob"] = batch["old_log_prob"] + torch.where(uniform(seed, shape[0], 1) < 0.5, of_row, of_token)
    elif kind == "on the thresholds":
        # Powers of two and their sums: the mean of equal ones is exact, so H is 0.5, 0.75 or 1.0 to the last bit.
        levels = torch.tensor([0.5, 0.75, 1.0, 0.25, 2.0], dtype=torch.float64)
        batch["entropy"] = levels[(uniform(seed + 100, shape[0], 1) * len(levels)).long()].expand(shape)
    elif kind == "no entropy":
        batch["entropy"] = None
    elif kind == "not finite":
        junk = torch.tensor([math.nan, math.inf, -math.inf], dtype=torch.float64)
        for i, name in enumerate(("old_log_prob", "log_prob", "entropy")):
            picked = junk[(uniform(seed + i, *shape) * len(junk)).long()]
            rare = (uniform(seed + 10 + i, *shape) < 0.1) & (uniform(seed + 20 + i, shape[0], 1) < 0.5)
            batch[name] = torch.where(rare, picked, batch[name])
    elif kind == "one segment each":
        batch["segment_ids"] = torch.where(batch["response_mask"] != 0, 0, -1)
    elif kind == "one token each":
        valid = batch["response_mask"] != 0
        batch["segment_ids"] = torch.where(valid, valid.cumsum(1) - 1, -1)
    return fill_masked(batch)


KINDS = (
    "plain",
    "advantages vary",
    "no advantage",
    "unchanged",
    "beyond the clamps",
    "on the thresholds",
    "no entropy",
    "not finite",
    "one segment each",
    "one token each",
)


# The reference


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_metrics_are_the_references(random_batch, kind, name):
    settings = SETTINGS[name]
    if kind == "no entropy":
        settings = dataclasses.replace(settings, entropy_clip=False)
    for seed in range(10):
        batch = make(random_batch, seed, kind, rows=16, length=20, log_ratio_scale=None if seed % 2 else 0.4)
        want = expected(batch, settings)
        assert set(want) >= set(ALWAYS), "the batch says nothing"
        assert_same(measured([batch], settings), want)


def test_the_random_batches_hold_what_they_are_for(random_batch):
    """Every metric moves: none is 0, none is 1, no two are the same, and left-out ones occur."""
    seen: dict[str, set[float]] = {}
    rows = []
    for seed in range(10):
        batch = make(random_batch, seed, "plain", rows=16, length=20, log_ratio_scale=1.5 if seed % 2 else 0.4)
        rows.append(expected(batch))
        for name, value in rows[-1].items():
            seen.setdefault(name, set()).add(value)
        assert batch["response_mask"].amin() == 0
        assert not torch.isfinite(batch["log_prob"]).all()
    constant = {"sspo/lower_bound/min", "sspo/lower_bound/max", "sspo/upper_bound/min", "sspo/diagnostics_failed"}
    constant |= {"sspo/nonfinite/log_ratio", "sspo/nonfinite/entropy"}
    constant |= {name for name in seen if "by_length" in name}  # rows of 20 tokens: test_by_length.py has longer ones
    assert {name for name, values in seen.items() if len(values) < 3} <= constant
    for name in ALWAYS:
        if "frac" in name:
            assert max(seen[name]) > 0.05, name
            assert min(seen[name]) < 0.95, name
    assert all(abs(row["sspo/token_clipfrac/all"] - row["sspo/segment_clipfrac/all"]) > 1e-6 for row in rows)


def test_golden():
    # Two responses. Row 0: segment 0 = tokens 0, 1 with log ratios ln 2 and 0, ratio sqrt 2 = 1.414...; H = 0.25, so
    # its bounds are 0.8 and 1.3; A = 1 > 0: clipped at the upper bound. Segment 1 = token 2, unchanged, H = 0.5, which
    # is not under entropy_low: mid, 0.7 and 1.3. Row 1: token 0 is masked; token 1, ratio 1/2, H = 2.0: high, 0.7 and
    # 1 + 0.3 + 2 = 3.3; A = -1: clipped at the lower bound.
    two = math.log(2)
    batch = {
        "old_log_prob": [[-1.0, -1.0, -1.0], [math.nan, -1.0, math.nan]],
        "log_prob": [[-1.0 + two, -1.0, -1.0], [math.nan, -1.0 - two, math.inf]],
        "advantages": [[1.0, 1.0, 1.0], [math.nan, -1.0, math.nan]],
        "entropy": [[0.5, 0.0, 0.5], [math.inf, 2.0, math.nan]],
    }
    batch = {name: torch.tensor(values, dtype=torch.float64) for name, values in batch.items()}
    batch["response_mask"] = torch.tensor([[1, 1, 1], [0, 1, 0]])
    batch["segment_ids"] = torch.tensor([[0, 0, 1], [-1, 0, -1]])
    want = {
        # 4 tokens: 2 clipped high (segment 0), 1 low; 3 segments: 1 high, 1 low.
        "token_clipfrac/all": 3 / 4,
        "token_clipfrac/low": 1 / 4,
        "token_clipfrac/high": 2 / 4,
        "segment_clipfrac/all": 2 / 3,
        "segment_clipfrac/low": 1 / 3,
        "segment_clipfrac/high": 1 / 3,
        "token_clipfrac/band_low/all": 2 / 2,
        "token_clipfrac/band_low/low": 0,
        "token_clipfrac/band_low/high": 2 / 2,
        "token_clipfrac/band_mid/all": 0,
        "token_clipfrac/band_mid/low": 0,
        "token_clipfrac/band_mid/high": 0,
        "token_clipfrac/band_high/all": 1,
        "token_clipfrac/band_high/low": 1,
        "token_clipfrac/band_high/high": 0,
        "segment_clipfrac/band_low/all": 1,
        "segment_clipfrac/band_low/low": 0,
        "segment_clipfrac/band_low/high": 1,
        "segment_clipfrac/band_mid/all": 0,
        "segment_clipfrac/band_mid/low": 0,
        "segment_clipfrac/band_mid/high": 0,
        "segment_clipfrac/band_high/all": 1,
        "segment_clipfrac/band_high/low": 1,
        "segment_clipfrac/band_high/high": 0,
        # Token ratios 2, 1, 1, 1/2 in [0.8, 1.2]: the first (A > 0) and the last (A < 0).
        "counterfactual/grpo_clipfrac": 2 / 4,
        # Response ratios 2^(1/3) with A > 0: its 3 tokens; 1/2 with A < 0: its one.
        "counterfactual/gspo_clipfrac": 4 / 4,
        "counterfactual/gspo_wide_clipfrac": 4 / 4,
        "clipfrac_by_length/sspo/to_8": 3 / 4,
        "clipfrac_by_length/grpo/to_8": 2 / 4,
        "clipfrac_by_length/gspo/to_8": 4 / 4,
        "clipfrac_by_length/gspo_wide/to_8": 4 / 4,
        "tokens_by_length/to_8": 1,
        **{f"tokens_by_length/{name}": 0 for name in ("to_16", "to_32", "to_64", "over_64")},
        "segments_per_response": 3 / 2,
        "tokens_per_segment": 4 / 3,
        "single_segment_frac": 1 / 2,
        "token_entropy": (0.5 + 0.0 + 0.5 + 2.0) / 4,
        "entropy_band/low": 1 / 3,
        "entropy_band/mid": 1 / 3,
        "entropy_band/high": 1 / 3,
        "segment_entropy/mean": (0.25 + 0.5 + 2.0) / 3,
        "segment_entropy/min": 0.25,
        "segment_entropy/max": 2.0,
        # Ranks 0, 0.5, 1 hold 0.25, 0.5, 2.0; between them straight lines: 0.05 is a tenth of the way to 0.5.
        "segment_entropy/p05": 0.25 + 0.1 * 0.25,
        "segment_entropy/p25": 0.25 + 0.5 * 0.25,
        "segment_entropy/p50": 0.5,
        "segment_entropy/p75": 0.5 + 0.5 * 1.5,
        "segment_entropy/p95": 0.5 + 0.9 * 1.5,
        "ratio/mean": (math.sqrt(2) + 1 + 0.5) / 3,
        "ratio/min": 0.5,
        "ratio/max": math.sqrt(2),
        "lower_bound/mean": (0.8 + 0.7 + 0.7) / 3,
        "lower_bound/min": 0.7,
        "lower_bound/max": 0.8,
        "upper_bound/mean": (1.3 + 1.3 + 3.3) / 3,
        "upper_bound/min": 1.3,
        "upper_bound/max": 3.3,
        "max_negative_weight": 0.5,  # of the one token with A < 0: ratio 1/2 times 1
        "nonfinite/log_ratio": 0,
        "nonfinite/entropy": 0,
        "diagnostics_failed": 0,
    }
    want = {names.PREFIX + name: value for name, value in want.items()}
    assert_same(measured([batch]), want)
    assert_same(expected(batch), want)


@pytest.mark.parametrize("junk", GARBAGE, ids=str)
def test_what_stands_under_the_mask_changes_nothing(random_batch, junk):
    for seed in range(5):
        batch = random_batch(seed, garbage=False)
        # Tokens under the mask that have a segment id all the same, and valid ones without a segment.
        odd = uniform(seed, *batch["response_mask"].shape) < 0.1
        first = batch | {"response_mask": torch.where(odd, 0, batch["response_mask"])}
        second = first | {"segment_ids": torch.where(first["response_mask"] == 0, -1, first["segment_ids"])}
        want = expected(second)
        for clean in (first, second):
            assert_same(measured([fill_masked(clean, junk)]), want)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (3, 0), (3, 5)], ids=str)
def test_nothing_to_count(random_batch, shape):
    nothing = {name: torch.full(shape, math.nan) for name in FLOATS}
    nothing |= {"response_mask": torch.zeros(shape, dtype=torch.int64), "segment_ids": torch.full(shape, -1)}
    assert measured([nothing]) == {}
    assert measured([nothing, nothing]) == {}
    batch = make(random_batch, 3)
    assert_same(measured([nothing, batch, nothing]), measured([batch]))


def test_no_counts_at_all():
    assert metrics([]) == {}


def test_entropy_is_needed_where_it_sets_the_bounds(random_batch):
    with pytest.raises(ValueError, match="entropy"):
        counts_of(make(random_batch, 0, "no entropy"))


def test_inputs_are_left_alone(random_batch):
    batch = make(random_batch, 0)
    before = {name: values.clone() for name, values in batch.items()}
    counts_of(batch)
    for name, values in before.items():
        torch.testing.assert_close(batch[name], values, rtol=0, atol=0, equal_nan=True)


def test_inputs_in_bfloat16(random_batch):
    batch = make(random_batch, 0)
    half = batch | {name: batch[name].bfloat16() for name in FLOATS}
    assert_same(measured([half]), measured([half | {name: half[name].float() for name in FLOATS}]), rel=0)


def test_no_gradient_is_kept(random_batch):
    batch = make(random_batch, 0)
    batch["log_prob"].requires_grad_()
    assert not observe(**batch, **dataclasses.asdict(DEFAULTS)).packed.requires_grad


# One batch in other pieces


def take(batch, rows):
    return {name: None if values is None else values[rows] for name, values in batch.items()}


def pad(batch, left, right, rows):
    fill = {"response_mask": 0, "segment_ids": -1}
    return {
        name: torch.nn.functional.pad(values, (left, right, 0, rows), value=fill.get(name, math.nan))
        for name, values in batch.items()
    }


CUTS = [0, 1, 1, 4, 9, 11, 12, 23]  # 7 uneven micro-batches; one of them is one fully masked row, one has no row


@pytest.mark.parametrize("kind", ["plain", "advantages vary", "on the thresholds", "one segment each"])
def test_micro_batches_row_order_and_padding_change_nothing(random_batch, kind):
    for seed in range(8):
        batch = make(random_batch, seed, kind, rows=23, length=20, log_ratio_scale=None if seed % 2 else 0.4)
        full = measured([batch])
        parts = [take(batch, slice(a, b)) for a, b in pairwise(CUTS)]
        order = torch.randperm(23, generator=torch.Generator().manual_seed(seed))
        others = {
            "7 micro-batches": parts,
            "7 in another order": parts[::-1],
            "one row each": [take(batch, slice(i, i + 1)) for i in range(23)],
            "row order": [take(batch, order)],
            "padding": [pad(batch, 5, 8, 2)],
            "padded micro-batches": [pad(part, i, 2 * i, i) for i, part in enumerate(parts)],
        }
        for how, batches in others.items():
            got = measured(batches)
            assert_same(got, full)
            if kind == "advantages vary":
                continue  # shares of a segment are fractions
            for name in got:  # integers over integers, and order statistics: the same to the last bit
                if "mean" not in name and name != "sspo/token_entropy":
                    assert got[name] == full[name], (how, name)


def test_fractions_are_sums_over_sums_and_not_means_of_means(random_batch):
    batch = make(random_batch, 0, rows=23, length=20, log_ratio_scale=0.4)
    parts = [measured([take(batch, slice(a, b))]) for a, b in pairwise(CUTS)]
    full = measured([batch])
    for name, value in full.items():
        if not name.endswith(("min", "max")):
            shares = [part[name] for part in parts if name in part]
            assert len(shares) > 1 or "by_length" in name
            if len(set(shares)) > 1:
                assert math.fsum(shares) / len(shares) != pytest.approx(value, rel=1e-6), name


def test_low_and_high_add_up_to_all_and_the_bands_to_1(random_batch):
    for seed in range(5):
        got = measured([make(random_batch, seed, rows=16, log_ratio_scale=0.4)])
        for name in list(got):
            if "clipfrac" in name and name.endswith("/all"):
                group = name.removesuffix("/all")
                assert got[f"{group}/low"] + got[f"{group}/high"] == pytest.approx(got[name], rel=1e-12)
        assert sum(got[f"sspo/entropy_band/{band}"] for band in names.BANDS) == pytest.approx(1, rel=1e-12)


def test_a_record_does_not_grow_with_what_is_counted(random_batch):
    """It crosses from rank to rank and to the driver as a pickle."""
    small = counts_of(make(random_batch, 0, rows=4, length=16))
    large = counts_of(make(random_batch, 0, "one token each", rows=64, length=512))
    assert large.segments.sum() > 10_000
    many = functools.reduce(operator.add, [large] * 50 + [small] * 50)
    sizes = [len(pickle.dumps(record)) for record in (small, large, many)]
    assert max(sizes) < 9 * distribution.EXACT + 2048
    assert sizes[2] <= sizes[1] + 64  # the same numbers, but longer
    assert metrics([pickle.loads(pickle.dumps(many))]) == metrics([many])


def test_counts_of_which_some_failed(random_batch):
    batch = make(random_batch, 0)
    full, failed = counts_of(batch), counts.Counts.failure(2)
    got = metrics([failed, full, failed])
    assert got.pop("sspo/diagnostics_failed") == 4
    want = metrics([full])
    assert want.pop("sspo/diagnostics_failed") == 0
    assert got == want
    assert metrics([failed]) == {"sspo/diagnostics_failed": 2}


# What is not finite


def test_one_entropy_that_is_nan(random_batch):
    """The segment is in no band and in no other number; the loss gives it the plain bounds."""
    for junk in (math.nan, math.inf, -math.inf):
        batch = make(random_batch, 0, rows=16, length=20, log_ratio_scale=0.4)
        row, place = (batch["segment_ids"] == 1).nonzero()[0].tolist()
        batch["entropy"][row, place] = junk
        of_segment = (batch["segment_ids"] == 1) & (torch.arange(16) == row)[:, None]
        others = batch | {"response_mask": torch.where(of_segment, 0, batch["response_mask"])}
        got, without = measured([batch]), measured([others])
        for name in got:
            if "entropy_band" in name or "segment_entropy" in name or "clipfrac/band" in name:
                assert got[name] == without[name], name
        assert (got["sspo/nonfinite/entropy"], got["sspo/nonfinite/log_ratio"]) == (1, 0)
        assert all(math.isfinite(value) for value in got.values())
        terms = sspo_token_terms(**batch, **dataclasses.asdict(DEFAULTS))
        assert (terms.lower[row, 1], terms.upper[row, 1]) == (DEFAULTS.clip_low, DEFAULTS.clip_high)


def test_entropies_that_are_all_nan(random_batch):
    batch = make(random_batch, 0)
    batch["entropy"] = torch.full_like(batch["entropy"], math.nan)
    got, tokens = measured([batch]), (batch["response_mask"] != 0).sum().item()
    assert got["sspo/nonfinite/entropy"] == tokens
    assert not [name for name in got if "band" in name or "entropy" in name.removeprefix("sspo/nonfinite/entropy")]
    seen = looked(got)
    assert seen["nonfinite"]
    assert not {"entropy", "one_band"} & set(seen)


# The distribution of H


@hypothesis_settings(deadline=None)  # a busy machine can take longer for a single case
@given(
    values=st.lists(st.floats(0, 20), min_size=1, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    exact=st.integers(0, 40),
)
def test_the_quantiles_of_many_values_are_off_by_the_stated_error(values, cuts, exact):
    """And the same to the last bit, however the values were cut up."""
    with mock.patch.object(distribution, "EXACT", exact):
        full = distribution.Distribution.of(np.array(values))
        parts = np.split(np.array(values), sorted(cuts))
        summed = functools.reduce(operator.add, [distribution.Distribution.of(part) for part in parts[::-1]])
    shares = list(names.QUANTILES.values())
    got, want = full.quantiles(shares), np.quantile(values, shares)
    assert summed.quantiles(shares) == got
    assert (summed.size, summed.smallest, summed.largest) == (len(values), min(values), max(values))
    assert summed.total == pytest.approx(sum(values))
    if len(values) <= exact:
        assert got == list(want)
    else:
        np.testing.assert_array_less(np.abs(got - want), distribution.ERROR * (want + distribution.SCALE) + 1e-12)
        assert min(values) <= min(got) <= max(got) <= max(values)


def test_the_quantiles_are_exact_up_to_a_stated_number():
    values = uniform(0, 2 * distribution.EXACT).numpy()
    for size, is_exact in ((distribution.EXACT, True), (distribution.EXACT + 1, False)):
        of = distribution.Distribution.of(values[:size])
        assert (of.quantiles([0.25, 0.5]) == np.quantile(values[:size], [0.25, 0.5]).tolist()) == is_exact
    text = (ROOT / "docs" / "metrics.md").read_text()
    assert f"up to {distribution.EXACT:,} segments" in text
    assert f"{distribution.ERROR:.0%} of" in text
    assert f"{distribution.ERROR * distribution.SCALE:g} nats" in text


# verl's own losses on the same batch


def verl_config(recipe):
    """An actor with the clip ratios of algorithm=<recipe>."""
    actor = OmegaConf.load(ROOT / f"sspo_verl/conf/algorithm/{recipe}.yaml").actor_rollout_ref.actor
    return FSDPActorConfig(
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        clip_ratio=actor.clip_ratio,
        clip_ratio_low=actor.clip_ratio_low,
        clip_ratio_high=actor.clip_ratio_high,
    )


COUNTERFACTUALS = {
    "grpo": (compute_policy_loss_vanilla, (0.8, 1.2)),
    "gspo": (compute_policy_loss_gspo, (1 - 3e-4, 1 + 4e-4)),
}


def near_bounds(random_batch, seed, algorithm, dtype):
    """Rows whose ratios are a few last bits around `algorithm`'s bounds, among rows that are far off."""
    batch = random_batch(seed, rows=64, length=48, garbage=False, log_ratio_scale=(0.3 if seed % 2 else 1e-3))
    batch = {name: values.to(dtype) if name in FLOATS else values for name, values in batch.items()}
    shape = batch["response_mask"].shape
    low, high = COUNTERFACTUALS[algorithm][1]
    at_low = uniform(seed, shape[0], 1) < 0.5
    near = torch.tensor([math.log(high), math.log(low)], dtype=torch.float64)[at_low.long()].to(dtype).expand(shape)
    # In half of the rows every token steps off on its own, in the others all of them by as much.
    steps = torch.where(uniform(seed + 3, shape[0], 1) < 0.5, uniform(seed + 1, *shape), uniform(seed + 4, shape[0], 1))
    near = near + ((steps - 0.5) * 8).round().to(dtype) * torch.finfo(dtype).eps / 2
    is_near = uniform(seed + 2, shape[0], 1) < 0.6
    # Of the sign for which the bound counts, mostly.
    sign = torch.where(at_low == (uniform(seed + 5, shape[0], 1) < 0.9), -1, 1)
    batch["advantages"] = torch.where(is_near, sign * batch["advantages"].abs(), batch["advantages"])
    # old = 0 keeps the last bits of the ratio.
    batch["old_log_prob"] = torch.where(is_near, 0.0, batch["old_log_prob"])
    batch["log_prob"] = torch.where(is_near, near, batch["log_prob"])
    return batch


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("algorithm", COUNTERFACTUALS)
def test_counterfactuals_are_what_verls_own_losses_report(random_batch, algorithm, dtype):
    verls_loss, (low, high) = COUNTERFACTUALS[algorithm]
    config = verl_config(algorithm)
    on_the_edge, shares = 0, []
    for seed in range(20):
        batch = near_bounds(random_batch, seed, algorithm, dtype)
        _, reported = verls_loss(
            batch["old_log_prob"],
            batch["log_prob"],
            batch["advantages"],
            batch["response_mask"].bool(),
            loss_agg_mode="token-mean",
            config=config,
        )
        reported = reported["actor/pg_clipfrac"]
        got = measured([fill_masked(batch)])[f"sspo/counterfactual/{algorithm}_clipfrac"]
        assert np.float32(got) == np.float32(reported)
        shares.append(reported)
        ratio = torch.exp(batch["log_prob"] - batch["old_log_prob"])
        eps = torch.finfo(dtype).eps
        on_the_edge += min((abs(ratio - bound) <= 2 * eps).sum().item() for bound in (low, high))
    assert on_the_edge > 1000
    assert min(shares) > 0.03
    assert 0.15 < math.fsum(shares) / len(shares) < 0.85


@pytest.mark.parametrize("algorithm", COUNTERFACTUALS)
def test_counterfactuals_far_beyond_the_clamps_are_verls(random_batch, algorithm):
    verls_loss, _ = COUNTERFACTUALS[algorithm]
    for seed in range(10):
        batch = make(random_batch, seed, "beyond the clamps", rows=32)
        _, reported = verls_loss(
            **{name: fill_masked(batch, 0.0)[name] for name in FLOATS[:3]},
            response_mask=batch["response_mask"].bool(),
            config=verl_config(algorithm),
        )
        got = measured([batch])[f"sspo/counterfactual/{algorithm}_clipfrac"]
        assert np.float32(got) == np.float32(reported["actor/pg_clipfrac"])
        assert 0.2 < got < 0.8


# Rows, for the rollout dump


def test_the_segments_of_each_row_are_the_references(random_batch):
    sides = {"": 0, "low": -1, "high": 1}
    for seed in range(10):
        batch = make(random_batch, seed, rows=16, length=20, log_ratio_scale=0.4)
        counts, rows = observe(**batch, **dataclasses.asdict(DEFAULTS), with_rows=True).fetch()
        assert metrics([counts]) == metrics([counts_of(batch)])
        names_of_row = ("old_log_prob", "log_prob", "advantages", "response_mask", "segment_ids", "entropy")
        for i, values in enumerate(zip(*(batch[name].tolist() for name in names_of_row), strict=True)):
            segments = reference_metrics.segments_of(reference_metrics.Row(*values), DEFAULTS)
            assert rows.lengths[i].tolist() == [len(segment.sides) for segment in segments]
            assert rows.clips[i].tolist() == [sides[segment.sides[0]] for segment in segments]
            assert rows.entropies[i].tolist() == pytest.approx([segment.entropy for segment in segments], rel=1e-12)
            assert rows.ratios[i].tolist() == pytest.approx([segment.ratio for segment in segments], rel=1e-6)
        assert len(rows.lengths) == 16


def test_the_segments_of_each_row_without_entropy(random_batch):
    batch = make(random_batch, 0, "no entropy")
    settings = dataclasses.replace(DEFAULTS, entropy_clip=False)
    rows = observe(**batch, **dataclasses.asdict(settings), with_rows=True).fetch()[1]
    assert rows.entropies is None
    assert [len(row) for row in rows.lengths] == (batch["segment_ids"].amax(dim=1) + 1).tolist()
    assert observe(**batch, **dataclasses.asdict(settings)).fetch()[1] is None


# Names


def test_the_names_are_those_of_the_table(random_batch):
    got = measured([make(random_batch, 0, rows=64)])
    elsewhere = {name for name in names.METRICS if "by_length" in name or "by_update" in name or "_threshold" in name}
    assert set(got) | OF_THE_DRIVER | elsewhere == set(names.METRICS)
    assert not set(got) & OF_THE_DRIVER
    assert set(names.WARNINGS) == set(warnings.SIGNS)
    # The reference spells the names out on its own.
    assert set(expected(make(random_batch, 0, rows=64))) == set(got)


def test_docs_show_the_table():
    """docs/metrics.md has one row for each metric, in a table with these three columns."""
    shown, columns = {}, []
    for line in (ROOT / "docs" / "metrics.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| metric "):
            columns = cells
        if line.startswith(f"| `{names.PREFIX}"):
            row = dict(zip(columns, cells, strict=True))
            assert row["metric"] not in shown, f"twice: {row['metric']}"
            shown[row["metric"]] = (row["denominator"], row["what"])
    assert shown == {f"`{name}`": (metric.denominator, metric.meaning) for name, metric in names.METRICS.items()}


# Warnings

THRESHOLDS = {"warn_clipfrac": 0.5, "warn_single_segment": 0.6, "warn_entropy": 0.1, "warn_one_band": 0.99}
THRESHOLDS["warn_ratio"] = 2**-10
QUIET = {
    "sspo/token_clipfrac/all": 0.2,
    "sspo/single_segment_frac": 0.2,
    "sspo/token_entropy": 0.7,
    "sspo/entropy_band/low": 0.3,
    "sspo/entropy_band/mid": 0.4,
    "sspo/entropy_band/high": 0.3,
    "sspo/ratio/min": 0.9,
    "sspo/ratio/max": 1.2,
    "sspo/nonfinite/entropy": 0.0,
    "sspo/nonfinite/log_ratio": 0.0,
    "sspo/responses_missing": 0.0,
}
AFTER, BEFORE = math.inf, -math.inf


def band(name, share):
    shares = dict.fromkeys(("low", "mid", "high"), (1 - share) / 2) | {name: share}
    return {f"sspo/entropy_band/{name}": value for name, value in shares.items()}


def ratios(low, high):
    return {"sspo/ratio/min": low, "sspo/ratio/max": high}


def looked(row, thresholds=THRESHOLDS):
    return warnings.Warner(10, thresholds).look(row)


CASES = {  # what is changed in QUIET, and which sign it gives
    "clipfrac on the threshold": ({"sspo/token_clipfrac/all": 0.5}, None),
    "clipfrac just over": ({"sspo/token_clipfrac/all": math.nextafter(0.5, AFTER)}, "clipfrac"),
    "clipfrac 1": ({"sspo/token_clipfrac/all": 1.0}, "clipfrac"),
    "single_segment on the threshold": ({"sspo/single_segment_frac": 0.6}, None),
    "single_segment just over": ({"sspo/single_segment_frac": math.nextafter(0.6, AFTER)}, "single_segment"),
    "entropy on the threshold": ({"sspo/token_entropy": 0.1}, None),
    "entropy just under": ({"sspo/token_entropy": math.nextafter(0.1, BEFORE)}, "entropy"),
    "entropy 0": ({"sspo/token_entropy": 0.0}, "entropy"),
    "all low": (band("low", 1.0), "one_band"),
    "all mid": (band("mid", 1.0), "one_band"),
    "all high": (band("high", 1.0), "one_band"),
    "low on the threshold": (band("low", 0.99), "one_band"),
    "high on the threshold": (band("high", 0.99), "one_band"),
    "mid just under": (band("mid", math.nextafter(0.99, BEFORE)), None),
    "all ratios 1": (ratios(1.0, 1.0), "ratio"),
    "ratios nearly 1": (ratios(1.0, 1 + 2**-11), "ratio"),
    "ratios on the threshold": (ratios(1.0, 1 + 2**-10), None),
    "ratios below 1 alone": (ratios(0.9, 1.0), None),
    "an entropy that is NaN": ({"sspo/nonfinite/entropy": 1.0}, "nonfinite"),
    "a log ratio that is infinite": ({"sspo/nonfinite/log_ratio": 1.0}, "nonfinite"),
    "a response is missing": ({names.MISSING: 1.0}, "responses_missing"),
    "nothing": ({}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_each_sign_is_seen_where_it_should_and_nowhere_else(case):
    changed, sign = CASES[case]
    seen = looked(QUIET | changed)
    assert seen == {name: name == sign for name in names.WARNINGS}


@pytest.mark.parametrize(
    ("missing", "signs"),
    [
        (["sspo/token_clipfrac/all"], {"clipfrac"}),
        (["sspo/single_segment_frac"], {"single_segment"}),
        (["sspo/token_entropy"], {"entropy"}),
        (["sspo/entropy_band/low", "sspo/entropy_band/mid", "sspo/entropy_band/high"], {"one_band"}),
        (["sspo/ratio/min", "sspo/ratio/max"], {"ratio"}),
        ([names.MISSING], {"responses_missing"}),
        (["sspo/nonfinite/entropy"], set()),
        (["sspo/nonfinite/entropy", "sspo/nonfinite/log_ratio"], {"nonfinite"}),
        (list(QUIET), set(names.WARNINGS)),
    ],
)
def test_what_was_not_measured_is_no_sign(missing, signs):
    row = {name: value for name, value in QUIET.items() if name not in missing}
    assert set(looked(row)) == set(names.WARNINGS) - signs


def test_the_thresholds_are_the_settings():
    """Each sign that has a setting has its own, and only it moves the sign."""
    settings = SSPOPolicyLossConfig()
    signs = {name: sign for name, sign in warnings.SIGNS.items() if sign.threshold}
    thresholds = {sign.threshold: getattr(settings, sign.threshold) for sign in signs.values()}
    assert set(thresholds) == set(THRESHOLDS)
    assert thresholds["warn_clipfrac"] == 0.5, "the definition: over 50 %"
    assert not any(looked(QUIET, thresholds).values())
    always = {"warn_clipfrac": -1.0, "warn_single_segment": -1.0, "warn_entropy": 10.0, "warn_one_band": 0.0}
    always["warn_ratio"] = 10.0
    for name, sign in signs.items():
        seen = looked(QUIET, thresholds | {sign.threshold: always[sign.threshold]})
        assert seen == {other: other == name for other in names.WARNINGS}


@pytest.mark.parametrize(
    ("sign", "changed", "words"),
    [
        ("clipfrac", {"sspo/token_clipfrac/all": 0.625}, ["62.5%", "50.0%", "clip_low", "clip_high"]),
        ("single_segment", {"sspo/single_segment_frac": 0.875}, ["87.5%", "60.0%", "algorithm=gspo"]),
        ("entropy", {"sspo/token_entropy": 0.0625}, ["0.062", "0.1", "entropy_low", "entropy_high", "alpha"]),
        ("one_band", band("high", 1.0), ["100.0%", "99.0%", "high", "entropy_low", "entropy_high"]),
        ("one_band", band("low", 1.0), ["100.0%", "low entropy band", "sspo_no_entropy_clip"]),
        ("ratio", ratios(1.0, 1 + 2**-13), ["0.0001", "0.000976562", "actor.optim.lr", "actor/grad_norm"]),
        ("nonfinite", {"sspo/nonfinite/entropy": 3.0}, ["3 token entropies are", "entropy_source to current"]),
        ("responses_missing", {names.MISSING: 5.0}, ["5 responses of the step", "RewardLoopWorker"]),
        (
            "nonfinite",
            {"sspo/nonfinite/entropy": 3.0, "sspo/nonfinite/log_ratio": 2.0},
            ["3 token entropies and 2 token log ratios"],
        ),
    ],
)
def test_a_warning_says_what_was_seen_what_it_means_and_what_to_change(sign, changed, words):
    said = warnings.text(warnings.SIGNS[sign], QUIET | changed, THRESHOLDS)
    for word in [*words, warnings.SIGNS[sign].title, warnings.SIGNS[sign].meaning[1:]]:
        assert word in said
    if sign not in ("single_segment", "ratio", "responses_missing"):
        assert "actor_rollout_ref.actor.policy_loss." in said
    assert "\n" not in said


def test_a_warning_that_goes_on_is_printed_once_in_so_many_steps():
    loud, both = (
        QUIET | {"sspo/token_entropy": 0.0},
        QUIET | {"sspo/token_entropy": 0.0, "sspo/token_clipfrac/all": 1.0},
    )
    warner = warnings.Warner(3, THRESHOLDS)
    rows = [QUIET, loud, loud, both, loud, QUIET, both, both, loud]
    said = [[line.split(":")[0] for line in warner.due(step, row)] for step, row in enumerate(rows, start=1)]
    entropy, clipfrac = (warnings.SIGNS[name].title for name in ("entropy", "clipfrac"))
    # Entropy at 2, 5, and then not before 8; clipfrac, on a count of its own, at 4 and 7.
    assert said == [[], [entropy], [], [clipfrac], [entropy], [], [clipfrac], [entropy], []]
    assert warnings.Warner(0, THRESHOLDS).due(1, both) == [], "0: never"
    assert all(len(warner.due(step, loud)) == 1 for step in range(11, 60, 3))
    every = warnings.Warner(1, THRESHOLDS)
    assert [len(every.due(step, both)) for step in range(3)] == [2, 2, 2]


GATE = {"clip_statistic": "tv", "clip_divergence": 0.15}
SHARES = {"entropy_thresholds": "quantile", "entropy_low": 0.2, "entropy_high": 0.8}
UNDER = [
    {"entropy_clip": False},
    GATE,
    SHARES,
    {"segmenter": "fixed", "segment_tokens": 8},
    {"segmenter": "sentence"},
    {"segmenter": "response"},
    {"segmenter": "turn", "segment_max_tokens": 64},
]


@pytest.mark.parametrize("given", UNDER, ids=str)
def test_a_warning_is_true_of_the_settings(given):
    """None of a band that does not adapt or of a cut that nobody asked for; no key that decides nothing."""
    signs = warnings.signs_of(SSPOPolicyLossConfig(**given))
    gone = {"one_band"} if "entropy_clip" in given or given is GATE else set()
    gone |= {"single_segment"} if given.get("segmenter") == "response" else set()
    assert set(signs) == set(warnings.SIGNS) - gone
    said = {name: f"{sign.meaning} {sign.advice}" for name, sign in signs.items()}
    if gone & {"one_band"}:
        assert "entropy_low" not in said["entropy"]
    assert ("clip_low" in said["clipfrac"]) == (given is not GATE)
    assert ("clip_divergence" in said["clipfrac"]) == (given is GATE)
    if "segmenter" in given and "single_segment" in said:
        assert "line break" not in said["single_segment"]
        assert f"segmenter={given['segmenter']}" in said["single_segment"]
        assert ("segment_max_tokens" in said["single_segment"]) == ("segment_max_tokens" in given)
    if given is SHARES:
        assert "shares" in said["one_band"]
        assert "p25" not in said["one_band"] + said["entropy"]


def test_the_paper_s_settings_have_all_signs():
    assert warnings.signs_of(SSPOPolicyLossConfig()) == warnings.SIGNS


def test_the_settings_that_a_warning_names_are_there():
    fields = {field.name for field in dataclasses.fields(SSPOPolicyLossConfig)}
    worded = [warnings.SIGNS, *(warnings.signs_of(SSPOPolicyLossConfig(**settings)) for settings in UNDER)]
    for sign in (sign for signs in worded for sign in signs.values()):
        for word in sign.advice.replace(",", " ").split():
            if word.startswith("actor_rollout_ref.actor.policy_loss."):
                assert word.removeprefix("actor_rollout_ref.actor.policy_loss.").rstrip(".;,") in fields
        for word in sign.advice.replace(",", " ").replace("(", " ").replace(")", " ").replace(";", " ").split():
            if word.startswith("sspo/"):
                assert any(name == word or name.startswith(f"{word}/") for name in names.METRICS), word


# How often the host waits for the device


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for a device: scalars read, shapes that depend on values, copies to the host."""

    OPS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "unique_dim")

    def __init__(self, monkeypatch):
        super().__init__()
        self.copies, self.reads = 0, 0
        self._inside = 0
        # On a CPU these do not reach the dispatcher, as there is nothing to copy.
        for name in ("cpu", "numpy", "tolist"):
            monkeypatch.setattr(torch.Tensor, name, self._counted(getattr(torch.Tensor, name)))

    def _counted(self, method):
        def counted(tensor, *args, **kwargs):
            self.copies += not self._inside  # x.cpu().numpy() is one copy: numpy shares what is on the host already
            self._inside += 1
            try:
                out = method(tensor, *args, **kwargs)
            finally:
                self._inside -= 1
            if isinstance(out, torch.Tensor):
                out = out.detach()  # on a CPU it is the tensor itself, and so would be marked
                out._on_the_host = True
            return out

        def unless_copied(tensor, *args, **kwargs):
            if getattr(tensor, "_on_the_host", False):
                return method(tensor, *args, **kwargs)
            return counted(tensor, *args, **kwargs)

        return unless_copied

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.OPS or (name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])):
            self.reads += 1
        return func(*args, **(kwargs or {}))

    @property
    def all(self):
        return self.copies + self.reads


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_are_the_same_as_on_a_device(random_batch, request, kind):
    settings = dataclasses.replace(DEFAULTS, entropy_clip=kind != "no entropy")
    batches = [make(random_batch, seed, kind, rows=16, length=20) for seed in range(5)]
    here = [measured([batch], settings) for batch in batches]
    request.getfixturevalue("as_on_a_device")
    for batch, want in zip(batches, here, strict=True):
        assert_same(measured([batch], settings), want)


def test_metrics_are_the_same_in_blocks(random_batch, monkeypatch):
    for seed in range(5):
        batch = make(random_batch, seed, rows=23, length=20)
        want = measured([batch])
        for block, blocks in ((1, 8), (1, 23), (100, 23)):
            monkeypatch.setattr(counts, "BLOCK", block)
            monkeypatch.setattr(counts, "BLOCKS", blocks)
            assert_same(measured([batch]), want)
        monkeypatch.undo()


@pytest.mark.parametrize("with_rows", [False, True])
def test_counting_waits_for_the_device_once(random_batch, monkeypatch, as_on_a_device, with_rows):
    batch = make(random_batch, 0)
    options = dataclasses.asdict(DEFAULTS) | {"with_rows": with_rows}
    observe(**batch, **options).fetch()
    with monkeypatch.context() as patch, Waits(patch) as waits:
        observation = observe(**batch, **options)
        assert waits.all == 0
        on_the_device = [
            value for value in vars(observation).values() if isinstance(value, torch.Tensor | list | tuple | dict)
        ]
        assert [type(v) for v in on_the_device if not isinstance(v, tuple)] == [torch.Tensor], "one tensor, packed"
        observation.fetch()
        assert (waits.copies, waits.reads) == (1, 0)


def test_the_counter_of_waits_counts(monkeypatch):
    values = torch.tensor([1.0, 0.0])
    some = values > 0
    with monkeypatch.context() as patch, Waits(patch) as waits:
        values.cpu().numpy()
        assert waits.all == 1
        values.tolist()
        assert waits.all == 2
        assert some.any()
        assert waits.all == 3
        values[some]
        assert waits.all == 4
        values.nonzero()
        assert waits.all == 5
        float(values[0])
        assert waits.all == 6


@pytest.mark.parametrize("with_rows", [False, True])
def test_nothing_of_counting_needs_a_value_on_the_host(random_batch, with_rows):
    """On the meta device there are no values: whatever asked for one, or for a shape made of values, would fail."""
    batch = {name: values.to("meta") for name, values in make(random_batch, 0).items()}
    observation = observe(**batch, **dataclasses.asdict(DEFAULTS), with_rows=with_rows)
    assert observation.packed.device.type == "meta"


def waits_of(monkeypatch, config):
    # The loss runs once before, so that what is done once per process is done.
    for counted in (False, True):
        data, output = micro_batch(responses(seed=0), [0, 1, 2, 3])
        tu.assign_non_tensor_stack(data, "uid", ["a", "a", "b", "b"])
        tu.assign_non_tensor_stack(data, "session_id", [0, 1, 0, 1])
        if not counted:
            losses.ppo_loss(config, output, data)
    with monkeypatch.context() as patch, Waits(patch) as waits:
        losses.ppo_loss(config, output, data)
    return waits.all


def test_in_verl_a_micro_batch_waits_for_the_device_once_more_at_most(monkeypatch, as_on_a_device):
    """verl's own share is that of its vanilla loss, which reads three metrics of its own."""
    vanilla = waits_of(monkeypatch, actor_config(PolicyLossConfig()))
    assert vanilla > 0
    on, off = (waits_of(monkeypatch, actor_config(SSPOPolicyLossConfig(diagnostics=value))) for value in (True, False))
    rows = waits_of(monkeypatch, actor_config(SSPOPolicyLossConfig(dump_segments=8)))
    assert on <= off + 1
    assert on <= vanilla
    assert rows <= off + 1
    for mode in ("vanilla", "gspo"):
        verls = waits_of(monkeypatch, actor_config(PolicyLossConfig(loss_mode=mode)))
        ours = waits_of(monkeypatch, actor_config(SSPOPolicyLossConfig(loss_mode=mode, diagnostics=True)))
        assert ours <= verls + 1, mode
