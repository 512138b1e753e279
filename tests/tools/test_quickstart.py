"""The quickstart without Ray: task, starting model, display, and the four steps around a stand-in for verl."""

import errno
import io
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import fake_checkpoints
import pytest
import starting_model
import torch
from click.testing import CliRunner, Result
from rich.console import Console

from sspo_verl.metrics.warnings import SIGNS
from sspo_verl.tools.main import main as sspo
from sspo_verl.tools.quickstart import display, model, start, summary, train
from sspo_verl.tools.quickstart import tokenizer as byte_tokenizer
from sspo_verl.tools.quickstart.ask import changes, main_ppo
from sspo_verl.tools.quickstart.forecast import EXPECTED_STEP, EXPECTED_VALIDATION, Forecast
from sspo_verl.tools.quickstart.publish import draw_curve, publish
from sspo_verl.tools.quickstart.run import Plan, Run
from sspo_verl.tools.report import series
from sspo_verl.tools.runs import metrics_file
from sspo_verl.tools.runs.lock import hold
from sspo_verl.tools.runs.main_ppo import MainPPO
from sspo_verl.tools.runs.recipe import algorithms, composed
from sspo_verl.tools.tasks import arithmetic

TOP = Path(__file__).parents[2]
TINY = model.Architecture(hidden_size=32, intermediate_size=32, layers=1, heads=1)
FEW = starting_model.Settings(steps=4, batch_size=4)


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer.build()


# The task


def test_problems_are_split_once_and_for_all():
    train, test = arithmetic.all_problems(held_out=False), arithmetic.all_problems(held_out=True)
    assert set(train) | set(test) == set(itertools.product(range(1, 10), repeat=4))
    assert not set(train) & set(test)
    assert len(test) == 653  # of 6,561, by crc32: a fixed set, whatever the seeds


def test_splits_hold_distinct_problems_of_their_own_side():
    splits = arithmetic.splits()
    assert {name: len(set(problems)) for name, problems in splits.items()} == {"train": 2048, "test": 256}
    assert not any(map(arithmetic.is_held_out, splits["train"]))
    assert all(map(arithmetic.is_held_out, splits["test"]))
    assert splits == arithmetic.splits()


def test_a_careful_writer_is_right():
    for terms in [(7, 8, 5, 5), (1, 1, 1, 1), (9, 9, 9, 9)]:
        text = arithmetic.solution(terms, random.Random(0), forgets_carry=0.0)
        lines = text.split("\n")
        assert len(lines) == 7
        assert all(word in arithmetic.FILLERS for word in lines[:6:2])
        assert arithmetic.is_solved(text, sum(terms))
    assert lines[1::2] == ["9+9=18", "18+9=27", "27+9=36"]
    assert lines[-1] == "#### 36"


def test_a_writer_who_forgets_every_carry_goes_on_from_the_wrong_sum():
    text = arithmetic.solution((7, 8, 5, 5), random.Random(0), forgets_carry=1.0)
    # 7+8 = 15 without its carry is 5; 5+5 = 10 without is 0; 0+5 = 5 has none.
    assert text.split("\n")[1::2] == ["7+8=5", "5+5=0", "0+5=5"]
    assert not arithmetic.is_solved(text, 25)


def test_the_writer_of_the_starting_model_is_right_often_enough_and_not_too_often():
    rng = random.Random(0)
    problems = rng.choices(arithmetic.all_problems(held_out=False), k=2000)
    right = sum(arithmetic.is_solved(arithmetic.solution(p, rng), sum(p)) for p in problems) / len(problems)
    assert 0.2 < right < 0.5


def test_reward_is_1_for_the_right_last_line_and_else_0():
    right = ("ok\n7+8=15\n#### 25", "#### 25", "#### 25\n\n ")
    wrong = ("#### 25\nok", "#### 2", "#### 255", "####25", "so #### 25", "", None, "\x00\ufffd\n\n")
    for text in (*right, *wrong):
        score = float(text in right)
        found = arithmetic.compute_score("sums", text, "25", extra_info={"index": 3}, reward_router_address=None)
        assert found == {"score": score, "acc": score}, text


def test_parquet_is_what_verl_reads(tmp_path):
    import pyarrow.parquet as pq

    assert arithmetic.write_parquet(tmp_path) == {"train": 2048, "test": 256}
    row = pq.read_table(tmp_path / "test.parquet").to_pylist()[5]
    terms = arithmetic.splits()["test"][5]
    assert row["prompt"] == [{"role": "user", "content": arithmetic.prompt(terms)}]
    assert row["reward_model"] == {"style": "rule", "ground_truth": str(sum(terms))}
    assert row["data_source"] == "sums"
    assert row["extra_info"] == {"split": "test", "index": 5}


