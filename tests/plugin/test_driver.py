"""What the driver makes of the actors' counts: metrics of a step, warnings, fields of the dumps."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import verl  # noqa: F401  loads the plugin
from compose import trainer_config
from verl.trainer.ppo.v1 import trainer_base
from verl.utils.metric import Metric, reduce_metrics
from verl.workers.config import PolicyLossConfig
from verl.workers.utils.losses import ppo_loss
from verl_batch import TOKENIZER, actor_config, micro_batch, responses

from sspo_verl.config import SSPOPolicyLossConfig
from sspo_verl.metrics import dump, finalize, guard
from sspo_verl.metrics.counts import Segments
from sspo_verl.metrics.names import DUMP_FIELDS
from sspo_verl.plugin import driver
from sspo_verl.plugin.actor import COUNTS, ROWS
from sspo_verl.plugin.run_settings import ROLLOUT

ACTOR = "actor_rollout_ref.actor"
POLICY_LOSS = f"{ACTOR}.policy_loss"
EVERYTHING = [0, 1, 2, 3]
KEYS = ["p_0_0", "p_1_0", "q_0_0", "q_1_0"]


class Tokenizer(type(TOKENIZER)):
    def encode(self, text, add_special_tokens=True):
        assert not add_special_tokens
        return list(text.encode())


def actor_metrics(seed: int, picks=(EVERYTHING,), **settings) -> list[dict]:
    """What the actor returns for each micro-batch of `picks`."""
    rows, config = responses(seed), actor_config(SSPOPolicyLossConfig(**settings))
    found = []
    for pick in picks:
        data, output = micro_batch(rows, pick)
        data["uid"] = [KEYS[i].split("_")[0] for i in pick]
        data["session_id"] = torch.tensor([int(KEYS[i].split("_")[1]) for i in pick])
        found.append(ppo_loss(config, output, data)[1])
    return found


class FakeTrainer:
    """Stands in for verl's PPOTrainer: a step is some updates of the actor, whose metrics verl reduces one by one."""

    tokenizer = from_model = Tokenizer()

    def __init__(self, updates, *overrides):
        self.config = trainer_config("algorithm=sspo", *overrides)
        self.updates, self.global_steps, self.dumped = updates, 0, None
        self.batch = SimpleNamespace(keys=[], tags=[])

    def _init_tokenizer(self):
        self.tokenizer = self.from_model

    def step(self, metrics, timing_raw):
        for update in self.updates:
            together: dict = {}
            for of_micro_batch in update:
                for key, value in of_micro_batch.items():
                    if isinstance(value, Metric):
                        together.setdefault(key, value.init_list()).append(value)
                    else:
                        together.setdefault(key, []).append(value)
            metrics.update(module.reduce_metrics(together))
        return self.batch

    def _update_actor(self, batch, metrics):
        return batch

    def _dump_generations(self, inputs, outputs, gts, scores, reward_extra_infos_dict, dump_path):
        self.dumped = reward_extra_infos_dict


@pytest.fixture(autouse=True)
def wrapped():
    global module
    module = SimpleNamespace(__name__="metric", reduce_metrics=reduce_metrics.__wrapped__)
    names = ("step", "_init_tokenizer", "_update_actor", "_dump_generations")
    original = {name: getattr(FakeTrainer, name) for name in names}
    driver.wrap_reduce_metrics(module)
    driver.wrap_trainer(SimpleNamespace(PPOTrainer=FakeTrainer))
    yield
    for name, function in original.items():
        setattr(FakeTrainer, name, function)


def run_step(trainer) -> dict:
    trainer.global_steps += 1
    metrics: dict = {}
    assert trainer.step(metrics, {}) is trainer.batch
    return metrics


def test_a_steps_metrics_are_of_all_its_updates_together():
    updates = [actor_metrics(0, ([0, 2], [1], [3])), actor_metrics(1, ([0], [1, 2, 3]))]
    metrics = run_step(FakeTrainer(updates))
    counts = [m[COUNTS].value for update in updates for m in update]
    expected = finalize.metrics(counts)
    assert {k: v for k, v in metrics.items() if k in expected} == expected
    assert expected["sspo/segments_per_response"] == 9 / 4
    assert COUNTS not in metrics
    assert all(isinstance(value, float) for value in metrics.values())
    json.dumps(metrics)


