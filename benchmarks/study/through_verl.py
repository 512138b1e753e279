"""Experiment: a training like `train`, through real verl (Ray, FSDP, vLLM), on the quickstart's recipe.

The same starting model, problems, batch, updates, rate and steps; other random numbers. A verl run takes minutes and
6 GiB of memory, so it is run in one process and for one or two conditions.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.study.losses import Algorithm
from benchmarks.study.warm_up import start
from sspo_verl.tools.quickstart import model as hugging_face
from sspo_verl.tools.quickstart import tokenizer as byte_tokenizer
from sspo_verl.tools.quickstart.ask import main_ppo
from sspo_verl.tools.quickstart.run import Run
from sspo_verl.tools.runs.main_ppo import started
from sspo_verl.tools.runs.platform import choose_platform
from sspo_verl.tools.tasks import arithmetic

ALGORITHMS = ("sspo", "sspo_no_entropy_clip", "grpo", "gspo")  # values of `algorithm=`
ARCHITECTURE = hugging_face.Architecture(hidden_size=64, intermediate_size=192, layers=3, heads=2)
REWARD = "critic/score/mean"
MOST_SECONDS = 7200  # a run takes four minutes on two idle cores, and half an hour on slow or busy ones


@dataclass(frozen=True)
class ThroughVerl:
    """Same parameters as `train`; the task is sums."""

    task: str
    algorithm: Algorithm
    updates: int
    learning_rate: float
    seed: int
    steps: int = 30
    prompts: int = 16
    group: int = 8

    def __post_init__(self):
        if self.task != "sums" or self.algorithm.name not in ALGORITHMS:
            raise ValueError(f"through verl: the task is sums and the algorithm one of {', '.join(ALGORITHMS)}.")

    def run(self) -> dict:
        """Result with the reward of each step's batch; their mean is `reward`."""
        with tempfile.TemporaryDirectory(prefix="sspo-study-") as folder:
            write_start(Path(folder) / "start")
            rewards = self.train(Run(Path(folder) / "run"), Path(folder) / "start")
        return {"reward": fmean(rewards), "curves": {"reward": rewards}}

    def overrides(self) -> tuple[str, ...]:
        return (
            f"data.seed={self.seed}",
            f"actor_rollout_ref.rollout.seed={self.seed}",
            f"data.train_batch_size={self.prompts}",
            f"actor_rollout_ref.rollout.n={self.group}",
            f"actor_rollout_ref.actor.ppo_mini_batch_size={self.prompts // self.updates}",
            f"actor_rollout_ref.actor.optim.lr={self.learning_rate}",
            f"trainer.total_training_steps={self.steps}",
            "trainer.val_before_train=false",
            "trainer.test_freq=-1",
            "trainer.save_freq=-1",
        )

    def train(self, run: Run, start_folder: Path) -> list[float]:
        job = main_ppo(run, start_folder, self.algorithm.name, choose_platform(), self.overrides())
        with started(job, run) as attempt:
            if (code := attempt.wait(MOST_SECONDS)) != 0:
                raise RuntimeError(f"verl ended with {code} (None: it was stopped):\n{attempt.log.read_text()[-3000:]}")
        rows = run.rows()
        return [rows[step][REWARD] for step in range(1, self.steps + 1)]


def write_start(folder: Path) -> None:
    """Write the starting model in Hugging Face's layout, and the task's data, where the recipe expects them."""
    tokenizer = byte_tokenizer.build()
    model = hugging_face.new_model(tokenizer, ARCHITECTURE)
    missing, unexpected = model.load_state_dict({n: w.float() for n, w in start("sums").items()}, strict=False)
    assert not unexpected, unexpected
    assert missing == ["lm_head.weight"], missing  # tied to the embedding
    hugging_face.save(model, tokenizer, folder / "model")
    arithmetic.write_parquet(folder / "data")
