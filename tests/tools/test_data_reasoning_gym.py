"""`sspo data reasoning-gym`: the layout, the same bytes every time, other prompts to test with, errors."""

import json
import re
import sys

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from sspo_verl import extras
from sspo_verl.tools.data.command import command
from sspo_verl.tools.data.gym_generate import entries

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed: pip install 'sspo_verl[gym]'")

# Both take the order of a set, which another process has otherwise.
TASKS = ("isomorphic_strings", "word_ladder")
COUNTS = {"train": 12, "test": 4}


def run(*arguments):
    return CliRunner().invoke(command, ["reasoning-gym", *map(str, arguments)])


def make(folder, *arguments, tasks=TASKS, seed=3):
    counts = ("--rows", COUNTS["train"], "--test-rows", COUNTS["test"])
    done = run(*tasks, *counts, "--seed", seed, "--out", folder, *arguments)
    assert done.exit_code == 0, done.output
    return {split: pq.read_table(folder / f"{split}.parquet").to_pylist() for split in COUNTS}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gym")
    return folder, make(folder)


def test_rows_are_in_verls_layout_and_the_tasks_are_mixed(made):
    for split, rows in made[1].items():
        assert [row["extra_info"]["index"] for row in rows] == list(range(len(TASKS) * COUNTS[split]))
        sources = [row["data_source"] for row in rows]
        assert {sources.count(f"reasoning_gym_{task}") for task in TASKS} == {COUNTS[split]}
        assert sources != sorted(sources)
        for row in rows:
            inside = row["extra_info"]
            assert row.keys() == {"data_source", "prompt", "ability", "reward_model", "extra_info"}
            assert (row["ability"], row["reward_model"]["style"], inside["split"]) == ("algorithmic", "rule", split)
            system, user = row["prompt"]
            assert (system["role"], user["role"]) == ("system", "user")
            assert user["content"].startswith(inside["question"].rstrip())
            assert user["content"].endswith("put your final answer between <answer> and </answer>.")
            assert isinstance(json.loads(inside["metadata"]), dict)


def test_no_prompt_comes_twice_nor_in_both_splits(made):
    questions = [row["extra_info"]["question"] for rows in made[1].values() for row in rows]
    assert len(set(questions)) == len(questions)
    seeds = {split: {row["extra_info"]["seed"] for row in rows} for split, rows in made[1].items()}
    assert seeds["train"].isdisjoint(seeds["test"])


def test_the_same_bytes_in_any_process_and_never_over_a_file(made, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "5")
    make(tmp_path)
    for split in COUNTS:
        assert (tmp_path / f"{split}.parquet").read_bytes() == (made[0] / f"{split}.parquet").read_bytes()
    refused = run(*TASKS, "--out", tmp_path)
    assert (refused.exit_code, "--force replaces" in refused.output) == (2, True)


def test_settings_reach_the_task_and_the_prompt_may_ask_for_a_box(tmp_path):
    settings = ("--set", "chain_sum.min_terms=2", "--set", "chain_sum.max_terms=2", "--answer", "boxed")
    rows = make(tmp_path, *settings, tasks=("chain_sum",))["train"]
    for row in rows:
        metadata = json.loads(row["extra_info"]["metadata"])
        assert metadata["num_terms"] == 2
        assert json.loads(row["extra_info"]["config"]) == {"min_terms": 2, "max_terms": 2}
        assert row["prompt"][-1]["content"].endswith(r"within \boxed{}.")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["mini_sudoko"], 2, "no task 'mini_sudoko'. Did you mean mini_sudoku or sudoku"),
        (["Knights-Knaves"], 2, "Did you mean knights_knaves"),
        ([], 2, "Name at least one TASK"),
        (["gcd", "--set", "gcd.max_valu=3"], 2, "gcd has no setting 'max_valu'. Did you mean max_value"),
        (["gcd", "--set", "lcm.max_value=3"], 2, "'lcm' is not among the tasks: gcd"),
        (["gcd", "--set", "max_value=3"], 2, "write TASK.KEY=VALUE"),
        pytest.param(["game_of_life_halting"], 1, "game_of_life_halting: entry 0", marks=pytest.mark.slow),
    ],
)
def test_errors_name_the_task_and_what_to_do(tmp_path, arguments, code, said):
    done = run(*arguments, "--out", tmp_path)
    assert (done.exit_code, said in done.output) == (code, True), done.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("task", "settings", "said"),
    [
        ("gcd", {"max_value": -3}, "gcd: its settings {'max_value': -3} are refused"),
        ("gcd", {"min_value": 1, "max_value": 2}, "gcd does not have 50 distinct prompts with these settings; only "),
    ],
)
def test_rows_that_a_task_cannot_give(task, settings, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        entries(task, settings, 50, 1, set())


def test_the_list_has_the_tasks_by_category():
    found = json.loads(run("--list", "--json").output)
    assert {"logic", "games", "code", "algebra", "arithmetic"} <= found.keys()
    assert "knights_knaves" in found["logic"]
    assert sum(map(len, found.values())) > 90
    assert "logic: " in run("--list").output


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda module: None if module == "reasoning_gym" else sys)
    done = run("gcd", "--out", tmp_path)
    assert done.exit_code == 2
    assert "sspo data reasoning-gym needs reasoning_gym, which is not installed: pip install 'sspo_verl[gym]'" in (
        done.output
    )
