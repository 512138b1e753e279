"""A run on disk (sspo_verl.tools.runs): metrics, attempts, lock, settings, verl's log, and its processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sspo_verl.tools.report import series
from sspo_verl.tools.runs import attempts, lock, metrics_file, verl_log
from sspo_verl.tools.runs.environment import LONGEST_TEMP_DIR, short_directory
from sspo_verl.tools.runs.folder import RunDir
from sspo_verl.tools.runs.lock import Busy, hold
from sspo_verl.tools.runs.main_ppo import MainPPO, started
from sspo_verl.tools.runs.ray_child import RayChild
from sspo_verl.tools.runs.recipe import algorithms, composed
from sspo_verl.tools.runs.settings import flatten, load, read, write


def write_rows(path: Path, rows: dict[int, dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"step": s, "data": d}) + "\n" for s, d in rows.items()))


# Metrics and attempts


def test_unreadable_lines_are_counted_and_named(tmp_path):
    good = '{"step": 1, "data": {"a": 1.5, "b": null, "c": "text", "d": "-Infinity"}}\n'
    other = '{"step": 2, "input": "1+1=", "score": 1.0}\n'  # of a rollout dump
    file = tmp_path / "m.jsonl"
    assert metrics_file.read(file) == ({}, []), "a run that has just begun"
    file.write_text(good + "{\n" + "\n" + other + '{"step": "x", "data": {}}\n[1]\n' + '{"step": 2, "da')
    reading = metrics_file.read(file)
    assert {step: {k: str(v) for k, v in row.items()} for step, row in reading.rows.items()} == {
        1: {"a": "1.5", "b": "nan", "d": "nan"}
    }
    assert reading.problems[0] == f"{file}: the last line (7) is incomplete and was left out"
    assert reading.problems[1] == f"{file}: 4 unreadable lines (2, 4, 5, 6) were left out"
    assert reading.problems[2] == f'{file}: line 5: its step is "x", which is not a whole number'
    assert reading.problems[3] == f"{file}: values that are not numbers were left out: c (text at 1 step)"
    good = good.replace('"text"', "1")
    file.write_text("{\n" * 7 + good)
    assert metrics_file.read(file).problems == [f"{file}: 7 unreadable lines (1, 2, 3, 4, 5, ...) were left out"]
    file.write_text("{\n" + good)
    assert metrics_file.read(file).problems == [f"{file}: 1 unreadable line (1) was left out"]


def test_a_last_line_without_its_end_counts_if_it_is_complete(tmp_path):
    file = tmp_path / "m.jsonl"
    file.write_text('{"step": 1, "data": {"a": 1}}\n{"step": 2, "data": {"a": NaN, "b": 2}}')
    reading = metrics_file.read(file)
    assert reading.problems == []
    assert (reading.rows[1], reading.rows[2]["b"], reading.rows[2].keys()) == ({"a": 1.0}, 2.0, {"a", "b"})


def test_a_line_ends_at_a_line_break_and_nowhere_else(tmp_path):
    """Names may hold what str.splitlines() takes for one, and some editors begin a file with a byte order mark."""
    name = "val-core/a\u2028b\u2029\x85\v\f\x1c/acc/mean@1"
    lines = [json.dumps({"step": step, "data": {name: 0.5}}, ensure_ascii=False) for step in range(3)]
    file = tmp_path / "m.jsonl"
    file.write_text("\ufeff" + "\r\n".join(lines) + "\r\n", newline="")
    assert metrics_file.read(file) == ({step: {name: 0.5} for step in range(3)}, [])
    assert metrics_file.is_metrics_file(file)
    assert series.points(metrics_file.read(file).rows, "accuracy") == [(step, 0.5) for step in range(3)]


def test_merge_keeps_everything_and_prefers_the_later_attempt(tmp_path):
    write_rows(tmp_path / "1", {0: {"val": 0.1}, 1: {"a": 1.0}, 2: {"a": 2.0, "val": 0.2}, 3: {"a": 3.0}})
    # Resumed from step 2: its first row holds the validation only.
    write_rows(tmp_path / "2", {2: {"val": 0.25}, 3: {"a": 30.0}, 4: {"a": 40.0}})
    merged = metrics_file.merge(map(metrics_file.read, [tmp_path / "1", tmp_path / "2"])).rows
    assert merged == {0: {"val": 0.1}, 1: {"a": 1.0}, 2: {"a": 2.0, "val": 0.25}, 3: {"a": 30.0}, 4: {"a": 40.0}}
    metrics_file.write(merged, tmp_path / "all.jsonl")
    assert metrics_file.read(tmp_path / "all.jsonl").rows == merged


def attempts_of(run: Path, *each: dict[int, dict]) -> tuple[dict[int, dict], list[str]]:
    for number, rows in enumerate(each, 1):
        write_rows(run / "attempts" / str(number) / "metrics.jsonl", rows)
    return attempts.read(run)


def trained(attempt: int, *steps: int) -> dict[int, dict]:
    return {step: {"critic/score/mean": attempt + step / 100} for step in steps}


def validated(attempt: int, step: int) -> dict[int, dict]:
    return {step: {"val-core/x/acc/mean@1": attempt + step / 100}}


def test_what_an_attempt_trained_beyond_the_checkpoint_is_not_the_runs(tmp_path):
    """And where an attempt begins with a training step, that step is another one, too."""
    first = trained(1, *range(1, 9)) | {5: {"critic/score/mean": 1.05, "val-core/x/acc/mean@1": 1.05}}
    rows, problems = attempts_of(tmp_path / "a", first, validated(2, 4) | trained(2, 5))
    assert rows == trained(1, 1, 2, 3) | {4: trained(1, 4)[4] | validated(2, 4)[4]} | trained(2, 5)
    said = "{0}/attempts/1: 4 steps (5 to 8) were left out: {0}/attempts/2 resumed from step 4 and continued from there"
    assert problems == [said.format(tmp_path / "a")]
    rows, problems = attempts_of(tmp_path / "b", first, trained(2, 5))  # no validation before training
    assert rows == trained(1, 1, 2, 3, 4) | trained(2, 5)
    assert problems == [said.format(tmp_path / "b")]
    rows, problems = attempts_of(tmp_path / "c", first, validated(2, 0))
    assert rows == validated(2, 0)
    assert "/1: 8 steps (1 to 8) were left out" in problems[0]
    assert "/2 started over and continued from there" in problems[0]


def test_attempts_that_lose_nothing_are_merged_without_a_word(tmp_path):
    """verl saves the checkpoint of a step before it writes the step's metrics, and validates a finished run."""
    whole = trained(1, 1, 2, 3, 4)
    for name, each, last in (
        ("killed after the checkpoint", [whole, validated(2, 5) | trained(2, 6)], 6),
        ("at the checkpoint", [whole, validated(2, 4) | trained(2, 5)], 5),
        ("without validation", [whole, trained(2, 5, 6)], 6),
        ("nothing measured", [whole, {}, trained(3, 5)], 5),
        ("only validated", [whole, validated(2, 4)], 4),
        ("validated again", [validated(1, 0) | whole, validated(2, 4), validated(3, 4)], 4),
    ):
        rows, problems = attempts_of(tmp_path / name, *each)
        assert problems == [], name
        assert max(rows) == last, name
        assert rows.keys() == set().union(*each), name


