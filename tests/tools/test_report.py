"""`sspo report` without a browser: reading runs, naming them, seeds, numbers, pictures, and the page's text."""

import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path

import fake_runs
import pytest
from click.testing import CliRunner
from compose import trainer_config
from omegaconf import OmegaConf

from sspo_verl.metrics.names import METRICS
from sspo_verl.metrics.warnings import SIGNS
from sspo_verl.names import KEY
from sspo_verl.tools.report import (
    curves,
    draw,
    numbers,
    page,
    panels,
    responses,
    runs,
    series,
    settings,
    table,
    tensorboard,
)
from sspo_verl.tools.report import write as report_write
from sspo_verl.tools.report.command import command
from sspo_verl.tools.report.runs import Group, NoRun, Run
from sspo_verl.tools.runs import metrics_file, recipe
from sspo_verl.tools.runs.recipe import algorithms


def group(label: str, *seeds: dict[int, dict[str, float]]) -> Group:
    return Group(label, [Run(label, Path(f"{label}{i}"), rows) for i, rows in enumerate(seeds)])


def html(*groups: Group, notes: tuple[str, ...] = ()) -> str:
    return page.render(list(groups), list(notes), [table.summarize(g) for g in groups], "Title")


# Reading


def write_events(folder: Path, rows: dict[int, dict[str, float]]) -> Path:
    """With the writer that verl uses."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    for step, row in rows.items():
        for name, value in row.items():
            writer.add_scalar(name, value, step)
    writer.close()
    return tensorboard.event_files(folder)[-1]


def test_tensorboard_holds_what_jsonl_holds(tmp_path):
    rows = fake_runs.rows(steps=5)
    rows[3]["actor/grad_norm"] = math.nan
    write_events(tmp_path / "some_run", rows)
    [found], notes = runs.load([str(tmp_path / "some_run")])
    assert found.label == "some_run"
    assert notes == [f"{tmp_path / 'some_run'} (some_run) was NaN or infinite at step 3: actor/grad_norm"]
    assert found.rows[0].keys() == rows.keys()
    for step, row in rows.items():
        assert found.rows[0][step] == pytest.approx(row, rel=1e-6, nan_ok=True)  # float32


def test_a_half_written_or_damaged_event_file_is_read_as_far_as_it_goes(tmp_path):
    file = write_events(tmp_path, {step: {"a": float(step)} for step in range(1, 11)})
    full = file.read_bytes()
    first = 16 + int.from_bytes(full[:8], "little")  # the file's version; the ten that follow are of one size
    record = (len(full) - first) // 10
    file.write_bytes(full[:-9])
    half = tensorboard.read(file)
    assert half.rows == {step: {"a": float(step)} for step in range(1, 10)}
    assert half.problems == [
        f"{file}: the last {record - 9} bytes are not a complete record (still being written?) and were left out"
    ]
    at = len(full) - 4 * record + 20  # in the data of the fourth last
    file.write_bytes(full[:at] + bytes([full[at] ^ 0xFF]) + full[at + 1 :])
    damaged = tensorboard.read(file)
    assert damaged.rows == {step: {"a": float(step)} for step in range(1, 7)}
    assert damaged.problems == [f"{file}: record 8 of 11 is damaged; it and what follows were left out"]


def test_tensorboard_is_read_without_tensorflow_and_without_torch(tmp_path):
    write_events(tmp_path, {1: {"a": 1.0}})
    code = (
        "import sys; from pathlib import Path; from sspo_verl.tools.report import tensorboard as t\n"
        "assert t.read(t.event_files(Path(sys.argv[1]))[0]).rows == {1: {'a': 1.0}}\n"
        "print(sorted({'tensorflow', 'torch', 'verl'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == "[]\n", done.stderr


# Finding and naming


def test_attempts_of_a_quickstart_run_are_one_run(tmp_path):
    run = fake_runs.quickstart(tmp_path / "x", "gspo", steps=10)
    resumed = {step: row for step, row in fake_runs.rows("gspo", steps=30).items() if step >= 8}
    fake_runs.write(run / "attempts" / "2" / "metrics.jsonl", resumed)
    fake_runs.write(run / "metrics.jsonl", {1: {"actor/entropy": 9.0}})  # published earlier, and out of date
    [found], notes = runs.load([str(run)])
    assert found.label == "gspo"
    assert list(found.rows[0]) == list(range(31))
    assert found.rows[0][9] == resumed[9]
    first, second = (run / "attempts" / name for name in "12")
    assert notes == [f"{first}: 3 steps (8 to 10) were left out: {second} resumed from step 7 and continued from there"]


def test_responses_of_a_step_that_was_abandoned_are_not_shown(tmp_path):
    run = fake_runs.quickstart(tmp_path / "x", steps=9)
    fake_runs.write(run / "attempts" / "2" / "metrics.jsonl", {4: {"val-core/x/acc/mean@1": 0.5}, **rows_of(5)})
    fake_runs.rollouts(run / "rollouts", steps=(1, 5, 9, 10))  # 10: its metrics are not written yet
    [found], _ = runs.load([str(run)])
    assert found.runs[0].steps == 5
    assert sorted(responses.dump_files(found.runs[0])) == [1, 5, 10]


def test_event_files_of_a_resumed_run_are_attempts_and_those_of_one_time_are_one(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    write_events(tmp_path / "resumed", {step: {"critic/score/mean": 0.125 * step} for step in range(1, 9)})
    time.sleep(1.1)  # the names of the files hold the second
    write_events(tmp_path / "resumed", {4: {"val-core/x/acc/mean@1": 0.5}, 5: {"critic/score/mean": 0.5}})
    [found], notes = runs.load([str(tmp_path / "resumed")])
    assert list(found.rows[0]) == [1, 2, 3, 4, 5]
    assert found.rows[0][5] == {"critic/score/mean": 0.5}
    assert len(notes) == 1
    assert "4 steps (5 to 8) were left out" in notes[0]

    both = [SummaryWriter(str(tmp_path / "both"), filename_suffix=name) for name in ("a", "b")]
    for step in range(1, 9):
        both[0].add_scalar("critic/score/mean", 0.125 * step, step)
        both[1].add_scalar("mine", 1.0, step)
    for writer in both:
        writer.close()
    [found], notes = runs.load([str(tmp_path / "both")])
    assert (list(found.rows[0]), notes) == (list(range(1, 9)), [])
    assert found.rows[0][8] == {"critic/score/mean": 1.0, "mine": 1.0}


def rows_of(*steps: int) -> dict[int, dict[str, float]]:
    return {step: {"critic/score/mean": 0.1 * step, "actor/entropy": 0.3} for step in steps}


def test_a_metrics_file_is_known_by_one_of_its_first_lines(tmp_path):
    for name, before in (("a", ""), ("b", "\n"), ("c", "2026-11-01 INFO start\n"), ("d", '{"step": 1, "da\n\n{}\n')):
        file = fake_runs.write(tmp_path / "project" / f"{name}.jsonl", rows_of(1, 2))
        file.write_text(before + file.read_text())
        below = fake_runs.write(tmp_path / "below" / name / "m.jsonl", rows_of(1, 2))
        below.write_text(file.read_text())
    groups, notes = runs.load([str(tmp_path / "project")])
    assert [g.label for g in groups] == ["a", "b", "c", "d"]
    assert notes == [
        f"{tmp_path}/project/c.jsonl: 1 unreadable line (1) was left out",
        f"{tmp_path}/project/d.jsonl: 2 unreadable lines (1, 3) were left out",
    ]
    assert [g.label for g in runs.load([str(tmp_path / "below")])[0]] == ["a", "b", "c", "d"]


def test_files_that_were_passed_over_are_named(tmp_path):
    fake_runs.write(tmp_path / "good.jsonl", rows_of(1))
    fake_runs.rollouts(tmp_path / "rollouts", steps=(1,))
    (tmp_path / "1.jsonl").write_bytes((tmp_path / "rollouts" / "1.jsonl").read_bytes())  # dumps are not mentioned
    (tmp_path / "new.jsonl").write_text("")
    (tmp_path / "step.jsonl").write_text('{"step": "1", "data": {}}\n')
    (tmp_path / "log.jsonl").write_text("INFO\n" * 30)
    (tmp_path / "dangling.jsonl").symlink_to(tmp_path / "nowhere")
    [found], notes = runs.load([str(tmp_path)])
    assert found.label == tmp_path.name
    assert notes == [
        f"{tmp_path}: skipped as not metrics: log.jsonl is a file that begins with 'INFO'; new.jsonl is empty, or "
        "its first line is being written; step.jsonl is JSON lines in a different format: in the first, its step is "
        '"1", which is not a whole number'
    ]
    with pytest.raises(NoRun, match='in the first, its step is "1", which is not a whole number'):
        runs.load([str(tmp_path / "step.jsonl")])
    (tmp_path / "below" / "bad").mkdir(parents=True)
    (tmp_path / "good.jsonl").rename(tmp_path / "below" / "good.jsonl")
    (tmp_path / "log.jsonl").rename(tmp_path / "below" / "bad" / "log.jsonl")
    fake_runs.quickstart(tmp_path / "below" / "begun", steps=1)
    (tmp_path / "below" / "begun" / "attempts" / "1" / "metrics.jsonl").write_text("")
    fake_runs.quickstart(tmp_path / "below" / "trained", steps=30)
    (tmp_path / "below" / "good.jsonl").unlink()
    [found], notes = runs.load([str(tmp_path / "below")])
    assert found.label == "sspo"
    assert notes[0].startswith(f"{tmp_path}/below/bad: skipped as not metrics: log.jsonl is")
    assert notes[1].startswith(f"{tmp_path}/below/begun has no step's metrics yet: wait")


def test_what_lies_beside_the_metrics_of_a_run_is_named(tmp_path):
    project = tmp_path / "project"
    for name in ("a", "b", "metrics"):
        fake_runs.write(project / f"{name}.jsonl", rows_of(1, 2))
    fake_runs.quickstart(project / "below")
    [found], notes = runs.load([str(project)])
    assert found.runs[0].path == project
    assert notes == [
        f"{project}: below has metrics too and was not read; name it to see it",
        f"{project}: a.jsonl, b.jsonl have metrics too and were not read; name them to see them",
    ]

    run = fake_runs.quickstart(tmp_path / "run")
    fake_runs.rollouts(run / "rollouts")
    fake_runs.write(run / "metrics.jsonl", fake_runs.rows(steps=29))  # of the quickstart, of a start before
    assert runs.load([str(run)])[1] == []
    fake_runs.write(run / "metrics.jsonl", fake_runs.rows(steps=32))
    fake_runs.write(run / "final.jsonl", rows_of(1))
    fake_runs.write(run / "attempts" / "1 copy" / "metrics.jsonl", rows_of(1))
    (run / "events.out.tfevents.1").write_bytes(b"")
    _, notes = runs.load([str(run)])
    assert notes == [
        f"{run}: attempts/1 copy/metrics.jsonl has metrics too and was not read; name it to see it",
        f"{run}/metrics.jsonl has steps (31 to 32) that no attempt has, and was not read; name it to see them",
        f"{run}: final.jsonl, events.out.tfevents.1 have metrics too and were not read; name them to see them",
    ]


def test_where_the_attempts_are_damaged_the_metrics_beside_them_are_read(tmp_path):
    for name in ("metrics.jsonl", "final.jsonl"):
        run = fake_runs.quickstart(tmp_path / name, steps=1)
        damaged = run / "attempts" / "1" / "metrics.jsonl"
        damaged.write_text('{"step":1,\n')
        fake_runs.write(run / name, rows_of(1, 2, 3))
        [found], notes = runs.load([str(run)])
        assert found.runs[0].steps == 3
        assert notes[:2] == [
            f"{damaged}: 1 unreadable line (1) was left out",
            f"{run}: no step could be read in attempts/, so {name} was read instead",
        ]
    fake_runs.write(run / "other.jsonl", rows_of(1))  # which of the two?
    with pytest.raises(NoRun, match=r"final\.jsonl, other\.jsonl have metrics too and were not read"):
        runs.load([str(run)])


def test_a_number_too_large_for_a_float_spoils_neither_its_run_nor_those_beside_it(tmp_path):
    good = fake_runs.write(tmp_path / "good.jsonl", rows_of(1, 2))
    huge = tmp_path / "huge.jsonl"
    huge.write_text('{"step": 1, "data": {"critic/score/mean": ' + "9" * 400 + "}}\n")
    assert runs.load([str(good)])[1] == []
    groups, notes = runs.load([str(tmp_path)])
    assert [g.label for g in groups] == ["good", "huge"]
    assert notes[0].startswith(f"{huge} (huge) is NaN or infinite from step 1 to its last, 1: critic/score/mean.")


def test_a_metric_that_ends_before_the_run_is_named(tmp_path):
    whole = {"critic/score/mean": 0.5, "actor/entropy": 0.3, "timing_s/step": 1.0}
    rows = {step: whole if step < 6 else {"timing_s/step": 1.0} for step in range(1, 11)}
    file = fake_runs.write(tmp_path / "m.jsonl", rows)
    assert runs.load([str(file)])[1] == [
        f"{file} (m) has no reward, entropy after step 5, though it got to step 10: its last value shown is of "
        "that step"
    ]
    rows[10] = {"timing_s/step": 1.0, "actor/entropy": 0.2}  # back at the end
    fake_runs.write(file, rows)
    assert "has no reward after step 5, though" in runs.load([str(file)])[1][0]
    validated = {"val-core/x/acc/mean@1": 0.5, "val-aux/x/reward/mean@1": 0.5}  # of a run that has just resumed
    fake_runs.write(file, {5: whole, 6: validated})
    assert runs.load([str(file)])[1] == []


@pytest.mark.parametrize("algorithm", algorithms())
def test_the_algorithm_is_read_from_real_settings(tmp_path, algorithm):
    config = trainer_config(f"algorithm={algorithm}")
    fake_runs.write(tmp_path / "run" / "metrics.jsonl", fake_runs.rows(steps=2))
    hydra = tmp_path / "run" / "hydra" / ".hydra"
    hydra.mkdir(parents=True)
    OmegaConf.save(config, hydra / "config.yaml")  # as Hydra does: interpolations are kept
    assert runs.load([str(tmp_path / "run")])[0][0].label == algorithm
    hydra.rename(tmp_path / "run" / ".hydra")
    assert runs.load([str(tmp_path / "run" / "metrics.jsonl")])[0][0].label == algorithm


@pytest.mark.parametrize(
    ("loss", "advantage", "name"),
    [
        ("vanilla", "gae", "gae"),
        ("vanilla", None, "vanilla"),
        ("gpg", "grpo", "gpg"),
        ("sspo", "grpo", "sspo (advantage: grpo)"),
        ("${oc.env:LOSS}", "grpo", None),
        (None, None, None),
    ],
)
def test_other_algorithms_have_names_too(loss, advantage, name):
    found = {f"{KEY}.loss_mode": loss, "algorithm.adv_estimator": advantage}
    assert settings.algorithm(found) == name


def test_a_run_whose_settings_are_not_its_labels_is_another(tmp_path):
    """The label, and the keys that differ from what algorithm= set; what only looks at the training is not one."""
    for algorithm, changed, name in (
        ("sspo", {}, "sspo"),
        ("sspo", {"clip_low": 0.3}, "sspo (clip_low=0.3)"),
        ("sspo", {"warn_entropy": 0.3, "dump_segments": 5}, "sspo"),
        ("sspo", {"clip_length_exponent": -0.5}, "sspo (clip_length_exponent=-0.5)"),
        ("sspo_length", {"alpha": 0.5, "dual_clip": 3}, "sspo_length (alpha=0.5, dual_clip=3)"),
        ("grpo", {"clip_low": 0.3}, "grpo"),  # SSPO's, which only the diagnostics read
    ):
        found = recipe.algorithm_settings(algorithm) | {f"{KEY}.{key}": value for key, value in changed.items()}
        assert settings.algorithm(found) == name
    wide = {"actor_rollout_ref.actor.clip_ratio_high": 0.28}
    assert settings.algorithm(recipe.algorithm_settings("grpo") | wide) == "grpo (clip_ratio_high=0.28)"
    own = recipe.algorithm_settings("sspo") | {f"{KEY}.label": None}
    assert settings.algorithm(own | {f"{KEY}.entropy_clip": False}) == "sspo_no_entropy_clip"
    for folder, changed in (("a", {}), ("b", {"clip_length_exponent": -0.5})):
        more = recipe.algorithm_settings("sspo") | {f"{KEY}.{key}": value for key, value in changed.items()}
        fake_runs.quickstart(tmp_path / folder, **more)
    found, notes = runs.load([str(tmp_path)])
    assert [group.label for group in found] == ["sspo", "sspo (clip_length_exponent=-0.5)"]
    assert notes == []


def test_a_label_given_wins_and_equal_labels_are_seeds(tmp_path):
    for name in ("a", "b", "c"):
        fake_runs.quickstart(tmp_path / name)
    found, _ = runs.load([f"wide={tmp_path}/a", f"{tmp_path}/b", f"wide={tmp_path}/c"])
    assert [(g.label, [r.path.name for r in g.runs]) for g in found] == [("wide", ["a", "c"]), ("sspo", ["b"])]


def test_without_settings_a_run_is_named_after_its_file_or_folder(tmp_path):
    for name in ("one.jsonl", "two.jsonl"):
        fake_runs.write(tmp_path / "project" / name, fake_runs.rows(steps=2))
    (tmp_path / "project" / "settings.json").write_text(json.dumps(fake_runs.settings("grpo")))  # of which of the two?
    (tmp_path / "project" / "0.jsonl").write_text('{"input": "1+1=", "step": 0, "score": 1.0}\n')  # a dump
    assert [g.label for g in runs.load([str(tmp_path / "project")])[0]] == ["one", "two"]
    assert [g.label for g in runs.load([str(tmp_path / "project" / "two.jsonl")])[0]] == ["two"]
    odd = fake_runs.write(tmp_path / "a=b" / "metrics.jsonl", fake_runs.rows(steps=2))
    assert [g.label for g in runs.load([str(odd.parent)])[0]] == ["a=b"]  # it exists, so it is a path
    assert [g.label for g in runs.load([str(odd)])[0]] == ["a=b"]


def test_a_folder_of_runs_is_all_of_them(tmp_path):
    for name in ("grpo", "sspo"):
        fake_runs.quickstart(tmp_path / name, name)
    (tmp_path / "start").mkdir()
    assert [g.label for g in runs.load([str(tmp_path)])[0]] == ["grpo", "sspo"]


def test_unreadable_settings_are_said_and_not_fatal(tmp_path):
    fake_runs.quickstart(tmp_path / "mine")
    (tmp_path / "mine" / "settings.json").write_text("{")
    [found], notes = runs.load([str(tmp_path / "mine")])
    assert found.label == "mine"
    assert "settings.json is unreadable, so the run is named after its folder" in notes[0]


def test_remarks_on_runs_that_are_not_what_they_seem(tmp_path):
    fake_runs.quickstart(tmp_path / "a")
    fake_runs.quickstart(tmp_path / "b", steps=17)
    lr = {"actor_rollout_ref.actor.optim.lr": 1e-5, "data.seed": 3, f"{KEY}.dump_segments": 9}
    fake_runs.quickstart(tmp_path / "c", **lr)
    with (tmp_path / "b" / "attempts" / "1" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 18, "data": {"actor/ent')
    _, notes = runs.load([str(tmp_path / name) for name in ("a", "b", "a", "c")])
    text = "\n".join(notes)
    assert f"{tmp_path / 'a'} was named twice and is counted once" in text
    assert "the last line (19) is incomplete" in text
    assert f"{tmp_path / 'b'} (sspo) is at step 17 of 30: it is still running, or ended early" in text
    assert "the seeds of sspo end at different steps (17, 30)" in text
    assert "differ in settings (actor_rollout_ref.actor.optim.lr), yet" in text
    assert len(notes) == 5


def test_no_run_is_an_error_that_names_the_path(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "new.jsonl").write_text("")
    (tmp_path / "half.jsonl").write_text('{"step": 0, "da')
    state = json.dumps({"best_metric": None, "log_history": [{"loss": 1.0, "step": 1}]}, indent=2)
    others = {
        "wandb.csv": ('"Step","sspo - critic/score/mean"\n1,0.5\n', "a table (CSV) with the columns Step, sspo - cr"),
        "trainer_state.json": (state, "the trainer_state.json of a trainer of transformers or TRL"),
        "line.json": (json.dumps(json.loads(state)), "the trainer_state.json"),
        "swift.jsonl": (
            '{"loss": 0.5, "global_step/max_steps": "1/9"}\n' * 2,
            "JSON lines in a different format, with the keys ",
        ),
        "3.jsonl": (
            '{"input": "1", "output": "2", "score": 1.0, "step": 3}\n',
            "a dump of responses, which `sspo analyze`",
        ),
        "list.json": ("[1, 2]", "a list in JSON"),
        "verl.log": ("step:1 - reward:0.5\n", "a file that begins with 'step:1 - reward:0.5'"),
        "train.parquet": ("PAR1\0\0", "a parquet file"),
    }
    (tmp_path / "others").mkdir()
    for name, (text, said) in others.items():
        (tmp_path / "others" / name).write_text(text)
        with pytest.raises(NoRun) as error:
            runs.load([str(tmp_path / "others" / name)])
        assert f"{name} is not a metrics file of verl's but {said}" in str(error.value)
        assert 'What can be read: the JSONL of verl\'s `file` logger, a line {"step": 1, "data"' in str(error.value)
    for argument, said in (
        (f"{tmp_path}/nowhere", f"{tmp_path}/nowhere is not there. Name a run's folder"),
        (f"{tmp_path}/empty", f"{tmp_path}/empty has no metrics.*has just begun.$"),
        (f"{tmp_path}/others", "others has no metrics.*What is there: 3.jsonl is a dump of responses"),
        (f"{tmp_path}/new.jsonl", "new.jsonl has no step's metrics yet: wait for the run's first step"),
        (f"{tmp_path}/half.jsonl", r"has no step's metrics yet.*\(.*the last line \(1\) is incomplete"),
        ("label=", "'label=' is neither a path nor NAME=PATH"),
    ):
        with pytest.raises(NoRun, match=said):
            runs.load([argument])


# Numbers


def test_curve_is_mean_and_band_of_the_seeds_that_have_the_step():
    seeds = [{1: {"x/y": 0.1}, 2: {"x/y": 0.4}, 3: {}}, {1: {"x/y": 0.3}}, {1: {"x/y": 0.5}, 2: {"x/y": 0.2}}]
    c = curves.curve("l", 0, seeds, "x/y", scale=100)
    assert c is not None
    assert (c.steps, c.seeds) == ([1, 2], [3, 2])
    assert c.mean == pytest.approx([30, 30])  # (10 + 30 + 50) / 3, (40 + 20) / 2
    assert c.low == pytest.approx([10, 20])
    assert c.high == pytest.approx([50, 40])
    assert curves.curve("l", 0, seeds, "x/z") is None


def test_a_profile_has_a_point_for_each_length_and_a_curve_for_each_run():
    by_length = "sspo/clipfrac_by_length/sspo"
    plain = {1: {f"{by_length}/to_8": 0.2, f"{by_length}/over_64": 0.0}, 2: {f"{by_length}/to_8": 0.4}}
    other = {1: {f"{by_length}/to_8": 0.1, f"{by_length}/over_64": 0.1}}
    [(tile, lines)] = [
        picture
        for section in panels.SECTIONS
        for picture in draw.pictures(section.tiles, [group("p=0", plain), group("p=-1/2", other)])
        if picture[0].key == "clipfrac_by_length_sspo"
    ]
    assert [(c.label, c.steps, c.mean) for c in lines] == [
        ("p=0", [0, 4], [pytest.approx(30.0), 0.0]),  # the mean of 20 % and 40 %
        ("p=-1/2", [0, 4], [10.0, 10.0]),
    ]
    assert (tile.places[0], tile.places[4]) == ("up to 8", "over 64")


def test_numbers_of_a_run():
    rows = {
        0: {"val-core/a/acc/mean@1": 0.2},
        1: {"critic/score/mean": 0.1, "actor/pg_clipfrac": 0.1, "actor/entropy": 0.5, "timing_s/step": 9.0},
        2: {"critic/score/mean": 0.3, "actor/pg_clipfrac": 0.4, "actor/entropy": 0.2, "timing_s/step": 4.0},
        3: {"val-core/a/acc/mean@1": 0.9, "timing_s/step": 5.0, "sspo/counterfactual/gspo_clipfrac": 0.25},
        4: {"val-core/a/acc/mean@1": 0.7},
    }
    assert numbers.numbers(rows) == {
        "steps": 4,
        "accuracy_first": 0.2,
        "accuracy_last": 0.7,
        "accuracy_best": 0.9,
        "reward_last": 0.3,
        "clip_fraction": 0.25,
        "clip_fraction_highest": 0.4,
        "grpo_clip_fraction": None,
        "gspo_clip_fraction": 0.25,
        "gspo_wide_clip_fraction": None,
        "segments_per_response": None,
        "entropy_first": 0.5,
        "entropy_last": 0.2,
        "seconds_per_step": 5.0,
        "rollout_difference": None,
    }
    assert numbers.numbers({0: rows[0]})["accuracy_last"] is None  # one validation is not a result


def test_what_is_not_finite_is_said_and_does_not_hide_behind_the_last_number(tmp_path):
    """verl's file logger writes NaN and infinity as null."""
    good = {"critic/score/mean": 0.5, "actor/entropy": 0.3, "actor/grad_norm": 1.0, "timing_s/step": 4.0}
    bad = good | {"critic/score/mean": None, "actor/entropy": None}
    rows = {step: good if step < 6 else bad for step in range(1, 11)} | {3: good | {"actor/grad_norm": None}}
    collapsed = fake_runs.write(tmp_path / "collapsed.jsonl", rows)
    fake_runs.write(tmp_path / "healthy.jsonl", dict.fromkeys(range(1, 11), good))
    groups, notes = runs.load([f"x={collapsed}"])
    assert notes == [
        f"{collapsed} (x) is NaN or infinite from step 6 to its last, 10: actor/entropy, critic/score/mean. The run "
        "has broken down, even if its curves look healthy before",
        f"{collapsed} (x) was NaN or infinite at step 3: actor/grad_norm",
    ]
    summary = table.summarize(groups[0])
    cells = {heading: cell for heading, [cell] in table.rows([summary])}
    assert (cells["reward, last"], cells["entropy, first (nats)"], cells["entropy, last (nats)"]) == (
        "NaN",
        "0.300",
        "NaN",
    )
    assert cells["NaN or infinite"] == "from step 3, at 6"
    assert cells["time per step, median (s)"] == "4.00"
    assert "NaN" not in json.dumps(summary)
    assert [s for s, _ in series.points(groups[0].rows[0], "entropy")] == [1, 2, 3, 4, 5]
    text = html(*groups, notes=tuple(notes))
    assert "NaN or infinite from step 6 to its last" in text
    tile = text[text.index('id="tile-entropy"') :]
    assert "NaN or infinite: x at 5 steps, the first 6." in tile[: tile.index("</figcaption>")]

    [both], _ = runs.load([f"x={collapsed}", f"x={tmp_path / 'healthy.jsonl'}"])
    cells = {heading: cell for heading, [cell] in table.rows([table.summarize(both)])}
    assert cells["reward, last"] == "0.500\n(NaN in 1 of 2 seeds)"
    assert cells["NaN or infinite"] == "from step 3, at 6\n(in 1 of 2 seeds)"
    metrics_file.write(both.rows[0], tmp_path / "again.jsonl")
    assert "null" in (tmp_path / "again.jsonl").read_text(), "as verl writes it"


