"""Responses on disk: written as they come, never generated twice, refused where they are of something else."""

import json

import pytest
from evaluate_parts import FakeGenerator, make_data, make_model, write_rows

from sspo_verl.tools.analyze.read import expand
from sspo_verl.tools.evaluate import plan as planning
from sspo_verl.tools.evaluate.run import run
from sspo_verl.tools.evaluate.sampling import choose, seed_of
from sspo_verl.tools.tasks import arithmetic


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path / "data", easy=7, hard=4)


@pytest.fixture
def plan(model, data, tmp_path):
    def make(out="out", sets=None, limit=None, k=3, temperature=1.0, max_tokens=40, seed=0):
        sampling = choose(k, False, temperature, None, max_tokens, seed)
        return planning.make((str(model),), data, sets, limit, sampling, "cpu", tmp_path / out)

    return make


def quiet(text: str) -> None:
    pass


def lines(evaluation) -> list[bytes]:
    return (evaluation.works[0].store.folder / "responses.jsonl").read_bytes().splitlines(keepends=True)


def test_every_response_is_a_line_with_its_verdict(plan):
    evaluation = plan()
    (result,) = run(evaluation, quiet, FakeGenerator())
    rows = [json.loads(line) for line in lines(evaluation)]
    assert len(rows) == len({(row["set"], row["index"], row["sample"]) for row in rows}) == 11 * 3
    for row in rows:
        assert row["correct"] == row["output"].endswith(f"#### {row['gold']}")
        assert row["score"] == float(row["correct"])
        assert row["status"] == ("no_answer" if row["output"] == "no idea" else "ok")
        assert (row["answer"] is None) == (row["output"] == "no idea")
        assert row["finished"] == (row["output"] != "no idea")
        assert row["data_source"] == "sums"
        assert row["prompt"] == f"<|im_start|>1+2+3+{1 + row['index']}="
    easy = [row for row in rows if row["set"] == "easy"]
    found = result.sets["easy"]
    assert (found.problems, found.samples) == (7, 3)
    assert found.accuracy.value == pytest.approx(sum(row["correct"] for row in easy) / 21)
    assert found.mean_tokens == pytest.approx(sum(row["tokens"] for row in easy) / 21)
    assert found.cut_off == pytest.approx(sum(not row["finished"] for row in easy) / 21)
    assert found.no_answer == pytest.approx(sum(row["status"] == "no_answer" for row in easy) / 21)
    for mean in ("mean_tokens", "cut_off", "no_answer"):
        of_sets = [getattr(one, mean) for one in result.sets.values()]
        assert of_sets[0] != of_sets[1]
        assert getattr(result.average, mean) == pytest.approx(sum(of_sets) / 2), mean
    right = [any(row["correct"] for row in easy if row["index"] == index) for index in range(7)]
    assert found.pass_at[3].value == pytest.approx(sum(right) / 7)
    assert found.pass_at[1].value == pytest.approx(found.accuracy.value)
    assert result.average.accuracy.value == pytest.approx(
        (found.accuracy.value + result.sets["hard"].accuracy.value) / 2
    )
    assert 0 < found.accuracy.value < 1


@pytest.mark.parametrize("stop_after", [0, 3, 15, 30])
@pytest.mark.parametrize("cut", [0, 1, 40])
def test_a_run_that_was_stopped_goes_on_and_ends_the_same(plan, stop_after, cut):
    complete = plan("complete")
    (expected,) = run(complete, quiet, FakeGenerator())

    evaluation, first = plan("stopped"), FakeGenerator(stop_after)
    with pytest.raises(KeyboardInterrupt):
        run(evaluation, quiet, first)
    file = evaluation.works[0].store.folder / "responses.jsonl"
    there = file.read_bytes()
    assert len(there.splitlines()) == len(first.generated) == stop_after
    file.write_bytes(there[: len(there) - cut])  # a kill in the middle of a line
    lost = 1 if cut and there else 0

    second = FakeGenerator()
    (result,) = run(plan("stopped"), quiet, second)
    assert len(second.generated) == 33 - stop_after + lost
    kept = set(first.generated[: len(first.generated) - lost])
    assert not kept & set(second.generated), "a response was generated twice"
    assert sorted(lines(plan("stopped"))) == sorted(lines(complete))
    assert (result.sets, result.average) == (expected.sets, expected.average)
    assert result.reused == stop_after - lost


def test_nothing_missing_starts_no_vllm(plan):
    run(plan(), quiet, FakeGenerator())
    again = FakeGenerator()
    (result,) = run(plan(), quiet, again)
    assert again.calls == 0
    assert result.reused == 33


