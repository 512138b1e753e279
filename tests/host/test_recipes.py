"""Every recipe with every algorithm: composed afresh, accepted by verl, like for like; and the tables in the docs."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(file.stem for file in (ROOT / "recipes").glob("*.yaml"))
FOR_THE_PAPER = ["qwen2_5_math_1_5b", "qwen2_5_math_7b"]
WITHOUT_SLOW = ["quickstart", "qwen2_5_math_1_5b"]  # each costs a process with verl
ALGORITHMS = ("sspo", "sspo_no_entropy_clip", "sspo_length", "sspo_turn", "grpo", "gspo", "gspo_wide")
ACTOR = "actor_rollout_ref.actor"
ROLLOUT = "actor_rollout_ref.rollout"
# The keys in which the algorithms may differ: the loss, its bounds, the advantage, and what the run is called.
MAY_DIFFER = {
    "algorithm.adv_estimator",
    *(f"{ACTOR}.{name}" for name in ("clip_ratio", "clip_ratio_low", "clip_ratio_high")),
    *(
        f"{ACTOR}.policy_loss.{name}"
        for name in ("loss_mode", "entropy_clip", "clip_length_exponent", "segmenter", "label")
    ),
    "trainer.experiment_name",
    "trainer.default_local_dir",
    "trainer.validation_data_dir",
    "trainer.rollout_data_dir",
    f"{ROLLOUT}.trace.experiment_name",
    *(f"run_names.{name}" for name in ("label", "None")),
}
# Keys that verl's ppo_trainer does not have, and why that is right.
NOT_VERLS = (
    f"{ACTOR}.policy_loss.",  # SSPOPolicyLossConfig's; a wrong one is refused by that class
    "actor_rollout_ref.model.override_config.",  # handed to transformers
    f"{ACTOR}.fsdp_config.mixed_precision.",  # this and the next: fields of verl's dataclasses, which refuse others
    f"{ROLLOUT}.enable_sleep_mode",
    "reward.custom_reward_function.reward_kwargs.",  # handed to the reward
    "ray_kwargs.ray_init.",  # handed to ray.init
    f"{ROLLOUT}.engine_kwargs.vllm.",  # handed to vLLM
    "run_names.",  # our own
)
CONTEXT = 4096  # of Qwen2.5-Math


def each(recipes: list[str]) -> list:
    return [name if name in WITHOUT_SLOW else pytest.param(name, marks=pytest.mark.slow) for name in recipes]


@functools.cache
def composed(recipe: str, folder: Path = ROOT / "recipes") -> dict:
    script = Path(__file__).parents[1] / "lib" / "compose_recipe.py"
    done = subprocess.run(
        [sys.executable, script, folder, recipe], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def differing(found: dict) -> set[str]:
    each = [found[name]["settings"] for name in ALGORITHMS]
    return {key for settings in each for key in settings if len({repr(s.get(key)) for s in each}) > 1}


def indivisible(settings: dict, gpus: int) -> list[str]:
    """Rules that verl asserts only once it trains."""
    rollouts = settings["data.train_batch_size"] * settings[f"{ROLLOUT}.n"]
    update = settings[f"{ACTOR}.ppo_mini_batch_size"] * settings[f"{ROLLOUT}.n"]
    wrong = [
        f"{what} ({number}) by {by}"
        for what, number, by in (
            ("responses of a batch", rollouts, gpus),
            ("responses of an update", update, gpus),
            ("responses of a batch", rollouts, update),
            ("GPUs", gpus, settings[f"{ROLLOUT}.tensor_model_parallel_size"]),
        )
        if number % by
    ]
    if not settings[f"{ACTOR}.use_dynamic_bsz"]:
        for key, number in (
            (f"{ACTOR}.ppo_micro_batch_size_per_gpu", update // gpus),
            (f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu", rollouts // gpus),
        ):
            if number % settings[key]:
                wrong.append(f"{number} responses of a GPU by {key}={settings[key]}")
    return wrong


def test_the_recipes_are_here():
    assert set(RECIPES) >= {"quickstart", *FOR_THE_PAPER}


@pytest.mark.parametrize("recipe", each(RECIPES))
def test_composes_and_verl_accepts_it_on_one_node_and_on_two(recipe):
    found = composed(recipe)
    assert {name: found[name]["complaints"] for name in ALGORITHMS} == {
        name: {"1": None, "2": None} for name in ALGORITHMS
    }


@pytest.mark.parametrize("recipe", each(RECIPES))
def test_every_key_is_one_that_verl_reads(recipe):
    found = composed(recipe)
    for name in ALGORITHMS:
        unknown = found[name]["settings"].keys() - found["verl"].keys()
        # An empty dictionary of verl's may be filled.
        filled = {key for key in unknown if found["verl"].get(key.rpartition(".")[0], 0) == {}}
        assert {key for key in unknown - filled if not key.startswith(NOT_VERLS)} == set()


@pytest.mark.parametrize("recipe", each(RECIPES))
def test_the_algorithms_compare_like_for_like(recipe):
    found = composed(recipe)
    assert differing(found) <= MAY_DIFFER
    losses = [
        (found[name]["settings"][f"{ACTOR}.policy_loss.loss_mode"], found[name]["settings"]["algorithm.adv_estimator"])
        for name in ALGORITHMS
    ]
    assert losses == [("sspo", "sspo")] * 4 + [("vanilla", "grpo")] + [("gspo", "grpo")] * 2
    assert all(found[name]["settings"][f"{ACTOR}.policy_loss.diagnostics"] is True for name in ALGORITHMS)


@pytest.mark.parametrize("recipe", each(FOR_THE_PAPER))
@pytest.mark.parametrize("nodes", [1, 2])
def test_batches_divide_and_lengths_fit(recipe, nodes):
    settings = composed(recipe)["sspo"]["settings"]
    gpus = nodes * settings["trainer.n_gpus_per_node"]
    assert gpus == 8 * nodes
    assert indivisible(settings, gpus) == []
    longest = settings["data.max_prompt_length"] + settings["data.max_response_length"]
    assert longest <= settings[f"{ROLLOUT}.max_model_len"] <= CONTEXT
    for key in (f"{ACTOR}.ppo_max_token_len_per_gpu", f"{ROLLOUT}.log_prob_max_token_len_per_gpu"):
        assert settings[key] >= longest
    # Checkpoints, validations and the end fall together, so that the last weights are both kept and validated.
    for key in ("trainer.test_freq", "trainer.save_freq"):
        assert settings["trainer.total_training_steps"] % settings[key] == 0


@pytest.mark.parametrize("recipe", each(FOR_THE_PAPER))
def test_each_algorithm_has_a_folder_of_its_own(recipe):
    found = composed(recipe)
    folders = [found[name]["settings"]["trainer.default_local_dir"] for name in ALGORITHMS]
    assert folders == [f"runs/{recipe}/{name}-1/checkpoints" for name in ALGORITHMS]


@pytest.mark.slow
def test_these_tests_see_a_wrong_recipe(tmp_path):
    """One recipe with a mistake for each of them."""
    (tmp_path / "shared").symlink_to(ROOT / "recipes" / "shared")
    (tmp_path / "platform").symlink_to(ROOT / "recipes" / "platform")
    text = (ROOT / "recipes" / "qwen2_5_math_1_5b.yaml").read_text()  # its last key is in `trainer`
    (tmp_path / "wrong.yaml").write_text(
        text.replace("  model:\n", "  rollout: {temperature: 0, val_kwargs: {do_sample: true}}\n  model:\n")
        + "  test_frequency: 20\n"
        + f"  balance_batch: ${{wrong.${{{ACTOR}.policy_loss.loss_mode}}}}\n"
        + "wrong: {sspo: true, vanilla: true, gspo: false}\n"
        + "data: {train_batch_size: 100}\n"
    )
    found = composed("wrong", tmp_path)
    settings = found["sspo"]["settings"]
    assert all("temperature" in found[name]["complaints"]["2"] for name in ALGORITHMS)  # SSPO or verl says so
    assert differing(found) - MAY_DIFFER == {"trainer.balance_batch"}
    assert "trainer.test_frequency" in settings.keys() - found["verl"].keys()
    assert indivisible(settings, 8) == ["responses of a batch (800) by 128"]
    assert indivisible(settings, 16 * 3) != []


# docs/reproduce.md


def printed(*command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=900, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    "command",
    [["scripts/recipe_settings.py", "qwen2_5_math_1_5b"], ["benchmarks/gpu_hours.py"]],
    ids=["settings", "gpu_hours"],
)
def test_the_tables_in_the_docs_are_what_is_printed(command):
    assert printed(*command) in (ROOT / "docs" / "reproduce.md").read_text(), f"paste in what {command[0]} prints"