def test_an_attempt_follows_the_one_that_came_to_its_checkpoint(tmp_path):
    rows, problems = attempts_of(
        tmp_path / "a", trained(1, *range(1, 9)), validated(2, 0), validated(3, 8) | trained(3, 9)
    )
    assert rows == trained(1, *range(1, 8)) | {8: trained(1, 8)[8] | validated(3, 8)[8]} | trained(3, 9)
    assert len(problems) == 1
    assert "/attempts/2: 1 step (0) was left out" in problems[0]
    rows, problems = attempts_of(
        tmp_path / "b", trained(1, *range(1, 9)), validated(2, 4) | trained(2, 5, 6), trained(3, 3)
    )
    assert rows == trained(1, 1, 2) | trained(3, 3)
    assert [problem.partition(" resumed")[0] for problem in problems] == [
        "{0}/attempts/1: 6 steps (3 to 8) were left out: {0}/attempts/2".format(tmp_path / "b"),
        "{0}/attempts/2: 3 steps (4 to 6) were left out: {0}/attempts/3".format(tmp_path / "b"),
    ]


def test_attempts_behind_each_other_in_one_file_are_attempts(tmp_path):
    file = tmp_path / "m.jsonl"
    parts = [trained(1, *range(1, 9)), validated(2, 4) | trained(2, 5, 6), trained(3, 3, 4)]
    for number, part in enumerate(parts):
        write_rows(tmp_path / str(number), part)
    file.write_text("".join((tmp_path / str(number)).read_text() for number in range(3)))
    reading = metrics_file.read(file)
    assert reading.rows == trained(1, 1, 2) | trained(3, 3, 4)
    assert len(reading.problems) == 2
    assert f"{file}, line 9 on: 3 steps (4 to 6) were left out: {file}, line 12 on resumed" in reading.problems[1]
    write_rows(file, {5: {"a": 5}, 3: {"a": 3}, 4: {"a": 4}})  # in no order, but each step once
    assert metrics_file.read(file) == ({3: {"a": 3.0}, 4: {"a": 4.0}, 5: {"a": 5.0}}, [])


