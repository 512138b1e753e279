"""Same input, same bits: in two runs, with other threads, beside other rows, under padding; on CPU and on CUDA."""

from dataclasses import asdict
from itertools import pairwise

import pytest
import torch
from reference import Settings

from sspo_verl.advantage import group_advantage
from sspo_verl.loss import segment_mean, sspo_token_loss
from sspo_verl.segments import line_break_table, segment_ids

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU; the CPU half ran"),
    ),
]
# Large enough that torch splits the work between threads, and CUDA between blocks.
ROWS, LENGTH = 48, 1024
TEXTS = ["a", " ", "a\n", "\n", "b", "c", "\t", "d"]


class Tokenizer:
    all_special_ids = ()

    def __len__(self):
        return len(TEXTS)

    def decode(self, ids):
        return "".join(TEXTS[i] for i in ids)


@pytest.fixture(scope="module")
def full():
    """A batch in float32, as in training, with long and short segments, holes, and NaN under the mask."""
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(0, LENGTH + 1, (ROWS, 1), generator=g)
    lengths[0], lengths[1] = 0, LENGTH
    mask = (torch.arange(LENGTH) < lengths) & (torch.rand(ROWS, LENGTH, generator=g) > 0.01)
    # Many line breaks in some rows, few in others.
    often = torch.rand(ROWS, 1, generator=g) < 0.5
    draw = torch.randint(0, 8, (ROWS, LENGTH), generator=g)
    plain = torch.where(torch.rand(ROWS, LENGTH, generator=g) < 0.99, 4, draw)
    old = -torch.rand(ROWS, LENGTH, generator=g) * 5
    batch = {
        "token_ids": torch.where(often, draw, plain),
        "response_mask": mask.long(),
        "old_log_prob": old,
        "log_prob": old + torch.randn(ROWS, LENGTH, generator=g),
        "advantages": torch.randn(ROWS, 1, generator=g).expand(ROWS, LENGTH).contiguous(),
        "entropy": torch.rand(ROWS, LENGTH, generator=g) * 2,
        "weights": torch.rand(ROWS, LENGTH, generator=g),  # of the backward pass
    }
    for name in ("old_log_prob", "log_prob", "advantages", "entropy"):
        batch[name] = batch[name].masked_fill(~mask, float("nan"))
    return batch | {"table": line_break_table(Tokenizer())}


def compute(batch, device="cpu"):
    """Everything that the core computes, gradients included, brought back to the CPU."""
    batch = {name: values.to(device) for name, values in batch.items()}
    weights = batch.pop("weights")
    ids = segment_ids(batch.pop("token_ids"), batch["response_mask"], batch.pop("table"))
    log_prob = batch.pop("log_prob").clone().requires_grad_()
    loss = sspo_token_loss(log_prob=log_prob, segment_ids=ids, **batch, **asdict(Settings()))
    (loss * weights).sum().backward()
    values = batch["entropy"].clone().requires_grad_()
    mean = segment_mean(values, ids)
    (mean * weights).sum().backward()
    results = {
        "segment_ids": ids,
        "loss": loss.detach(),
        "gradient": log_prob.grad,
        "mean": mean.detach(),
        "mean_gradient": values.grad,
    }
    return {name: result.cpu() for name, result in results.items()}


def assert_same_bits(results, expected):
    for name, result in results.items():
        # torch.equal takes -0.0 for 0.0; bits do not.
        bits, wanted = (
            x if name == "segment_ids" else x.contiguous().view(torch.int32) for x in (result, expected[name])
        )
        assert torch.equal(bits, wanted), f"{name}: {(bits != wanted).sum()} of {bits.numel()} differ"


def take(batch, rows):
    return {name: values if name == "table" else values[rows] for name, values in batch.items()}


@pytest.fixture
def deterministic_algorithms():
    # Raises wherever torch knows an operation to be non-deterministic.
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("device", DEVICES)
def test_two_runs(full, device):
    first = compute(full, device)
    for _ in range(4):
        assert_same_bits(compute(full, device), first)


