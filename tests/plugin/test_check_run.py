"""Checks of a run: refused before Ray starts, or said in a line. Stock runs of verl hear nothing."""

import ast
import copy
import functools
import inspect
import os
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import fake_checkpoints
import pytest
import verl.experimental
import verl.utils.config
import yaml
from compose import RUNNABLE, trainer_config
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from verl.trainer.ppo import core_algos

from sspo_verl.config import KEY
from sspo_verl.plugin import check_run, run_notes
from sspo_verl.plugin.run_settings import ACTOR, ALGORITHMS, CORRECTION, ROLLOUT, run_of

CURRENT = f"{KEY}.entropy_source=current"
BYPASS = f"{CORRECTION}.bypass_mode=true"
NO_LOG_PROBS = f"{ROLLOUT}.calculate_log_probs=false"
SEPARATE = ("fully_async", "one_step_off")
ONE_RESPONSE = f"{ROLLOUT}.n=1"


@functools.cache
def composed(trainer: str, *algorithm: str):
    """verl's config for one of its trainers, composed by Hydra, which takes a second."""
    if trainer in SEPARATE:
        folder = Path(verl.experimental.__path__[0]) / f"{trainer}_policy" / "config"
        path = "hydra.searchpath=[pkg://verl.trainer.config]"
        with initialize_config_dir(str(folder), version_base=None):
            return compose(f"{trainer}_ppo_trainer", overrides=[path, *RUNNABLE, *algorithm])
    return trainer_config(*RUNNABLE, *algorithm, name=trainer)


def run_config(*overrides, name="ppo_trainer"):
    """A composed config with `overrides`, of which algorithm= alone is left to Hydra."""
    algorithm = [each for each in overrides if each.startswith("algorithm=")]
    config = copy.deepcopy(composed(name, *algorithm))
    for key, value in (each.split("=", 1) for each in overrides if each not in algorithm):
        OmegaConf.update(config, key, yaml.safe_load(value), force_add=True)
    return config


def error(*overrides):
    """The check's error about a run; None if there is none."""
    try:
        check_run.check_run(run_config(*overrides))
    except ValueError as found:
        return str(found)
    return None


def lines(*overrides):
    """Lines that the driver prints about a run that may train."""
    config = run_config(*overrides)
    check_run.check_run(config)
    return list(run_notes.notes(run_of(config)))


# What trains


def test_the_labels_are_those_of_the_files():
    for label, asked in ALGORITHMS.items():
        policy_loss = run_config(f"algorithm={label}").actor_rollout_ref.actor.policy_loss
        assert policy_loss.label == label
        assert {name: policy_loss[name] for name in asked} == asked


def test_a_loss_that_is_not_the_one_asked_for_is_refused_and_both_places_are_named():
    for label, loss in product(ALGORITHMS, ("sspo", "vanilla", "gspo", "sapo")):
        found = error(f"algorithm={label}", f"{KEY}.loss_mode={loss}")
        if loss == ALGORITHMS[label]["loss_mode"]:
            assert found is None
            continue
        assert f"algorithm={label} ({KEY}.label={label})" in found
        assert f"{KEY}.loss_mode={loss} was set later" in found
        assert f"{KEY}.label=null" in found
        named = {
            other for other, sets in ALGORITHMS.items() if f"algorithm={other} or" in found or f"={other} in" in found
        }
        assert named == {other for other, sets in ALGORITHMS.items() if sets["loss_mode"] == loss}
    assert "entropy_clip=True was set later" in error("algorithm=sspo_no_entropy_clip", f"{KEY}.entropy_clip=true")


def test_a_mix_of_ones_own_is_said_to_be_one():
    for label in ("null", "my_variant"):
        (line,) = lines(
            "algorithm=sspo", f"{KEY}.label={label}", f"{KEY}.loss_mode=gspo", "algorithm.adv_estimator=rloo"
        )
        name = "" if label == "null" else " (algorithm=my_variant)"
        assert line == f"this run trains{name}: policy loss gspo, advantage rloo, aggregation seq-mean-token-mean"


def test_a_config_class_that_is_not_ours_is_refused():
    found = error("algorithm=sspo", f"{KEY}._target_=verl.workers.config.PolicyLossConfig", f"{KEY}.loss_mode=gspo")
    assert f"{KEY}.label=sspo" in found
    assert f"{KEY}._target_=verl.workers.config.PolicyLossConfig was set later" in found