def test_responses_that_verl_left_out_are_counted(capsys):
    trainer = FakeTrainer([actor_metrics(0)], "data.train_batch_size=2", f"{ROLLOUT}.n=3")
    keys = ["a_0_0", "a_1_0", "a_1_1", "b_0_0", "b_2_0", "a_0_0"]  # a session of two outputs; a row that pads
    trainer.batch = SimpleNamespace(keys=keys, tags=[{}] * 5 + [{"is_padding": True}])
    row = run_step(trainer)
    assert row["sspo/responses_missing"] == 2.0
    assert row["sspo/warning/responses_missing"] == 1.0
    assert "2 responses of the step are not in its batch" in capsys.readouterr().out
    own = FakeTrainer([actor_metrics(0)], f"+{ROLLOUT}.agent.agent_loop_manager_class=x.Y")
    assert "sspo/responses_missing" not in run_step(own)


def test_a_step_does_not_remember_the_last_one():
    trainer = FakeTrainer([actor_metrics(0)])
    first = run_step(trainer)
    trainer.updates = [actor_metrics(1)]
    second = run_step(trainer)
    assert first["sspo/token_entropy"] != second["sspo/token_entropy"]
    assert second["sspo/token_entropy"] == run_step(FakeTrainer([actor_metrics(1)]))["sspo/token_entropy"]


def test_without_diagnostics_there_are_no_metrics_of_ours():
    metrics = run_step(FakeTrainer([actor_metrics(0, diagnostics=False)], f"{POLICY_LOSS}.diagnostics=false"))
    assert set(metrics) == {"actor/pg_loss", "actor/pg_clipfrac", "actor/ppo_kl", "actor/entropy_loss"}


def test_a_trainer_without_our_settings_goes_its_way():
    trainer = FakeTrainer([[{"actor/pg_loss": Metric(value=1.0, aggregation="mean")}]])
    trainer.config = trainer_config()
    assert run_step(trainer) == {"actor/pg_loss": 1.0}
    trainer._dump_generations(["in"], ["out"], ["gt"], [1.0], {"uid": ["p_0_0"]}, "somewhere")
    assert trainer.dumped == {"uid": ["p_0_0"]}


def test_warnings_are_printed_once_in_so_many_steps(capsys):
    trainer = FakeTrainer([actor_metrics(0)], f"{POLICY_LOSS}.warn_entropy=100", f"{POLICY_LOSS}.warn_every_steps=3")
    rows = [run_step(trainer) for _ in range(7)]
    assert [row["sspo/warning/entropy"] for row in rows] == [1.0] * 7
    lines = [line for line in capsys.readouterr().out.splitlines() if "Entropy is collapsing" in line]
    assert [line.split(".")[0] for line in lines] == [f"sspo_verl: WARNING at step {n}" for n in (1, 4, 7)]
    assert "actor_rollout_ref.actor.policy_loss.entropy_low" in lines[0]


def test_warnings_can_be_switched_off_and_are_still_measured(capsys):
    trainer = FakeTrainer([actor_metrics(0)], f"{POLICY_LOSS}.warn_entropy=100", f"{POLICY_LOSS}.warn_every_steps=0")
    assert run_step(trainer)["sspo/warning/entropy"] == 1.0
    assert "WARNING" not in capsys.readouterr().out


def test_ratios_that_stay_at_1_are_a_sign_unless_there_was_one_update(capsys):
    """As after updates that change nothing; a single update finds the policy of old_log_prob in any case."""
    rows = responses(0)
    rows["log_prob"] = rows["old_log_prob"]
    update = [ppo_loss(actor_config(SSPOPolicyLossConfig()), *reversed(micro_batch(rows, EVERYTHING)))[1]]
    one, several = ([f"data.train_batch_size={8 * n}", f"{ACTOR}.ppo_mini_batch_size=8"] for n in (1, 2))
    for overrides, updates, seen in (
        (several, [update, update], 1.0),
        (one, [update], 0.0),
        ([*one, f"{ACTOR}.ppo_epochs=2"], [update, update], 1.0),
        (several, [update, actor_metrics(0)], 0.0),
    ):
        row = run_step(FakeTrainer(updates, *overrides))
        assert row["sspo/warning/ratio"] == seen
        assert ("The policy does not move" in capsys.readouterr().out) == (seen == 1.0)


def test_a_vocabulary_without_line_breaks_is_told_once_verl_has_the_tokenizer():
    class Vocabulary(Tokenizer):
        def decode(self, ids):
            return "x"

    for overrides, refused in (
        (["algorithm=sspo"], True),
        (["algorithm=grpo"], False),
        (["algorithm=grpo", f"{POLICY_LOSS}.diagnostics=true"], True),
    ):
        trainer = FakeTrainer([], *overrides)
        trainer.from_model = Vocabulary()
        if refused:
            with pytest.raises(ValueError, match="contains a line break"):
                trainer._init_tokenizer()
        else:
            trainer._init_tokenizer()
        assert trainer.tokenizer is trainer.from_model
    stock = FakeTrainer([])
    stock.config, stock.from_model = trainer_config(), Vocabulary()
    stock._init_tokenizer()