def test_a_number_too_large_for_a_float_is_not_finite(tmp_path):
    file = tmp_path / "m.jsonl"
    for number in ("9" * 400, "-" + "9" * 400, "9" * 5000, "1e400", "1e305", "123456789" * 40):
        file.write_text('{"step": 1, "data": {"b": 1, "a": ' + number + "}}\n")
        row = metrics_file.read(file).rows[1]
        assert (str(row["a"]), row["b"]) == ("nan", 1.0), number
        assert metrics_file.is_metrics_file(file)
    file.write_text('{"step": 1, "data": {"a": 12345678901234567890}}\n')
    assert metrics_file.read(file).rows == {1: {"a": 12345678901234567890.0}}


def test_a_step_is_a_whole_number_however_it_is_written(tmp_path):
    file = tmp_path / "m.jsonl"
    file.write_text('{"step": 1.0, "data": {"a": 1}}\n{"step": 2e0, "data": {"a": 2}}\n')
    assert metrics_file.read(file) == ({1: {"a": 1.0}, 2: {"a": 2.0}}, [])
    for step, said in (
        ('"1"', 'its step is "1", which is not a whole number'),
        ("1.5", "its step is 1.5, which"),
        ("NaN", "its step is NaN, which"),
        ("true", "its step is true, which"),
        ("null", "its step is null, which"),
        ("[1]", "its step is [1], which"),
        ("1" * 5000, "its step is Infinity, which"),
        ("1" + "0" * 30, "its step is too large to be one"),
    ):
        file.write_text('{"step": 1, "data": {"a": 1}}\n{"data": {"a": 2}, "step": ' + step + "}\n")
        reading = metrics_file.read(file)
        assert reading.rows == {1: {"a": 1.0}}
        assert reading.problems[0] == f"{file}: 1 unreadable line (2) was left out"
        assert reading.problems[1].startswith(f"{file}: line 2: {said}"), step
    file.write_text('{"step": 1, "data": [1]}\n')
    assert metrics_file.read(file).problems[1] == f"{file}: line 1: its data is not a mapping from names to numbers"


def test_values_that_are_no_numbers_are_left_out_and_named(tmp_path):
    file = tmp_path / "m.jsonl"
    write_rows(file, {1: {"a": "0.5", "b": [1], "c": {}, "d": " -Infinity", "e": 1}, 2: {"a": "0.6", "e": 2}})
    reading = metrics_file.read(file)
    assert reading.rows[2] == {"e": 2.0}
    assert str(reading.rows[1]) == "{'d': nan, 'e': 1.0}"
    said = "a (text at 2 steps), b (a list at 1 step), c (a mapping at 1 step)"
    assert reading.problems == [f"{file}: values that are not numbers were left out: {said}"]


def test_attempts_are_numbered_and_never_reused(tmp_path):
    run = RunDir(tmp_path)
    assert not attempts.have_metrics(tmp_path)
    attempted = [run.new_attempt() for _ in range(11)]
    assert [attempt.name for attempt in attempted] == [str(n) for n in range(1, 12)]
    assert run.attempts() == attempted
    write_rows(attempted[8] / "metrics.jsonl", {3: {"a": 9.0}})
    write_rows(attempted[9] / "metrics.jsonl", {3: {"a": 10.0}})
    assert attempts.have_metrics(tmp_path)
    assert run.rows() == {3: {"a": 10.0}}  # 10 comes after 9
    assert attempts.run_of(attempted[0]) == tmp_path
    assert attempts.run_of(tmp_path) is None


# Lock and settings


