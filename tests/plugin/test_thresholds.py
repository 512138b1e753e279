"""entropy_thresholds=quantile: what the driver puts in a batch, and what the loss does with it."""

from types import SimpleNamespace

import pytest
import reference
import reference_metrics
import torch
import verl  # noqa: F401  loads the plugin
from verl.utils import tensordict_utils as tu
from verl.workers.utils.losses import ppo_loss
from verl_batch import TOKENIZER, actor_config, micro_batch, responses

from sspo_verl.config import SSPOPolicyLossConfig
from sspo_verl.plugin import driver, thresholds
from sspo_verl.plugin.actor import COUNTS

SHARES = {"entropy_thresholds": "quantile", "entropy_low": 0.25, "entropy_high": 0.75}
ROWS = [0, 1, 2, 3]


def loss_of(settings, **in_batch):
    """(loss, gradient, metrics) of one micro-batch."""
    data, output = micro_batch(responses(0), ROWS)
    tu.assign_non_tensor(data, **in_batch)
    loss, metrics = ppo_loss(actor_config(settings), output, data)
    loss.backward()
    return loss.item(), output["log_probs"].grad.values(), metrics


def test_shares_are_what_they_are_of_the_batch():
    in_batch = {"sspo_entropy_low": 0.9, "sspo_entropy_high": 1.1}
    *shares, metrics = loss_of(SSPOPolicyLossConfig(**SHARES), **in_batch)
    *nats, expected = loss_of(SSPOPolicyLossConfig(entropy_low=0.9, entropy_high=1.1))
    other = loss_of(SSPOPolicyLossConfig(entropy_low=0.25, entropy_high=0.75))
    assert shares[0] == nats[0] != other[0]
    assert torch.equal(shares[1], nats[1])
    assert (metrics[COUNTS].value.segments == expected[COUNTS].value.segments).all()


def test_a_trainer_that_does_not_compute_them_is_an_error():
    with pytest.raises(RuntimeError, match=r"main_ppo does.*entropy_thresholds=absolute"):
        loss_of(SSPOPolicyLossConfig(**SHARES))
    metrics = loss_of(SSPOPolicyLossConfig(loss_mode="vanilla", **SHARES))[2]  # diagnostics end no run
    assert metrics[COUNTS].value.failed == 1


class Queue:
    def __init__(self, **lacking):
        self.rows = {name: values for name, values in responses(0).items() if name not in lacking}
        self.asked = []

    def kv_batch_get(self, keys, partition_id, select_fields):
        self.asked.append((keys, partition_id))
        nested = tu.nested_tensor_from_tensor_list
        return {name: nested([self.rows[name][int(key)] for key in keys]) for name in select_fields}


def batch_of(order):
    tags = [{}] * len(order) + [{"is_padding": True}]
    return SimpleNamespace(
        keys=[*map(str, order), "padding"], tags=tags, partition_id="train", extra_info={"epochs": 1}
    )


def test_the_driver_puts_the_quantiles_of_all_segments_in_the_batch():
    rows = responses(0)
    found = set()
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        queue, batch = Queue(), batch_of(order)
        report = driver.Report(SSPOPolicyLossConfig(**SHARES), TOKENIZER, updates=1)
        report.add_thresholds(queue, batch)
        assert queue.asked == [([str(i) for i in order], "train")]  # not the row that only pads
        assert batch.extra_info.pop("epochs") == 1
        found.add((batch.extra_info["sspo_entropy_low"], batch.extra_info["sspo_entropy_high"]))
    ((low, high),) = found

    entropies = []
    for ids, mask, entropy in zip(rows["responses"], rows["response_mask"], rows["entropy"], strict=True):
        texts = [chr(i) if i < 256 else "" for i in ids.tolist()]
        segments = reference.segments_of_row(texts, [i == 256 for i in ids.tolist()], mask.tolist())
        members: dict[int, list[float]] = {}
        for segment, h in zip(segments, entropy.tolist(), strict=True):
            members.setdefault(segment, []).append(h)
        entropies += [reference_metrics.mean(hs) for segment, hs in members.items() if segment >= 0]
    assert low == pytest.approx(reference_metrics.quantile(entropies, 0.25), rel=1e-6)
    assert high == pytest.approx(reference_metrics.quantile(entropies, 0.75), rel=1e-6)


def test_other_runs_ask_for_nothing():
    for settings in (
        SSPOPolicyLossConfig(),
        SSPOPolicyLossConfig(loss_mode="vanilla", diagnostics=False, **SHARES),
        None,
    ):
        queue, batch = Queue(), batch_of(ROWS)
        driver.Report(settings, TOKENIZER, updates=1).add_thresholds(queue, batch)
        assert queue.asked == []
        assert batch.extra_info == {"epochs": 1}


def test_a_failure_ends_the_run_that_trains_with_them_and_no_other():
    batch = batch_of(ROWS)
    with pytest.raises(KeyError):
        driver.Report(SSPOPolicyLossConfig(**SHARES), TOKENIZER, 1).add_thresholds(Queue(entropy=True), batch)
    observing = driver.Report(SSPOPolicyLossConfig(loss_mode="vanilla", **SHARES), TOKENIZER, 1)
    observing.add_thresholds(Queue(entropy=True), batch)
    assert observing.failed == 1
    assert batch.extra_info == {"epochs": 1}


def quantiles(entropy, shares, ids=None):
    entropy = torch.tensor(entropy)
    ids = torch.arange(entropy.shape[1]).expand_as(entropy) if ids is None else torch.tensor(ids)
    return thresholds.quantiles(entropy, torch.ones_like(ids), ids, shares)


def test_quantiles_by_hand():
    # H of five segments of one token: ranks 0, 1, 2, 3, 4 hold 0, 1, 2, 3, 10; 0.25 is rank 1, 0.9 is 3.6 of 4.
    of_five = [[3.0, 1.0, 10.0], [2.0, 0.0, float("nan")]]
    assert quantiles(of_five, [0.25, 0.9]) == [1.0, pytest.approx(3 + 0.6 * 7)]
    assert quantiles(of_five, [0.0, 1.0]) == [0.0, 10.0]
    # Of equal ones each is on the same side of both thresholds: neither below nor above.
    assert quantiles([[0.5] * 4], [0.25, 0.75]) == [0.5, 0.5]
    nan, inf = float("nan"), float("inf")
    assert quantiles([[nan, inf]], [0.25, 0.75]) == [-inf, inf]
    assert quantiles([[1.0, 2.0, 6.0]], [0.0, 1.0], ids=[[0, 0, 1]]) == [1.5, 6.0]
    # H is that of the loss, in float32: at the share 0 no segment is below it.
    h = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    low, _ = thresholds.quantiles(h, torch.ones(50, 3), torch.zeros(50, 3, dtype=torch.int64), [0.0, 1.0])
    assert not (h.double().mean(1).float() < low).any()