def test_the_advantage_alone_is_refused():
    for start in ([], ["algorithm=grpo"], ["algorithm=gspo"]):
        found = error(*start, "algorithm.adv_estimator=sspo")
        assert "algorithm.adv_estimator=sspo, but" in found
        assert "algorithm=sspo" in found
        assert "algorithm.adv_estimator=grpo" in found


@pytest.mark.parametrize("policy_loss", ["deleted", None])
def test_the_advantage_without_any_policy_loss_is_refused(policy_loss):
    """verl would take its own class, and its loss vanilla."""
    config = run_config("algorithm=sspo")
    if policy_loss == "deleted":
        del config.actor_rollout_ref.actor.policy_loss
    else:
        OmegaConf.update(config, KEY, policy_loss)
    with pytest.raises(ValueError, match="loss_mode=vanilla: the advantage alone is not SSPO"):
        check_run.check_run(config)


def test_a_misspelt_label_is_refused():
    for label in ("SSPO", "sspo_lenght"):
        assert "? Set algorithm=" in error("algorithm=sspo", f"{KEY}.label={label}")
    assert error("algorithm=sspo", f"{KEY}.label=mine") is None


@pytest.mark.parametrize(
    "override",
    [
        *(f"{ROLLOUT}.n={value}" for value in ("null", "'8'", "2.5", "0", "true")),
        *(f"data.train_batch_size={value}" for value in ("null", "0", "-1", "2.5")),
        f"{ACTOR}.ppo_mini_batch_size=null",
        f"{ACTOR}.ppo_mini_batch_size=0",
        f"{ACTOR}.ppo_epochs=0",
        f"{ACTOR}.ulysses_sequence_parallel_size=0",
        "trainer.n_gpus_per_node=0",
        "trainer.nnodes=null",
        *(f"{ACTOR}.ppo_micro_batch_size_per_gpu={value}" for value in ("'16'", "[16]", "0", "-16", "16.0", "true")),
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=6.4",
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=x",
        f"{ACTOR}.ppo_max_token_len_per_gpu=0",
        *(f"trainer.total_training_steps={value}" for value in ("0", "-1", "x", "1.5", "true")),
        "trainer.total_epochs=0",
        "data.max_response_length=null",
    ],
)
def test_a_number_that_is_no_count_is_refused_by_its_key(override):
    key = override.split("=")[0]
    assert error("algorithm=sspo", override).startswith(f"{key} must be an integer of 1 or more")
    assert error("algorithm=grpo", f"{KEY}.label=null", f"{KEY}._target_=null") is None


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        *((f"trainer.{name}={value}", "an integer") for name in ("save_freq", "test_freq") for value in ("null", "x")),
        *((f"trainer.max_actor_ckpt_to_keep={value}", "an integer, or null") for value in ("2.0", "true", "'1'")),
        *((f"{ACTOR}.optim.lr={value}", "a finite number of 0 or more") for value in (".nan", "-1", "x", "'1e-6'")),
        *(
            (f"{ROLLOUT}.temperature={value}", "a finite number of 0 or more")
            for value in (".inf", "-1", "'1'", "null")
        ),
        (f"{ACTOR}.use_dynamic_bsz='false'", "true or false"),
        (f"{CORRECTION}.bypass_mode='false'", "true or false"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_key(override, wanted):
    assert error("algorithm=sspo", override).startswith(f"{override.split('=')[0]} must be {wanted}, got ")


def test_a_run_that_only_validates_needs_no_steps():
    assert error("algorithm=sspo", "trainer.val_only=true", "trainer.total_training_steps=0") is None


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.v1.trainer_mode=snyc", "Did you mean sync?"),
        (f"{ACTOR}.strategy=fspd", "Did you mean fsdp?"),
        (f"{ACTOR}.strategy=5", "must be a name, got 5"),
        (f"{ROLLOUT}.name=vlm", "Did you mean vllm?"),
        (f"{ROLLOUT}.agent.default_agent_loop=single_turn_agnet", "Did you mean single_turn_agent?"),
        ("reward.reward_manager.name=niave", "Did you mean naive?"),
        *(
            (f"trainer.resume_mode={value}", "Choose one of auto, disable, resume_path")
            for value in ("atuo", "null", "true")
        ),
        ("algorithm.adv_estimator=5", "must be a name, got 5"),
    ],
)
def test_a_misspelt_name_is_refused(override, said):
    found = error("algorithm=sspo", override)
    assert override.split("=")[0] in found
    assert said in found


