"""Tasks, updates, trainings and gradient quality of the study, in small and against plain arithmetic."""

import random

import pytest
import torch

from benchmarks.study import gradient, train
from benchmarks.study.losses import Algorithm
from benchmarks.study.model import Qwen2
from benchmarks.study.rollout import collect, kl, measure
from benchmarks.study.segmenters import SEGMENTERS
from benchmarks.study.tasks import TASKS
from benchmarks.study.text import of_bytes
from benchmarks.study.through_verl import ThroughVerl, write_start
from benchmarks.study.update import Counts, new_optimizer, one_pass, update
from benchmarks.study.warm_up import STARTS, start
from sspo_verl.tools.quickstart import tokenizer as byte_tokenizer

GRPO = Algorithm("grpo", settings={"clip_low": 0.8, "clip_high": 1.2})
SSPO = Algorithm("band", segmenter="line_break", settings={"clip_low": 0.7, "clip_high": 1.3})
pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning")  # of a package that reasoning-gym imports
LINES = {"sums": 7, "long_sums": 19, "long_spaces": 1, "mini_sudoku": 4}


def batch_of(seed, prompts=4, group=4, micro=4):
    net = Qwen2(start("sums"))
    generator = torch.Generator().manual_seed(seed)
    return collect(net, TASKS["sums"], random.Random(seed), generator, prompts, group, micro)


# Tasks


@pytest.mark.parametrize("name", LINES)
def test_a_task(name):
    """Prompts of one length, held-out problems apart, a writer who sometimes errs, and a reward that sees it."""
    task, rng = TASKS[name], random.Random(3)
    problems, held_out = task.problems(rng, 60, held_out=False), task.problems(rng, 60, held_out=True)
    assert not set(problems) & set(held_out)
    assert task.encode_prompts(problems + held_out).dim() == 2
    texts = [task.solution(problem, rng) for problem in problems]
    solved = [task.is_solved(text, problem) for text, problem in zip(texts, problems, strict=True)]
    assert 5 < sum(solved) < 55
    assert not any(task.is_solved(text[:-1], problem) for text, problem in zip(texts, problems, strict=True))
    assert all(len(text) + 1 <= task.limit for text in texts)
    ids = torch.tensor([of_bytes().encode(text.ljust(task.limit, "x")) for text in texts])
    lengths = torch.tensor([[len(text)] for text in texts])
    segments = SEGMENTERS["line_break"](ids, torch.arange(task.limit) < lengths, of_bytes())
    assert set((segments.max(1).values + 1).tolist()) == {LINES[name]}


def test_the_sudoku_is_solved_as_its_verifier_says():
    from reasoning_gym import create_dataset

    data = create_dataset("mini_sudoku", seed=1, size=48_000, min_empty=6, max_empty=9)
    for index in range(20):
        entry = data[index]
        puzzle = entry["question"].split("puzzle:\n")[1].split("\nFormat")[0]
        assert TASKS["mini_sudoku"].is_solved(entry["answer"], (puzzle, entry["answer"]))
        assert data.score_answer(entry["answer"], entry) == 1
        wrong = entry["answer"].translate(str.maketrans("1234", "2143"))
        assert not TASKS["mini_sudoku"].is_solved(wrong, (puzzle, entry["answer"]))
        assert data.score_answer(wrong, entry) < 1


def test_text_is_encoded_as_the_tokenizer_does():
    text, written = of_bytes(), "12+3=15\nok #### 15"
    assert text.encode(written) == byte_tokenizer.build().encode(written)
    assert text.decode([*text.encode(written), text.end]) == written


@pytest.mark.parametrize("name", [file.stem for file in sorted(STARTS.glob("*.safetensors"))])
def test_a_starting_model_solves_some(name):
    assert (STARTS / f"{name}.safetensors").stat().st_size < 1_000_000
    accuracy = measure(Qwen2(start(name)), TASKS[name], 0, 100).accuracy
    assert 0.03 < accuracy < 0.7


# Batches and updates


def test_a_batch_is_in_groups_with_rewards_and_advantages():
    batch = batch_of(0, prompts=6)
    for begin in range(0, 24, 4):
        group = slice(begin, begin + 4)
        assert (batch.prompts[group] == batch.prompts[begin]).all()
        rewards = batch.rewards[group]
        expected = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        torch.testing.assert_close(batch.advantages[group], expected, rtol=1e-4, atol=1e-5)
    assert kl(Qwen2(start("sums")), batch, micro=4) == 0
    assert batch.rewards.any()


def test_micro_batches_do_not_change_an_update():
    nets = []
    for micro in (32, 4):
        net, batch = Qwen2(start("sums")), batch_of(1)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("benchmarks.study.rollout.LARGEST_MICRO_BATCH", micro)
            update(net, optimizer, GRPO, batch, Counts())
        nets.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    torch.testing.assert_close(*nets, rtol=1e-4, atol=1e-6)
    assert not torch.equal(nets[0], torch.cat([p.detach().flatten() for p in Qwen2(start("sums")).parameters()]))


