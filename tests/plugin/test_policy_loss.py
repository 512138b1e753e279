"""The registered loss and advantage, called as verl calls them."""

import numpy as np
import pytest
import torch
import verl  # noqa: F401  loads the plugin
from tensordict import TensorDict
from verl.trainer.ppo.core_algos import agg_loss, get_adv_estimator_fn, get_policy_loss_fn
from verl.utils import tensordict_utils as tu
from verl.utils.metric import Metric
from verl.workers.config import PolicyLossConfig
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import left_right_2_no_padding
from verl_batch import PROMPT_LENGTH, TOKENIZER, actor_config, micro_batch, padded, responses

from sspo_verl.config import SSPOPolicyLossConfig
from sspo_verl.loss import sspo_token_loss
from sspo_verl.metrics import finalize, guard
from sspo_verl.plugin.actor import COUNTS, ROWS, SHARES
from sspo_verl.segments import line_break_table, segment_ids

EVERYTHING = [0, 1, 2, 3]


def by_the_core(rows, **settings):
    """Loss and gradient straight from the core, on padded tensors, reduced by verl's agg_loss."""
    config = SSPOPolicyLossConfig(**settings)
    mask = padded(rows["response_mask"])
    log_prob = padded(rows["log_prob"]).requires_grad_()
    token_loss = sspo_token_loss(
        old_log_prob=padded(rows["old_log_prob"]),
        log_prob=log_prob,
        advantages=padded(rows["advantages"]),
        response_mask=mask,
        segment_ids=segment_ids(padded(rows["responses"]), mask, line_break_table(TOKENIZER)),
        entropy=padded(rows["entropy"]),
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        clip_low_tight=config.clip_low_tight,
        alpha=config.alpha,
        entropy_low=config.entropy_low,
        entropy_high=config.entropy_high,
        entropy_clip=config.entropy_clip,
        dual_clip=config.dual_clip,
    )
    loss = agg_loss(token_loss, mask, "seq-mean-token-mean")
    loss.backward()
    return loss.detach(), log_prob.grad


def response_grad(log_probs, rows, pick):
    """verl's gradient on prompt and response, as [batch, length] of the response."""
    grads = torch.nested.nested_tensor_from_jagged(log_probs.grad.values(), log_probs.offsets()).unbind()
    lengths = [len(rows["responses"][i]) for i in pick]
    return [grad[-n - 1 : -1] for grad, n in zip(grads, lengths, strict=True)]


@pytest.mark.parametrize("entropy_source", ["old", "current"])
def test_ppo_loss_with_sspo_is_the_core(entropy_source):
    rows = responses(seed=0)
    data, output = micro_batch(rows, EVERYTHING)
    config = actor_config(SSPOPolicyLossConfig(entropy_source=entropy_source))
    loss, _ = ppo_loss(config=config, model_output=output, data=data)
    loss.backward()

    expected, grad = by_the_core(rows)
    assert expected.abs() > 1e-3
    torch.testing.assert_close(loss.detach(), expected)
    got = padded(response_grad(output["log_probs"], rows, EVERYTHING))
    assert got.abs().sum() > 0
    torch.testing.assert_close(got, grad)


def test_the_dual_clip_reaches_the_loss():
    rows = responses(seed=0)
    rows["advantages"] = [-advantages.abs() for advantages in rows["advantages"]]
    losses = []
    for settings in ({}, {"dual_clip": 1.05}):
        data, output = micro_batch(rows, EVERYTHING)
        loss, _ = ppo_loss(config=actor_config(SSPOPolicyLossConfig(**settings)), model_output=output, data=data)
        torch.testing.assert_close(loss.detach(), by_the_core(rows, **settings)[0])
        losses.append(loss.item())
    assert losses[1] < losses[0] - 0.01


def test_the_two_entropy_sources_are_told_apart():
    rows = responses(seed=0)
    losses = []
    for source in ("old", "current"):
        data, output = micro_batch(rows, EVERYTHING)
        data["entropy"], output["entropy"] = data["entropy"] * 0, output["entropy"] * 0 + 5.0
        losses.append(ppo_loss(actor_config(SSPOPolicyLossConfig(entropy_source=source)), output, data)[0].item())
    assert losses[0] != pytest.approx(losses[1], abs=1e-6)