@pytest.mark.parametrize(
    "override",
    [
        "reward.reward_manager.name=naive_v2",
        "reward.reward_manager.name=mine",
        f"{ROLLOUT}.agent.default_agent_loop=my_single_turn_agent",
        f"{ACTOR}.strategy=fsdp3",
        "trainer.v1.trainer_mode=separate_async",
        "trainer.resume_mode=disable",
    ],
)
def test_names_that_users_may_have_registered_pass(override):
    assert error("algorithm=sspo", override) is None


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["rollout_is=tokn"], "rollout_is=tokn is unknown. Choose one of token, sequence, or null"),
        (["rollout_is=5"], "rollout_is=5 is unknown. Choose one of token"),
        (["rollout_rs=tokn"], "rollout_rs=tokn is unknown. Choose one or several (with commas) of seq_max_k2"),
        (["rollout_rs=token_k1"], "needs algorithm.rollout_correction.rollout_rs_threshold"),
        (["rollout_rs='token_k1, seq_mean_k3'", "rollout_rs_threshold='0.5_2'"], None),
        (["rollout_is=sequence"], None),
    ],
)
def test_corrections_that_verl_does_not_have_are_refused(asked, said):
    found = error("algorithm=sspo", f"{ROLLOUT}.calculate_log_probs=true", *(f"{CORRECTION}.{each}" for each in asked))
    assert said in found if said else found is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["save_contents=[model]", "load_contents=[model,optimizer]"],
            "load_contents has optimizer, which save_contents",
        ),
        (["save_contents=[modle,optimizer,extra]"], "save_contents has 'modle', which verl would ignore"),
        (["load_contents=model"], "load_contents must be a list of model, optimizer"),
        (["load_contents=5"], "load_contents must be a list"),
        (["save_contents=[model]"], None),  # verl's own load_contents is what is saved
        (["save_contents=null", "load_contents=null"], None),
        (["save_contents=[model,hf_model]", "load_contents=[model]"], None),
    ],
)
def test_checkpoints_that_could_not_be_resumed_are_refused(settings, said):
    asked = [f"{ACTOR}.checkpoint.{each}" for each in settings]
    found = error("algorithm=sspo", "trainer.save_freq=10", *asked)
    assert said in found if said else found is None
    if said and "leaves out" in said:
        assert error("algorithm=sspo", "trainer.save_freq=-1", *asked) is None


def test_more_sequence_parallelism_than_gpus_is_refused():
    sizes = ("trainer.n_gpus_per_node=8", f"{ACTOR}.ulysses_sequence_parallel_size=16")
    assert "ulysses_sequence_parallel_size=16 does not divide the 8 GPUs" in error("algorithm=sspo", *sizes)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SSPO", "Did you mean sspo?"),
        ("grp0", "Did you mean grpo?"),
        ("null", "adv_estimator is null"),
        ("my_own_estimator", None),
    ],
)
def test_an_advantage_that_does_not_exist(name, said):
    found = error("algorithm=sspo", f"algorithm.adv_estimator={name}")
    assert said in found if said else found is None


def test_responses_that_are_all_alike_are_refused():
    for temperature in ("0", "0.0"):
        found = error("algorithm=sspo", f"{ROLLOUT}.temperature={temperature}")
        assert f"{ROLLOUT}.temperature={temperature}: all responses to a prompt are the same" in found
    assert error("algorithm=sspo", f"{ROLLOUT}.temperature=0", "trainer.val_only=true") is None
    assert error("algorithm=sspo", f"{ROLLOUT}.temperature=0.1") is None


def test_dumps_that_nobody_writes_are_refused():
    found = error("algorithm=sspo", f"{KEY}.dump_segments=5")
    assert "dump_segments=5, but verl writes no dumps: set trainer.rollout_data_dir" in found
    for folder in ("rollout_data_dir", "validation_data_dir"):
        assert error("algorithm=sspo", f"{KEY}.dump_segments=5", f"trainer.{folder}=/somewhere") is None