def test_more_samples_sets_and_problems_are_added_and_fewer_are_a_part(plan):
    run(plan(k=2, sets=["easy"], limit=3), quiet, FakeGenerator())
    more = FakeGenerator()
    (grown,) = run(plan(k=3), quiet, more)
    assert len(more.generated) == 33 - 6
    (complete,) = run(plan("complete"), quiet, FakeGenerator())
    assert grown.sets == complete.sets
    none = FakeGenerator()
    (part,) = run(plan(k=1, sets=["hard"], limit=2), quiet, none)
    assert none.calls == 0
    assert (part.sets["hard"].problems, part.sets["hard"].samples) == (2, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"temperature": 0.6}, "temperature 1.0 there, 0.6 now"),
        ({"max_tokens": 30}, "max_tokens 40 there, 30 now"),
        ({"seed": 1}, "seed 0 there, 1 now"),
        ({"k": 1, "temperature": 0.0}, "temperature 1.0 there, 0.0 now"),
    ],
)
def test_other_settings_are_refused(plan, change, said):
    run(plan(), quiet, FakeGenerator())
    with pytest.raises(ValueError, match=said):
        plan(**change)


def test_another_model_of_the_same_name_is_refused(plan, data, tmp_path):
    run(plan(), quiet, FakeGenerator())
    other = make_model(tmp_path / "tiny")
    config = other / "generation_config.json"
    config.write_text(config.read_text().replace("258", "257"))
    with pytest.raises(ValueError, match=r"responses made with different settings: model \w+ there, \w+ now"):
        planning.make((str(other),), data, None, None, choose(3, False, 1.0, None, 40, 0), "cpu", tmp_path / "out")


@pytest.mark.parametrize("part", ["prompt", "gold"])
def test_another_problem_under_the_same_number_is_refused(plan, data, part):
    run(plan(), quiet, FakeGenerator())
    rows = [arithmetic.verl_row((1, 2, 3, 1 + index), index, "test") for index in range(7)]
    if part == "prompt":
        rows[2]["prompt"][0]["content"] = "9+9+9+9="
    else:
        rows[2]["reward_model"]["ground_truth"] = "5"
    write_rows(data / "easy.parquet", rows)
    with pytest.raises(ValueError, match="a response to easy, problem 2, whose prompt or gold answer differs"):
        plan()


def test_a_broken_line_in_the_middle_is_named(plan):
    evaluation = plan()
    run(evaluation, quiet, FakeGenerator())
    file = evaluation.works[0].store.folder / "responses.jsonl"
    there = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*there[:4], b'{"set": 1}\n', *there[4:]]))
    with pytest.raises(ValueError, match="line 5 is not a response"):
        plan()
    file.write_bytes(b"".join([*there, there[0]]))
    with pytest.raises(ValueError, match=r"line 34: .* occurs twice"):
        plan()


def test_responses_without_settings_are_refused(plan):
    evaluation = plan()
    run(evaluation, quiet, FakeGenerator())
    (evaluation.works[0].store.folder / "settings.json").unlink()
    with pytest.raises(ValueError, match="its settings are unknown"):
        plan()


def test_damaged_settings_are_named(plan):
    evaluation = plan()
    run(evaluation, quiet, FakeGenerator())
    file = evaluation.works[0].store.folder / "settings.json"
    file.write_text(file.read_text()[:20])
    with pytest.raises(ValueError, match=rf"{file} is damaged .*: choose another --out, or remove that folder"):
        plan()


def test_two_at_once_are_refused(plan):
    with plan().works[0].store, pytest.raises(ValueError, match="is using"):
        run(plan(), quiet, FakeGenerator())
    run(plan(), quiet, FakeGenerator())


def test_the_lines_are_on_disk_before_the_next_batch(plan):
    evaluation = plan()
    file = evaluation.works[0].store.folder / "responses.jsonl"
    fake = FakeGenerator(batch=5)

    def watched(*arguments):
        for number, batch in enumerate(fake(*arguments)):
            assert len(file.read_bytes().splitlines()) == 5 * max(0, number - 1)
            yield batch

    run(evaluation, quiet, watched)


def test_sspo_analyze_reads_the_responses(plan):
    from sspo_verl.tools.analyze.cut import by_lines
    from sspo_verl.tools.analyze.fields import Columns
    from sspo_verl.tools.analyze.run import analyze

    evaluation = plan()
    run(evaluation, quiet, FakeGenerator())
    found = analyze(expand((str(evaluation.works[0].store.folder / "responses.jsonl"),)), Columns(), by_lines, 0.5, 1.0)
    assert found.rows == 33
    correct = sum(json.loads(line)["correct"] for line in lines(evaluation))
    assert found.cells["sums", True].responses == correct
    assert found.cells["sums", False].responses == 33 - correct


def test_seeds_differ_by_all_that_they_depend_on():
    seeds = {
        seed_of(seed, name, index, sample)
        for seed in range(3)
        for name in ("a", "b")
        for index in range(50)
        for sample in range(8)
    }
    assert len(seeds) == 3 * 2 * 50 * 8
    assert seed_of(0, "math500", 3, 1) == 0x836A4F40  # sha256("0/math500/3/1"), first 4 bytes
    assert all(0 <= seed < 2**32 for seed in seeds)