def test_only_a_run_of_sspo_warns():
    """What SSPO would have clipped is not a sign that anything is wrong with GRPO."""
    trainer = FakeTrainer([actor_metrics(0)], "algorithm=grpo", f"{POLICY_LOSS}.diagnostics=true")
    row = run_step(trainer)
    assert "sspo/token_clipfrac/all" in row
    assert not any(name.startswith("sspo/warning/") for name in row)


def test_rollout_dumps_list_the_segments():
    trainer = FakeTrainer([actor_metrics(0, ([2, 0], [3, 1]), dump_segments=2)], f"{POLICY_LOSS}.dump_segments=2")
    run_step(trainer)
    assert ROWS not in run_step(trainer)
    trainer._dump_generations(["in"] * 4, ["out"] * 4, ["gt"] * 4, [1.0] * 4, {"uid": KEYS}, "somewhere")
    dumped = trainer.dumped
    assert dumped["uid"] == KEYS
    assert dumped["sspo_segments"] == [3, 2, 3, 1]
    # "ab\n" "c\n\n" ...; "no " masked: "no line break" is cut into 3 and 8 + end; "x\n" "y\n" ...; "\n\n q\n" + end
    assert dumped["sspo_segment_tokens"] == [[3, 3], [3, 9], [2, 2], [6]]
    entropies = dumped["sspo_segment_entropy"]
    rows = responses(0)
    for i, h in enumerate(entropies):
        first = rows["entropy"][i][: dumped["sspo_segment_tokens"][i][0]].mean().item()
        assert h[0] == pytest.approx(first, abs=6e-5)
    assert [len(c) for c in dumped["sspo_segment_clip"]] == [2, 2, 2, 1]
    for i, ratios in enumerate(dumped["sspo_segment_ratio"]):
        log_ratio = rows["log_prob"][i] - rows["old_log_prob"][i]
        first = log_ratio[: dumped["sspo_segment_tokens"][i][0]].mean().exp().item()
        assert ratios[0] == pytest.approx(first, abs=6e-5)
    assert {c for row in dumped["sspo_segment_clip"] for c in row} <= {-1, 0, 1}
    json.dumps(dumped)


def test_clip_flags_of_a_dump_are_those_of_the_counts():
    (metrics,) = actor_metrics(2, dump_segments=99)
    flags = [c for part in metrics[ROWS].value for records in part.values() for record in records for c in record.clip]
    segments = metrics[COUNTS].value.segments
    assert [flags.count(-1), flags.count(1)] == segments[:, 1:].sum(axis=0).tolist()
    assert flags.count(-1) + flags.count(1) > 0
    assert len(flags) == segments.sum()


def test_validation_dumps_have_the_segments_of_the_text():
    trainer = FakeTrainer([actor_metrics(0, dump_segments=3)], f"{POLICY_LOSS}.dump_segments=3")
    run_step(trainer)
    uids = ["v_0_0", "w_0_0", "x_0_0"]
    texts = ["one\ntwo\n\nthree", "", "a\nb\nc\nd\n"]
    trainer._dump_generations(["in"] * 3, texts, [None] * 3, [0.0] * 3, {"uid": uids}, "somewhere")
    assert trainer.dumped["sspo_segments"] == [3, 0, 4]
    assert trainer.dumped["sspo_segment_tokens"] == [[4, 5, 5], [], [2, 2, 2]]
    assert [trainer.dumped[name] for name in DUMP_FIELDS[2:]] == [[None] * 3] * 6


@pytest.mark.parametrize(
    "broken", ["finalize.metrics", "warnings.Warner.look", "dump.fields", "dump.merge", "counts.Counts.__add__"]
)
def test_diagnostics_that_fail_on_the_driver_do_not_end_a_run(monkeypatch, capfd, broken):
    """They are said, counted in the next metrics, and left out."""

    def fails(*_, **__):
        raise ZeroDivisionError("by the test")

    trainer = FakeTrainer([actor_metrics(0, ([0, 1], [2, 3]), dump_segments=3)], f"{POLICY_LOSS}.dump_segments=3")
    full = run_step(trainer)
    monkeypatch.setattr(f"sspo_verl.metrics.{broken}", fails)
    monkeypatch.setattr(guard, "_said", set())
    trainer._dump_generations(["in"] * 4, ["out"] * 4, ["gt"] * 4, [1.0] * 4, {"uid": KEYS}, "somewhere")
    assert trainer.dumped["uid"] == KEYS
    assert (DUMP_FIELDS[0] in trainer.dumped) == (not broken.startswith("dump"))
    metrics = run_step(trainer)
    assert metrics["sspo/diagnostics_failed"] == 1
    assert metrics["actor/pg_loss"] == full["actor/pg_loss"]
    assert ("sspo/token_entropy" in metrics) == broken.startswith(("warnings", "dump"))
    printed, traceback = capfd.readouterr()
    assert printed.count("sspo/diagnostics_failed counts") == 1
    assert traceback.count("Traceback") == 1
    monkeypatch.undo()
    assert run_step(trainer) == full