def test_a_rate_of_0_and_a_bound_that_another_hides_are_lines():
    assert f"NOTE: {ACTOR}.optim.lr=0: no update changes the policy" in lines("algorithm=sspo", f"{ACTOR}.optim.lr=0")
    for label, low in (("grpo", "0.2"), ("gspo", "0.0003")):
        found = lines(f"algorithm={label}", f"{ACTOR}.clip_ratio=0.3")
        assert f"{ACTOR}.clip_ratio=0.3 has no effect here: {ACTOR}.clip_ratio_low={low}" in found[-1]
    plain = ("algorithm=sspo_no_entropy_clip", f"{KEY}.entropy_source=current")
    (line,) = [line for line in lines(*plain, f"{KEY}.diagnostics=false") if "entropy_source" in line]
    assert "entropy_source=current has no effect here" in line
    assert not [line for line in lines(*plain) if "entropy_source=current has no effect" in line]


def test_another_advantage_is_said():
    for estimator in ("gae", "grpo", "rloo"):
        trains, note = lines("algorithm=sspo", f"algorithm.adv_estimator={estimator}", ONE_RESPONSE)
        assert f"policy loss sspo, advantage {estimator}," in trains
        assert f"algorithm.adv_estimator={estimator}" in note


def test_every_algorithm_is_told_in_one_line():
    for label, asked in ALGORITHMS.items():
        advantage = "sspo" if asked["loss_mode"] == "sspo" else "grpo"
        loss = asked["loss_mode"] + (" without entropy clip" if label == "sspo_no_entropy_clip" else "")
        loss += " with clip_length_exponent=-0.5" if label == "sspo_length" else ""
        loss += " with segmenter=turn" if label == "sspo_turn" else ""
        trains = f"policy loss {loss}, advantage {advantage}, aggregation"
        assert lines(f"algorithm={label}") == [f"this run trains (algorithm={label}): {trains} seq-mean-token-mean"]
    (line,) = lines("algorithm=gspo", f"{ACTOR}.loss_agg_mode=token-mean")
    assert line.endswith("aggregation token-mean")


def test_distillation_without_the_policy_loss_is_refused():
    distillation = "distillation.distillation_loss.use_task_rewards=false"
    assert error("algorithm=sspo", distillation) is None
    assert "use_task_rewards=False" in error("algorithm=sspo", distillation, "distillation.enabled=true")
    assert error("algorithm=gspo", distillation, "distillation.enabled=true") is None


# Groups and advantages


def test_groups_of_one_are_refused_unless_something_else_makes_groups():
    found = error("algorithm=sspo", ONE_RESPONSE)
    assert f"{ROLLOUT}.n=1" in found
    assert f"Set {ROLLOUT}.n to 2 or more" in found
    assert error("algorithm=grpo", ONE_RESPONSE) is None
    assert error("algorithm=sspo", ONE_RESPONSE, "algorithm.adv_estimator=gae") is None
    assert error("algorithm=sspo", ONE_RESPONSE, "trainer.val_only=true") is None
    for key in (f"{ROLLOUT}.agent.agent_loop_manager_class", "data.custom_cls.path"):
        _, note = lines("algorithm=sspo", ONE_RESPONSE, f"{key}=mine")
        assert key in note


def test_resampling_that_pairs_advantages_wrongly_is_refused():
    pf_ppo = "algorithm.use_pf_ppo=true"
    assert "nothing would be resampled" in error("algorithm=sspo", pf_ppo)
    assert "to others" in error("algorithm=sspo", pf_ppo, "algorithm.adv_estimator=gae")
    assert error("algorithm=grpo", pf_ppo) is None


def test_a_correction_that_cannot_happen_is_refused():
    bypass = ("algorithm=sspo", CURRENT, BYPASS)
    assert error(*bypass) is None
    for asked in ("rollout_is=token", "rollout_rs=token_k1", "loss_type=reinforce"):
        correction = (f"{CORRECTION}.{asked}", f"{CORRECTION}.rollout_rs_threshold=2.0")
        assert f"{CORRECTION}.{asked}" in error(*bypass, *correction)
        assert error("algorithm=sspo", *correction) is None
        assert error("algorithm=gspo", BYPASS, *correction) is None
    for run in (bypass, ("algorithm=sspo", f"{CORRECTION}.rollout_is=token")):
        assert f"set {ROLLOUT}.calculate_log_probs=True" in error(*run, NO_LOG_PROBS)


# Keys that decide nothing

