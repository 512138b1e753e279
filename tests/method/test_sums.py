"""`segment_mean`, and the two ways to add up a segment, against the scalar reference and loops over Python floats."""

import math

import pytest
import reference
import torch

from sspo_verl.derivatives import segment_mean
from sspo_verl.sums import locate, segment_sums

FLOATS = ("old_log_prob", "log_prob", "advantages", "entropy")


def float64(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture(autouse=True, params=["as_on_a_cpu", "as_on_a_device"])
def way(request):
    """Every test here runs on both ways to add up."""
    if request.param == "as_on_a_device":
        request.getfixturevalue("as_on_a_device")
    return request.param


def test_every_way_adds_up_token_after_token_in_float64(random_batch, way):
    for seed in range(60):
        batch = random_batch(seed, rows=12, length=60)
        valid = batch["segment_ids"] >= 0
        segments = locate(batch["segment_ids"], valid)
        assert (segments.offsets is not None) == (way == "as_on_a_device")
        columns = 60 if way == "as_on_a_device" else int(batch["segment_ids"].max()) + 1
        assert segments.length.shape == (12, columns)
        for dtype in (torch.float64, torch.float32, torch.bool):
            values = torch.where(valid, batch["log_prob"], 0).to(dtype)
            expected = torch.zeros(12, columns, dtype=torch.float64)
            for i, (row, ids) in enumerate(zip(values.double().tolist(), batch["segment_ids"].tolist(), strict=True)):
                for value, j in zip(row, ids, strict=True):
                    if j >= 0:
                        expected[i, j] = expected[i, j].item() + value
            result = segment_sums(values, segments)
            assert result.dtype == (torch.int32 if dtype == torch.bool else torch.float64)
            assert torch.equal(result.double(), expected), f"seed {seed}, {dtype}"


def test_segment_mean_golden():
    # Row 0: segment 0 holds 1 and 2: 3/2; segment 1 holds 3, 4 and 8: 15/3.  Row 1: one token, its own mean.
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0, 8.0], [math.nan, 7.0, math.inf, -math.inf, math.nan]])
    ids = torch.tensor([[0, 0, 1, 1, 1], [-1, 0, -1, -1, -1]])
    assert segment_mean(values, ids).tolist() == [[1.5, 1.5, 5.0, 5.0, 5.0], [0.0, 7.0, 0.0, 0.0, 0.0]]


def test_segment_mean_matches_the_reference(random_batch):
    for seed in range(40):
        batch = random_batch(seed)
        ids = batch["segment_ids"]
        for name in FLOATS:
            expected = [reference.segment_mean(v, i) for v, i in zip(batch[name].tolist(), ids.tolist(), strict=True)]
            torch.testing.assert_close(segment_mean(batch[name], ids), float64(expected), rtol=1e-12, atol=1e-12)


def test_segment_mean_gradcheck(random_batch):
    # Differentiable: d mean / d value = 1/n within a segment, 0 across segments and at masked tokens.
    batch = random_batch(5, rows=6, length=8, log_ratio_scale=1.0, garbage=False)
    values = batch["log_prob"].requires_grad_()
    assert torch.autograd.gradcheck(lambda v: segment_mean(v, batch["segment_ids"]), values)


def test_segment_mean_gradient_is_finite_over_garbage(random_batch):
    for seed in range(10):
        batch = random_batch(seed)
        values = batch["log_prob"].requires_grad_()
        weights = torch.rand(values.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        (segment_mean(values, batch["segment_ids"]) * weights).sum().backward()
        # The gradient of a weighted sum of means is the mean of the weights.
        expected = [
            reference.segment_mean(w, i) for w, i in zip(weights.tolist(), batch["segment_ids"].tolist(), strict=True)
        ]
        torch.testing.assert_close(values.grad, float64(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_segment_mean_of_low_precision_is_float32(dtype):
    # 4,096 ones and one 0: bfloat16 cannot even count to 4,096 (it stops at 256), float32 can.
    values = torch.ones(1, 4097, dtype=dtype)
    values[0, 0] = 0
    mean = segment_mean(values, torch.zeros(1, 4097, dtype=torch.int64))
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean, torch.full((1, 4097), 4096 / 4097), rtol=1e-6, atol=0)


def test_segment_mean_is_as_exact_beside_a_huge_segment():
    # A difference of running sums would lose the small segment beside the huge one.
    values = torch.tensor([[1e12, -3e11, 1e-3, 2e-3, 1e12]])
    ids = torch.tensor([[0, 0, 1, 1, 2]])
    mean = segment_mean(values, ids)
    torch.testing.assert_close(mean[0, 2:4], torch.full((2,), 1.5e-3), rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (4, 0), (4, 5)])
def test_segment_mean_of_nothing(shape):
    values = torch.full(shape, math.nan, requires_grad=True)
    mean = segment_mean(values, torch.full(shape, -1))
    assert mean.shape == shape
    assert (mean == 0).all()
    mean.sum().backward()  # an empty micro-batch goes through the backward pass like any other
    assert (values.grad == 0).all()
