"""Tables, runs and reports of the study, in small: a table of a few cells, run, killed, resumed and reported."""

import json
import time
from pathlib import Path

import pytest

from benchmarks.study import choose, claims, conditions, report, results, runner
from benchmarks.study.claims import compare
from benchmarks.study.points import differences, of_grids, values

TABLE = """
about: a test
algorithms:
  grpo: {segmenter: token, settings: {clip_low: 0.8, clip_high: 1.2}}
  none: {loss: none}
sweeps:
  segment: {over: half_width, values: [0.1, 1.5], segmenter: line_break}
groups:
  both: [grpo, none]
grids:
  null_control:
    {added: null, tables: identical, experiment: one_batch, task: sums, algorithm: [both, segment], updates: 1,
     learning_rate: 1.0e-3, seed: 0, prompts: 4, group: 4, held_out: 16}
  small:
    {added: null, figures: by_rate, experiment: one_batch, task: sums, algorithm: both, updates: [1, 4],
     learning_rate: 1.0e-3, seed: [0, 1, 2], prompts: 4, group: 4, held_out: 16}
claims:
  - {grid: small, metric: kl, minus: [grpo, none]}
"""


def table_of(tmp_path, text=TABLE):
    file = tmp_path / "tiny.yaml"
    file.write_text(text)
    return conditions.read(file)


def outcomes(file):
    return {conditions.key_of(row.cell): row.result for row in results.read(file)}


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """The table, and the file of a run without a break."""
    folder = tmp_path_factory.mktemp("study")
    table = table_of(folder)
    runner.run(table, folder / "tiny.jsonl")
    return table, folder / "tiny.jsonl"


def test_a_killed_run_resumes_without_changing_a_result(complete, tmp_path):
    table, reference = complete
    file = tmp_path / "tiny.jsonl"
    assert runner.run(table, file, most=5) == 5
    with file.open("a") as opened:  # killed while it wrote
        opened.write(reference.read_text().splitlines()[5][:40])
    assert len(results.read(file)) == 5
    assert runner.run(table, file) == len(table.cells()) - 5
    assert outcomes(file) == outcomes(reference)
    assert len(results.read(file)) == len(table.cells())
    assert runner.run(table, file) == 0


def test_two_runs_of_one_file_are_refused(complete, tmp_path):
    table, _ = complete
    file = tmp_path / "tiny.jsonl"
    with results.appending(file), pytest.raises(ValueError, match="being written by another run"):
        runner.run(table, file)


def test_one_update_shows_exactly_no_difference(complete):
    table, file = complete
    points = of_grids(table, results.read(file), ["null_control"])
    assert len(points) == 4
    results_but_lengths = [{k: v for k, v in p.result.items() if k != "by_length"} for p in points]
    assert all(result == results_but_lengths[0] for result in results_but_lengths)
    assert points[0].result["kl"] > 0.001


def test_several_updates_differ_and_a_row_says_what_it_is_of(complete):
    table, file = complete
    rows = results.read(file)
    points = {p.algorithm.name: p for p in of_grids(table, rows, ["small"]) if p.at("updates") == 4 and p.seed == 0}
    assert points["grpo"].result["kl"] != points["none"].result["kl"]
    assert points["none"].result["clipped_low"] == points["none"].result["clipped_high"] == 0
    grpo = points["grpo"].result
    assert grpo["clipped_low"] + grpo["clipped_high"] > 0
    clipped = (grpo["clipped_low"] + grpo["clipped_high"]) * grpo["tokens"]
    assert sum(grpo["clipped_by_length"]) == pytest.approx(clipped, rel=1e-4)
    assert rows[0].made_with.keys() == {"commit", "torch"}


def test_comparisons_pair_the_seeds(complete, monkeypatch):
    table, file = complete
    assert compare(table, results.read(file)) == []  # three seeds are too few
    monkeypatch.setattr(claims, "FEWEST_SEEDS", 3)
    found = compare(table, results.read(file))
    assert [dict(each.place)["updates"] for each in found] == [1, 4]
    assert found[0].difference.mean == 0
    assert found[0].p == found[0].corrected == 1
    assert found[1].difference.n == 3
    assert found[1].difference.mean != 0


def test_differences_are_of_the_seeds_that_both_have():
    assert differences({1: 5.0, 2: 7.0, 3: 1.0}, {3: 0.5, 1: 1.0}) == [4.0, 0.5]


def test_two_results_of_a_seed_are_not_mixed_up(complete):
    table, file = complete
    with pytest.raises(AssertionError, match="two results of seed 0"):
        values(of_grids(table, results.read(file), ["small"]), "gain")


def test_a_report_is_drawn(complete, tmp_path, monkeypatch):
    table, file = complete
    monkeypatch.setattr(claims, "FEWEST_SEEDS", 3)
    page, *figures = report.write_table(table, results.read(file), tmp_path)
    text = page.read_text()
    assert "14 of 14 cells" in text
    assert "4 results of 4 algorithms; largest difference within a seed, in any number of a result: 0.\n" in text
    assert "| sums | updates 4, rate 0.001 | grpo - none | kl | " in text
    assert [figure.name for figure in figures] == ["tiny_small.png"]
    assert all(figure.read_bytes()[:4] == b"\x89PNG" for figure in figures)


@pytest.mark.slow
def test_everything_is_made_again_from_the_committed_results_in_a_minute(tmp_path):
    begin = time.process_time()
    report.write(tmp_path)
    assert time.process_time() - begin < 60
    committed = {file.name for file in report.OUT.glob("*")}
    assert {file.name for file in tmp_path.glob("*")} == committed
    for page in tmp_path.glob("*.md"):
        assert page.read_text() == (report.OUT / page.name).read_text(), "run `python -m benchmarks.study report`"