CHANGED = {  # each key of the two tables, with another value than verl's
    **{f"{ACTOR}.{name}": 0.28 for name in ("clip_ratio", "clip_ratio_low", "clip_ratio_high")},
    f"{ACTOR}.clip_ratio_c": 10.0,
    f"{ACTOR}.tau_pos": 1.5,
    f"{ACTOR}.tau_neg": 1.5,
    f"{KEY}.clip_cov_ratio": 0.5,
    f"{KEY}.clip_cov_lb": 0.5,
    f"{KEY}.clip_cov_ub": 0.5,
    f"{KEY}.kl_cov_ratio": 0.5,
    f"{KEY}.ppo_kl_coef": 0.5,
    f"{KEY}.dro_beta": 0.5,
    f"{KEY}.rollout_correction": "{rollout_is: token}",
    "algorithm.gamma": 0.9,
    "algorithm.lam": 0.9,
    "algorithm.gdpo_reward_keys": "[a]",
    "algorithm.gdpo_reward_weights": "[1.0]",
    f"{ACTOR}.calculate_sum_pi_squared": True,
    f"{CORRECTION}.loss_type": "reinforce",
}


def noted(found):
    return [line.removeprefix("NOTE: ").partition("=")[0] for line in found if "has no effect" in line]


def test_each_key_that_decides_nothing_is_a_line_and_no_other_key_is():
    assert CHANGED.keys() >= run_notes.UNUSED_BY_LOSS.keys() | run_notes.UNUSED_BY_ADVANTAGE.keys()
    overrides = [f"{key}={value}" for key, value in CHANGED.items()]
    found = lines("algorithm=sspo", *overrides)
    assert sorted(noted(found)) == sorted(CHANGED)
    assert any(f"{ACTOR}.clip_ratio_high=0.28" in line and f"{KEY}.clip_high" in line for line in found)
    by_loss = lines("algorithm=sspo", "algorithm.adv_estimator=grpo", *overrides)
    assert set(noted(by_loss)) == set(CHANGED) - run_notes.UNUSED_BY_ADVANTAGE.keys()
    for label in ("grpo", "gspo"):  # whose losses read some of them, which is verl's to say
        assert noted(lines(f"algorithm={label}", *overrides)) == []
    for trainer in ("ppo_trainer", "ppo_megatron_trainer"):
        run = run_of(run_config("algorithm=sspo", name=trainer))
        assert list(run_notes.unused_keys(run)) == [], "verl's defaults are not changes"


def test_the_table_has_every_key_that_verls_losses_read():
    ours = {f"{ACTOR}.loss_agg_mode", f"{ACTOR}.global_batch_info", f"{ACTOR}.policy_loss"}
    read = set()
    for loss in core_algos.POLICY_LOSS_REGISTRY.values():
        if loss.__module__ == core_algos.__name__:
            read |= keys_read(loss)
    assert f"{ACTOR}.clip_ratio_c" in read
    assert f"{KEY}.dro_beta" in read
    assert read - ours == run_notes.UNUSED_BY_LOSS.keys()


