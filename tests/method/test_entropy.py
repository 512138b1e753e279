"""Entropy without gradient: the function alone, and in verl's own FSDP engine."""

import contextlib
import functools
from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from verl.utils import tensordict_utils as tu
from verl.utils import torch_functional
from verl.workers.config import PolicyLossConfig
from verl.workers.engine.fsdp import transformer_impl
from verl.workers.engine_workers import ppo_loss
from verl_batch import PROMPT_LENGTH, actor_config, responses

from sspo_verl import entropy
from sspo_verl.config import SSPOPolicyLossConfig
from sspo_verl.entropy import token_entropy
from sspo_verl.plugin import engine

QWEN = 151_936
INFINITY = float("inf")


def reference(logits: torch.Tensor) -> torch.Tensor:
    """By the definition, in float64."""
    p = logits.double().softmax(-1)
    return -torch.where(p > 0, p * p.log(), 0.0).sum(-1)


class LiveBytes(TorchDispatchMode):
    """The most bytes that what an operation made in here took at a time; and the operations."""

    def __init__(self):
        super().__init__()
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0
        self.seen: list[tuple[str, int]] = []  # (operation, elements of its result)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in torch.utils._pytree.tree_leaves((args, kwargs)) if plain(t)}
        for tensor in filter(plain, torch.utils._pytree.tree_leaves(result)):
            storage = tensor.untyped_storage()
            if storage._cdata not in given:
                self.seen.append((func.__name__, tensor.numel()))
                self.storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.storages = {key: value for key, value in self.storages.items() if not value[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.storages.values()))
        return result


def plain(value) -> bool:
    return isinstance(value, torch.Tensor) and not value.is_nested


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_it_is_the_entropy_of_the_softmax(dtype, scale):
    g = torch.Generator().manual_seed(0)
    logits = (scale * torch.randn(7, 5000, generator=g) + 20).to(dtype)
    got = token_entropy(logits)
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(got.double(), reference(logits), rtol=2e-6, atol=2e-6)


def test_known_values():
    even, sure, half = torch.zeros(8), torch.tensor([100.0, 0, 0, 0]), torch.tensor([3.0, 3.0, -INFINITY, -INFINITY])
    assert token_entropy(even).item() == pytest.approx(torch.tensor(8.0).log().item())
    assert token_entropy(sure).item() == pytest.approx(0, abs=1e-30)
    assert token_entropy(half).item() == pytest.approx(torch.tensor(2.0).log().item())
    for nothing in ([-INFINITY, -INFINITY], [INFINITY, 0.0], [float("nan"), 0.0]):
        assert token_entropy(torch.tensor(nothing)).isnan()


@pytest.mark.parametrize("shape", [(9,), (0, 9), (13, 9), (3, 5, 9), (2, 3, 2, 9), (0, 3, 9)])
def test_neither_the_pieces_nor_the_shape_matter(shape):
    g = torch.Generator().manual_seed(1)
    logits = torch.randn(shape, generator=g)
    full = token_entropy(logits)
    assert full.shape == shape[:-1]
    for rows in (0, 1, 2, 5, 100):
        assert torch.equal(token_entropy(logits, chunk_bytes=rows * 9 * 4), full)
    turned = logits.transpose(0, -1).contiguous().transpose(0, -1)
    torch.testing.assert_close(token_entropy(turned, chunk_bytes=72), full)
    if len(shape) > 2:
        torch.testing.assert_close(token_entropy(logits[:, 1:]), full[:, 1:])


def test_it_has_no_gradient_and_changes_nothing():
    for dtype in (torch.float32, torch.bfloat16):
        logits = torch.randn(4, 50, dtype=dtype, requires_grad=True)
        before = logits.detach().clone()
        result = token_entropy(logits)
        assert not result.requires_grad
        assert result.grad_fn is None
        assert torch.equal(logits, before)


