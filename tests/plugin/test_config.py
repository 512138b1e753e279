"""Settings: one place for the defaults, and bad ones stopped on the driver by an error that names the key."""

import inspect
import math
import re
from dataclasses import fields
from pathlib import Path

import pytest
import verl.utils.config  # the driver's way in: the plugin wraps validate_config
from compose import RUNNABLE, trainer_config
from verl.workers.config import PolicyLossConfig

from sspo_verl import band_settings, bounds
from sspo_verl.config import KEY, SSPOPolicyLossConfig, settings_of
from sspo_verl.loss import MAX_LOG_RATIO, sspo_token_terms
from sspo_verl.plugin.check_run import check_run

TOP = Path(__file__).resolve().parents[2]
BYPASS = "algorithm.rollout_correction.bypass_mode=true"
CURRENT = f"{KEY}.entropy_source=current"
MEGATRON = "actor_rollout_ref.actor.strategy=megatron"
CALCULATE = "actor_rollout_ref.actor.calculate_entropy=true"
DIAGNOSTICS = f"{KEY}.diagnostics=true"


def validate(*overrides):
    config = trainer_config(*RUNNABLE, *overrides)
    verl.utils.config.validate_config(config, use_reference_policy=False, use_critic=False)


def test_defaults_are_those_of_the_definition():
    defaults = SSPOPolicyLossConfig()
    own = {f.name for f in fields(SSPOPolicyLossConfig)} - {f.name for f in fields(PolicyLossConfig)}
    assert {name: getattr(defaults, name) for name in own} == {
        "clip_low": 0.7,
        "clip_high": 1.3,
        "clip_low_tight": 0.8,
        "alpha": 0.3,
        "entropy_low": 0.5,
        "entropy_high": 1.0,
        "entropy_clip": True,
        "dual_clip": None,
        "entropy_source": "old",
        "clip_length_exponent": 0.0,
        "clip_length_reference": 16.0,
        "ratio_length_exponent": 0.0,
        "ratio_cap": None,
        "entropy_thresholds": "absolute",
        "clip_statistic": "ratio",
        "clip_divergence": None,
        "segmenter": "line_break",
        "segment_tokens": None,
        "segment_entropy_share": None,
        "segment_regex": None,
        "segment_max_tokens": None,
        "label": None,
        "diagnostics": True,
        "dump_segments": 0,
        "warn_every_steps": 10,
        "warn_clipfrac": 0.5,
        "warn_single_segment": 0.5,
        "warn_entropy": 0.05,
        "warn_one_band": 0.99,
        "warn_ratio": 1e-9,
    }


@pytest.mark.parametrize(("algorithm", "changed"), [("sspo", {}), ("sspo_no_entropy_clip", {"entropy_clip": False})])
def test_yaml_and_dataclass_hold_the_same_defaults(algorithm, changed):
    composed = trainer_config(f"algorithm={algorithm}").actor_rollout_ref.actor.policy_loss
    defaults = SSPOPolicyLossConfig(**changed)
    assert composed.keys() >= {f.name for f in fields(SSPOPolicyLossConfig)} - {"rollout_correction"} - {"_target_"}
    assert composed.label == algorithm
    for key in composed.keys() - {"_target_", "label"}:
        assert composed[key] == defaults[key], key


@pytest.mark.parametrize("algorithm", ["sspo", "sspo_no_entropy_clip", "grpo", "gspo"])
def test_every_algorithm_passes_verls_own_validation(algorithm):
    validate(f"algorithm={algorithm}")


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("clip_low=-0.1", "clip_low must not be negative"),
        ("clip_low=1.1", "clip_low is a lower bound"),
        ("clip_low_tight=1.01", "clip_low_tight is a lower bound"),
        ("clip_low=0.9", "clip_low_tight"),
        ("clip_high=0.3", "clip_high is an upper bound"),
        ("clip_high=.inf", "clip_high must be a finite number"),
        (f"clip_high={10**400}", "clip_high must be a finite number"),
        ("alpha=-0.3", "alpha must not be negative"),
        ("alpha=.nan", "alpha must be a finite number"),
        ("alpha=true", "alpha must be a finite number"),
        ("alpha=much", "alpha must be a finite number"),
        ("alpha=null", "alpha must be a finite number"),
        ("entropy_low=-1", "entropy_low must not be negative"),
        ("entropy_low=1.5", "entropy_high"),
        ("entropy_high=0.4", "entropy_low"),
        ("entropy_clip=maybe", "entropy_clip must be true or false"),
        ("dual_clip=1", "dual_clip must be a finite number over 1"),
        ("dual_clip=.inf", "dual_clip must be a finite number over 1"),
        ("dual_clip=true", "dual_clip must be a finite number over 1"),
        ("dual_clip=off", "dual_clip must be a finite number over 1"),
        ("entropy_source=new", "entropy_source must be one of old, current"),
        ("diagnostics=1", "diagnostics must be true or false"),
        ("dump_segments=-1", "dump_segments must be an integer"),
        ("dump_segments=1.5", "dump_segments must be an integer"),
        ("warn_every_steps=true", "warn_every_steps must be an integer"),
        ("warn_clipfrac=50", "warn_clipfrac is a share"),
        ("warn_entropy=-1", "warn_entropy must not be negative"),
        ("warn_one_band=often", "warn_one_band must be a finite number"),
        ("warn_ratio=-1", "warn_ratio must not be negative"),
        ("label=7", "label must be a name or null"),
    ],
)
def test_a_bad_value_is_a_value_error_that_names_the_key(override, named):
    with pytest.raises(ValueError, match=named) as error:
        validate("algorithm=sspo", f"{KEY}.{override}")
    assert KEY in str(error.value)


