"""Shape checks of the core in every test, and fixtures with random batches of difficult kinds."""

import os
import signal
import sys

import pytest
import torch
from jaxtyping import install_import_hook
from real_vocabularies import qwen, qwen_bytes, sentencepiece, tekken  # noqa: F401  fixtures

# The hook rewrites modules as they are imported: one that is there already would go unchecked, without a word.
if any(name.split(".")[0] == "sspo_verl" for name in sys.modules):
    raise RuntimeError("sspo_verl was imported before tests/conftest.py could turn its shape checks on.")
# The core alone: verl builds the settings' dataclass from whatever the command line holds, and so must the tests.
CORE = (
    "segments",
    *(f"segmenters.{name}" for name in ("entropy", "fixed", "plain", "sentence")),
    "loss",
    "bounds",
    "divergence",
    "sums",
    "derivatives",
    "advantage",
)
install_import_hook([f"sspo_verl.{name}" for name in CORE], "beartype.beartype")

# A shell that starts this in the background has interrupts ignored: then test.sh's time limit would end a run unheard.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# For the tests that start Ray, which gives its workers nice 15, so that they hardly run beside the tests of the other
# process.
os.environ.setdefault("RAY_worker_niceness", "0")

GARBAGE = (float("nan"), float("inf"), -float("inf"), 1e30, 0.0)


@pytest.fixture
def as_on_a_device(monkeypatch):
    """The core's way on CUDA, on tensors of the CPU: it does not ask how many segments there are, and adds them up by
    runs of tokens, without atomics."""
    from sspo_verl import sums

    monkeypatch.setattr(sums, "_scatter_is_ordered", lambda column: False)


@pytest.fixture
def random_batch():
    """A function that makes the float inputs of the loss, for many kinds of rows, without the package's help."""
    return _random_batch


def _random_batch(
    seed: int,
    rows: int = 12,
    length: int = 24,
    dtype: torch.dtype = torch.float64,
    log_ratio_scale: float | None = None,
    garbage: bool = True,
) -> dict[str, torch.Tensor]:
    """Rows that are empty, of one token, full, padded, or with holes; log ratios small, wide, or +-50.

    log_ratio_scale: None mixes the scales over the rows. garbage: put inf, NaN and 1e30 under the mask.
    """
    g = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    def randn(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    lengths = torch.randint(0, length + 1, (rows,), generator=g)
    for row, kind in enumerate((0, 1, length)):  # empty, one token, full
        if row < rows:
            lengths[row] = min(kind, length)
    valid = torch.arange(length) < lengths[:, None]
    holes = (rand(rows, 1) < 0.5) & (rand(rows, length) < 0.2)
    valid &= ~holes
    # A segment begins at a row's first valid token, sometimes after a hole, and at random: all kinds of cuts.
    cuts = valid & (rand(rows, length) < rand(rows, 1))
    ids = cuts.cumsum(dim=1)
    ids = ids - torch.where(valid, ids, length + 1).amin(dim=1, keepdim=True)

    scale = (
        torch.tensor([0.01, 0.3, 2.0, 50.0])[torch.randint(0, 4, (rows, 1), generator=g)].double()
        if log_ratio_scale is None
        else torch.full((rows, 1), log_ratio_scale, dtype=torch.float64)
    )
    log_ratio = torch.where(scale == 50, torch.sign(randn(rows, length)) * 50, scale * randn(rows, length))
    # In half of the rows a complete segment moves one way, as it does in training.
    log_ratio = torch.where(rand(rows, 1) < 0.5, log_ratio, log_ratio[:, :1] + 0.01 * randn(rows, length))
    old = -3 * rand(rows, length)
    batch = {
        "old_log_prob": old,
        "log_prob": old + log_ratio,
        "advantages": randn(rows, 1).expand(rows, length) * (rand(rows, 1) < 0.9),
        "entropy": 2 * rand(rows, 1) * rand(rows, length) + (rand(rows, length) < 0.1) * 2.0,
    }
    if garbage:
        junk = torch.tensor(GARBAGE, dtype=torch.float64)
        for name, values in batch.items():
            picked = junk[torch.randint(0, len(GARBAGE), (rows, length), generator=g)]
            batch[name] = torch.where(valid, values, picked)
    batch = {name: values.to(dtype).contiguous() for name, values in batch.items()}
    return batch | {
        "response_mask": valid.long(),
        "segment_ids": torch.where(valid, ids, -1),
    }