def test_loss_gradient_and_metrics_do_not_depend_on_the_cut_into_micro_batches():
    rows = responses(seed=1)
    config = actor_config(SSPOPolicyLossConfig())

    def run(cuts):
        losses, metrics, grads, counts = [], {}, {}, []
        for pick in cuts:
            data, output = micro_batch(rows, pick)
            loss, new = ppo_loss(config=config, model_output=output, data=data)
            loss.backward()
            losses.append(loss.detach())
            grads |= dict(zip(pick, response_grad(output["log_probs"], rows, pick), strict=True))
            counts.append(new.pop(COUNTS).value)
            for key, value in new.items():
                metrics.setdefault(key, value.init_list()).append(value)
        usual = {key: metric.aggregate() for key, metric in metrics.items()}
        return sum(losses), padded([grads[i] for i in EVERYTHING]), usual | finalize.metrics(counts)

    full, cut = run([EVERYTHING]), run([[2], [0, 3], [1]])
    torch.testing.assert_close(full[0], cut[0])
    torch.testing.assert_close(full[1], cut[1])
    assert full[2] == pytest.approx(cut[2])
    # "ab\n" "c\n\n" "d\0<end>"; one line, cut in two by the mask; "x\n" "y\n" "z\n<end>"; "\n\n q\n<end>"
    assert full[2]["sspo/segments_per_response"] == pytest.approx((3 + 2 + 3 + 1) / 4)


@pytest.mark.parametrize("diagnostics", [True, False])
@pytest.mark.parametrize("rejected", [False, True])
def test_clip_fraction_counts_the_tokens_without_gradient(diagnostics, rejected):
    """The mean is of the valid tokens: `rollout_rs` changes the response mask, and not batch_num_tokens."""
    rows = responses(seed=2)
    tokens = int(sum(mask.sum() for mask in rows["response_mask"]))
    if rejected:
        for mask in rows["response_mask"]:
            mask[::2] = 0
    data, output = micro_batch(rows, EVERYTHING)
    tu.assign_non_tensor(data, batch_num_tokens=tokens)
    loss, metrics = ppo_loss(actor_config(SSPOPolicyLossConfig(diagnostics=diagnostics)), output, data)
    loss.backward()
    grad = torch.cat(response_grad(output["log_probs"], rows, EVERYTHING))
    valid = torch.cat(rows["response_mask"]) != 0
    without = (grad[valid] == 0).float().mean().item()
    assert 0 < without < 1
    assert metrics["actor/pg_clipfrac"].aggregate() == pytest.approx(without)
    _, verls = ppo_loss(actor_config(PolicyLossConfig(loss_mode="gspo")), output, data)
    assert metrics["actor/ppo_kl"].aggregate() == pytest.approx(verls["actor/ppo_kl"].aggregate(), rel=1e-5)
    assert (COUNTS in metrics) == diagnostics


def test_two_ranks_average_to_one():
    """verl averages gradients and losses over ranks, so each rank's share is multiplied by their number."""
    rows = responses(seed=3)
    config = actor_config(SSPOPolicyLossConfig())
    loss, metrics = ppo_loss(config, *reversed(micro_batch(rows, EVERYTHING)))
    halves = [ppo_loss(config, *reversed(micro_batch(rows, pick, dp_size=2))) for pick in ([0, 3], [1, 2])]
    torch.testing.assert_close(sum(half[0] for half in halves) / 2, loss)
    assert Metric.aggregate_dp([half[1]["actor/pg_loss"] for half in halves]) == pytest.approx(loss.item())
    for key in SHARES:
        both = halves[0][1][key].init_list()
        for _, of_rank in halves:
            both.append(of_rank[key])
        assert both.aggregate() == pytest.approx(metrics[key].aggregate()), key


BROKEN = {  # what fails, and what is left of the metrics
    "counts.observe": {COUNTS, *SHARES},
    "counts.Observation.fetch": {COUNTS, *SHARES},
    "dump.records": {COUNTS, *SHARES},
    "travel.Share": {COUNTS, ROWS},
}


