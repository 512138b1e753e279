"""`clip_bounds` and `sspo_token_loss` against the scalar reference, hand calculation and gradcheck."""

import math
from dataclasses import asdict, replace
from typing import ClassVar

import pytest
import reference
import torch

from sspo_verl.loss import Bounds, clip_bounds, segment_mean, sspo_token_loss

DEFAULTS = reference.Settings()
# Ours, for the tests: the definition's values, the plain band, the literal reading (clip_low 0.3), and one in which
# every constant differs from every other, so that no two can be mixed up unseen.
SETTINGS = {
    "defaults": DEFAULTS,
    "no_entropy_clip": replace(DEFAULTS, entropy_clip=False),
    "literal": replace(DEFAULTS, clip_low=0.3),
    "all_different": reference.Settings(0.55, 1.45, 0.85, 0.15, 0.35, 1.15),
}
FLOATS = ("old_log_prob", "log_prob", "advantages", "entropy")


def float64(values):
    return torch.tensor(values, dtype=torch.float64)


def expected_loss_and_grad(batch, settings, dual_clip=None):
    """The reference on every row, as float64 tensors."""
    names = ("old_log_prob", "log_prob", "advantages", "segment_ids", "entropy")
    rows = zip(*(batch[name].tolist() for name in names), strict=True)
    rows = [reference.token_loss(*row, s=settings, dual_clip=dual_clip) for row in rows]
    return tuple(float64(part) for part in zip(*rows, strict=True))


def loss_and_grad(batch, settings, weights=None, **dual_clip):
    """The package's loss, and the gradient of its weighted sum with respect to log_prob."""
    log_prob = batch["log_prob"].clone().requires_grad_()
    loss = sspo_token_loss(**(batch | {"log_prob": log_prob}), **asdict(settings), **dual_clip)
    (loss if weights is None else loss * weights).sum().backward()
    return loss.detach(), log_prob.grad


@pytest.mark.parametrize("wide", ["advantages", "entropy", "old_log_prob", "log_prob"])
def test_one_input_in_float64_clips_nothing_more(wide):
    """Two of the terms that are compared must not be rounded differently."""
    g = torch.Generator().manual_seed(0)
    old = -torch.rand(4, 32, generator=g)
    batch = {
        "old_log_prob": old,
        "log_prob": (old + 0.05 * torch.randn(4, 32, generator=g)).clamp(max=0),
        "advantages": torch.randn(4, 1, generator=g).expand(4, 32),
        "entropy": 2 * torch.rand(4, 32, generator=g),
        "segment_ids": torch.arange(32).div(4, rounding_mode="floor").expand(4, 32),
        "response_mask": torch.ones(4, 32),
    }
    loss, grad = loss_and_grad(batch, DEFAULTS)
    assert (grad != 0).all(), "no ratio leaves its band"
    other, its_grad = loss_and_grad(batch | {wide: batch[wide].double()}, DEFAULTS)
    torch.testing.assert_close(other.float(), loss)
    torch.testing.assert_close(its_grad.float(), grad)


# clip_bounds


@pytest.mark.parametrize(
    ("entropy", "lower", "upper"),
    [
        (1.5, 0.7, 2.8),  # H > 1.0: upper = 1 + alpha + H = 1 + 0.3 + 1.5
        (1.001, 0.7, 2.301),  # just over: 1 + 0.3 + 1.001
        (1.0, 0.7, 1.3),  # H > 1.0 is strict: at 1.0 the plain band
        (0.75, 0.7, 1.3),  # between the thresholds: the plain band
        (0.5, 0.7, 1.3),  # H < 0.5 is strict: at 0.5 the plain band
        (0.499, 0.8, 1.3),  # just under: the lower bound is tight, the upper stays
        (0.0, 0.8, 1.3),
        (11.9, 0.7, 13.2),  # about the highest entropy there is, ln(151,643) = 11.93: 1 + 0.3 + 11.9
    ],
)
def test_clip_bounds_golden(entropy, lower, upper):
    result = clip_bounds(float64([[entropy]]), **asdict(DEFAULTS))
    torch.testing.assert_close(torch.stack(result).flatten().tolist(), [lower, upper], rtol=1e-12, atol=0)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_clip_bounds_match_the_reference(settings):
    # Random entropies, and the thresholds themselves with their neighbours in float64.
    edges = [
        math.nextafter(x, toward) for x in (settings.entropy_low, settings.entropy_high) for toward in (0.0, x, 9.0)
    ]
    g = torch.Generator().manual_seed(0)
    entropy = torch.cat([torch.rand(994, generator=g, dtype=torch.float64) * 3, float64(edges)]).view(20, 50)
    expected = float64([[reference.clip_bounds(h, settings) for h in row] for row in entropy.tolist()])
    lower, upper = clip_bounds(entropy, **asdict(settings))
    torch.testing.assert_close(torch.stack([lower, upper], dim=-1), expected, rtol=1e-15, atol=0)


