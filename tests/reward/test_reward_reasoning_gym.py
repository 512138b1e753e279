"""The reward on reasoning-gym: the tasks' own verifiers, through verl's loading, with limits and settings."""

import os
import re
import subprocess
import sys

import pytest
from compose import trainer_config
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed: pip install 'sspo_verl[gym]'")

from sspo_verl.plugin.check_run import check_reward
from sspo_verl.reward import reasoning_gym as reward
from sspo_verl.reward.entries import from_json, to_json
from sspo_verl.tools.data.gym_generate import entries

MODULE = "pkg://sspo_verl.reward.reasoning_gym"
GRID = "1 2\n3 4"


@pytest.fixture(scope="module", autouse=True)
def _no_worker_is_left():
    yield
    reward.close()


@pytest.fixture(scope="module")
def score():
    """The reward as verl loads it: scores a response to a row of gym_generate."""
    from verl.trainer.ppo.reward import get_custom_reward_fn

    function = {"path": MODULE, "name": "compute_score", "reward_kwargs": {"workers": 1, "seconds": 5}}
    loaded = get_custom_reward_fn(OmegaConf.create({"reward": {"custom_reward_function": function}}))

    def score(row, answer, **extra):
        response = f"We look.\n<answer>{answer}</answer>"
        gold = row["answer"]
        return loaded(data_source=row["task"], solution_str=response, ground_truth=gold, extra_info=row | extra)

    return score


# Of text, a number, a list, a grid of several lines; tuples in the metadata; a verifier with many right answers.
@pytest.mark.parametrize("task", ["knights_knaves", "chain_sum", "word_sorting", "mini_sudoku", "arc_agi", "countdown"])
def test_the_tasks_own_answer_is_right_and_another_is_not(score, task):
    rows, _ = entries(task, {}, 3, 5, set())
    assert not {row["answer"] for row in rows} & {"", None}
    for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
        assert score(row, row["answer"])["score"] == score(row, f"\n{row['answer']}\n")["acc"] == 1.0
        assert row["answer"] == other["answer"] or score(row, other["answer"])["acc"] == 0.0
        assert score(row, "I do not know")["acc"] == 0.0


def test_a_part_of_a_point_counts_unless_partial_is_false():
    (row,), _ = entries("word_sorting", {}, 1, 5, set())
    reply = f"<answer>{', '.join(reversed(row['answer'].split(', ')))}</answer>"
    scored = reward.compute_score("", reply, row["answer"], row)
    assert 0 < scored["score"] < 1
    assert scored["acc"] == 0
    assert reward.compute_score("", reply, row["answer"], row, partial=False)["score"] == 0


def test_what_is_not_an_answer_or_not_an_entry_is_counted(score):
    (row,), _ = entries("chain_sum", {}, 1, 5, set())
    for response in (None, "", row["answer"], r"\boxed{3}", "<answer></answer>", "<answer>3"):
        assert reward.compute_score("", response, row["answer"], row)["boxed"] == 0
    wrong = [{"metadata": None}, {"metadata": "{"}, {"task": "no_such"}, {"config": '{"no_such":1}'}, {"question": 3}]
    for extra in wrong:
        scored = score(row, row["answer"], **extra)
        assert (scored["score"], scored["failed"]) == (0, 1), extra
    assert reward.compute_score("", "<answer>3</answer>", "3", None)["failed"] == 1
    assert score(row, "1" * 5000)["failed"] == 1


def test_a_verifier_that_hangs_raises_or_runs_the_answer_scores_nothing(tmp_path):
    """string_insertion hands what looks like a list to eval()."""
    (row,), _ = entries("string_insertion", {}, 1, 5, set())
    there = tmp_path / "there"
    hang = "[str(10**10**8 % 7)]"
    for answer in (f"[open({str(there)!r}, 'w').name]", f"[__import__('os').system('touch {there}')]"):
        assert reward.compute_score("", f"<answer>{answer}</answer>", row["answer"], row)["acc"] == 0
    assert not there.exists()
    scored = reward.compute_score("", f"<answer>{hang}</answer>", row["answer"], row, seconds=0.2, workers=1)
    assert (scored["score"], scored["timeout"]) == (0, 1)
    (row,), _ = entries("prime_factorization", {}, 1, 5, set())
    scored = reward.compute_score("", "<answer>none at all</answer>", row["answer"], row)
    assert (scored["score"], scored["failed"]) == (0, 1)


def test_settings_that_are_not_possible_end_the_run_before_it_starts(monkeypatch):
    def check(*kwargs):
        given = [f"+reward.custom_reward_function.reward_kwargs.{each}" for each in kwargs]
        check_reward(trainer_config(f"reward.custom_reward_function.path={MODULE}", *given))

    check("answer=boxed", "partial=false")
    for setting, said in (
        ("answr=a", "It has answer, seconds, workers, partial."),
        ("partial=2", "partial=2: give true"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            check(setting)
    from sspo_verl import extras

    monkeypatch.setattr(extras, "find_spec", lambda module: None)
    with pytest.raises(extras.MissingExtra, match=re.escape("pip install 'sspo_verl[gym]'")):
        check()


def test_loading_it_without_the_extra_says_what_to_install():
    script = f"import sys; sys.path[:] = {sys.path!r}; sys.modules['reasoning_gym'] = None; import {MODULE[6:]}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ})
    assert "sspo_verl.reward.reasoning_gym needs reasoning_gym" in done.stderr
    assert "pip install 'sspo_verl[gym]'" in done.stderr


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.fractions()
    | st.decimals(allow_nan=False)
    | st.dates()
    | st.datetimes()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers(), st.integers()), inner)
        | st.sets(st.integers() | st.text() | st.tuples(st.integers()))
    ),
    max_leaves=10,
)


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_an_entry_comes_back_as_it_was(value):
    back = from_json(to_json(value))
    assert back == value
    assert repr(type(back)) == repr(type(value))


def test_what_cannot_be_written_is_refused():
    with pytest.raises(ValueError, match="object"):
        to_json([object()])
