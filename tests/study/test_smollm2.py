"""SmolLM2 in the study: the prompts' common columns change nothing, and sampling follows the tempered policy."""

import json
import random

import pytest
import torch
from transformers import LlamaConfig

from benchmarks.study import smollm2
from benchmarks.study.tasks import TASKS
from sspo_verl.tools.quickstart import tokenizer as byte_tokenizer
from sspo_verl.tools.tasks import counting

END = 18


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """A small Llama of SmolLM2's shape, grouped queries and all, with large random weights."""
    folder = tmp_path_factory.mktemp("model")
    sizes = {"vocab_size": 19, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=3, num_key_value_heads=1, tie_word_embeddings=True)
    config.save_pretrained(folder)
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smollm2, "FOLDER", folder)
        made = smollm2._new_net()
        made.load_state_dict({name: 5 * weight for name, weight in made.state_dict().items()})
        yield smollm2.SmolLM2(made.state_dict())


def prompts_of(seed, common, rows=6):
    prompts = torch.randint(0, END, (rows, 9), generator=torch.Generator().manual_seed(seed))
    prompts[:, :common] = prompts[0, :common]
    return prompts


@pytest.mark.parametrize("common", [0, 5, 9])
def test_log_probabilities_and_gradients_are_those_of_complete_rows(net, common):
    prompts, responses = prompts_of(1, common), prompts_of(2, 0)
    assert smollm2.shared_columns(prompts) == min(common, 8)
    log_prob, table = net.log_probs(prompts, responses)
    logits = net.net(torch.cat((prompts, responses), 1)).logits[:, 8:-1]
    expected = (logits / smollm2.TEMPERATURE).log_softmax(-1)
    torch.testing.assert_close(table, expected, rtol=1e-4, atol=1e-5)
    found = expected.gather(2, responses[..., None])[..., 0]
    torch.testing.assert_close(log_prob, found, rtol=1e-4, atol=1e-5)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = (
        torch.cat([g.flatten() for g in torch.autograd.grad((weight * x).sum(), list(net.parameters()))])
        for x in (log_prob, found)
    )
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()
    assert theirs.abs().max() > 1


def test_samples_are_what_the_policy_says(net, monkeypatch):
    """In pieces of four rows: entropy, end, and each token by inversion of its probabilities."""
    monkeypatch.setattr(smollm2, "ROWS", 4)
    prompts = prompts_of(3, 6, rows=10)
    uniform = torch.rand(12, 10, generator=torch.Generator().manual_seed(4))
    found = net.sample(prompts, uniform, END, 12)
    _, table = net.log_probs(prompts, found.tokens)
    below = table.exp().cumsum(2)
    drawn = (below <= uniform[: found.tokens.shape[1]].T[..., None]).sum(2)
    assert torch.equal(drawn[found.mask], found.tokens[found.mask])
    entropy = -(table.exp() * table).sum(2)
    torch.testing.assert_close(found.entropy[found.mask], entropy[found.mask], rtol=1e-3, atol=1e-4)
    for tokens, mask in zip(found.tokens, found.mask, strict=True):
        assert END not in tokens[mask][:-1].tolist()
        assert mask.all() or tokens[mask][-1] == END
    greedy = net.sample(prompts, None, END, 3)
    assert torch.equal(greedy.tokens[:, 0], net.log_probs(prompts, greedy.tokens)[1][:, 0].argmax(1))


@pytest.mark.parametrize(("name", "steps"), [("counting", 3), ("long_counting", 15)])
def test_counting(name, steps):
    task, rng = TASKS[name], random.Random(0)
    train, held_out = task.problems(rng, 200, held_out=False), task.problems(rng, 200, held_out=True)
    assert not set(train) & set(held_out)
    assert set(held_out) < set(counting.splits()["test"])
    for problem in train[:20]:
        text = task.solution(problem, rng)
        assert len(text.splitlines()) == steps + 1
        assert task.is_solved(text, problem)
        assert not task.is_solved(text, problem + 1)
        assert not task.is_solved(text[:-1], problem)


def test_a_model_that_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(smollm2, "FOLDER", tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"python scripts/smollm2.py makes it; SSPO_MODEL"):
        smollm2._new_net()


def test_text_of_a_model(monkeypatch, tmp_path):
    """By the byte tokenizer in its folder: what is encoded is decoded, without the end."""
    byte_tokenizer.build().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    monkeypatch.setattr(smollm2, "FOLDER", tmp_path)
    monkeypatch.setattr(smollm2, "tokenizer", smollm2.tokenizer.__wrapped__)
    text = smollm2.text.__wrapped__()
    assert text.decode([*text.encode("1\n2"), text.end]) == "1\n2"
    assert text.table[text.encode("\n")].item() & 1