def test_the_aggregation_of_each_run_is_shown_and_a_difference_marked(tmp_path):
    key = settings.AGGREGATION
    for name, mode in (("sspo", "seq-mean-token-mean"), ("gspo", "token-mean"), ("grpo", "${oc.env:MODE}")):
        fake_runs.quickstart(tmp_path / name, name, **{key: mode})

    def shown(*names):
        groups, notes = runs.load([str(tmp_path / name) for name in names])
        return dict(table.rows([table.summarize(g) for g in groups]))["loss aggregation"], notes

    cells, notes = shown("sspo", "gspo", "grpo")
    assert cells == ["seq-mean-token-mean (≠)", "token-mean (≠)", "not known"]
    assert notes == [
        f"the runs differ in {key} (seq-mean-token-mean: sspo; token-mean: gspo), which changes the loss whatever the "
        "algorithm"
    ]
    assert shown("sspo") == (["seq-mean-token-mean"], [])


def test_summary_is_mean_and_spread_over_seeds():
    def seed(accuracy: float, seen: float) -> dict[int, dict[str, float]]:
        first = {"val-core/a/acc/mean@1": 0.1, "sspo/warning/entropy": 1.0}
        return {0: first, 5: {"val-core/a/acc/mean@1": accuracy, "sspo/warning/entropy": seen}}

    summary = table.summarize(group("sspo", seed(0.5, 0.0), seed(0.9, 1.0), {3: {"actor/entropy": 0.25}}))
    assert summary["accuracy_last"] == {"mean": pytest.approx(0.7), "min": 0.5, "max": 0.9, "seeds": 2}
    assert (summary["seeds"], summary["steps"]) == (3, [5, 5, 3])
    assert summary["warnings"] == {"entropy": {"seen": 3, "of": 4}}
    cells = {heading: cell for heading, [cell] in table.rows([summary])}
    assert cells["accuracy, last (%)"] == "70.0\n(50.0 to 90.0)"
    assert cells["entropy, first (nats)"] == "0.250"  # of one seed: no spread
    assert cells["reward, last"] == table.NOT_MEASURED
    assert cells["steps"] == "5, 5, 3"
    assert cells["warning: entropy is collapsing"] == "3 of 4 steps"
    assert cells["warning: many tokens are clipped"] == table.NOT_MEASURED