def test_a_lock_that_outlives_its_process_names_one_that_can_be_stopped(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    for living, said in (
        (str(os.getpid()), rf"process {os.getpid()}, which process {gone.pid} started"),
        ("", "which has"),
    ):
        with hold(tmp_path / "lock") as file:
            file.truncate(0)
            os.write(file.fileno(), f"{gone.pid} ".encode())
            if living:
                lock.add(file.fileno(), int(living))
            with pytest.raises(Busy, match=said):
                hold(tmp_path / "lock")


def test_a_folder_is_held_by_one_process(tmp_path):
    with hold(tmp_path / "lock"), pytest.raises(Busy, match=rf"another process \({os.getpid()}\) is using"):
        hold(tmp_path / "lock")
    hold(tmp_path / "lock").close()


def test_settings_are_flat_and_read_as_they_were_written(tmp_path):
    assert read(tmp_path) == ({}, [])
    flat = flatten({"a": {"b": 1, "c": {}}, "d": [{"e": 1}], "f": None})
    assert flat == {"a.b": 1, "a.c": {}, "d": [{"e": 1}], "f": None}
    write({**flat, "path": tmp_path}, tmp_path)
    assert load(tmp_path / "settings.json") == {**flat, "path": str(tmp_path)}
    assert read(tmp_path) == (load(tmp_path / "settings.json"), [])
    for other in ("[1]", "5"):
        (tmp_path / "settings.json").write_text(other)
        with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'settings.json'} holds no settings by name")):
            load(tmp_path / "settings.json")


def test_algorithms_are_those_that_hydra_finds():
    assert algorithms() == ["grpo", "gspo", "gspo_wide", "sspo", "sspo_length", "sspo_no_entropy_clip", "sspo_turn"]


def test_a_recipe_is_composed_with_variables_that_do_not_stay(tmp_path):
    (tmp_path / "small.yaml").write_text("a: ${oc.env:SSPO_TEST_VARIABLE,unset}\n")
    assert composed(tmp_path, "small", [], {"SSPO_TEST_VARIABLE": "set"}).a == "set"
    assert composed(tmp_path, "small", []).a == "unset"
    with pytest.raises(ValueError, match="Hydra does not accept these settings"):
        composed(tmp_path, "small", ["no_such_key=1"])


@pytest.mark.parametrize(
    ("override", "added"),
    [
        ("data.chat={tokenize:true}", "\ndata.chat has no key tokenize: only an override with + adds one (+data.chat."),
        ("data.chat.tokenize=true", "\ndata.chat has no key tokenize: only an override with + adds one (+data.chat."),
        ("data={lenght:1}", "\nDid you mean length?"),
        ("data.lenght=1", "\nDid you mean length?"),
        ("dta.length=1", "\nDid you mean data?"),
        ("data.length.x=1", "+data.length.x=1"),
    ],
)
def test_a_key_that_hydra_does_not_know_is_explained(tmp_path, override, added):
    (tmp_path / "small.yaml").write_text("data:\n  length: 1\n  chat: {}\n")
    with pytest.raises(ValueError, match=re.escape(added)) as error:
        composed(tmp_path, "small", [override])
    assert "mean chat" not in str(error.value)
    assert composed(tmp_path, "small", ["+data.chat.tokenize=true"]).data.chat.tokenize


# verl's log

LOG = """\
2026-01-01 00:00:00,000 INFO worker.py:2038 -- Started a local Ray instance.
\x1b[36m(TaskRunnerV1 pid=7)\x1b[0m INFO:x:create worker group dict_keys(['actor_rollout'])
\x1b[36m(TaskRunnerV1 pid=7)\x1b[0m INFO:x:actor and ref model engine initialized
"""


def test_phases_are_read_as_the_log_grows(tmp_path):
    file = tmp_path / "verl.log"
    reader = verl_log.LogReader(file)
    assert not reader.poll()
    assert reader.phase == verl_log.FIRST_PHASE
    lines = LOG.splitlines(keepends=True)
    file.write_text(lines[0] + lines[1][:30])  # cut in the middle of a line
    assert reader.poll()
    assert reader.phase == "loading verl's trainer"
    file.write_text(LOG)
    reader.poll()
    assert reader.phase == "starting the sampler (vLLM)"
    assert not reader.poll()
    # tqdm has not ended its line; and a phase that was left does not come back.
    for more in (
        "x all initialize finished, ready to fit\nTraining Progress:   0%|  | 0/30\r",
        "create worker group\n",
    ):
        with file.open("a") as out:
            out.write(more)
        reader.poll()
        assert reader.phase == verl_log.LEARNING


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
    lines = verl_log.useful_lines(text, before=2, after=1)
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1:] == ['  File "x.py", line 1, in f', "ValueError: the key is wrong", "\tpid: 9"]
    assert verl_log.useful_lines("a\nb\n") == ["a", "b"]
    assert verl_log.useful_lines("") == []