@pytest.mark.parametrize("broken", BROKEN)
def test_diagnostics_that_fail_do_not_end_a_run(monkeypatch, capfd, broken):
    """They are said once, counted and left out; the update is the same."""
    rows, config = responses(seed=4), actor_config(SSPOPolicyLossConfig(dump_segments=3))

    def run():
        data, output = micro_batch(rows, EVERYTHING)
        data["uid"], data["session_id"] = list("abcd"), torch.zeros(4, dtype=torch.int64)
        loss, metrics = ppo_loss(config, output, data)
        loss.backward()
        return output["log_probs"].grad.values(), metrics

    want, _ = run()

    def fails(*_, **__):
        raise ZeroDivisionError("by the\ntest")

    monkeypatch.setattr(f"sspo_verl.metrics.{broken}", fails)
    monkeypatch.setattr(guard, "_said", set())
    (got, metrics), (_, again) = run(), run()
    assert torch.equal(got, want)
    ours = {COUNTS, ROWS, *SHARES}
    assert metrics.keys() & ours == again.keys() & ours == BROKEN[broken]
    counted = finalize.metrics([metrics[COUNTS].value, again[COUNTS].value])
    assert counted["sspo/diagnostics_failed"] == 2
    assert ("sspo/token_entropy" in counted) == (not broken.startswith("counts"))
    printed, traceback = capfd.readouterr()
    assert printed.count("WARNING") == 1
    assert "ZeroDivisionError: by the test" in printed
    assert traceback.count("Traceback") == 1


@pytest.mark.parametrize("mode", ["sspo", "vanilla"])
def test_what_is_not_finite_does_not_end_a_run(mode):
    """Log ratios of +inf and of -inf, entropies that are NaN: in two micro-batches, which are added up."""
    rows = responses(seed=4)
    rows["log_prob"][0][0], rows["old_log_prob"][2][0] = -torch.inf, -torch.inf
    rows["entropy"][3][1] = torch.nan
    total, shares = None, {}
    for pick in ([0, 1], [2, 3]):
        data, output = micro_batch(rows, pick)
        config = actor_config(SSPOPolicyLossConfig(loss_mode=mode, diagnostics=True))
        _, metrics = ppo_loss(config, output, data)
        total = metrics[COUNTS].value if total is None else total + metrics[COUNTS].value
        for name in SHARES:
            shares.setdefault(name, metrics[name].init_list()).append(metrics[name])
    found = finalize.metrics([total])
    assert (found["sspo/nonfinite/log_ratio"], found["sspo/nonfinite/entropy"]) == (2, 1)
    assert all(np.isfinite(value) for value in found.values())
    assert mode == "vanilla" or all(np.isfinite(shares[name].aggregate()) for name in SHARES)


def test_the_padded_batch_of_verls_separate_trainers_gives_the_same_loss():
    """fully_async and one_step_off pad their batches, and hand over no entropy of the old_log_prob pass."""
    rows = responses(seed=0)
    nested, output = micro_batch(rows, EVERYTHING)
    mask = padded([torch.ones_like(row) for row in rows["responses"]])
    prompts = torch.full((len(mask), PROMPT_LENGTH), 65)
    attention_mask = torch.cat([torch.ones_like(prompts), mask], dim=1)
    batch = {
        "prompts": prompts,
        "responses": padded(rows["responses"]),
        "input_ids": torch.cat([prompts, padded(rows["responses"])], dim=1),
        "attention_mask": attention_mask,
        "position_ids": attention_mask.cumsum(dim=1) - 1,
        "response_mask": padded(rows["response_mask"]),
        "old_log_probs": padded(rows["old_log_prob"]),
        "advantages": padded(rows["advantages"]),
    }
    data = left_right_2_no_padding(TensorDict(batch, batch_size=len(mask)))
    for key in ("dp_size", "batch_num_tokens", "global_batch_size"):
        tu.assign_non_tensor(data, **{key: nested[key]})
    for settings in ({"entropy_source": "current"}, {"entropy_clip": False}):
        loss, metrics = ppo_loss(actor_config(SSPOPolicyLossConfig(**settings)), output, data)
        torch.testing.assert_close(loss.detach(), by_the_core(rows, **settings)[0])
        assert metrics[COUNTS].value.scalars["responses"] == len(mask)
    with pytest.raises(RuntimeError, match=r"entropy_source=current"):
        ppo_loss(actor_config(SSPOPolicyLossConfig()), output, data)


