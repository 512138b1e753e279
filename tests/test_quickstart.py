"""The quickstart's parts, without Ray: task, warm-up, metrics, picture, and what a call decides to do."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from sspo_verl.diagnostics.warnings import SIGNS
from sspo_verl.fresh_process import LONGEST_TEMP_DIR, short_directory
from sspo_verl.quickstart import __main__ as cli
from sspo_verl.quickstart import arithmetic, curve, log, progress, settings, start, summary, warm_up
from sspo_verl.quickstart import tokenizer as byte_tokenizer
from sspo_verl.quickstart.reward import compute_score
from sspo_verl.quickstart.run_dir import Busy, Plan, RunDir, hold
from sspo_verl.quickstart.training import Failed, train
from sspo_verl.report import read, series

TINY = warm_up.Settings(hidden_size=32, intermediate_size=32, layers=1, heads=1, steps=4, batch_size=4)


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


def test_the_writer_of_the_warm_up_is_right_often_enough_and_not_too_often():
    rng = random.Random(0)
    problems = rng.choices(arithmetic.all_problems(held_out=False), k=2000)
    right = sum(arithmetic.is_solved(arithmetic.solution(p, rng), sum(p)) for p in problems) / len(problems)
    assert 0.2 < right < 0.5


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("ok\n7+8=15\n#### 25", 1.0),
        ("#### 25", 1.0),
        ("#### 25\n\n ", 1.0),
        ("#### 25\nok", 0.0),
        ("#### 2", 0.0),
        ("#### 255", 0.0),
        ("####25", 0.0),
        ("so #### 25", 0.0),
        ("", 0.0),
        (None, 0.0),
        ("\x00\ufffd\n\n", 0.0),
    ],
)
def test_reward(text, score):
    assert compute_score("sums", text, "25", extra_info={"index": 3}) == {"score": score, "acc": score}


def test_reward_takes_what_verl_passes_beside():
    assert compute_score("sums", "#### 9", 9, None, reward_router_address=None)["score"] == 1.0


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
    ids, labels = warm_up.make_batch(tokenizer, problems, random.Random(0))
    for row, label, terms in zip(ids, labels, problems, strict=True):
        taught = label[label != warm_up.IGNORE]
        assert tokenizer.decode(row[:9]) == "<|im_start|>" + arithmetic.prompt(terms)
        assert (label[:9] == warm_up.IGNORE).all()
        assert tokenizer.decode(taught[:-1]).split("\n")[-1].startswith("#### ")
        assert taught[-1] == tokenizer.eos_token_id
        assert torch.equal(row[9 : 9 + len(taught)], taught)


def test_longest_solution_fits_the_response_length():
    words = max(map(len, arithmetic.FILLERS))
    longest = 3 * (words + 1) + len("9+9=18\n18+9=27\n27+9=36\n#### 36") + 1  # and the end token
    assert longest <= warm_up.LONGEST_SOLUTION


def test_warm_up_is_the_same_every_time(tokenizer):
    losses = [[], []]
    models = [warm_up.train(tokenizer, TINY, lambda step, loss, into=into: into.append(loss)) for into in losses]
    for first, second in zip(*(m.state_dict().values() for m in models), strict=True):
        assert torch.equal(first, second)
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]


def test_another_seed_is_another_model(tokenizer):
    from dataclasses import replace

    one, other = (warm_up.new_model(tokenizer, replace(TINY, seed=seed)) for seed in (0, 1))
    assert not torch.equal(one.model.embed_tokens.weight, other.model.embed_tokens.weight)


def test_learning_rate_rises_then_falls_to_its_floor():
    s = warm_up.Settings(steps=400, learning_rate=1.0)
    rates = [warm_up.learning_rate_at(step, s) for step in range(400)]
    assert rates[0] == pytest.approx(1 / 30)
    assert max(rates) == max(rates[25:40])
    assert rates[-1] == pytest.approx(s.lr_floor, abs=1e-3)


def test_accuracy_counts_solved_problems(tokenizer, monkeypatch):
    model = warm_up.new_model(tokenizer, TINY).eval()
    problems = arithmetic.splits()["test"][:4]
    assert warm_up.accuracy(model, tokenizer, problems) == 0.0
    answers = [*(f"ok\n#### {sum(p)}" for p in problems[:3]), "#### 0"]

    def generate(input_ids, **_):
        out = [tokenizer.encode(a) for a in answers]
        width = max(map(len, out))
        padded = [ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids in out]
        return torch.cat((input_ids, torch.tensor(padded)), 1)

    monkeypatch.setattr(model, "generate", generate)
    assert warm_up.accuracy(model, tokenizer, problems) == 0.75


def test_start_is_made_once_and_again_when_its_settings_change(tmp_path):
    from dataclasses import replace

    folder, seen = tmp_path / "start", []
    assert start.read_if_current(folder, TINY) is None
    record = start.make(folder, TINY, seen.append, seconds_after=100.0)
    assert start.read_if_current(folder, TINY) == record
    assert start.read_if_current(folder, replace(TINY, steps=5)) is None
    assert (folder / "model" / "model.safetensors").exists()
    assert (folder / "data" / "train.parquet").exists()
    assert [s.done for s in seen if s.total] == [1, 2, 3, 4]
    assert seen[1].seconds_left > 100.0

    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(folder / "model")
    assert loaded.encode("we\n7+8=15") == byte_tokenizer.build().encode("we\n7+8=15")
    assert AutoModelForCausalLM.from_pretrained(folder / "model").num_parameters() == record["parameters"]


# Metrics


def write_rows(path: Path, rows: dict[int, dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"step": s, "data": d}) + "\n" for s, d in rows.items()))


def step_row(step: int, **more) -> dict:
    return {
        "actor/pg_clipfrac": 0.001 * step,
        "actor/entropy": 0.3,
        "critic/score/mean": 0.5,
        "timing_s/step": 4.0 + step % 2,
        **more,
    }


def test_read_leaves_out_a_line_that_is_still_being_written(tmp_path):
    file = tmp_path / "m.jsonl"
    assert read.read(file).rows == {}
    write_rows(file, {0: {"a": 1.0}, 1: {"a": 2.0}})
    file.write_text(file.read_text() + '{"step": 2, "da')
    assert read.read(file).rows == {0: {"a": 1.0}, 1: {"a": 2.0}}


def test_merge_keeps_everything_and_prefers_the_later_attempt(tmp_path):
    write_rows(tmp_path / "1", {0: {"val": 0.1}, 1: {"a": 1.0}, 2: {"a": 2.0, "val": 0.2}, 3: {"a": 3.0}})
    # Resumed from step 2: its first row holds the validation only.
    write_rows(tmp_path / "2", {2: {"val": 0.25}, 3: {"a": 30.0}, 4: {"a": 40.0}})
    merged = read.merge(map(read.read, [tmp_path / "1", tmp_path / "2"])).rows
    assert merged == {
        0: {"val": 0.1},
        1: {"a": 1.0},
        2: {"a": 2.0, "val": 0.25},
        3: {"a": 30.0},
        4: {"a": 40.0},
    }
    read.write(merged, tmp_path / "all.jsonl")
    assert read.read(tmp_path / "all.jsonl").rows == merged


def test_accuracy_is_the_mean_over_data_sources():
    row = {"val-core/a/acc/mean@1": 0.5, "val-core/b/acc/mean@1": 1.0, "val-aux/a/reward/mean@1": 0.0}
    assert series.accuracy(row) == 0.75
    assert series.accuracy({"actor/entropy": 1.0}) is None


def test_points_skip_steps_without_the_series():
    rows = {2: {"actor/entropy": 0.2}, 0: {}, 1: {"actor/entropy": 0.1}}
    assert series.points(rows, "entropy") == [(1, 0.1), (2, 0.2)]


# The log

LOG = """\
2026-01-01 00:00:00,000 INFO worker.py:2038 -- Started a local Ray instance.
\x1b[36m(TaskRunnerV1 pid=7)\x1b[0m INFO:x:create worker group dict_keys(['actor_rollout'])
\x1b[36m(TaskRunnerV1 pid=7)\x1b[0m INFO:x:actor and ref model engine initialized
"""


def test_phases_are_read_as_the_log_grows(tmp_path):
    file = tmp_path / "verl.log"
    reader = log.LogReader(file)
    assert not reader.poll()
    assert reader.phase == log.FIRST_PHASE
    lines = LOG.splitlines(keepends=True)
    file.write_text(lines[0] + lines[1][:30])  # cut in the middle of a line
    assert reader.poll()
    assert reader.phase == "loading verl's trainer"
    file.write_text(LOG)
    reader.poll()
    assert reader.phase == "starting the sampler (vLLM)"
    assert not reader.poll()
    with file.open("a") as more:
        more.write("x all initialize finished, ready to fit\nTraining Progress:   0%|  | 0/30\r")
    reader.poll()
    assert reader.phase == log.LEARNING  # though tqdm has not ended its line
    with file.open("a") as more:
        more.write("create worker group again\n")
    reader.poll()
    assert reader.phase == log.LEARNING


def test_useful_lines_end_at_the_error_and_hold_no_noise():
    text = (
        LOG
        + "\x1b[36m(WorkerDict pid=9)\x1b[0m Traceback (most recent call last):\n"
        + '\x1b[36m(WorkerDict pid=9)\x1b[0m   File "x.py", line 1, in f\n'
        + "WARNING something\n"
        + "Training Progress: 10%|##   | 3/30 [00:05]\n"
        + "\x1b[36m(WorkerDict pid=9)\x1b[0m ValueError: the key is wrong\n"
        + "             ^^^^^^^^\n"
        + "\tpid: 9\n"
        + "(raylet) a line after it\n" * 30
    )
    lines = log.useful_lines(text, before=2, after=1)
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1:] == ['  File "x.py", line 1, in f', "ValueError: the key is wrong", "\tpid: 9"]
    assert log.useful_lines("a\nb\n") == ["a", "b"]
    assert log.useful_lines("") == []


def test_advice():
    assert "memory" in log.advice("ray.exceptions.OutOfMemoryError: Task was killed", 1)
    assert "disk" in log.advice("OSError: [Errno 28] No space left on device", 1)
    assert "GPU" in log.advice("torch.OutOfMemoryError: CUDA out of memory. Tried", 1)
    assert "memory" in log.advice("", -9)
    assert "killed from outside" in log.advice("ray.exceptions.ActorDiedError: The actor died", 1)
    assert log.advice("ValueError: no", 1) is None


# Progress


def test_validations_left():
    forecast = progress.Forecast(total_steps=30, validate_every=10)
    assert [forecast.validations_after(s) for s in (0, 9, 10, 29, 30)] == [3, 3, 2, 1, 0]
    assert progress.Forecast(25, 10).validations_after(0) == 3  # 10, 20, and the last step
    assert progress.Forecast(25, -1).validations_after(0) == 0


def test_time_left_follows_what_was_measured():
    forecast = progress.Forecast(total_steps=30, validate_every=10)
    assert forecast.training_left(0, {}) == 30 * progress.EXPECTED_STEP + 3 * progress.EXPECTED_VALIDATION
    rows = {s: {"timing_s/step": 2.0} for s in range(1, 11)} | {10: {"timing_s/step": 2.0, "timing_s/testing": 7.0}}
    assert forecast.training_left(10, rows) == 20 * 2.0 + 2 * 7.0
    assert forecast.training_left(30, rows) == 0.0


def test_a_resumed_run_is_not_timed_by_what_came_before():
    forecast = progress.Forecast(total_steps=30, validate_every=10, start_step=20)
    rows = {20: {"timing_s/step": 99.0}, 21: {"timing_s/step": 2.0}}
    assert forecast.training_left(21, rows) == 9 * 2.0 + progress.EXPECTED_VALIDATION


def test_facts_look_no_further_than_the_step():
    rows = {
        0: {"val-core/sums/acc/mean@1": 0.15},
        10: step_row(10, **{"val-core/sums/acc/mean@1": 0.9}),
        11: step_row(11),
    }
    assert progress.training_facts(rows, 0) == ("held-out accuracy 15 % (step 0)",)
    assert progress.training_facts(rows, 10) == (
        "held-out accuracy 15 % → 90 % (step 10)",
        "reward 0.50",
        "entropy 0.30",
        "clipped 1.00 % of tokens",
    )


def test_plain_display_writes_a_line_where_there_is_news(capsys):
    display = progress.PlainDisplay(out=sys.stdout)
    show = lambda phase, done, facts=(): display.show(  # noqa: E731
        progress.Status(progress.TRAINING, phase, done, 30, 125.0, facts)
    )
    show("starting Ray", 0)
    show("starting Ray", 0)
    for step in range(1, 8):
        show("training", step)
        show("training", step)
    show("training", 8, ("held-out accuracy 90 % (step 8)",))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4  # the start; training, step 1; step 5; the new accuracy
    assert lines[0] == "[ 0:00] 3/3 training: starting Ray · step 0/30 · about 2:05 left"
    assert "step 8/30 · held-out accuracy 90 %" in lines[-1]


def test_clock():
    assert [progress.clock(s) for s in (0, 59.6, 61, 3600)] == ["0:00", "1:00", "1:01", "60:00"]


# What a call decides to do


def fake_checkpoint(run: RunDir, step: int) -> None:
    (run.checkpoints / f"global_step_{step}" / "actor" / "huggingface").mkdir(parents=True)
    (run.checkpoints / "latest_checkpointed_iteration.txt").write_text(str(step))


def test_plan(tmp_path):
    run = RunDir(tmp_path / "sspo")
    assert run.plan(30) == Plan("begin")
    fake_checkpoint(run, 10)
    assert run.plan(30) == Plan("resume", 10)
    fake_checkpoint(run, 30)
    assert run.plan(30) == Plan("resume", 30)  # the last validation is missing
    run.finished.write_text(json.dumps({"step": 30}))
    assert run.plan(30) == Plan("finished", 30)
    assert run.plan(60) == Plan("resume", 30)


def test_a_checkpoint_that_is_named_but_not_there_does_not_count(tmp_path):
    run = RunDir(tmp_path)
    run.checkpoints.mkdir()
    (run.checkpoints / "latest_checkpointed_iteration.txt").write_text("20")
    assert run.plan(30) == Plan("begin")


def test_attempts_are_numbered_and_never_reused(tmp_path):
    run = RunDir(tmp_path)
    made = [run.new_attempt().name for _ in range(11)]
    assert made == [str(n) for n in range(1, 12)]
    write_rows(run.attempts_dir / "9" / "metrics.jsonl", {3: {"a": 9.0}})
    write_rows(run.attempts_dir / "10" / "metrics.jsonl", {3: {"a": 10.0}})
    assert run.rows() == {3: {"a": 10.0}}  # 10 comes after 9


def test_a_directory_is_held_by_one(tmp_path):
    with hold(tmp_path / "lock"), pytest.raises(Busy, match="is at work"):
        hold(tmp_path / "lock")
    hold(tmp_path / "lock").close()


def test_clear_leaves_what_is_not_ours(tmp_path):
    run = RunDir(tmp_path)
    fake_checkpoint(run, 10)
    run.new_attempt()
    run.finished.write_text('{"step": 10}')
    (tmp_path / "notes.txt").write_text("mine")
    with hold(tmp_path / "lock"):
        run.clear()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lock", "notes.txt"]


def test_algorithms():
    assert settings.choose_algorithm(None, []) == ("sspo", [])
    assert settings.choose_algorithm("grpo", ["a.b=1"]) == ("grpo", ["a.b=1"])
    assert settings.choose_algorithm("grpo", ["algorithm=gspo", "a=1"]) == ("gspo", ["a=1"])
    with pytest.raises(
        ValueError, match=r"ALGORITHM=ppo is unknown\. There are: grpo, gspo, sspo, sspo_no_entropy_clip"
    ):
        settings.choose_algorithm("ppo", [])
    with pytest.raises(ValueError, match="not a Hydra override"):
        settings.choose_algorithm(None, ["fresh"])


def test_unknown_algorithm_is_refused_at_once(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("ALGORITHM", "ppo")
    monkeypatch.setenv("SSPO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert cli.main([]) == 2
    assert "There are: grpo, gspo" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_stall_minutes_must_be_a_number(monkeypatch):
    monkeypatch.setenv("SSPO_STALL_MINUTES", "2.5")
    assert settings.positive_number("SSPO_STALL_MINUTES", 10.0) == 2.5
    for bad in ("soon", "0", "-1", "nan"):
        monkeypatch.setenv("SSPO_STALL_MINUTES", bad)
        with pytest.raises(ValueError, match="SSPO_STALL_MINUTES"):
            settings.positive_number("SSPO_STALL_MINUTES", 10.0)


def test_changed_settings_are_named():
    before = settings.flatten({"a": {"b": 1, "c": {}}, "d": [1], "ray_kwargs": {"ray_init": {"_temp_dir": "/x"}}})
    now = settings.flatten({"a": {"b": 2, "c": {}}, "d": [1], "ray_kwargs": {"ray_init": {"_temp_dir": "/y"}}, "e": 3})
    assert settings.changes(before, now) == ["a.b: 1 → 2", "e: None → 3"]
    assert settings.changes(now, now) == []


def test_the_directory_for_ray_is_short_enough_for_its_sockets(monkeypatch, tmp_path):
    deep = tmp_path / ("d" * 80)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    made = Path(short_directory())
    made.rmdir()
    assert len(str(made)) <= LONGEST_TEMP_DIR + 20


# Stopping

FAMILY = """
import subprocess, sys, time
# A grandchild in a session of its own that ignores polite requests, as an orphaned engine might.
code = '''
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
'''
subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
time.sleep(60)
"""
STOPPER = """
import sys, time, psutil
from pathlib import Path
from sspo_verl.quickstart import processes
processes.SECONDS_TO_END = dict.fromkeys(processes.SECONDS_TO_END, 2.0)
log = Path(sys.argv[1])
child = processes.Child([sys.executable, "-c", sys.argv[2]], {}, log)
while "up" not in log.read_text():
    time.sleep(0.05)
assert len(psutil.Process().children(recursive=True)) == 2
child.stop()
print("left:", psutil.Process().children(recursive=True), "code:", child.poll())
"""


def test_stop_leaves_nothing_behind(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", STOPPER, str(tmp_path / "log"), FAMILY],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parent.parent,
        check=False,
    )
    assert done.stdout == f"left: [] code: {-signal.SIGINT}\n", done.stderr


# The end


def finished_run(path: Path, with_segments: bool = True) -> RunDir:
    run = RunDir(path)
    rows = {0: {"val-core/sums/acc/mean@1": 0.15}}
    for step in range(1, 5):
        rows[step] = step_row(step)
        if with_segments:
            rows[step]["sspo/segments_per_response"] = 7.0
    rows[4]["val-core/sums/acc/mean@1"] = 0.95
    write_rows(run.new_attempt() / "metrics.jsonl", rows)
    fake_checkpoint(run, 4)
    problems = [("1+1+1+1=", "4", 1.0, 1.0), ("7+8+5+5=", "25", 0.0, 1.0), ("9+9+9+9=", "36", 0.0, 0.0)]
    run.validation.mkdir()
    for step, column in ((0, 2), (4, 3)):
        entries = [
            {"input": p[0], "output": f"ok\n#### {p[1] if p[column] else '0'}", "score": p[column]} for p in problems
        ]
        (run.validation / f"{step}.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries))
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
    text = summary.render(summary.collect(run.rows()), run, "sspo", {"model": 40.0, "training": 80.0})
    assert "15.0 % → 95.0 %  (+80.0 points)" in text
    assert "0.25 % of tokens (highest step: 0.40 %)" in text
    assert "2:00  (model 0:40, training 1:20)" in text
    assert "7+8+5+5=ok      7+8+5+5=ok\n    #### 0          #### 25" in text
    for name in ("global_step_4/actor/huggingface", "metrics.jsonl", "curve.png", "attempts/1/verl.log"):
        assert name in text


def test_summary_says_what_was_not_measured(tmp_path):
    run = finished_run(tmp_path, with_segments=False)
    text = summary.render(summary.collect(run.rows()), run, "grpo", {})
    assert f"segments per response  {summary.NOT_LOGGED}\n" in text
    text = summary.render(summary.collect({}), RunDir(tmp_path / "empty"), "sspo", {})
    assert text.count(summary.NOT_LOGGED) >= 5
    once = summary.collect({0: {"val-core/sums/acc/mean@1": 0.15}})
    assert (once["accuracy_first"], once["accuracy_last"]) == (0.15, None)


def test_summary_lists_the_warnings_with_advice(tmp_path):
    run = finished_run(tmp_path)
    assert f"warnings               {summary.NOT_LOGGED}\n" in summary.render(
        summary.collect(run.rows()), run, "sspo", {}
    )
    rows = {step: {f"sspo/warning/{sign}": 0.0 for sign in SIGNS} for step in range(1, 5)}
    assert "warnings               none\n" in summary.render(summary.collect(rows), run, "sspo", {})
    rows[2]["sspo/warning/one_band"] = rows[4]["sspo/warning/one_band"] = 1.0
    text = summary.render(summary.collect(rows), run, "sspo", {})
    assert "One band of entropy holds all segments: at 2 of 4 steps\n" in text
    assert SIGNS["one_band"].advice in " ".join(text.split())
    assert "Much is clipped" not in text
    assert all(len(line) <= 110 for line in text.splitlines() if "entropy" in line)


def test_publish_writes_metrics_curve_and_numbers(tmp_path):
    run = finished_run(tmp_path)
    cli.publish(run)
    assert read.read(run.metrics).rows == run.rows()
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
    curve.write("sspo", rows, tmp_path / "c.png", "title")
    assert ("sspo", [2], [50.0]) in drawn  # accuracy in percent
    assert ("sspo", [1, 2], [0.1, 0.2]) in drawn  # clip fraction in percent
    assert len(drawn) == 3  # entropy was not measured
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_a_failure_is_explained(tmp_path, capsys):
    run = RunDir(tmp_path)
    fake_checkpoint(run, 10)
    file = run.new_attempt() / "verl.log"
    file.write_text("Training Progress: 1%\nRuntimeError: all is lost\n")
    job = settings.Job(run, tmp_path, tmp_path, "sspo", "cpu", (), 10.0)
    assert cli.explain_failure(job, Failed("verl ended with exit code -9", -9, file)) == 137
    err = capsys.readouterr().err
    for text in ("RuntimeError: all is lost", str(file.name), "out of memory", "go on from the checkpoint of step 10"):
        assert text in err


def test_recipe_asks_for_what_the_task_and_the_model_have():
    from sspo_verl.quickstart.training import Job

    recipes = Path(__file__).parent.parent / "recipes"
    job = Job(RunDir(Path("/r")), Path("/s"), recipes, "gspo", "cpu", ("trainer.total_training_steps=7",), 10.0)
    config = settings.compose(job)
    assert not job.recipe_environment().keys() & os.environ.keys(), "other recipes of this process would read it, too"
    assert config["trainer"]["default_local_dir"] == "/r/checkpoints"
    assert config["trainer"]["total_training_steps"] == 7
    assert config["trainer"]["device"] == "cpu"
    assert config["actor_rollout_ref"]["model"]["path"] == "/s/model"
    assert config["actor_rollout_ref"]["actor"]["policy_loss"]["loss_mode"] == "gspo"
    assert config["data"]["max_response_length"] == warm_up.LONGEST_SOLUTION
    updates = config["data"]["train_batch_size"] / config["actor_rollout_ref"]["actor"]["ppo_mini_batch_size"]
    assert updates == 4
    with pytest.raises(ValueError, match="does not accept"):
        settings.compose(Job(job.run, job.start, recipes, "sspo", "cpu", ("trainer.no_such_key=1",), 10.0))


def test_script_is_sound():
    script = Path(__file__).parent.parent / "scripts" / "quickstart.sh"
    subprocess.run(["bash", "-n", script], check=True)
    assert textwrap.dedent(script.read_text()).count("sspo_verl.quickstart") == 1


def training_job(path: Path, stall_minutes: float = 10.0) -> settings.Job:
    return settings.Job(RunDir(path / "run"), path / "start", path, "sspo", "cpu", (), stall_minutes)


def play_verl(monkeypatch, code: str) -> list:
    """Let `code` stand where verl stands; returns the list that what is shown goes to."""
    from sspo_verl.quickstart import training

    monkeypatch.setattr(training.Job, "command", lambda self: [sys.executable, "-c", code])
    monkeypatch.setattr(training, "POLL_SECONDS", 0.05)
    return []


VERL = """
import json, os, time
print("Started a local Ray instance.", flush=True)
time.sleep(0.3)
print("Training Progress: 0/3", flush=True)
with open(os.environ["VERL_FILE_LOGGER_PATH"], "w") as file:
    for step in range(4):
        file.write(json.dumps({"step": step, "data": {"actor/entropy": 0.1 * step}}) + "\\n")
        file.flush()
        time.sleep(0.2)
time.sleep(1)
print(os.environ["SSPO_RUN_DIR"], os.environ["OMP_NUM_THREADS"], os.path.isdir(os.environ["SSPO_RAY_DIR"]))
"""


def test_training_is_watched_to_its_end(monkeypatch, tmp_path):
    seen, job = play_verl(monkeypatch, VERL), training_job(tmp_path)
    with hold(tmp_path / "lock") as lock:
        seconds = train(job, progress.Forecast(3, 10), lock.fileno(), seen.append)
    assert seen[0].phase == log.FIRST_PHASE
    steps = [s.done for s in seen]
    assert steps == sorted(steps)
    assert steps[-1] == 3
    assert seen[-1].facts == ("entropy 0.30",)
    assert set(seconds) == {"start-up", "training"}
    assert seconds["training"] > 0.5
    attempt = job.run.attempts_dir / "1"
    assert (attempt / "verl.log").read_text().endswith(f"{job.run.path} 1 True\n")


def test_an_exit_code_is_handed_on(monkeypatch, tmp_path):
    seen = play_verl(monkeypatch, "import sys; print('ValueError: no such key'); sys.exit(3)")
    with hold(tmp_path / "lock") as lock, pytest.raises(Failed, match="exit code 3") as caught:
        train(training_job(tmp_path), progress.Forecast(3, 10), lock.fileno(), seen.append)
    assert caught.value.exit_code == 3
    assert caught.value.log_text == "ValueError: no such key\n"


def test_a_run_that_says_nothing_any_more_is_stopped(monkeypatch, tmp_path):
    seen = play_verl(monkeypatch, "import time; print('up', flush=True); time.sleep(60)")
    began = time.monotonic()
    with hold(tmp_path / "lock") as lock, pytest.raises(Failed, match="did not grow for") as caught:
        train(training_job(tmp_path, stall_minutes=0.01), progress.Forecast(3, 10), lock.fileno(), seen.append)
    assert time.monotonic() - began < 30
    assert "KeyboardInterrupt" not in caught.value.log_text
