"""The study's losses: verl's and the plugin's own, and the four weights against plain arithmetic."""

import numpy as np
import pytest
import torch
from verl.trainer.ppo.core_algos import agg_loss, get_policy_loss_fn
from verl.workers.config import FSDPActorConfig

from benchmarks.study import conditions
from benchmarks.study.losses import Algorithm, Tokens, lengths, reduce
from benchmarks.study.segmenters import SEGMENTERS
from benchmarks.study.text import of_bytes
from sspo_verl.bounds import Bounds
from sspo_verl.config import SSPOPolicyLossConfig

CLOSE = {"rtol": 1e-5, "atol": 1e-7}
TABLE = conditions.read(conditions.find("first_stage"))
TEXT = of_bytes()


def random_tokens(seed, scale=0.3, rows=16, length=24):
    """Responses without holes, as the sampler makes them, cut at random."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.arange(length) < torch.randint(1, length + 1, (rows, 1), generator=g)
    cuts = (torch.rand(rows, length, generator=g) < 0.2).cumsum(1)
    old = -3 * torch.rand(rows, length, generator=g)
    log_prob = old + scale * torch.randn(rows, length, generator=g)
    advantages = torch.randn(rows, 1, generator=g).expand(rows, length)
    entropy = 2 * torch.rand(rows, length, generator=g)
    segments = torch.where(mask, cuts - cuts[:, :1], -1)
    return Tokens(old * mask, advantages, mask, segments, entropy), (log_prob * mask).requires_grad_()


def ours(algorithm, log_prob, tokens):
    loss = reduce(algorithm.token_loss(log_prob, tokens), tokens.mask, len(log_prob))
    return loss.detach(), torch.autograd.grad(loss, log_prob)[0]


def verls(name, log_prob, tokens, **settings):
    """verl's registered loss with its own defaults, but for `settings`."""
    config = FSDPActorConfig(rollout_n=1, ppo_micro_batch_size_per_gpu=1, **settings)
    loss, _ = get_policy_loss_fn(name)(
        old_log_prob=tokens.old_log_prob,
        log_prob=log_prob,
        advantages=tokens.advantages,
        response_mask=tokens.mask.float(),
        loss_agg_mode="seq-mean-token-mean",
        config=config,
    )
    return loss.detach(), torch.autograd.grad(loss, log_prob)[0]


def at_segmenter(algorithm, tokens):
    """token and response do not look at the tokens' text."""
    return tokens._replace(
        segments=algorithm.segment(torch.zeros(tokens.mask.shape, dtype=torch.long), tokens.mask, TEXT)
    )