def test_the_first_error_is_shown_too_where_it_is_another_one():
    mine = "(RewardLoopWorker pid=5) KeyError: 'gold'\n"
    trace = '(RewardLoopWorker pid=5)   File "reward.py", line 3, in compute_score\n'
    text = "start\n" * 9 + trace + mine + "more\n" * 30 + mine * 2 + "x\n" * 30 + "RuntimeError: no groups\n"
    lines = verl_log.useful_lines(text, before=2)
    assert lines[-6:-4] == ['  File "reward.py", line 3, in compute_score', "KeyError: 'gold'    (3 times in the log)"]
    assert lines[-4:] == ["...", "x", "x", "RuntimeError: no groups"]
    assert verl_log.useful_lines(mine + "x\n" * 30 + mine, before=1) == ["x", "KeyError: 'gold'"]


def test_a_report_with_the_same_numbers_is_no_progress(tmp_path):
    reader = verl_log.LogReader(tmp_path / "log")

    def says(text: str) -> bool:
        with (tmp_path / "log").open("a") as file:
            file.write(text)
        return reader.poll()

    report = "\x1b[36m(TaskRunner pid=7)\x1b[0m pending: {}, running: 16, finished: 0, failure: 0\n"
    assert not reader.poll()
    assert says("Training Progress: 0/12")  # without an end of line, as progress bars have it
    assert not reader.poll()
    assert says(report.format(3))
    assert not says(report.format(3))
    assert not says(report.format(3) * 2)
    assert says(report.format(2))
    assert says("anything\n" + report.format(2))
    assert not says(report.format(2))
    assert reader.waiting == "pending: 2, running: 16, finished: 0, failure: 0"


def test_advice():
    for text, code, said in (
        ("ray.exceptions.OutOfMemoryError: Task was killed", 1, "memory"),
        ("OSError: [Errno 28] No space left on device", 1, "disk"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried", 1, "GPU"),
        ("", -9, "was killed (SIGKILL). If nobody did that, the machine ran out of memory"),
        ("EngineDeadError: x\nAssertionError: data size must be divisible by", 1, "vLLM's engine died"),
        ("RuntimeError: groups with no materializable trajectories. Enable", 1, "the first error above"),
        ("ray.exceptions.ActorDiedError: The actor died", 1, "killed from outside"),
    ):
        assert said in (verl_log.advice(text, code) or ""), text
    assert verl_log.advice("ValueError: no", 1) is None


# Processes


def test_the_directory_for_ray_is_short_enough_for_its_sockets(monkeypatch, tmp_path):
    deep = tmp_path / ("d" * 80)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    folder = Path(short_directory())
    folder.rmdir()
    assert len(str(folder)) <= LONGEST_TEMP_DIR + 20


def test_a_start_is_guarded_by_secrets_of_its_own(monkeypatch, tmp_path):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)

    def environment(*overrides):
        return MainPPO(tmp_path, "r", overrides, "cpu").environment(RunDir(tmp_path), tmp_path, tmp_path)

    first, second = environment(), environment()
    assert first["RAY_AUTH_MODE"] == "token"
    assert first["SSPO_QUEUE_ADDRESS"] == "127.0.0.1"
    for name in ("RAY_AUTH_TOKEN", "SSPO_QUEUE_SECRET"):
        assert len(first[name]) >= 48
        assert first[name] != second[name]
    joined = environment("+ray_kwargs.ray_init.address=auto")  # a cluster has guards of its own, or none
    assert not {"RAY_AUTH_TOKEN", "SSPO_QUEUE_SECRET", "SSPO_QUEUE_ADDRESS"} & joined.keys()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/my/token")
    assert "RAY_AUTH_TOKEN" not in environment()


def test_ray_has_a_minute_to_start_its_node_unless_the_user_says_otherwise(monkeypatch, tmp_path):
    def wait() -> str:
        job = MainPPO(tmp_path, "r", (), "cpu")
        return job.environment(RunDir(tmp_path), tmp_path, tmp_path)["RAY_raylet_start_wait_time_s"]

    monkeypatch.delenv("RAY_raylet_start_wait_time_s", raising=False)
    assert wait() == "60"
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "20")
    assert wait() == "20"