def test_counts_of_what_was_clipped():
    counts = Counts()
    advantages = torch.tensor([[1.0] * 4, [-1.0] * 4, [0.0] * 4])
    mask = torch.tensor([[True] * 4, [True] * 3 + [False], [True] * 4])
    gradient = torch.tensor([[1.0, 0, 0, 1], [1, 1, 0, 0], [0.0] * 4])
    segments = torch.tensor([[0, 0, 0, 1], [0, 0, 0, -1], [0, 0, 0, 0]])
    counts.add(gradient, advantages, mask, segments)
    assert (counts.tokens, counts.with_gradient) == (11, 4)
    assert (counts.clipped_high, counts.clipped_low) == (2, 1)
    assert counts.by_length == [7, 0, 0, 0, 0]
    assert counts.clipped_by_length == [3, 0, 0, 0, 0]
    counts.add(torch.zeros(1, 40), torch.ones(1, 40), torch.ones(1, 40).bool(), torch.zeros(1, 40, dtype=torch.long))
    assert counts.clipped_by_length == [3, 0, 0, 40, 0]
    assert counts.shares()["clipped_high"] == 42 / 51


def test_a_pass_looks_at_each_response_once():
    net, batch = Qwen2(start("sums")), batch_of(2)
    counts = one_pass(net, new_optimizer(net, 1e-4), SSPO, batch, 4)
    assert counts.tokens == int(batch.mask.sum())


# Trainings


def test_staleness_is_the_lag_of_the_sampler():
    """Without a step of the optimizer nothing lags; with a lag of 1, the second batch is still the start's."""
    common = {"task": "sums", "algorithm": SSPO, "updates": 2, "seed": 0, "steps": 2, "every": 2}
    common |= {"prompts": 2, "group": 4, "held_out": 8}
    fresh, stale = (train.Train(learning_rate=1e-3, staleness=lag, **common).run()["curves"] for lag in (0, 1))
    unmoved = train.Train(learning_rate=0.0, **common).run()["curves"]
    assert fresh["reward"][0] == stale["reward"][0] == unmoved["reward"][0]
    assert stale["reward"][1] == unmoved["reward"][1]
    assert stale["kl"][1] > fresh["kl"][1] > 0
    assert unmoved["kl"] == pytest.approx([0, 0], abs=1e-9)


def test_summary_of_a_training():
    # Trapezoids of 0.2, 0.6, 0.4: (0.4 + 0.5) / 2
    assert train.summary([0.2, 0.6, 0.4]) == pytest.approx({"final": 0.4, "area": 0.45, "collapsed": 0})
    assert train.summary([0.2, 0.6, 0.39])["collapsed"] == 1
    assert train.summary([0.2, 0.2, 0.1])["collapsed"] == 1


# Gradients


def test_quality_of_gradients_by_hand():
    # E g* = (2, 0) exactly. g_b = (1, 1) and (1, -1): mean (1, 0), variance 1 + 1 = 2, |E g|^2 = 1 - 2 / 2 = 0.
    reference = torch.tensor([[2.0, 0.0]] * 4)
    found = gradient.quality_of(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), reference)
    assert found["cosine"] == pytest.approx(0.5**0.5)
    assert found["variance"] == pytest.approx(2 / 4)
    assert found["bias"] == pytest.approx((0 + 4 - 2 * 2) / 4)
    assert found["snr"] == pytest.approx(0)
    # The gradient itself has no bias and no variance.
    assert gradient.quality_of(reference, reference) == pytest.approx(
        {"cosine": 1, "cosine_mean": 1, "bias": 0, "variance": 0, "snr": 4e20}
    )


def test_an_estimators_gradient_is_that_of_its_loss():
    net, batch = Qwen2(start("sums")), batch_of(3)
    found = gradient.minibatch_gradients(net, batch, [GRPO, gradient.ON_POLICY])
    torch.testing.assert_close(found[0], found[1])  # nothing has moved: all are the policy gradient
    log_prob, _ = net.log_probs(batch.prompts, batch.responses)
    loss = -(batch.advantages[:, None] * log_prob * batch.mask).sum(1) / batch.mask.sum(1) / len(batch.mask)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss.sum(), list(net.parameters()))])
    torch.testing.assert_close(found[1], expected, rtol=1e-3, atol=1e-5)


def test_a_pair_of_policies_drifts_to_its_target():
    settings = {"old": 64, "on_policy": 64, "minibatch": 32}
    found = gradient.Gradient("sums", SSPO, 1e-4, 0.002, (GRPO, SSPO), 0, **settings).run()
    assert 0.002 <= found["kl"] < 0.05
    assert found["estimators"].keys() == {"grpo", "band"}
    assert found["on-policy"]["variance"] > 0


# Through verl


def test_verl_gets_the_same_model_and_settings(tmp_path):
    from transformers import AutoModelForCausalLM

    write_start(tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    batch = batch_of(4)
    length = batch.prompts.shape[1]
    logits = theirs(torch.cat((batch.prompts, batch.responses), 1)).logits[:, length - 1 : -1]
    log_prob = logits.log_softmax(-1).gather(2, batch.responses[..., None])[..., 0]
    torch.testing.assert_close(log_prob * batch.mask, batch.old_log_prob, rtol=1e-3, atol=1e-4)
    overrides = ThroughVerl("sums", Algorithm("grpo", settings=GRPO.settings), 4, 1e-4, 7).overrides()
    assert {"data.seed=7", "actor_rollout_ref.actor.ppo_mini_batch_size=4"} <= set(overrides)


def test_verl_takes_only_what_it_has():
    with pytest.raises(ValueError, match="algorithm one of sspo, sspo_no_entropy_clip, grpo, gspo"):
        ThroughVerl("sums", Algorithm("none", "none"), 4, 1e-4, 0)