def test_no_gradient_flows_through_the_bounds():
    entropy = torch.tensor([[0.2, 0.7, 1.5]], requires_grad=True)
    for settings in SETTINGS.values():
        lower, upper = clip_bounds(entropy, **asdict(settings))
        assert not lower.requires_grad
        assert not upper.requires_grad


# sspo_token_loss


def test_loss_and_gradient_are_the_same_bits_as_on_a_device(random_batch, request):
    cases = []
    for seed in range(500):
        dtype = (torch.float32, torch.float64, torch.bfloat16)[seed % 3]
        cases.append((random_batch(seed, dtype=dtype), list(SETTINGS.values())[seed % 4]))
    expected = [loss_and_grad(*case) for case in cases]
    request.getfixturevalue("as_on_a_device")
    for case, wanted in zip(cases, expected, strict=True):
        for result, want in zip(loss_and_grad(*case), wanted, strict=True):
            assert torch.equal(result, want)


def test_where_the_segments_end_is_looked_for_once(random_batch, as_on_a_device):
    # A micro-batch's three sums share it. Off the CPU it is the dear part: a scan and a search.
    class Count(torch.overrides.TorchFunctionMode):
        calls: ClassVar = []

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.calls.append(func)
            return func(*args, **(kwargs or {}))

    with Count() as count:
        sspo_token_loss(**random_batch(0), **asdict(DEFAULTS))
    assert count.calls.count(torch.searchsorted) == 1
    assert count.calls.count(torch.segment_reduce) == 3


def test_the_backward_pass_keeps_one_tensor(random_batch):
    batch = random_batch(0, dtype=torch.float32)
    batch["log_prob"].requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        loss = sspo_token_loss(**batch, **asdict(DEFAULTS))
    assert [x.shape for x in kept] == [loss.shape]


