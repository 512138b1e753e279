"""What SSPO adds to GRPO's step at 7B on 8 to 512 GPUs, on paper: python benchmarks/scale.py [--device cuda]

Measured here: the kernels that the loss launches beside `vanilla`'s, what the driver does with the counts of a
micro-batch and of a segment, the size of what travels, and the advantage of a response. Derived: GRPO's own step
(benchmarks/gpu_hours.py) and all that follows from the number of GPUs. The rest stands at the top.
"""

from __future__ import annotations

import argparse
import math
import pickle
import statistics
import time
from dataclasses import dataclass

import gpu_hours
import loss
import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sspo_verl.compose import composed

# Taken for granted
LAUNCH_SECONDS = 6e-6  # from one small kernel to the next, when Python launches them
TOKENS_PER_SEGMENT = 25
RECIPE, GPU = "qwen2_5_math_7b", gpu_hours.GPUS[1]
FIXED_BATCH, GROWING_BATCH = (1, 2, 4, 8, 16), (1, 2, 4, 8, 16, 32, 64)  # nodes of 8 GPUs
# Of torch's operations, those that launch nothing: they only look at a tensor in another way.
VIEWS = {"view", "expand", "slice", "select", "unsqueeze", "squeeze", "detach", "alias", "t", "transpose", "permute"}
VIEWS |= {"as_strided", "split", "split_with_sizes", "unbind", "_unsafe_view", "empty", "empty_like", "lift_fresh"}