@pytest.mark.parametrize(
    "override",
    [
        "clip_low=0.3",
        "clip_low=0",
        "clip_high=1",
        "alpha=0",
        "entropy_low=1.0",
        "clip_low_tight=1",
        "clip_low_tight=0.7",
        "dual_clip=3",
        "dual_clip=1.2",
    ],
)
def test_the_edges_are_allowed(override):
    validate("algorithm=sspo", f"{KEY}.{override}")


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ([BYPASS], "bypass_mode"),
        ([CURRENT, MEGATRON], "strategy=megatron needs .*calculate_entropy=True.* only with fsdp, fsdp2, fsdp_turbo"),
        (["trainer.use_v1=false"], "use_v1"),
        ([f"{KEY}.diagnostics=false", f"{KEY}.dump_segments=5"], r"dump_segments=5 needs .*diagnostics=True"),
        (["algorithm=grpo", DIAGNOSTICS, BYPASS], r"bypass_mode.* or .*diagnostics=False"),
        (["algorithm=gspo", DIAGNOSTICS, CURRENT, MEGATRON], r"calculate_entropy.* or .*diagnostics=False"),
        (["algorithm=grpo", DIAGNOSTICS, "trainer.use_v1=false"], "the diagnostics never ran with it"),
        (["algorithm=grpo", f"{KEY}.clip_low=2"], "clip_low is a lower bound"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(overrides, named):
    with pytest.raises(ValueError, match=named):
        validate("algorithm=sspo", *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["algorithm=sspo", CURRENT],
        ["algorithm=sspo", CURRENT, "actor_rollout_ref.actor.strategy=fsdp2"],
        ["algorithm=sspo", CURRENT, CALCULATE],
        ["algorithm=sspo", BYPASS, CURRENT],
        ["algorithm=sspo_no_entropy_clip", BYPASS],
        ["algorithm=grpo", BYPASS],
        ["algorithm=grpo", "trainer.use_v1=false"],
        ["algorithm=grpo", DIAGNOSTICS, f"{KEY}.dump_segments=5", "trainer.rollout_data_dir=rollouts"],
        ["algorithm=gspo", DIAGNOSTICS, BYPASS, f"{KEY}.entropy_clip=false"],
        # clip_low_tight, over which this clip_low is, has no effect
        ["algorithm=sspo_no_entropy_clip", f"{KEY}.clip_low=0.9"],
        ["algorithm=sspo", f"{KEY}.clip_low=0.9", f"{KEY}.clip_statistic=tv", f"{KEY}.clip_divergence=0.1"],
    ],
)
def test_settings_that_do_fit_together_pass(overrides):
    validate(*overrides)


def test_settings_that_the_documents_suggest_are_accepted():
    texts = [path.read_text() for path in (*TOP.glob("docs/*.md"), TOP / "README.md")]
    ours = {f.name for f in fields(SSPOPolicyLossConfig)}
    found = {words for text in texts for words in re.findall(r"`(\w+=[^`\s]+(?: \w+=[^`\s]+)+)`", text)}
    suggested = [words.split() for words in found if all(word.split("=")[0] in ours for word in words.split())]
    assert len(suggested) >= 3
    for words in suggested:
        validate("algorithm=sspo", *(f"{KEY}.{word}" for word in words))


@pytest.mark.parametrize("override", [CALCULATE, "actor_rollout_ref.actor.entropy_coeff=0.001"])
def test_current_entropy_from_another_engine_is_verls_own(override):
    check_run(trainer_config(*RUNNABLE, "algorithm=sspo", CURRENT, override, name="ppo_megatron_trainer"))


GATE = {"clip_statistic": "tv", "clip_divergence": 0.15}
QUANTILE = {"entropy_thresholds": "quantile", "entropy_low": 0.25, "entropy_high": 0.75}