def test_what_is_not_finite_is_null_in_a_dump():
    ratios = np.array([np.inf, 1.0000499])
    tv = np.array([np.nan, 0.123456])
    rows = Segments(
        [np.array([2, 3])], [np.array([0.25, np.nan])], [np.array([0, 1])], [ratios], [ratios], [tv], [tv / 1e3]
    )
    found = dump.records({"uid": ["p"], "session_id": [0]}, rows, limit=9)
    assert found == {
        "p_0": [
            dump.Record(2, [2, 3], [0.25, None], [0, 1], [None, 1.0], [None, 1.0], [None, 0.1235], [None, 0.0001235])
        ]
    }


def test_of_rows_that_cannot_be_told_apart_nothing_is_said():
    one, other = dump.Record(1, [4], [0.1], [0]), dump.Record(2, [3, 2], [0.2, 0.3], [0, 1])
    known = dump.merge([{"p_0": [one]}, {"p_0": [other]}])
    fields = dump.fields(["p_0_0", "p_0_1"], ["", ""], known, None, None, 9)
    assert fields == {name: [None, None] for name in DUMP_FIELDS}


def test_two_trajectories_with_the_same_listed_segments_stay_two():
    a, b = dump.Record(3, [5], [0.1], [0]), dump.Record(7, [5], [0.2], [1])
    known = dump.merge([{"p_0": [a]}, {"p_0": [b]}])
    assert dump.fields(["p_0_0"], [""], known, None, None, 1)["sspo_segments"] == [None]
    twin = b._replace(clip=[0])
    assert dump.merge([{"p_0": [b, twin]}, {"p_0": [twin, b]}]) == {"p_0": [twin, b]}
    # All alike but in two micro-batches, as two updates on one response are: the dump has two rows of the session.
    known = dump.merge([{"p_0": [b]}, {"p_0": [twin]}])
    assert dump.fields(["p_0_0", "p_0_1"], ["", ""], known, None, None, 1)["sspo_segments"] == [None, None]


def test_of_several_updates_on_a_response_the_last_one_is_dumped():
    early, late = dump.Record(1, [4], [0.1], [0]), dump.Record(1, [4], [0.1], [1])
    known = dump.merge([{"p_0": [early]}, {"p_0": [late]}])
    assert dump.fields(["p_0_0"], [""], known, None, None, 9)["sspo_segment_clip"] == [[1]]


def test_a_trainer_without_a_report_gets_the_metrics_of_what_it_reduces():
    """verl's other trainers: they have no such step, and must not be handed counts to average."""
    (update,) = actor_metrics(0)
    expected = finalize.metrics([update[COUNTS].value])
    assert module.reduce_metrics({"loss": [1.0], COUNTS: update[COUNTS]}) == {"loss": 1.0, **expected}
    assert module.reduce_metrics({"loss": [3.0]}) == {"loss": 3.0}


def test_verls_own_trainers_are_wrapped():
    from verl.trainer.ppo import ray_trainer

    assert ray_trainer.reduce_metrics is trainer_base.reduce_metrics
    assert trainer_base.reduce_metrics.__wrapped__.__module__ == "verl.utils.metric.utils"
    assert trainer_base.PPOTrainer.step.__wrapped__.__module__ == "verl.trainer.ppo.v1.trainer_base"
    plain = {"loss": [1.0, 3.0], "x/max": [1.0, 2.0]}
    assert trainer_base.reduce_metrics(plain) == {"loss": 2.0, "x/max": 2.0}


def test_other_policy_losses_stay_unobserved():
    data, output = micro_batch(responses(seed=6), EVERYTHING)
    _, metrics = ppo_loss(actor_config(PolicyLossConfig()), output, data)
    assert COUNTS not in metrics


@pytest.mark.parametrize("loss_mode", ["vanilla", "gspo"])
def test_the_diagnostics_of_other_algorithms_are_those_of_sspo(loss_mode):
    rows = responses(seed=2)
    observed = []
    for mode in (loss_mode, "sspo"):
        data, output = micro_batch(rows, EVERYTHING)
        _, metrics = ppo_loss(actor_config(SSPOPolicyLossConfig(loss_mode=mode)), output, data)
        observed.append(finalize.metrics([metrics[COUNTS].value]))
    assert observed[0] == observed[1]
    assert observed[0]["sspo/token_clipfrac/all"] > 0