class Launches(TorchDispatchMode):
    """Counts operations that would launch a kernel."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ not in VIEWS
        return func(*args, **(kwargs or {}))


def launches(name: str, device: str) -> int:
    batch = loss.make_batch(9, 1024, TOKENS_PER_SEGMENT, device)
    batch["log_prob"].requires_grad_()
    batch["tokens"] = int(batch["response_mask"].sum())
    run = loss.loss_of(name)
    run(batch)
    with Launches() as counted:
        run(batch)
    return counted.count


def median_seconds(function, repetitions: int = 15) -> float:
    """Of processor time: what else the machine does is not counted."""
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


@dataclass(frozen=True)
class Driver:
    """What the driver does with the counts of a step: seconds and bytes, for each micro-batch and each segment."""

    seconds_micro_batch: float
    seconds_segment: float
    bytes_micro_batch: float
    bytes_segment: float


def driver() -> Driver:
    """Unpickling the counts of a step and making metrics of them, at two sizes of micro-batch."""
    from sspo_verl.config import SSPOPolicyLossConfig
    from sspo_verl.diagnostics import finalize
    from sspo_verl.diagnostics.counts import observe

    def cost(segments: int, micro_batches: int) -> tuple[float, float]:
        ones = torch.ones(1, segments)
        counts, _ = observe(
            old_log_prob=-ones,
            log_prob=-ones,
            advantages=ones,
            response_mask=ones,
            segment_ids=torch.arange(segments)[None],
            entropy=torch.rand(1, segments),
            **SSPOPolicyLossConfig().bounds(),
        ).fetch()
        pickled = [pickle.dumps(counts) for _ in range(micro_batches)]
        seconds = median_seconds(lambda: finalize.metrics([pickle.loads(p) for p in pickled]))
        return seconds / micro_batches, len(pickled[0])

    few, many = 10, 2000
    (seconds_few, bytes_few), (seconds_many, bytes_many) = cost(few, 1000), cost(many, 200)
    per_segment = ((seconds_many - seconds_few) / (many - few), (bytes_many - bytes_few) / (many - few))
    return Driver(seconds_few - few * per_segment[0], per_segment[0], bytes_few - few * per_segment[1], per_segment[1])


def advantage_seconds() -> tuple[float, float]:
    """Of a response, on the driver: ours, and verl's grpo."""
    import verl  # noqa: F401  loads the plugin
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    responses, group, length = 1024, 8, 1000
    index = np.repeat([f"prompt-{i}" for i in range(responses // group)], group)
    rewards = torch.zeros(responses, length)
    rewards[:, -1] = (torch.arange(responses) % 3 == 0).float()
    mask = torch.ones(responses, length)
    config = {"norm_adv_by_std_in_grpo": True}

    def of(name: str) -> float:
        estimator = get_adv_estimator_fn(name)
        return (
            median_seconds(
                lambda: estimator(token_level_rewards=rewards, response_mask=mask, index=index, config=config)
            )
            / responses
        )

    return of("sspo"), of("grpo")


def rows(extra_launches: int, on_driver: Driver, advantage: float, grows: bool) -> list[str]:
    lines = []
    tokens = gpu_hours.RESPONSE_TOKENS
    for nodes in GROWING_BATCH if grows else FIXED_BATCH:
        factor = nodes if grows else 1
        base = composed(gpu_hours.RECIPES, RECIPE, [])
        prompts = base.data.train_batch_size * factor
        mini = base.actor_rollout_ref.actor.ppo_mini_batch_size * factor
        config = composed(
            gpu_hours.RECIPES,
            RECIPE,
            [
                f"trainer.nnodes={nodes}",
                f"data.train_batch_size={prompts}",
                f"actor_rollout_ref.actor.ppo_mini_batch_size={mini}",
            ],
        )
        model = gpu_hours.MODELS["Qwen2.5-Math-7B"]
        step = gpu_hours.cost(config, model, GPU, tokens).step
        responses = prompts * config.actor_rollout_ref.rollout.n
        gpus = nodes * config.trainer.n_gpus_per_node
        of_an_update = responses * mini // prompts // gpus * (tokens + gpu_hours.PROMPT_TOKENS)
        micro = (prompts // mini) * math.ceil(of_an_update / config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu)
        segments = responses * tokens / TOKENS_PER_SEGMENT
        on_gpu = micro * extra_launches * LAUNCH_SECONDS
        gathered = micro * gpus * on_driver.seconds_micro_batch + segments * on_driver.seconds_segment
        size = micro * gpus * on_driver.bytes_micro_batch + segments * on_driver.bytes_segment
        group = responses * advantage
        more = on_gpu + gathered + max(group, 0)  # what the advantage saves is not set against the rest
        share, nanoseconds = more / step, more * 1e9 / (responses * tokens)
        cells = [str(gpus), f"{responses:,}", f"{step:.1f} s", f"{on_gpu * 1e3:.1f} ms", f"{gathered * 1e3:.0f} ms"]
        cells += [f"{size / 1e6:.1f} MB", f"{group * 1e3:+.1f} ms", f"{nanoseconds:.0f} ns", f"{100 * share:.2f} %"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="where the kernels of the loss are counted")
    device = parser.parse_args().device
    torch.set_num_threads(1)
    counted = {name: launches(name, device) for name in ("sspo", "vanilla")}
    on_driver = driver()
    ours, verls = advantage_seconds()
    print(f"kernels of a micro-batch: sspo {counted['sspo']}, vanilla {counted['vanilla']} ({device})")
    print(
        f"driver: {on_driver.seconds_micro_batch * 1e6:.0f} µs and {on_driver.bytes_micro_batch:,.0f} B a micro-batch, "
        f"{on_driver.seconds_segment * 1e9:.0f} ns and {on_driver.bytes_segment:.0f} B a segment"
    )
    print(f"advantage of a response: sspo {ours * 1e6:.1f} µs, grpo {verls * 1e6:.1f} µs")
    columns = ("GPUs", "responses a step", "GRPO's step", "loss, metrics", "driver", "travels", "advantage")
    columns += ("a token", "of the step")
    head = f"| {' | '.join(columns)} |"
    for grows, title in ((False, "The recipe's batch"), (True, "A batch that grows with the GPUs")):
        print(f"\n{title}\n\n{head}\n|{'---|' * len(columns)}")
        print("\n".join(rows(counted["sspo"] - counted["vanilla"], on_driver, ours - verls, grows)))


if __name__ == "__main__":
    main()