def test_what_is_beyond_the_paper_is_checked():
    for settings, named in (
        ({"clip_length_exponent": 1.5}, "clip_length_exponent must be a number from -1 to 1"),
        ({"clip_length_exponent": True}, "clip_length_exponent must be a number"),
        ({"clip_length_reference": 0.5}, "clip_length_reference must be a number of 1 or more"),
        ({"ratio_length_exponent": -0.5}, "ratio_length_exponent must be a number from 0 to 1"),
        ({"clip_statistic": "kl"}, "clip_statistic must be one of ratio, tv, binary_kl"),
        ({"clip_statistic": "tv"}, "needs .*clip_divergence, a number over 0, got None: 0.15 is"),
        ({"clip_statistic": "binary_kl", "clip_divergence": 0.0}, "got 0.0: 0.05 is"),
        ({"clip_divergence": 0.1}, "clip_statistic=ratio: no divergence is computed"),
        (GATE | {"clip_length_exponent": -0.5}, "a gate has no band"),
        ({"ratio_cap": 0.9, "ratio_length_exponent": 1.0}, "ratio_cap must be a number from 1 to 22026"),
        ({"ratio_cap": 2.0}, "ratio_cap=2.0 with ratio_length_exponent=0"),
        ({"ratio_cap": 2.0, "ratio_length_exponent": 1.0, "dual_clip": 3.0}, "the dual clip has no effect"),
        ({"entropy_thresholds": "shares"}, "entropy_thresholds must be one of absolute, quantile"),
        ({"entropy_thresholds": "quantile"}, "entropy_low=0.5 and entropy_high=1.0, the defaults in nats"),
        (QUANTILE | {"entropy_high": 1.5}, "entropy_high=1.5 .* a share of the segments"),
        (QUANTILE | {"entropy_source": "current"}, "only the old policy's is known"),
    ):
        with pytest.raises(ValueError, match=named) as error:
            SSPOPolicyLossConfig(**settings)
        assert KEY in str(error.value)
    for settings in (
        {"clip_length_exponent": -0.5},
        {"ratio_length_exponent": 1, "ratio_cap": 5, "dual_clip": 3},
        GATE | {"ratio_cap": 20},
        QUANTILE,
        QUANTILE | {"entropy_low": 0, "entropy_high": 1},
    ):
        SSPOPolicyLossConfig(**settings)


def test_the_names_of_the_gates_are_those_of_the_loss():
    assert set(band_settings.STATISTICS) == set(bounds.RULES)
    assert math.exp(MAX_LOG_RATIO) == pytest.approx(band_settings.LARGEST_CAP, rel=1e-4)
    taken = inspect.signature(sspo_token_terms).parameters.keys() | bounds.Band.__annotations__.keys()
    assert SSPOPolicyLossConfig().bounds().keys() <= taken


def test_shares_need_the_trainer_that_sees_a_complete_batch():
    shares = [f"{KEY}.{name}={value}" for name, value in QUANTILE.items()]
    for more in (
        [BYPASS, f"{KEY}.entropy_clip=false"],
        [BYPASS, "algorithm=grpo", DIAGNOSTICS, f"{KEY}.entropy_clip=false"],
    ):
        with pytest.raises(ValueError, match="entropy_thresholds=quantile"):
            validate("algorithm=sspo", *shares, *more)
    validate("algorithm=sspo", *shares)
    validate("algorithm=grpo", *shares, BYPASS)
    validate("algorithm=sspo", *(f"{KEY}.{name}={value}" for name, value in GATE.items()), BYPASS)


def test_loss_mode_without_the_plugins_config_class_is_refused():
    with pytest.raises(ValueError, match="algorithm=sspo"):
        validate(f"{KEY}.loss_mode=sspo")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("=5", "=5 replaces a group of settings by one value. Set its keys: "),
        ("._target_=foo.Bar", "._target_='foo.Bar' cannot be loaded .*No module named 'foo'.* algorithm=sspo sets it"),
        ("._target_=5", r"._target_=5 cannot be loaded \(it is not the name of a class\)"),
        ("._target_=sspo_verl.config.SSPOPolicyLossConfi", "._target_=.*SSPOPolicyLossConfi' cannot be loaded"),
        ("._target_=''", "._target_='' cannot be loaded"),
        ("._target_=os.getcwd", ".loss_mode=sspo, but .*_target_ is os.getcwd"),
        (".alpha=???", r".alpha is \?\?\?, which is no value"),
    ],
)
def test_a_class_or_value_that_is_not_there_is_refused(override, said):
    with pytest.raises(ValueError, match=f"^{re.escape(KEY)}{said}"):
        check_run(trainer_config(*RUNNABLE, "algorithm=sspo", f"{KEY}{override}"))


@pytest.mark.parametrize("target", ["somebody_elses.LossConfig", "os.getcwd", "collections.OrderedDict"])
def test_the_class_of_a_run_without_sspo_is_verls_own(target):
    check_run(trainer_config(*RUNNABLE, f"{KEY}._target_={target}"))
    assert settings_of(None) is None


def test_verls_own_checks_still_run():
    config = trainer_config("algorithm=sspo", RUNNABLE[0])
    with pytest.raises(Exception, match="ppo_micro_batch_size"):
        verl.utils.config.validate_config(config, use_reference_policy=False, use_critic=False)
