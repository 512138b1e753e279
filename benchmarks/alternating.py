"""Loaded by benchmarks/step.py into every process of a run of verl (VERL_USE_EXTERNAL_MODULES): the algorithm changes
from step to step. So one process, one model and one moment serve both that are compared.

"grpo" is verl's own, without our diagnostics; "sspo" has them, as by default. Each has one of three steps, in an order
that changes: what a step costs may depend on the one before.
"""

import functools
import itertools
import time

import sspo_verl.plugin.register  # noqa: F401  its changes come before these
from sspo_verl.plugin.hook import after_import

ALGORITHMS = ("grpo", "sspo", "sspo, diagnostics=false")
ORDERS = list(itertools.permutations(ALGORITHMS))
LOSS_MODES = {"grpo": "vanilla"}
# Seconds of CPU are not disturbed by what else the machine does, as seconds on the wall are.
WALL, DRIVER_CPU = "benchmark/step", "benchmark/driver_cpu"
ACTOR_CPU = "actor/benchmark_cpu"

_steps = 0  # of this actor


def of_step(step: int) -> str:
    """The algorithm of a step, the first of which is 1."""
    turn, place = divmod(step - 1, len(ALGORITHMS))
    return ORDERS[turn % len(ORDERS)][place]


def _alternate_in_the_actor(workers) -> None:
    """The k-th update of an actor is that of step k."""
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