# Tokenizer and warm-up


def test_one_token_per_byte(tokenizer):
    text = "we\n7+8=15\n#### 25 é"
    ids = tokenizer.encode(text)
    assert len(tokenizer) == 259
    assert len(ids) == len(text.encode())
    assert tokenizer.decode(ids) == text
    assert len(tokenizer.encode("\n")) == 1
    assert tokenizer.eos_token == "<|im_end|>"


def test_a_batch_teaches_the_solution_and_nothing_else(tokenizer):
    problems = [(7, 8, 5, 5), (1, 2, 3, 4)]
    ids, labels = starting_model.make_batch(tokenizer, problems, random.Random(0))
    for row, label, terms in zip(ids, labels, problems, strict=True):
        taught = label[label != starting_model.IGNORE]
        assert tokenizer.decode(row[:9]) == "<|im_start|>" + arithmetic.prompt(terms)
        assert (label[:9] == starting_model.IGNORE).all()
        assert tokenizer.decode(taught[:-1]).split("\n")[-1].startswith("#### ")
        assert taught[-1] == tokenizer.eos_token_id
        assert torch.equal(row[9 : 9 + len(taught)], taught)


def test_longest_solution_fits_the_response_length():
    words = max(map(len, arithmetic.FILLERS))
    longest = 3 * (words + 1) + len("9+9=18\n18+9=27\n27+9=36\n#### 36") + 1  # and the end token
    assert longest <= starting_model.LONGEST_SOLUTION


def test_training_the_starting_model_is_the_same_every_time(tokenizer):
    losses = [[], []]
    models = [
        starting_model.train(tokenizer, FEW, TINY, lambda step, loss, into=into: into.append(loss)) for into in losses
    ]
    for first, second in zip(*(m.state_dict().values() for m in models), strict=True):
        assert torch.equal(first, second)
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]


def test_another_seed_is_another_model(tokenizer):
    one, other = (model.new_model(tokenizer, TINY, seed) for seed in (0, 1))
    assert not torch.equal(one.model.embed_tokens.weight, other.model.embed_tokens.weight)


def test_learning_rate_rises_then_falls_to_its_floor():
    s = starting_model.Settings(steps=400, learning_rate=1.0)
    rates = [starting_model.learning_rate_at(step, s) for step in range(400)]
    assert rates[0] == pytest.approx(1 / 30)
    assert max(rates) == max(rates[25:40])
    assert rates[-1] == pytest.approx(s.lr_floor, abs=1e-3)


def test_accuracy_counts_solved_problems(tokenizer, monkeypatch):
    network = model.new_model(tokenizer, TINY).eval()
    problems = arithmetic.splits()["test"][:4]
    assert starting_model.accuracy(network, tokenizer, problems) == 0.0
    answers = [*(f"ok\n#### {sum(p)}" for p in problems[:3]), "#### 0"]

    def generate(input_ids, **_):
        out = [tokenizer.encode(a) for a in answers]
        width = max(map(len, out))
        padded = [ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids in out]
        return torch.cat((input_ids, torch.tensor(padded)), 1)

    monkeypatch.setattr(network, "generate", generate)
    assert starting_model.accuracy(network, tokenizer, problems) == 0.75


def test_the_shipped_weights_are_those_of_the_script(tokenizer):
    """The settings and the accuracy in the file, checked; to make the same weights again takes minutes."""
    shipped, record = model.starting_model(tokenizer), model.record()
    assert {p.dtype for p in shipped.parameters()} == {torch.float32}
    assert shipped.lm_head.weight is shipped.model.embed_tokens.weight
    assert model.WEIGHTS.stat().st_size < 1_400_000
    assert record["settings"] == repr(starting_model.Settings())
    greedy = starting_model.accuracy(shipped, tokenizer, arithmetic.splits()["test"])
    assert greedy == pytest.approx(record["greedy_accuracy"], abs=3 / 256)  # another CPU rounds another way
    assert 0.1 < greedy < 0.2 < record["sampled_accuracy"] < 0.4


def test_the_script_writes_what_the_package_reads(tokenizer, monkeypatch, tmp_path):
    network = starting_model.train(tokenizer, FEW, model.Architecture())
    monkeypatch.setattr(arithmetic, "splits", lambda: {"test": arithmetic.all_problems(held_out=True)[:4]})
    record = starting_model.write(network, tokenizer, FEW, tmp_path / "w.safetensors")
    monkeypatch.setattr(model, "WEIGHTS", tmp_path / "w.safetensors")
    assert model.record() == record
    for name, weight in model.starting_model(tokenizer).state_dict().items():
        assert torch.equal(weight, network.state_dict()[name]), name


