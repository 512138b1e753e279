"""The five identities of the method, values and gradients, against verl's own losses and its own reduction."""

from itertools import pairwise

import pytest
import torch
from verl.trainer.ppo.core_algos import agg_loss, get_policy_loss_fn
from verl.workers.config import FSDPActorConfig

from sspo_verl.loss import sspo_token_loss
from sspo_verl.segmenters import SegmentSettings, segmenter_of

MODES = ["token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-sum-norm", "seq-mean-token-mean"]
SETTINGS = {
    "clip_low": 0.7,
    "clip_high": 1.3,
    "clip_low_tight": 0.8,
    "alpha": 0.3,
    "entropy_low": 0.5,
    "entropy_high": 1.0,
    "entropy_clip": True,
}
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def verl_loss(name, batch, mode, low, high, dual_clip=1e12):
    """verl's registered loss with direct bounds [low, high] on the ratio, and its gradient. Vanilla's dual clip is out
    of reach unless it is given."""
    config = FSDPActorConfig(
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        clip_ratio_low=1 - low,
        clip_ratio_high=high - 1,
        clip_ratio_c=dual_clip,
    )
    log_prob = batch["log_prob"].clone().requires_grad_()
    loss, _ = get_policy_loss_fn(name)(
        old_log_prob=batch["old_log_prob"],
        log_prob=log_prob,
        advantages=batch["advantages"],
        response_mask=batch["response_mask"],
        loss_agg_mode=mode,
        config=config,
    )
    loss.backward()
    return loss.detach(), log_prob.grad


def sspo_loss(batch, mode, normalisers=None, **changed):
    """Ours, reduced as verl's losses are, and its gradient. Masked tokens are 0 already: no mask is applied first."""
    log_prob = batch["log_prob"].clone().requires_grad_()
    token_loss = sspo_token_loss(**(batch | {"log_prob": log_prob}), **(SETTINGS | changed))
    loss = agg_loss(loss_mat=token_loss, loss_mask=batch["response_mask"], loss_agg_mode=mode, **(normalisers or {}))
    loss.backward()
    return loss.detach(), log_prob.grad


def segments_of(name, batch):
    """By the segmenter of this name. These look at the mask alone."""
    mask = batch["response_mask"]
    return segmenter_of(None, SegmentSettings(name))(torch.zeros_like(mask), mask, None)


def assert_same(ours, verls):
    for mine, its in zip(ours, verls, strict=True):
        torch.testing.assert_close(mine, its, **CLOSE)


def clipped_tokens(batch, grad):
    """Number of tokens that a loss clipped from above (A > 0) and from below (A < 0): the comparison must see both."""
    stopped = batch["response_mask"].bool() & (grad == 0)
    return torch.stack([(stopped & (batch["advantages"] > 0)).sum(), (stopped & (batch["advantages"] < 0)).sum()])


