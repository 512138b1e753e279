"""What is beyond the paper in `sspo_token_loss`: the band by length, the ratio by length, its cap, and the gates."""

import itertools
import math
from dataclasses import asdict, replace

import pytest
import reference
import torch
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.workers.config import FSDPActorConfig

from sspo_verl.bounds import RULES, Bounds, clip_bounds, scaled_by_length
from sspo_verl.divergence import SMALLEST_REST, binary_kl, divergence_gate, total_variation
from sspo_verl.loss import MAX_LOG_RATIO, sspo_token_loss, sspo_token_terms

PAPER = reference.Band()
BANDS = {
    "length": replace(PAPER, clip_length_exponent=-0.5),
    "length, widening": replace(PAPER, clip_length_exponent=0.3, clip_length_reference=4.0, clip_low=0.0),
    "product": replace(PAPER, ratio_length_exponent=1.0),
    "product, capped": replace(PAPER, ratio_length_exponent=1.0, ratio_cap=2.0),
    "between, capped, by length": replace(
        PAPER, ratio_length_exponent=0.5, ratio_cap=1.1, clip_length_exponent=0.5, clip_length_reference=2.0
    ),
    "tv": replace(PAPER, clip_statistic="tv", clip_divergence=0.15),
    "tv, capped": replace(PAPER, clip_statistic="tv", clip_divergence=0.02, ratio_cap=1.5),
    "binary_kl": replace(PAPER, clip_statistic="binary_kl", clip_divergence=0.05),
    "binary_kl, product": replace(PAPER, clip_statistic="binary_kl", clip_divergence=0.3, ratio_length_exponent=1.0),
}


def loss_and_grad(batch, band, weights=1.0, **dual_clip):
    log_prob = batch["log_prob"].clone().requires_grad_()
    loss = sspo_token_loss(**(batch | {"log_prob": log_prob}), **asdict(band), **dual_clip)
    (loss * weights).sum().backward()
    return loss.detach(), log_prob.grad


def expected(batch, band, dual_clip=None):
    names = ("old_log_prob", "log_prob", "advantages", "segment_ids", "entropy")
    rows = zip(*(batch[name].double().tolist() for name in names), strict=True)
    rows = [reference.band_loss(*row, s=band, dual_clip=dual_clip) for row in rows]
    return tuple(torch.tensor(part, dtype=torch.float64) for part in zip(*rows, strict=True))


def as_probabilities(batch):
    """The same batch with log-probs that are of probabilities, as a divergence needs: log pi at most 0."""
    ratio = batch["log_prob"] - batch["old_log_prob"]
    shift = torch.minimum(-ratio, torch.zeros_like(ratio)) - 1e-3
    old = torch.minimum(batch["old_log_prob"], shift)
    return batch | {"old_log_prob": old, "log_prob": old + ratio}


def one_token_segments(batch):
    valid = batch["response_mask"].bool()
    return batch | {"segment_ids": torch.where(valid, valid.long().cumsum(1) - 1, -1)}


# Nothing beyond the paper is nothing at all


def plain_loss(batch, s, dual_clip):
    """Equations (1) to (5) in the plain torch of before, on rows without masked tokens: not a line is shared."""
    ids, width = batch["segment_ids"], int(batch["segment_ids"].max()) + 1
    new, old, a, h = (batch[name] for name in ("log_prob", "old_log_prob", "advantages", "entropy"))

    def means(values):
        zeros = torch.zeros(len(ids), width, dtype=torch.float64)
        sums = zeros.scatter_add(1, ids, values.double())
        return (sums / zeros.scatter_add(1, ids, torch.ones_like(sums[:, :1]).expand_as(ids)).clamp(min=1)).to(h.dtype)

    s_ij = means(new - old)
    clamped = s_ij > 10
    s_ij, h_ij = s_ij.clamp(max=10).exp(), means(h)
    lower, upper = torch.full_like(h_ij, s.clip_low), torch.full_like(h_ij, s.clip_high)
    if s.entropy_clip:
        lower[h_ij < s.entropy_low] = s.clip_low_tight
        upper = torch.where(h_ij > s.entropy_high, 1 + s.alpha + h_ij, upper)
    first = -(s_ij.gather(1, ids) * a)
    loss = torch.maximum(first, -(s_ij.clamp(lower, upper).gather(1, ids) * a))
    if dual_clip is not None:
        loss = torch.where(a < 0, torch.minimum(loss, -dual_clip * a), loss)
    return loss, first * ((loss == first) & ~clamped.gather(1, ids))


