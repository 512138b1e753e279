"""`python -m verl.trainer.main_ppo algorithm=sspo` for real: Ray, FSDP, vLLM, a checkpoint, and on from it."""

import json
import math
from pathlib import Path

import pytest
from logged_metrics import always_logged

from sspo_verl.plugin.cpu import has_accelerator_support
from sspo_verl.tools.quickstart import start
from sspo_verl.tools.quickstart.ask import main_ppo
from sspo_verl.tools.quickstart.run import Run
from sspo_verl.tools.runs.main_ppo import started as started_verl
from sspo_verl.tools.runs.platform import choose_platform

pytestmark = pytest.mark.e2e

LIB = Path(__file__).resolve().parents[1] / "lib"
MINUTES = 20  # a limit for slow and busy machines; some 3 on an idle one
# Small enough for minutes; a learning rate at which unsynced weights would show at once.
SMALL = (
    "data.train_batch_size=4",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.rollout.calculate_log_probs=true",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=2",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
    "actor_rollout_ref.actor.optim.lr=1e-3",
    "trainer.val_before_train=false",
    "trainer.test_freq=-1",
)


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> Path:
    """The quickstart's model and data."""
    folder = tmp_path_factory.mktemp("start")
    start.make(folder)
    return folder


def run_verl(started: Path, run: Path, *overrides: str) -> tuple[dict[int, dict], str]:
    """One run of main_ppo to its end; returns the metrics of its steps and its log."""
    reward = f"reward.custom_reward_function.path={LIB}/share_of_digits.py"
    job = main_ppo(Run(run), started, "sspo", choose_platform(), (*SMALL, reward, *overrides))
    with started_verl(job, Run(run)) as attempt:
        exit_code = attempt.wait(60 * MINUTES)
    text = attempt.log.read_text()
    assert exit_code == 0, (
        f"main_ppo ended with {exit_code} (None: still running after {MINUTES} minutes)\n{text[-4000:]}"
    )
    rows = [json.loads(line) for line in attempt.metrics.read_text().splitlines()]
    return {row["step"]: row["data"] for row in rows}, text


def assert_sspo_trained(steps: dict[int, dict], log: str) -> None:
    assert "sspo_verl: policy loss sspo" in log
    assert "sspo_verl: advantage estimator sspo" in log
    for step in steps.values():
        assert step["training/rollout_probs_diff_mean"] < 1e-4, "vLLM does not have the actor's weights"
        assert math.isfinite(step["actor/pg_loss"])
        assert step["actor/grad_norm"] > 0
        assert step["sspo/segments_per_response"] > 1
        assert step.keys() >= always_logged("sspo")


def tensorboard_scalars(folder: Path, step: int) -> dict[str, float]:
    """Our scalars in TensorBoard's event file."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    found = {
        tag: event.value
        for tag in events.Tags()["scalars"]
        for event in events.Scalars(tag)
        if event.step == step and tag.startswith("sspo/")
    }
    assert len(found) > 20
    return found


def test_train_save_resume_continue(started, tmp_path):
    first, log = run_verl(started, tmp_path, "trainer.total_training_steps=2", "trainer.save_freq=2")
    assert sorted(first) == [1, 2]
    assert_sspo_trained(first, log)
    checkpoint = tmp_path / "checkpoints" / "global_step_2"
    assert list(checkpoint.rglob("*.pt")), "no checkpoint was saved"

    second, log = run_verl(started, tmp_path, "trainer.total_training_steps=3", "trainer.save_freq=3")
    assert sorted(second) == [3], "the second run did not resume where the first one ended"
    assert_sspo_trained(second, log)
    assert (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").read_text() == "3"


@pytest.mark.slow
def test_two_ranks_fsdp1_reference_model_and_current_entropy(started, tmp_path, monkeypatch):
    """And every tracker at hand, and a rollout dump with its segments."""
    monkeypatch.setenv("TENSORBOARD_DIR", str(tmp_path / "tensorboard"))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    steps, log = run_verl(
        started,
        tmp_path,
        "trainer.n_gpus_per_node=2",
        "trainer.logger=[console,file,tensorboard,wandb]",
        "trainer.total_training_steps=2",
        "trainer.save_freq=-1",
        "actor_rollout_ref.actor.strategy=fsdp",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2",
        "actor_rollout_ref.actor.use_kl_loss=true",
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4",
        "+actor_rollout_ref.ref.fsdp_config.mixed_precision={param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}",
        "actor_rollout_ref.actor.policy_loss.entropy_source=current",
        "actor_rollout_ref.actor.policy_loss.dump_segments=64",
    )
    assert_sspo_trained(steps, log)
    assert sorted(steps) == [1, 2]
    assert steps[2]["actor/kl_loss"] > 0, "the policy moved away from the reference model"
    assert "entropy_source=current" in log

    for event_name, value in tensorboard_scalars(tmp_path / "tensorboard", step=2).items():
        assert value == pytest.approx(steps[2][event_name], rel=1e-6), event_name
    (wandb_file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    recorded = wandb_file.read_bytes()
    assert all(name.encode() in recorded for name in steps[2] if name.startswith("sspo/"))

    rows = [json.loads(line) for line in (tmp_path / "rollouts" / "2.jsonl").read_text().splitlines()]
    segments = sum(row["sspo_segments"] for row in rows)
    assert segments / len(rows) == steps[2]["sspo/segments_per_response"]
    clipped = sum(clip != 0 for row in rows for clip in row["sspo_segment_clip"])
    assert clipped / segments == pytest.approx(steps[2]["sspo/segment_clipfrac/all"])
    entropies = [h for row in rows for h in row["sspo_segment_entropy"]]
    assert sum(entropies) / segments == pytest.approx(steps[2]["sspo/segment_entropy/mean"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(has_accelerator_support(), reason="the transfer of weights is the CPU platform's")
def test_a_sampler_of_its_own_gets_the_weights_of_each_step(started, tmp_path):
    """separate_async with nothing sampled ahead: the weights that sampled a step are those of its old_log_prob, and the
    second of its two updates has ratios that are not 1. From step 2 on no other sampler is at work."""
    steps, log = run_verl(
        started,
        tmp_path,
        "trainer.v1.trainer_mode=separate_async",
        "trainer.v1.separate_async.parameter_sync_step=2",
        "trainer.v1.separate_async.num_warmup_batches=0",
        "actor_rollout_ref.rollout.nnodes=1",
        "actor_rollout_ref.rollout.n_gpus_per_node=1",
        "actor_rollout_ref.rollout.checkpoint_engine.backend=cpu_file",
        "ray_kwargs.ray_init.num_gpus=2",
        "trainer.total_training_steps=2",
        "trainer.save_freq=-1",
    )
    assert sorted(steps) == [1, 2]
    assert_sspo_trained(steps, log)
    for step in steps.values():
        assert step["sspo/ratio/min"] < 1 < step["sspo/ratio/max"], "old_log_prob is by the weights in training"
        assert "sspo/clipfrac_by_update/sspo/to_2" in step