def test_warnings_of_a_run_are_counted():
    rows = {1: {"sspo/warning/clipfrac": 0.0}, 2: {"sspo/warning/clipfrac": 1.0, "sspo/warning/entropy": 0.0}}
    assert numbers.warnings_seen(rows) == {"clipfrac": (1, 2), "entropy": (0, 1)}


# Pictures


def test_every_metric_of_the_diagnostics_that_is_drawn_exists_and_is_explained():
    tiles = [tile for section in panels.SECTIONS for tile in section.tiles]
    assert len({tile.key for tile in tiles}) == len(tiles)
    for tile in tiles:
        assert all(name in METRICS for name in tile.metrics if name.startswith("sspo/"))
        assert all(tile.explanation)
    drawn = {name for tile in tiles for name in tile.metrics}
    assert {f"sspo/warning/{sign}" for sign in SIGNS} <= drawn
    left_out = {name for name in METRICS if name.endswith(("/min", "/max")) or "segment_clipfrac" in name}
    left_out |= {
        "sspo/nonfinite/log_ratio",
        "sspo/nonfinite/entropy",
        "sspo/responses_missing",
    }  # drawn as the warning that they are
    left_out |= {"sspo/diagnostics_failed"}
    missing = METRICS.keys() - drawn - left_out
    assert missing == {"sspo/token_clipfrac/all", "sspo/token_entropy", "sspo/segment_entropy/mean"}


