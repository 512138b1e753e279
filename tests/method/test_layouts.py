"""A tensor's layout in memory changes nothing: column-major, strided, expanded, in every function of the core."""

from dataclasses import asdict

import pytest
import reference
import torch

from sspo_verl.advantage import group_advantage
from sspo_verl.entropy import token_entropy
from sspo_verl.loss import clip_bounds, segment_mean, sspo_token_loss
from sspo_verl.segments import BLANK, ENDS_LINE, segment_ids

SETTINGS = asdict(reference.Settings())
TABLE = torch.tensor([0, ENDS_LINE, BLANK, ENDS_LINE | BLANK, 0, 0, 0], dtype=torch.uint8)


def strided(x):
    """Every second number of a larger tensor, on every axis, from the second one on."""
    larger = x.new_zeros([2 * n + 1 for n in x.shape])
    view = larger[tuple(slice(1, 2 * n + 1, 2) for n in x.shape)]
    return view.copy_(x)


LAYOUTS = {
    "column-major": lambda x: x.T.contiguous().T,
    "strided": strided,
    "row of a larger tensor": lambda x: torch.stack((x, x), dim=1)[:, 1],
    # Numbers that are in memory once, on either axis; all of them in the tests are such that this changes none.
    "expanded rows": lambda x: x[:1].expand(x.shape),
    "expanded columns": lambda x: x[..., :1].expand(x.shape),
}


def with_gradient(function, values):
    """The result and the gradient of its sum, which autograd hands on expanded."""
    values = values.detach().requires_grad_()
    result = function(values)
    result.sum().backward()
    return result.detach(), values.grad


def core(x):
    """All that the core computes of a batch."""
    loss = ("old_log_prob", "advantages", "response_mask", "segment_ids", "entropy")
    loss = {name: x[name] for name in loss}
    return {
        "ids": segment_ids(x["token_ids"], x["response_mask"], x["table"]),
        "ids of a bool mask": segment_ids(x["token_ids"], x["bool_mask"], x["table"]),
        "mean": with_gradient(lambda v: segment_mean(v, x["segment_ids"]), x["log_prob"]),
        "bounds": clip_bounds(x["entropy"], **SETTINGS),
        "loss": with_gradient(lambda v: sspo_token_loss(log_prob=v, **loss, **SETTINGS), x["log_prob"]),
        "dual clip": with_gradient(
            lambda v: sspo_token_loss(log_prob=v, dual_clip=1.5, **loss, **SETTINGS), x["log_prob"]
        ),
        "advantage": group_advantage(x["rewards"], x["group_ids"]),
        "entropy": token_entropy(x["logits"]),
        "entropy in pieces": token_entropy(x["logits"], chunk_bytes=1),
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("way", ["on a cpu", "as on a device"])
def test_every_layout_gives_the_same_bits(random_batch, request, layout, way):
    if way == "as on a device":
        request.getfixturevalue("as_on_a_device")
    for seed, dtype in enumerate((torch.float32, torch.float64, torch.bfloat16)):
        g = torch.Generator().manual_seed(seed)
        x = random_batch(seed, dtype=dtype)
        rows, length = x["log_prob"].shape
        x |= {
            "bool_mask": x["response_mask"].bool(),
            "token_ids": torch.randint(-1, 9, (rows, length), generator=g),
            "table": TABLE,
            "rewards": torch.randn(rows, generator=g, dtype=torch.float64).to(dtype),
            "group_ids": torch.randint(0, 3, (rows,), generator=g),
            "logits": torch.randn(rows, 11, generator=g, dtype=torch.float64).to(dtype),
        }
        other = {name: LAYOUTS[layout](values) for name, values in x.items()}
        if layout.startswith("expanded"):
            other["table"] = TABLE
            x = {name: values.contiguous().clone() for name, values in other.items()}
        for name, values in x.items():
            assert values.is_contiguous()
            torch.testing.assert_close(other[name], values, rtol=0, atol=0, equal_nan=True)
        results = core(other)
        for name, expected in core(x).items():
            torch.testing.assert_close(results[name], expected, rtol=0, atol=0, msg=lambda m, name=name: f"{name}: {m}")