@pytest.mark.parametrize(("failures", "code", "starts"), [(0, 0, 1), (2, 0, 3), (9, 1, 3)])
def test_ray_is_started_again_if_its_node_did_not_start_in_time(tmp_path, failures, code, starts):
    script = f"""if [[ $(wc -l <{tmp_path}/starts) -lt {failures} ]]; then
        echo >>{tmp_path}/starts; echo 'Exception: The current node timed out during startup. This could ...'; exit 1
    fi; echo trained"""
    (tmp_path / "starts").touch()
    with hold(tmp_path / "lock") as held:
        child = RayChild(["bash", "-c", script], dict(os.environ), tmp_path / "log", (held.fileno(),))
        ended = child.wait()
        child.stop()
        assert len((tmp_path / "lock").read_text().split()) == 1 + starts
    text = (tmp_path / "log").read_text()
    assert (ended, child.starts, text.count("Starting again")) == (code, starts, starts - 1)
    assert text.endswith("trained\n") == (code == 0)


def test_another_error_is_not_tried_again(tmp_path):
    script = "echo The current node timed out during startup; for n in {1..999}; do echo another line; done; exit 3"
    child = RayChild(["bash", "-c", script], dict(os.environ), tmp_path / "log")
    assert (child.wait(), child.starts) == (3, 1)


def test_the_log_of_an_earlier_start_is_not_the_last_ones(tmp_path):
    script = f"""if mkdir {tmp_path}/again; then echo 'Exception: The current node timed out during startup.'; exit 1
    else echo another error; exit 3; fi"""
    child = RayChild(["bash", "-c", script], dict(os.environ), tmp_path / "log")
    assert (child.wait(), child.starts) == (3, 2)
    assert "timed out" in (tmp_path / "log").read_text()
    assert verl_log.advice("The current node timed out during startup", 1) is not None
    assert verl_log.advice(child.text(), 3) is None


def test_verl_gets_a_folder_and_an_environment_of_its_own(monkeypatch, tmp_path):
    code = "import os; print(*(os.environ.get(name) for name in 'A OMP_NUM_THREADS VERL_FILE_LOGGER_PATH'.split()))"
    code += "; ray, tmp = os.environ['SSPO_RAY_DIR'], os.environ['TMPDIR']"
    code += "; print(os.path.isdir(ray), os.path.isdir(tmp), oct(os.stat(os.path.dirname(ray)).st_mode)[-3:], ray)"
    monkeypatch.setattr(MainPPO, "command", lambda self: [sys.executable, "-c", code])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for number, platform, threads in ((1, "cpu", "1"), (2, "gpu", "None")):
        job = MainPPO(tmp_path, "r", ("x=1",), platform, {"A": "a"})
        with started(job, RunDir(tmp_path)) as attempt:
            assert attempt.folder == tmp_path / "attempts" / str(number)
            assert attempt.wait(900) == 0
            first, second = attempt.log.read_text().splitlines()
        assert first == f"a {threads} {attempt.metrics}"
        *private, ray_dir = second.split()
        assert private == ["True", "True", "700"]  # Ray opens the folder that it is given, not the one around it
        assert not Path(ray_dir).exists()
    monkeypatch.undo()
    assert job.command()[1:] == [
        "-m",
        "verl.trainer.main_ppo",
        "--config-path",
        str(tmp_path),
        "--config-name",
        "r",
        "x=1",
    ]


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
from sspo_verl.tools.runs import processes
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
    command = [sys.executable, "-c", STOPPER, str(tmp_path / "log"), FAMILY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=Path(__file__).parents[2])
    assert done.stdout == f"left: [] code: {-signal.SIGINT}\n", done.stderr


MORTAL = """
import signal, subprocess, sys, time
child = "import signal, time; from sspo_verl.tools.runs.prctl import end_with_parent; "
child += "end_with_parent(signal.SIGKILL); print('ready', flush=True); time.sleep(60)"
process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True)
process.stdout.readline()
print(process.pid, flush=True)
"""


def test_a_child_ends_with_its_parent():
    done = subprocess.run([sys.executable, "-c", MORTAL], stdout=subprocess.PIPE, text=True, timeout=900, check=True)
    status = Path(f"/proc/{int(done.stdout)}/status")
    deadline = time.monotonic() + 10
    while status.exists() and "State:\tZ" not in status.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not status.exists() or "State:\tZ" in status.read_text()
