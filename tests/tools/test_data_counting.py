"""`sspo data counting`: right answers, a test split that training cannot have seen, and the same files every time."""

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from sspo_verl.tools.data.answer import last_boxed
from sspo_verl.tools.data.command import command
from sspo_verl.tools.tasks import counting


def make(folder, *arguments):
    return CliRunner().invoke(command, ["counting", "--out", str(folder), *arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("counting")
    done = make(folder)
    assert done.exit_code == 0, done.output
    return folder


def rows(folder, split):
    return pq.read_table(folder / f"{split}.parquet").to_pylist()


def starts(folder, split):
    return [int(row["prompt"][-1]["content"]) for row in rows(folder, split)]


@pytest.mark.parametrize(("split", "count"), [("train", 729), ("test", 256)])
def test_every_row_asks_for_a_number_and_knows_the_one_three_on(folder, split, count):
    found = rows(folder, split)
    assert [row["extra_info"] for row in found] == [{"split": split, "index": index} for index in range(count)]
    for row in found:
        start = int(row["prompt"][-1]["content"])
        assert 10 <= start < start + 3 <= 999
        assert row["reward_model"] == {"style": "rule", "ground_truth": str(start + 3)}
        assert (row["data_source"], row["ability"]) == ("counting", "math")


def test_the_examples_in_the_prompt_are_right_and_are_no_problems(folder):
    before = [row["prompt"][:-1] for split in ("train", "test") for row in rows(folder, split)]
    assert all(each == before[0] for each in before)
    system, *turns = before[0]
    assert system == {"role": "system", "content": ""}
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2
    for question, answer in zip(turns[::2], turns[1::2], strict=True):
        start = int(question["content"])
        *lines, box = answer["content"].split("\n")
        assert lines == [str(start + 1), str(start + 2), str(start + 3)]
        assert last_boxed(box) == lines[-1]
        assert start not in starts(folder, "train") + starts(folder, "test")


def test_no_problem_comes_twice_nor_in_both_splits(folder):
    train, test = starts(folder, "train"), starts(folder, "test")
    assert len(set(train)) == len(train)
    assert len(set(test)) == len(test)
    assert set(train).isdisjoint(test)
    assert set(train) | set(test) | set(counting.EXAMPLES) == set(range(10, 997))


def test_the_held_out_problems_are_like_the_others(folder):
    """A carry is where counting is hard: both splits have a third of them, 8 or 9 in ten of three digits."""
    for split in ("train", "test"):
        found = starts(folder, split)
        assert 0.22 < sum(start % 10 >= 7 for start in found) / len(found) < 0.38
        assert 0.85 < sum(start >= 100 for start in found) / len(found) < 0.95


def test_the_same_bytes_every_time_and_never_over_a_file(folder, tmp_path):
    assert make(tmp_path).exit_code == 0
    for name in ("train.parquet", "test.parquet"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    refused = make(tmp_path)
    assert refused.exit_code == 2
    assert "--force replaces" in refused.output
    assert make(tmp_path, "--force").exit_code == 0


def test_the_files_are_the_ones_that_are_meant(folder):
    """The accuracies in docs/smollm2.md are on these problems."""
    assert (starts(folder, "train")[:2], starts(folder, "test")[:2]) == ([42, 765], [472, 21])


def test_the_reward_takes_a_solution_and_no_wrong_one():
    from sspo_verl.reward.math import close, compute_score

    def score(text):
        return compute_score(counting.DATA_SOURCE, text, "401")

    try:
        solution = counting.solution(398)
        assert score(solution)["score"] == 1
        assert score(solution.replace("boxed{401}", "boxed{400}"))["score"] == 0
        assert score("399\n400\n401")["boxed"] == 0
    finally:
        close()
