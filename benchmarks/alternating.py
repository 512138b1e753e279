"""Changes the algorithm of a verl run from step to step. Loaded by benchmarks/step.py into every process of the run
(VERL_USE_EXTERNAL_MODULES), so that the algorithms are compared in one process, with one model, at the same time.

"grpo" is verl's own, without our diagnostics; "sspo" has them, as by default. Each gets one of three steps, in varying
order: the cost of a step may depend on the one before.
"""

import functools
import itertools
import time

import sspo_verl.plugin.register  # noqa: F401  its patches must come before these
from sspo_verl.plugin.hook import after_import

ALGORITHMS = ("grpo", "sspo", "sspo, diagnostics=false")
ORDERS = list(itertools.permutations(ALGORITHMS))
LOSS_MODES = {"grpo": "vanilla"}
# CPU seconds are not affected by other load on the machine, unlike wall-clock seconds.
WALL, DRIVER_CPU = "benchmark/step", "benchmark/driver_cpu"
ACTOR_CPU = "actor/benchmark_cpu"

_steps = 0  # steps of this actor


def of_step(step: int) -> str:
    """The algorithm of a step, counted from 1."""
    turn, place = divmod(step - 1, len(ALGORITHMS))
    return ORDERS[turn % len(ORDERS)][place]


def _alternate_in_the_actor(workers) -> None:
    """Switch the algorithm in the actor, whose k-th update belongs to step k."""
    update = workers.ActorRolloutRefWorker.update_actor

    @functools.wraps(update)
    def update_actor(self, data):
        global _steps
        _steps += 1
        algorithm = of_step(_steps)
        settings = self.loss_fn.keywords["config"].policy_loss
        object.__setattr__(settings, "loss_mode", LOSS_MODES.get(algorithm, "sspo"))
        object.__setattr__(settings, "diagnostics", algorithm == "sspo")
        began = time.process_time()
        output = update(self, data)
        output["metrics"][ACTOR_CPU] = time.process_time() - began
        return output

    workers.ActorRolloutRefWorker.update_actor = update_actor


def _alternate_on_the_driver(trainer_base) -> None:
    step = trainer_base.PPOTrainer.step

    @functools.wraps(step)
    def timed_step(self, metrics, timing_raw):
        grpo = of_step(self.global_steps) == "grpo"
        self.config.algorithm.adv_estimator = "grpo" if grpo else "sspo"
        wall, cpu = time.perf_counter(), time.process_time()
        batch = step(self, metrics, timing_raw)
        metrics[WALL], metrics[DRIVER_CPU] = time.perf_counter() - wall, time.process_time() - cpu
        return batch

    trainer_base.PPOTrainer.step = timed_step


after_import("verl.workers.engine_workers", _alternate_in_the_actor)
after_import("verl.trainer.ppo.v1.trainer_base", _alternate_on_the_driver)