def plotted(monkeypatch) -> list:
    from matplotlib.axes import Axes

    seen, plot = [], Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda a, x, y, **kw: seen.append((kw["label"], x, y)) or plot(a, x, y, **kw))
    return seen


def test_page_and_pngs_draw_the_same(tmp_path, monkeypatch):
    seen = plotted(monkeypatch)
    groups = [
        group("sspo", fake_runs.rows(steps=3), fake_runs.rows(seed=1, steps=3)),
        group("x", {1: {"actor/entropy": 1}}),
    ]
    report = report_write.write(groups, [], tmp_path / "page.html")
    assert len(seen) > 60
    by_the_page, by_the_pngs = seen[len(seen) // 2 :], seen[: len(seen) // 2]
    assert by_the_page == by_the_pngs
    assert ("x", [1], [1.0]) in seen
    assert [png.name for png in report.pngs] == [f"page-{section.key}.png" for section in panels.SECTIONS]
    assert all(png.read_bytes().startswith(b"\x89PNG") for png in report.pngs)


def test_a_picture_of_an_earlier_report_does_not_stay(tmp_path):
    report_write.write([group("sspo", fake_runs.rows(steps=3))], [], tmp_path)
    assert (tmp_path / "report-bands.png").exists()
    (tmp_path / "report-mine.png").write_text("")
    report = report_write.write([group("grpo", fake_runs.rows(steps=3, diagnostics=False))], [], tmp_path)
    assert sorted(tmp_path.glob("*.png")) == sorted([*report.pngs, tmp_path / "report-mine.png"])
    assert not (tmp_path / "report-bands.png").exists()


def test_curves_far_apart_have_a_logarithmic_scale():
    from matplotlib.figure import Figure

    for highest, scale in ((0.3, "symlog"), (0.002, "linear")):
        axis = Figure().subplots()
        near = group("a", {1: {"actor/pg_clipfrac": 0.001}, 2: {"actor/pg_clipfrac": 0.0}})
        far = group("b", {1: {"actor/pg_clipfrac": highest}})
        [(tile, lines)] = draw.pictures([panels.CLIP_FRACTION], [near, far])
        draw.draw(axis, tile, lines, ["a", "b"])
        assert axis.get_yscale() == scale
        assert axis.get_ylabel() == ("% of tokens, log scale" if scale == "symlog" else "% of tokens")
        assert axis.get_ylim()[1] >= 100 * highest


# The page


def test_page_says_what_was_not_measured_and_how_to_measure_it():
    text = html(
        group("grpo", fake_runs.rows("grpo", steps=3, diagnostics=False)), group("sspo", {1: {"actor/entropy": 1}})
    )
    assert re.search(r"<b>Not measured</b> by any run here: Low entropy, Middle entropy, High entropy\.", text)
    assert "policy_loss.diagnostics=true turns it on" in text
    reward = text[text.index('id="tile-reward"') : text.index('id="tile-entropy"')]
    assert "Not measured: sspo." in reward
    assert 'id="tile-band_low"' not in text


def test_page_explains_each_picture_with_its_denominator():
    text = html(group("sspo", fake_runs.rows(steps=8)))
    for name in ("sspo/token_clipfrac/low", "sspo/entropy_band/mid", "sspo/tokens_per_segment"):
        meaning, denominator = METRICS[name].meaning, METRICS[name].denominator
        shown = text[text.index(f"<code>{name}</code>") :][:500]
        assert meaning[1:] in shown
        assert f"Of: {denominator}." in shown
    for sign in SIGNS.values():
        assert sign.advice[1:].replace("'", "&#39;") in text
        assert sign.meaning[1:] in text


def test_page_stands_alone_and_labels_are_only_text():
    evil = '</script><script>alert(1)</script>"&'
    text = html(group(evil, fake_runs.rows(steps=3)), notes=(f"a {evil}",))
    assert "<script>alert" not in text
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert re.findall(r"(?:src|href|action)=\"(?!#|data:,\")[^\"]*", without_names) == []
    assert re.findall(r"url\((?!#)|@import|https?://", without_names.replace("http://www.w3.org/2000/svg", "")) == []


def test_names_that_matplotlib_takes_for_formulas_are_shown_as_they_are(tmp_path):
    rows = {step: {"critic/score/mean": 0.1 * step} for step in (1, 2)}
    for label in (r"$\frac{$", "a$b$c"):
        text = html(group(label, rows), group("other", {1: {"actor/entropy": 0.1}}))
        assert text.count(f">{label}") > 0
    file = fake_runs.write(tmp_path / "m.jsonl", rows)
    run, _ = runs.read_run(file, "a\x00b\x1b[31mc\u200fd\u202ee\u2028f\ufeffg\u200dh")
    assert run.label == "ab[31mcdefg\u200dh"  # nothing that XML refuses, a terminal obeys or turns text around
    hidden = fake_runs.write(tmp_path / "\u202egpo" / "m.jsonl", {1: {"sspo/\x1b[31m": "text", "a": 1}})
    groups, notes = runs.load([f"x={hidden}", str(file)])
    assert not any(c in text for text in (*notes, groups[0].label) for c in "\u202e\x1b")
    html(Group(run.label, [run]))


def test_ids_are_unique_and_references_have_their_target():
    text = html(group("a", fake_runs.rows(steps=8)), group("b", fake_runs.rows("gspo", steps=8)))
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
    wanted |= {i for group in re.findall(r'aria-labelledby="([^"]+)"', text) for i in group.split()}
    assert wanted
    assert wanted <= set(ids)


# The command


def test_command_prints_the_table_and_where_the_page_is(tmp_path):
    run = fake_runs.quickstart(tmp_path / "run", steps=12)
    out = tmp_path / "new" / "folder"
    done = CliRunner().invoke(command, [str(run), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "12 of 30" in done.stdout
    assert f"{out / 'report.html'} (and 12 PNGs beside it)" in done.stdout
    assert "is at step 12 of 30" in done.stderr
    assert (out / "report.html").read_text().startswith("<!doctype html>")


def test_command_prints_json_and_nothing_else(tmp_path):
    run = fake_runs.quickstart(tmp_path / "run")
    done = CliRunner().invoke(command, [f"a={run}", "--json", "--out", str(tmp_path / "a.html")])
    printed = json.loads(done.stdout)
    [summary] = printed["runs"]
    rows = fake_runs.rows()
    assert summary["label"] == "a"
    assert summary["accuracy_last"]["mean"] == series.accuracy(rows[30])
    clipped = [row["actor/pg_clipfrac"] for row in rows.values() if "actor/pg_clipfrac" in row]
    assert summary["clip_fraction"]["mean"] == pytest.approx(sum(clipped) / 30)
    assert summary["warnings"]["one_band"] == {"seen": 10, "of": 30}
    assert printed["page"] == str(tmp_path / "a.html")
    assert all(Path(png).exists() for png in printed["pngs"])


def test_command_fails_with_2_and_one_paragraph(tmp_path):
    done = CliRunner().invoke(command, [str(tmp_path / "gone"), "--out", str(tmp_path / "o")])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"Error: {tmp_path / 'gone'} is not there.")
    assert not (tmp_path / "o").exists()
    assert CliRunner().invoke(command, []).exit_code == 2
    blocked = tmp_path / "file"
    blocked.write_text("")
    run = fake_runs.quickstart(tmp_path / "run", steps=2)
    done = CliRunner().invoke(command, [str(run), "--out", str(blocked / "below")])
    assert done.exit_code == 2
    assert (
        done.stderr == f"Error: --out: {blocked} is a file. Give a folder, or an HTML file (its name ends in .html).\n"
    )
    assert CliRunner().invoke(command, [str(run), "--out", str(blocked)]).stderr == done.stderr
    (tmp_path / "page.html").mkdir()
    done = CliRunner().invoke(command, [str(run), "--out", str(tmp_path / "page.html")])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"Error: --out: {tmp_path / 'page.html'} is a folder")