# 1. One segment per response and constant bounds = verl's gspo


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("band", [(0.7, 1.3), (1 - 3e-4, 1 + 4e-4)], ids=["0.3", "3e-4"])
def test_one_segment_per_response_is_gspo(random_batch, mode, band):
    low, high = band
    clipped = torch.zeros(2)
    for seed in range(12):
        # verl's losses multiply by the mask, so for them what is under it must be finite.
        scale = None if seed % 2 else 0.3
        batch = random_batch(seed, rows=16, length=20, garbage=False, log_ratio_scale=scale)
        batch["segment_ids"] = segments_of("response", batch)
        verls = verl_loss("gspo", batch, mode, low, high)
        assert_same(sspo_loss(batch, mode, clip_low=low, clip_high=high, entropy_clip=False), verls)
        # The bounds are constant with entropy clipping on, too, while every segment is in the middle band.
        batch["entropy"] = 0.6 + 0.3 * torch.rand(
            16, 20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        assert_same(sspo_loss(batch, mode, clip_low=low, clip_high=high, clip_low_tight=low), verls)
        batch["entropy"] = None
        assert_same(sspo_loss(batch, mode, clip_low=low, clip_high=high, entropy_clip=False), verls)
        clipped += clipped_tokens(batch, verls[1])
    assert clipped.min() > 50


# 2. One token per segment and constant bounds = verl's vanilla loss


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("band", [(0.7, 1.3), (0.8, 1.2)], ids=["0.3", "0.2"])
def test_one_token_per_segment_is_vanilla(random_batch, mode, band):
    low, high = band
    clipped = torch.zeros(2)
    for seed in range(12):
        # Scale 2: far over the bounds, and within the clamps of both (10 here, 20 in vanilla).
        batch = random_batch(seed, rows=16, length=20, garbage=False, log_ratio_scale=0.3 if seed % 2 else 2.0)
        assert (batch["log_prob"] - batch["old_log_prob"]).abs().max() < 10
        batch["segment_ids"] = segments_of("token", batch)
        verls = verl_loss("vanilla", batch, mode, low, high)
        assert_same(sspo_loss(batch, mode, clip_low=low, clip_high=high, entropy_clip=False), verls)
        clipped += clipped_tokens(batch, verls[1])
    assert clipped.min() > 50


def test_one_token_per_segment_is_vanilla_with_its_dual_clip(random_batch):
    limited = 0
    for seed in range(12):
        batch = random_batch(seed, rows=16, length=20, garbage=False, log_ratio_scale=2.0)
        batch["segment_ids"] = segments_of("token", batch)
        for mode, dual_clip in zip(MODES, (3.0, 1.1, 1.5, 10.0, 2.0), strict=True):
            verls = verl_loss("vanilla", batch, mode, 0.7, 1.3, dual_clip)
            band = {"clip_low": 0.7, "clip_high": 1.3, "entropy_clip": False}
            assert_same(sspo_loss(batch, mode, dual_clip=dual_clip, **band), verls)
            limited += (verls[0] < verl_loss("vanilla", batch, mode, 0.7, 1.3)[0] - 1e-6).item()
    assert limited > 40


# 3. theta = old


@pytest.mark.parametrize("mode", MODES)
def test_at_the_old_policy_the_gradient_is_the_policy_gradient(random_batch, mode):
    for seed in range(12):
        batch = random_batch(seed, rows=8, length=16)
        valid = batch["response_mask"].bool()
        advantages = torch.where(valid, batch["advantages"], 0)
        # A real policy of 11 tokens, so that the gradient is one with respect to its logits.
        g = torch.Generator().manual_seed(seed)
        logits = torch.randn(8, 16, 11, generator=g, dtype=torch.float64).requires_grad_()
        tokens = torch.randint(0, 11, (8, 16, 1), generator=g)
        log_prob = logits.log_softmax(-1).gather(2, tokens).squeeze(2)
        at_old = {"old_log_prob": log_prob.detach(), "log_prob": log_prob}

        token_loss = sspo_token_loss(**(batch | at_old), **SETTINGS)
        # Every ratio is 1 and nothing is clipped: the loss of a token is -A.
        torch.testing.assert_close(token_loss.detach(), -advantages, **CLOSE)
        ours = agg_loss(loss_mat=token_loss, loss_mask=valid.long(), loss_agg_mode=mode)
        policy_gradient = agg_loss(loss_mat=-advantages * log_prob, loss_mask=valid.long(), loss_agg_mode=mode)
        (mine,) = torch.autograd.grad(ours, logits, retain_graph=True)
        (its,) = torch.autograd.grad(policy_gradient, logits)
        assert its.abs().max() > 1e-3
        torch.testing.assert_close(mine, its, **CLOSE)


# 4. Micro-batches, row order, padding, and what is under the mask


def normalisers_of(batch):
    """verl's normalisers of the complete batch, which it hands to every micro-batch."""
    rows, length = batch["response_mask"].shape
    return {
        "dp_size": 1,
        "batch_num_tokens": int(batch["response_mask"].sum()),
        "global_batch_size": rows,
        "loss_scale_factor": length,
    }


def take(batch, rows):
    return {name: values[rows] for name, values in batch.items()}


@pytest.mark.parametrize("mode", MODES)
def test_micro_batches_give_the_loss_and_gradient_of_the_full_batch(random_batch, mode):
    for seed in range(8):
        batch = random_batch(seed, rows=23, length=20)
        normalisers = normalisers_of(batch)
        full = sspo_loss(batch, mode, normalisers)
        # 7 uneven micro-batches, of which one is a fully masked row and one is empty.
        cuts = [0, 1, 1, 4, 9, 11, 12, 23]
        parts = [sspo_loss(take(batch, slice(a, b)), mode, normalisers) for a, b in pairwise(cuts)]
        assert len(parts) == 7
        losses, grads = zip(*parts, strict=True)
        assert_same((torch.stack(losses).sum(), torch.cat(grads)), full)


@pytest.mark.parametrize("mode", MODES)
def test_data_parallel_ranks_give_the_loss_and_gradient_of_the_full_batch(random_batch, mode):
    # FSDP averages gradients over ranks, and verl makes up for it with dp_size.
    batch = random_batch(3, rows=12, length=20)
    normalisers = normalisers_of(batch)
    full = sspo_loss(batch, mode, normalisers)
    parts = [sspo_loss(take(batch, slice(a, a + 4)), mode, normalisers | {"dp_size": 3}) for a in (0, 4, 8)]
    losses, grads = zip(*parts, strict=True)
    assert_same((torch.stack(losses).mean(), torch.cat(grads) / 3), full)


@pytest.mark.parametrize("mode", MODES)
def test_row_order_changes_nothing(random_batch, mode):
    for seed in range(8):
        batch = random_batch(seed, rows=23, length=20)
        loss, grad = sspo_loss(batch, mode)
        order = torch.randperm(23, generator=torch.Generator().manual_seed(seed))
        assert_same(sspo_loss(take(batch, order), mode), (loss, grad[order]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("left_right", [(0, 13), (13, 0), (5, 8)], ids=str)
def test_padding_changes_nothing(random_batch, mode, left_right):
    left, _ = left_right
    for seed in range(8):
        batch = random_batch(seed, rows=12, length=20)
        normalisers = normalisers_of(batch)
        loss, grad = sspo_loss(batch, mode, normalisers)
        # NaN for floats, 0 for the mask, -1 for the ids; and one padding row.
        fill = {"response_mask": 0, "segment_ids": -1}
        padded = {
            name: torch.nn.functional.pad(values, (*left_right, 0, 1), value=fill.get(name, float("nan")))
            for name, values in batch.items()
        }
        padded_loss, padded_grad = sspo_loss(padded, mode, normalisers)
        assert_same((padded_loss, padded_grad[:12, left : left + 20]), (loss, grad))
        assert padded_grad.count_nonzero() == grad.count_nonzero()


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -float("inf"), 1e300, 0.0], ids=str)
def test_what_is_under_the_mask_changes_nothing(random_batch, junk):
    for seed in range(8):
        clean = random_batch(seed, garbage=False)
        masked = clean["response_mask"] == 0
        expected = sspo_loss(clean, "seq-mean-token-mean")
        # In each input alone, for two of them could cancel each other, and in all.
        names = ["old_log_prob", "log_prob", "advantages", "entropy"]
        for dirty in ([name] for name in names):
            batch = clean | {name: clean[name].masked_fill(masked, junk) for name in dirty}
            assert_same(sspo_loss(batch, "seq-mean-token-mean"), expected)
        batch = clean | {name: clean[name].masked_fill(masked, junk) for name in names}
        loss, grad = sspo_loss(batch, "seq-mean-token-mean")
        assert_same((loss, grad), expected)
        assert (grad[masked] == 0).all()


# 5. Nothing to learn from


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(0, 0), (0, 6), (3, 0), (1, 1), (3, 6)], ids=str)
def test_fully_masked_rows_and_empty_batches_give_zero(mode, shape):
    nan, inf = float("nan"), float("inf")
    # The rest of the global batch is elsewhere: in another micro-batch, or on another rank.
    normalisers = {"dp_size": 2, "batch_num_tokens": 100, "global_batch_size": 10, "loss_scale_factor": 6}
    nothing = {"response_mask": torch.zeros(shape, dtype=torch.int64), "segment_ids": torch.full(shape, -1)}
    # verl's reduction drops what a fully masked row holds, and the clamp's gradient is 0 at NaN: with NaN in every
    # input a loss that ignores the mask would look right. Hence finite log-probabilities, and the loss before it.
    for old, new, advantage, entropy in ((-1, -2, 3, 1), (-1, -2, nan, nan), (-1, -2, inf, 1), (nan, -inf, 1, inf)):
        values = {"old_log_prob": old, "log_prob": new, "advantages": advantage, "entropy": entropy}
        values = {name: torch.full(shape, float(value), dtype=torch.float64) for name, value in values.items()}
        batch = values | nothing
        for entropy_clip in (True, False):
            token_loss = sspo_token_loss(**batch, **(SETTINGS | {"entropy_clip": entropy_clip}))
            assert token_loss.shape == shape
            assert (token_loss == 0).all()
            loss, grad = sspo_loss(batch, mode, normalisers, entropy_clip=entropy_clip)
            assert loss == 0
            assert grad.shape == shape
            assert (grad == 0).all()


def test_fully_masked_rows_leave_the_others_alone(random_batch):
    batch = random_batch(4, rows=12, length=20)
    normalisers = normalisers_of(batch)
    rows = [i for i in range(12) if batch["response_mask"][i].any()]
    assert len(rows) < 12
    loss, grad = sspo_loss(batch, "seq-mean-token-mean", normalisers)
    assert_same((loss, grad[rows]), sspo_loss(take(batch, rows), "seq-mean-token-mean", normalisers))
    assert loss != 0