def test_the_defaults_are_the_papers_bit_for_bit(random_batch):
    far = replace(PAPER, clip_length_reference=3.0)  # of no use where p is 0
    for seed in range(60):
        batch = random_batch(seed, dtype=(torch.float32, torch.float64)[seed % 2], garbage=False)
        g = torch.Generator().manual_seed(seed)
        cuts = torch.rand(batch["segment_ids"].shape, generator=g) < 0.3
        cuts[:, 0] = False
        batch |= {"segment_ids": cuts.cumsum(1), "response_mask": torch.ones_like(cuts).long()}
        for settings in (reference.Settings(), reference.Settings(0.55, 1.45, 0.85, 0.15, 0.35, 1.15)):
            for dual_clip in (None, 1.5):
                want = plain_loss(batch, settings, dual_clip)
                for given in (settings, replace(far, **asdict(settings))):
                    for ours, its in zip(loss_and_grad(batch, given, dual_clip=dual_clip), want, strict=True):
                        assert torch.equal(ours, its)


# The scalar reference


@pytest.mark.parametrize("band", BANDS.values(), ids=BANDS)
def test_loss_and_gradient_match_the_reference(random_batch, band):
    stopped = torch.zeros(2)
    for seed, dual_clip in itertools.product(range(30), (None, 1.05, 3.0)):
        if dual_clip and band.ratio_cap and dual_clip >= band.ratio_cap:
            continue
        batch = as_probabilities(random_batch(seed, garbage=False))
        weights = torch.rand(batch["log_prob"].shape, generator=torch.Generator().manual_seed(seed)).double()
        loss, grad = loss_and_grad(batch, band, weights, dual_clip=dual_clip)
        want_loss, want_grad = expected(batch, band, dual_clip)
        torch.testing.assert_close(loss, want_loss, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(grad, want_grad * weights, rtol=1e-9, atol=1e-12)
        valid = batch["response_mask"].bool()
        stopped += torch.stack([(valid & (grad == 0) & (batch["advantages"] * sign > 0)).sum() for sign in (1, -1)])
    assert stopped.min() > 50


@pytest.mark.parametrize("band", BANDS.values(), ids=BANDS)
def test_what_is_around_a_segment_changes_nothing(random_batch, band, request):
    cases = []
    for seed in range(40):
        clean = as_probabilities(random_batch(seed, dtype=(torch.float32, torch.float64)[seed % 2], garbage=False))
        want = loss_and_grad(clean, band)
        masked = clean["response_mask"] == 0
        for junk in (math.nan, math.inf, -math.inf, 1e30):
            names = ("old_log_prob", "log_prob", "advantages", "entropy")
            dirty = clean | {name: clean[name].masked_fill(masked, junk) for name in names}
            assert all(map(torch.equal, loss_and_grad(dirty, band), want))
        pick = torch.randperm(12, generator=torch.Generator().manual_seed(seed))[:7]
        few = {name: torch.nn.functional.pad(x[pick], (3, 2), value=-1 if name == "segment_ids" else 0)
               for name, x in clean.items()}  # fmt: skip
        found = [part[:, 3:-2] for part in loss_and_grad(few, band)]
        assert all(map(torch.equal, found, (part[pick] for part in want)))
        cases.append((clean, want))
    request.getfixturevalue("as_on_a_device")
    for clean, want in cases:
        assert all(map(torch.equal, loss_and_grad(clean, band), want))


@pytest.mark.parametrize("band", BANDS.values(), ids=BANDS)
def test_float32_is_near_the_reference(random_batch, band):
    far = 0
    for seed in range(20):
        batch = as_probabilities(random_batch(seed, dtype=torch.float32, garbage=False, log_ratio_scale=0.3))
        for got, want in zip(loss_and_grad(batch, band), expected(batch, band), strict=True):
            far += (~torch.isclose(got.double(), want, rtol=1e-4, atol=1e-5)).sum()  # on either side of a bound
    assert far <= 4


# By hand


def test_a_band_by_hand():
    # L0 = 16, p = -1/2: at 4 tokens the power is 2, at 16 it is 1, at 64 it is 1/2.
    bounds = torch.tensor([[0.7, 0.0, 0.8]]), torch.tensor([[1.3, 2.8, 1.3]])
    lower, upper = scaled_by_length(bounds, torch.tensor([[4, 16, 64]]), -0.5, 16.0)
    torch.testing.assert_close(lower, torch.tensor([[0.7**2, 0.0, 0.8**0.5]]))
    torch.testing.assert_close(upper, torch.tensor([[1.3**2, 2.8, 1.3**0.5]]))
    # Width of the sum of log ratios: w sqrt(L L0), so that of 64 tokens is 4 times that of 4.
    sums = upper.log() * torch.tensor([[4.0, 16.0, 64.0]])
    assert sums[0, 2] / sums[0, 0] == pytest.approx(4.0)


def test_a_capped_product_by_hand():
    # Two tokens of log ratio 1 and ln 2: the product 2e = 5.4, weight 3 at the cap. A < 0: within the bounds of (4),
    # which clip only from below there, so the loss is 3 |A| and its derivative too. A > 0: clipped at 1.3, and no cap.
    batch = {
        "old_log_prob": torch.full((2, 2), -4.0),
        "log_prob": torch.tensor([[-3.0, -4.0 + math.log(2)]] * 2),
        "advantages": torch.tensor([[-2.0, -2.0], [2.0, 2.0]]),
        "response_mask": torch.ones(2, 2),
        "segment_ids": torch.zeros(2, 2, dtype=torch.int64),
        "entropy": torch.full((2, 2), 0.7),
    }
    loss, grad = loss_and_grad(batch, replace(PAPER, ratio_length_exponent=1.0, ratio_cap=3.0))
    torch.testing.assert_close(loss, torch.tensor([[6.0, 6.0], [-2.6, -2.6]]))
    torch.testing.assert_close(grad, torch.tensor([[6.0, 6.0], [0.0, 0.0]]))
    ratio = sspo_token_terms(**batch, **asdict(replace(PAPER, ratio_length_exponent=1.0))).ratio
    torch.testing.assert_close(ratio, torch.full((2, 1), 2 * math.e))
    # Over exp(10) the loss without a cap is constant; a weight at its cap has its gradient at any ratio.
    batch["log_prob"] = batch["log_prob"] + 20
    assert (loss_and_grad(batch, replace(PAPER, ratio_length_exponent=1.0))[1] == 0).all()
    grad = loss_and_grad(batch, replace(PAPER, ratio_length_exponent=1.0, ratio_cap=3.0))[1]
    torch.testing.assert_close(grad, torch.tensor([[6.0, 6.0], [0.0, 0.0]]))


def test_the_product_is_the_importance_weight(random_batch):
    """q = 1: the mean of the gradient over samples of pi_old is that of pi's expected advantage: exact enumeration."""
    g = torch.Generator().manual_seed(0)
    old, new = (torch.randn(2, 3, generator=g, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    new.requires_grad_()
    value = torch.randn(3, 3, generator=g, dtype=torch.float64)  # A of each of the 9 segments of two tokens
    words = torch.tensor(list(itertools.product(range(3), repeat=2)))
    places = torch.arange(2)
    batch = {
        "old_log_prob": old[places, words],
        "log_prob": new[places, words],
        "advantages": value[words[:, 0], words[:, 1]][:, None].expand(9, 2),
        "response_mask": torch.ones(9, 2),
        "segment_ids": torch.zeros(9, 2, dtype=torch.int64),
        "entropy": None,
    }
    wide = replace(PAPER, entropy_clip=False, clip_low=0.0, clip_high=1e9, ratio_length_exponent=1.0)
    probability = old[places, words].sum(1).exp()
    loss = (sspo_token_loss(**batch, **asdict(wide)).sum(1) * probability).sum()
    (mine,) = torch.autograd.grad(loss, new)
    expected_advantage = (new[places, words].sum(1).exp() * batch["advantages"][:, 0]).sum()
    (wanted,) = torch.autograd.grad(-expected_advantage, new)
    torch.testing.assert_close(mine, wanted, rtol=1e-12, atol=1e-12)


# Gradcheck, away from kinks


@pytest.mark.parametrize("band", BANDS.values(), ids=BANDS)
def test_gradcheck_with_one_token_per_segment(random_batch, band):
    # There every stop-gradient is of the token's own ratio. A weight at its cap is a constant with a derivative: left
    # out, as is a gate, which depends on log_prob and has none, near its threshold.
    for seed, scale in ((0, 0.3), (1, 1.0)):
        batch = one_token_segments(
            as_probabilities(random_batch(seed, rows=6, length=8, log_ratio_scale=scale, garbage=False))
        )
        terms = sspo_token_terms(**batch, **asdict(band))
        index = terms.segments.index_in_row
        ratio, lower, upper = (x.gather(1, index) for x in (terms.ratio, terms.lower, terms.upper))
        keep = ((ratio / lower - 1).abs() > 1e-3) & ((ratio / upper - 1).abs() > 1e-3)
        keep &= (ratio.log() - MAX_LOG_RATIO).abs() > 1e-3
        if band.ratio_cap:
            keep &= ratio < 0.999 * band.ratio_cap
        if band.clip_statistic != "ratio":
            divergence = {"tv": total_variation, "binary_kl": binary_kl}[band.clip_statistic]
            keep &= (divergence(batch["old_log_prob"], batch["log_prob"]) - band.clip_divergence).abs() > 1e-3
        assert keep.sum() > 0.3 * keep.numel()
        log_prob = batch.pop("log_prob").requires_grad_()
        assert torch.autograd.gradcheck(
            lambda x, batch=batch, keep=keep: keep * sspo_token_loss(log_prob=x, **batch, **asdict(band)), log_prob
        )


# The gates beside verl's DPPO


@pytest.mark.parametrize("statistic", ["tv", "binary_kl"])
def test_one_token_per_segment_has_the_gradient_of_verls_dppo(random_batch, statistic):
    """Token for token, where verl's truncation and its 1e-8 do not matter. The loss of a masked token is another: verl
    has 0 there, (4) has -A, and both are constant."""
    masked = 0
    for seed, threshold in itertools.product(range(12), (0.02, 0.15, 0.5)):
        batch = random_batch(seed, rows=16, length=20, garbage=False, log_ratio_scale=(0.3, 1.0)[seed % 2])
        batch = one_token_segments(as_probabilities(batch))
        log_prob = batch["log_prob"].clone().requires_grad_()
        bounds = {"clip_ratio": threshold, "clip_ratio_low": threshold, "clip_ratio_high": threshold}
        config = FSDPActorConfig(rollout_n=1, ppo_micro_batch_size_per_gpu=1, clip_ratio_c=1e12, **bounds)
        loss, _ = get_policy_loss_fn({"tv": "dppo_tv", "binary_kl": "dppo_kl"}[statistic])(
            **{name: batch[name] for name in ("old_log_prob", "advantages", "response_mask")},
            log_prob=log_prob,
            loss_agg_mode="token-sum",
            config=config,
        )
        loss.backward()
        band = replace(PAPER, clip_statistic=statistic, clip_divergence=threshold)
        _, grad = loss_and_grad(batch, band)
        # Rounding of 1e-8 in verl's divergence: a token so near the threshold may be on either side.
        diverged = {"tv": total_variation, "binary_kl": binary_kl}[statistic](batch["old_log_prob"], batch["log_prob"])
        clear = (diverged - threshold).abs() > 1e-5
        assert torch.equal((grad == 0)[clear], (log_prob.grad == 0)[clear])
        torch.testing.assert_close(grad[clear], log_prob.grad[clear], rtol=1e-10, atol=1e-12)
        # verl's truncation is a cap: min(ratio, c) log pi has the derivative of a weight at its cap.
        masked += (batch["response_mask"].bool() & (grad == 0) & (batch["advantages"] != 0)).sum()
    assert masked > 500


def test_verls_truncation_is_ratio_cap(random_batch):
    capped = 0
    for seed in range(12):
        batch = random_batch(seed, rows=16, length=20, garbage=False, log_ratio_scale=1.5)
        batch = one_token_segments(as_probabilities(batch))
        log_prob = batch["log_prob"].clone().requires_grad_()
        config = FSDPActorConfig(
            rollout_n=1, ppo_micro_batch_size_per_gpu=1, clip_ratio=0.15, clip_ratio_low=0.15, clip_ratio_high=0.15,
            clip_ratio_c=2.0,
        )  # fmt: skip
        loss, _ = get_policy_loss_fn("dppo_tv")(
            **{name: batch[name] for name in ("old_log_prob", "advantages", "response_mask")},
            log_prob=log_prob,
            loss_agg_mode="token-sum",
            config=config,
        )
        loss.backward()
        _, grad = loss_and_grad(batch, replace(PAPER, clip_statistic="tv", clip_divergence=0.15, ratio_cap=2.0))
        torch.testing.assert_close(grad, log_prob.grad, rtol=1e-10, atol=1e-12)
        capped += (grad.abs() == 2.0 * batch["advantages"].abs()).logical_and(grad != 0).sum()
    assert capped > 100


def test_a_divergence_by_hand():
    # From 0.5 to 0.8: |0.3|; 0.5 ln(0.5/0.8) + 0.5 ln(0.5/0.2) = 0.5 ln(0.25/0.16) = 0.22314.
    old, new = torch.tensor([0.5]).log(), torch.tensor([0.8]).log()
    assert total_variation(old, new).item() == pytest.approx(0.3, rel=1e-6)
    assert binary_kl(old, new).item() == pytest.approx(0.5 * math.log(0.25 / 0.16), rel=1e-5)


def test_a_probability_that_rounds_to_one_does_not_shut_a_gate():
    # pi_old = 0.9999 and a float32 that says pi = 1: without a smallest rest the divergence were infinite.
    old, new = torch.tensor([0.9999] * 3).log(), torch.tensor([0.0, 1e-7, -1e-12])
    assert (binary_kl(old, new) < 1e-4 * math.log(1e-4 / SMALLEST_REST) + 1e-6).all()
    assert binary_kl(new, new).eq(0).all()
    near = torch.linspace(-5, -1e-6, 1000)
    assert (binary_kl(near, near + 1e-7) >= 0).all()


def test_a_gate_is_shut_or_open():
    lower, upper = divergence_gate(torch.tensor([[0.1, 0.2, 0.3, math.nan]]), 0.2)
    assert lower.tolist() == [[0.0, 0.0, 1.0, 0.0]]
    assert upper.tolist() == [[math.inf, math.inf, 1.0, math.inf]]


def test_errors_name_the_setting(random_batch):
    batch = random_batch(0)
    with pytest.raises(ValueError, match="clip_statistic=tv needs its threshold: pass clip_divergence"):
        loss_and_grad(batch, replace(PAPER, clip_statistic="tv"))
    with pytest.raises(TypeError, match=r"unknown clip_length_exponent\.$"):
        clip_bounds(batch["entropy"], **asdict(reference.Settings()), clip_length_exponent=1.0)
    without = batch | {"entropy": None}
    loss_and_grad(without, BANDS["tv"])  # a gate looks at no entropy
    with pytest.raises(ValueError, match="entropy"):
        loss_and_grad(without, BANDS["length"])
    assert set(RULES) == {"ratio", "tv", "binary_kl"}


def test_binary_kl_where_the_old_probability_is_0():
    """0 log 0 is 0: the gate shuts, as that of the total variation does."""
    old, new = torch.tensor([[-torch.inf, -0.1]]), torch.tensor([[-0.1, -0.1]])
    assert binary_kl(old, new)[0].tolist() == pytest.approx([-math.log(1 - math.exp(-0.1)), 0.0], abs=1e-5)
    assert binary_kl(old, torch.full((1, 2), -torch.inf))[0, 0] == 0
    batch = {
        "old_log_prob": old,
        "log_prob": new,
        "advantages": torch.ones(1, 2),
        "response_mask": torch.ones(1, 2),
        "segment_ids": torch.zeros(1, 2, dtype=torch.int64),
        "entropy": torch.ones(1, 2),
    }
    for statistic, threshold in (("tv", 0.15), ("binary_kl", 0.05)):
        band = replace(PAPER, clip_statistic=statistic, clip_divergence=threshold, ratio_cap=5.0)
        _, gradient = loss_and_grad(batch, band)
        assert gradient.tolist() == [[0.0, 0.0]], statistic


def test_a_rule_that_lacks_something_is_refused_by_name():
    tensors = {
        name: torch.ones(1, 2) for name in ("old_log_prob", "log_prob", "advantages", "response_mask", "entropy")
    }
    tensors["segment_ids"] = torch.zeros(1, 2, dtype=torch.int64)
    plain = {name: value for name, value in asdict(PAPER).items() if name in Bounds.__annotations__}
    with pytest.raises(ValueError, match=r"clip_length_exponent=-0\.5 needs a length: pass clip_length_reference"):
        sspo_token_loss(**tensors, **plain, clip_length_exponent=-0.5)
    with pytest.raises(ValueError, match="clip_statistic must be one of ratio, tv, binary_kl, got 'kl'"):
        sspo_token_loss(**tensors, **plain, clip_statistic="kl")