def test_token_loss_golden():
    # Both rows have the same three segments, the first of two tokens; the advantage is 2 in row 0, -1 in row 1.
    # Segment 0: log ratios ln 2 and 0, mean ln(2)/2, ratio sqrt(2) = 1.41421. H = (0.4 + 0.8)/2 = 0.6: [0.7, 1.3].
    # Segment 1: log ratio ln 0.25, ratio 0.25.  H = 0.2 < 0.5: [0.8, 1.3].
    # Segment 2: log ratio 1, ratio e = 2.71828.  H = 1.5 > 1.0: [0.7, 1 + 0.3 + 1.5] = [0.7, 2.8].
    # Segment 3: log ratio ln 3, ratio 3.         H = 1.5 > 1.0: [0.7, 2.8].
    log_ratio = [[math.log(2), 0.0, math.log(0.25), 1.0, math.log(3), math.nan]] * 2
    old = torch.tensor([[-1.0, -2.0, -0.5, -3.0, -4.0, math.inf]] * 2, dtype=torch.float64)
    batch = {
        "old_log_prob": old,
        "log_prob": old + float64(log_ratio),
        "advantages": float64([[2.0] * 5 + [math.nan], [-1.0] * 5 + [math.nan]]),
        "response_mask": torch.tensor([[1, 1, 1, 1, 1, 0]] * 2),
        "segment_ids": torch.tensor([[0, 0, 1, 2, 3, -1]] * 2),
        "entropy": torch.tensor([[0.4, 0.8, 0.2, 1.5, 1.5, -math.inf]] * 2, dtype=torch.float64),
    }
    loss, grad = loss_and_grad(batch, DEFAULTS)
    root, e = math.sqrt(2), math.e
    expected_loss = [
        # A = 2: -min(2s, 2 clip(s)):
        # -min(2.83, 2.6), twice; -min(0.5, 1.6); -min(5.44, 5.44); -min(6, 5.6); masked
        [-2.6, -2.6, -0.5, -2 * e, -5.6, 0.0],
        # A = -1: -min(-s, -clip(s)): -min(-1.41, -1.3), twice; -min(-0.25, -0.8); e, inside; -min(-3, -2.8)
        [root, root, 0.8, e, 3.0, 0.0],
    ]
    # -A s, or 0 where the min took the clipped value outside the bounds.
    expected_grad = [[0.0, 0.0, -0.5, -2 * e, 0.0, 0.0], [root, root, 0.0, e, 3.0, 0.0]]
    torch.testing.assert_close(loss, float64(expected_loss), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grad, float64(expected_grad), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("seed", range(30))
def test_token_loss_and_gradient_match_the_reference(random_batch, settings, seed):
    batch = random_batch(seed)
    # Uneven weights: a gradient that reached another token of the segment would show.
    weights = torch.rand(batch["log_prob"].shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    loss, grad = loss_and_grad(batch, settings, weights)
    expected_loss, expected_grad = expected_loss_and_grad(batch, settings)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(grad, expected_grad * weights, rtol=1e-10, atol=1e-12)
    masked = batch["response_mask"] == 0
    assert (loss[masked] == 0).all()
    assert (grad[masked] == 0).all()


def test_dual_clip_golden():
    # One token per segment, plain band [0.7, 1.3], dual clip 3. Ratios e^1 = 2.72, e^2 = 7.39, e^-1 = 0.37, e^2.
    # A = -2: within 3: -A s; 3 |A| and constant; clipped at 0.7. A = 2: the dual clip is not for it: clipped at 1.3.
    log_ratio = float64([[1.0, 2.0, -1.0, 2.0]])
    batch = {
        "old_log_prob": torch.zeros_like(log_ratio),
        "log_prob": log_ratio,
        "advantages": float64([[-2.0, -2.0, -2.0, 2.0]]),
        "response_mask": torch.ones_like(log_ratio),
        "segment_ids": torch.arange(4)[None],
        "entropy": float64([[0.6, 0.6, 0.6, 0.6]]),
    }
    loss, grad = loss_and_grad(batch, DEFAULTS, dual_clip=3.0)
    torch.testing.assert_close(loss, float64([[2 * math.e, 6.0, 1.4, -2.6]]), rtol=1e-12, atol=0)
    torch.testing.assert_close(grad, float64([[2 * math.e, 0.0, 0.0, 0.0]]), rtol=1e-12, atol=0)
    # Where H is high, upper bounds may be over it: 1 + 0.3 + 5 = 6.3 here. It holds for A < 0 all the same, and for
    # A > 0 the bound does.
    batch["entropy"] = torch.full_like(log_ratio, 5.0)
    loss, grad = loss_and_grad(batch, DEFAULTS, dual_clip=2.0)
    torch.testing.assert_close(loss, float64([[4.0, 4.0, 1.4, -12.6]]), rtol=1e-12, atol=0)
    assert (grad == 0).all()


def test_dual_clip_matches_the_reference(random_batch):
    limited = 0
    for seed in range(40):
        settings = list(SETTINGS.values())[seed % 4]
        batch = random_batch(seed)
        dual_clip = (1.05, 1.5, 3.0, 1e3)[seed // 4 % 4]
        weights = torch.rand(batch["log_prob"].shape, generator=torch.Generator().manual_seed(seed)).double()
        loss, grad = loss_and_grad(batch, settings, weights, dual_clip=dual_clip)
        expected_loss, expected_grad = expected_loss_and_grad(batch, settings, dual_clip)
        torch.testing.assert_close(loss, expected_loss, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(grad, expected_grad * weights, rtol=1e-10, atol=1e-12)
        plain = loss_and_grad(batch, settings)
        limited += (loss < plain[0]).sum()
        # Out of reach it changes no bit; off is the default.
        for out_of_reach in ({"dual_clip": None}, {"dual_clip": 1e30}):
            assert all(map(torch.equal, loss_and_grad(batch, settings, **out_of_reach), plain))
    assert limited > 300


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", range(20))
def test_low_precision_inputs_are_computed_in_float32(random_batch, dtype, seed):
    # The reference gets the same rounded numbers, in float64: what is left is the rounding of the computation.
    batch = random_batch(seed, dtype=dtype)
    loss, grad = loss_and_grad(batch, DEFAULTS)
    assert loss.dtype == torch.float32
    assert grad.dtype == dtype
    expected_loss, expected_grad = expected_loss_and_grad(batch, DEFAULTS)
    torch.testing.assert_close(loss.double(), expected_loss, rtol=2e-5, atol=1e-6)
    # The gradient is handed back in log_prob's own type: bfloat16 keeps 8 bits, half a unit is 2^-9.
    tolerance = 2e-5 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(grad.double(), expected_grad, rtol=tolerance, atol=1e-6)


def test_log_ratios_of_50_stay_finite_and_are_clamped_at_10_from_above():
    # 50: ratio exp(10), no gradient.  -50: ratio exp(-50), as it is.  9.9 and 10.1: on either side of the clamp.
    log_ratio = float64([[50.0, -50.0, 9.9, 10.1, 0.0]])
    batch = {
        "old_log_prob": torch.zeros_like(log_ratio),
        "log_prob": log_ratio,
        "advantages": -torch.ones_like(log_ratio),  # the ratio is not clipped from above where A < 0
        "response_mask": torch.ones_like(log_ratio),
        "segment_ids": torch.arange(5)[None],
        "entropy": None,
    }
    loss, grad = loss_and_grad(batch, replace(DEFAULTS, entropy_clip=False))
    top, at_99 = math.exp(10), math.exp(9.9)
    expected_loss = float64([[top, 0.7, at_99, top, 1.0]])
    expected_grad = float64([[0.0, 0.0, at_99, 0.0, 1.0]])
    torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-12, atol=0)
    loss, grad = loss_and_grad(batch | {"advantages": torch.ones_like(log_ratio)}, SETTINGS["no_entropy_clip"])
    torch.testing.assert_close(loss[0, 1].item(), -math.exp(-50), rtol=1e-9, atol=0)
    torch.testing.assert_close(grad[0, 1].item(), -math.exp(-50), rtol=1e-9, atol=0)


def away_from_kinks(batch, settings, dual_clip):
    """1 for the tokens whose ratio is not near a bound, a threshold or the clamp: there, derivatives exist."""
    ids = batch["segment_ids"]
    log_ratio = segment_mean(batch["log_prob"] - batch["old_log_prob"], ids)
    lower, upper = clip_bounds(segment_mean(batch["entropy"], ids), **asdict(settings))
    near = ((log_ratio - lower.log()).abs() < 1e-3) | ((log_ratio - upper.log()).abs() < 1e-3)
    near |= (log_ratio - (math.log(dual_clip) if dual_clip else 10)).abs() < 1e-3
    return (~near & ((log_ratio - 10).abs() > 1e-3)).double()


@pytest.mark.parametrize("dual_clip", [None, 1.5])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_gradcheck_with_one_token_per_segment(random_batch, settings, dual_clip):
    # The stop-gradients hide nothing here: s_t = sg[s_t] pi / sg[pi] is the token's own ratio, and its true
    # derivative is the one that autograd must give. So the loss itself can be differentiated numerically.
    for seed, scale in ((0, 0.3), (1, 1.0), (2, 50.0)):
        batch = random_batch(seed, rows=6, length=8, log_ratio_scale=scale, garbage=False)
        valid = batch["response_mask"].bool()
        batch["segment_ids"] = torch.where(valid, valid.long().cumsum(1) - 1, -1)
        keep = away_from_kinks(batch, settings, dual_clip)
        assert keep.sum() > 0.9 * keep.numel()
        log_prob = batch.pop("log_prob").requires_grad_()
        assert torch.autograd.gradcheck(
            lambda x, batch=batch, keep=keep: (
                keep * sspo_token_loss(log_prob=x, dual_clip=dual_clip, **batch, **asdict(settings))
            ),
            log_prob,
        )


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_gradcheck_along_the_shift_of_a_segment(random_batch, settings):
    # Shift all tokens of segment j by delta_j: the mean log ratio moves by delta_j, so d s_j / d delta_j = s_j. Each
    # token's loss sees it through its own log-probability only, with d s_t / d log pi_t = s_j: the same. Here too
    # the numerical derivative of the complete loss must match, stop-gradients and all.
    for seed, scale in ((0, 0.3), (1, 1.0), (2, 4.0)):
        batch = random_batch(seed, rows=6, length=8, log_ratio_scale=scale, garbage=False)
        keep = away_from_kinks(batch, settings, None)
        assert keep.sum() > 0.9 * keep.numel()
        log_prob, ids = batch.pop("log_prob"), batch["segment_ids"]
        shifts = torch.zeros(6, 8, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda d, batch=batch, keep=keep, ids=ids, log_prob=log_prob: (
                keep * sspo_token_loss(log_prob=log_prob + d.gather(1, ids.clamp(min=0)), **batch, **asdict(settings))
            ),
            shifts,
        )


def test_gradient_flows_to_log_prob_alone(random_batch):
    # Wide enough that the bounds of high entropy clip, too: it is there that a gradient could reach the entropy.
    batch = random_batch(7, rows=40, log_ratio_scale=2.0)
    ratio = segment_mean(batch["log_prob"] - batch["old_log_prob"], batch["segment_ids"]).exp()
    high_entropy = segment_mean(batch["entropy"], batch["segment_ids"]) > DEFAULTS.entropy_high
    assert (high_entropy & (ratio > 4) & (batch["advantages"] > 0)).any()
    for name in FLOATS:
        batch[name].requires_grad_()
    loss = sspo_token_loss(**batch, **asdict(DEFAULTS))
    inputs = [batch[name] for name in FLOATS if name != "advantages"]
    grads = torch.autograd.grad(loss.sum(), inputs, allow_unused=True)
    for name, grad in zip((name for name in FLOATS if name != "advantages"), grads, strict=True):
        reached = grad is not None and bool((grad != 0).any())
        assert reached == (name == "log_prob"), name


def test_entropy_may_be_missing_only_without_entropy_clip(random_batch):
    batch = random_batch(8)
    settings = SETTINGS["no_entropy_clip"]
    with_entropy, _ = loss_and_grad(batch, settings)
    batch["entropy"] = None
    without, _ = loss_and_grad(batch, settings)
    assert torch.equal(without, with_entropy)
    with pytest.raises(ValueError, match="entropy"):
        loss_and_grad(batch, DEFAULTS)


def test_every_setting_must_be_given_and_no_other(random_batch):
    # The defaults live once, in the config; a default here would be a second place.
    batch = random_batch(9)
    assert Bounds.__required_keys__ == asdict(DEFAULTS).keys()
    for name in asdict(DEFAULTS):
        rest = {key: value for key, value in asdict(DEFAULTS).items() if key != name}
        for settings, fault in ((rest, f"missing {name}"), (asdict(DEFAULTS) | {"clip": 1.0}, "unknown clip")):
            with pytest.raises(TypeError, match=rf": {fault}\.$"):
                clip_bounds(batch["entropy"], **settings)
            with pytest.raises(TypeError, match=rf": {fault}\.$"):
                sspo_token_loss(**batch, **settings)
    with pytest.raises(TypeError, match=r": missing alpha; unknown alfa\.$"):
        clip_bounds(batch["entropy"], **{{"alpha": "alfa"}.get(key, key): x for key, x in asdict(DEFAULTS).items()})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_inputs_are_not_mutated(random_batch, dtype):
    for garbage in (False, True):
        batch = random_batch(10, dtype=dtype, garbage=garbage)
        before = {name: values.clone() for name, values in batch.items()}
        versions = {name: values._version for name, values in batch.items()}
        loss = sspo_token_loss(**batch, **asdict(DEFAULTS))
        mean = segment_mean(batch["entropy"], batch["segment_ids"])
        bounds = clip_bounds(batch["entropy"], **asdict(DEFAULTS))
        for result in (loss, mean, *bounds):
            result.fill_(7)  # nor does a result share memory with an input
        for name, values in batch.items():
            torch.testing.assert_close(values, before[name], rtol=0, atol=0, equal_nan=True)
            assert values._version == versions[name], name


def test_shapes_that_do_not_fit_are_refused(random_batch):
    # jaxtyping's shapes are enforced under pytest (conftest.py); this fails if they should ever stop being so.
    batch = random_batch(11)
    with pytest.raises(Exception, match="advantages"):
        sspo_token_loss(**(batch | {"advantages": batch["advantages"][:, :-1]}), **asdict(DEFAULTS))
    with pytest.raises(Exception, match="values"):
        segment_mean(batch["segment_ids"], batch["segment_ids"])
