"""The study's model: transformers' Qwen2 in its log-probabilities and its greedy text; the sampler's distribution."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.study import model

END = 18
SHAPE = model.Shape(width=64, layers=2, vocabulary=19)


@pytest.fixture(scope="module")
def net():
    return model.Qwen2(model.new_weights(SHAPE, seed=1, std=0.3))


@pytest.fixture(scope="module")
def theirs(net):
    config = Qwen2Config(
        vocab_size=SHAPE.vocabulary,
        hidden_size=SHAPE.width,
        intermediate_size=SHAPE.inner,
        num_hidden_layers=SHAPE.layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=0,
    )
    found = Qwen2ForCausalLM(config).eval()
    found.load_state_dict(net.weights(), strict=False)
    return found


def prompts_of(seed, rows=6):
    return torch.randint(0, END, (rows, 5), generator=torch.Generator().manual_seed(seed))


def test_log_probabilities_are_transformers(net, theirs):
    for seed in range(3):
        prompts, responses = prompts_of(seed), prompts_of(seed + 10)
        log_prob, table = net.log_probs(prompts, responses)
        logits = theirs(torch.cat((prompts, responses), 1)).logits[:, 4:-1]
        torch.testing.assert_close(table, logits.log_softmax(-1), rtol=1e-4, atol=1e-5)
        assert torch.equal(log_prob, table.gather(2, responses[..., None])[..., 0])


def test_greedy_text_is_transformers_generate(net, theirs):
    prompts = prompts_of(3)
    found = net.sample(prompts, None, END, 12)
    text = theirs.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=12, do_sample=False)[:, 5:]
    length = found.tokens.shape[1]
    assert torch.equal((found.tokens * found.mask)[:, :length], text[:, :length] * found.mask)
    assert len(set(map(tuple, text.tolist()))) > 2


def test_sampled_tokens_follow_the_distribution(net):
    """The first two tokens of one prompt, 10,000 times, against the exact probabilities."""
    count = 10_000
    uniform = torch.rand(2, count, generator=torch.Generator().manual_seed(0))
    prompt = prompts_of(4, rows=1)
    found = net.sample(prompt.expand(count, -1), uniform, END, 2)
    first = net.log_probs(prompt, torch.zeros(1, 1, dtype=torch.long))[1][0, 0].exp()
    everything = torch.cartesian_prod(torch.arange(END), torch.arange(19))
    table = net.log_probs(prompt.expand(len(everything), -1), everything)[0].sum(1).exp()
    pairs = torch.bincount((found.tokens[:, 0] * 19 + found.tokens[:, 1])[found.mask[:, 1]], minlength=END * 19)
    for seen, p in ((torch.bincount(found.tokens[:, 0], minlength=19), first), (pairs, table)):
        assert ((seen / count - p).abs() < 5 * (p * (1 - p) / count).sqrt() + 1e-4).all()


def test_the_entropy_and_the_mask_of_samples(net):
    uniform = torch.rand(30, 6, generator=torch.Generator().manual_seed(1))
    prompts = prompts_of(5)
    found = net.sample(prompts, uniform, END, 30)
    _, table = net.log_probs(prompts, found.tokens)
    entropy = -(table.exp() * table).sum(-1)
    torch.testing.assert_close(found.entropy[found.mask], entropy[found.mask], rtol=1e-4, atol=1e-4)
    for tokens, mask in zip(found.tokens, found.mask, strict=True):
        ends = (tokens == END).nonzero().flatten().tolist()
        assert mask.sum() == (ends[0] + 1 if ends else len(tokens))
    assert (~found.mask).any()


def test_draw_is_the_inverse_of_the_cumulative_probability():
    p = torch.tensor([[0.2, 0.0, 0.5, 0.3]]).expand(6, 4)
    uniform = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.71, 0.999999])
    assert model.draw(p, uniform).tolist() == [0, 0, 2, 2, 3, 3]
    assert model.draw(torch.tensor([[0.0, 1.0]]), torch.zeros(1)).tolist() == [1]  # never a token of probability 0


def test_weights_survive_a_file(net, tmp_path):
    file = tmp_path / "a.safetensors"
    model.save(net, file, "how")
    weights, record = model.load(file)
    assert record == "how"
    assert weights.keys() == net.weights().keys()
    for name, weight in model.Qwen2(weights).weights().items():
        torch.testing.assert_close(weight, net.weights()[name], rtol=1e-3, atol=1e-3)