@pytest.mark.parametrize("device", DEVICES)
def test_deterministic_algorithms_are_all_there_is(full, device, deterministic_algorithms, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    strict = compute(full, device)
    torch.use_deterministic_algorithms(False)
    assert_same_bits(compute(full, device), strict)


def test_number_of_threads(full, threads):
    threads(1)
    one = compute(full)
    for n in (2, 3):
        threads(n)
        assert_same_bits(compute(full), one)


@pytest.mark.parametrize("device", DEVICES)
def test_row_order(full, device):
    expected = compute(full, device)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))
    assert_same_bits(compute(take(full, order), device), {name: result[order] for name, result in expected.items()})


@pytest.mark.parametrize("device", DEVICES)
def test_micro_batches(full, device):
    expected = compute(full, device)
    cuts = [0, 1, 4, 11, 17, 19, 30, ROWS]
    parts = [compute(take(full, slice(a, b)), device) for a, b in pairwise(cuts)]
    assert_same_bits({name: torch.cat([part[name] for part in parts]) for name in expected}, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("left_right", [(0, 1), (0, 731), (3, 0), (65, 200)], ids=str)
def test_padding(full, device, left_right):
    left, _ = left_right
    # The token that would cut if it counted, NaN for what is masked; the backward pass gives padding no weight.
    fill = {"response_mask": 0, "token_ids": 3, "weights": 0}
    padded = {
        name: torch.nn.functional.pad(values, left_right, value=fill.get(name, float("nan")))
        for name, values in full.items()
        if name != "table"
    }
    results = compute(padded | {"table": full["table"]}, device)
    inside = {name: result[:, left : left + LENGTH] for name, result in results.items()}
    assert_same_bits(inside, compute(full, device))


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_under_the_mask(full, device):
    expected = compute(full, device)
    masked = full["response_mask"] == 0
    for junk in (0.0, -0.0, 1.0, float("inf"), -float("inf")):
        names = ("old_log_prob", "log_prob", "advantages", "entropy")
        dirty = {name: full[name].masked_fill(masked, junk) for name in names}
        token_ids = full["token_ids"].masked_fill(masked, 2)
        assert_same_bits(compute(full | dirty | {"token_ids": token_ids}, device), expected)


@pytest.mark.parametrize("device", DEVICES)
def test_other_segments_of_the_row(full, device):
    # A segment's mean does not depend on what is in the others, as a difference of running sums would.
    ids = compute(full, device)["segment_ids"]
    values = full["entropy"]
    expected = segment_mean(values.to(device), ids.to(device)).cpu()
    odd = ids % 2 == 1
    changed = torch.where(odd, values, values * 1e6 + 1e4)
    result = segment_mean(changed.to(device), ids.to(device)).cpu()
    assert torch.equal(result[odd].view(torch.int32), expected[odd].view(torch.int32))
    assert not torch.equal(result[~odd & (ids >= 0)], expected[~odd & (ids >= 0)])


@pytest.mark.parametrize("device", DEVICES)
def test_advantages(device, deterministic_algorithms):
    g = torch.Generator().manual_seed(2)
    rewards = torch.randn(4096, generator=g).to(device)
    groups = torch.randint(0, 300, (4096,), generator=g).to(device)
    first = group_advantage(rewards, groups)
    for _ in range(4):
        assert torch.equal(group_advantage(rewards, groups), first)
    # Beside other groups or without them.
    some = groups < 100
    assert torch.equal(group_advantage(rewards[some], groups[some]), first[some])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU to compare with the CPU")
def test_cuda_agrees_with_the_cpu(full):
    cpu, cuda = compute(full), compute(full, "cuda")
    # Sums are of the same numbers in the same order; the exponential is another one.
    for name in ("segment_ids", "mean", "mean_gradient"):
        assert torch.equal(cpu[name], cuda[name])
    for name in ("loss", "gradient"):
        torch.testing.assert_close(cuda[name], cpu[name], rtol=1e-5, atol=1e-6)