@pytest.mark.parametrize("shape", [(1500, QWEN // 10), (3, 500, QWEN // 10), (2, 800, QWEN // 10)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_memory_does_not_grow_with_the_tokens(shape, dtype):
    """The peak: one piece of a row at least, and for bfloat16 its conversion. All rows at once are over 90 MB."""
    logits = torch.zeros(shape, dtype=dtype)
    if len(shape) == 3:
        logits = logits[:, 1:]  # verl slices, and then a flattened tensor would be a copy
    piece, pieces = 4 * 2**20, 1 if dtype == torch.float32 else 2
    with LiveBytes() as live:
        token_entropy(logits, chunk_bytes=piece)
    assert 0.9 * pieces * piece < live.peak < 1.05 * pieces * piece
    with LiveBytes() as default:
        token_entropy(logits)
    assert default.peak < 2.1 * entropy.CHUNK_BYTES < 256e6, "the promise for Qwen's vocabulary"


# --- in verl's engine

VOCABULARY = 300
HIDDEN = 8


class TinyModel(torch.nn.Module):
    """An output layer on embeddings: all that the engine's handling of the logits needs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.embedding = torch.nn.Embedding(VOCABULARY, HIDDEN)
        self.head = torch.nn.Linear(HIDDEN, VOCABULARY)
        self.config = SimpleNamespace()

    def forward(self, input_ids, **_):
        return SimpleNamespace(logits=3 * self.head(self.embedding(input_ids)))


def verls_engine() -> transformer_impl.FSDPEngineWithLMHead:
    """verl's engine without its set-up, which needs a process group and a model on disk."""
    instance = object.__new__(transformer_impl.FSDPEngineWithLMHead)
    instance.module = TinyModel()
    instance._autocast_dtype = torch.float32
    instance.use_ulysses_sp = False
    instance.pad_to_length = True  # so that there is padding to strip
    instance.pad_to_length_bucket = 64
    instance.engine_config = SimpleNamespace(entropy_checkpointing=False, entropy_from_logits_with_chunking=False)
    instance.compute_entropy_from_logits = torch_functional.entropy_from_logits
    instance.get_data_parallel_group = lambda: None
    return instance


def update_data(remove_padding: bool, temperature=1.0, **flags) -> TensorDict:
    rows = responses(seed=5)
    prompt = torch.full((PROMPT_LENGTH,), 65)
    nested = tu.nested_tensor_from_tensor_list
    ids = [torch.cat([prompt, row]) for row in rows["responses"]]
    data = TensorDict(
        {
            "input_ids": nested(ids),
            "position_ids": nested([torch.arange(len(row)) for row in ids]),
            "prompts": nested([prompt for _ in ids]),
            "responses": nested(rows["responses"]),
            "response_mask": nested(rows["response_mask"]),
            "old_log_probs": nested(rows["old_log_prob"]),
            "advantages": nested(rows["advantages"]),
            "entropy": nested(rows["entropy"]),
        },
        batch_size=len(ids),
    )
    tokens = int(sum(mask.sum() for mask in rows["response_mask"]))
    meta = {
        "dp_size": 1,
        "batch_num_tokens": tokens,
        "global_batch_size": len(ids),
        "use_remove_padding": remove_padding,
    }
    tu.assign_non_tensor(data, temperature=temperature, **meta, **flags)
    return data


def update(settings: PolicyLossConfig, data: TensorDict, **actor) -> tuple[dict, dict, torch.Tensor]:
    """(model output, metrics, gradient of the output layer) of one micro-batch, as verl's actor runs it."""
    instance = verls_engine()
    loss_function = functools.partial(ppo_loss, config=actor_config(settings, **actor))
    loss, output = instance.forward_step(data, loss_function=loss_function, forward_only=False)
    loss.backward()
    return output["model_output"], output["metrics"], instance.module.head.weight.grad


@pytest.fixture
def calls(monkeypatch):
    """Number of calls of verl's entropy functions, and of ours."""
    counts = dict.fromkeys(("verl's", "ours"), 0)

    def counted(whose, function):
        @functools.wraps(function)
        def count(*args, **kwargs):
            counts[whose] += 1
            return function(*args, **kwargs)

        return count

    for name in ("entropy_from_logits", "entropy_from_logits_with_chunking"):
        monkeypatch.setattr(torch_functional, name, counted("verl's", getattr(torch_functional, name)))
    monkeypatch.setattr(entropy, "token_entropy", counted("ours", token_entropy))
    return counts


def big_tensors(settings: PolicyLossConfig, **flags) -> list[tuple[str, int]]:
    """The operations of an update, backward too, that made a tensor with one number for each token and word."""
    data = update_data(remove_padding=True, **flags)
    tokens = data["input_ids"].values().numel()
    with LiveBytes() as live:
        update(settings, data)
    return [one for one in live.seen if one[1] >= tokens * VOCABULARY]


def test_entropy_of_the_old_policy_costs_an_update_nothing(calls):
    grpo = big_tensors(PolicyLossConfig(loss_mode="vanilla"))
    sspo = big_tensors(SSPOPolicyLossConfig())
    assert sspo == grpo
    assert len(grpo) >= 3, "logits, their softmax and its gradient"
    assert calls == {"verl's": 0, "ours": 0}
    # Seen to see: verl's own entropy makes more of them.
    assert len(big_tensors(PolicyLossConfig(loss_mode="vanilla"), calculate_entropy=True)) > len(grpo)
    assert calls["verl's"] == 1


@pytest.mark.parametrize("flag", [True, False])
def test_entropy_of_the_current_policy_makes_no_big_tensor_for_the_gradient(calls, flag, monkeypatch):
    """In pieces of 16 tokens. `flag`: actor.calculate_entropy, which need not be set."""
    small = functools.partial(token_entropy, chunk_bytes=16 * VOCABULARY * 4)
    monkeypatch.setattr(entropy, "token_entropy", small)
    grpo = big_tensors(PolicyLossConfig(loss_mode="vanilla"))
    assert big_tensors(SSPOPolicyLossConfig(entropy_source="current"), calculate_entropy=flag) == grpo
    assert calls["verl's"] == 0


@pytest.mark.parametrize("temperature", [1.0, 0.6, torch.tensor([0.5, 1.0, 1.5, 2.0])])
@pytest.mark.parametrize("remove_padding", [True, False])
@pytest.mark.parametrize("policy_loss", [{}, {"loss_mode": "gspo"}])
def test_it_is_verls_own_entropy_where_the_logits_are(calls, remove_padding, temperature, policy_loss):
    """Rows of different lengths, padding, temperatures per row: the same number for the same token."""
    settings = SSPOPolicyLossConfig(entropy_source="current", **policy_loss)
    data = functools.partial(update_data, remove_padding, temperature)
    ours, our_metrics, our_gradient = update(settings, data())
    assert calls == {"verl's": 0, "ours": 1}
    with verls_own():
        theirs, their_metrics, their_gradient = update(settings, data(calculate_entropy=True))
    assert calls == {"verl's": 1, "ours": 1}

    assert torch.equal(ours["entropy"].offsets(), theirs["entropy"].offsets())
    torch.testing.assert_close(ours["entropy"].values(), theirs["entropy"].values(), rtol=1e-5, atol=1e-5)
    assert ours["entropy"].values().std() > 0.01, "all tokens alike: nothing could be out of place"
    assert torch.equal(ours["log_probs"].values(), theirs["log_probs"].values())
    torch.testing.assert_close(our_gradient, their_gradient)
    assert our_metrics.keys() == their_metrics.keys()
    assert our_metrics["actor/entropy_loss"].values == pytest.approx(their_metrics["actor/entropy_loss"].values)


@contextlib.contextmanager
def verls_own():
    """verl's engine without ours around it."""
    wrapped = transformer_impl.FSDPEngineWithLMHead.prepare_model_outputs
    transformer_impl.FSDPEngineWithLMHead.prepare_model_outputs = wrapped.__wrapped__
    try:
        yield
    finally:
        transformer_impl.FSDPEngineWithLMHead.prepare_model_outputs = wrapped


@pytest.mark.parametrize(
    ("settings", "actor", "flag"),
    [
        (SSPOPolicyLossConfig(), {}, False),
        (SSPOPolicyLossConfig(), {}, True),
        (SSPOPolicyLossConfig(entropy_source="current"), {"entropy_coeff": 0.1}, True),
        (SSPOPolicyLossConfig(entropy_source="current", entropy_clip=False), {}, False),
        (SSPOPolicyLossConfig(entropy_source="current", loss_mode="vanilla", diagnostics=False), {}, True),
        (PolicyLossConfig(loss_mode="vanilla"), {}, True),
    ],
)
def test_otherwise_verls_own_entropy_stays(calls, settings, actor, flag):
    output, _, gradient = update(settings, update_data(True, calculate_entropy=flag), **actor)
    with verls_own():
        same, _, same_gradient = update(settings, update_data(True, calculate_entropy=flag), **actor)
    assert calls == {"verl's": 2 * flag, "ours": 0}
    assert torch.equal(gradient, same_gradient)
    assert ("entropy" in output) == ("entropy" in same) == flag


def test_the_pass_for_old_log_prob_is_left_alone(calls):
    instance = verls_engine()
    with torch.no_grad():
        _, output = instance.forward_step(
            update_data(True, calculate_entropy=True), loss_function=None, forward_only=True
        )
    assert "entropy" in output["model_output"]
    assert calls == {"verl's": 1, "ours": 0}


def test_a_fused_kernels_entropy_is_taken_as_it_is(calls):
    """It makes no logits. Asked of it without actor.calculate_entropy, and without its gradient."""
    instance = verls_engine()
    data = update_data(True, use_fused_kernels=True)
    tokens = 64
    output = SimpleNamespace(log_probs=torch.zeros(1, tokens), entropy=torch.rand(1, tokens, requires_grad=True))
    config = actor_config(SSPOPolicyLossConfig(entropy_source="current"))
    _, output_args = instance.prepare_model_inputs(data)
    found = instance.prepare_model_outputs(output, output_args, data, functools.partial(ppo_loss, config=config))
    count = data["input_ids"].values().numel()
    assert torch.equal(found["entropy"].values(), output.entropy[0, :count].detach())
    assert not found["entropy"].requires_grad
    assert "calculate_entropy" not in data.keys(), "the caller's micro-batch is the caller's"  # noqa: SIM118
    assert calls == {"verl's": 0, "ours": 0}


def test_which_engines_it_is_known_for():
    from verl.workers.engine import EngineRegistry

    known = EngineRegistry._engines["language_model"]
    ours = transformer_impl.FSDPEngineWithLMHead.prepare_model_outputs
    for strategy in engine.STRATEGIES:
        assert known[strategy]["cuda"].prepare_model_outputs is ours