def keys_read(function) -> set[str]:
    """The keys of `config` and `config.policy_loss` that a function's text reads, as attributes or by `get`."""
    places = {"config": ACTOR, "config.policy_loss": KEY}
    found = set()
    for node in ast.walk(ast.parse(inspect.getsource(function))):
        if isinstance(node, ast.Attribute) and node.attr != "get" and ast.unparse(node.value) in places:
            found.add(f"{places[ast.unparse(node.value)]}.{node.attr}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            owner, (key, *_) = ast.unparse(node.func.value), node.args
            if owner in places and isinstance(key, ast.Constant):
                found.add(f"{places[owner]}.{key.value}")
    return found


def test_settings_of_ours_that_decide_nothing_are_lines():
    bounds = [f"{KEY}.clip_low=0.6", f"{KEY}.alpha=0.5", f"{KEY}.entropy_low=0.4"]
    observed = f"{KEY}.diagnostics=true"
    blind = f"{KEY}.diagnostics=false"
    warns = f"{KEY}.warn_clipfrac=0.4"
    dual = f"{KEY}.dual_clip=3"
    reference = f"{KEY}.clip_length_reference=8"
    length = f"{KEY}.clip_length_exponent=-0.5"
    gate = (f"{KEY}.clip_statistic=tv", f"{KEY}.clip_divergence=0.1")
    cap = f"{KEY}.ratio_cap=20"
    shares = (f"{KEY}.entropy_thresholds=quantile", f"{KEY}.entropy_low=0.2")
    names = {each: each.partition("=")[0] for each in (*bounds, warns, dual, reference, cap, *shares)}
    for overrides, idle in (
        (["algorithm=sspo", *bounds, warns, dual], []),
        (["algorithm=sspo", *bounds, warns, blind], [warns]),
        (["algorithm=sspo_no_entropy_clip", *bounds], [bounds[1]]),
        (["algorithm=sspo_no_entropy_clip", *bounds, blind], bounds[1:]),
        (["algorithm=grpo", *bounds, warns, dual], [*bounds, warns, dual]),
        (["algorithm=grpo", *bounds, warns, dual, observed], [warns, dual]),
        (["algorithm=sspo", reference], [reference]),
        (["algorithm=sspo", reference, length], []),
        (["algorithm=sspo", *bounds, *gate, cap], bounds[:2]),
        (["algorithm=sspo", *bounds, *gate, cap, blind], bounds),
        (["algorithm=sspo", *shares], []),
        (["algorithm=sspo", *gate, *shares, blind], shares),
        (["algorithm=grpo", *gate, cap, observed], [cap]),
    ):
        assert sorted(noted(lines(*overrides))) == sorted(names[each] for each in idle), overrides


# Updates


def test_one_update_per_batch_is_said():
    size = ("data.train_batch_size=8", f"{ACTOR}.ppo_mini_batch_size=8", f"{ACTOR}.use_dynamic_bsz=true")
    size += ("trainer.n_gpus_per_node=1",)
    said = [line for line in lines("algorithm=sspo", *size) if "one update per batch" in line]
    assert len(said) == 1
    assert f"{ACTOR}.ppo_mini_batch_size (8) below data.train_batch_size (8)" in said[0]
    mode = ("trainer.v1.trainer_mode=separate_async", "trainer.v1.separate_async.parameter_sync_step=1")
    (said,) = (line for line in lines("algorithm=sspo", *size, *mode) if "one update per batch" in line)
    assert "trainer.v1.separate_async.parameter_sync_step above 1" in said, (
        "verl ties the batch to the mini-batch there"
    )
    for more in (
        [f"{ACTOR}.ppo_epochs=2"],
        [f"{ACTOR}.ppo_mini_batch_size=4"],
        [f"{ACTOR}.ppo_mini_batch_size=5"],
        [CURRENT, BYPASS],
        ["algorithm=grpo"],
    ):
        assert not any("one update" in line for line in lines("algorithm=sspo", *size, *more)), more


# The tokenizer


def test_a_vocabulary_without_line_breaks_is_refused_where_the_model_is_at_hand(tmp_path):
    for name, vocabulary in (("with", ["a", "b", "\n"]), ("without", ["a", "b", "c"])):
        model = models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="a")
        PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model)).save_pretrained(tmp_path / name)
    without = f"actor_rollout_ref.model.path={tmp_path / 'without'}"
    assert "No token of" in error("algorithm=sspo", without)
    assert "algorithm=gspo" in error("algorithm=sspo", without)
    assert error("algorithm=sspo", f"actor_rollout_ref.model.path={tmp_path / 'with'}") is None
    assert error("algorithm=sspo", without, f"actor_rollout_ref.model.tokenizer_path={tmp_path / 'with'}") is None
    assert error("algorithm=grpo", without) is None
    assert f"{KEY}.diagnostics=False" in error("algorithm=grpo", without, f"{KEY}.diagnostics=true")
    before = dict(os.environ)
    error("algorithm=sspo", without)
    assert dict(os.environ) == before, "what the check sets for itself must not reach Ray's workers"
    (tmp_path / "nothing").mkdir()  # what is in it is verl's to say
    assert error("algorithm=sspo", f"actor_rollout_ref.model.path={tmp_path / 'nothing'}") is None


# verl's other trainers


@pytest.mark.parametrize("trainer", SEPARATE)
def test_separate_trainers_refuse_the_old_entropy_and_take_what_works(trainer):
    for overrides in ([], [f"{CORRECTION}.bypass_mode=false"]):
        with pytest.raises(ValueError, match=f"trainer {trainer} does not pass") as found:
            check_run.check_run(run_config("algorithm=sspo", *overrides, name=trainer))
        assert CURRENT in str(found.value)
        assert "algorithm=sspo_no_entropy_clip" in str(found.value)
        assert "Set bypass_mode=False" not in str(found.value)
    for works in (["algorithm=sspo", CURRENT], ["algorithm=sspo_no_entropy_clip"], ["algorithm=grpo"], []):
        check_run.check_run(run_config(*works, name=trainer))
    with pytest.raises(ValueError, match="dump_segments=5"):
        check_run.check_run(run_config("algorithm=sspo", CURRENT, f"{KEY}.dump_segments=5", name=trainer))
    run = run_of(run_config("algorithm=sspo", CURRENT, name=trainer))
    assert any("not SSPO's warnings" in line for line in run_notes.notes(run))