@pytest.mark.parametrize("file", sorted(conditions.FOLDER.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_committed_table_is_valid_and_its_rows_are_its_own(file):
    table = conditions.read(file)
    keys = {cell.key() for cell in table.cells()}
    rows = results.read(results.FOLDER / f"{file.stem}.jsonl")
    assert len(keys) == len(table.cells())
    for cell in table.cells():  # found again in the file, where numbers are rounded
        line = results.Row(cell.as_dict(), {}, 0.0, {}).line()
        assert conditions.key_of(json.loads(line)["cell"]) == cell.key()
    assert {conditions.key_of(row.cell) for row in rows} <= keys
    assert len({conditions.key_of(row.cell) for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("loss: none", "loss: nothing", "algorithm none: loss must be one of"),
        ("both: [grpo, none]", "both: [grpo, non]", "no algorithm, sweep or group 'non'"),
        ("experiment: one_batch", "experiment: two_batch", "grid null_control: experiment must be one of one_batch"),
        ("added: null, ", "", "grid null_control: write `added: null`"),
        ("seed: 0, prompts", "seed: 0, promts", "axes of grid null_control: promts unknown"),
        ("task: sums", "task: sum", "tasks of grid null_control: sum unknown; known are sums"),
        ("updates: 1,", "updates: 3,", "updates must divide prompts"),
        ("claims:", "claim:", "sections: claim unknown"),
        ("minus: [grpo, none]", "minus: [grpo, sspo]", "no algorithm, sweep or group 'sspo'"),
        ("{grid: small", "{grid: smal", "no grid 'smal'"),
    ],
)
def test_a_wrong_table_is_refused_by_name(tmp_path, old, new, message):
    assert old in TABLE
    with pytest.raises(ValueError, match=f"tiny.yaml: .*{message}"):
        table_of(tmp_path, TABLE.replace(old, new, 1))


def test_sweeps_are_bands_on_the_ratio(tmp_path):
    found = {a.name: dict(a.settings) for a in table_of(tmp_path).named(["segment"])}
    assert found["segment 0.1"] == pytest.approx({"clip_low": 0.9, "clip_high": 1.1})
    assert found["segment 1.5"] == {"clip_low": 0.0, "clip_high": 2.5}  # a ratio is never under 0


def test_the_progress_says_what_is_left(capsys):
    progress = runner.Progress("tiny", 10)
    progress.cells, progress.cpu = 4, 8.0
    assert progress.line(40.0) == "tiny: 4 of 10 cells, 2.0 CPU s and 10.0 s each, 0:01 h left"
    assert "10 cells to run" in capsys.readouterr().out


def test_rows_are_rounded_and_survive_json(tmp_path):
    row = results.Row({"a": 1}, {"x": 0.12345678, "y": [1e-9, 2]}, 1.5, {"commit": "c", "torch": "t"})
    assert json.loads(row.line())["result"] == {"x": 0.123457, "y": [1e-9, 2]}
    file = Path(tmp_path) / "r.jsonl"
    file.write_text(row.line())
    assert results.read(file)[0].cell == {"a": 1}


# Choice and confirmation

CHOICE = """
about: a test
algorithms:
  none: {loss: none}
sweeps:
  token: {over: half_width, values: [0.1, 0.2], segmenter: token}
grids:
  small:
    {added: null, experiment: one_batch, task: sums, algorithm: [token, none], updates: 4, learning_rate: [0.1, 0.2],
     seed: [0, 1, 2]}
  confirm:
    added: null
    experiment: one_batch
    task: sums
    updates: 4
    seed: [7, 8, 9]
    each:
      - {algorithm: token 0.2, learning_rate: 0.1}
      - {algorithm: none, learning_rate: 0.2}
claims:
  - {grid: confirm, metric: gain, minus: [token 0.2, none]}
"""


def made_up(table, grid, gains):
    """Rows with gains by (algorithm, rate); seed 2 of one is missing."""
    rows = []
    for cell in table.cells(grid):
        p = cell.parameters
        if (p.algorithm.name, p.learning_rate, p.seed) != ("none", 0.1, 2):
            gain = gains[p.algorithm.name, p.learning_rate] + (1.0 if p.seed == 2 else 0.01 * p.seed)
            rows.append(results.Row(cell.as_dict(), {"gain": gain}, 1.0, {}))
    return rows


def test_the_best_of_each_level_over_the_seeds_that_all_have(tmp_path):
    table = table_of(tmp_path, CHOICE)
    gains = {("token 0.1", 0.1): 0.3, ("token 0.1", 0.2): 0.2, ("token 0.2", 0.1): 0.4, ("token 0.2", 0.2): 0.1}
    gains |= {("none", 0.1): 0.5, ("none", 0.2): 0.45}  # with seed 2 the other way round
    found = choose.best(table, made_up(table, "small", gains), ["small"])
    assert [(each.level, each.algorithm, each.learning_rate, each.seeds) for each in found] == [
        ("token", "token 0.2", 0.1, 2),
        ("none", "none", 0.1, 2),
    ]
    assert found[0].mean == pytest.approx(0.405)
    assert "  - {algorithm: 'token 0.2', learning_rate: 1.0e-01} # token: +0.405\n" in choose.as_yaml(found)


def test_a_confirmation_pairs_algorithms_at_their_own_rates(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "FEWEST_SEEDS", 3)
    table = table_of(tmp_path, CHOICE)
    assert len(table.cells("confirm")) == 6
    rows = made_up(table, "confirm", {("token 0.2", 0.1): 0.4, ("none", 0.2): 0.1})
    (found,) = compare(table, rows)
    assert found.difference == pytest.approx((0.3, 0.3, 0.3, 3))
    assert found.place == (("task", "sums"), ("updates", 4))
