"""recipes/qwen2_5_math_1_5b for real, shrunk in size alone: two steps of two algorithms on problems of MATH."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import small_math
from click.testing import CliRunner
from logged_metrics import always_logged

from sspo_verl.tools.report.command import command as report
from sspo_verl.tools.report.runs import read_run
from sspo_verl.tools.runs.folder import RunDir

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

RECIPE = "qwen2_5_math_1_5b"
ALGORITHMS = ("sspo", "grpo")  # ours, and one of verl's: its gspo goes the same way through verl
AT_A_TIME = 1  # a run takes 6 GiB, and another file's may be under way
MINUTES = 20  # a limit for slow and busy machines; some 3 on an idle one
# Nothing but sizes and numbers of processes: what is not named here is the recipe's.
SMALL = (
    "platform=cpu",
    "trainer.n_gpus_per_node=1",
    "trainer.total_training_steps=2",
    "trainer.val_before_train=false",
    "trainer.test_freq=2",
    "trainer.save_freq=2",
    f"data.max_prompt_length={small_math.PROMPT_TOKENS}",
    f"data.max_response_length={small_math.RESPONSE_TOKENS}",
    "data.train_batch_size=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=2",
    "actor_rollout_ref.rollout.max_num_seqs=32",
    "actor_rollout_ref.rollout.agent.num_workers=1",
    "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=16",
    "reward.num_workers=1",
    "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """The run folders, named by the recipe itself."""
    folder = tmp_path_factory.mktemp("recipe")
    small_math.make(folder)
    folders = {name: folder / "runs" / RECIPE / f"{name}-1" for name in ALGORITHMS}
    waiting, going = list(ALGORITHMS), {}
    try:
        while waiting or going:
            while waiting and len(going) < AT_A_TIME:
                name = waiting.pop(0)
                going[name] = _start(folder, name, folders[name])
            name, process = next(iter(going.items()))
            code = process.wait(timeout=60 * (MINUTES + 1))
            del going[name]
            log = (folders[name] / "attempts" / "1" / "verl.log").read_text()
            assert code == 0, f"{name} ended with {code} (124: not within {MINUTES} minutes)\n{log[-4000:]}"
    finally:
        for process in going.values():
            process.terminate()
        for process in going.values():
            process.wait()
    return folders


def _start(folder: Path, name: str, run: Path) -> subprocess.Popen:
    job = {
        "recipe": RECIPE,
        "overrides": [*SMALL, f"algorithm={name}"],
        # SSPO_RUN_DIR is not set: the folder below is the one that the recipe has to choose by itself.
        "variables": {"SSPO_DATA_DIR": str(folder / "data"), "SSPO_MODEL": str(folder / "model")},
        "run": str(run),
        "minutes": MINUTES,
    }
    file = folder / f"{name}.json"
    file.write_text(json.dumps(job))
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).parents[1] / "lib" / "main_ppo_run.py"), str(file)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_steps_of_training_on_math(runs, algorithm):
    run = runs[algorithm]
    rows = RunDir(run).rows()
    assert sorted(rows) == [1, 2]
    log = (run / "attempts" / "1" / "verl.log").read_text()
    assert ("sspo_verl: policy loss sspo" in log) == algorithm.startswith("sspo")
    for row in rows.values():
        assert row["training/rollout_probs_diff_mean"] < 1e-4, "vLLM does not have the actor's weights"
        assert math.isfinite(row["actor/pg_loss"])
        assert row["actor/lr"] == 1e-6
        assert row["response_length/max"] <= small_math.RESPONSE_TOKENS
        assert row.keys() >= always_logged(algorithm)
        assert row["sspo/segments_per_response"] > 1.5, "responses of three lines"
    # The recipe's reward on the data's answers: some right, some wrong, and nothing else is a reason to learn.
    assert 0 < rows[1]["critic/score/mean"] < 1
    assert rows[1]["actor/grad_norm"] > 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_benchmark_is_validated_and_the_checkpoint_kept(runs, algorithm):
    row = RunDir(runs[algorithm]).rows()[2]
    validated = {name.split("/")[1] for name in row if name.startswith("val-core/") and "/acc/" in name}
    assert validated == set(small_math.EVALUATED)
    assert len((runs[algorithm] / "validation" / "2.jsonl").read_text().splitlines()) == 10
    checkpoint = runs[algorithm] / "checkpoints" / "global_step_2" / "actor"
    assert list(checkpoint.glob("model_world_size_1_rank_0.pt"))


def test_the_report_tells_them_apart(runs, tmp_path):
    assert [read_run(run)[0].label for run in runs.values()] == list(ALGORITHMS)
    done = CliRunner().invoke(report, [str(next(iter(runs.values())).parent), "--out", str(tmp_path / "report")])
    assert done.exit_code == 0, done.output
    assert list((tmp_path / "report").rglob("*.html"))