def test_start_is_made_once_and_again_when_its_weights_change(monkeypatch, tmp_path):
    folder = tmp_path / "start"
    assert start.read_if_current(folder) is None
    record = start.make(folder)
    assert start.read_if_current(folder) == record
    assert record["rows"] == {"train": 2048, "test": 256}
    assert (folder / "data" / "train.parquet").exists()
    (tmp_path / "other").write_bytes(b"other weights")
    monkeypatch.setattr(start, "_FROM", (tmp_path / "other",))
    assert start.read_if_current(folder) is None

    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(folder / "model")
    assert loaded.encode("we\n7+8=15") == byte_tokenizer.build().encode("we\n7+8=15")
    loaded = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert loaded.dtype == torch.float32
    assert loaded.num_parameters() == record["parameters"] == 674_176


@pytest.mark.parametrize("text", ["{}", "[]", "5", "{"])
def test_a_start_whose_record_is_not_one_is_made_again(tmp_path, text):
    (tmp_path / "made.json").write_text(text)
    assert start.read_if_current(tmp_path) is None


# Metrics and progress


def write_rows(path: Path, rows: dict[int, dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    metrics_file.write(rows, path)


def step_row(step: int, **more) -> dict:
    return {
        "actor/pg_clipfrac": 0.001 * step,
        "actor/entropy": 0.3,
        "critic/score/mean": 0.5,
        "timing_s/step": 4.0 + step % 2,
        **more,
    }


def test_accuracy_is_the_mean_over_data_sources():
    row = {"val-core/a/acc/mean@1": 0.5, "val-core/b/acc/mean@1": 1.0, "val-aux/a/reward/mean@1": 0.0}
    assert series.accuracy(row) == 0.75
    assert series.accuracy({"actor/entropy": 1.0}) is None


def test_points_skip_steps_without_the_series():
    rows = {2: {"actor/entropy": 0.2}, 0: {}, 1: {"actor/entropy": 0.1}}
    assert series.points(rows, "entropy") == [(1, 0.1), (2, 0.2)]


def test_validations_left():
    forecast = Forecast(total_steps=30, validate_every=10)
    assert [forecast.validations_after(s) for s in (0, 9, 10, 29, 30)] == [3, 3, 2, 1, 0]
    assert Forecast(25, 10).validations_after(0) == 3  # 10, 20, and the last step
    assert Forecast(25, -1).validations_after(0) == 0


def test_time_left_follows_what_was_measured():
    forecast = Forecast(total_steps=30, validate_every=10)
    assert forecast.training_left(0, {}) == 30 * EXPECTED_STEP + 3 * EXPECTED_VALIDATION
    rows = {s: {"timing_s/step": 2.0} for s in range(1, 11)} | {10: {"timing_s/step": 2.0, "timing_s/testing": 7.0}}
    assert forecast.training_left(10, rows) == 20 * 2.0 + 2 * 7.0
    assert forecast.training_left(30, rows) == 0.0


def test_a_resumed_run_is_not_timed_by_what_came_before():
    forecast = Forecast(total_steps=30, validate_every=10, start_step=20)
    rows = {20: {"timing_s/step": 99.0}, 21: {"timing_s/step": 2.0}}
    assert forecast.training_left(21, rows) == 9 * 2.0 + EXPECTED_VALIDATION


def test_facts_look_no_further_than_the_step():
    rows = {
        0: {"val-core/sums/acc/mean@1": 0.15},
        10: step_row(10, **{"val-core/sums/acc/mean@1": 0.9}),
        11: step_row(11),
    }
    assert display.training_facts(rows, 0) == ("held-out accuracy 15 % (step 0)",)
    assert display.training_facts(rows, 10) == (
        "held-out accuracy 15 % → 90 % (step 10)",
        "reward 0.50",
        "entropy 0.30",
        "clipped 1.00 % of tokens",
    )


def test_plain_display_writes_a_line_where_there_is_news(capsys):
    plain = display.PlainDisplay(out=sys.stdout)

    def show(phase: str, done: int, facts: tuple[str, ...] = ()) -> None:
        plain.show(display.Status(display.TRAINING, phase, done, 30, 125.0, facts))

    show("starting Ray", 0)
    show("starting Ray", 0)
    for step in range(1, 8):
        show("training", step)
        show("training", step)
    show("training", 8, ("held-out accuracy 90 % (step 8)",))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4  # the start; training, step 1; step 5; the new accuracy
    assert lines[0] == "[ 0:00] 2/2 training: starting Ray · step 0/30 · about 2:05 left"
    assert "step 8/30 · held-out accuracy 90 %" in lines[-1]


def test_live_display_fits_a_terminal_and_leaves_only_what_was_said():
    facts = ("held-out accuracy 15 % → 90 % (step 10)", "reward 0.50")
    console = Console(force_terminal=True, width=80, file=io.StringIO(), legacy_windows=False)
    with console.capture() as captured, display.LiveDisplay(console) as live:
        live.show(display.Status(display.PREPARING, "loading torch"))
        live.show(display.Status(display.TRAINING, "learning from rewards", 12, 30, 125.0, facts))
        live.say("Starting model made: 15 % [sic]")
        shown = Console(width=80, legacy_windows=False)
        with shown.capture() as frame:
            shown.print(live.get_renderable())
    bar, times, numbers = frame.get().rstrip("\n").split("\n")
    assert "2/2 training: learning from rewards" in bar
    assert "step 12/30" in bar
    assert "loading torch" not in bar
    assert times.strip() == "0:00 so far · about 2:05 left"
    assert numbers.strip() == " · ".join(facts)
    assert "Starting model made: 15 % [sic]" in captured.get()


def test_display_is_plain_where_the_output_is_no_terminal(capsys):
    with display.make_display() as shown:
        assert isinstance(shown, display.PlainDisplay)
        shown.say("x")
    assert capsys.readouterr().out == "[ 0:00] x\n"


def test_clock():
    assert [display.clock(s) for s in (0, 59.6, 61, 3600)] == ["0:00", "1:00", "1:01", "60:00"]


# What a call decides to do


def fake_checkpoint(run: Run, step: int) -> None:
    fake_checkpoints.make(run.checkpoints, step)


def test_plan(tmp_path):
    run = Run(tmp_path / "sspo")
    assert run.plan(30) == Plan("begin")
    fake_checkpoint(run, 10)
    assert run.plan(30) == Plan("resume", 10)
    fake_checkpoint(run, 30)
    assert run.plan(30) == Plan("resume", 30)  # the last validation is missing
    attempt = run.new_attempt()
    write_rows(attempt / "metrics.jsonl", {30: step_row(30)})
    assert run.plan(30) == Plan("finished", 30)  # nothing is
    shutil.rmtree(attempt)
    run.finished.write_text(json.dumps({"step": 30}))
    assert run.plan(30) == Plan("finished", 30)
    assert run.plan(60) == Plan("resume", 30)


def test_a_checkpoint_that_is_named_but_not_there_does_not_count(tmp_path):
    run = Run(tmp_path)
    run.checkpoints.mkdir()
    (run.checkpoints / "latest_checkpointed_iteration.txt").write_text("20")
    assert run.plan(30) == Plan("begin")
    fake_checkpoints.make(run.checkpoints, 10, point=False)
    assert run.plan(30) == Plan("resume", 10)


def test_clear_leaves_what_is_not_ours(tmp_path):
    run = Run(tmp_path)
    fake_checkpoint(run, 10)
    run.new_attempt()
    run.finished.write_text('{"step": 10}')
    (tmp_path / "notes.txt").write_text("mine")
    with hold(tmp_path / "lock"):
        run.clear()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lock", "notes.txt"]


def test_changed_settings_are_named():
    before, now = {"a.b": 1, "a.c": {}, "d": [1]}, {"a.b": 2, "a.c": {}, "d": [1], "e": 3}
    assert changes(before, now) == ["a.b: 1 → 2", "e: None → 3"]
    assert changes(now, now) == []


def test_recipe_asks_for_what_the_task_and_the_model_have():
    job = main_ppo(Run(Path("/r")), Path("/s"), "gspo", "cpu", ("trainer.total_training_steps=7",))
    config = composed(job.recipes, job.recipe, job.overrides, job.variables)
    assert not job.variables.keys() & os.environ.keys(), "other recipes of this process would read it, too"
    assert config.trainer.default_local_dir == "/r/checkpoints"
    assert config.trainer.total_training_steps == 7
    assert config.trainer.device == "cpu"
    assert config.actor_rollout_ref.model.path == "/s/model"
    assert config.actor_rollout_ref.actor.policy_loss.loss_mode == "gspo"
    assert config.data.max_response_length == starting_model.LONGEST_SOLUTION
    assert config.data.train_batch_size / config.actor_rollout_ref.actor.ppo_mini_batch_size == 4  # updates


# The end


def finished_run(path: Path, with_segments: bool = True) -> Run:
    run = Run(path)
    rows = {0: {"val-core/sums/acc/mean@1": 0.15}}
    for step in range(1, 5):
        rows[step] = step_row(step)
        if with_segments:
            rows[step]["sspo/segments_per_response"] = 7.0
    rows[4]["val-core/sums/acc/mean@1"] = 0.95
    write_rows(run.new_attempt() / "metrics.jsonl", rows)
    fake_checkpoint(run, 4)
    # The last answer holds what verl writes as it is and str.splitlines() takes for a line break.
    problems = [("1+1+1+1=", "4", 1.0, 1.0), ("7+8+5+5=", "25", 0.0, 1.0), ("9+9+9+9=", "36\u2028\x85", 1.0, 1.0)]
    run.validation.mkdir()
    for step, column in ((0, 2), (4, 3)):
        entries = [
            {"input": p[0], "output": f"ok\n#### {p[1] if p[column] else '0'}", "score": p[column]} for p in problems
        ]
        (run.validation / f"{step}.jsonl").write_text(
            "".join(json.dumps(e, ensure_ascii=False) + "\n" for e in entries)
        )
    return run


def test_summary_numbers(tmp_path):
    numbers = summary.collect(finished_run(tmp_path).rows())
    assert numbers["steps"] == 4
    assert (numbers["accuracy_first"], numbers["accuracy_last"]) == (0.15, 0.95)
    assert numbers["clip_fraction"] == pytest.approx(0.0025)  # mean of .001 .002 .003 .004
    assert numbers["clip_fraction_highest"] == pytest.approx(0.004)
    assert numbers["segments_per_response"] == 7.0
    assert numbers["seconds_per_step"] == 4.5  # median of 5 4 5 4
    assert numbers["rollout_difference"] is None


def test_summary_text(tmp_path):
    run = finished_run(tmp_path)
    text = summary.render(summary.collect(run.rows()), run, {"model": 40.0, "training": 80.0})
    assert "15.0 % → 95.0 %  (+80.0 points)" in text
    assert "0.25 % of tokens (highest step: 0.40 %)" in text
    assert "2:00  (model 0:40, training 1:20)" in text
    assert "7+8+5+5=ok      7+8+5+5=ok\n    #### 0          #### 25" in text
    for name in ("global_step_4/actor/huggingface", "metrics.jsonl", "curve.png", "attempts/1/verl.log"):
        assert name in text


def test_the_summary_says_where_it_begins_if_the_start_was_not_measured(tmp_path):
    run = finished_run(tmp_path)
    rows = run.rows() | {0: {}, 2: step_row(2, **{"val-core/sums/acc/mean@1": 0.5})}
    (run.validation / "0.jsonl").rename(run.validation / "2.jsonl")
    text = summary.render(summary.collect(rows), run, {})
    assert "from step 2: 50.0 % → 95.0 %" in text
    assert "a held-out problem at step 2 and after" in text


def test_summary_says_what_was_not_measured(tmp_path):
    run = finished_run(tmp_path, with_segments=False)
    text = summary.render(summary.collect(run.rows()), run, {})
    assert f"segments per response  {summary.NOT_LOGGED}\n" in text
    text = summary.render(summary.collect({}), Run(tmp_path / "empty"), {})
    assert text.count(summary.NOT_LOGGED) >= 5
    once = summary.collect({0: {"val-core/sums/acc/mean@1": 0.15}})
    assert (once["accuracy_first"], once["accuracy_last"]) == (0.15, None)


def test_summary_lists_the_warnings_with_advice(tmp_path):
    run = finished_run(tmp_path)
    assert f"warnings               {summary.NOT_LOGGED}\n" in summary.render(summary.collect(run.rows()), run, {})
    rows = {step: {f"sspo/warning/{sign}": 0.0 for sign in SIGNS} for step in range(1, 5)}
    assert "warnings               none\n" in summary.render(summary.collect(rows), run, {})
    rows[2]["sspo/warning/one_band"] = rows[4]["sspo/warning/one_band"] = 1.0
    text = summary.render(summary.collect(rows), run, {})
    assert "Nearly all segments are in one entropy band: at 2 of 4 steps\n" in text
    assert SIGNS["one_band"].advice in " ".join(text.split())
    assert "Many tokens are clipped" not in text
    assert all(len(line) <= 110 for line in text.splitlines() if "entropy" in line)


def test_publish_writes_metrics_curve_and_numbers(tmp_path):
    run = finished_run(tmp_path)
    publish(run)
    assert metrics_file.read(run.metrics).rows == run.rows()
    assert json.loads(run.summary.read_text())["accuracy_last"] == 0.95
    assert run.curve.read_bytes().startswith(b"\x89PNG")


def test_curve_shows_the_data_of_the_run(tmp_path, monkeypatch):
    drawn = []
    from matplotlib.axes import Axes

    plot = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda axis, x, y, **kw: drawn.append((kw["label"], x, y)) or plot(axis, x, y, **kw)
    )
    rows = {1: step_row(1), 2: step_row(2, **{"val-core/sums/acc/mean@1": 0.5})}
    del rows[1]["actor/entropy"], rows[2]["actor/entropy"]
    draw_curve("sspo", rows, tmp_path / "c.png", "title")
    assert ("sspo", [2], [50.0]) in drawn  # accuracy in percent
    assert ("sspo", [1, 2], [0.1, 0.2]) in drawn  # clip fraction in percent
    assert len(drawn) == 3  # entropy was not measured
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


# The command, with a stand-in for verl

VERL = """
import json, os, sys, time, zipfile
from pathlib import Path
run, step = Path(os.environ["SSPO_RUN_DIR"]), 0
steps = int(next(a for a in sys.argv if a.startswith("trainer.total_training_steps=")).split("=")[1])
latest = run / "checkpoints" / "latest_checkpointed_iteration.txt"
if latest.exists():
    step = int(latest.read_text())
print("Started a local Ray instance.", flush=True)
time.sleep(0.2)
print("Training Progress: 0/3", flush=True)
with open(os.environ["VERL_FILE_LOGGER_PATH"], "w") as file:
    for step in range(step, steps + 1):
        row = {"actor/entropy": 0.1 * step, "val-core/sums/acc/mean@1": 0.2 * step}
        file.write(json.dumps({"step": step, "data": row}) + "\\n")
        file.flush()
        time.sleep(0.1)
actor = latest.parent / f"global_step_{step}" / "actor"
actor.mkdir(parents=True, exist_ok=True)
for kind in ("model", "optim", "extra_state"):
    zipfile.ZipFile(actor / f"{kind}_world_size_1_rank_0.pt", "w").close()
latest.write_text(str(step))
time.sleep(0.5)
"""
FAILS = "import sys; print('RuntimeError: all is lost'); sys.exit(3)"
WAITS = "(TaskRunner pid=7) INFO pending: 0, running: 16, finished: 0, failure: 0"  # verl's, every minute
HANGS = f"import time; print('up', flush=True)\nfor _ in range(600): print('{WAITS}', flush=True); time.sleep(0.1)"


@pytest.fixture(scope="module")
def made_start(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    start.make(folder / "start")
    return folder / "start"


@pytest.fixture
def quickstart(monkeypatch, tmp_path, made_start):
    """A function that calls `sspo quickstart` with a stand-in for verl, in a folder that holds a starting model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "start").symlink_to(made_start)
    monkeypatch.setattr(train, "POLL_SECONDS", 0.05)
    for name in ("ALGORITHM", "SSPO_FRESH", "SSPO_RUNS", "SSPO_STALL_MINUTES"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str, verl: str = VERL, steps: int = 3, **variables: str) -> Result:
        monkeypatch.setattr(MainPPO, "command", lambda job: [sys.executable, "-c", verl, *job.overrides])
        command = ["quickstart", *arguments, f"trainer.total_training_steps={steps}"]
        return CliRunner().invoke(sspo, command, env={"SSPO_RUNS": "runs", **variables})

    return call


def on_disk(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fresh", "actor_rollout_ref.actor.policy_loss.clip_high=0.3"], "clip_high"),
        (["--fresh", "data.train_files=nowhere.parquet"], "data.train_files"),
        (["trainer.n_gpus_per_node=2"], "was saved by 1 rank(s), and this run has 2"),
        (["trainer.max_actor_ckpt_to_keep=true"], "trainer.max_actor_ckpt_to_keep must be an integer"),
        (["trainer.resume_mode=disable"], "the quickstart needs auto (--fresh starts over)"),
        (["trainer.default_local_dir=elsewhere"], "--runs sets the folder of all runs"),
    ],
)
def test_what_is_refused_leaves_the_run_as_it_was(quickstart, tmp_path, arguments, said):
    run = Run(tmp_path / "runs" / "sspo")
    for step in (10, 20):
        fake_checkpoints.make(run.checkpoints, step)
    fake_checkpoints.cut(run.checkpoints / "global_step_20" / "actor" / "model_world_size_1_rank_0.pt")
    before = on_disk(run.path)
    done = quickstart(*arguments, steps=30)
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())
    assert on_disk(run.path) == before


def test_a_call_trains_then_tells_then_resumes_then_starts_over(quickstart, tmp_path):
    run = Run(tmp_path / "runs" / "sspo")
    done = quickstart()
    assert done.exit_code == 0, done.output
    assert "sspo on the CPU, 3 steps, in runs/sspo\n" in done.stdout
    assert "Starting model: 674,176 parameters, solves 15 %" in done.stdout
    for part in ("starting Ray", "learning from rewards", "drawing the curve", "0.0 % → 60.0 %", "(model 0:0"):
        assert part in done.stdout
    assert (
        "Next: the same command with --algorithm grpo   "
        "(not tried yet: grpo, gspo, gspo_wide, sspo_length, sspo_no_entropy_clip, sspo_turn)" in done.stdout
    )
    record = json.loads(run.finished.read_text())
    assert (record["step"], record["resumed_from"], set(record["seconds"])) == (3, 0, {"model", "start-up", "training"})
    assert record["seconds"]["training"] > 0.5
    assert all(file.exists() for file in (run.metrics, run.curve, run.summary))

    again = quickstart()
    assert again.exit_code == 0, again.output
    assert "0.0 % → 60.0 %" in again.stdout
    assert "nothing was trained this time. The same command with --fresh starts over." in again.stdout
    assert len(run.attempts()) == 1

    resumed = quickstart("actor_rollout_ref.actor.optim.lr=3e-4", steps=5)
    assert resumed.exit_code == 0, resumed.output
    assert "Settings have changed since this run began; it resumes with the new ones." in resumed.stdout
    assert "actor_rollout_ref.actor.optim.lr: 0.0001 → 0.0003" in resumed.stdout
    assert "Resuming from the checkpoint of step 3." in resumed.stdout
    assert "0.0 % → 100.0 %" in resumed.stdout
    assert sorted(run.rows()) == [0, 1, 2, 3, 4, 5]
    assert json.loads(run.finished.read_text())["resumed_from"] == 3

    over = quickstart(SSPO_FRESH="1", ALGORITHM="sspo")
    assert over.exit_code == 0, over.output
    assert "0.0 % → 60.0 %" in over.stdout
    assert len(run.attempts()) == 1


def test_a_run_that_ended_unwatched_is_told_and_not_started_again(quickstart, tmp_path):
    assert quickstart().exit_code == 0
    run = Run(tmp_path / "runs" / "sspo")
    run.finished.unlink()  # the quickstart was killed, and verl went on to the end
    done = quickstart()
    assert done.exit_code == 0, done.output
    assert "nothing was trained this time" in done.stdout
    assert len(run.attempts()) == 1
    assert run.recorded_steps() == 3


def test_a_damaged_checkpoint_is_named_and_the_one_before_resumed_from(quickstart, tmp_path):
    run = Run(tmp_path / "runs" / "sspo")
    for step in (1, 2, 3, 4):
        fake_checkpoints.make(run.checkpoints, step)
    fake_checkpoints.cut(run.checkpoints / "global_step_4" / "actor" / "model_world_size_1_rank_0.pt")
    done = quickstart(steps=5)
    assert done.exit_code == 0, done.output
    assert "The checkpoint of step 4 is damaged" in done.stdout
    assert "Resuming from the checkpoint of step 3." in done.stdout
    assert "earlier starts were removed" in done.stdout
    assert not (run.checkpoints / "global_step_1").exists()


def test_a_checkpoint_of_another_number_of_ranks_is_refused(quickstart, tmp_path):
    path = fake_checkpoints.make(Run(tmp_path / "runs" / "sspo").checkpoints, 2, ranks=2)
    done = quickstart()
    assert done.exit_code == 2
    assert f"{path} was saved by 2 rank(s), and this run has 1" in " ".join(done.stderr.split())
    assert path.is_dir()


def test_a_damaged_side_file_is_named(quickstart, tmp_path):
    run = Run(tmp_path / "runs" / "sspo")
    fake_checkpoint(run, 2)
    for file in (run.settings, run.finished):
        file.write_text('{"st')
        done = quickstart()
        assert (done.exit_code, done.stdout.count("starting Ray")) == (2, 0)
        assert f"{file} is damaged" in done.stderr.replace("\n", "")
        file.unlink()


def test_a_disk_that_is_full_or_read_only_is_said_in_one_line(quickstart, monkeypatch, tmp_path):
    for number, said in ((errno.ENOSPC, "No space left on device. Free space"), (errno.EROFS, "Read-only file system")):

        def fail(path, number=number):
            raise OSError(number, os.strerror(number), str(path))

        monkeypatch.setattr("sspo_verl.tools.runs.lock.hold", fail)
        done = quickstart()
        assert done.exit_code == 2
        assert f"Error: {tmp_path}/runs/sspo/lock: {said}" in done.stderr.replace("\n", "")
        assert "Traceback" not in done.stderr


def test_a_full_disk_does_not_cost_the_explanation(quickstart, monkeypatch):
    def publish(run):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sspo_verl.tools.quickstart.tell.publish", publish)
    done = quickstart(verl=FAILS)
    assert done.exit_code == 3
    assert "RuntimeError: all is lost" in done.stderr
    assert "summary could not be written: [Errno 28] No space left" in done.stderr


def test_bad_settings_and_data_are_refused_before_verl_is_started(quickstart, tmp_path):
    for override, said in (
        ("actor_rollout_ref.actor.policy_loss.clip_high=0.3", "clip_high is an upper bound on the ratio"),
        ("actor_rollout_ref.actor.policy_loss.clip_hgih=1.3", "Did you mean clip_high?"),
        ("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=7", "does not divide the 32 responses of a rank"),
        ("data.train_batch_size=4096", "have 2048 row(s)"),
        ("data.train_files=none.parquet", "data.train_files: none.parquet is not there"),
    ):
        done = quickstart(override)
        assert (done.exit_code, "starting Ray" in done.stdout) == (2, False), override
        assert said in " ".join(done.stderr.split())
    assert not Run(tmp_path / "runs" / "sspo").attempts()


def test_a_failure_is_explained_and_its_exit_code_handed_on(quickstart, tmp_path):
    fake_checkpoint(Run(tmp_path / "runs" / "grpo"), 2)
    done = quickstart("--algorithm", "grpo", verl=FAILS)
    assert done.exit_code == 3
    for text in (
        "Training failed: verl ended with exit code 3",
        "    RuntimeError: all is lost",
        "runs/grpo/attempts/1/verl.log",
        "Run the same command again to resume from the checkpoint of step 2.",
    ):
        assert text in done.stderr
    killed = quickstart("--algorithm", "grpo", verl="import os; os.kill(os.getpid(), 9)")
    assert killed.exit_code == 137
    assert "out of memory" in killed.stderr


def test_a_run_that_says_nothing_any_more_is_stopped(quickstart):
    began = time.monotonic()
    done = quickstart("--stall-minutes", "0.01", verl=HANGS)
    assert time.monotonic() - began < 40
    assert done.exit_code == 1
    assert "no progress in verl's log for 0.01 minutes, so it was stopped (--stall-minutes sets" in done.stderr
    assert "It waited for responses (pending: 0, running: 16, finished: 0, failure: 0)" in done.stderr
    assert "KeyboardInterrupt" not in done.stderr, "the log of before it was stopped"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_verl_and_says_how_to_go_on(quickstart, tmp_path, number):
    before = signal.getsignal(number)

    def send() -> None:
        log = tmp_path / "runs" / "sspo" / "attempts" / "1" / "verl.log"
        while not (log.exists() and log.read_text()):
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()
    done = quickstart(verl=HANGS)
    assert done.exit_code == 128 + number
    assert "2/2 training: stopping verl" in done.stdout
    assert f"Stopped by {number.name}, after step 0. There is no checkpoint yet" in done.stderr
    assert signal.getsignal(number) is before


def test_bad_usage_is_refused_before_anything_is_made(quickstart, tmp_path):
    for arguments, variables, said in (
        (
            ["--algorithm", "ppo"],
            {},
            f"'ppo' is not one of {', '.join(map(repr, algorithms()))}",
        ),
        ([], {"ALGORITHM": "ppo"}, "(env var: 'ALGORITHM'): 'ppo' is not one of"),
        (
            ["algorithm=ppo"],
            {},
            f"algorithm=ppo is unknown. Choose one of {', '.join(algorithms())}.",
        ),
        (["--algorithm", "grpo", "algorithm=gspo"], {}, "--algorithm grpo and algorithm=gspo: name one of them."),
        (["fresh"], {}, "'fresh' is not a Hydra override (key=value)"),
        *(([], {"SSPO_STALL_MINUTES": bad}, "SSPO_STALL_MINUTES") for bad in ("soon", "0", "-1", "nan")),
    ):
        done = quickstart(*arguments, **variables)
        assert (done.exit_code, done.stdout) == (2, ""), (arguments, variables)
        assert said in " ".join(done.stderr.split())
        assert not (tmp_path / "runs" / "sspo").exists()
    done = quickstart("trainer.no_such_key=1")
    assert (done.exit_code, "trainer.no_such_key" in done.stderr) == (2, True)


def test_the_algorithm_is_that_of_the_option_the_variable_or_an_override(quickstart, tmp_path):
    """The run is held by another, so that each call ends once it has chosen."""
    for arguments, variables, chosen in (
        (["--algorithm", "gspo"], {"ALGORITHM": "grpo"}, "gspo"),
        ([], {"ALGORITHM": "grpo"}, "grpo"),
        (["algorithm=gspo"], {"ALGORITHM": "grpo"}, "gspo"),
        ([], {"ALGORITHM": ""}, "sspo"),
    ):
        with hold(tmp_path / "runs" / chosen / "lock"):
            done = quickstart(*arguments, **variables)
        assert done.exit_code == 2
        assert f"is using {tmp_path}/runs/{chosen}. Wait for it, or stop it." in " ".join(done.stderr.split())


def test_the_script_calls_the_command():
    script = TOP / "scripts" / "quickstart.sh"
    subprocess.run(["bash", "-n", script], check=True)
    assert script.read_text().endswith('exec .venv/bin/sspo quickstart "$@"\n')