def test_run_ppo_checks_before_ray_starts(capsys):
    started = []
    module = SimpleNamespace(__name__="main_ppo", run_ppo=lambda config, task_runner_class: started.append(config))
    check_run.wrap_run_ppo(module)
    with pytest.raises(ValueError, match="fully_async"):
        module.run_ppo(run_config("algorithm=sspo", name="fully_async"), task_runner_class=None)
    assert not started
    config = run_config("algorithm=sspo", CURRENT, name="fully_async")
    for _ in range(2):
        module.run_ppo(config, task_runner_class=None)
    assert started == [config, config]
    assert capsys.readouterr().out.count("this run trains (algorithm=sspo)") == 1, "one line for one run"


def test_run_ppo_looks_at_data_and_checkpoints_of_runs_of_ours(tmp_path, capsys, monkeypatch):
    started = []
    module = SimpleNamespace(__name__="main_ppo", run_ppo=lambda config, task_runner_class: started.append(config))
    check_run.wrap_run_ppo(module)
    missing, model = f"data.train_files={tmp_path}/none.parquet", f"actor_rollout_ref.model.path={tmp_path}"
    with pytest.raises(ValueError, match=r"none.parquet is not there"):
        module.run_ppo(run_config("algorithm=sspo", missing, model), task_runner_class=None)
    assert not started
    module.run_ppo(run_config(missing), task_runner_class=None)  # of verl alone
    assert len(started) == 1
    monkeypatch.setattr(check_run.check_data, "check", lambda config: ["a line on the data"])
    fake_checkpoints.cut(fake_checkpoints.make(tmp_path, 4) / "data.pt")
    module.run_ppo(run_config("algorithm=grpo", f"trainer.default_local_dir={tmp_path}"), task_runner_class=None)
    said = capsys.readouterr().out
    assert "a line on the data" in said
    assert "The checkpoint of step 4 is damaged" in said


def test_verls_entry_points_start_ray_by_the_function_that_checks():
    from verl.trainer import main_ppo

    assert main_ppo.run_ppo.__wrapped__.__module__ == "verl.trainer.main_ppo"
    assert main_ppo.validate_config is verl.utils.config.validate_config
    assert hasattr(main_ppo.validate_config, "__wrapped__")


# Stock runs, and the command line


def test_stock_runs_hear_nothing(capsys):
    for overrides in (
        [],
        [f"{KEY}.loss_mode=gspo", "algorithm.adv_estimator=grpo", ONE_RESPONSE],
        [BYPASS, f"{CORRECTION}.rollout_is=token", "algorithm.use_pf_ppo=true", f"{ACTOR}.clip_ratio_high=0.28"],
    ):
        config = run_config(*overrides)
        assert run_of(config) is None
        verl.utils.config.validate_config(config, use_reference_policy=False, use_critic=False)
    assert "sspo" not in capsys.readouterr().out
    check_run.check_run(OmegaConf.create({"trainer": {}}))


def test_the_place_that_set_another_loss_is_told(tmp_path):
    """A recipe whose body sets the loss after `algorithm: sspo`, and the same on the command line."""
    (tmp_path / "mine.yaml").write_text(
        "hydra:\n  searchpath: [pkg://verl.trainer.config]\n"
        "defaults: [ppo_trainer, {override algorithm: sspo}, _self_]\n"
        "actor_rollout_ref: {actor: {policy_loss: {loss_mode: gspo}}}\n"
    )
    override = f"{KEY}.loss_mode=gspo"
    for overrides, place in (([], "in the config mine or one that it includes"), ([override], "on the command line")):
        with initialize_config_dir(str(tmp_path), version_base=None):
            config = compose("mine", overrides=[*RUNNABLE, *overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        try:
            with pytest.raises(ValueError, match=f"{override} was set later, {place}"):
                check_run.check_run(config)
        finally:
            HydraConfig.instance().cfg = None