@pytest.mark.parametrize(
    ("name", "verl_name", "settings"),
    [
        ("grpo", "vanilla", {}),
        ("gspo", "gspo", {"clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4}),
        ("gspo_wide", "gspo", {}),
    ],
)
def test_a_published_baseline_is_verls(name, verl_name, settings):
    algorithm, stopped = TABLE.algorithms[name], 0
    for seed in range(20):
        tokens, log_prob = random_tokens(seed, scale=1.0)
        mine = ours(algorithm, log_prob, at_segmenter(algorithm, tokens))
        its = verls(verl_name, log_prob, tokens, **settings)
        for a, b in zip(mine, its, strict=True):
            torch.testing.assert_close(a, b, **CLOSE)
        stopped += int(((its[1] == 0) & tokens.mask).sum())
    assert stopped > 300


def test_the_tables_sspo_has_the_plugins_defaults():
    import verl  # noqa: F401  loads the plugin

    defaults = SSPOPolicyLossConfig().bounds()
    settings = TABLE.algorithms["sspo"].settings
    assert settings == {name: defaults[name] for name in Bounds.__annotations__}
    assert settings.keys() >= Bounds.__annotations__.keys()


def test_the_reduction_is_verls():
    for seed in range(5):
        tokens, log_prob = random_tokens(seed)
        value = log_prob.detach() * tokens.mask
        its = agg_loss(loss_mat=value, loss_mask=tokens.mask.float(), loss_agg_mode="seq-mean-token-mean")
        torch.testing.assert_close(reduce(value, tokens.mask, len(value)), its, **CLOSE)


def weights(algorithm, log_prob, tokens):
    """w of each token: the gradient without the advantage and the reduction."""
    _, gradient = ours(algorithm, log_prob, tokens)
    return -gradient / tokens.advantages * tokens.mask.sum(1, keepdim=True) * len(log_prob)


def segments_of(tokens):
    for row, valid in zip(tokens.segments, tokens.mask, strict=True):
        yield [[t for t in range(len(row)) if valid[t] and row[t] == j] for j in range(int(row.max()) + 1)]


def test_the_weights_are_those_of_the_docstring():
    """In scalar loops; a product over one token is clipped from above if A > 0 and from below if A < 0."""
    band = {"clip_low": 0.7, "clip_high": 1.3}
    algorithms = {
        "none": Algorithm("a", "none"),
        "capped": Algorithm("b", "capped", settings={"cap": 1.5}),
        "product": Algorithm("c", "product", settings=band),
    }
    clipped = 0
    for seed in range(10):
        tokens, log_prob = random_tokens(seed)
        ratio = (log_prob.detach() - tokens.old_log_prob).double()
        found = {name: weights(algorithm, log_prob, tokens) for name, algorithm in algorithms.items()}
        for i, row in enumerate(segments_of(tokens)):
            for members in row:
                total = sum(float(ratio[i, t]) for t in members)
                p = torch.tensor(total).exp().item()
                positive = tokens.advantages[i, 0] > 0
                free = p <= 1.3 if positive else p >= 0.7
                clipped += not free
                for t in members:
                    assert found["none"][i, t].item() == pytest.approx(1, rel=1e-4)
                    assert found["capped"][i, t].item() == pytest.approx(min(p, 1.5), rel=1e-4)
                    assert found["product"][i, t].item() == pytest.approx(p if free else 0, rel=1e-4)
    assert clipped > 50


def test_at_the_old_policy_all_algorithms_have_the_same_gradient_bit_for_bit():
    for seed in range(5):
        tokens, _ = random_tokens(seed)
        log_prob = tokens.old_log_prob.clone().requires_grad_()
        gradients = [ours(a, log_prob, at_text(a, tokens))[1] for a in TABLE.algorithms.values()]
        assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
        assert gradients[0].any()


def at_text(algorithm, tokens):
    text = torch.tensor(TEXT.encode("ab\ncd e\nfgh\n" * 2)).expand(tokens.mask.shape)
    return tokens._replace(segments=algorithm.segment(text, tokens.mask, TEXT))


def test_lengths():
    segments = torch.tensor([[0, 0, 0, 1, 2, 2, -1], [0, -1, -1, -1, -1, -1, -1]])
    assert lengths(segments).tolist() == [[3, 3, 3, 1, 2, 2, 0], [1, 0, 0, 0, 0, 0, 0]]


def test_segmenters():
    text = torch.tensor([TEXT.encode("ab c\nd\nef\n")])
    mask = torch.tensor([[True] * 9 + [False]])
    expected = {
        "line_break": [0, 0, 0, 0, 0, 1, 1, 2, 2, -1],
        "space": [0, 0, 0, 1, 1, 1, 1, 1, 1, -1],
        "token": [0, 1, 2, 3, 4, 5, 6, 7, 8, -1],
        "response": [0] * 9 + [-1],
        "fixed": [0] * 8 + [1, -1],
    }
    assert {name: function(text, mask, TEXT)[0].tolist() for name, function in SEGMENTERS.items()} == expected


def test_thresholds_by_share_are_those_of_the_complete_batch():
    """In scalar loops; what is not by share stays the same object."""
    shares = {"entropy_low": 0.25, "entropy_high": 0.75, "entropy_thresholds": "quantile"}
    algorithm = Algorithm("mine", segmenter="fixed", settings={**TABLE.algorithms["sspo"].settings, **shares})
    tokens, log_prob = random_tokens(3)
    tokens = at_segmenter(algorithm, tokens)
    h = [
        sum(float(tokens.entropy[i, t]) for t in members) / len(members)
        for i, row in enumerate(segments_of(tokens))
        for members in row
    ]
    ids = torch.zeros(tokens.mask.shape, dtype=torch.long)
    found = algorithm.for_batch(ids, tokens.mask, tokens.entropy, TEXT)
    nats = [found.settings[name] for name in ("entropy_low", "entropy_high")]
    assert nats == pytest.approx(np.quantile(h, [0.25, 0.75]), rel=1e-6)
    assert 0 < sum(each < nats[0] for each in h) < len(h) / 3
    assert found.for_batch(ids, tokens.mask, tokens.entropy, TEXT) is found
    with pytest.raises(AssertionError, match="thresholds are shares"):
        algorithm.token_loss(log_prob, tokens)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "clip"}, "loss must be one of clipped, product, capped, none, got 'clip'"),
        ({"segmenter": "line"}, "segmenter must be one of"),
        ({"settings": {"clip_low": 0.8}}, "missing clip_high"),
        ({"settings": {"clip_low": 0.8, "clip_high": 1.2, "cap": 2}}, "unknown cap"),
        ({"settings": {"clip_low": 0.8, "clip_high": 1.2, "entropy_clip": True}}, "missing alpha, clip_low_tight"),
        ({"loss": "none", "settings": {"cap": 2}}, "unknown cap"),
    ],
)
def test_a_wrong_algorithm_is_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=f"algorithm mine: .*{message}"):
        Algorithm("mine", **arguments)