def test_rollout_weights_multiply_the_token_loss():
    rows = responses(seed=4)
    data, output = micro_batch(rows, EVERYTHING)
    plain, _ = ppo_loss(actor_config(SSPOPolicyLossConfig()), output, data)
    data["rollout_is_weights"] = torch.nested.as_nested_tensor(
        [torch.where(mask != 0, 2.0, float("nan")) for mask in rows["response_mask"]], layout=torch.jagged
    )
    weighted, _ = ppo_loss(actor_config(SSPOPolicyLossConfig()), output, data)
    torch.testing.assert_close(weighted, 2 * plain)


def test_a_batch_without_a_valid_token_has_the_loss_zero():
    rows = responses(seed=5)
    rows["response_mask"] = [torch.zeros_like(mask) for mask in rows["response_mask"]]
    for mode in ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum"):
        data, output = micro_batch(rows, EVERYTHING)
        del output["entropy"]  # of which verl makes a loss of its own, 0/0 here
        config = actor_config(SSPOPolicyLossConfig())
        object.__setattr__(config, "loss_agg_mode", mode)
        loss, metrics = ppo_loss(config, output, data)
        loss.backward()
        assert loss.item() == 0
        assert output["log_probs"].grad.values().abs().sum() == 0
        assert metrics["actor/pg_clipfrac"].aggregate() == 0


def test_verls_other_losses_are_left_alone():
    data, output = micro_batch(responses(seed=6), EVERYTHING)
    _, metrics = ppo_loss(actor_config(PolicyLossConfig()), output, data)
    assert not any("sspo" in key for key in metrics)
    assert metrics["actor/pg_clipfrac"].aggregate() > 0


def test_without_the_plugins_config_class_the_error_says_what_to_do():
    data, output = micro_batch(responses(seed=7), EVERYTHING)
    with pytest.raises(TypeError, match="algorithm=sspo"):
        ppo_loss(actor_config(PolicyLossConfig(loss_mode="sspo")), output, data)


def test_outside_an_actors_update_the_error_says_what_to_do():
    tensor = torch.zeros(1, 1)
    with pytest.raises(RuntimeError, match=r"sspo_verl\.loss\.sspo_token_loss"):
        get_policy_loss_fn("sspo")(tensor, tensor, tensor, tensor, "token-mean", actor_config(SSPOPolicyLossConfig()))


@pytest.mark.parametrize(("source", "advice"), [("old", "entropy_source=current"), ("current", "calculate_entropy")])
def test_missing_entropy_is_an_error_that_names_the_key(source, advice):
    data, output = micro_batch(responses(seed=8), EVERYTHING)
    del data["entropy"], output["entropy"]
    with pytest.raises(RuntimeError, match=advice):
        ppo_loss(actor_config(SSPOPolicyLossConfig(entropy_source=source)), output, data)


def test_without_entropy_clipping_no_entropy_is_needed():
    rows = responses(seed=9)
    data, output = micro_batch(rows, EVERYTHING)
    del data["entropy"], output["entropy"]
    loss, _ = ppo_loss(actor_config(SSPOPolicyLossConfig(entropy_clip=False)), output, data)
    torch.testing.assert_close(loss.detach(), by_the_core(rows, entropy_clip=False)[0])


def test_advantage_estimator_is_grpos_on_its_own_ground():
    torch.manual_seed(0)
    index = np.array(["b", "a", "b", "a", "b", "a"], dtype=object)
    rewards, mask = torch.zeros(6, 5), torch.ones(6, 5)
    rewards[:, 3] = torch.randn(6)
    mask[2, 2:] = 0
    for normalize in (True, False):
        config = {"norm_adv_by_std_in_grpo": normalize}
        got, returns = get_adv_estimator_fn("sspo")(
            token_level_rewards=rewards, response_mask=mask, index=index, config=config
        )
        expected, _ = get_adv_estimator_fn("grpo")(
            rewards.clone(), mask, index=index, norm_adv_by_std_in_grpo=normalize
        )
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(returns, expected)


def test_groups_that_teach_nothing_get_exactly_zero():
    rewards = torch.full((5, 1), 0.1)
    advantages, _ = get_adv_estimator_fn("sspo")(
        token_level_rewards=rewards, response_mask=torch.ones(5, 1), index=np.array(["a", "a", "a", "a", "alone"])
    )
    assert (advantages == 0).all()
